# What this project needs from the system, found by looking for the thing itself, installed with
# apt when it is missing. Source after common.sh and python.sh.
# shellcheck shell=sh

# as_root COMMAND...: run it as root, through sudo when we are not.
as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	else
		sudo "$@"
	fi
}

# links_fuse3: can a C program be compiled against libfuse3? (A compiler without the C library's
# headers, or pkg-config without libfuse3, cannot.)
links_fuse3() {
	have cc && have pkg-config && pkg-config --exists fuse3 &&
		echo '#include <stdio.h>' | cc -E - >/dev/null 2>&1
}

# missing_packages COMMAND:PACKAGE...: print the Debian packages to install, none when all is there.
# The arguments name further commands a caller needs, and the package of each.
missing_packages() {
	if ! built_pyfuse3; then
		# Debian's own python3, with what it leaves out.
		find_python all >/dev/null || echo python3 python3-venv python3-dev
		have cc || echo gcc
		have pkg-config || echo pkg-config
		links_fuse3 || echo libc6-dev libfuse3-dev
	fi
	have fusermount3 || echo fuse3
	for pair in "$@"; do
		have "${pair%%:*}" || echo "${pair#*:}"
	done
}

# built_pyfuse3: is .venv there, with the one package that needs a compiler built?
built_pyfuse3() {
	"$HF_ROOT/.venv/bin/python" -I -c 'import pyfuse3' 2>/dev/null
}

# need_system COMMAND:PACKAGE...: install what is missing; without root and sudo, name the line
# to run instead and stop.
need_system() {
	# The lists of words are meant to be split.
	# shellcheck disable=SC2046
	set -- $(missing_packages "$@")
	[ $# -gt 0 ] || return 0
	have apt-get || die "these are missing, and there is no apt-get to install them: $*"
	if [ "$(id -u)" -ne 0 ] && ! have sudo; then
		say "${0##*/}: installing system packages needs root, and there is no sudo."
		say "Run this as root, then ${0##*/} again:"
		say "    apt-get update && apt-get install -y --no-install-recommends $*"
		exit 1
	fi
	say "installing: $*"
	as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q >&2 ||
		say "apt-get update failed; going on with the lists there are"
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
		"$@" >&2 || die "apt-get could not install: $*"
}

# why_no_fuse: print why this machine cannot mount a FUSE file system; fail when it can.
why_no_fuse() {
	if [ ! -e /dev/fuse ]; then
		echo "there is no /dev/fuse (load the module: modprobe fuse; in a container: --device /dev/fuse --cap-add SYS_ADMIN)"
	elif [ ! -r /dev/fuse ] || [ ! -w /dev/fuse ]; then
		echo "/dev/fuse cannot be opened by user $(id -un)"
	elif ! have fusermount3; then
		echo "there is no fusermount3 (Debian package fuse3)"
	else
		return 1
	fi
}
