//! PAX extended headers: `LENGTH KEY=VALUE\n` records that override what the next entry's header says.
//!
//! Values are bytes and may hold newlines (file capabilities do), so records are cut by their lengths alone.

use base64::Engine as _;
use coracle_format::{Time, Xattr};

/// What extended headers say about the next entry.
#[derive(Debug, Clone, Default)]
pub(crate) struct Extended {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) uid: Option<u64>,
    pub(crate) gid: Option<u64>,
    pub(crate) mtime: Option<Time>,
    pub(crate) xattrs: Vec<Xattr>,
    pub(crate) sparse: Sparse,
}

/// GNU tar's three ways to tell of holes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sparse {
    /// `GNU.sparse.major`: 1 where the map stands before the data.
    pub(crate) major: Option<u64>,
    /// `GNU.sparse.name`: the true name.
    pub(crate) name: Option<Vec<u8>>,
    /// `GNU.sparse.size` or `GNU.sparse.realsize`: the true length.
    pub(crate) real_size: Option<u64>,
    /// Offsets and lengths by turns, from `GNU.sparse.map` (0.1) or `GNU.sparse.offset`/`numbytes` (0.0).
    pub(crate) map: Option<Vec<u64>>,
}

impl Extended {
    /// Takes in one extended header. A global one (`g`) may not name or size entries, which would make no sense.
    pub(crate) fn merge(&mut self, mut bytes: &[u8], global: bool) -> Result<(), String> {
        // Padding with NULs is tolerated, as other readers do.
        while bytes.first().is_some_and(|byte| *byte != 0) {
            let (key, value, rest) = record(bytes).ok_or("a malformed extended header")?;
            bytes = rest;
            if !global || matches!(key, b"uid" | b"gid" | b"mtime") {
                self.take(key, value)
                    .ok_or_else(|| format!("a malformed {} in an extended header", String::from_utf8_lossy(key)))?;
            }
        }
        Ok(())
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let text = || (!value.is_empty()).then(|| value.to_vec());
        // An empty value takes an earlier record back.
        let number = || if value.is_empty() { Some(None) } else { decimal(value).map(Some) };
        match key {
            b"path" => self.path = text(),
            b"linkpath" => self.link = text(),
            b"size" => self.size = number()?,
            b"uid" => self.uid = number()?,
            b"gid" => self.gid = number()?,
            b"mtime" => self.mtime = if value.is_empty() { None } else { Some(time(value)?) },
            b"GNU.sparse.major" => self.sparse.major = number()?,
            b"GNU.sparse.name" => self.sparse.name = text(),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.real_size = number()?,
            b"GNU.sparse.map" => {
                let numbers: Option<Vec<u64>> =
                    value.split(|byte| *byte == b',').filter(|n| !n.is_empty()).map(decimal).collect();
                self.sparse.map = Some(numbers?);
            }
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                self.sparse.map.get_or_insert_default().push(decimal(value)?);
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.attribute(name, value.to_vec());
                } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                    let engine = base64::engine::general_purpose::GeneralPurpose::new(
                        &base64::alphabet::STANDARD,
                        base64::engine::GeneralPurposeConfig::new()
                            .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
                    );
                    self.attribute(&percent_decoded(name), engine.decode(value).ok()?);
                }
            }
        }
        Some(())
    }

    /// Both spellings may stand side by side (bsdtar writes both): the last one counts.
    fn attribute(&mut self, name: &[u8], value: Vec<u8>) {
        if name.is_empty() || name.contains(&0) || is_of_the_host(name) {
            return;
        }
        match self.xattrs.binary_search_by(|xattr| xattr.name.as_slice().cmp(name)) {
            Ok(at) => self.xattrs[at].value = value,
            Err(at) => self.xattrs.insert(at, Xattr { name: name.to_vec(), value }),
        }
    }
}

/// Attributes that a host's security policy or file server put there; they mean nothing elsewhere, and umoci leaves them
/// out too.
pub(crate) fn is_of_the_host(name: &[u8]) -> bool {
    matches!(name, b"security.selinux" | b"system.nfs4_acl")
}

/// Key, value and what follows of the first record.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let len = usize::try_from(decimal(&bytes[..space])?).ok()?;
    let (whole, rest) = bytes.split_at_checked(len)?;
    let body = whole.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    Some((&body[..equals], &body[equals + 1..], rest))
}

pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// `[-]SECONDS[.FRACTION]`.
fn time(value: &[u8]) -> Option<Time> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let negative = whole.starts_with('-');
    let seconds: i64 = if whole == "-" { 0 } else { whole.parse().ok()? };
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mut nanoseconds: u32 = format!("{fraction:0<9}")[..9].parse().ok()?;
    let mut seconds = seconds;
    if negative && nanoseconds > 0 {
        seconds = seconds.checked_sub(1)?;
        nanoseconds = 1_000_000_000 - nanoseconds;
    }
    Some(Time { seconds, nanoseconds })
}

/// libarchive writes attribute names like URLs.
fn percent_decoded(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let escaped = (byte == b'%').then(|| tail.get(..2)).flatten().and_then(|pair| {
            let text = std::str::from_utf8(pair).ok().filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()))?;
            u8::from_str_radix(text, 16).ok()
        });
        if escaped.is_some() {
            rest = &tail[2..];
        }
        out.push(escaped.unwrap_or(byte));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_hold_newlines_and_equals_signs() {
        let mut extended = Extended::default();
        extended.merge(b"12 path=a\nb\n31 SCHILY.xattr.user.x=\n\x00=\xff\n\n\n", false).unwrap_err();
        extended.merge(b"12 path=a\nb\n", false).unwrap();
        extended.merge(b"30 SCHILY.xattr.user.x=\n\x00=\xff\n\n\n", false).unwrap();
        assert_eq!(extended.path.as_deref(), Some(&b"a\nb"[..]));
        assert_eq!(extended.xattrs, [Xattr { name: b"user.x".to_vec(), value: b"\n\x00=\xff\n\n".to_vec() }]);
    }

    #[test]
    fn times_before_the_epoch_keep_their_order() {
        assert_eq!(time(b"1.5"), Some(Time { seconds: 1, nanoseconds: 500_000_000 }));
        assert_eq!(time(b"-1.5"), Some(Time { seconds: -2, nanoseconds: 500_000_000 }));
        assert_eq!(time(b"-0.25"), Some(Time { seconds: -1, nanoseconds: 750_000_000 }));
        assert_eq!(time(b"7"), Some(Time { seconds: 7, nanoseconds: 0 }));
        assert_eq!(time(b"7.x"), None);
    }

    #[test]
    fn libarchive_attributes_are_decoded() {
        let mut extended = Extended::default();
        extended.merge(b"33 LIBARCHIVE.xattr.user.a%20=aGk\n", false).unwrap_err();
        extended.merge(b"34 LIBARCHIVE.xattr.user.a%20=aGk\n", false).unwrap();
        assert_eq!(extended.xattrs, [Xattr { name: b"user.a ".to_vec(), value: b"hi".to_vec() }]);
    }
}
