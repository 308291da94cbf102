# Programs the rigs and their tests use. Source after system.sh.
# shellcheck shell=sh

# need_torture: install what is missing of them.
need_torture() {
	need_system rsync:rsync strace:strace fio:fio stress-ng:stress-ng linux.uml:user-mode-linux \
		faketime:faketime mkfs.ext4:e2fsprogs mkfs.xfs:xfsprogs mkfs.btrfs:btrfs-progs \
		cpio:cpio zip:zip unzip:unzip git:git qemu-img:qemu-utils sqlite3:sqlite3 tar:tar \
		getfattr:attr setfacl:acl
}
