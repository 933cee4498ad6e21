//! Real programs in real trees, under each engine that runs here: the same script has to print the same, expected, words.
//! Alpine in the quick tier; a Debian tree with compilers, git, perl and Python in the slow one.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use harness::{Output, Sandbox, bundles, coracle, images, skip};

/// Runs a script of theme after theme (`== name`, then commands) under every engine, and compares theme by theme. Where
/// files are edited, the first of two texts is the second one.
fn same_everywhere(sandbox: &Sandbox, bundle: &Path, shell: &str, script: &str, expected: &str, edited: [&str; 2]) {
    let path = sandbox.write("script", script);
    let explained = sandbox.run(bundle, ["--coracle-explain"]).stdout;
    for (engine, name) in [("namespaces", "namespaces"), ("ptrace", "ptrace"), ("F3", "preload"), ("F1", "preload")] {
        if !explained.contains(&format!("{name}: accepted")) {
            skip::because(&format!("this node refuses {name}"));
            continue;
        }
        let option = format!("--coracle-engine={engine}");
        let dir = sandbox.make_dir(&format!("work/{engine}"));
        let mut command = sandbox.command(bundle);
        command.args([option.as_str(), shell, path.to_str().unwrap()]).current_dir(&dir);
        let output = Output::of(command);
        let seen: Vec<&str> = output.stdout.split("== ").collect();
        let expected = if engine == "F3" { expected.replace(edited[0], edited[1]) } else { expected.to_owned() };
        let wanted: Vec<&str> = expected.trim_start().split("== ").collect();
        for (seen, wanted) in seen.iter().zip(&wanted) {
            assert_eq!(seen, wanted, "{engine}: {output}");
        }
        assert_eq!(seen.len(), wanted.len(), "{engine}: {output}");
        output.ok();
    }
}

const ALPINE: &str = r#"
set -e
echo "== find and tar"
find /lib/apk /etc/apk -type f | sort | head -3
tar cf e.tar -C / usr/share; mkdir x; tar xf e.tar -C x; diff -r /usr/share x/usr/share && echo same
echo "== pipelines"
seq 1 1000 | sort -rn | head -3 | tr '\n' ' '; yes | head -c 1000000 | md5sum; cat <(echo substituted)
mkfifo f; (echo through >f) & cat f; wait
echo "== links"
echo hello >a; ln -s a b; cat b; mv b c; cp -a c d; readlink d; readlink -f /usr/bin/env; realpath /var/run
readlink /proc/self/exe; ln -s /etc/alpine-release abs; cat abs
echo "== signals"
set +e
sh -c 'kill -9 $$' 2>/dev/null; echo $?; sh -c 'trap "echo caught; exit 3" TERM; kill $$; sleep 5'; echo $?
timeout 1 sleep 5 2>/dev/null; echo $?
echo "== packages"
apk info 2>/dev/null | wc -l; apk info -W /bin/busybox 2>/dev/null
echo "== read-only"
for command in 'rm /etc/motd' 'chmod 777 /bin/sh' 'mkdir /new' 'touch /bin/busybox' 'mv /bin /nib' 'ln /bin/sh /bin/hs'; do
    $command 2>&1 | sed 's/.*: //'
done
echo "== devices"
dd if=/dev/zero bs=1k count=10 2>/dev/null | wc -c; head -c 4 /dev/urandom | wc -c; echo gone >/dev/null;
"#;

const ALPINE_SAYS: &str = "
== find and tar
/etc/apk/arch
/etc/apk/keys/alpine-devel@lists.alpinelinux.org-4a6a0840.rsa.pub
/etc/apk/keys/alpine-devel@lists.alpinelinux.org-5243ef4b.rsa.pub
same
== pipelines
1000 999 998 08ae78c6517d89241208de2211996ae8  -
substituted
through
== links
hello
a
/bin/busybox
/run
/bin/busybox
3.20.3
== signals
137
caught
3
143
== packages
14
/bin/busybox is owned by busybox-1.36.1-r29
== read-only
Read-only file system
Read-only file system
Read-only file system
Read-only file system
Read-only file system
Read-only file system
== devices
10240
4
";

#[test]
fn alpine_works() {
    let Some(bundle) = bundles::alpine() else { return };
    same_everywhere(&Sandbox::new(), &bundle, "sh", ALPINE, ALPINE_SAYS, ["", ""]);
}

const DEBIAN: &str = r#"
set -e
echo "== dpkg and apt"
dpkg -l bash | tail -1 | cut -c1-2; dpkg -S /bin/bash; apt-cache policy bash | grep -c Installed
test $(apt list --installed 2>/dev/null | grep -c installed) = $(dpkg -l | grep -c ^ii) && echo agree
echo "== checksums"
dpkg --verify bash
echo "== shell"
cat <(echo substituted); tar cf - /usr/share/perl5 2>/dev/null | tar xf - && diff -r /usr/share/perl5 usr/share/perl5 && echo same
script -qec 'tty >/dev/null && echo tty; bash -ic "sleep 0.5 & fg >/dev/null; echo continued" 2>/dev/null' /dev/null | tr -d '\r'
echo "== python"
python3 -m venv v; v/bin/python -c 'import sys; print(sys.prefix != sys.base_prefix)'; v/bin/pip --version | cut -d' ' -f1
v/bin/python - <<'P'
import ctypes, multiprocessing, os, shutil, socket, sqlite3, ssl, subprocess, tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import shared_memory
made = tempfile.mkdtemp(dir='.'); open(made + '/f', 'w').write('x'); shutil.rmtree(made)
done = subprocess.run(['sh', '-c', 'echo sub; exit 4'], capture_output=True); print(done.returncode, done.stdout)
server = socket.socket(socket.AF_UNIX); server.bind('sock'); server.listen()
client = socket.socket(socket.AF_UNIX); client.connect('sock'); client.send(b'hi'); print(server.accept()[0].recv(9))
print(os.getcwd() == os.path.realpath('.'), os.readlink('/proc/self/exe').startswith('/usr/bin/python3'))
try: open('/etc/x', 'w')
except OSError as error: print(error.strerror)
with ProcessPoolExecutor(3) as pool: print(sum(pool.map(abs, range(-50, 0))))
memory = shared_memory.SharedMemory(create=True, size=100); memory.buf[0] = 7; print(memory.buf[0]); memory.close(); memory.unlink()
base = sqlite3.connect('base'); base.execute('create table t(x)'); base.execute('insert into t values(1)'); base.commit()
print(base.execute('select count(*) from t').fetchall())
P
echo "== perl"
perl -MCwd -MFile::Find -e 'find(sub { $n++ if -f }, "/etc/apt"); print $n > 0 ? "found\n" : "none\n"; print getcwd() eq $ENV{PWD} ? "here\n" : "lost\n"; open(F, "|cat"); print F "piped\n"; close F'
echo "== git"
export GIT_CONFIG_COUNT=3 GIT_CONFIG_KEY_0=user.name GIT_CONFIG_VALUE_0=n GIT_CONFIG_KEY_1=user.email GIT_CONFIG_VALUE_1=a@b
export GIT_CONFIG_KEY_2=init.defaultBranch GIT_CONFIG_VALUE_2=main
git init -q r; cd r; for i in 1 2 3; do echo $i >f$i; git add .; git commit -qm c$i; done
git checkout -q -b other HEAD~1; echo z >z; git add z; git commit -qm z; git merge -q -m m main; git log --oneline | wc -l
git clone -q . ../r2; git gc -q; git fsck 2>&1 | wc -l; git worktree add -q ../wt HEAD; ls ../wt | wc -l; cd ..
echo "== gcc and make"
printf '#include <stdio.h>\n#include "m.h"\nint main(void) { puts(M); }\n' >m.c; echo '#define M "made"' >m.h
printf 'm: m.o\n\tgcc -o $@ $^\nm.o: m.c m.h\n\tgcc -O2 -c $<\n' >Makefile; make -s; ./m; make; gcc -static m.c -o ms; ./ms
gcc -shared -fPIC -x c - -o libx.so <<<'int x(void) { return 3; }'; python3 -c 'import ctypes; print(ctypes.CDLL("./libx.so").x())'
LD_PRELOAD=$PWD/libx.so ./m
"#;

const DEBIAN_SAYS: &str = "
== dpkg and apt
ii
bash: /bin/bash
1
agree
== checksums
== shell
substituted
same
tty
continued
== python
True
pip
4 b'sub\\n'
b'hi'
True True
Read-only file system
1275
7
[(1,)]
== perl
found
here
piped
== git
5
0
4
== gcc and make
made
make: 'm' is up to date.
made
3
made
";

/// What dpkg finds of the files that are edited: their sums and no more.
const CHECKSUMS: [&str; 2] =
    ["== checksums\n", "== checksums\n??5??????   /bin/bash\n??5??????   /usr/bin/clear_console\n"];

#[test]
fn debian_works() {
    let Some(tar) = images::debian("bookworm") else { return };
    let sandbox = Sandbox::new();
    let (source, bundle) = (format!("rootfs:{}", tar.display()), sandbox.work("debian.run"));
    sandbox.run(coracle(), ["build", &source, "--cmd", r#"["/bin/bash"]"#, "-o", bundle.to_str().unwrap()]).ok();
    same_everywhere(&sandbox, &bundle, "bash", DEBIAN, DEBIAN_SAYS, CHECKSUMS);
}

#[test]
fn a_bundle_runs_inside_a_traced_one() {
    let Some(bundle) = bundles::alpine() else { return };
    let sandbox = Sandbox::new();
    let inner = sandbox.write("inner.run", fs::read(&bundle).unwrap());
    fs::set_permissions(&inner, PermissionsExt::from_mode(0o755)).unwrap();
    if !sandbox.run(&bundle, ["--coracle-explain"]).stdout.contains("ptrace: accepted") {
        skip::because("this node refuses ptrace");
        return;
    }
    // The inner engine's tracer is a guest that debugs guests.
    let script = "cat /etc/alpine-release; exit 7";
    let output = sandbox.run(&bundle, ["--coracle-engine=ptrace", "./inner.run", "/bin/sh", "-c", script]);
    assert_eq!((output.stdout.as_str(), output.code), ("3.20.3\n", Some(7)), "{output}");
}
