# Themes: what a script of programs consists of. Each tells `ok NAME`, or `fails NAME` (and on standard error what it said), or
# `lacks NAME` where the distribution does not have it. Scripts that begin with this one are run by sh in an empty directory.
export HOME=$PWD TERM=xterm LC_ALL=C.UTF-8 PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
here=$PWD; export here
# t NAME PROGRAM EXPECTED COMMANDS: the commands end well, and print what is expected, line by line.
t() {
    if ! command -v "$2" >/dev/null; then echo "lacks $1"; return; fi
    cd "$here"; mkdir "$1" && cd "$1"
    said=$(sh -c "set -e; $4" 2>"$here/$1.err" </dev/null); status=$?
    if [ $status = 0 ] && [ "$said" = "$3" ]; then echo "ok $1"; else
        echo "fails $1"; printf '%s: status %s, said: %s\n' "$1" $status "$said" >&2; tail -5 "$here/$1.err" >&2
    fi
}
