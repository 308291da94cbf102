# Programs of Ceph: the distributed object store that the tests run against. Source after system.sh.
# shellcheck shell=sh

# need_ceph: install what is missing of them; the tests start daemons of their own, with directories of their own.
need_ceph() {
	need_system ceph-mon:ceph-mon ceph-mgr:ceph-mgr ceph-osd:ceph-osd radosgw:radosgw ceph:ceph-common
}
