# Find a Python that can carry .venv. Source after common.sh.
# shellcheck shell=sh

HF_PYTHON_MIN=3.11

# python_is PYTHON WHAT: is it new enough (version), able to make virtual environments (venv), or
# to build C extensions (headers)? All three for WHAT = all.
python_is() {
	"$1" -I - "$2" "$HF_PYTHON_MIN" 2>/dev/null <<'PY'
import importlib.util, os, sys, sysconfig
what, least = sys.argv[1:]
good = {
    "version": sys.version_info >= tuple(map(int, least.split("."))),
    "venv": all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")),
    "headers": os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")),
}
sys.exit(not (all(good.values()) if what == "all" else good[what]))
PY
}

# python_candidates: names to try, best first. HOLDFAST_PYTHON names one and stops the search.
python_candidates() {
	if [ -n "${HOLDFAST_PYTHON-}" ]; then
		echo "$HOLDFAST_PYTHON"
	else
		echo python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3
	fi
}

# find_python [WHAT]: print the first candidate that python_is WHAT (all unless told).
find_python() {
	for candidate in $(python_candidates); do
		if have "$candidate" && python_is "$candidate" "${1:-all}"; then
			# The interpreter itself: what is on PATH may be a launcher that obeys the
			# directory it is called from.
			"$candidate" -I -c 'import sys; print(sys.executable)'
			return 0
		fi
	done
	return 1
}
