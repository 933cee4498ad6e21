#!/bin/sh
# Usage: run.sh LAYOUT, a directory in OCI layout. Makes hello.run in the working directory and runs it twice.
set -eu
coracle build --quiet "oci:$1" -o hello.run
./hello.run
./hello.run grid
