# The first process of a guest kernel that is an NFS server, and the network namespaces in it that are its clients.
# /payload has coracle, a bundle and an image; what goes wrong is printed with FAIL, and DONE comes last.
export PATH=/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin HOME=/root
mount -t tmpfs t /run; mount -t tmpfs t /tmp; chmod 1777 /tmp
mkdir -p /dev/pts /dev/shm; mount -t devpts d /dev/pts; mount -t tmpfs t /dev/shm; ln -sf /proc/self/fd /dev/fd
mkdir -p /run/rpcbind /run/lock /var/lib/nfs/rpc_pipefs /srv/export /mnt/x
ip link set lo up; hostname server
for module in nfsd nfs veth overlay; do modprobe $module; done
mount -t nfsd nfsd /proc/fs/nfsd; mount -t rpc_pipefs r /var/lib/nfs/rpc_pipefs
useradd -u 1001 -m tester; chown tester: /srv/export
echo '/srv/export *(rw,async,no_subtree_check,root_squash,insecure)' > /etc/exports
rpcbind; exportfs -ra; rpc.statd; rpc.mountd; rpc.nfsd --grace-time 10 --lease-time 10 4
bash /payload/day.sh
sync; echo o > /proc/sysrq-trigger; sleep 10
