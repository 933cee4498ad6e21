//! rpm's database: a table of package headers, in one of three containers. Fedora and its kin keep it in [`sqlite`],
//! SUSE in [`ndb`], releases before 2020 in [`bdb`]. Nothing of the image is executed to read it, and no library is
//! asked that would take a database of SQLite's or Berkeley's to be trusted: only the few structures that hold the
//! headers are followed.
//!
//! A header (rpm's `docs/manual/format_header.md`): two numbers, of entries and of bytes, in big endian; the entries,
//! each a tag, a type, an offset and a count; then the bytes.

mod bdb;
mod ndb;
mod sqlite;

use super::{Package, read::bytes};
use crate::flatten::Tree;

type Reader = fn(&[u8]) -> Option<Vec<Vec<u8>>>;

/// Where databases are, and who reads them. `usr/lib/sysimage` is where newer distributions keep it.
const DATABASES: [(&str, Reader); 6] = [
    ("usr/lib/sysimage/rpm/rpmdb.sqlite", sqlite::headers),
    ("var/lib/rpm/rpmdb.sqlite", sqlite::headers),
    ("usr/lib/sysimage/rpm/Packages.db", ndb::headers),
    ("var/lib/rpm/Packages.db", ndb::headers),
    ("usr/lib/sysimage/rpm/Packages", bdb::headers),
    ("var/lib/rpm/Packages", bdb::headers),
];

/// All installed packages, by the first database that is there; or the path of the one that cannot be read.
pub(super) fn packages(tree: &Tree) -> Result<Vec<Package>, String> {
    let found = DATABASES.iter().find_map(|(path, reader)| Some((path, reader, bytes(tree, path)?)));
    let Some((path, headers, database)) = found else { return Ok(Vec::new()) };
    let headers = headers(&database).ok_or_else(|| format!("/{path}"))?;
    Ok(headers.iter().filter_map(|header| package(header)).collect())
}

/// Tags of a header (rpm's `rpmtag.h`).
mod tag {
    pub(super) const NAME: u32 = 1000;
    pub(super) const VERSION: u32 = 1001;
    pub(super) const RELEASE: u32 = 1002;
    pub(super) const EPOCH: u32 = 1003;
    pub(super) const VENDOR: u32 = 1011;
    pub(super) const LICENCE: u32 = 1014;
    pub(super) const PACKAGER: u32 = 1015;
    pub(super) const URL: u32 = 1020;
    pub(super) const ARCHITECTURE: u32 = 1022;
    pub(super) const SOURCE_RPM: u32 = 1044;
}

/// The types that these tags have.
mod kind {
    pub(super) const INT32: u32 = 4;
    pub(super) const STRING: u32 = 6;
    pub(super) const I18N_STRING: u32 = 9;
}

fn package(header: &[u8]) -> Option<Package> {
    let header = Header::read(header)?;
    let name = header.text(tag::NAME)?;
    // Keys are kept as if they were packages.
    if name == "gpg-pubkey" {
        return None;
    }
    let epoch = header.number(tag::EPOCH).map(|epoch| format!("{epoch}:")).unwrap_or_default();
    let version = format!("{epoch}{}-{}", header.text(tag::VERSION)?, header.text(tag::RELEASE)?);
    // `bash-5.2.15-5.fc39.src.rpm`: name, version and release.
    let source = header.text(tag::SOURCE_RPM).and_then(|file| {
        let mut parts = file.rsplitn(3, '-');
        parts.nth(2).map(str::to_owned)
    });
    Some(Package {
        version,
        architecture: header.text(tag::ARCHITECTURE),
        source: source.filter(|source| *source != name),
        maintainer: header.text(tag::PACKAGER).or_else(|| header.text(tag::VENDOR)),
        homepage: header.text(tag::URL),
        licences: header.text(tag::LICENCE).into_iter().collect(),
        name,
    })
}

struct Header<'a> {
    entries: &'a [[u8; 16]],
    data: &'a [u8],
}

impl<'a> Header<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (count, rest) = (big(bytes, 0)?, bytes.get(8..)?);
        let (entries, data) = rest.split_at_checked(count.checked_mul(16)?)?;
        Some(Self { entries: entries.as_chunks().0, data: data.get(..big(bytes, 4)?)? })
    }

    fn find(&self, tag: u32, kinds: &[u32]) -> Option<&'a [u8]> {
        let word =
            |entry: &[u8; 16], at: usize| u32::from_be_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]);
        let entry = self.entries.iter().find(|entry| word(entry, 0) == tag && kinds.contains(&word(entry, 4)))?;
        self.data.get(usize::try_from(word(entry, 8)).ok()?..)
    }

    /// A string that is not empty.
    fn text(&self, tag: u32) -> Option<String> {
        let data = self.find(tag, &[kind::STRING, kind::I18N_STRING])?;
        let text = data.split(|byte| *byte == 0).next().filter(|text| !text.is_empty() && *text != b"(none)")?;
        Some(String::from_utf8_lossy(text).into_owned())
    }

    fn number(&self, tag: u32) -> Option<usize> {
        big(self.find(tag, &[kind::INT32])?, 0)
    }
}

/// A number of four bytes in big endian.
fn big(bytes: &[u8], at: usize) -> Option<usize> {
    let word = bytes.get(at..)?.first_chunk()?;
    usize::try_from(u32::from_be_bytes(*word)).ok()
}

/// A number of four bytes in little endian.
fn little(bytes: &[u8], at: usize) -> Option<usize> {
    let word = bytes.get(at..)?.first_chunk()?;
    usize::try_from(u32::from_le_bytes(*word)).ok()
}

#[cfg(test)]
mod tests;
