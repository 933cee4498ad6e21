#!/bin/sh
# Usage: run.sh SOURCE, an image that has Open MPI. Makes ranks and ranks.run in the working directory.
set -eu
here=$(dirname "$0")
mpicc.openmpi -O2 -o ranks "$here/ranks.c"
coracle build --quiet "$1" --copy ranks:/usr/local/bin/ --entrypoint '["/usr/local/bin/ranks"]' -o ranks.run

# The host's mpirun starts the file as it would start any program.
mpirun.openmpi --oversubscribe -n 2 ./ranks.run
