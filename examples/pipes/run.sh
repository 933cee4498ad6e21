#!/bin/sh
# Usage: run.sh SOURCE, an image that has a shell. Makes bundles and tars in the working directory.
set -eu

echo "built to a pipe:"
coracle build --quiet "$1" --cmd '["echo", "arrived"]' -o - | sh -c 'cat > app.run && chmod +x app.run && ./app.run'

echo "its files as a tar, for docker import and others, and built again from a pipe:"
./app.run --coracle-tar | coracle build --quiet - -o again.run
./again.run echo "arrived again"

echo "its files without Coracle:"
tail -c +$(($(./app.run --coracle-offset) + 1)) app.run | zstd -d | tar x -O etc/passwd | head -n 1

echo "binary data through the application:"
head -c 1000000 app.run | ./app.run cat | cmp - app.run 2>&1 | sed 's/^.*EOF.*$/the same up to the end/'

echo "a run's changes, shipped as a new bundle:"
./app.run --coracle-writable=kept sh -c 'echo changed > /etc/motd'
./app.run --coracle-writable=kept --coracle-export=bundle |
    sh -c 'cat > changed.run && chmod +x changed.run && ./changed.run cat /etc/motd'
