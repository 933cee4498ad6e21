//! Random layers over few names.

use std::fmt::Write as _;

use crate::layout::Layout;

/// Xorshift: the same images everywhere for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits fit") % sides
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.roll(all.len())]
    }

    fn path(&mut self) -> String {
        let depth = 1 + self.roll(3);
        let parts: Vec<_> = (0..depth).map(|_| self.of(&["a", "b", "c", "d"])).collect();
        parts.join("/")
    }

    /// Where a symbolic link may lead: up, down, out and nowhere.
    fn target(&mut self) -> String {
        let start = self.of(&["", "", "/", "../", "../../../", "./", "nowhere/"]);
        format!("{start}{}", self.path())
    }
}

/// Fills a layout with two to four layers, and tells what is in them. An entry that Coracle refuses is mostly left out
/// again, so that most images are valid.
pub(crate) fn fill(layout: &Layout, seed: u64) -> String {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut described = String::new();
    for layer in 0..2 + dice.roll(3) {
        let mut tar = Vec::new();
        let _ = writeln!(described, "layer {layer}");
        for _ in 0..4 + dice.roll(14) {
            let before = tar.len();
            let told = entry(&mut tar, &mut dice);
            layout.add_layer(&tar);
            layout.commit();
            let refused = layout.flatten().is_err();
            layout.pop_layer();
            if refused && dice.roll(60) != 0 {
                tar.truncate(before);
            } else {
                let _ = writeln!(described, "  {told}");
            }
        }
        if dice.roll(4) != 0 {
            tar.extend_from_slice(&[0; 1024]);
        }
        layout.add_layer(&tar);
    }
    layout.commit();
    described
}

fn entry(tar: &mut Vec<u8>, dice: &mut Dice) -> String {
    let mut path = dice.path();
    let (mut kind, mut link, mut data) = (b'0', String::new(), String::new());
    match dice.roll(20) {
        0..=4 => data = format!("{}", dice.roll(1000)),
        5..=8 => kind = b'5',
        9..=11 => (kind, link) = (b'2', dice.target()),
        12..=14 => {
            (kind, link) = (b'1', dice.path());
            if link == path {
                link.push('x'); // to itself: GNU tar's way to say "again", which umoci does not know
            }
        }
        15 | 16 => {
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
            path = format!("{parent}/.wh.{name}").trim_start_matches('/').to_owned();
        }
        17 => {
            let (parent, _) = path.rsplit_once('/').unwrap_or(("", &path));
            path = format!("{parent}/.wh..wh..opq").trim_start_matches('/').to_owned();
        }
        18 => kind = b'6',
        _ => (kind, path) = (b'5', ".".to_owned()),
    }
    let name =
        format!("{}{path}{}", dice.of(&["", "", "./", "/"]), if kind == b'5' { dice.of(&["", "/"]) } else { "" });
    let mode = [0o755, 0o700, 0o4711, 0o1777, 0o644, 0o2750][dice.roll(6)] | if kind == b'5' { 0o700 } else { 0o600 };
    if dice.roll(8) == 0 && matches!(kind, b'0' | b'5') {
        let record = format!("SCHILY.xattr.user.x={}\n", dice.roll(10));
        let record = format!("{} {record}", record.len() + 3);
        member(tar, "pax", b'x', "", 0o644, 0, record.as_bytes());
    }
    let mtime = 1_000_000 + dice.roll(1_000_000) as u64;
    member(tar, &name, kind, &link, mode, mtime, data.as_bytes());
    format!("{} {name} {mode:o} {link}{data}", char::from(kind))
}

fn member(tar: &mut Vec<u8>, name: &str, kind: u8, link: &str, mode: u32, mtime: u64, data: &[u8]) {
    let mut header = tar::Header::new_ustar();
    let old = header.as_old_mut();
    old.name[..name.len()].copy_from_slice(name.as_bytes());
    old.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.as_mut_bytes()[156] = kind;
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(mtime);
    header.set_size(data.len() as u64);
    header.set_cksum();
    tar.extend_from_slice(header.as_bytes());
    tar.extend_from_slice(data);
    tar.resize(tar.len().next_multiple_of(512), 0);
}
