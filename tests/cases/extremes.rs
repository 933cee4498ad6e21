//! What batch nodes do to their jobs: limits, closed descriptors, strange homes, clocks and file systems. A job runs as it
//! would natively, or one line says why not; never is there half a tree.

use std::{
    ffi::OsString,
    fs,
    io::Read as _,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use harness::{Output, Sandbox, bundles, skip, user};

/// All engines that need nothing of the node.
pub(crate) const ALL: [&str; 3] =
    ["--coracle-engine=namespaces", "--coracle-engine=ptrace", "--coracle-engine=preload"];

/// Runs the bundle after `prepare`, which happens in the child: only async-signal-safe calls.
pub(crate) fn prepared<A: Into<OsString>>(
    sandbox: &Sandbox,
    bundle: &Path,
    args: impl IntoIterator<Item = A>,
    prepare: impl Fn() + Send + Sync + 'static,
) -> Output {
    let mut command = sandbox.command(bundle);
    command.args(args.into_iter().map(Into::into));
    // SAFETY: the callers' closures make plain system calls.
    unsafe {
        command.pre_exec(move || {
            prepare();
            Ok(())
        });
    }
    Output::of(command)
}

pub(crate) fn limit(resource: libc::__rlimit_resource_t, value: u64) {
    let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
    // SAFETY: setrlimit reads the structure.
    unsafe { libc::setrlimit(resource, &raw const limit) };
}

/// What is half made in the sandbox's cache and temporary directory.
fn half_made(sandbox: &Sandbox) -> Vec<String> {
    let uid = user::ordinary().uid;
    let places = ["cache", "tmp"].map(|place| sandbox.path().join(format!("{place}/coracle-{uid}")));
    let entries = places.iter().flat_map(|place| fs::read_dir(place).into_iter().flatten().flatten());
    entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| name.starts_with('.')).collect()
}

pub(crate) fn clean(sandbox: &Sandbox, bundle: &Path) {
    sandbox.run(bundle, ["--coracle-cleanup"]).ok();
}

/// A path in the cache, less what is drawn of a root's name.
fn without_chance(line: &str) -> String {
    const DRAWN: usize = "root-0123456789".len();
    if line.starts_with("root-") { format!("root{}", &line[DRAWN..]) } else { line.to_owned() }
}

/// Asserts the rule of this file.
#[track_caller]
fn ran_or_said_why(output: &Output, expected: &str, sandbox: &Sandbox) -> bool {
    assert!(half_made(sandbox).is_empty(), "{:?}: {output}", half_made(sandbox));
    if output.code == Some(0) {
        assert_eq!(output.ok(), expected, "{output}");
        return true;
    }
    // From inside, a program's own loader or shell may say it instead.
    let ours = output.stderr.lines().last().is_some_and(|line| line.starts_with("coracle: "));
    assert!(ours || output.code == Some(127) || output.code == Some(2), "{output}");
    assert!(output.code.is_some_and(|code| [125, 126, 127, 2].contains(&code)), "{output}");
    assert!(output.stderr.lines().count() <= 2, "one line is enough: {output}");
    false
}

#[test]
fn small_limits_are_met_or_named() {
    let Some(bundle) = bundles::alpine() else { return };
    let sandbox = Sandbox::new();
    let warm = || sandbox.run(&bundle, ["true"]).ok().len();
    let mut ran = Vec::new();
    for engine in ALL {
        for cold in [true, false] {
            let cases = [
                ("AS", libc::RLIMIT_AS, vec![16 << 20, 64 << 20, 256 << 20, 1 << 30]),
                ("NOFILE", libc::RLIMIT_NOFILE, vec![5, 8, 16, 32, 64]),
                ("FSIZE", libc::RLIMIT_FSIZE, vec![0, 100_000, 1 << 24]),
                ("STACK", libc::RLIMIT_STACK, vec![256 << 10, 1 << 20]),
                ("MEMLOCK", libc::RLIMIT_MEMLOCK, vec![0]),
                ("CPU", libc::RLIMIT_CPU, vec![60]),
            ];
            for (name, resource, values) in cases {
                for value in values {
                    if cold {
                        clean(&sandbox, &bundle);
                    } else {
                        warm();
                    }
                    let args = [engine, "sh", "-c", "echo x"];
                    let output = prepared(&sandbox, &bundle, args, move || limit(resource, value));
                    let killed = output.signal == Some(libc::SIGXFSZ) && name == "FSIZE";
                    let well = killed || ran_or_said_why(&output, "x", &sandbox);
                    println!("{engine} {name} {value} cold {cold}: {:?} {}", output.code, output.stderr.trim());
                    ran.extend((well && !killed).then_some((engine, name, value, cold)));
                }
            }
        }
    }
    // What is enough for a native program is, but for little, enough here.
    for engine in ALL {
        for (name, value) in
            [("AS", 256 << 20), ("NOFILE", 32), ("FSIZE", 100_000), ("STACK", 1 << 20), ("MEMLOCK", 0), ("CPU", 60)]
        {
            assert!(ran.contains(&(engine, name, value, false)), "{engine} {name} {value} in {ran:?}");
        }
        assert!(ran.contains(&(engine, "AS", 1 << 30, true)), "{engine} in {ran:?}");
        assert!(ran.contains(&(engine, "NOFILE", 64, true)), "{engine} in {ran:?}");
    }
}

#[test]
fn a_user_without_processes_to_spare_is_told_so() {
    let Some(bundle) = bundles::alpine() else { return };
    if skip::unless_root() {
        return;
    }
    let mut sandbox = Sandbox::new();
    // Nobody else's number, so that its processes can be counted.
    let (uid, place) = (3_000_000_000_u32 + std::process::id(), sandbox.make_dir("place"));
    fs::set_permissions(&place, fs::Permissions::from_mode(0o1777)).unwrap();
    sandbox.set("CORACLE_CACHE", &place).set("TMPDIR", &place);
    for engine in ALL {
        for processes in [1, 2, 3, 4, 6] {
            let mut command = sandbox.command(&bundle);
            command.uid(uid).gid(uid).args([engine, "echo", "x"]);
            // SAFETY: one system call.
            unsafe {
                command.pre_exec(move || {
                    limit(libc::RLIMIT_NPROC, processes);
                    Ok(())
                });
            }
            let output = Output::of(command);
            println!("{engine} {processes}: {:?} {}", output.code, output.stderr.trim());
            if output.code == Some(0) {
                assert_eq!(output.ok(), "x");
            } else {
                output.fails_with(&[": "]);
                assert_eq!(output.stderr.lines().count(), 1, "{output}");
            }
            assert!(processes < 6 || output.code == Some(0), "{output}");
            let left: Vec<_> =
                fs::read_dir(place.join(format!("coracle-{uid}"))).into_iter().flatten().flatten().collect();
            assert!(!left.iter().any(|entry| entry.file_name().to_string_lossy().starts_with('.')), "{left:?}");
            let _ = fs::remove_dir_all(place.join(format!("coracle-{uid}")));
        }
        // Somebody without an entry in passwd has a name all the same.
        let mut command = sandbox.command(&bundle);
        command.uid(uid).gid(uid).args([engine, "sh", "-c", "whoami; id -u; echo ~"]);
        let output = Output::of(command);
        assert_eq!(output.ok().lines().nth(1), Some(uid.to_string().as_str()), "{output}");
        assert_eq!(output.stderr, "");
    }
}

#[test]
fn descriptors_pass_however_many_or_few() {
    let Some(bundle) = bundles::alpine() else { return };
    let sandbox = Sandbox::new();
    for engine in ALL {
        for supervised in ["--coracle-quiet", "--coracle-report=report.json"] {
            let many = prepared(
                &sandbox,
                &bundle,
                [engine, supervised, "sh", "-c", "ls /proc/self/fd | wc -l; cat <&4000"],
                || {
                    limit(libc::RLIMIT_NOFILE, 4500);
                    // SAFETY: descriptors of this child's own; plain system calls.
                    unsafe {
                        let fd = libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY);
                        for number in 3..4096 {
                            libc::dup2(fd, number);
                        }
                    }
                },
            );
            let count: u32 = many.ok().parse().unwrap();
            assert!((4096..4102).contains(&count), "{many}");

            for closed in [&[0][..], &[1], &[2], &[0, 1, 2]] {
                let output =
                    prepared(&sandbox, &bundle, [engine, supervised, "sh", "-c", "echo x; exit 7"], move || {
                        for fd in closed {
                            // SAFETY: close takes an integer.
                            unsafe { libc::close(*fd) };
                        }
                    });
                output.code_is(7);
                assert_eq!(output.stdout, if closed.contains(&1) { "" } else { "x\n" }, "{closed:?} {output}");
            }
        }
    }
}

#[test]
fn a_reader_that_leaves_kills_as_it_kills_a_native_program() {
    let Some(bundle) = bundles::alpine() else { return };
    let sandbox = Sandbox::new();
    for engine in ALL {
        for option in ["--coracle-quiet", "--coracle-report=report.json"] {
            let mut child =
                sandbox.command(&bundle).args([engine, option, "yes"]).stdout(Stdio::piped()).spawn().unwrap();
            let mut some = [0; 4096];
            child.stdout.take().unwrap().read_exact(&mut some).unwrap();
            let status = child.wait().unwrap();
            let signal = std::os::unix::process::ExitStatusExt::signal(&status);
            assert_eq!(signal, Some(libc::SIGPIPE), "{engine} {option} {status}");
        }
    }
    // Our own output is a program's as well.
    let script = "for o in help info tar explain; do $0 --coracle-$o 2>err | true; done; cat err";
    let output = sandbox.run("sh", ["-c", script, bundle.to_str().unwrap()]);
    assert_eq!((output.ok(), output.stderr.as_str()), ("", ""), "{output}");
}

#[test]
fn arguments_of_two_megabytes_arrive() {
    let Some(bundle) = bundles::alpine() else { return };
    let sandbox = Sandbox::new();
    let long = "x".repeat(120 << 10);
    for engine in ALL {
        for option in ["--coracle-quiet", "--coracle-report=report.json"] {
            let mut args = vec![engine, option, "sh", "-c", "echo $#; printf %s \"$@\" | wc -c", "sh"];
            args.extend((0..18).map(|_| long.as_str()));
            let output = prepared(&sandbox, &bundle, &args, || limit(libc::RLIMIT_STACK, 64 << 20));
            assert_eq!(output.ok(), format!("18\n{}", 18 * (120 << 10)), "{}", output.stderr);
        }
        // As much as the kernel takes of us may be more than it takes of us with some more of environment.
        let count = 51;
        let args = [engine, "true"].into_iter().chain((0..count).map(|_| long.as_str()));
        let output = prepared(&sandbox, &bundle, args, || limit(libc::RLIMIT_STACK, 64 << 20));
        if output.code != Some(0) {
            assert!(
                output.stderr.starts_with("coracle: true: cannot be executed: Argument list too long"),
                "{}",
                output.stderr
            );
            output.code_is(126);
        }
    }
}

#[test]
fn the_umask_is_the_applications_alone() {
    let Some(bundle) = bundles::alpine() else { return };
    let sandbox = Sandbox::new();
    let mut listings = Vec::new();
    for umask in [0o000, 0o022, 0o077, 0o777] {
        clean(&sandbox, &bundle);
        let script = "umask; touch made.$(umask); stat -c %a made.$(umask); stat -c %a /etc/passwd /tmp /usr";
        let output = prepared(&sandbox, &bundle, ["sh", "-c", script], move || {
            // SAFETY: umask takes an integer.
            unsafe { libc::umask(umask) };
        });
        let own = format!("{umask:04o}\n{:o}\n", 0o666 & !umask);
        assert!(output.ok().starts_with(&own), "{output}");
        let base = sandbox.path().join(format!("cache/coracle-{}", user::ordinary().uid));
        let mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&base), 0o700, "with umask {umask:o}");
        let list = sandbox.run("find", [base.as_os_str(), "-printf".as_ref(), "%P %m\n".as_ref()]);
        let mut lines: Vec<String> =
            list.ok().lines().filter(|line| !line.contains("/made")).map(without_chance).collect();
        lines.sort();
        listings.push(lines);
        for engine in ALL {
            let kept = format!("--coracle-writable=kept{umask}{}", engine.len());
            let output = prepared(
                &sandbox,
                &bundle,
                [engine, &kept, "sh", "-c", "echo x > /etc/new; cat /etc/new /etc/hostname >/dev/null; rm /etc/motd"],
                move || {
                    // SAFETY: as above.
                    unsafe { libc::umask(umask) };
                },
            );
            output.ok();
        }
    }
    assert!(listings.windows(2).all(|pair| pair[0] == pair[1]), "{listings:?}");
}

#[test]
fn homes_that_are_missing_sealed_or_not_named() {
    let Some(bundle) = bundles::alpine() else { return };
    let mut sandbox = Sandbox::new();
    let sealed = sandbox.make_dir("sealed");
    fs::set_permissions(&sealed, fs::Permissions::from_mode(0o000)).unwrap();
    let homes: [Option<PathBuf>; 6] = [
        None,
        Some(sealed),
        Some("/no/such/home".into()),
        Some("relative".into()),
        Some(PathBuf::new()),
        Some("/dev/null".into()),
    ];
    for home in homes {
        match &home {
            Some(home) => sandbox.set("HOME", home),
            None => sandbox.unset("HOME"),
        };
        for engine in ALL {
            for option in ["--coracle-quiet", "--coracle-writable"] {
                let output = sandbox.run(&bundle, [engine, option, "sh", "-c", "echo x; whoami >/dev/null"]);
                assert_eq!(output.ok(), "x", "{home:?} {output}");
                assert_eq!(output.stderr, "", "{home:?}");
            }
        }
    }
}

/// A statement of a seccomp filter.
fn statement(code: u32, skip: u8, value: u32) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(code).unwrap_or(0), jt: 0, jf: skip, k: value }
}

/// Denies calls that network file systems do not have: locks, exchanges of names, attributes of users.
fn as_on_a_network_file_system() {
    const CALLS: [(libc::c_long, i32); 8] = [
        (libc::SYS_flock, libc::ENOLCK),
        (libc::SYS_renameat2, libc::EINVAL),
        (libc::SYS_setxattr, libc::EOPNOTSUPP),
        (libc::SYS_lsetxattr, libc::EOPNOTSUPP),
        (libc::SYS_fsetxattr, libc::EOPNOTSUPP),
        (libc::SYS_getxattr, libc::EOPNOTSUPP),
        (libc::SYS_fallocate, libc::EOPNOTSUPP),
        (libc::SYS_copy_file_range, libc::EXDEV),
    ];
    let mut program = [statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0); 2 + 2 * CALLS.len()];
    for (at, (call, errno)) in CALLS.iter().enumerate() {
        let call = u32::try_from(*call).unwrap_or(u32::MAX);
        program[1 + 2 * at] = statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, call);
        let answer = libc::SECCOMP_RET_ERRNO | errno.cast_unsigned();
        program[2 + 2 * at] = statement(libc::BPF_RET | libc::BPF_K, 0, answer);
    }
    program[1 + 2 * CALLS.len()] = statement(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW);
    filter(&mut program);
}

/// Refuses every call that came with Linux 5.1 and later as forbidden, as the filters of containers did for years that did
/// not know them.
fn as_in_an_old_container() {
    const FIRST: u32 = 424;
    filter(&mut [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 1, FIRST),
        statement(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned()),
        statement(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ]);
}

fn filter(program: &mut [libc::sock_filter]) {
    let len = u16::try_from(program.len()).unwrap_or(0);
    let filter = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    // SAFETY: prctl reads the program, which outlives the calls.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter, 0, 0);
    }
}

#[test]
fn a_cache_without_locks_exchanges_and_attributes_serves_all_the_same() {
    let Some(bundle) = bundles::alpine() else { return };
    let sandbox = Sandbox::new();
    for engine in ALL {
        clean(&sandbox, &bundle);
        for option in ["--coracle-quiet", "--coracle-writable", "--coracle-report=report.json", "--coracle-cache=none"]
        {
            for _ in 0..2 {
                let args = [engine, option, "sh", "-c", "ls /bin /usr/bin >/dev/null && echo x"];
                let output = prepared(&sandbox, &bundle, args, as_on_a_network_file_system);
                assert_eq!(output.ok(), "x", "{option} {output}");
                assert!(half_made(&sandbox).is_empty(), "{option} {:?} {output}", half_made(&sandbox));
            }
        }
        // What lies damaged is replaced without an exchange of names.
        let base = sandbox.path().join(format!("cache/coracle-{}", user::ordinary().uid));
        let tree = fs::read_dir(&base).unwrap().flatten().find(|entry| entry.file_name().len() == 64).unwrap();
        fs::remove_file(tree.path().join("canary")).unwrap();
        let output = prepared(&sandbox, &bundle, [engine, "echo", "x"], as_on_a_network_file_system);
        assert_eq!(output.ok(), "x");
    }
}

#[test]
fn calls_that_a_container_around_us_forbids_are_done_without() {
    let Some(bundle) = bundles::alpine() else { return };
    let sandbox = Sandbox::new();
    for engine in ALL {
        clean(&sandbox, &bundle);
        for option in ["--coracle-quiet", "--coracle-writable"] {
            let args = [engine, option, "sh", "-c", "ls /bin /usr/bin >/dev/null && test -x /bin/ls && sh -c 'echo x'"];
            let output = prepared(&sandbox, &bundle, args, as_in_an_old_container);
            assert_eq!(output.ok(), "x", "{option} {output}");
        }
    }
}

#[test]
fn who_has_no_descriptors_left_takes_no_tree_for_damaged() {
    let Some(bundle) = bundles::alpine() else { return };
    let sandbox = Sandbox::new();
    let run = |engine: &str, most: u64| {
        let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
        prepared(&sandbox, &bundle, [engine, "echo", "x"], move || {
            // SAFETY: it reads the limit.
            let _ = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
        })
    };
    for engine in ALL {
        run(engine, 100).ok();
    }
    for engine in ALL {
        for most in 3..20 {
            let output = run(engine, most);
            assert!(!output.stderr.contains("unpacking it again"), "{engine} {most}: {output}");
            assert!(matches!(output.code, Some(0 | 125..=127)), "{engine} {most}: {output}");
        }
        assert_eq!(run(engine, 100).stderr, "");
    }
}

#[test]
fn a_clock_that_was_wrong_harms_nothing() {
    let Some(bundle) = bundles::alpine() else { return };
    let sandbox = Sandbox::new();
    sandbox.run(&bundle, ["true"]).ok();
    let base = sandbox.path().join(format!("cache/coracle-{}", user::ordinary().uid));
    for date in ["1970-01-01 00:00:01", "2099-01-01 00:00:00"] {
        // As if it had been unpacked and used by that clock.
        let script = r#"cd "$0" && find . -path './root-*/*' -prune -o -type f -exec touch -d "$1" {} +"#;
        sandbox.run("sh", ["-c", script, base.to_str().unwrap(), date]).ok();
        sandbox.run(&bundle, ["--coracle-writable", "true"]).ok();
        let place = sandbox.path().join(format!("tmp/coracle-{}", user::ordinary().uid));
        let abandoned = place.join(".run-4194304-0");
        fs::create_dir(&abandoned).unwrap();
        sandbox.own(&abandoned);
        for engine in ALL {
            let output = sandbox.run(&bundle, [engine, "--coracle-report=report.json", "echo", "x"]);
            assert_eq!((output.ok(), output.stderr.as_str()), ("x", ""), "{date} {output}");
        }
        for engine in ALL {
            let output = sandbox.run(&bundle, [engine, "--coracle-writable", "echo", "x"]);
            assert_eq!((output.ok(), output.stderr.as_str()), ("x", ""), "{date} {output}");
        }
        assert!(half_made(&sandbox).is_empty(), "{date}: {:?}", half_made(&sandbox));
    }
    let limited = sandbox.run(&bundle, ["--coracle-cache-limit=100M", "echo", "x"]);
    assert_eq!(limited.ok(), "x");
}

/// Runs a script as root in mount and host-name namespaces of its own; `$APP` starts the bundle as the user.
fn on_a_strange_node(sandbox: &Sandbox, bundle: &Path, script: &str) -> Output {
    let user = user::ordinary();
    let app = format!(
        "setpriv --reuid {} --regid {} --clear-groups --inh-caps=-all {}",
        user.uid,
        user.gid,
        bundle.display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--uts", "--propagation", "private", "sh", "-ec", script]).env_clear();
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("APP", app).env("HOME", sandbox.path().join("home"));
    command.env("CORACLE_CACHE", sandbox.path().join("cache")).current_dir(sandbox.path().join("work"));
    Output::of(command)
}

#[test]
fn a_node_whose_name_nobody_knows_and_whose_tmpdir_will_not_do() {
    let Some(bundle) = bundles::alpine() else { return };
    if skip::unless_root() || skip::lacks(&["unshare", "setpriv"]) {
        return;
    }
    let sandbox = Sandbox::new();
    for engine in ALL {
        let script = format!(
            "hostname no-such-host.invalid; $APP {engine} --coracle-report=- hostname 2>record; grep -o '\"node\":\"[^\"]*' record"
        );
        let output = on_a_strange_node(&sandbox, &bundle, &format!("chmod 777 .; {script}"));
        assert_eq!(output.ok(), "no-such-host.invalid\n\"node\":\"no-such-host.invalid", "{output}");
        for mount in ["noexec", "ro", "size=4k", "nr_inodes=1"] {
            let script = format!(
                "mkdir -p ../t; mount -t tmpfs -o mode=1777,{mount} none ../t; export TMPDIR=$PWD/../t
                 head -c 8192 /dev/zero > ../t/full 2>/dev/null || true
                 for o in quiet writable cache=none isolated; do
                     [ $o = isolated ] && [ {engine} != --coracle-engine=namespaces ] || $APP {engine} --coracle-$o echo $o
                 done; find ../t -name '.run*' -o -name '.new*'"
            );
            let output = on_a_strange_node(&sandbox, &bundle, &script);
            let expected =
                if engine == ALL[0] { "quiet\nwritable\ncache=none\nisolated" } else { "quiet\nwritable\ncache=none" };
            assert_eq!(output.ok(), expected, "{mount} {output}");
        }
    }
}
