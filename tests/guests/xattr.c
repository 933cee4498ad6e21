/* Extended attributes. */
#include "probe.h"

int main(void) {
    char value[64]; chdir("/work"); put("file", "x"); T(symlink("file", "link")); T(symlink("none", "dangling"));
    T(setxattr("file", "user.note", "abc", 3, 0)); T(getxattr("file", "user.note", value, 64)); T(getxattr("link", "user.note", value, 64)); T(lgetxattr("link", "user.note", value, 64)); T(getxattr("dangling", "user.note", value, 64)); T(getxattr("/work/file", "user.none", value, 64)); T(getxattr("file", "user.note", value, 1));
    T(setxattr("/work/link", "user.note", "abcd", 4, XATTR_REPLACE)); T(setxattr("file", "user.note", "x", 1, XATTR_CREATE)); T(lsetxattr("link", "user.note", "x", 1, 0)); T(listxattr("/none", value, 64)); T(removexattr("file", "user.note")); T(removexattr("file", "user.note"));
    T(setxattr("/etc/passwd", "user.note", "x", 1, 0)); T(removexattr("/etc/passwd", "user.note")); T(getxattr("/etc/passwd", "user.note", value, 64)); int fd = open("/etc/passwd", O_RDONLY); T(fsetxattr(fd, "user.note", "x", 1, 0)); T(fgetxattr(fd, "user.note", value, 64)); T(getxattr("/none/x", "user.note", value, 64)); T(getxattr("/etc/passwd/x", "user.note", value, 64)); T(setxattr("file", "bad", "x", 1, 0));
    return 0;
}
