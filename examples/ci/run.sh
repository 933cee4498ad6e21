#!/bin/sh
# Usage: run.sh SOURCE, an image that has make and a C compiler. Makes build.run, runs.jsonl and the directory checkout.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
coracle build --quiet "$1" -o build.run

rm -rf checkout runs.jsonl
mkdir checkout
cp "$here/Makefile" "$here/greet.c" checkout
cd checkout

# The runner sets this one, among many others.
export CI_JOB_ID=${CI_JOB_ID:-4711} CORACLE_REPORT=../runs.jsonl
../build.run make CC=gcc greet
../build.run make CC=gcc check
echo "a failing step fails the job: $(../build.run ./greet > /dev/null && echo no || echo "status $?")"

echo "artefacts: $(echo *)"
echo "of another owner: $(find . ! -user "$(id -u)" | wc -l)"
echo "runs of job $CI_JOB_ID: $(grep -c '"system":"gitlab","id":"'"$CI_JOB_ID"'"' ../runs.jsonl)"
