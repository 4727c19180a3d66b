# Needs make, CPython 3.11 to 3.13 with venv, and a package index. Each target sets up .venv itself.
#   make study   the quick study on real MNIST, to a finished report (two minutes on two cores)
#   make test    the tests, but for the next ones
#   make test-cluster   studies on several Ray nodes, with faults that are real ones
#   make coverage   the branches that all tests take (half an hour)
#   make lint    ruff and mypy
#   make bench   an epoch of the trainer against Keras' model.fit
#   make .venv   the set-up alone: by uv, the machine's or one that pip fetches; PIP=1: by pip alone

PYTHON ?= $(shell command -v python3.11 || command -v python3)
comma := ,
EXTRAS := test$(if $(shell command -v nvidia-smi),$(comma)gpu)

# Whole files, since the tests of one share what takes long to make.
AT_ONCE := --numprocesses logical --maxprocesses 4 --dist loadfile
# These wait for processes half of the time.
CLUSTER := -m cluster --numprocesses 3 --dist loadfile --no-loadscope-reorder

.PHONY: study test test-cluster coverage lint bench .venv clean
.DEFAULT_GOAL := study

.venv: .venv/installed

# uv installs in a fraction of pip's time (benchmarks/LOG.md). It does not read pip's settings, so
# where it fails, as behind a mirror that only pip knows, pip has the last word. Python's compiled
# files come with it, as with pip: the processes of a study would make them all at the same time.
PIP_INSTALL := .venv/bin/python -m pip install --quiet --disable-pip-version-check
UV_INSTALL := uv pip install --quiet --compile-bytecode --python .venv/bin/python
PACKAGES := --constraint constraints.txt --editable '.[$(EXTRAS)]'
ifdef PIP
INSTALL := $(PIP_INSTALL) $(PACKAGES)
else
INSTALL := PATH="$$PATH:.venv/bin"; \
	{ command -v uv >/dev/null || $(PIP_INSTALL) --constraint constraints.txt uv; } \
	&& $(UV_INSTALL) $(PACKAGES) || $(PIP_INSTALL) $(PACKAGES)
endif

# The stamp comes last, so that an installation that broke off is done again.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL)
	touch $@

study: .venv
	.venv/bin/python -m study.run --preset quick

test: .venv
	.venv/bin/python -m pytest -m "not cluster" $(AT_ONCE)

test-cluster: .venv
	.venv/bin/python -m pytest $(CLUSTER)

coverage: .venv
	.venv/bin/python -m pytest -m "not cluster" $(AT_ONCE) --cov --cov-report=
	.venv/bin/python -m pytest $(CLUSTER) --cov --cov-append --cov-report=term-missing

lint: .venv
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

bench: .venv
	.venv/bin/python -m benchmarks.epoch --short

clean:
	rm -rf .venv build *.egg-info
