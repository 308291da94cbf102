# What the scripts of this directory share: options, calls of the Phoenix-compatible API, the mounted directory, and
# the session around a writer. POSIX sh; needs curl, and jq or python3. Source it: . "$(dirname "$0")/lib/session.sh"
# shellcheck shell=sh

BASE=/druva-phoenix/v1
NOT_BEGUN=4295622659    # of the API: there is no session (any more)
E_USAGE=2               # the command line
E_UNREACHABLE=3         # the API does not answer, or not in its form
E_REFUSED=4             # the API refuses
E_WRITER=5              # the writer failed: nothing was committed
E_LOG=6                 # committed, but the log could not be handed in
E_UNKNOWN=7             # the answer to the commit was lost: a point was made, or not
E_PLACE=8               # the directory is not there, not mounted, or in use

API=${HOLDFAST_PHOENIX:-http://127.0.0.1:9090}
MOUNT='' MOUNT_POINT='' NFS_SERVER='' NFS_OPTIONS='' TOKEN_FILE='' DRY=''
TRIES=3                 # for a call that gets no answer, or "busy"
PAUSE=2                 # s between them
WAIT_CALL=60 WAIT_LOG=600 WAIT_COMMIT=7200 # s for one answer
WORK='' LOG='' DIR='' CHILD='' BEGUN='' MOUNTED='' LOST=''

common_help() {
	cat <<'HELP'

Options of every script here:
  --mount NAME       the mount, as Holdfast knows it
  --api URL          the Phoenix-compatible API (else $HOLDFAST_PHOENIX, or http://127.0.0.1:9090)
  --token-file FILE  a file with a token, where the API asks for one
  --mount-point DIR  where the mount is on this machine (else the path the API names)
  --nfs SERVER       mount it from there at --mount-point first, and unmount it at the end; needs root
  --nfs-options LIST more options for mount(8)
  --tries N, --pause S  how often to try a call again, and after how many seconds
  --dry-run          print every command, run none
  --help
Exit status: 0 done, 2 the command line, 3 the API does not answer, 4 the API refuses, 5 the writer failed and nothing
was committed, 6 committed but the log could not be handed in, 7 the answer to the commit was lost, 8 the directory is
not there, not mounted or in use, 128+N stopped by signal N.
After 5, 7 and 128+N the session is left open: run the same again.
HELP
}

say() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
}

# fail STATUS WORD...: the reason, and exit.
fail() {
	status=$1
	shift
	say "$*"
	exit "$status"
}

have() {
	command -v "$1" >/dev/null 2>&1
}

# help: the comment at the head of the script, and the common options.
help() {
	sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
	common_help
	exit 0
}

# value OPTION [VALUE...]: the option's value must be there.
value() {
	[ $# -ge 2 ] || fail $E_USAGE "$1 needs a value; see --help"
}

# common_option WORD...: take an option every script has from the front; TAKEN says how many words it was.
# shellcheck disable=SC2034 # TAKEN is read by those who source this
common_option() {
	TAKEN=2
	case $1 in
	--help | -h) help ;;
	--dry-run) DRY=1 TAKEN=1 ;;
	--api) value "$@" && API=${2%/} ;;
	--mount) value "$@" && MOUNT=$2 ;;
	--mount-point) value "$@" && MOUNT_POINT=${2%/} ;;
	--nfs) value "$@" && NFS_SERVER=$2 ;;
	--nfs-options) value "$@" && NFS_OPTIONS=$2 ;;
	--token-file) value "$@" && TOKEN_FILE=$2 ;;
	--tries) value "$@" && number "$@" && TRIES=$2 ;;
	--pause) value "$@" && number "$@" && PAUSE=$2 ;;
	*) return 1 ;;
	esac
}

number() {
	case $2 in
	'' | *[!0-9]* | ??????????*) fail $E_USAGE "$1: a number was expected, not '$2'" ;;
	esac
}

# plain OPTION NAME: a name that is one part of a path.
plain() {
	case $2 in
	'' | .* | -* | *[!A-Za-z0-9._-]*)
		fail $E_USAGE "$1: letters, digits, dots, dashes and underscores were expected, not '$2'" ;;
	esac
}

# --- commands, run or shown ----------------------------------------------------------------------

# quoted WORD...: a command line that a shell reads as these words.
quoted() {
	for word in "$@"; do
		case $word in
		'' | *[!A-Za-z0-9_./:=@%+,-]*) printf "'%s' " "$(printf '%s' "$word" | sed "s/'/'\\\\''/g")" ;;
		*) printf '%s ' "$word" ;;
		esac
	done
	echo
}

# step COMMAND...: a command of the writer; its output goes to the log. A signal ends it.
step() {
	if [ -n "$DRY" ]; then
		quoted "$@"
		return 0
	fi
	printf '+ %s\n' "$(quoted "$@")" >>"$LOG"
	"$@" >>"$LOG" 2>&1 </dev/null &
	CHILD=$!
	wait "$CHILD"
	result=$?
	CHILD=''
	[ $result -eq 0 ] || printf 'exit status %s\n' "$result" >>"$LOG"
	return $result
}

# end_child: end the writer that still runs: politely, then not.
end_child() {
	[ -n "$CHILD" ] || return 0
	kill -TERM "$CHILD" 2>/dev/null
	seconds=0
	while kill -0 "$CHILD" 2>/dev/null && [ $seconds -lt 20 ]; do
		sleep 1
		seconds=$((seconds + 1))
	done
	kill -KILL "$CHILD" 2>/dev/null
	wait "$CHILD" 2>/dev/null
	CHILD=''
}

# --- calls of the API ----------------------------------------------------------------------------

# fetch SECONDS METHOD URL [CURL OPTION...]: one request; the answer's body is in $WORK/answer. A token goes to curl
# through a pipe: it is in no argument and no file of ours.
fetch() {
	limit=$1 method=$2 url=$3
	shift 3
	set -- --silent --show-error --proto =http,https --connect-timeout 10 --max-time "$limit" \
		--output "$WORK/answer" --request "$method" "$@" "$url"
	if [ -n "$DRY" ]; then
		[ -z "$TOKEN_FILE" ] || set -- --header "Authorization: Bearer TOKEN-OF-$TOKEN_FILE" "$@"
		quoted curl "$@"
	elif [ -n "$TOKEN_FILE" ]; then
		{ printf 'Authorization: Bearer ' && cat -- "$TOKEN_FILE"; } | curl --header @- "$@"
	else
		curl "$@"
	fi
}

# field PATH TYPE: print a field of the answer (result.mount_path). Fails when it is missing or of another type;
# integers have 64 bits, and are printed exactly or not at all.
field() {
	if have jq; then
		# shellcheck disable=SC2016 # the dollars are jq's
		jq --raw-output --slurp --arg path "$1" --arg type "$2" '
			if length == 1 then .[0] else error("not one value") end
			| getpath($path | split("."))
			| if $type == "integer" then
				if type == "number" and . == floor and fabs <= 9007199254740991 then tostring
				else error("not an integer") end
			elif type == $type then tostring else error("another type") end' "$WORK/answer" 2>/dev/null
	else
		python3 -c '
import json, sys
def strict(pairs):
    found = dict(pairs)
    if len(found) != len(pairs): raise ValueError("a key twice")
    return found
with open(sys.argv[1], encoding="utf-8") as answer:
    value = json.load(answer, object_pairs_hook=strict)
for key in sys.argv[2].split("."): value = value[key]
kind = {"integer": int, "string": str, "boolean": bool}[sys.argv[3]]
if type(value) is not kind or kind is int and not -2**63 <= value < 2**63: raise ValueError(value)
print(json.dumps(value) if kind is bool else value)' "$WORK/answer" "$1" "$2" 2>/dev/null
	fi
}

# call SECONDS METHOD PATH [CURL OPTION...]: one call, tried again within limits while there is no answer or the API is
# busy. Sets CODE and MESSAGE; fails when there is no answer in the API's form. LOST is set when a request may have
# been carried out although nothing came back.
call() {
	seconds=$1 verb=$2 path=$3
	shift 3
	tried=1
	while :; do
		CODE='' MESSAGE=''
		if fetch "$seconds" "$verb" "$API$BASE$path" "$@"; then
			[ -z "$DRY" ] || { CODE=0 && return 0; }
			if ! CODE=$(field error_code integer) || ! MESSAGE=$(field error_msg string); then
				CODE=''
				say "$verb $API$BASE$path: the answer is not one of this API"
			fi
		else
			curl_status=$?
			# 6 and 7: nothing was sent.
			[ $curl_status -eq 6 ] || [ $curl_status -eq 7 ] || LOST=1
		fi
		case $CODE in
		'' | 4900000012 | 4900000022 | 4900000024) [ "$tried" -lt "$TRIES" ] || break ;;
		*) return 0 ;;
		esac
		say "$verb $path: ${MESSAGE:-no answer}; trying again in $PAUSE s"
		tried=$((tried + 1))
		sleep "$PAUSE"
	done
	[ -n "$CODE" ]
}

# accepted WHAT: the last call's answer is success, else exit.
accepted() {
	[ "$CODE" = 0 ] || fail $E_REFUSED "$1: error $CODE: $MESSAGE"
}

unreachable() {
	fail $E_UNREACHABLE "$API does not answer"
}

# --- the directory -------------------------------------------------------------------------------

# is_mounted DIR: is a file system mounted there?
is_mounted() {
	[ -d "$1" ] && [ "$(stat -c %d -- "$1")" != "$(stat -c %d -- "$1/..")" ]
}

# nfs_mount PATH TIMEO RETRANS: mount it from the server at the mount point, or find it mounted by an earlier run.
nfs_mount() {
	options=timeo=$2,retrans=$3${NFS_OPTIONS:+,$NFS_OPTIONS}
	if [ -n "$DRY" ]; then
		quoted mount -t nfs -o "$options" "$NFS_SERVER:$1" "$MOUNT_POINT"
		return 0
	fi
	if is_mounted "$MOUNT_POINT"; then
		[ "$(findmnt --noheadings --output SOURCE "$MOUNT_POINT")" = "$NFS_SERVER:$1" ] ||
			fail $E_PLACE "$MOUNT_POINT: something else is mounted there"
	else
		mount -t nfs -o "$options" "$NFS_SERVER:$1" "$MOUNT_POINT" >&2 ||
			fail $E_PLACE "$NFS_SERVER:$1 could not be mounted at $MOUNT_POINT"
	fi
	MOUNTED=1
}

# enter PATH: DIR becomes the mounted directory, locked against another run. The writer inherits the lock, so one that
# outlives a killed script keeps a second run out.
enter() {
	DIR=${MOUNT_POINT:-$1}
	[ -z "$DRY" ] || return 0
	case $DIR in
	/*) ;;
	*) fail $E_PLACE "the mount's directory '$DIR' is no absolute path" ;;
	esac
	is_mounted "$DIR" ||
		fail $E_PLACE "$DIR: no file system is mounted there; name its directory here with --mount-point"
	if have flock && [ -r "$DIR" ]; then
		exec 9<"$DIR"
		flock --nonblock --conflict-exit-code 75 9 2>/dev/null
		[ $? -ne 75 ] || fail $E_PLACE "$DIR is in use by another run, or by a writer that one left behind"
	fi
}

# leave_directory: everything written is handed to the server; what we mounted is unmounted.
leave_directory() {
	exec 9<&-
	[ -n "$NFS_SERVER" ] || return 0
	if [ -n "$DRY" ]; then
		quoted sync --file-system "$MOUNT_POINT"
		quoted umount "$MOUNT_POINT"
	elif [ -n "$MOUNTED" ]; then
		sync --file-system "$MOUNT_POINT" && umount "$MOUNT_POINT" && MOUNTED=''
	fi
}

# --- the session ---------------------------------------------------------------------------------

# send_log FILE: hand it in as a log; fails when that does not work.
send_log() {
	call $WAIT_LOG POST "/mounts/$MOUNT/uploadlog" --form "file=@\"$1\"" \
		--form-string "mountpoint=$DIR" --form-string "platform=$(uname -s | tr '[:upper:]' '[:lower:]')" &&
		[ "$CODE" = 0 ]
}

# stopped NAME NUMBER: a signal came: end the writer, hand in its log, leave the session open.
stopped() {
	trap '' HUP INT TERM
	end_child
	if [ -n "$BEGUN" ]; then
		printf 'stopped by %s\n' "$1" >>"$LOG"
		TRIES=1
		send_log "$LOG" || say "the log could not be handed in"
		say "stopped by $1; nothing was committed, the session is left open: run it again"
	fi
	exit $((128 + $2))
}

# done_with: at the end, whatever happened.
done_with() {
	exec 9<&-
	[ -z "$MOUNTED" ] || umount "$MOUNT_POINT" || say "$MOUNT_POINT is left mounted"
	[ -z "$WORK" ] || rm -rf -- "$WORK"
}

# prepare: check what all scripts need, and make the working directory.
prepare() {
	plain --mount "$MOUNT"
	[ -z "$NFS_SERVER" ] || [ -n "$MOUNT_POINT" ] || fail $E_USAGE "--nfs needs --mount-point"
	[ -z "$TOKEN_FILE" ] || [ -r "$TOKEN_FILE" ] || fail $E_USAGE "$TOKEN_FILE cannot be read"
	have curl || fail $E_USAGE "curl is needed, and is not here"
	have jq || have python3 || fail $E_USAGE "jq or python3 is needed, and neither is here"
	if [ -n "$DRY" ]; then
		WORK=WORK LOG=LOG
		return 0
	fi
	WORK=$(mktemp -d) || exit 1
	LOG=$WORK/${0##*/}.log
	: >"$LOG"
	trap done_with EXIT
	trap 'stopped HUP 1' HUP
	trap 'stopped INT 2' INT
	trap 'stopped TERM 15' TERM
}

# session WRITER [WORD...]: status, start, the function WRITER with the words (DIR is the mounted directory), log,
# commit.
session() {
	prepare
	call $WAIT_CALL GET "/mounts/$MOUNT/backup" || unreachable
	accepted "mount $MOUNT"
	if [ -z "$DRY" ]; then
		reached=$(field result.is_reached_max_snapshots boolean) || unreachable
		[ "$reached" = false ] || fail $E_REFUSED "mount $MOUNT: too many recovery points wait for their copy"
	fi
	call $WAIT_CALL POST "/mounts/$MOUNT/backup" || unreachable
	accepted "starting on mount $MOUNT"
	BEGUN=1 path=MOUNT_PATH timeo=1200 retrans=5
	if [ -z "$DRY" ]; then
		path=$(field result.mount_path string) || unreachable
		timeo=$(field result.mount_params.timeo integer) || unreachable
		retrans=$(field result.mount_params.retrans integer) || unreachable
	fi
	[ -z "$NFS_SERVER" ] || nfs_mount "$path" "$timeo" "$retrans"
	enter "$path"
	if ! "$@"; then
		send_log "$LOG" || say "the log could not be handed in"
		tail -n 5 "$LOG" >&2
		fail $E_WRITER "the writer failed; nothing was committed, the session is left open: run it again"
	fi
	leave_directory || fail $E_WRITER "not everything could be written to $MOUNT_POINT; nothing was committed"
	kept=1
	send_log "$LOG" || kept=''
	commit
	[ -n "$kept" ] || fail $E_LOG "committed; the log could not be handed in"
}

# lost WORD...: the end of who does not know what became of the commit.
lost() {
	fail $E_UNKNOWN "$*: it is not known whether there is a point now; look with: holdfast points $MOUNT"
}

# commit: make the recovery point and say its name.
commit() {
	trap 'lost stopped while committing' HUP INT TERM
	LOST=''
	if ! call $WAIT_COMMIT PUT "/mounts/$MOUNT/backup"; then
		[ -z "$LOST" ] || lost "the answer to the commit did not come"
		fail $E_UNREACHABLE "$API does not answer; nothing was committed, the session is left open: run it again"
	fi
	[ "$CODE" != $NOT_BEGUN ] || [ -z "$LOST" ] || lost "no answer to the commit came, and the session is closed"
	accepted "committing on mount $MOUNT"
	[ -n "$DRY" ] || field result.snap_name string || unreachable
}
