#!/bin/sh
# Usage: run.sh SOURCE, an image that has a shell. Makes sum.run and runs.jsonl in the working directory.
set -eu
here=$(dirname "$0")
coracle build --quiet "$1" --copy "$here/sum.sh:/usr/local/bin/" --entrypoint '["sh", "/usr/local/bin/sum.sh"]' -o sum.run

rm -f runs.jsonl
export CORACLE_REPORT="$PWD/runs.jsonl"
seq 8 | xargs -P 4 -n 1 ./sum.run | sort -n

echo "unpacks: $(grep -c '"cache_hit":false' runs.jsonl)"
coracle accounting --by bundle --format csv runs.jsonl | cut -d, -f 3,4

echo "by GNU parallel:"
seq 9 12 | parallel --will-cite -j 4 --joblog joblog ./sum.run | sort -n
echo "failed: $(awk 'NR > 1 && $7 != 0' joblog | wc -l)"
