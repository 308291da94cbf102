# Programs of NFS: the server that the daemon runs, clients for the tests. Source after system.sh.
# shellcheck shell=sh

# need_nfs: install what is missing of them.
need_nfs() {
	need_system ganesha.nfsd:nfs-ganesha nfs-cp:libnfs-utils ip:iproute2
	# Its part for mounted file systems has no command to be found by.
	for found in /usr/lib/*/ganesha/libfsalvfs.so /usr/lib*/ganesha/libfsalvfs.so; do
		[ ! -e "$found" ] || return 0
	done
	need_system libfsalvfs:nfs-ganesha-vfs
}
