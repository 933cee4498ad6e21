//! Who the guest is: by default you yourself, with a name for your ids; otherwise somebody of the image.

use std::{
    ffi::OsString,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use coracle_api::{Accounts, Identity, SubordinateIds};

use super::{
    Caller, LaunchError, Tree,
    accounts::{self, Account, Group},
    nss::NameService,
};

/// The guest's user.
#[derive(Debug, Clone)]
pub(super) struct Person {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    /// Home directory by the account's own word.
    pub(super) home: PathBuf,
    /// Generated passwd and group, where the image's own will not do.
    pub(super) files: Option<AccountFiles>,
    /// Where the name came from, for `explain`.
    pub(super) source: String,
}

/// Content of the files that are put over the image's.
#[derive(Debug, Clone)]
pub(super) struct AccountFiles {
    pub(super) passwd: Vec<u8>,
    pub(super) group: Vec<u8>,
}

impl Person {
    /// You: your ids, found by name and by number whatever the image's files say.
    pub(super) fn caller(caller: &Caller, tree: Tree, names: &NameService) -> Self {
        let (mut account, source) = host_account(caller, names);
        if let Some(home) = caller.var("HOME").filter(|home| home.as_bytes().starts_with(b"/")) {
            account.home = home.to_owned();
        }
        if !accounts::fits_field(account.home.as_bytes()) {
            account.home = "/".into();
        }
        let image = tree.read(Path::new("/etc/passwd")).unwrap_or_default();
        if !tree.is_program(Path::new(&account.shell)) {
            let shells = accounts::accounts(&image).filter(|other| other.uid == account.uid || other.uid == 0);
            let shell = shells.map(|other| other.shell).find(|shell| tree.is_program(Path::new(shell)));
            account.shell = shell.unwrap_or_else(|| "/bin/sh".into());
        }
        let groups = host_groups(&own_groups(caller), &account.name, names);
        let group = accounts::with_groups(&tree.read(Path::new("/etc/group")).unwrap_or_default(), &groups);
        Self {
            uid: caller.uid,
            gid: caller.gid,
            groups: caller.groups.clone(),
            home: PathBuf::from(&account.home),
            source: format!("yourself ({}, from {source})", account.name),
            files: Some(AccountFiles { passwd: accounts::with_account(&image, &account), group }),
        }
    }

    /// `USER[:GROUP]` by the image's passwd and group, as Docker resolves it; you yourself if it comes to your own uid.
    pub(super) fn of_image(asked: &str, tree: Tree) -> Result<Self, LaunchError> {
        let passwd = tree.read(Path::new("/etc/passwd")).unwrap_or_default();
        let group = tree.read(Path::new("/etc/group")).unwrap_or_default();
        Self::of_files(asked, &passwd, &group, "the image")
    }

    /// The same by these files, which are `whose`.
    fn of_files(asked: &str, passwd: &[u8], group: &[u8], whose: &'static str) -> Result<Self, LaunchError> {
        let (user, group_name) = match asked.split_once(':') {
            Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
            None => (asked, None),
        };
        let user = if user.is_empty() { "0" } else { user };
        let account = accounts::accounts(passwd).find(|account| account.name == user);
        let account = match (account, user.parse::<u32>()) {
            (Some(account), _) => account,
            (None, Ok(uid)) => {
                let known = accounts::accounts(passwd).find(|account| account.uid == uid);
                known.unwrap_or_else(|| nobody(user, uid))
            }
            // An image without a passwd file still has root.
            (None, Err(_)) if user == "root" => Account { home: "/root".into(), ..nobody(user, 0) },
            (None, Err(_)) => {
                return Err(LaunchError::NoSuchUser {
                    asked: asked.into(),
                    whose,
                    file: "/etc/passwd",
                    name: user.into(),
                });
            }
        };
        let by_name = |name: &str| accounts::groups(group).find(|group| group.name == name).map(|group| group.gid);
        let gid = match group_name {
            None => account.gid,
            Some(name) => by_name(name).or_else(|| name.parse().ok()).ok_or_else(|| LaunchError::NoSuchUser {
                asked: asked.into(),
                whose,
                file: "/etc/group",
                name: name.into(),
            })?,
        };
        // A group that was asked for stands alone, as with Docker.
        let groups = if group_name.is_some() {
            Vec::new()
        } else {
            let member = |group: &Group| group.members.contains(&account.name);
            accounts::groups(group).filter(member).map(|group| group.gid).collect()
        };
        let source = format!("{} ({}:{gid}, from {whose})", account.name, account.uid);
        Ok(Self { uid: account.uid, gid, groups, home: PathBuf::from(account.home), files: None, source })
    }

    /// A container's user: the tree's by default, and root if nobody is asked for.
    ///
    /// You yourself, by your own name or number, are somebody even in a tree that does not know you.
    pub(super) fn of_container(
        asked: Option<&str>,
        accounts: Accounts,
        caller: &Caller,
        tree: Tree,
        names: &NameService,
    ) -> Result<Self, LaunchError> {
        let asked = asked.unwrap_or("0");
        let you = |person: Result<Self, LaunchError>| {
            let (user, group) = asked.split_once(':').map_or((asked, None), |(user, group)| (user, Some(group)));
            let by_number = user.parse() == Ok(caller.uid) && caller.uid != 0;
            if !by_number && (user.parse::<u32>().is_ok() || host_account(caller, names).0.name != user) {
                return person;
            }
            let you = Self::caller(caller, tree, names);
            match group {
                None => Ok(you),
                Some(group) => match group.parse().ok().or_else(|| gid_of(you.files.as_ref()?, group)) {
                    Some(gid) => Ok(Self { gid, ..you }),
                    None => person,
                },
            }
        };
        match accounts {
            Accounts::Tree => Self::of_image(asked, tree),
            Accounts::Known => {
                let person = Self::of_image(asked, tree);
                let known = |person: &Self| {
                    let passwd = tree.read(Path::new("/etc/passwd")).unwrap_or_default();
                    accounts::accounts(&passwd).any(|account| account.uid == person.uid)
                };
                match person {
                    Ok(person) if person.uid == 0 || known(&person) => Ok(person),
                    other => you(other),
                }
            }
            Accounts::Host => {
                let file = |path: &str| fs::read(path).unwrap_or_default();
                let (passwd, group) = (file("/etc/passwd"), file("/etc/group"));
                let (account, _) = host_account(caller, names);
                let groups = host_groups(&own_groups(caller), &account.name, names);
                let files = AccountFiles {
                    passwd: accounts::with_account(&passwd, &account),
                    group: accounts::with_groups(&group, &groups),
                };
                let person = you(Self::of_files(asked, &files.passwd, &files.group, "the host"))?;
                Ok(Self { files: Some(files), ..person })
            }
        }
    }

    pub(super) fn identity(&self, caller: &Caller) -> Identity {
        let own = (self.uid, self.gid) == (caller.uid, caller.gid);
        Identity {
            uid: self.uid,
            gid: self.gid,
            groups: self.groups.clone(),
            host_uid: caller.uid,
            host_gid: caller.gid,
            // Being yourself needs no second id, and looking costs system calls.
            subordinate: if own { None } else { subordinate(caller) },
        }
    }
}

/// Root, with the subordinate ids that a guest's root would have.
pub(crate) fn root_of(caller: &Caller) -> Identity {
    let (host_uid, host_gid) = (caller.uid, caller.gid);
    Identity { uid: 0, gid: 0, groups: Vec::new(), host_uid, host_gid, subordinate: subordinate(caller) }
}

fn nobody(name: &str, uid: u32) -> Account {
    Account { name: name.into(), uid, gid: 0, gecos: String::new(), home: "/".into(), shell: "/bin/sh".into() }
}

fn gid_of(files: &AccountFiles, name: &str) -> Option<u32> {
    accounts::groups(&files.group).find(|group| group.name == name).map(|group| group.gid)
}

/// Your groups, the first one first.
fn own_groups(caller: &Caller) -> Vec<u32> {
    let mut ids = vec![caller.gid];
    ids.extend(caller.groups.iter().copied().filter(|gid| *gid != caller.gid));
    ids
}

/// Your account: the host's passwd, else its name service, else what the environment says.
fn host_account(caller: &Caller, names: &NameService) -> (Account, &'static str) {
    let passwd = fs::read("/etc/passwd").unwrap_or_default();
    if let Some(account) = accounts::accounts(&passwd).find(|account| account.uid == caller.uid) {
        return (account, "/etc/passwd");
    }
    if let Some(account) =
        accounts::accounts(&names.ask("passwd", &[caller.uid])).find(|account| account.uid == caller.uid)
    {
        return (account, "getent");
    }
    let named = ["USER", "LOGNAME"].iter().find_map(|key| caller.var(key).and_then(|value| value.to_str()));
    let named = named.filter(|name| !name.is_empty() && accounts::fits_field(name.as_bytes()));
    let (name, source) = match named {
        Some(name) => (name.to_owned(), "$USER"),
        None => (format!("user{}", caller.uid), "your uid"),
    };
    (Account { gid: caller.gid, ..nobody(&name, caller.uid) }, source)
}

/// Your login name, by the host's word and not the environment's.
pub(super) fn login_name(caller: &Caller, names: &NameService) -> Option<String> {
    let (account, source) = host_account(caller, names);
    matches!(source, "/etc/passwd" | "getent").then_some(account.name)
}

/// Names for your groups, yourself a member of each; a group without a name gets one.
fn host_groups(ids: &[u32], member: &str, names: &NameService) -> Vec<Group> {
    let file = fs::read("/etc/group").unwrap_or_default();
    let mut known: Vec<Group> = accounts::groups(&file).filter(|group| ids.contains(&group.gid)).collect();
    let missing: Vec<u32> = ids.iter().copied().filter(|id| !known.iter().any(|group| group.gid == *id)).collect();
    if !missing.is_empty() {
        known.extend(accounts::groups(&names.ask("group", &missing)));
    }
    ids.iter()
        .map(|id| Group {
            name: known
                .iter()
                .find(|group| group.gid == *id)
                .map_or_else(|| format!("group{id}"), |group| group.name.clone()),
            gid: *id,
            members: vec![member.to_owned()],
        })
        .collect()
}

/// The caller's subordinate ids, if the files and the set-user-id helpers are there.
fn subordinate(caller: &Caller) -> Option<SubordinateIds> {
    let helper = |name: &str| {
        ["/usr/bin", "/bin", "/usr/local/bin"].iter().map(|dir| Path::new(dir).join(name)).find(|path| path.exists())
    };
    let (newuidmap, newgidmap) = (helper("newuidmap")?, helper("newgidmap")?);
    let passwd = fs::read("/etc/passwd").unwrap_or_default();
    let name = accounts::accounts(&passwd).find(|account| account.uid == caller.uid).map(|account| account.name);
    let range = |path: &str| {
        let file = fs::read_to_string(path).ok()?;
        largest_range(&file, name.as_deref(), caller.uid)
    };
    Some(SubordinateIds { uids: range("/etc/subuid")?, gids: range("/etc/subgid")?, newuidmap, newgidmap })
}

/// The largest range of a subuid(5) file that is this user's, by name or by number.
fn largest_range(file: &str, name: Option<&str>, uid: u32) -> Option<(u32, u32)> {
    let number = uid.to_string();
    file.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let owner = fields.next()?;
            let range = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            (Some(owner) == name || owner == number).then_some(range)
        })
        .max_by_key(|(_, count): &(u32, u32)| *count)
}

/// The shell to start: bash where the image has it.
pub(super) fn shell(tree: Tree, path: &std::ffi::OsStr) -> Result<OsString, LaunchError> {
    ["bash", "sh"]
        .iter()
        .map(OsString::from)
        .find(|name| tree.find_program(name, path).is_some())
        .ok_or_else(|| LaunchError::NoShell { path: path.to_string_lossy().into_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_of_the_image_are_resolved_as_docker_does() {
        let dir = tempfile::tempdir().expect("the temporary directory is writable");
        fs::create_dir(dir.path().join("etc")).expect("it is empty");
        let passwd = "root:x:0:0::/root:/bin/sh\nwww:x:33:33::/var/www:/bin/sh\n";
        fs::write(dir.path().join("etc/passwd"), passwd).expect("writable");
        fs::write(dir.path().join("etc/group"), "www:x:33:\nlog:x:44:www\nadm:x:4:root,www\n").expect("writable");
        let tree = Tree::new(dir.path());
        let ids = |asked: &str| {
            Person::of_image(asked, tree)
                .map(|person| (person.uid, person.gid, person.groups))
                .map_err(|e| e.to_string())
        };
        assert_eq!(ids("www"), Ok((33, 33, vec![44, 4])));
        assert_eq!(ids("33"), Ok((33, 33, vec![44, 4])));
        assert_eq!(ids("www:log"), Ok((33, 44, vec![])));
        assert_eq!(ids("1234"), Ok((1234, 0, vec![])));
        assert_eq!(ids("1234:5678"), Ok((1234, 5678, vec![])));
        assert_eq!(ids("root"), Ok((0, 0, vec![4])));
        assert!(ids("mallory").is_err_and(|error| error.contains("/etc/passwd")));
        assert!(ids("www:nogroup").is_err_and(|error| error.contains("/etc/group")));
    }

    #[test]
    fn root_exists_even_in_an_empty_image() {
        let dir = tempfile::tempdir().expect("the temporary directory is writable");
        let root = Person::of_image("root", Tree::new(dir.path())).expect("root always exists");
        assert_eq!((root.uid, root.gid, root.home.as_path()), (0, 0, Path::new("/root")));
    }

    #[test]
    fn the_largest_subordinate_range_is_taken() {
        let file = "ann:100000:65536\n1000:300000:10\nbob:1:2\nann:500000:70000\nbroken\n";
        assert_eq!(largest_range(file, Some("ann"), 1000), Some((500_000, 70_000)));
        assert_eq!(largest_range(file, None, 1000), Some((300_000, 10)));
        assert_eq!(largest_range(file, Some("eve"), 7), None);
    }
}
