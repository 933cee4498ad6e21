#!/bin/sh
# Usage: run.sh. Makes count.run in the working directory; needs no image.
set -eu
PATH=$PATH:/usr/bin:/bin

mkdir project
cat > project/count.sh <<'SCRIPT'
#!/bin/sh
tr -s ' ' '\n' < "${1-words.txt}" | sort | uniq -c | sort -k1,1nr -k2 | sed 's/^ *//' | tee counts.txt
echo "token ${API_TOKEN-none}, language $LANGUAGE" >> "${1-words.txt}"
SCRIPT
chmod +x project/count.sh
echo "to be or not to be" > project/words.txt
echo "row row row your boat" > project/other.txt

echo "captured:"
(cd project && LANGUAGE=en API_TOKEN=abc coracle capture --include=other.txt -o ../count.run -- ./count.sh)

echo "its input has changed since, and then the whole project is gone:"
tail -n 1 project/words.txt
rm -r project

echo "the same run again:"
./count.run

echo "the same program with another file:"
./count.run other.txt

echo "what it made, kept:"
./count.run --coracle-writable=kept > again.txt
find kept -name counts.txt -exec cmp -s again.txt {} \; -print 2> /dev/null | wc -l

echo "what the bundle says of the run:"
./count.run --coracle-info | grep -E '^(cmd|made|changed|no variable)' | sed "s|$PWD/||; s/^\(no variable *\).*\(API_TOKEN\).*/\1\2/"
