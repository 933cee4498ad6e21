/* File actions of posix_spawn(3): what is opened is taken from the directory to which an action before it has changed. */
#include "probe.h"
#include <spawn.h>

static char *self = PROBES "/spawn", *arguments[] = {"spawn", "tell", NULL}, *none[] = {NULL};
static posix_spawn_file_actions_t actions;

static void begin(void) { posix_spawn_file_actions_init(&actions); }
static void to(const char *path) { posix_spawn_file_actions_addchdir_np(&actions, path); }
static void to_open(int fd) { posix_spawn_file_actions_addfchdir_np(&actions, fd); }
static void input(const char *path) { posix_spawn_file_actions_addopen(&actions, 0, path, O_RDONLY, 0); }

static void run(const char *what) {
    pid_t child; int status; fflush(stdout);
    int failed = posix_spawn(&child, self, &actions, NULL, arguments, none);
    if (failed) printf("%s: %s\n", what, strerrorname_np(failed));
    else { waitpid(child, &status, 0); printf("%s: ended %x\n", what, status); }
    posix_spawn_file_actions_destroy(&actions);
}

int main(int argc, char **argv) {
    char text[PATH_MAX];
    if (argc > 1) { long length = read(0, text, sizeof text); printf("%s: %.*s", getcwd(text + 100, 900), (int)length, text); return length < 0; }
    chdir("/work"); mkdir("d", 0755); mkdir("d/e", 0755); put("f", "top\n"); put("d/f", "in d\n"); put("d/e/f", "in e\n");
    symlink("/dir", "d/far"); symlink("../f", "d/up"); symlink("d", "l"); int fd = open("d", O_RDONLY | O_DIRECTORY);
    begin(); input("f"); run("here"); begin(); to("d"); input("f"); run("a directory"); begin(); to("/work/d"); input("e/f"); run("an absolute one");
    begin(); to("d"); to("e"); input("f"); run("one after the other"); begin(); to("d/e"); to(".."); input("f"); run("and back"); begin(); to("l"); input("../f"); run("a link, and its parent");
    begin(); to("d"); input("far/file"); run("an absolute link"); begin(); to("d"); input("up"); run("a relative link"); begin(); to("/"); input("dir/file"); run("the root"); begin(); to(".."); input("../../dir/file"); run("above the root");
    begin(); to_open(fd); input("f"); run("an open directory"); begin(); to_open(fd); input("far/file"); run("a link of one"); begin(); to_open(fd); to("e"); input("f"); run("one below it");
    begin(); posix_spawn_file_actions_addopen(&actions, fd, "d/e", O_RDONLY, 0); to_open(fd); input("f"); run("one that an action opens");
    begin(); posix_spawn_file_actions_addopen(&actions, fd + 5, "d/e", O_RDONLY, 0); posix_spawn_file_actions_adddup2(&actions, fd + 5, fd); to_open(fd); input("../f"); run("one that an action copies");
    begin(); to("d"); posix_spawn_file_actions_addopen(&actions, 7, "made", O_CREAT | O_WRONLY, 0600); input("f"); run("a new file"); struct stat st; T(stat("d/made", &st)); T(stat("made", &st));
    begin(); to("nowhere"); input("f"); run("no directory"); begin(); to("d"); input("nothing"); run("no file"); begin(); to("f"); input("f"); run("a file as directory"); begin(); to_open(99); input("f"); run("no descriptor");
    begin(); input("f"); run("here again"); show_cwd();
    /* More lists at once than anybody would have. */
    static posix_spawn_file_actions_t many[200]; for (int at = 0; at < 200; at++) { posix_spawn_file_actions_init(&many[at]); posix_spawn_file_actions_addchdir_np(&many[at], at % 2 ? "d" : "d/e"); posix_spawn_file_actions_addopen(&many[at], 0, "f", O_RDONLY, 0); }
    for (int at = 0; at < 200; at += 33) { actions = many[at]; pid_t child; int status; fflush(stdout); int failed = posix_spawn(&child, self, &many[at], NULL, arguments, none); if (!failed) waitpid(child, &status, 0); printf("list %d: %d\n", at, failed); }
    for (int at = 0; at < 200; at++) posix_spawn_file_actions_destroy(&many[at]);
    begin(); to("d"); input("f"); run("in the end");
    return 0;
}
