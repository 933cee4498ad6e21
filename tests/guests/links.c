/* Symbolic links: followed, not followed, made, broken, looping. */
#include "probe.h"

int main(void) {
    struct stat st;
    show_link("/links/abs"); show_link("/links/rel"); show_link("/links/dangling"); show_link("/etc/passwd"); show_link("/none"); show_link("/links/dir/");
    T(stat("/links/abs", &st)); T(lstat("/links/abs", &st)); printf("link %d size %ld\n", S_ISLNK(st.st_mode), (long)st.st_size);
    T(stat("/links/rel", &st)); T(stat("/links/loop", &st)); T(lstat("/links/loop", &st)); T(stat("/links/dangling", &st)); T(stat("/links/up/etc/passwd", &st));
    T(stat("/links/dir/file", &st)); T(lstat("/links/dir/", &st)); printf("directory %d\n", S_ISDIR(st.st_mode)); T(stat("/links/dir/../etc/passwd", &st));
    T(lstat("/links/abs/", &st)); T(stat("/links/chain", &st)); T(stat("/links/loop/x", &st));
    O(open("/links/abs", O_RDONLY | O_NOFOLLOW)); O(open("/links/abs", O_PATH | O_NOFOLLOW)); O(open("/links/dir", O_DIRECTORY | O_NOFOLLOW)); O(open("/links/dir/", O_DIRECTORY | O_NOFOLLOW));
    O(open("/links/dangling", O_CREAT | O_WRONLY, 0644)); O(open("/links/dangling", O_CREAT | O_EXCL | O_WRONLY, 0644));
    T(unlink("/links/abs")); T(symlink("x", "/links/new")); T(symlink("x", "/links/abs"));
    T(chdir("/work"));
    T(symlink("/etc/passwd", "abs")); T(symlink("target", "to")); T(symlink("", "empty")); T(symlink("x", "abs")); T(symlink("x", "none/x"));
    show_link("abs"); T(stat("abs", &st)); T(stat("to", &st)); O(open("to", O_CREAT | O_WRONLY, 0644)); T(stat("target", &st)); T(unlink("to")); T(stat("target", &st));
    T(symlink("/links/dir", "d")); T(stat("d/file", &st)); T(chdir("d")); show_cwd(); T(chdir("..")); show_cwd(); T(chdir("/work"));
    T(mkdir("real", 0755)); T(symlink("real", "alias")); T(mkdir("alias", 0755)); T(mkdir("alias/in", 0755)); T(stat("real/in", &st)); T(rmdir("alias")); T(rmdir("alias/"));
    T(unlink("alias/")); T(rename("alias", "alias2")); T(rename("alias2/", "alias3")); T(lstat("alias2", &st)); T(unlink("alias2"));
    T(linkat(AT_FDCWD, "abs", AT_FDCWD, "l1", 0)); T(lstat("l1", &st)); printf("link %d\n", S_ISLNK(st.st_mode));
    T(symlink("l41", "l40"));
    for (int at = 0; at < 45; at++) { char from[16], to[16]; snprintf(from, 16, "k%d", at); snprintf(to, 16, "k%d", at + 1); if (symlink(to, from)) perror(from); }
    put("k45", "end"); T(stat("k5", &st)); T(stat("k4", &st)); T(lstat("k0", &st)); T(access("k5", R_OK)); T(access("k4", R_OK));
    T(fchownat(AT_FDCWD, "abs", -1, -1, AT_SYMLINK_NOFOLLOW)); T(fchownat(AT_FDCWD, "to", -1, -1, 0)); T(fchmodat(AT_FDCWD, "k45", 0600, 0)); T(stat("k45", &st)); printf("mode %o\n", st.st_mode);
    char text[4]; T(readlink("abs", text, 4)); show("cut", text, 4); T(readlink("abs", text, 0)); T(readlink("abs", (char *)8, 100));
    int link = open("abs", O_PATH | O_NOFOLLOW); char whole[64]; show("by descriptor", whole, readlinkat(link, "", whole, sizeof whole));
    return 0;
}
