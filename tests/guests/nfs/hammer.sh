# hammer.sh SECONDS SEED: random commands, some of them killed; what failed is in /tmp/hammer.SEED.
end=$((SECONDS + $1)); RANDOM=$2; done=0; killed=0; out=/tmp/hammer.$2; : > $out; cd /tmp || exit 1
while [ $SECONDS -lt $end ]; do
    name=c$((RANDOM % 4)); other=c$((RANDOM % 4)); image=my:$((RANDOM % 2)); busybox=/bin/busybox
    case $((RANDOM % 18)) in
    0 | 1 | 2) words="create -q --pull=never --name $name $image" ;;
    3) words="import -q /payload/busybox.tar $image" ;;
    4) words="rm -f $name" ;;
    5) words="rmi -f $image" ;;
    6) words="clone -q $name --name $other" ;;
    7) words="rename $name $other" ;;
    8) words="ps -s" ;;
    9) words="prune -q -f" ;;
    10) words="tag $image my:1" ;;
    11) words="setup --execmode=P2 $name" ;;
    12) words="run -q --pull=never $name $busybox touch /ran" ;;
    13) words="run -q --pull=never --rm $image $busybox true" ;;
    14) words="run -q --pull=never -d --name $name $image $busybox sleep 0.3" ;;
    15) words="stop -t0 $name" ;;
    16) words="exec $name $busybox true" ;;
    17) words="export -o /tmp/export$2.tar $name" ;;
    esac
    coracle $words > /dev/null 2> $out.err & pid=$!
    if [ $((RANDOM % 4)) = 0 ]; then sleep 0.$((RANDOM % 9))$((RANDOM % 9)); kill -9 $pid 2> /dev/null; fi
    wait $pid; code=$?
    if [ $code = 137 ]; then killed=$((killed + 1)); else done=$((done + 1)); [ $code = 0 ] || sed "s|^|$code $words: |" $out.err >> $out; fi
done 2> /dev/null
echo "hand $2: $done done, $killed killed"
