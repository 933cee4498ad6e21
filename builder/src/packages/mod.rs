//! The packages that a distribution's package manager has installed in a tree, by its own database; and their list in the
//! formats that others read.
//!
//! Databases are text of whoever made the image: what cannot be understood is left out, and the list says what was read.

mod apk;
mod cyclonedx;
mod dpkg;
mod read;
mod rpm;
mod spdx;

use std::collections::BTreeSet;

use crate::flatten::Tree;

pub use cyclonedx::cyclonedx;
pub use spdx::spdx;

/// One package as installed.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version, with the distribution's revision.
    pub version: String,
    /// The architecture that it is for, as the package manager calls it.
    pub architecture: Option<String>,
    /// The source package that it was built of, if that has another name.
    pub source: Option<String>,
    /// Who looks after it.
    pub maintainer: Option<String>,
    /// Where it comes from.
    pub homepage: Option<String>,
    /// Names of its licences: an SPDX expression where the database has one, else as its copyright file names them.
    pub licences: BTreeSet<String>,
}

/// What was found in a tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packages {
    /// The package manager's kind by the specification of package URLs: `deb`, `apk`, `rpm`.
    pub kind: Option<&'static str>,
    /// `ID` of os-release(5).
    pub distribution: Option<String>,
    /// `VERSION_ID` of os-release(5).
    pub release: Option<String>,
    /// All packages, by name.
    pub list: Vec<Package>,
    /// Databases of managers that this version cannot read.
    pub unread: Vec<String>,
}

/// Databases of managers that this version does not know.
const UNREAD: [&str; 1] = ["var/lib/pacman/local"];

impl Packages {
    /// Reads a tree's databases.
    #[must_use]
    pub fn of(tree: &Tree) -> Self {
        let mut found = Self::default();
        for database in UNREAD {
            if tree.get(database.as_bytes()).is_some() {
                found.unread.push(format!("/{database}"));
            }
        }
        (found.distribution, found.release) = read::release(tree);
        let rpm = rpm::packages(tree).unwrap_or_else(|path| {
            found.unread.push(path);
            Vec::new()
        });
        for (kind, list) in [("deb", dpkg::packages(tree)), ("apk", apk::packages(tree)), ("rpm", rpm)] {
            if !list.is_empty() {
                found.kind = Some(kind);
                found.list = list;
                found.list.sort();
                break;
            }
        }
        found
    }

    /// Names of all licences.
    #[must_use]
    pub fn licences(&self) -> BTreeSet<String> {
        self.list.iter().flat_map(|package| package.licences.iter().cloned()).collect()
    }

    /// The package's URL (purl-spec): `pkg:deb/debian/bash@5.2-1?arch=amd64&distro=debian-12`.
    fn url(&self, package: &Package) -> String {
        let part = |text: &str| -> String {
            text.bytes().fold(String::new(), |mut out, byte| {
                match byte {
                    b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' => out.push(byte.into()),
                    byte => out.push_str(&format!("%{byte:02X}")),
                }
                out
            })
        };
        let kind = self.kind.unwrap_or("generic");
        let space = self.distribution.as_deref().map(|name| format!("{}/", part(name))).unwrap_or_default();
        // Of rpm's versions the epoch stands apart.
        let (epoch, version) = match package.version.split_once(':').filter(|_| kind == "rpm") {
            Some((epoch, version)) => (Some(epoch), version),
            None => (None, &*package.version),
        };
        let mut url = format!("pkg:{kind}/{space}{}@{}", part(&package.name), part(version));
        let distro = self.distribution.as_ref().zip(self.release.as_ref());
        let distro = distro.map(|(name, release)| format!("distro={}-{}", part(name), part(release)));
        let arch = package.architecture.as_ref().map(|arch| format!("arch={}", part(arch)));
        let epoch = epoch.map(|epoch| format!("epoch={}", part(epoch)));
        let qualifiers: Vec<String> = arch.into_iter().chain(distro).chain(epoch).collect();
        if !qualifiers.is_empty() {
            url.push('?');
            url.push_str(&qualifiers.join("&"));
        }
        url
    }
}

/// What a list is about, and when it is said to have been made.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The image, as its source names it.
    pub name: String,
    /// A digest that identifies it, in hexadecimal.
    pub sha256: String,
    /// Seconds since 1970, if the user set a time (`SOURCE_DATE_EPOCH`): the same image gives the same list.
    pub time: Option<i64>,
}

impl Subject {
    /// RFC 3339, in UTC.
    fn timestamp(&self) -> Option<String> {
        Some(coracle_api::rfc3339(u64::try_from(self.time?).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packages::read::tests::tree;

    #[test]
    fn urls_are_those_of_the_specification() {
        let found = Packages {
            kind: Some("deb"),
            distribution: Some("debian".into()),
            release: Some("12".into()),
            ..Packages::default()
        };
        let package = Package {
            name: "libstdc++6".into(),
            version: "1:12.2.0-14+deb12u1".into(),
            architecture: Some("amd64".into()),
            ..Package::default()
        };
        assert_eq!(
            found.url(&package),
            "pkg:deb/debian/libstdc%2B%2B6@1%3A12.2.0-14%2Bdeb12u1?arch=amd64&distro=debian-12"
        );
    }

    #[test]
    fn an_epoch_of_rpms_is_a_qualifier() {
        let found = Packages { kind: Some("rpm"), distribution: Some("fedora".into()), ..Packages::default() };
        let package = Package { name: "dnf".into(), version: "1:4.2-1".into(), ..Package::default() };
        assert_eq!(found.url(&package), "pkg:rpm/fedora/dnf@4.2-1?epoch=1");
    }

    #[test]
    fn a_tree_without_a_package_manager_has_none_and_says_what_it_could_not_read() {
        let tree = tree(&[("var/lib/rpm/rpmdb.sqlite", "SQLite format 3\0")]);
        let found = Packages::of(&tree);
        assert!(found.list.is_empty() && found.kind.is_none());
        assert_eq!(found.unread, ["/var/lib/rpm/rpmdb.sqlite"], "it has a name and nothing more");
    }
}
