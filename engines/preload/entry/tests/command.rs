//! From what a guest executes to the call that is made.

use std::ffi::{CStr, CString, c_char};

use coracle_elf::Elf;
use coracle_entry::{
    Carried, EXTRA, Facts, Family, Linkage, Loader, Places, Run, Space, Start, Text, Way, Why, command, received, way,
};

const GLIBC: Loader<'static> = Loader {
    guest: c"/lib64/ld-linux-x86-64.so.2",
    host: c"/t/lib64/ld-linux-x86-64.so.2",
    libraries: c"/t/lib:/t/usr/lib",
    family: Family::Glibc,
    preload: true,
    argv0: true,
    inhibit_cache: true,
};
const MUSL: Loader<'static> = Loader {
    guest: c"/lib/ld-musl-x86_64.so.1",
    host: c"/t/lib/ld-musl-x86_64.so.1",
    libraries: c"/t/lib:/t/usr/lib",
    family: Family::Musl,
    preload: true,
    argv0: false,
    inhibit_cache: false,
};

fn description(edited: bool) -> Vec<u8> {
    let mut facts = Facts { edited, loaders: vec![GLIBC, MUSL], ..Facts::default() };
    facts.set(Text::Root, b"/t");
    facts.set(Text::Alias, b"/t");
    facts.set(Text::Shim, b"/s/shim.so");
    facts.set(Text::Handover, b"/h/stub\0--take");
    facts.write().expect("it fits")
}

const WIDE: Elf = Elf { wide: true, movable: true, entry: 0, headers_at: 64, headers: 1 };

/// A guest whose whole file system is the tree.
#[derive(Default)]
struct Tree(Vec<u8>);

impl Places for Tree {
    fn host(&mut self, guest: &[u8]) -> Option<&[u8]> {
        let dir: &[u8] = if guest.starts_with(b"/") { b"/t" } else { b"/t/cwd/" };
        self.0 = [dir, guest].concat();
        (!guest.ends_with(b"/absent.so")).then_some(&self.0)
    }

    fn is_on_host(&mut self, path: &[u8]) -> bool {
        path.starts_with(b"/host/")
    }
}

fn strings(list: &[*const c_char]) -> Vec<String> {
    let (end, strings) = list.split_last().expect("a null pointer");
    assert!(end.is_null());
    // SAFETY: `command` points to strings that end in a NUL and that live as long as the test.
    strings.iter().map(|string| unsafe { CStr::from_ptr(*string) }.to_string_lossy().into_owned()).collect()
}

fn run(way: Way<'_>, search: &[u8], argv: &[&str], envp: &[&str]) -> (Vec<String>, Vec<String>) {
    let bytes = description(matches!(way, Way::Direct(_)));
    let run = Run::new(&bytes).expect("whole");
    let c = |list: &[&str]| list.iter().map(|text| CString::new(*text).expect("no NUL")).collect::<Vec<_>>();
    let (argv, envp) = (c(argv), c(envp));
    let start = Start {
        way,
        program: c"/t/usr/bin/tool",
        exe: b"/usr/bin/tool",
        given: b"./tool",
        search,
        description: c"/d/run",
        person: b"",
    };
    let mut pointers = vec![std::ptr::null(); argv.len() + envp.len() + EXTRA];
    let mut text = vec![0; 4096];
    let mut space = Space::new(&mut pointers, &mut text);
    let (argv, envp) = (argv.iter().map(CString::as_c_str), envp.iter().map(CString::as_c_str));
    let made = command(&run, &start, argv, envp, &mut Tree::default(), &mut space).expect("there is room");
    (strings(made.argv), strings(made.envp))
}

const LIBRARIES: &str = "LD_LIBRARY_PATH=/t/lib:/t/usr/lib";
const CARRIED: [&str; 3] = ["CORACLE_RUN=/d/run", "CORACLE_RUN_EXE=/usr/bin/tool", "CORACLE_RUN_GIVEN=./tool"];

#[test]
fn an_edited_program_is_executed_as_it_is() {
    let (argv, envp) = run(Way::Direct(GLIBC), b"/ignored", &["tool", "", "x"], &["A=1"]);
    assert_eq!(argv, ["tool", "", "x"]);
    assert_eq!(envp, [&["A=1"], &CARRIED[..], &["LD_PRELOAD=/s/shim.so", LIBRARIES]].concat());
}

#[test]
fn the_guests_own_variables_reach_its_loader_translated_and_itself_as_they_were() {
    let own =
        ["LD_PRELOAD=libx.so /lib/y.so", "LD_LIBRARY_PATH=/opt/lib:$ORIGIN/../lib::$LIB/z", "CORACLE_RUN_EXE=/old"];
    let (_, envp) = run(Way::Direct(GLIBC), b"", &["tool"], &own);
    assert_eq!(
        envp,
        [
            &["CORACLE_RUN_OWN=LD_PRELOAD=libx.so /lib/y.so"],
            &["CORACLE_RUN_OWN=LD_LIBRARY_PATH=/opt/lib:$ORIGIN/../lib::$LIB/z"],
            &CARRIED[..],
            &[
                "LD_PRELOAD=/s/shim.so:libx.so:/t/lib/y.so",
                "LD_LIBRARY_PATH=/t/opt/lib:/t/usr/bin/../lib:/t/cwd/.:/t/lib:/t/usr/lib"
            ],
        ]
        .concat()
    );
    let bytes = description(true);
    let run = Run::new(&bytes).expect("whole");
    let seen: Vec<_> = envp.iter().map(|pair| received(Some(&run), pair.as_bytes())).collect();
    assert_eq!(seen[0], Some((Carried::Restored, &b"LD_PRELOAD=libx.so /lib/y.so"[..])));
    assert_eq!(seen[2], Some((Carried::Description, &b"/d/run"[..])));
    assert_eq!(seen[5].map(|(what, _)| what), Some(Carried::Ours));
    assert_eq!(seen[6].map(|(what, _)| what), Some(Carried::Ours));
    assert_eq!(received(Some(&run), b"LD_LIBRARY_PATH=/opt"), None);
    assert_eq!(received(None, b"LD_PRELOAD=x"), None);
}

#[test]
fn what_the_guest_would_load_is_the_guests_or_not_there() {
    let own = ["LD_PRELOAD=/host/absent.so:/none/absent.so /opt/$LIB/x.so:$ORIGIN/y.so", "LD_AUDIT=/a.so"];
    let (_, envp) = run(Way::Direct(GLIBC), b"", &["tool"], &own);
    // A name that only the host has is none; one that nobody has stays, for the loader's own warning.
    assert_eq!(envp[5], "LD_PRELOAD=/s/shim.so:/t/host/absent.so:/none/absent.so:/t/opt/$LIB/x.so:$ORIGIN/y.so");
    assert_eq!(envp[1], "CORACLE_RUN_OWN=LD_AUDIT=/a.so");
}

#[test]
fn a_loader_is_told_all_by_arguments() {
    let (argv, envp) = run(Way::Loader(GLIBC), b"$ORIGIN/lib:/opt/x", &["tool", "a"], &["LD_PRELOAD=y.so", "A=1"]);
    let begin = ["/t/lib64/ld-linux-x86-64.so.2", "--inhibit-cache", "--library-path"];
    let path = "/t/usr/bin/lib:/t/opt/x:/t/lib:/t/usr/lib";
    let end = ["--preload", "/s/shim.so:y.so", "--argv0", "tool", "/t/usr/bin/tool", "a"];
    assert_eq!(argv, [&begin[..], &[path], &end[..]].concat());
    assert_eq!(envp, [&["CORACLE_RUN_OWN=LD_PRELOAD=y.so", "A=1"], &CARRIED[..]].concat());
}

#[test]
fn an_old_loader_is_asked_for_no_more_than_it_can() {
    let old = Loader { preload: false, argv0: false, ..GLIBC };
    let (argv, envp) = run(Way::Loader(old), b"", &["name", "a"], &["LD_LIBRARY_PATH=/opt"]);
    assert_eq!(argv[1..], ["--inhibit-cache", "--library-path", "/t/opt:/t/lib:/t/usr/lib", "/t/usr/bin/tool", "a"]);
    let more = ["LD_PRELOAD=/s/shim.so", "CORACLE_RUN_ARGV0=name"];
    assert_eq!(envp, [&["LD_LIBRARY_PATH=/opt"], &CARRIED[..], &more].concat());
    let (argv, _) = run(Way::Loader(MUSL), b"", &["name"], &[]);
    assert_eq!(argv[1..], ["--library-path", "/t/lib:/t/usr/lib", "--preload", "/s/shim.so", "/t/usr/bin/tool"]);
}

#[test]
fn a_loader_that_is_asked_itself_is_told_host_paths() {
    let own = ["ld.so", "--verify", "--library-path", "/opt:/x", "--argv0", "/n", "/usr/bin/ls", "--preload", "/a"];
    let (argv, envp) = run(Way::Itself(GLIBC), b"", &own, &["LD_TRACE_LOADED_OBJECTS=1"]);
    let ours = ["--inhibit-cache", "--library-path", "/t/lib:/t/usr/lib", "--preload", "/s/shim.so"];
    let theirs = ["--verify", "--library-path", "/t/opt:/t/x", "--argv0", "/n", "/t/usr/bin/ls", "--preload", "/a"];
    assert_eq!(argv[1..], [&ours[..], &theirs[..]].concat());
    assert_eq!(envp[0], "LD_TRACE_LOADED_OBJECTS=1");
}

#[test]
fn what_no_shim_comes_into_is_handed_over() {
    let (argv, envp) = run(Way::Not(Why::Static), b"", &["name", "a"], &["A=1", "LD_PRELOAD=x", "CORACLE_RUN=/old"]);
    assert_eq!(argv, ["/h/stub", "--take", "/d/run", "./tool", "name", "a"]);
    assert_eq!(envp, ["A=1", "LD_PRELOAD=x"]);
}

#[test]
fn ways() {
    let (plain, edited) = (description(false), description(true));
    let (plain, edited) = (Run::new(&plain).expect("whole"), Run::new(&edited).expect("whole"));
    fn of<'r>(run: &Run<'r>, elf: &Elf, linkage: &Linkage<'r>) -> Way<'r> {
        way(run, c"/t/usr/bin/tool", elf, linkage)
    }
    let linkage = |interpreter| Linkage { interpreter, before: b"", search: b"", own_calls: false };
    let (host, guest) = (Some(GLIBC.host.to_bytes()), Some(GLIBC.guest.to_bytes()));
    assert_eq!(of(&edited, &WIDE, &linkage(host)), Way::Direct(GLIBC));
    assert_eq!(of(&edited, &WIDE, &linkage(guest)), Way::Loader(GLIBC), "it came later");
    assert_eq!(of(&plain, &WIDE, &linkage(Some(MUSL.guest.to_bytes()))), Way::Loader(MUSL));
    assert_eq!(of(&plain, &WIDE, &linkage(Some(b"/gnu/ld.so"))), Way::Unlisted(b"/gnu/ld.so"));
    assert_eq!(of(&plain, &WIDE, &linkage(None)), Way::Not(Why::Static));
    // Copies of programs that were edited, for this view and for one that has gone.
    let copy = |interpreter| Linkage { before: GLIBC.guest.to_bytes(), ..linkage(interpreter) };
    assert_eq!(of(&edited, &WIDE, &copy(host)), Way::Direct(GLIBC));
    for run in [&plain, &edited] {
        assert_eq!(of(run, &WIDE, &copy(Some(b"/view/lib/ld-linux.so"))), Way::Loader(GLIBC));
    }
    let other = Linkage { before: b"/gnu/ld.so", ..linkage(Some(b"/view/gnu/ld.so")) };
    assert_eq!(of(&plain, &WIDE, &other), Way::Unlisted(b"/gnu/ld.so"));
    assert_eq!(way(&plain, MUSL.host, &WIDE, &linkage(None)), Way::Itself(MUSL));
    let go = Linkage { own_calls: true, ..linkage(Some(b"/lib/ld-musl-x86_64.so.1")) };
    assert_eq!(of(&plain, &WIDE, &go), Way::Not(Why::OwnCalls));
    assert_eq!(of(&plain, &Elf { wide: false, ..WIDE }, &linkage(None)), Way::Not(Why::Foreign));
    for (way, becomes) in [
        (Way::Direct(GLIBC), Way::Direct(GLIBC)),
        (Way::Loader(MUSL), Way::Not(Why::Elsewhere)),
        (Way::Not(Why::Static), Way::Not(Why::Static)),
    ] {
        assert_eq!([way.unless(true), way.unless(false)], [becomes, way]);
    }
}

#[test]
fn too_little_room_is_an_error() {
    let bytes = description(false);
    let run = Run::new(&bytes).expect("whole");
    let start = Start {
        way: Way::Direct(GLIBC),
        program: c"/p",
        exe: b"/p",
        given: b"p",
        search: b"",
        description: c"/d/run",
        person: b"",
    };
    for (pointers, text) in [(0, 4096), (6, 4096), (30, 10), (30, 113)] {
        let mut pointers = vec![std::ptr::null(); pointers];
        let mut text = vec![0; text];
        let mut space = Space::new(&mut pointers, &mut text);
        let made = command(&run, &start, [c"p"].into_iter(), [c"A=1"].into_iter(), &mut Tree::default(), &mut space);
        assert!(made.is_err());
    }
}
