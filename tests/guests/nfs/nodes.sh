# Nodes: a network, mounts, host name, process ids and boot id of their own, so that each is a client with caches of its own.
declare -A HOLD
fail() { echo "FAIL $*"; }

# start_node NAME NUMBER OPTIONS: the export is at /mnt/x in there
start_node() {
    local name=$1 i=$2 holder
    ip link add s$i type veth peer name c$i; ip addr add 10.0.$i.1/24 dev s$i; ip link set s$i up
    cat /proc/sys/kernel/random/uuid > /tmp/boot.$name
    unshare -munpf --kill-child --mount-proc bash -c "
        hostname $name; mount --bind /tmp/boot.$name /proc/sys/kernel/random/boot_id; ip link set lo up
        until ip link set c$i up 2>/dev/null; do sleep 0.1; done
        ip addr add 10.0.$i.2/24 dev c$i
        mount -t tmpfs t /run; mount -t tmpfs t /var/lib/nfs; mkdir -p /run/rpcbind /run/lock /var/lib/nfs/sm /var/lib/nfs/sm.bak
        chown -R statd /var/lib/nfs; rpcbind; rpc.statd --no-notify
        mount -t nfs -o $3 10.0.$i.1:/srv/export /mnt/x && touch /tmp/up.$name
        sleep infinity" &
    holder=$!
    until [ "$(readlink /proc/$holder/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.1; done
    ip link set c$i netns $holder
    for _ in $(seq 300); do [ -e /tmp/up.$name ] && break; sleep 0.1; done
    [ -e /tmp/up.$name ] || fail "node $name has no mount"
    HOLD[$name]=$(pgrep -P $holder | head -1)
}

stop_node() {
    kill -9 "${HOLD[$1]}"; rm -f /tmp/up.$1; ip link del s$2 2>/dev/null
}

# node NAME COMMAND…: as an ordinary user
node() {
    local holder=${HOLD[$1]}; shift
    nsenter -t "$holder" -m -u -n -p setpriv --reuid 1001 --regid 1001 --clear-groups \
        env -i PATH="$PATH:/payload" HOME=/home/tester TMPDIR=/tmp CORACLE_DIR=/mnt/x/store CORACLE_CACHE=/mnt/x/cache "$@"
}
