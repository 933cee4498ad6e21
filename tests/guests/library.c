/* What a C library does by itself, without a call of the program's: patterns, walks, users, streams, temporary names. An
   engine that stands before the names of libc must have these answered from the guest's files, too. */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <fts.h>
#include <ftw.h>
#include <glob.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wordexp.h>

static int count;

static int visit(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)path, (void)st, (void)kind, (void)at;
    count++;
    return 0;
}

static int compare(const FTSENT **a, const FTSENT **b)
{
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

int main(void)
{
    glob_t found;
    char text[PATH_MAX], name[] = "/work/nameXXXXXX";
    const char *patterns[] = { "/links/*", "/dir/*/d*", "/li*/r?l", "../dir/[a-f]*", "/none/*", "/links/dir/*" };
    if (chdir("/dir") != 0)
        return 1;
    for (size_t at = 0; at < sizeof patterns / sizeof *patterns; at++) {
        int result = glob(patterns[at], GLOB_MARK, NULL, &found);
        printf("glob(%s): %d\n", patterns[at], result);
        for (size_t each = 0; result == 0 && each < found.gl_pathc; each++)
            printf("  %s\n", found.gl_pathv[each]);
    }
    printf("nftw: %d", nftw("/dir", visit, 4, FTW_PHYS));
    printf(", of %d\n", count);
    count = 0;
    printf("nftw, going there: %d", nftw("/links/dir", visit, 4, FTW_CHDIR | FTW_DEPTH));
    printf(", of %d\n", count);
#if __WORDSIZE == 64
    char *top[] = { "/dir", NULL };
    FTS *walk = fts_open(top, FTS_PHYSICAL, compare);
    for (FTSENT *entry; walk && (entry = fts_read(walk));)
        printf("fts %s\n", entry->fts_path);
#endif
    wordexp_t words;
    printf("wordexp: %d\n", wordexp("/dir/* ~root/x", &words, WRDE_NOCMD));
    for (size_t at = 0; at < words.we_wordc; at++)
        printf("  %s\n", words.we_wordv[at]);
    struct passwd *user = getpwnam("root");
    printf("root: %s %s\n", user ? user->pw_dir : "none", user ? user->pw_shell : "none");
    setpwent();
    // Whoever runs this is added to what a bundle shows, and is not in the image.
    for (count = 0; (user = getpwent());)
        count += user->pw_uid != geteuid();
    printf("users: %d; daemon %s\n", count, getpwnam("daemon") ? "too" : "not");
    struct group *group = getgrgid(0);
    printf("group: %s; %s\n", group ? group->gr_name : "none", getgrnam("tty") ? "more" : "no more");
    struct dirent **list;
    int entries = scandir("/links", &list, NULL, alphasort);
    for (int at = 0; at < entries; at++)
        printf("scandir %s\n", list[at]->d_name);
    printf("realpath: %s", realpath("/links/chain", text) ? text : "none");
    printf(" %s", realpath("/links/up/dir/./sub/..", text) ? text : "none");
    printf(" %s\n", realpath("/links/loop", text) ? text : "none");
    FILE *stream = fopen("/links/abs", "re");
    do
        user = stream ? fgetpwent(stream) : NULL;
    while (user && user->pw_uid == geteuid());
    printf("fopen: %s\n", user ? user->pw_name : "none");
    stream = freopen("/dir/file", "r", stream);
    printf("freopen: %s", stream && fgets(text, sizeof text, stream) ? text : "none\n");
    printf("fopen to write: %s\n", fopen("/dir/file", "w") ? "done" : "refused");
    int made = mkstemp(name);
    printf("mkstemp: %d %s\n", made >= 0, strncmp(name, "/work/name", 10) == 0 && access(name, R_OK) == 0 ? "there" : "not");
    strcpy(name, "/work/nameXXXXXX");
    printf("mkdtemp: %s\n", mkdtemp(name) ? "there" : "not");
    strcpy(name, "/none/nameXXXXXX");
    printf("mkstemp in none: %d\n", mkstemp(name));
    printf("getcwd: %s\n", getcwd(text, sizeof text));
    return 0;
}
