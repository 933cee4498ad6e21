#!/bin/sh
# Usage: run.sh SOURCE, an image that has a shell. Makes tool.run and keys in the working directory.
set -eu
coracle build --quiet "$1" --cmd '["echo", "the tool runs"]' -o tool.run

# The maker, once; without -W the secret key is encrypted with a password.
coracle --quiet keygen -W maker
coracle --quiet sign --key maker.key --comment 'tool, release 1' tool.run

# Whoever has maker.pub.
coracle verify --key maker.pub tool.run | tail -n 1
coracle run --require-key maker.pub tool.run

# Another bundle in its place.
coracle build --quiet "$1" --cmd '["echo", "something else runs"]' -o tool.run
coracle run --require-key maker.pub tool.run 2>&1 || echo "status $?"
