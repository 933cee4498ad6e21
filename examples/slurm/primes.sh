# The task: how many primes there are in its hundred, the first one being 0 to 99.
n=$((($1 - 1) * 100))
end=$((n + 100))
count=0
while [ "$n" -lt "$end" ]; do
    d=2
    while [ $((d * d)) -le "$n" ] && [ $((n % d)) -ne 0 ]; do
        d=$((d + 1))
    done
    if [ "$n" -ge 2 ] && [ $((d * d)) -gt "$n" ]; then
        count=$((count + 1))
    fi
    n=$((n + 1))
done
echo "$1: $count"
