# What the test of the units boots. Source after system.sh.
# shellcheck shell=sh

# need_boot: install what is missing of it.
need_boot() {
	need_system systemctl:systemd curl:curl chattr:e2fsprogs unshare:util-linux
}
