//! Who a socket's peer is, and who sent a message, as a guest that takes itself for root is told.

mod common;

use std::{fs, process::Command};

use common::{bind, extract, run, spec, volume};

/// Prints what `SCM_CREDENTIALS` of messages say: sent by the kernel, by the guest, with a descriptor and by name,
/// several at once; then what may not be sent.
const MESSAGES: &str = r#"
    #define _GNU_SOURCE
    #include <errno.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    #include <sys/socket.h>
    #include <sys/un.h>
    #include <unistd.h>

    static int give(int socket, const char *name, int with_file, int uid, int gid, int many) {
        char room[128] = {0}, byte = 'x';
        struct sockaddr_un to = {AF_UNIX};
        if (name) strcpy(to.sun_path, name);
        struct iovec part = {&byte, 1};
        struct msghdr message = {name ? &to : 0, name ? sizeof to : 0, &part, 1, room, 0, 0};
        struct cmsghdr *control = (void *)room;
        if (with_file) {
            *control = (struct cmsghdr){.cmsg_len = CMSG_LEN(4), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
            memcpy(CMSG_DATA(control), &(int){1}, 4);
            message.msg_controllen += CMSG_SPACE(4);
            control = (void *)(room + CMSG_SPACE(4));
        }
        if (uid >= 0) {
            *control = (struct cmsghdr){.cmsg_len = CMSG_LEN(12), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_CREDENTIALS};
            memcpy(CMSG_DATA(control), &(struct ucred){getpid(), uid, gid}, 12);
            message.msg_controllen += CMSG_SPACE(12);
        }
        char before[128]; memcpy(before, room, 128);
        struct mmsghdr both[2] = {{message}, {message}};
        int result = many ? sendmmsg(socket, both, 2, 0) : sendmsg(socket, &message, 0);
        if (memcmp(before, room, 128)) puts("what was sent has changed");
        return result < 0 ? -errno : result;
    }

    static void shown(struct msghdr *message) {
        for (struct cmsghdr *control = CMSG_FIRSTHDR(message); control; control = CMSG_NXTHDR(message, control)) {
            struct ucred who;
            memcpy(&who, CMSG_DATA(control), 12);
            if (control->cmsg_type == SCM_CREDENTIALS) printf(" [%d %d %d]", who.pid == getpid(), who.uid, who.gid);
            else printf(" file");
        }
        puts("");
    }

    static void take(int socket, int many) {
        char room[2][128], bytes[2];
        struct sockaddr_un from;
        struct iovec parts[2] = {{bytes, 1}, {bytes + 1, 1}};
        struct mmsghdr both[2];
        for (int at = 0; at < 2; at++) both[at].msg_hdr = (struct msghdr){&from, sizeof from, parts + at, 1, room[at], 128, 0};
        int got = many ? recvmmsg(socket, both, 2, 0, 0) : recvmsg(socket, &both[0].msg_hdr, 0);
        printf("got %d", got);
        for (int at = 0; at < (many ? got : 1); at++) shown(&both[at].msg_hdr);
    }

    int main(void) {
        int ends[2], on = 1, uid = getuid(), gid = getgid();
        socketpair(AF_UNIX, SOCK_DGRAM, 0, ends);
        setsockopt(ends[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
        printf("%d\n", give(ends[0], 0, 0, -1, -1, 0)); take(ends[1], 0);
        printf("%d\n", give(ends[0], 0, 0, uid, gid, 0)); take(ends[1], 0);
        printf("%d\n", give(ends[0], 0, 1, uid, gid, 0)); take(ends[1], 0);
        int named = socket(AF_UNIX, SOCK_DGRAM, 0), other = socket(AF_UNIX, SOCK_DGRAM, 0);
        struct sockaddr_un name = {AF_UNIX, "/w/name"};
        unlink("/w/name"); bind(named, (void *)&name, sizeof name);
        setsockopt(named, SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
        printf("%d\n", give(other, "/w/name", 1, uid, gid, 0)); take(named, 0);
        printf("%d\n", give(ends[0], 0, 0, uid, gid, 1)); give(ends[0], 0, 0, -1, -1, 0); take(ends[1], 1);
        printf("%d %d\n", give(ends[0], 0, 0, uid, 77, 0) > 0, give(ends[0], 0, 0, 77, gid, 0) > 0);
        if (uid == 0 && (setgid(5) || setuid(6))) return 1;
        if (uid == 0) { printf("%d", give(ends[0], 0, 0, 0, 5, 0)); puts(""); }
    }
"#;

#[test]
fn senders_are_who_they_take_themselves_for() {
    if harness::skip::lacks(&["gcc"]) {
        return;
    }
    let Some(tree) = extract("busybox-musl-x86_64") else { return };
    let (dir, room) = (volume(), volume());
    fs::write(dir.path().join("messages.c"), MESSAGES).expect("write");
    for word in ["-m64", "-m32"] {
        let mut gcc = Command::new("gcc");
        gcc.args([word, "-static", "-w", "-o", "messages", "messages.c"]).current_dir(dir.path());
        if !gcc.output().is_ok_and(|output| output.status.success()) {
            harness::skip::because(&format!("gcc {word} -static does not work here"));
            continue;
        }
        for variant in ["P1", "P2"] {
            let mut spec = spec(&tree, &["/v/messages"]);
            spec.variant = Some(variant.to_owned());
            spec.binds.push(bind(dir.path(), "/v", true));
            spec.binds.push(bind(room.path(), "/w", false));
            let said = |who: &str, more: &str| {
                format!(
                    "1\ngot 1 [1 {who}]\n1\ngot 1 [1 {who}]\n1\ngot 1 [1 {who}] file\n1\ngot 1 [1 {who}] file\n\
                     2\ngot 2 [1 {who}]\n [1 {who}]\n{more}"
                )
            };
            let (uid, gid) = (spec.identity.uid, spec.identity.gid);
            assert_eq!(run(&spec).text, said(&format!("{uid} {gid}"), "0 0\n"), "{word} {variant}");
            (spec.identity.uid, spec.identity.gid) = (0, 0);
            assert_eq!(run(&spec).text, said("0 0", "1 1\n-1\n"), "{word} {variant}");
        }
    }
}

const SOURCE: &str = r#"
    #define _GNU_SOURCE
    #include <stdio.h>
    #include <sys/socket.h>
    #include <unistd.h>
    int main(void) {
        int ends[2], type;
        struct ucred peer;
        socklen_t size = sizeof peer, small = 4;
        socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
        int told = getsockopt(ends[0], SOL_SOCKET, SO_PEERCRED, &peer, &size);
        printf("%d %d %d %d\n", told, peer.pid == getpid(), peer.uid, peer.gid);
        size = 4;
        getsockopt(ends[0], SOL_SOCKET, SO_TYPE, &type, &small);
        printf("%d\n", type);
    }
"#;

#[test]
fn peers_are_who_they_take_themselves_for() {
    if harness::skip::lacks(&["gcc"]) {
        return;
    }
    let Some(tree) = extract("busybox-musl-x86_64") else { return };
    let dir = volume();
    fs::write(dir.path().join("peer.c"), SOURCE).expect("write");
    for word in ["-m64", "-m32"] {
        let mut gcc = Command::new("gcc");
        gcc.args([word, "-static", "-w", "-o", "peer", "peer.c"]).current_dir(dir.path());
        if !gcc.output().is_ok_and(|output| output.status.success()) {
            harness::skip::because(&format!("gcc {word} -static does not work here"));
            continue;
        }
        for variant in ["P1", "P2"] {
            let mut spec = spec(&tree, &["/v/peer"]);
            spec.variant = Some(variant.to_owned());
            spec.binds.push(bind(dir.path(), "/v", true));
            let (uid, gid) = (spec.identity.uid, spec.identity.gid);
            assert_eq!(run(&spec).text, format!("0 1 {uid} {gid}\n1\n"), "{word} {variant}");
            (spec.identity.uid, spec.identity.gid) = (0, 0);
            assert_eq!(run(&spec).text, "0 1 0 0\n1\n", "{word} {variant}");
        }
    }
}
