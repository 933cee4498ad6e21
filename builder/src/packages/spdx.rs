//! The list as SPDX 2.3, in JSON (ISO/IEC 5962).

use serde_json::{Value, json};

use super::{Package, Packages, Subject};

/// What the format wants where nothing is asserted.
const NOTHING: &str = "NOASSERTION";

/// The document.
#[must_use]
pub fn spdx(found: &Packages, subject: &Subject) -> Value {
    let mut packages = vec![json!({
        "SPDXID": "SPDXRef-image",
        "name": subject.name,
        "downloadLocation": NOTHING,
        "filesAnalyzed": false,
        "primaryPackagePurpose": "CONTAINER",
        "checksums": [{ "algorithm": "SHA256", "checksumValue": subject.sha256 }],
    })];
    let mut relationships = vec![relationship("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-image")];
    for (number, one) in found.list.iter().enumerate() {
        let id = format!("SPDXRef-package-{number}");
        relationships.push(relationship("SPDXRef-image", "CONTAINS", &id));
        packages.push(package(found, one, &id));
    }
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": subject.name,
        // An address that is the same for the same image, and leads nowhere.
        "documentNamespace": format!("urn:coracle:sbom:sha256:{}", subject.sha256),
        "creationInfo": {
            // The format wants a time. The first one there is says as little as can be said.
            "created": subject.timestamp().unwrap_or_else(|| "1970-01-01T00:00:00Z".to_owned()),
            "creators": [format!("Tool: coracle-{}", env!("CARGO_PKG_VERSION"))],
        },
        "packages": packages,
        "relationships": relationships,
    })
}

fn relationship(from: &str, kind: &str, to: &str) -> Value {
    json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to })
}

fn package(found: &Packages, package: &Package, id: &str) -> Value {
    let mut value = json!({
        "SPDXID": id,
        "name": package.name,
        "versionInfo": package.version,
        "downloadLocation": NOTHING,
        "filesAnalyzed": false,
        "licenseConcluded": NOTHING,
        "licenseDeclared": NOTHING,
        "copyrightText": NOTHING,
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": found.url(package),
        }],
    });
    if !package.licences.is_empty() {
        // Names of distributions are no SPDX expressions, so they are told and not declared.
        let names: Vec<&str> = package.licences.iter().map(String::as_str).collect();
        value["licenseComments"] = format!("named by the package: {}", names.join(", ")).into();
    }
    if let Some(maintainer) = &package.maintainer {
        value["supplier"] = format!("Organization: {maintainer}").into();
    }
    if let Some(homepage) = &package.homepage {
        value["homepage"] = homepage.clone().into();
    }
    if let Some(source) = &package.source {
        value["sourceInfo"] = format!("built from the source package {source}").into();
    }
    value
}
