//! Lists of packages: what the image's own package manager says is what the list has.

use std::collections::BTreeSet;

use harness::{Sandbox, bundles};
use serde_json::Value;

fn json(sandbox: &Sandbox, args: &[&str]) -> Value {
    serde_json::from_str(sandbox.coracle(args).ok()).unwrap()
}

#[test]
fn the_list_is_what_apk_says() {
    let Some(bundle) = bundles::alpine() else { return };
    let sandbox = Sandbox::new();
    let path = bundle.to_str().unwrap();
    let listed = json(&sandbox, &["sbom", path]);
    let found: BTreeSet<String> = listed["components"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|component| component["type"] == "library")
        .map(|component| format!("{}-{}", component["name"].as_str().unwrap(), component["version"].as_str().unwrap()))
        .collect();
    let output = sandbox.run(&bundle, ["apk", "info", "-v"]);
    let installed: BTreeSet<String> = output.ok().lines().map(str::to_owned).collect();
    assert_eq!(found, installed);

    // The same again, and from another way to the same tree: the lists hold no time and no place.
    assert_eq!(json(&sandbox, &["sbom", path]), listed);
    assert!(listed["metadata"]["timestamp"].is_null());
    let spdx = json(&sandbox, &["sbom", "--format=spdx", path]);
    assert_eq!(spdx["packages"].as_array().unwrap().len(), installed.len() + 1);
    assert_eq!(spdx["spdxVersion"], "SPDX-2.3");
    sandbox.coracle(["sbom", "-o", "list.json", path]).ok();
    let written: Value = serde_json::from_slice(&std::fs::read(sandbox.work("list.json")).unwrap()).unwrap();
    assert_eq!(written, listed);
}

#[test]
fn a_bundle_tells_its_licences() {
    let Some(bundle) = bundles::alpine() else { return };
    let sandbox = Sandbox::new();
    let info = |args: &[&str]| -> Value { serde_json::from_str(sandbox.run(&bundle, args).ok()).unwrap() };
    assert_eq!(info(&["--coracle-info=json"]), info(&["--coracle-info", "--json"]));
    let licences = info(&["--coracle-info=json"])["manifest"]["provenance"]["licences"].clone();
    assert!(licences.as_array().is_some_and(|all| all.contains(&"GPL-2.0-only".into())), "{licences}");
}
