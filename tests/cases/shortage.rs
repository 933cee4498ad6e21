//! A working day on disks and inodes of every size: whatever step they run out at, it fails in one line, leaves nothing
//! half-made, and all that was there before is whole.

use std::{fs, process::Command};

use harness::{Output, Sandbox, images, skip, user};

/// The day; what fails prints its command, its status and what it said. Then what nobody should have left.
const DAY: &str = r#"
    cd /mnt/work; export TMPDIR=/mnt/disk/tmp; mkdir -p "$TMPDIR" 2>/dev/null
    step() {
        said=$("$@" 2>&1 >/dev/null); code=$?; number=$((number + 1))
        [ $code = 0 ] || printf '%s\n' "$said" | sed "s|^|FAILED $number ($code, ${*:2:2}): |"
    }
    step coracle import -q image.tar my:1
    step coracle create -q --pull=never --name one my:1
    step coracle run -q --pull=never one sh -c 'echo kept > /mark'
    step coracle run -q -d --pull=never one true
    step coracle wait one
    step coracle clone -q one --name two
    step coracle export -q -o /mnt/disk/one.tar one
    step coracle save -q -o /mnt/disk/saved.tar my:1
    step coracle import -q /mnt/disk/one.tar my:2
    step coracle tag -q my:1 my:3
    step coracle setup --execmode=P1 one
    step coracle run -q --pull=never one true
    step coracle rename one uno
    step coracle build -q container:uno -o /mnt/disk/uno.run
    cd "$CORACLE_DIR" && find . -name '.new-*' -o -name '.coracle-*' -o -name 'layer-*' -o -path './trash/*' | sed 's/^/LEFT /'
    ls -A /mnt/disk "$TMPDIR" 2>/dev/null | grep -E '^\.|coracle' | sed 's/^/LEFT /'
"#;

/// What must be so afterwards, when there is room again.
const AFTER: &str = r#"
    cd /mnt/work; coracle verify || exit 1
    for name in $(coracle ps --format '{{.Names}}'); do
        coracle export -o /mnt/disk/again.tar "$name" || exit 1
        [ "$name" = two ] || coracle run --pull=never "$name" cat /mark 2>/dev/null | grep -qx kept && echo "MARKED $name"
    done
    coracle ps -q | xargs -r coracle rm > /dev/null && coracle prune -q -a -f --partial > /dev/null && ls -A "$CORACLE_DIR/containers" 2>/dev/null || true
"#;

#[test]
fn wherever_room_runs_out_one_line_says_so_and_nothing_is_lost() {
    let Some(tar) = images::find(images::BUSYBOX_MUSL) else { return };
    if skip::unless_root() || skip::lacks(&["unshare", "setpriv", "bash"]) {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.make_dir("disk");
    let image = sandbox.work("image.tar");
    let unpacked = fs::File::create(&image).unwrap();
    assert!(Command::new("gzip").arg("-dc").arg(&tar).stdout(unpacked).status().unwrap().success());
    sandbox.own(&image);
    let user = user::ordinary();
    let coracle = harness::coracle().parent().unwrap().display().to_string();
    let as_user = |script: &str| {
        format!(
            "setpriv --reuid {} --regid {} --clear-groups env -i PATH={coracle}:/usr/bin:/bin HOME=/mnt/home \
             CORACLE_DIR=/mnt/disk/store bash -c '{}'",
            user.uid,
            user.gid,
            script.replace('\'', "'\\''"),
        )
    };
    let sizes = ["8k", "600k", "2m", "3m", "5m", "7m", "30m"].map(|size| format!("size={size}"));
    let inodes = ["3", "7", "12", "18", "26", "36", "60", "90"].map(|number| format!("size=64m,nr_inodes={number}"));
    let (mut failures, mut successes) = (0, 0);
    for options in sizes.into_iter().chain(inodes) {
        let script = format!(
            "set -e; mount --bind \"$0\" /mnt; mount -t tmpfs -o {options} none /mnt/disk; chown {} /mnt/disk\n{}\n\
             mount -o remount,size=256m,nr_inodes=100000 /mnt/disk\n{}",
            user.uid,
            as_user(DAY),
            as_user(AFTER),
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "bash", "-c", &script]).arg(sandbox.path());
        let day = Output::of(command);
        let said = day.ok();
        assert!(!said.contains("LEFT"), "{options}: {day}");
        assert!(said.contains("all whole"), "{options}: {day}");
        let failed: Vec<&str> = said.lines().filter(|line| line.starts_with("FAILED ")).collect();
        for line in &failed {
            let (_, message) = line.split_once(": ").unwrap();
            assert!(message.starts_with("coracle: "), "{options}: {line}");
            let full = ["No space left", "no such ", "No such file", "is not in the store"];
            assert!(full.iter().any(|reason| message.contains(reason)), "{options}: {line}");
        }
        let steps: Vec<&str> = failed.iter().filter_map(|line| line.split(": ").next()).collect();
        let unique: std::collections::HashSet<_> = steps.iter().collect();
        assert_eq!(unique.len(), steps.len(), "{options}: a failure takes one line: {said}");
        assert!(options != "size=30m" || failed.is_empty(), "there is room for a whole day: {day}");
        failures += failed.len();
        successes += usize::from(said.contains("MARKED"));
    }
    assert!(failures > 30 && successes >= 3, "{failures} failures, {successes} days with a container");
}
