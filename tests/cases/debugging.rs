//! Debuggers in the guest: the host's own strace and gdb, under the ptrace engine, say what they say outside.

use std::{fs, os::unix::fs::symlink, path::PathBuf, process::Command};

use harness::{Output, Sandbox, coracle, skip};

const PROGRAM: &str = r#"
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int counter;
int twice(int x) { int y = x * 2; counter += y; return y; }
void *work(void *arg) { return (void *)(long)twice((int)(long)arg); }
int main(int argc, char **argv) {
    pthread_t t;
    if (argc > 1 && !strcmp(argv[1], "wait")) { for (int at = 0; at < 400 && !counter; at++) usleep(50000); return counter; }
    pthread_create(&t, 0, work, (void *)3); pthread_join(t, 0);
    if (argc > 1 && !strcmp(argv[1], "fall")) *(volatile int *)0 = twice(5);
    int s = twice(21);
    counter = s + 1;
    printf("sum %d\n", s);
    if (argc > 1) { execl("/bin/echo", "echo", "executed", (char *)0); }
    return 3;
}
"#;

/// A tree that holds links into a `/usr` yet to be bound, and its bundle; a directory with the program to debug.
struct Prepared {
    sandbox: Sandbox,
    bundle: PathBuf,
    work: PathBuf,
}

fn prepared(debugger: &str) -> Option<Prepared> {
    if skip::lacks(&["gcc", debugger]) {
        return None;
    }
    if !fs::symlink_metadata("/bin").is_ok_and(|bin| bin.is_symlink()) {
        skip::because("this host's /bin is not in /usr");
        return None;
    }
    let sandbox = Sandbox::new();
    let root = sandbox.make_dir("work/tree");
    for dir in ["usr", "etc", "proc", "dev", "tmp"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    for name in ["bin", "sbin", "lib", "lib32", "lib64"] {
        if let Ok(target) = fs::read_link(format!("/{name}")) {
            symlink(target, root.join(name)).unwrap();
        }
    }
    sandbox.own(&root);
    let work = sandbox.make_dir("work/program");
    let source = sandbox.write("program.c", PROGRAM);
    let gcc = Command::new("gcc").args(["-g", "-O0", "-pthread", "-o"]).arg(work.join("p")).arg(&source).status();
    assert!(gcc.unwrap().success());
    let bundle = sandbox.work("debug.run");
    let source = format!("rootfs:{}", root.display());
    sandbox.run(coracle(), ["build", &source, "--cmd", r#"["/bin/sh"]"#, "-o", bundle.to_str().unwrap()]).ok();
    if !sandbox.run(&bundle, ["--coracle-explain"]).stdout.contains("ptrace: accepted") {
        skip::because("this node refuses ptrace");
        return None;
    }
    Some(Prepared { sandbox, bundle, work })
}

impl Prepared {
    /// What a script prints outside and under both variants: lines that are made comparable by `of`.
    fn same(&self, script: &str, of: impl Fn(&str) -> Option<String>) -> Vec<String> {
        let lines = |output: &Output| output.stdout.lines().filter_map(&of).collect::<Vec<_>>();
        let mut native = self.sandbox.command("/bin/sh");
        native
            .args(["-c", script])
            .current_dir(&self.work)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", "/none");
        let native = Output::of(native);
        let expected = lines(&native);
        assert!(expected.len() > 3, "{native}");
        for engine in ["P1", "P2"] {
            let mut command = self.sandbox.command(&self.bundle);
            let volume = |path: &str, how: &str| format!("--coracle-volume={path}:{path}{how}");
            command.args([format!("--coracle-engine={engine}"), volume("/usr", ":ro"), volume("/etc", ":ro")]);
            command
                .arg(volume(self.work.to_str().unwrap(), ""))
                .arg(format!("--coracle-workdir={}", self.work.display()));
            command.args(["/usr/bin/env", "-i", "PATH=/usr/bin:/bin", "HOME=/none", "/bin/sh", "-c", script]);
            let seen = Output::of(command);
            assert_eq!(lines(&seen), expected, "{engine}: {seen}\noutside: {native}");
        }
        expected
    }
}

/// A line with its numbers replaced: addresses and processes differ from run to run.
fn numberless(line: &str) -> String {
    let mut text = String::new();
    let mut words = line.chars().peekable();
    while let Some(c) = words.next() {
        if c.is_ascii_digit() {
            while words.next_if(|next| next.is_ascii_hexdigit() || *next == 'x').is_some() {}
            text.push('N');
        } else {
            text.push(c);
        }
    }
    text
}

/// A line of strace's, without its alignment; random bytes are none to compare.
fn call(line: &str) -> Option<String> {
    (!line.starts_with("getrandom")).then(|| numberless(&line.split_whitespace().collect::<Vec<_>>().join(" ")))
}

#[test]
fn strace_shows_what_the_program_does() {
    let Some(prepared) = prepared("strace") else { return };
    let all = prepared.same("strace -o log cat /etc/passwd >/dev/null; cat log; rm log", call);
    assert!(all.iter().any(|line| line.starts_with("openat(AT_FDCWD, \"/etc/passwd\", O_RDONLY)")), "{all:#?}");
    assert!(all[0].starts_with("execve(\"/usr/bin/cat\""), "{all:#?}");
    // One file for each process.
    let calls = "trace=execve,chdir,exit_group";
    let script = format!(
        "strace -ff -o log -e signal=none -e {calls} sh -c 'cd /usr; ls /etc/passwd | wc -l; exit 4'; echo $?; cat log.* | sort; rm log.*"
    );
    let each = prepared.same(&script, call);
    assert!(each.iter().any(|line| line.starts_with("execve(\"/usr/bin/wc\"")), "{each:#?}");
    let changed = "strace -e trace=none -e inject=openat:error=EIO:when=3+ cat /etc/passwd 2>&1; echo $?; \
        strace -c -o log true; tail -n +3 log | awk '{print $NF}' | sort; rm log";
    prepared.same(changed, call);
    let attached = "./p wait & P=$!; strace -o log -e trace=clock_nanosleep -p $P 2>/dev/null & S=$!; sleep 0.4; \
        kill $S; wait $S; kill $P; wait $P; echo $?; head -3 log; rm log";
    prepared.same(attached, call);
}

#[test]
fn gdb_runs_a_program_and_attaches_to_one() {
    let Some(prepared) = prepared("gdb") else { return };
    let own = |line: &str| {
        let noise = ["Thread", "LWP", "warning", "debuginfod", "Debuginfod", "Detaching", "Download", "Using host"];
        (!noise.iter().any(|word| line.contains(word))).then(|| numberless(line))
    };
    let script = "gdb -nx -q -batch -ex 'break twice' -ex run -ex 'bt 2' -ex 'info threads' -ex continue -ex finish -ex next \
        -ex 'watch counter' -ex continue -ex delete -ex 'catch exec' -ex continue -ex continue --args ./p x 2>&1";
    let seen = prepared.same(script, own);
    for part in ["Old value = N", "executed"] {
        assert!(seen.iter().any(|line| line == part), "{part}: {seen:#?}");
    }
    let script = "./p wait & gdb -nx -q -batch -p $! -ex 'print counter' -ex 'set var counter = 7' -ex 'info inferiors' -ex detach 2>&1 \
        | grep -E '^[$]|detached'; wait $!; echo ended $?; echo; echo";
    let seen = prepared.same(script, own);
    assert!(seen.iter().any(|line| line == "ended N"), "{seen:#?}");
}

#[test]
fn gdb_reads_what_a_program_left_behind() {
    if skip::unless_slow() {
        return;
    }
    let Some(prepared) = prepared("gdb") else { return };
    let own = |line: &str| {
        let words = ["#", "Program terminated", "$", "ended", "Saved", "core"];
        words.iter().any(|word| line.starts_with(word)).then(|| numberless(line))
    };
    let asked = "-ex bt -ex 'print counter' -ex 'info symbol twice' -ex 'frame 0'";
    // As gdb writes it, and as the kernel does; where the node has it written elsewhere, there is none outside either.
    let script = format!(
        "gdb -nx -q -batch -ex 'break twice' -ex run -ex 'gcore kept' -ex kill ./p 2>&1; gdb -nx -q -batch {asked} ./p kept 2>&1; \
         ulimit -c unlimited; ./p fall; echo ended $?; for c in core*; do echo core; gdb -nx -q -batch {asked} ./p $c 2>&1; done; rm -f kept core*"
    );
    let seen = prepared.same(&script, own);
    for part in ["Program terminated with signal SIGSEGV, Segmentation fault.", "ended N"] {
        assert!(seen.iter().any(|line| line == part), "{part}: {seen:#?}");
    }
}
