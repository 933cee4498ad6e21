//! Alpine's database (apk-package(5), `/lib/apk/db/installed`): a line per field with one letter for its name.

use super::{
    Package,
    read::{paragraphs, text},
};
use crate::flatten::Tree;

/// Where it is; newer releases have `/usr/lib`.
const INSTALLED: [&str; 2] = ["lib/apk/db/installed", "usr/lib/apk/db/installed"];

/// All installed packages.
pub(super) fn packages(tree: &Tree) -> Vec<Package> {
    let Some(text) = INSTALLED.iter().find_map(|path| text(tree, path)) else { return Vec::new() };
    paragraphs(&text)
        .filter_map(|fields| {
            // Names of fields differ by case alone (`L`: licence, `l`: nothing here), so case counts.
            let get = |key: &str| fields.iter().find(|(name, _)| *name == key).map(|(_, value)| value.clone());
            let name = get("P")?;
            Some(Package {
                version: get("V")?,
                architecture: get("A"),
                source: get("o").filter(|origin| *origin != name),
                maintainer: get("m"),
                homepage: get("U"),
                licences: get("L").filter(|licence| !licence.is_empty()).into_iter().collect(),
                name,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packages::read::tests::tree;

    #[test]
    fn fields_are_told_apart_by_case() {
        let tree = tree(&[(
            INSTALLED[0],
            "C:Q1abc=\nP:musl\nV:1.2.5-r0\nA:x86_64\nS:407278\nL:MIT\no:musl\nm:A <a@b>\nU:https://musl.libc.org/\nF:lib\nR:libc.so\n\n\
             P:musl-utils\nV:1.2.5-r0\no:musl\nL:MIT AND BSD-2-Clause AND GPL-2.0-or-later\n\n",
        )]);
        let found = packages(&tree);
        assert_eq!((found.len(), &*found[0].name, &*found[1].version), (2, "musl", "1.2.5-r0"));
        assert_eq!((found[0].source.clone(), found[1].source.as_deref()), (None, Some("musl")));
        assert_eq!(found[0].homepage.as_deref(), Some("https://musl.libc.org/"));
        assert!(found[1].licences.contains("MIT AND BSD-2-Clause AND GPL-2.0-or-later"));
    }
}
