# Programs the scripts of tools/scripts and their tests use. Source after system.sh.
# shellcheck shell=sh

# need_scripts: install what is missing of them.
need_scripts() {
	need_system shellcheck:shellcheck jq:jq curl:curl rsync:rsync tar:tar flock:util-linux
}
