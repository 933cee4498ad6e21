//! A guest's own limits and control groups are the guest's: the engine lives with them, and adds nothing to them.

mod common;

use std::{
    fs,
    io::Read,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::Command,
};

use common::{NOBODY_IN_PARTICULAR, alpine, bind, extract, spec, start_after, volume, wait};
use coracle_api::Ended;

/// Bytes that a file may have: a few more than the smallest programs.
const MOST: u64 = 10 << 10;

#[test]
fn a_small_limit_of_files_sizes_is_the_guests() {
    let script = "ulimit -f; ulimit -Hf; cd /v; sh -c 'head -c 20000 /dev/zero >large'; echo $?; wc -c <large; \
                  head -c 5000 /dev/zero >small; wc -c <small; cat /proc/self/comm; trap '' XFSZ; head -c 20000 /dev/zero | dd 2>/dev/null >other; \
                  echo $?; wc -c <other; truncate -s 20000 third 2>/dev/null; echo $?";
    for image in ["alpine-3.20.3-x86_64", "alpine-3.20.3-i386"] {
        let Some(tree) = extract(image) else { continue };
        for (variant, root) in [("P1", false), ("P2", false), ("P1", true)] {
            let dir = volume();
            let mut spec = spec(&tree, &["sh", "-c", script]);
            spec.variant = Some(variant.to_owned());
            spec.binds.push(bind(dir.path(), "/v", false));
            if root {
                (spec.identity.uid, spec.identity.gid) = (0, 0);
            }
            let (process, mut output) = start_after(&spec, || {
                let limit = libc::rlimit { rlim_cur: MOST, rlim_max: MOST };
                // SAFETY: setrlimit reads one struct rlimit.
                assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) }, 0);
            });
            let mut text = String::new();
            output.read_to_string(&mut text).expect("the guest's output");
            assert_eq!(wait(process), Ok(Ended::Exited(0)), "{text}");
            assert_eq!(
                text, "20\n20\nFile size limit exceeded\n153\n10240\n5000\ncat\n1\n10240\n1\n",
                "{image} {variant} root {root}"
            );
            assert_eq!(fs::metadata(dir.path().join("large")).expect("written").len(), MOST);
        }
    }
}

/// Makes processes in the control groups that it is given the directories of; each tells where it is.
const INTO: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
static void where(void) { char line[512]; FILE *file = fopen("/proc/self/cgroup", "r"); while (fgets(line, 512, file)) if (!strncmp(line, "0:", 2)) printf("%s", strrchr(line, '/')); fclose(file); fflush(stdout); }
int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IONBF, 0); where();
    for (int at = 1; at < argc; at++) {
        struct clone_args how = {.flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = open(argv[at], O_PATH | O_DIRECTORY)};
        long child = syscall(SYS_clone3, &how, sizeof how);
        if (child == 0) { where(); _exit(access("/etc/alpine-release", R_OK)); }
        if (child < 0) { printf("%s\n", strerror(errno)); continue; }
        int status; waitpid(child, &status, 0); printf("ended %d\n", status);
    }
    return 0;
}
"#;

/// Two control groups that the user of the runs may move its processes between, if this node has such.
struct Groups(PathBuf);

impl Groups {
    fn make() -> Option<Self> {
        let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
        let root = roots.into_iter().find(|root| root.join("cgroup.procs").exists())?;
        let groups = Self(root.join(format!("coracle-test-{}", std::process::id())));
        for name in [".", "one", "two"] {
            let dir = groups.0.join(name);
            fs::create_dir(if name == "." { &groups.0 } else { &dir }).ok()?;
            let files = [dir.clone(), dir.join("cgroup.procs"), dir.join("cgroup.threads")];
            files.iter().try_for_each(|path| chown(path, Some(NOBODY_IN_PARTICULAR), None)).ok()?;
        }
        Some(groups)
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for dir in [self.0.join("one"), self.0.join("two"), self.0.clone()] {
            let _ = fs::remove_dir(dir);
        }
    }
}

#[test]
fn a_process_is_born_into_another_control_group() {
    if harness::skip::lacks(&["gcc"]) || harness::skip::unless_root() {
        return;
    }
    let Some(tree) = alpine() else { return };
    let Some(groups) = Groups::make() else { return harness::skip::because("no control groups can be made here") };
    let dir = volume();
    fs::write(dir.path().join("into.c"), INTO).expect("write");
    let mut gcc = Command::new("gcc");
    gcc.args(["-static", "-w", "-o"]).arg(dir.path().join("into")).arg(dir.path().join("into.c"));
    assert!(gcc.status().expect("gcc").success());
    for variant in ["P1", "P2"] {
        let mut spec = spec(tree, &["/v/into", "/g/two", "/g/one", "/v", "/none"]);
        spec.variant = Some(variant.to_owned());
        spec.binds = vec![bind(dir.path(), "/v", true), bind(&groups.0, "/g", false)];
        // Only root may move it to its first group.
        // SAFETY: raise takes a number.
        let (process, mut output) = start_after(&spec, || assert_eq!(unsafe { libc::raise(libc::SIGSTOP) }, 0));
        assert_eq!(wait(process), Err(libc::SIGSTOP));
        fs::write(groups.0.join("one/cgroup.procs"), process.to_string()).expect("it is moved");
        // SAFETY: kill takes two numbers.
        assert_eq!(unsafe { libc::kill(process, libc::SIGCONT) }, 0);
        let mut text = String::new();
        output.read_to_string(&mut text).expect("the guest's output");
        assert_eq!(wait(process), Ok(Ended::Exited(0)), "{text}");
        let expected = "/one\n/two\nended 0\n/one\nended 0\nBad file descriptor\nInvalid argument\n";
        assert_eq!(text, expected, "{variant}");
    }
}
