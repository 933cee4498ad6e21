# The task: the sum of the numbers up to its argument.
sum=0
i=0
while [ "$i" -lt "$1" ]; do
    i=$((i + 1))
    sum=$((sum + i))
done
echo "$1 $sum"
