//! The list as CycloneDX 1.5, in JSON (ECMA-424).

use serde_json::{Value, json};

use super::{Package, Packages, Subject};

/// The document.
#[must_use]
pub fn cyclonedx(found: &Packages, subject: &Subject) -> Value {
    let mut metadata = json!({
        "tools": { "components": [{ "type": "application", "name": "coracle", "version": env!("CARGO_PKG_VERSION") }] },
        "component": {
            "bom-ref": "image",
            "type": "container",
            "name": subject.name,
            "hashes": [{ "alg": "SHA-256", "content": subject.sha256 }],
        },
    });
    if let Some(time) = subject.timestamp() {
        metadata["timestamp"] = time.into();
    }
    let mut components = Vec::new();
    if let Some(name) = &found.distribution {
        let mut system = json!({ "bom-ref": "system", "type": "operating-system", "name": name });
        if let Some(release) = &found.release {
            system["version"] = release.clone().into();
        }
        components.push(system);
    }
    components.extend(found.list.iter().map(|package| component(found, package)));
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": metadata,
        "components": components,
    })
}

fn component(found: &Packages, package: &Package) -> Value {
    let url = found.url(package);
    let mut component = json!({
        "bom-ref": url,
        "type": "library",
        "name": package.name,
        "version": package.version,
        "purl": url,
    });
    if !package.licences.is_empty() {
        let named = package.licences.iter().map(|name| json!({ "license": { "name": name } }));
        component["licenses"] = named.collect();
    }
    if let Some(maintainer) = &package.maintainer {
        component["publisher"] = maintainer.clone().into();
    }
    if let Some(homepage) = &package.homepage {
        component["externalReferences"] = json!([{ "type": "website", "url": homepage }]);
    }
    if let Some(source) = &package.source {
        component["properties"] = json!([{ "name": "coracle:source", "value": source }]);
    }
    component
}
