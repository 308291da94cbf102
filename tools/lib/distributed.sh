# Object stores that the tests run against: Ceph, and Azure's emulator. Source after system.sh.
# shellcheck shell=sh

# need_ceph: install what is missing of them; the tests start daemons of their own, with directories of their own.
need_ceph() {
	need_system ceph-mon:ceph-mon ceph-mgr:ceph-mgr ceph-osd:ceph-osd radosgw:radosgw ceph:ceph-common
}

AZURITE_VERSION=3.35.0

# need_azurite: azurite-blob, below .venv; adds it to PATH.
need_azurite() {
	need_system node:nodejs npm:npm
	HF_AZURITE=$HF_ROOT/.venv/azurite
	if [ ! -x "$HF_AZURITE/node_modules/.bin/azurite-blob" ]; then
		say "installing azurite $AZURITE_VERSION"
		npm install --silent --no-fund --no-audit --no-save --prefix "$HF_AZURITE" "azurite@$AZURITE_VERSION"
	fi
	PATH=$HF_AZURITE/node_modules/.bin:$PATH
	export PATH
}
