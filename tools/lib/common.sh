# Words every script in tools/ shares. Source it first: . "$(dirname "$0")/lib/common.sh"
# POSIX sh. Sets HF_ROOT (the top of this tree) and HF_LIB (this directory).
# shellcheck shell=sh

HF_ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/${HF_UP:-..}" && pwd -P)
# shellcheck disable=SC2034 # for those who source this
HF_LIB=$HF_ROOT/tools/lib

# say WORD...: one line of progress, on standard error, so that a script's output stays its own.
say() {
	printf '%s\n' "$*" >&2
}

# die WORD...: the reason, and exit 1.
die() {
	say "${0##*/}: $*"
	exit 1
}

# have COMMAND: is it on PATH?
have() {
	command -v "$1" >/dev/null 2>&1
}

# usage FILE [STATUS]: print the comment at the head of FILE, and exit (2 unless told).
usage() {
	sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$1" >&2
	exit "${2:-2}"
}
