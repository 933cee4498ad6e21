#!/bin/sh
# Usage: run.sh SOURCE, an image that has a shell, in a directory that all nodes see. Makes primes.run, primes.*.out and runs.jsonl there.
set -eu
here=$(dirname "$0")
coracle build --quiet "$1" --copy "$here/primes.sh:/usr/local/bin/" --entrypoint '["sh", "/usr/local/bin/primes.sh"]' -o primes.run

rm -f runs.jsonl primes.*.out
export CORACLE_REPORT="$PWD/runs.jsonl"
sbatch --quiet --wait "$here/job.sh"
cat primes.*.out
echo "primes below 800: $(cat primes.*.out | awk '{ sum += $2 } END { print sum }')"

echo "as two tasks of a step:"
srun --quiet --ntasks=2 --label ./primes.run 9 | sort

nodes() { grep '"cache_hit":false' runs.jsonl | grep -o '"node":"[^"]*"'; }
echo "nodes that unpacked more than once: $(nodes | sort | uniq -d | wc -l)"
coracle accounting --by bundle --format csv runs.jsonl | cut -d, -f 3,4
