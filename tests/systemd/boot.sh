#!/bin/sh
# Boot systemd over an overlay of this machine's root, in namespaces of its own. What it does is seen by nobody outside,
# and ends with it.
#
# usage: boot.sh SCRATCH LENT NAME
#   SCRATCH  an empty directory of the caller's, with SCRATCH/stage: what is installed over the root
#   LENT     a directory of Python packages, seen as /opt/lent
#   NAME     of the control group, to be removed by the caller
#
# First outside, where it makes the control group and the namespaces; then inside, as what will be process 1.
set -eu
scratch=$1 lent=$2 name=$3

if [ "${4-}" != inside ]; then
	group=/sys/fs/cgroup/$name
	[ -e /sys/fs/cgroup/cgroup.procs ] || group=/sys/fs/cgroup/unified/$name
	mkdir "$group"
	echo $$ >"$group/cgroup.procs"
	exec unshare --mount --pid --uts --ipc --net --cgroup --fork --kill-child \
		"$0" "$scratch" "$lent" "$name" inside
fi

mkdir "$scratch/layer"
mount -t tmpfs -o mode=755 machine "$scratch/layer"
root=$scratch/layer/root
mkdir "$scratch/layer/upper" "$scratch/layer/work" "$root"
cp -a "$scratch/stage/." "$scratch/layer/upper"
chmod 755 "$scratch/layer/upper"
mount -t overlay -o "lowerdir=/,upperdir=$scratch/layer/upper,workdir=$scratch/layer/work" machine "$root"

mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
# The second version's alone, whatever there is outside: of the first systemd would mount them all, and change this machine's.
mount -t cgroup2 cgroup "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 dev "$root/dev"
for node in null:3 zero:5 full:7 random:8 urandom:9; do
	mknod -m 666 "$root/dev/${node%:*}" c 1 "${node#*:}"
done
mknod -m 666 "$root/dev/tty" c 5 0
mknod -m 600 "$root/dev/fuse" c 10 229
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
touch "$scratch/console" "$root/dev/console"
mount --bind "$scratch/console" "$root/dev/console"
for place in run tmp srv; do
	mount -t tmpfs -o mode=755 "$place" "$root/$place"
done
chmod 1777 "$root/tmp"
mkdir -p "$root/opt/lent"
mount --bind -o ro "$lent" "$root/opt/lent"

# Of this machine's own units none is started, nothing of its own file systems is mounted, and of an installation of
# this project nothing is left.
units=$root/usr/lib/systemd
rm -rf "$root"/etc/systemd/system/*.wants "$units"/system/*.wants "$units/system-generators" \
	"$root/etc/fstab" "$root/etc/holdfast" "$root/mnt/holdfast" "$root/var/lib/holdfast"
echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
cat >"$root/etc/systemd/system/rig.target" <<'UNIT'
[Unit]
Requires=systemd-journald.service
After=systemd-journald.service
AllowIsolate=yes
UNIT

cd "$root"
mkdir old
pivot_root . old
umount -l old
mount --make-rshared /
exec env -i container=rig PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
	/usr/lib/systemd/systemd --system --unit=rig.target --log-target=journal --show-status=0 </dev/null
