/* Sockets with names in the file system. */
#include "probe.h"

static socklen_t name(struct sockaddr_un *at, const char *path) { memset(at, 0, sizeof *at); at->sun_family = AF_UNIX; strncpy(at->sun_path, path, sizeof at->sun_path - 1); return sizeof *at; }
static void told(const char *what, struct sockaddr_un *at, socklen_t len) { long path = (long)len - (long)sizeof(sa_family_t); printf("%s: length %ld %.*s\n", what, path, path > 0 ? (int)strnlen(at->sun_path, path) : 0, at->sun_path); }

int main(void) {
    struct sockaddr_un at, got; socklen_t len; struct stat st; chdir("/work"); umask(022);
    int server = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
    T(bind(server, (struct sockaddr *)&at, name(&at, "/work/s"))); T(bind(server, (struct sockaddr *)&at, name(&at, "/work/t"))); T(stat("s", &st)); printf("socket %d\n", S_ISSOCK(st.st_mode));
    len = sizeof got; T(getsockname(server, (struct sockaddr *)&got, &len)); told("own name", &got, len);
    T(connect(client, (struct sockaddr *)&at, name(&at, "/work/s"))); T(listen(server, 4)); T(connect(client, (struct sockaddr *)&at, name(&at, "s"))); len = sizeof got; T(getpeername(client, (struct sockaddr *)&got, &len)); told("peer", &got, len);
    len = sizeof got; int taken = accept(server, (struct sockaddr *)&got, &len); printf("accepted %d\n", taken >= 0); told("client", &got, len); T(write(client, "hello", 5)); char text[16]; T(read(taken, text, 16));
    int other = socket(AF_UNIX, SOCK_STREAM, 0); T(bind(other, (struct sockaddr *)&at, name(&at, "/work/s"))); T(bind(other, (struct sockaddr *)&at, name(&at, "/etc/s"))); T(bind(other, (struct sockaddr *)&at, name(&at, "/none/s"))); T(connect(other, (struct sockaddr *)&at, name(&at, "/none"))); T(connect(other, (struct sockaddr *)&at, name(&at, "/etc/passwd")));
    T(symlink("s", "alias")); T(connect(other, (struct sockaddr *)&at, name(&at, "alias")));
    int d1 = socket(AF_UNIX, SOCK_DGRAM, 0), d2 = socket(AF_UNIX, SOCK_DGRAM, 0); T(bind(d1, (struct sockaddr *)&at, name(&at, "d1"))); T(bind(d2, (struct sockaddr *)&at, name(&at, "/work/d2"))); T(sendto(d1, "abc", 3, 0, (struct sockaddr *)&at, name(&at, "/work/d2"))); len = sizeof got; T(recvfrom(d2, text, 16, MSG_DONTWAIT, (struct sockaddr *)&got, &len)); told("sender", &got, len); T(sendto(d1, "abc", 3, 0, (struct sockaddr *)&at, name(&at, "/work/none")));
    struct iovec piece = {"xyz", 3}; name(&at, "/work/d2"); struct msghdr message = {.msg_name = &at, .msg_namelen = sizeof at, .msg_iov = &piece, .msg_iovlen = 1}; T(sendmsg(d1, &message, 0)); struct iovec into = {text, 16}; struct msghdr reply = {.msg_name = &got, .msg_namelen = sizeof got, .msg_iov = &into, .msg_iovlen = 1}; T(recvmsg(d2, &reply, MSG_DONTWAIT)); told("sender", &got, reply.msg_namelen);
    char longest[sizeof at.sun_path + 1]; memset(longest, 'x', sizeof longest); memcpy(longest, "/work/", 6); longest[107] = 0; int l = socket(AF_UNIX, SOCK_STREAM, 0); T(bind(l, (struct sockaddr *)&at, name(&at, longest))); T(stat(longest, &st)); T(listen(l, 1)); int m = socket(AF_UNIX, SOCK_STREAM, 0); T(connect(m, (struct sockaddr *)&at, name(&at, longest))); len = sizeof got; T(getsockname(l, (struct sockaddr *)&got, &len)); told("longest", &got, len);
    int abstract = socket(AF_UNIX, SOCK_STREAM, 0); memset(&at, 0, sizeof at); at.sun_family = AF_UNIX; snprintf(at.sun_path + 1, 60, "coracle-probe-%d", getpid()); T(bind(abstract, (struct sockaddr *)&at, sizeof(sa_family_t) + 40)); int pair[2]; T(socketpair(AF_UNIX, SOCK_STREAM, 0, pair)); len = sizeof got; T(getsockname(pair[0], (struct sockaddr *)&got, &len)); told("pair", &got, len);
    T(bind(d1, (struct sockaddr *)8, 20)); T(bind(m, (struct sockaddr *)&at, 1)); T(connect(999, (struct sockaddr *)&at, sizeof at));
    return 0;
}
