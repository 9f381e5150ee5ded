# make demo     the whole loop in five minutes: no account, no internet, no GPU
# make test     every test
# make check    format, lint, types
# make docs     build the documentation site into build/site; a dead link is an error
# make wheel    build wheel and source archive, install them into empty environments, with and without torch
# make screenshots  draw the pictures of README.md and docs with Chromium
# make bench    benchmarks, printed as tables
# make soak     long tests of server, clients, agents, pages and Slurm, run by hand on a machine without other work
# make proofs   long tests that need neither: statistics on simulated sweeps, compiled graphs of every network
# make clients  every supported version of the wandb client, each in an environment of its own, against the server
# make clean    remove what these commands made

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
PIP_QUIET := --disable-pip-version-check --quiet

.PHONY: demo test check docs wheel screenshots bench soak proofs clients clean

ALONE := tests/soak/test_soak_load.py tests/soak/test_soak_pages.py tests/soak/test_soak_cluster.py \
	tests/soak/test_soak_report.py tests/soak/test_soak_open_pages.py::test_twenty_open_pages_do_not_delay_heartbeats \
	tests/soak/test_soak_slurm.py::test_forty_tasks_that_start_at_once_all_get_their_run
PROOFS := tests/soak/test_calibration.py tests/soak/test_next_sweep_soak.py tests/soak/test_statement_verdicts.py \
	tests/soak/test_soak_graphs.py
CLIENTS := $(patsubst %,.clients/%/ready,$(shell cat tests/soak/clients.txt))

demo: $(READY)
	@$(BIN)/amc-sweep demo

# Many tests wait for servers and clients, so three files run at a time on two cores. Those of one file run in a row.
test: $(READY)
	$(BIN)/pytest --numprocesses=3 --dist=loadfile --no-loadscope-reorder

check: $(READY)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

# A page must not need a server elsewhere: no script, style or picture of one.
docs: $(READY)
	$(BIN)/sphinx-build --fresh-env --fail-on-warning --keep-going --quiet -c docs -d build/doctrees . build/site
	@! grep --recursive --extended-regexp --include='*.html' --include='*.css' --files-with-matches \
	    '<(script|img|iframe|link rel="(stylesheet|preload|icon)")[^>]*(src|href)="(https?:)?//|url\("?(https?:)?//|@import' build/site
	@echo '<meta http-equiv="refresh" content="0; url=docs/index.html">' > build/site/index.html
	@echo "the site is in build/site/index.html"

# The wheel is built from the source archive, so that one is known to be whole.
wheel: $(READY)
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(PYTHON) -m venv --clear dist/venv
	dist/venv/bin/pip install $(PIP_QUIET) --constraint docker/constraints.txt dist/*.whl
	cd dist && for command in amc-data amc-train amc-sweep amc-analyze; do venv/bin/$$command --version && venv/bin/$$command --help > /dev/null || exit 1; done
	$(BIN)/pytest tests/release

screenshots: $(READY)
	$(BIN)/python docs/screenshots.py

bench: $(READY)
	for file in tests/benchmarks/bench_*.py; do $(BIN)/python $$file || exit 1; done

# What is timed, and forty clients at once, need the whole machine. Most of the other tests wait, so three run at a time,
# with one thread each.
soak: $(READY) $(CLIENTS)
	@failed=0; \
	$(BIN)/pytest $(ALONE) --verbose || failed=1; \
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/soak $(ALONE:%=--deselect=%) $(PROOFS:%=--ignore=%) \
	    --numprocesses=3 --dist=load --maxschedchunk=1 --verbose || failed=1; \
	exit $$failed

proofs: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest $(PROOFS) --numprocesses=2 --dist=worksteal --verbose

clients: $(READY) $(CLIENTS)
	$(BIN)/pytest tests/soak/test_soak_clients.py --numprocesses=2 --verbose

.clients/%/ready:
	@echo "Installing wandb $* into .clients/$*"
	@$(PYTHON) -m venv .clients/$*
	@.clients/$*/bin/pip install $(PIP_QUIET) wandb==$*
	@touch $@

clean:
	rm -rf .venv .clients build dist demo *.egg-info

# One environment for everything. It is updated when one of these files changes.
$(READY): setup.cfg pyproject.toml docker/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	@echo "Installing into .venv (torch is large; this takes some minutes once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/pip install $(PIP_QUIET) --constraint docker/constraints.txt --editable '.[dev]'
	@touch $@
