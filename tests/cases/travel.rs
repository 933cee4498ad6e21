//! Containers and bundles on their way to another node: through a pipe of `ssh`'s, to a real `sshd` on loopback.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use harness::{Sandbox, bundles, eventually, images, skip, user};

const SSHD: &str = "/usr/sbin/sshd";

/// An `sshd` of the ordinary user's own, which lets that user in. Its end ends it.
struct Node {
    server: Child,
    config: PathBuf,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Node {
    /// A node whose store is `store`.
    fn open(sandbox: &Sandbox, store: &std::path::Path) -> Self {
        let dir = sandbox.make_dir("ssh");
        for key in ["host", "user"] {
            let path = dir.join(key).display().to_string();
            sandbox.run("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", &path]).ok();
        }
        // Nobody else takes a port that was free a moment ago, as a rule.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let at = |name: &str| dir.join(name).display().to_string();
        let path = format!("{}:/usr/bin:/bin", harness::coracle().parent().unwrap().display());
        let server = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\n\
             StrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             SetEnv PATH={path} CORACLE_DIR={}\n",
            at("host"),
            at("user.pub"),
            store.display(),
        );
        let login = user::ordinary().name.clone().unwrap();
        let client = format!(
            "Host node\nHostName 127.0.0.1\nPort {port}\nUser {login}\nIdentityFile {}\nIdentitiesOnly yes\nBatchMode yes\n\
             StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\n",
            at("user"),
        );
        fs::write(dir.join("sshd_config"), server).unwrap();
        fs::write(dir.join("config"), client).unwrap();
        let mut command = sandbox.command(SSHD);
        command.args(["-D", "-e", "-f", &at("sshd_config")]).stderr(fs::File::create(dir.join("log")).unwrap());
        let node = Self { server: command.spawn().unwrap(), config: dir.join("config") };
        eventually("sshd listens", 20, || TcpStream::connect(("127.0.0.1", port)).is_ok());
        node
    }

    /// A script in which `ssh` reaches the node.
    fn script(&self, sandbox: &Sandbox, script: &str) -> Command {
        let script = script.replace("ssh node", &format!("ssh -F {} node", self.config.display()));
        let mut command = sandbox.command("bash");
        command.args(["-c", &format!("set -o pipefail; {script}")]);
        let bin = harness::coracle().parent().unwrap().display().to_string();
        command.env("PATH", format!("{bin}:/usr/bin:/bin")).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// What such a script prints, which must succeed.
    fn run(&self, sandbox: &Sandbox, script: &str) -> String {
        let output = self.script(sandbox, script).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let log = fs::read_to_string(sandbox.path().join("ssh/log")).unwrap_or_default();
        assert!(output.status.success(), "{script}: {said}\nsshd: {log}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }
}

/// Whether there is no `sshd` here, or nobody whom it lets in; recorded as a skip.
fn no_ssh() -> bool {
    if user::ordinary().name.is_none() {
        skip::because("ssh lets nobody in who has no account");
        return true;
    }
    skip::lacks(&["sshd", "ssh", "ssh-keygen", "bash"])
}

#[test]
fn bundles_travel_to_another_node_by_ssh() {
    let Some(app) = bundles::alpine() else { return };
    if no_ssh() {
        return;
    }
    let sandbox = Sandbox::new();
    let store = sandbox.make_dir("there");
    let node = Node::open(&sandbox, &store);
    let (app, there) = (app.display(), store.display());
    let run = |script: &str| node.run(&sandbox, script);
    // What a run has changed, shipped and run in one line; the application there gets arguments and gives its status.
    run(&format!("{app} --coracle-writable=box sh -c 'echo shipped > /etc/word; rm /etc/motd'"));
    let ship = format!(
        "{app} --coracle-writable=box --coracle-export=bundle \
         | ssh node 'cd {there} && cat > b.run && chmod +x b.run && ./b.run sh -c \"cat /etc/word; ls /etc/motd; exit 9\"'"
    );
    let output = node.script(&sandbox, &ship).output().unwrap();
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(9), &b"shipped\n"[..]), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("/etc/motd: No such file"), "{output:?}");
    // Built into a pipe.
    let build = format!(
        "coracle build --quiet bundle:{app} --cmd '[\"echo\",\"built\"]' -o - \
         | ssh node 'cd {there} && cat > c.run && chmod +x c.run && ./c.run && ./c.run --coracle-verify >&2'"
    );
    assert_eq!(run(&build), "built");
    // A bundle becomes a container there, with its settings; half of one becomes nothing.
    run(&format!("coracle build --quiet bundle:{app} --env WORD=afloat -o env.run"));
    let id = run("ssh node 'coracle import --clone --name=xx -' < env.run");
    assert_eq!(id.len(), 32, "{id}");
    assert_eq!(run("ssh node \"coracle run xx sh -c 'echo \\$WORD'\""), "afloat");
    let cut = "head -c -100000 env.run | ssh node 'coracle import --clone --name=cut -'";
    assert!(!node.script(&sandbox, cut).output().unwrap().status.success());
    let half =
        format!("head -c -100000 env.run | ssh node 'cd {there} && cat > d.run && chmod +x d.run && ./d.run true'");
    let output = node.script(&sandbox, &half).output().unwrap();
    assert!(output.status.code() == Some(125) && output.stdout.is_empty(), "{output:?}");
    assert_eq!(run("ssh node coracle ps -aq | wc -l"), "1");
    // Its input and output are bytes, both ways.
    run("head -c 3000000 /dev/urandom > bytes");
    run(&format!("ssh node '{there}/c.run cat' < bytes | cmp - bytes"));
}

#[test]
fn a_container_travels_to_another_node_by_ssh() {
    let Some(tar) = images::find(images::ALPINE) else { return };
    if no_ssh() {
        return;
    }
    let sandbox = Sandbox::new();
    let image = format!("rootfs:{}", tar.display());
    let script = "echo $WORD; cat /changed; stat -c '%U %a' /changed";
    sandbox.coracle(["create", "--name=box", "-e", "WORD=afloat", "-w", "/tmp", &image, "sh", "-c", script]).ok();
    sandbox.coracle(["run", "box", "sh", "-c", "echo mine > /changed; chown games /changed; chmod 640 /changed"]).ok();
    sandbox.coracle(["setup", "--execmode=P1", "box"]).ok();
    let store = sandbox.make_dir("there");
    let node = Node::open(&sandbox, &store);
    let run = |script: &str| node.run(&sandbox, script);
    // As the README has it.
    let id = run("coracle export --clone box | ssh node coracle import --clone --name=box -");
    assert_eq!(id.len(), 32, "{id}");
    assert_eq!(run("ssh node coracle ps --format '{{.Names}}:{{.Mode}}'"), "box:P1", "with its name and its engine");
    assert_eq!(run("ssh node coracle start -a box"), "afloat\nmine\ngames 640", "with its options, files and owners");
    assert!(fs::read_dir(store.join("containers")).unwrap().count() == 1, "in the store that is there");
    // Images, too; and what is broken off on the way leaves nothing.
    run("coracle export box | ssh node coracle import - box:1");
    assert_eq!(run("ssh node coracle save box:1 | coracle load -q"), "Loaded image: box:1");
    let cut = "coracle export --clone box | head -c 2000000 | ssh node coracle import --clone --name=cut -";
    assert!(!node.script(&sandbox, cut).output().unwrap().status.success());
    assert_eq!(run("ssh node coracle ps -q | wc -l"), "1");
    run("ssh node coracle verify");
}
