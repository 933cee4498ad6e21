#!/bin/sh
# Usage: run.sh SOURCE, an image that has awk. Makes sums.run, four parts and their results in the working directory.
set -eu
here=$(dirname "$0")
coracle build --quiet "$1" --entrypoint '["awk", "{ sum += $1 } END { print FILENAME, NR, sum }"]' -o sums.run

rm -f part.* sums.log
seq 1 100 | split -l 25 - part.
condor_submit -terse "$here/job.sub" > cluster
condor_wait -wait 300 sums.log > /dev/null
cat part.*.out
echo "together: $(awk '{ sum += $3 } END { print sum }' part.*.out)"
coracle accounting --by bundle --format csv part.*.json | cut -d, -f 3,4
