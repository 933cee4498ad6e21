//! dpkg's database (dpkg(1), `/var/lib/dpkg/status`), also cut into one file per package as distroless images have it, and
//! copyright files in the machine-readable format (Debian copyright-format 1.0).

use std::collections::BTreeSet;

use super::{
    Package,
    read::{field, paragraphs, text},
};
use crate::flatten::Tree;

const STATUS: &str = "var/lib/dpkg/status";
const PARTS: &str = "var/lib/dpkg/status.d/";

/// All installed packages.
pub(super) fn packages(tree: &Tree) -> Vec<Package> {
    let parts = tree.paths.range(PARTS.as_bytes().to_vec()..);
    let parts = parts
        .map_while(|(path, _)| std::str::from_utf8(path).ok().filter(|path| path.starts_with(PARTS)))
        .filter(|path| !path.ends_with(".md5sums"))
        .filter_map(|path| text(tree, path));
    text(tree, STATUS).into_iter().chain(parts).flat_map(|text| installed(tree, &text)).collect()
}

fn installed(tree: &Tree, status: &str) -> Vec<Package> {
    paragraphs(status)
        .filter_map(|fields| {
            // `install ok installed`; a package whose configuration files alone are left is not there. Parts have no state.
            if field(&fields, "Status").is_some_and(|status| !status.ends_with(" installed")) {
                return None;
            }
            let name = field(&fields, "Package")?;
            Some(Package {
                version: field(&fields, "Version")?,
                architecture: field(&fields, "Architecture"),
                // `Source: glibc (2.36-9)`
                source: field(&fields, "Source").map(|text| text.split(' ').next().unwrap_or_default().to_owned()),
                maintainer: field(&fields, "Maintainer"),
                homepage: field(&fields, "Homepage"),
                licences: licences(tree, &name),
                name,
            })
        })
        .collect()
}

/// The short names in the `License` fields of a copyright file; none if it is written for people only.
fn licences(tree: &Tree, package: &str) -> BTreeSet<String> {
    let Some(text) = text(tree, &format!("usr/share/doc/{package}/copyright")) else { return BTreeSet::new() };
    let mut paragraphs = paragraphs(&text);
    if paragraphs.next().and_then(|first| field(&first, "Format")).is_none() {
        return BTreeSet::new();
    }
    paragraphs
        .filter_map(|fields| field(&fields, "License"))
        .filter_map(|licence| licence.lines().next().map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packages::read::tests::tree;

    #[test]
    fn what_is_installed_is_listed_with_its_licences() {
        let tree = tree(&[
            (
                STATUS,
                "Package: bash\nStatus: install ok installed\nArchitecture: amd64\nVersion: 5.2-1\nDescription: shell\n .\n more\n\n\
                 Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n\
                 Package: libc6\nStatus: install ok installed\nSource: glibc (2.36)\nVersion: 2.36-9\n",
            ),
            ("usr/share/doc/bash", "-> bash-real"),
            (
                "usr/share/doc/bash-real/copyright",
                "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nLicense: GPL-3+\n text\n\n\
                 License: GPL-3+\n Long.\n\nFiles: x\nLicense: Expat\n",
            ),
            ("usr/share/doc/libc6/copyright", "This is the GNU C library.\n\nLicense: for people\n"),
            ("var/lib/dpkg/status.d/tzdata", "Package: tzdata\nVersion: 2024a\n"),
            ("var/lib/dpkg/status.d/tzdata.md5sums", "Package: none\nVersion: 1\n"),
        ]);
        let found = packages(&tree);
        let names: Vec<&str> = found.iter().map(|package| &*package.name).collect();
        assert_eq!(names, ["bash", "libc6", "tzdata"]);
        assert_eq!(found[0].licences.iter().collect::<Vec<_>>(), ["Expat", "GPL-3+"]);
        assert_eq!(found[1].source.as_deref(), Some("glibc"));
        assert!(found[1].licences.is_empty());
    }
}
