# The usual names for what the scripts in tools/ do.
.PHONY: rescue help setup demo test test-distributed torture bench install clean

PREFIX ?= /usr/local
DESTDIR ?=

help:
	@echo "make setup   install system packages where missing, and .venv with the holdfast command"
	@echo "make demo    the whole main job on real input, ends with one table"
	@echo "make test    every check and every test"
	@echo "make test-distributed  every test that keeps copies, at a Ceph of one node and others that they start"
	@echo "make torture try for an hour to break it, record what came out (HOURS=N: go on for so long)"
	@echo "make bench   measure against the peers, ends with one table"
	@echo "make install PREFIX=$(PREFIX) DESTDIR=$(DESTDIR)  for the whole system: command, units, manual pages"
	@echo "             PYTHON=FILE: to run with; ANY_PYTHON=1: also one that the service cannot run"
	@echo "make clean   remove .venv and every cache"

setup:
	./tools/setup

demo:
	./tools/demo

test:
	./tools/test

test-distributed:
	./tools/test-distributed

torture:
	./tools/torture-run $(if $(HOURS),--hours $(HOURS))

bench:
	./tools/setup --dev
	.venv/bin/python -m tools.bench

install: setup
	.venv/bin/python -m tools.install --prefix "$(PREFIX)" --destdir "$(DESTDIR)" \
	  $(if $(PYTHON),--python "$(PYTHON)") $(if $(ANY_PYTHON),--any-python)

clean:
	rm -rf .venv .venv.lock build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache \
	  .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Points of a store, read from its packs alone: make rescue STORE=/srv/holdfast
rescue: setup
	@.venv/bin/python tools/rescue.py $(STORE)
