# What two nodes do with one store and one cache.
. /payload/nodes.sh
. /payload/settings

check() { local what=$1; shift; "$@" > /tmp/said 2>&1 || { fail "$OPTIONS: $what: $*: $(tail -3 /tmp/said)"; }; }
says() { grep -q -- "$1" /tmp/said || fail "$OPTIONS: no '$1' in: $(tail -3 /tmp/said)"; }

everyday() {
    check import node one coracle import -q /payload/busybox.tar my:0
    check "seen from the other node" node two coracle create -q --pull=never --name one my:0
    for mode in R1 P1 P2 F1; do
        check "run $mode" node one coracle run -q --pull=never --execmode=$mode --rm my:0 /bin/busybox sh -c 'busybox touch /x && busybox ls /x'
    done
    check "the other node's container" node one coracle run one /bin/busybox touch /kept
    check "what the other node wrote" node two coracle run one /bin/busybox ls /kept
    check clone node two coracle clone -q one --name two
    check "the name is taken" node one sh -c '! coracle create --name two my:0'; says "is taken"
    check rename node one coracle rename two zwei
    check export node two coracle export -o /tmp/zwei.tar zwei
    check import node one coracle import -q /tmp/zwei.tar my:2
    check save node two coracle save -q -o /tmp/saved.tar my:0 my:2
    check rmi node one coracle rmi -f my:2
    check load node two coracle load -q -i /tmp/saved.tar
    check ps node one coracle ps -s
    node one coracle run zwei /bin/busybox sleep 60 & local run=$!
    for _ in $(seq 100); do node one coracle ps -q -r | grep -q . && break; sleep 0.2; done
    # Locks tell the other node; where they stay on a node, nobody does.
    case $OPTIONS in *nolock*) ;; *)
        check "a container that runs elsewhere stays" node two sh -c '! coracle rm zwei'; says "runs\|running" ;;
    esac
    check stop node one coracle stop -t0 zwei; wait $run
    check "two remove it" node two coracle rm zwei
    node one sh -c 'exec 9< $(ls -d /mnt/x/store/containers/*/container.json | head -1); coracle rm one && echo gone; sleep 2; read line <&9; [ "$line" = "{" ]' > /tmp/said 2>&1 || fail "$OPTIONS: rm with a file open: $(cat /tmp/said)"
    says gone
    check prune node one coracle prune -q -f
    check verify node two coracle verify; says "all whole"
    [ -z "$(ls -A /srv/export/store/trash /srv/export/store/containers | grep -v :)" ] || fail "$OPTIONS: left: $(ls -A /srv/export/store/trash /srv/export/store/containers)"
}

# A draft without locks, or of another node, is nobody's to sweep.
drafts() {
    node one coracle create -q --pull=never --name slow my:0 & local made=$!
    while kill -0 $made 2> /dev/null; do node two coracle prune -q -f > /dev/null || fail "$OPTIONS: prune"; done
    wait $made || fail "$OPTIONS: another node's prune took a draft away"
    check rm node one coracle rm slow
}

cache() {
    local pids="" pid run
    for hand in 1 2 3 4; do
        node one /payload/busybox.run /bin/busybox true 2> /tmp/start.1$hand & pids="$pids $!"
        node two /payload/busybox.run /bin/busybox true 2> /tmp/start.2$hand & pids="$pids $!"
    done
    for pid in $pids; do wait $pid || fail "$OPTIONS: a start: $(cat /tmp/start.*)"; done
    ! grep -hv 'waiting for' /tmp/start.* || fail "$OPTIONS: starts said that"
    # A job holds its tree, whichever node cleans.
    node one /payload/busybox.run /bin/busybox sh -c 'busybox touch /tmp/began; busybox sleep 4; busybox ls /bin' > /tmp/job 2>&1 & run=$!
    until [ -e /tmp/began ]; do sleep 0.1; done; rm /tmp/began
    check "clean-up beside a job" node two /payload/busybox.run --coracle-cleanup
    wait $run || fail "$OPTIONS: the job: $(tail -2 /tmp/job)"
    grep -q busybox /tmp/job || fail "$OPTIONS: the job's tree was gone"
    # Killed while it unpacks; the next one goes on.
    check clean-up node one /payload/busybox.run --coracle-cleanup
    for pause in 0.1 0.3 0.5; do
        node one /payload/busybox.run /bin/busybox true & pid=$!
        sleep $pause; kill -9 $(pgrep -P $pid) $pid 2> /dev/null; wait $pid 2> /dev/null
    done
    check "a start after killed ones" node two /payload/busybox.run /bin/busybox true
    for engine in namespaces ptrace preload; do
        check "$engine" node two /payload/busybox.run --coracle-engine=$engine --coracle-writable /bin/busybox touch /x
    done
}

hammer() {
    local seconds=$1 hands="" bad
    node one coracle import -q /payload/busybox.tar my:0; node one coracle tag my:0 my:1
    for hand in 1 2 3; do
        node one bash /payload/hammer.sh $seconds $hand & hands="$hands $!"
        node two bash /payload/hammer.sh $seconds 1$hand & hands="$hands $!"
    done
    wait $hands; sleep 2
    cat /tmp/hammer.*[0-9] | grep -v ': coracle: ' && fail "$OPTIONS: that is no message of ours"
    bad=$(grep -hE 'panicked|damaged|No such file|not empty|Stale|file busy|resource busy|a minute' /tmp/hammer.*[0-9]) && fail "$OPTIONS: $bad"
    for container in $(node one coracle ps -q -r); do node one coracle stop -t0 $container > /dev/null; done
    for container in $(node two coracle ps -q -r); do node two coracle stop -t0 $container > /dev/null; done
    check verify node two coracle verify; says "all whole"
    for container in $(node one coracle ps -q); do
        check export node two coracle export -o /tmp/whole.tar $container
        check rm node two coracle rm -f $container
    done
    check prune node one coracle prune -q -a -f --partial
    for place in containers trees trash partial blobs/sha256 names images; do
        ls -A /srv/export/store/$place 2> /dev/null | grep -v '^\.lock$' > /tmp/left && fail "$OPTIONS: left in $place: $(head -3 /tmp/left)"
    done
}

for OPTIONS in $MOUNTS; do
    echo "== $OPTIONS"
    start_node one 1 $OPTIONS; start_node two 2 $OPTIONS
    time everyday
    node one coracle import -q /payload/busybox.tar my:0 > /dev/null; time drafts
    time cache
    case $OPTIONS in *nolock*) ;; *) time hammer $SECONDS_OF_HAMMER ;; esac
    stop_node one 1; stop_node two 2; rm -rf /srv/export/* /tmp/hammer.* /tmp/start.*
done
echo DONE
