//! System calls and a C build in a Debian tree: native (chroot) against Coracle's engines and others of the kind.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, ensure};
use harness::{Sandbox, images::workspace};
use tempfile::TempDir;

use super::{
    pairs,
    peers::{Way, working},
    stats::{Peer, compare_printed},
    tree,
};
use crate::cargo::run;

/// The C library whose files are compiled: it is at hand, since Coracle is built with it.
const PACKAGE: &str = "zstd-sys-";

/// Who builds it: of each kind the quickest that there is.
const BUILDERS: [&str; 9] = [
    "native",
    "coracle preload",
    "coracle F1",
    "coracle P1",
    "coracle namespaces",
    "bwrap",
    "proot 5.4",
    "proot 5.4, no seccomp",
    "fakechroot",
];

/// With what comes before, that is six minutes.
const LIMIT: Duration = Duration::from_secs(270);

/// What is built, in the tree and outside it.
struct Stage {
    sandbox: Sandbox,
    /// As deep as the place where a node's cache is unless somebody names another: `/var/tmp`.
    _cache: TempDir,
    tree: PathBuf,
    bundle: PathBuf,
}

/// Goals, for a path of five components: preload at most 1.3 of native; P1 at most 0.7 of PRoot 5.4 for calls with
/// paths, and within 10 % of native for others.
pub(crate) fn syscalls(rounds: usize) -> anyhow::Result<()> {
    let stage = Stage::set()?;
    let ways = stage.ways()?;
    for (call, count) in [("stat", 4000), ("open", 4000), ("missing", 4000), ("getcwd", 4000), ("getppid", 100_000)] {
        let count = count.to_string();
        let program = ["/bench/probe", call, &count];
        compare_printed(&format!("{call}, one call"), rounds, "native", &peers(&ways, &program))?;
    }
    // One tracer serves all: nothing of what a call costs may come from how many there are.
    for processes in ["1", "64"] {
        let title = format!("stat by {processes} at once, the time for each call");
        compare_printed(&title, rounds, "native", &peers(&ways, &["/bench/probe", "stat", "16000", processes]))?;
    }
    Ok(())
}

/// Goals: preload at most 1.05 of native, P1 at most 1.25.
pub(crate) fn compile(rounds: usize) -> anyhow::Result<()> {
    let stage = Stage::set()?;
    let ways = stage.ways()?;
    let build = "exec make -s -C /bench -j2 OUT=$(mktemp -d /tmp/coracle-bench-XXXXXX) all >/dev/null";
    let title = "compiling zstd with gcc -O0, two at once";
    pairs::compare(title, rounds, LIMIT, &pairs::named(&ways, &BUILDERS), &["/bin/sh", "-c", build])
}

fn peers<'a>(ways: &'a [Way<'a>], program: &'a [&'a str]) -> Vec<Peer<'a>> {
    ways.iter()
        .map(|way| {
            Peer::new(way.name, move || {
                let mut command = (way.prefix)();
                command.args(program);
                command
            })
        })
        .collect()
}

impl Stage {
    fn set() -> anyhow::Result<Self> {
        let tree = tree::like_host()?;
        let place = tree.join("bench");
        fs::create_dir_all(&place)?;
        let source = workspace().join("builder/xtask/src/bench/probe.c");
        // By the tree's own compiler, and dynamic: some peers come into programs by their loader.
        fs::copy(source, place.join("probe.c"))?;
        run(Command::new("chroot").arg(&tree).args(["gcc", "-O2", "-o", "/bench/probe", "/bench/probe.c"]))?;
        let sources = c_library()?;
        run(Command::new("cp").arg("-r").arg(sources).arg(&place))?;
        fs::write(place.join("Makefile"), MAKEFILE)?;
        run(Command::new("chmod").args(["-R", "a+rX"]).arg(&place))?;
        // What mounts and binds need.
        for dir in ["dev", "proc", "sys"] {
            fs::create_dir_all(tree.join(dir))?;
        }
        if !tree.join("dev/null").exists() {
            // A chroot has no other; packing leaves it out.
            run(Command::new("mknod").args(["-m", "666"]).arg(tree.join("dev/null")).args(["c", "1", "3"]))?;
        }
        fs::set_permissions(tree.join("tmp"), fs::Permissions::from_mode(0o1777))?;
        let mut sandbox = Sandbox::new();
        let cache = tempfile::Builder::new().prefix("coracle-bench-").tempdir_in("/tmp")?;
        sandbox.own(cache.path());
        sandbox.set("CORACLE_CACHE", cache.path());
        let bundle = sandbox.work("tree.run");
        let from = format!("rootfs:{}", tree.display());
        let built =
            sandbox.coracle(["build", "--quiet", "--compression=1", &from, "-o", &bundle.display().to_string()]);
        ensure!(built.code == Some(0), "{built}");
        let first = sandbox.run(&bundle, ["true"]);
        ensure!(first.code == Some(0), "{first}");
        Ok(Self { sandbox, _cache: cache, tree, bundle })
    }

    fn ways(&self) -> anyhow::Result<Vec<Way<'_>>> {
        working(&self.sandbox, &self.tree, &self.bundle)
    }
}

const MAKEFILE: &str = "SOURCES := $(wildcard lib/common/*.c lib/compress/*.c lib/decompress/*.c)
all: $(SOURCES:lib/%.c=$(OUT)/%.o)
\trm -rf $(OUT)
$(OUT)/%.o: lib/%.c
\tmkdir -p $(@D)
\tgcc -O0 -DZSTD_DISABLE_ASM -c -o $@ $<
";

/// The library's sources among cargo's.
fn c_library() -> anyhow::Result<PathBuf> {
    let output = Command::new(env!("CARGO")).args(["metadata", "--format-version=1", "--offline"]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let manifest = text
        .split("\"manifest_path\":\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .find(|path| path.contains(PACKAGE))
        .with_context(|| format!("{PACKAGE}* is not among cargo's sources"))?;
    Ok(PathBuf::from(manifest).with_file_name("zstd").join("lib"))
}
