# Build .venv in the tree from the lock files. Source after common.sh and python.sh.
# shellcheck shell=sh

# venv_key GROUP: what .venv must have been built from, to be right for GROUP: the place (virtual
# environments do not move), the settings, and the locks.
venv_key() {
	{
		echo "$HF_ROOT"
		cat "$HF_ROOT/pyproject.toml" "$HF_ROOT/requirements-build.lock" "$HF_ROOT/$(venv_lock "$1")"
	} | sha256sum
}

# venv_lock GROUP: print the lock file of run, dev or demo.
venv_lock() {
	case $1 in
	run) echo requirements.lock ;;
	*) echo "requirements-$1.lock" ;;
	esac
}

# venv_ready GROUP: is .venv there, working, and built for GROUP from today's files?
venv_ready() {
	[ -x "$HF_ROOT/.venv/bin/holdfast" ] && [ -x "$HF_ROOT/.venv/bin/python" ] &&
		[ "$(cat "$HF_ROOT/.venv/.built-$1" 2>/dev/null)" = "$(venv_key "$1")" ] &&
		"$HF_ROOT/.venv/bin/python" -c '' 2>/dev/null
}

# venv_pip ARGUMENT...: install with .venv's pip, quietly; its words are shown when it fails.
venv_pip() {
	log=$HF_ROOT/.venv/pip.log
	"$HF_ROOT/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
		--no-build-isolation "$@" >"$log" 2>&1 || {
		cat "$log" >&2
		die "pip could not install; its words are above"
	}
}

# make_venv GROUP: bring .venv to what GROUP needs.
make_venv() {
	if ! "$HF_ROOT/.venv/bin/python" -m pip --version >/dev/null 2>&1 ||
		! python_is "$HF_ROOT/.venv/bin/python" version; then
		python=$(find_python) || die "no Python >= $HF_PYTHON_MIN with venv and headers"
		say "making .venv with $python"
		rm -rf "$HF_ROOT/.venv"
		"$python" -m venv "$HF_ROOT/.venv" || die "$python could not make .venv"
	fi
	rm -f "$HF_ROOT/.venv/.built-$1"
	say "installing the locked packages of $(venv_lock "$1")"
	venv_pip --require-hashes -r "$HF_ROOT/requirements-build.lock"
	venv_pip --require-hashes -r "$HF_ROOT/$(venv_lock "$1")"
	# compat: the tree itself goes on the path, so that a new package is there at once.
	venv_pip --no-deps --config-settings editable_mode=compat --editable "$HF_ROOT"
	# A command starts in half the time when nothing has to be compiled first, whatever the
	# environment says about writing bytecode and whoever may write here.
	(cd "$HF_ROOT" && PYTHONDONTWRITEBYTECODE='' .venv/bin/python -m compileall -q \
		engine fsmount daemon) || die "the tree's own Python files do not compile"
	venv_key "$1" >"$HF_ROOT/.venv/.built-$1"
}
