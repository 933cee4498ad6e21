//! passwd(5) and group(5): read as bytes, because they come from images and hosts of every age.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
};

/// A line of passwd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// The comment field.
    pub gecos: String,
    /// Home directory.
    pub home: OsString,
    /// Login shell.
    pub shell: OsString,
}

/// A line of group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Name.
    pub name: String,
    /// Group id.
    pub gid: u32,
    /// Login names of its members.
    pub members: Vec<String>,
}

fn lines(file: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    file.split(|byte| *byte == b'\n').map(|line| line.split(|byte| *byte == b':').collect())
}

fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field).into_owned()
}

/// The accounts of a passwd file; lines that are none are passed over.
pub fn accounts(passwd: &[u8]) -> impl Iterator<Item = Account> {
    lines(passwd).filter_map(|fields| {
        let [name, _, uid, gid, gecos, home, shell] = fields.as_slice() else { return None };
        Some(Account {
            name: text(name),
            uid: number(uid)?,
            gid: number(gid)?,
            gecos: text(gecos),
            home: OsStr::from_bytes(home).to_owned(),
            shell: OsStr::from_bytes(shell).to_owned(),
        })
    })
}

/// The groups of a group file; lines that are none are passed over.
pub fn groups(group: &[u8]) -> impl Iterator<Item = Group> {
    lines(group).filter_map(|fields| {
        let [name, _, gid, members] = fields.as_slice() else { return None };
        let members = members.split(|byte| *byte == b',').filter(|member| !member.is_empty()).map(text).collect();
        Some(Group { name: text(name), gid: number(gid)?, members })
    })
}

/// The image's passwd with `account` as its first line, so that both the id and the name find it. A line of the same name
/// is left out; one of the same id stays, for its name should still be known.
#[must_use]
pub fn with_account(passwd: &[u8], account: &Account) -> Vec<u8> {
    let mut out = format!("{}:x:{}:{}:{}:", account.name, account.uid, account.gid, account.gecos).into_bytes();
    out.extend_from_slice(account.home.as_bytes());
    out.push(b':');
    out.extend_from_slice(account.shell.as_bytes());
    out.push(b'\n');
    append_others(&mut out, passwd, &[&account.name]);
    out
}

/// The image's group file with `groups` first, by the same rule.
#[must_use]
pub fn with_groups(group: &[u8], groups: &[Group]) -> Vec<u8> {
    let mut out = Vec::new();
    for group in groups {
        out.extend_from_slice(format!("{}:x:{}:{}\n", group.name, group.gid, group.members.join(",")).as_bytes());
    }
    let names: Vec<&str> = groups.iter().map(|group| group.name.as_str()).collect();
    append_others(&mut out, group, &names);
    out
}

fn append_others(out: &mut Vec<u8>, file: &[u8], names: &[&str]) {
    for line in file.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        if !names.iter().any(|taken| taken.as_bytes() == name) {
            out.extend_from_slice(line);
            out.push(b'\n');
        }
    }
}

/// Whether a string may stand in a field: it must not break the line it is written into.
#[must_use]
pub fn fits_field(text: &[u8]) -> bool {
    !text.iter().any(|byte| matches!(byte, b':' | b'\n' | 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: &[u8] =
        b"root:x:0:0:root:/root:/bin/ash\nubuntu:x:1000:1000::/home/ubuntu:/bin/sh\n\nbroken\nann:x:5:5:::";

    #[test]
    fn you_are_found_by_id_and_by_name_and_the_images_others_stay() {
        let you = Account {
            name: "ann".into(),
            uid: 1000,
            gid: 100,
            gecos: "Ann".into(),
            home: "/home/ann".into(),
            shell: "/bin/sh".into(),
        };
        let all: Vec<Account> = accounts(&with_account(IMAGE, &you)).collect();
        assert_eq!(all.iter().find(|account| account.uid == 1000), Some(&you));
        assert_eq!(all.iter().filter(|account| account.name == "ann").count(), 1);
        let named = |name: &str| all.iter().find(|account| account.name == name).cloned();
        assert_eq!(named("ubuntu").map(|account| account.uid), Some(1000));
        assert_eq!(named("root").map(|account| account.shell), Some("/bin/ash".into()));
    }

    #[test]
    fn groups_are_read_with_their_members() {
        let all: Vec<Group> = groups(b"wheel:x:10:root,ann\nusers:x:100:\nbad:x\n").collect();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].members, ["root", "ann"]);
        let file = with_groups(b"users:x:100:\nold:x:7:\n", &[Group { name: "old".into(), gid: 9, members: vec![] }]);
        assert_eq!(file, b"old:x:9:\nusers:x:100:\n");
    }

    #[test]
    fn what_would_break_a_line_does_not_fit() {
        assert!(fits_field(b"/home/a b") && !fits_field(b"a:b") && !fits_field(b"a\nroot:x:0"));
    }
}
