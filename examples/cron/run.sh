#!/bin/sh
# Usage: run.sh SOURCE, an image that has a shell. Makes report.run in the working directory.
set -eu
coracle build --quiet "$1" --cmd '["sh", "-c", "echo \"path ${PATH:+set}, user $(id -u), shell $0\""]' -o report.run
report=$PWD/report.run

echo "as cron does it:"
cd /
env -i HOME=/ LOGNAME="$(id -un)" SHELL=/bin/sh PATH=/usr/bin:/bin "$report" | sed "s/user $(id -u),/user the same,/"

echo "with nothing at all:"
gone=$(mktemp -d)
cd "$gone"
rmdir "$gone"
env -i "$report" <&- | sed "s/user $(id -u),/user the same,/"
