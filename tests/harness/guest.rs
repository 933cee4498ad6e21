//! A guest kernel of Debian's in qemu, without hardware's help: for what this machine's own kernel does not have.
//!
//! Kernel, system and qemu are made once by mmdebstrap and kept in `target/suites`. A guest starts from them in some ten
//! seconds, sees a folder as `/payload`, runs `/payload/init.sh` as its first process, and ends with it; nothing that it
//! writes is kept.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Output, images::workspace, skip};

/// Needed before the guest's own system can be read; the rest is loaded by that.
const EARLY: &str = "crypto/crc32c_generic arch/x86/crypto/crc32c-intel lib/crc16 fs/mbcache fs/jbd2/jbd2 fs/ext4/ext4 drivers/block/virtio_blk";

const INIT: &str = r#"#!/bin/busybox sh
b=/bin/busybox
$b mkdir -p /proc /sys /dev /new
$b mount -t proc p /proc; $b mount -t sysfs s /sys; $b mount -t devtmpfs d /dev
for module in /modules/*.ko; do $b insmod $module; done
while [ ! -b /dev/vda ] || [ ! -b /dev/vdb ]; do $b usleep 50000; done
$b mount -t ext4 /dev/vda /new
$b mkdir -p /new/payload; $b mount -t ext4 -o ro /dev/vdb /new/payload
for dir in proc sys dev; do $b mkdir -p /new/$dir; $b mount -o move /$dir /new/$dir; done
exec $b switch_root /new /bin/bash /payload/init.sh
"#;

/// Makes the kernel, the first file system and the disk: arguments are where to, the early modules, the first program.
const MAKE: &str = r#"
    set -e; cd "$1"; debian="--aptopt=Acquire::Check-Valid-Until \"false\""
    mmdebstrap --quiet "$debian" --variant=minbase --include=qemu-system-x86 trixie qemu
    mmdebstrap --quiet "$debian" --variant=extract --include=linux-image-amd64 trixie kernel
    mmdebstrap --quiet "$debian" --variant=minbase --include=nfs-kernel-server,nfs-common,kmod,iproute2,procps,busybox-static trixie root
    version=$(ls kernel/usr/lib/modules); from=kernel/usr/lib/modules/$version; to=root/usr/lib/modules/$version
    mkdir -p $to; cp -a $from/modules.* $to/
    for part in fs net lib crypto arch/x86/crypto drivers/block drivers/net/veth.ko.xz; do
        mkdir -p $to/kernel/$(dirname $part); cp -a $from/kernel/$part $to/kernel/$part
    done
    chroot root depmod $version
    mkdir -p first/bin first/modules; cp root/bin/busybox first/bin/; number=10
    for module in $2; do xz -dc $from/kernel/$module.ko.xz > first/modules/$number.ko; number=$((number + 1)); done
    printf %s "$3" > first/init; chmod +x first/init
    (cd first; find . | ../root/bin/busybox cpio -o -H newc 2> /dev/null | gzip -1) > qemu/first.gz
    rm -rf root/usr/share/doc root/usr/share/man root/usr/share/locale root/var/cache/apt root/dev/*
    mke2fs -q -t ext4 -O ^has_journal -d root qemu/root.img 1G
    cp kernel/boot/vmlinuz-* qemu/kernel; rm -rf kernel root first
"#;

/// Arguments are where it was made, and the payload's folder.
const BOOT: &str = r#"
    set -e; work=$(mktemp -d "$1/qemu/run-XXXXXX"); trap 'rm -rf "$work"' EXIT
    mke2fs -q -t ext4 -O ^has_journal -d "$2" "$work/payload.img" $(($(du -sm "$2" | cut -f1) * 12 / 10 + 20))M > /dev/null
    run=/${work##*/}
    timeout "$3" chroot "$1/qemu" env TMPDIR=$run qemu-system-x86_64 -machine pc -accel tcg,thread=multi -cpu max -m 1500M -smp 2 \
        -nodefaults -no-user-config -display none -no-reboot -net none -serial stdio -kernel /kernel -initrd /first.gz \
        -append 'console=ttyS0 quiet panic=-1 rdinit=/init' \
        -drive file=/root.img,if=virtio,format=raw,snapshot=on,cache=unsafe \
        -drive file=$run/payload.img,if=virtio,format=raw,readonly=on < /dev/null
"#;

/// What a guest needs, made.
#[derive(Debug)]
pub struct Guest {
    folder: PathBuf,
}

impl Guest {
    /// Has it made, or records a skip. For the slow tier.
    ///
    /// # Panics
    /// If nothing can be written below `target`.
    #[must_use]
    pub fn find() -> Option<Self> {
        if skip::unless_slow() || skip::unless_root() || skip::lacks(&["mmdebstrap", "mke2fs", "xz"]) {
            return None;
        }
        let folder = workspace().join("target/suites/guest");
        if !folder.exists() {
            let half = folder.with_extension(format!("half-{}", std::process::id()));
            fs::create_dir_all(&half).expect("target can be written");
            let made = Command::new("sh").args(["-c", MAKE, "sh"]).arg(&half).args([EARLY, INIT]).status();
            if !made.is_ok_and(|status| status.success()) {
                let _ = fs::remove_dir_all(&half);
                skip::because("no guest kernel can be made here (no network?)");
                return None;
            }
            fs::rename(half, &folder).expect("target can be written");
        }
        Some(Self { folder })
    }

    /// Starts it with a folder as `/payload`, and gives what it said until it ended, or until so many seconds are over.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn boot(&self, payload: &Path, seconds: u32) -> Output {
        let mut command = Command::new("sh");
        command.args(["-c", BOOT, "sh"]).arg(&self.folder).arg(payload).arg(seconds.to_string());
        Output::of(command)
    }
}
