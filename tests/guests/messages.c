/* Socket names in messages, cut names, names by detours, and what travels with them. */
#include "probe.h"
#include <stddef.h>

static socklen_t name(struct sockaddr_un *at, const char *path) {
    memset(at, 0, sizeof *at);
    at->sun_family = AF_UNIX;
    memcpy(at->sun_path, path, strnlen(path, sizeof at->sun_path));
    return offsetof(struct sockaddr_un, sun_path) + strnlen(path, sizeof at->sun_path);
}

static void told(const char *what, const struct sockaddr_un *at, long len, long room) {
    long have = len < room ? len : room;
    have -= offsetof(struct sockaddr_un, sun_path);
    printf("%s: length %ld %.*s\n", what, len, have > 0 ? (int)strnlen(at->sun_path, have) : 0, at->sun_path);
}

static void own(const char *what, int fd, socklen_t room) {
    char bytes[160];
    memset(bytes, '#', sizeof bytes);
    socklen_t len = room;
    T(getsockname(fd, (struct sockaddr *)bytes, &len));
    told(what, (struct sockaddr_un *)bytes, len, room);
    printf("  untouched behind: %d\n", bytes[room] == '#');
}

static void bound(const char *path, int type) {
    struct sockaddr_un at;
    int fd = socket(AF_UNIX, type, 0);
    printf("bind %s\n", path);
    T(bind(fd, (struct sockaddr *)&at, name(&at, path)));
    own("bound", fd, sizeof at);
    close(fd);
}

static int pair_of(int type, struct sockaddr_un *at, const char *path) {
    int fd = socket(AF_UNIX, type, 0);
    if (bind(fd, (struct sockaddr *)at, name(at, path))) printf("%s: %s\n", path, strerrorname_np(errno));
    return fd;
}

static volatile int alarms;
static void on_alarm(int signal) { alarms++; }

static void received(const char *what, int fd) {
    char text[64], control[64];
    struct sockaddr_un from;
    struct iovec into = {text, sizeof text};
    struct msghdr reply = {.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &into, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    long got = recvmsg(fd, &reply, MSG_DONTWAIT);
    printf("%s: %ld %.*s control %d\n", what, got, got > 0 ? (int)got : 0, text, reply.msg_controllen > 0);
    if (got >= 0) told("  from", &from, reply.msg_namelen, sizeof from);
}

int main(int argc, char **argv) {
    struct sockaddr_un at, from;
    struct stat st;
    char text[64];
    chdir("/work");
    umask(022);
    mkdir("dir", 0755);
    mkdir("dir/sub", 0755);
    symlink("dir", "link");

    /* As they were bound. */
    bound("/work/dir/one", SOCK_STREAM);
    bound("/work//dir/./two", SOCK_STREAM);
    bound("/work/link/three", SOCK_STREAM);
    bound("dir/four", SOCK_STREAM);
    bound("link/five", SOCK_STREAM);
    bound("../work/six", SOCK_STREAM);
    bound("./seven", SOCK_DGRAM);
    bound("/work/dir/", SOCK_STREAM);
    bound("/work/dir/../eight", SOCK_SEQPACKET);
    bound("/proc/self/cwd/nine", SOCK_STREAM);
    bound("/links/abs", SOCK_STREAM);
    bound("/links/new", SOCK_STREAM);
    bound("/new", SOCK_STREAM);
    T(symlink("nowhere", "dangling"));
    bound("/work/dangling", SOCK_STREAM);
    T(unlink("/work/dir/one"));
    bound("/work/link/one", SOCK_STREAM);
    T(stat("/work/dir/three", &st)); printf("mode %o\n", st.st_mode);
    umask(0177);
    bound("/work/masked", SOCK_STREAM);
    T(stat("masked", &st)); printf("mode %o\n", st.st_mode);
    umask(022);

    /* Names that fill an address. */
    char longest[109];
    memset(longest, 'y', 108);
    longest[108] = 0;
    bound(longest, SOCK_STREAM);
    memcpy(longest, "/work/dir/", 10);
    bound(longest, SOCK_STREAM);
    bound(longest, SOCK_STREAM);
    T(stat(longest, &st)); printf("mode %o\n", st.st_mode);
    T(unlink(longest));
    int server = pair_of(SOCK_STREAM, &at, longest);
    own("longest", server, sizeof at);
    own("longest, cut", server, 40);
    own("longest, one more", server, sizeof at + 1);
    T(listen(server, 8));
    int client = socket(AF_UNIX, SOCK_STREAM, 0);
    T(connect(client, (struct sockaddr *)&at, name(&at, longest)));
    socklen_t len = sizeof from;
    T(getpeername(client, (struct sockaddr *)&from, &len)); told("peer", &from, len, sizeof from);
    DIR *list = opendir("dir");
    int entries = 0;
    while (readdir(list)) entries++;
    closedir(list);
    printf("entries: %d\n", entries);
    int served = accept4(server, (struct sockaddr *)&from, (len = 5, &len), SOCK_CLOEXEC);
    printf("accepted %d length %u\n", served >= 0, len);
    struct ucred who; len = sizeof who;
    T(getsockopt(client, SOL_SOCKET, SO_PEERCRED, &who, &len)); printf("peer is me: %d %d\n", who.pid == getpid(), who.uid == getuid());

    /* Cut names. */
    int short_ = pair_of(SOCK_STREAM, &at, "/work/dir/short");
    for (int room = 3; room < 24; room += 3) own("cut", short_, room);
    T(getsockname(short_, (struct sockaddr *)8, (len = sizeof at, &len)));
    len = -1; T(getsockname(short_, (struct sockaddr *)&from, &len));
    T(getsockname(short_, (struct sockaddr *)&from, (socklen_t *)8));
    T(getsockname(0, (struct sockaddr *)&from, (len = sizeof from, &len)));

    /* Messages. */
    int a = pair_of(SOCK_DGRAM, &at, "/work/link/a"), b = pair_of(SOCK_DGRAM, &at, "b"), c = pair_of(SOCK_DGRAM, &at, "/work/c");
    struct iovec piece[3] = {{"first", 5}, {"second", 6}, {"third", 5}};
    struct sockaddr_un to[3];
    struct mmsghdr many[3];
    memset(many, 0, sizeof many);
    for (int at = 0; at < 3; at++) {
        name(&to[at], "/work/c");
        many[at].msg_hdr = (struct msghdr){.msg_name = &to[at], .msg_namelen = sizeof to[at], .msg_iov = &piece[at], .msg_iovlen = 1};
    }
    int sent = sendmmsg(a, many, 3, 0);
    printf("sent %d: %u %u %u\n", sent, many[0].msg_len, many[1].msg_len, many[2].msg_len);
    printf("names kept: %d %u\n", many[0].msg_hdr.msg_name == &to[0], many[0].msg_hdr.msg_namelen);
    T(sendto(b, "fourth", 6, 0, (struct sockaddr *)&at, name(&at, "link/../c")));
    struct mmsghdr got[4];
    struct sockaddr_un names[4];
    char texts[4][16];
    struct iovec into[4];
    memset(got, 0, sizeof got);
    for (int at = 0; at < 4; at++) {
        into[at] = (struct iovec){texts[at], 16};
        got[at].msg_hdr = (struct msghdr){.msg_name = &names[at], .msg_namelen = sizeof names[at], .msg_iov = &into[at], .msg_iovlen = 1};
    }
    T(recvmmsg(c, got, 4, MSG_DONTWAIT, NULL));
    for (int at = 0; at < 4; at++) {
        printf("%.*s\n", got[at].msg_len, texts[at]);
        told("  from", &names[at], got[at].msg_hdr.msg_namelen, sizeof names[at]);
    }
    name(&to[0], "/work/none"); T(sendmmsg(a, many, 3, 0));

    /* Many at once: some without names, one that is nowhere, more than a queue takes, and a signal while they wait. */
    struct mmsghdr mixed[40];
    int e = socket(AF_UNIX, SOCK_DGRAM, 0), f = pair_of(SOCK_DGRAM, &at, "/work/f"); T(connect(e, (struct sockaddr *)&at, name(&at, "/work/link/../f")));
    memset(mixed, 0, sizeof mixed);
    name(&to[0], "/work/link/../c"); name(&to[1], "/work/none");
    for (int at = 0; at < 40; at++) mixed[at].msg_hdr = (struct msghdr){.msg_name = at % 3 == 1 ? (void *)&to[0] : NULL, .msg_namelen = at % 3 == 1 ? sizeof to[0] : 0, .msg_iov = &piece[at % 3], .msg_iovlen = 1};
    for (int at = 0; at < 8; at++) { T(sendmmsg(e, mixed + at % 3, at, MSG_DONTWAIT)); for (int drained = 0; drained < 2; drained++) while (recv(drained ? c : f, text, 16, MSG_DONTWAIT) > 0) printf("%s%.1s", drained ? "c" : "f", text); puts(""); }
    mixed[4].msg_hdr.msg_name = &to[1]; T(sendmmsg(e, mixed, 9, MSG_DONTWAIT)); mixed[4].msg_hdr.msg_name = &to[0]; T(sendmmsg(e, mixed + 4, 2, MSG_DONTWAIT));
    mixed[2].msg_hdr.msg_iov = (void *)8; T(sendmmsg(e, mixed, 9, MSG_DONTWAIT)); mixed[2].msg_hdr.msg_iov = &piece[2];
    while (recv(c, text, 16, MSG_DONTWAIT) > 0 || recv(f, text, 16, MSG_DONTWAIT) > 0);
    int whole = 0; for (int at = 0; at < 40; at += 40) { T(sendmmsg(e, mixed, 40, MSG_DONTWAIT)); while (recv(c, text, 16, MSG_DONTWAIT) > 0 || recv(f, text, 16, MSG_DONTWAIT) > 0) whole++; } printf("%d\n", whole);
    for (int at = 0; at < 40; at++) mixed[at].msg_hdr = (struct msghdr){.msg_name = &to[0], .msg_namelen = sizeof to[0], .msg_iov = &piece[at % 3], .msg_iovlen = 1};
    /* A handler after which the kernel goes on ends such a call all the same, where whoever sends is not in the process itself. */
    struct sigaction caught = {.sa_handler = on_alarm, .sa_flags = strncmp(argv[0], "/dynamic", 8) ? SA_RESTART : 0}; sigaction(SIGALRM, &caught, 0);
    ualarm(200000, 0); int before = sendmmsg(e, mixed, 40, 0); for (whole = 0; recv(c, text, 16, MSG_DONTWAIT) > 0; whole++); printf("as many as came: %d alarms %d\n", before == whole && before > 0 && before < 40, alarms);
    if (fork() == 0) { usleep(200000); for (int at = 0; at < 40; at++) recv(c, text, 16, 0); _exit(0); }
    T(sendmmsg(e, mixed, 40, 0)); wait(0); printf("%u %u\n", mixed[0].msg_len, mixed[39].msg_len); signal(SIGALRM, SIG_DFL); close(e); close(f); unlink("f");
    T(sendto(c, "reply", 5, 0, (struct sockaddr *)&names[0], got[0].msg_hdr.msg_namelen)); received("reply", a);
    T(sendto(c, "reply", 5, 0, (struct sockaddr *)&names[3], got[3].msg_hdr.msg_namelen)); received("reply", b);

    /* With a descriptor, as sd_notify does. */
    char control[CMSG_SPACE(sizeof(int))];
    memset(control, 0, sizeof control);
    name(&to[0], "/work/link/../c");
    struct msghdr message = {.msg_name = &to[0], .msg_namelen = sizeof to[0], .msg_iov = piece, .msg_iovlen = 3, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET; head->cmsg_type = SCM_RIGHTS; head->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(head), &a, sizeof a);
    T(sendmsg(a, &message, 0)); received("descriptor", c);
    message.msg_namelen = 1; T(sendmsg(a, &message, 0));
    message.msg_namelen = 4000; T(sendmsg(a, &message, 0));
    message.msg_namelen = -1; T(sendmsg(a, &message, 0));
    message.msg_namelen = 20; message.msg_name = (void *)8; T(sendmsg(a, &message, 0));
    T(sendmsg(a, (struct msghdr *)8, 0)); T(recvmsg(a, (struct msghdr *)8, MSG_DONTWAIT));
    T(sendmmsg(a, (struct mmsghdr *)8, 2, 0)); T(recvmmsg(a, (struct mmsghdr *)8, 2, MSG_DONTWAIT, NULL));
    T(recvfrom(a, text, 16, MSG_DONTWAIT, NULL, NULL)); T(recvfrom(a, text, 16, MSG_DONTWAIT, (struct sockaddr *)&from, NULL));

    /* Errors in the kernel's order. */
    int pipes[2]; pipe(pipes);
    T(connect(999, (struct sockaddr *)&at, name(&at, "/none/x"))); T(connect(pipes[0], (struct sockaddr *)&at, name(&at, "/none/x"))); T(bind(pipes[0], (struct sockaddr *)&at, name(&at, "/none/x")));
    T(sendto(pipes[0], "x", 1, 0, (struct sockaddr *)&at, name(&at, "/none/x"))); T(bind(999, (struct sockaddr *)&at, name(&at, "/etc/x")));
    T(connect(b, (struct sockaddr *)&at, name(&at, "/etc"))); T(connect(b, (struct sockaddr *)&at, name(&at, "/links/loop"))); T(connect(b, (struct sockaddr *)&at, name(&at, "/etc/passwd/x"))); T(connect(b, (struct sockaddr *)&at, name(&at, "/work/dir/short")));
    T(bind(a, (struct sockaddr *)&at, name(&at, "/work/again"))); T(lstat("again", &st)); T(unlink("again"));

    /* Moved, removed, by a long way, from elsewhere. */
    T(rename("c", "dir/sub/moved")); T(sendto(a, "to moved", 8, 0, (struct sockaddr *)&at, name(&at, "/work/link/sub/moved"))); received("moved", c); own("moved", c, sizeof at);
    T(unlink("dir/sub/moved")); own("removed", c, sizeof at); T(sendto(a, "x", 1, 0, (struct sockaddr *)&at, name(&at, "/work/dir/sub/moved")));
    char deep[251];
    memset(deep, 'd', 250); deep[250] = 0;
    for (int at = 0; at < 6; at++) if (mkdir(deep, 0755) || chdir(deep)) break;
    bound("deep", SOCK_STREAM); bound("/work/up", SOCK_STREAM);
    int d = pair_of(SOCK_DGRAM, &at, "bottom"); T(sendto(a, "down", 4, 0, (struct sockaddr *)&at, name(&at, "bottom"))); received("down", d);
    int dir = open(".", O_PATH); snprintf(text, 64, "/proc/self/fd/%d/bottom", dir); T(sendto(a, "by descriptor", 13, 0, (struct sockaddr *)&at, name(&at, text)) > 0); received("by descriptor", d);
    chdir("/work");

    /* Unnamed, abstract, chosen by the kernel. */
    int unnamed = socket(AF_UNIX, SOCK_DGRAM, 0); own("unnamed", unnamed, sizeof at);
    at.sun_family = AF_UNIX; T(bind(unnamed, (struct sockaddr *)&at, sizeof(sa_family_t))); len = sizeof from; T(getsockname(unnamed, (struct sockaddr *)&from, &len)); printf("chosen: %u %d\n", len, from.sun_path[0]);
    pid_t child = fork();
    if (child == 0) {
        int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
        T(bind(fd, (struct sockaddr *)&at, name(&at, "/work/link/childs")));
        T(sendto(fd, "from child", 10, 0, (struct sockaddr *)&at, name(&at, "/work/b")));
        fflush(stdout); _exit(0);
    }
    waitpid(child, NULL, 0); received("child", b);
    return 0;
}
