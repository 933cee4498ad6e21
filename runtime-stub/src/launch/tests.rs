//! Whole plans for small trees.

use std::{ffi::OsString, fs, os::unix::fs::PermissionsExt};

use coracle_format::ImageConfig;

use super::*;
use crate::options::Volume;

pub(super) fn caller(env: &[(&str, &str)]) -> Caller {
    Caller {
        argv0: "./app.run".into(),
        args: Vec::new(),
        env: env.iter().map(|(key, value)| (OsString::from(key), OsString::from(value))).collect(),
        uid: 4_242_424,
        gid: 4_242_425,
        groups: vec![4_242_425, 4_242_426],
        cwd: Some("/".into()),
    }
}

struct World {
    dir: tempfile::TempDir,
    manifest: Manifest,
    options: Options,
    caller: Caller,
}

impl World {
    fn new(env: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("the temporary directory is writable");
        let root = dir.path().join("root");
        for path in ["bin", "etc", "opt/app"] {
            fs::create_dir_all(root.join(path)).expect("it is empty");
        }
        fs::create_dir(dir.path().join("made")).expect("it is empty");
        fs::write(root.join("bin/sh"), "").expect("writable");
        fs::set_permissions(root.join("bin/sh"), fs::Permissions::from_mode(0o755)).expect("it is ours");
        fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:33::/srv/web:/bin/sh\n")
            .expect("writable");
        fs::write(root.join("etc/group"), "root:x:0:\nweb:x:33:\n").expect("writable");
        let config = ImageConfig {
            cmd: Some(vec!["sh".into()]),
            user: Some("web".into()),
            working_dir: Some("/opt/app".into()),
            env: vec!["PATH=/bin".into(), "HOME=/from-image".into()],
            ..ImageConfig::default()
        };
        let manifest = Manifest { config, ..Manifest::default() };
        Self { dir, manifest, options: Options::default(), caller: caller(env) }
    }

    fn plan(&self) -> Result<Plan, LaunchError> {
        let places = Settings { scratch: Some(self.dir.path().to_owned()), ..Settings::default() };
        plan(&Inputs {
            manifest: &self.manifest,
            options: &self.options,
            caller: &self.caller,
            args: &self.caller.args,
            bundle: Path::new("/x/app.run"),
            root: &self.dir.path().join("root"),
            names: None,
            truths: None,
            loaders: &[],
            shared: Some(&self.dir.path().join("made")),
            places: &places,
        })
    }
}

fn var(plan: &Plan, name: &str) -> Option<String> {
    plan.spec.env.iter().find(|(key, _)| key == name).map(|(_, value)| value.to_string_lossy().into_owned())
}

fn bound(plan: &Plan, guest: &str) -> Option<PathBuf> {
    plan.spec.binds.iter().rev().find(|bind| bind.guest == Path::new(guest)).map(|bind| bind.host.clone())
}

#[test]
fn by_default_you_are_yourself_whatever_the_images_user_is() {
    let home = tempfile::tempdir().expect("the temporary directory is writable");
    let home_text = home.path().to_str().expect("temporary names are ASCII");
    let mut world = World::new(&[("HOME", home_text), ("USER", "ann"), ("SHELL", "/no/such/shell")]);
    world.caller.cwd = Some("/usr".into());
    let plan = world.plan().expect("nothing is wrong");
    assert_eq!((plan.spec.identity.uid, plan.spec.identity.gid), (4_242_424, 4_242_425));
    assert_eq!(var(&plan, "HOME").as_deref(), Some(home_text));
    assert_eq!(var(&plan, "PATH").as_deref(), Some("/bin"));
    assert_eq!(var(&plan, "SHELL").as_deref(), Some("/bin/sh"));
    assert_eq!(var(&plan, "CORACLE_BUNDLE").as_deref(), Some("/x/app.run"));
    assert_eq!(plan.spec.cwd, Path::new("/opt/app"), "/usr is the image's own");
    assert!(plan.own.is_none() && plan.spec.access == Access::ReadOnly && plan.spec.devices == Devices::Host);
    let passwd = fs::read_to_string(bound(&plan, "/etc/passwd").expect("generated")).expect("readable");
    assert!(passwd.starts_with(&format!("ann:x:4242424:4242425::{home_text}:/bin/sh\nroot:")), "{passwd}");
    let group = fs::read_to_string(bound(&plan, "/etc/group").expect("generated")).expect("readable");
    assert!(group.starts_with("group4242425:x:4242425:ann\ngroup4242426:x:4242426:ann\nroot:"), "{group}");
    assert!(bound(&plan, "/tmp").is_some());
}

#[test]
fn the_working_directory_is_shown_unless_it_is_the_images_own() {
    let work = tempfile::tempdir_in("/var/tmp").expect("/var/tmp is writable");
    let mut world = World::new(&[]);
    world.caller.cwd = Some(work.path().to_owned());
    let plan = world.plan().expect("nothing is wrong");
    assert_eq!(plan.spec.cwd, work.path());
    assert_eq!(var(&plan, "PWD").as_deref(), work.path().to_str());
    assert_eq!(bound(&plan, work.path().to_str().expect("ASCII")), None, "/var/tmp shows it already");
    world.caller.cwd = Some("/opt/app".into());
    assert!(world.plan().expect("nothing is wrong").notes.iter().any(|(topic, _)| *topic == "not bound"));
}

#[test]
fn isolated_is_dockers() {
    let mut world = World::new(&[("HOME", "/home/ann"), ("TERM", "vt100"), ("SECRET", "x")]);
    world.options.isolated = true;
    world.options.hostname = Some("box".into());
    let plan = world.plan().expect("nothing is wrong");
    assert_eq!((plan.spec.identity.uid, plan.spec.identity.gid), (33, 33), "the image's user");
    assert_eq!(var(&plan, "HOME").as_deref(), Some("/from-image"));
    assert_eq!(var(&plan, "TERM").as_deref(), Some("vt100"));
    assert_eq!(var(&plan, "SECRET"), None);
    assert_eq!(plan.spec.cwd, Path::new("/opt/app"));
    assert!(plan.request.isolated && plan.spec.unshare.pid && plan.spec.unshare.uts);
    let own = plan.own.as_ref().expect("it has a place for its /tmp").path().to_owned();
    assert!(bound(&plan, "/tmp").is_some_and(|host| host.starts_with(&own)));
    assert!(bound(&plan, "/home/ann").is_none() && bound(&plan, "/etc/resolv.conf").is_some());
    let hosts = fs::read_to_string(bound(&plan, "/etc/hosts").expect("generated")).expect("readable");
    assert!(hosts.ends_with("127.0.1.1\tbox\n"), "{hosts}");
}

#[test]
fn root_is_asked_for_by_name_and_yourself_by_number() {
    let mut world = World::new(&[]);
    world.options.user = Some("root".into());
    let plan = world.plan().expect("nothing is wrong");
    assert!(plan.request.root && plan.spec.identity.uid == 0);
    assert_eq!(bound(&plan, "/etc/passwd"), None, "the image knows root");
    world.options.user = Some("4242424:7".into());
    let plan = world.plan().expect("nothing is wrong");
    assert!(!plan.request.root && bound(&plan, "/etc/passwd").is_some());
    assert_eq!((plan.spec.identity.uid, plan.spec.identity.gid), (4_242_424, 7));
}

#[test]
fn a_writable_run_has_its_changes_in_scratch_or_in_the_users_directory() {
    let mut world = World::new(&[]);
    let kept = world.dir.path().join("kept/changes");
    world.options.writable = Writable::Kept(kept.clone());
    let plan = world.plan().expect("nothing is wrong");
    assert!(plan.own.is_none(), "nothing must outlive the program");
    assert_eq!(plan.spec.access, Access::CopyOnWrite { changes: kept });
    assert!(plan.request.writable);
}

#[test]
fn volumes_come_after_the_defaults() {
    let mut world = World::new(&[]);
    let host = world.dir.path().to_owned();
    let volume = Volume { host: host.clone(), guest: Some("/tmp".into()), read_only: true };
    world.options.volumes.push((volume, Origin::CommandLine));
    let plan = world.plan().expect("nothing is wrong");
    assert_eq!(bound(&plan, "/tmp"), Some(host));
    assert_eq!(plan.spec.binds.iter().filter(|bind| bind.guest == Path::new("/tmp")).count(), 1);
}
