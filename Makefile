# Two commands do all the set-up: `make demo` runs the main job on real input, `make test` passes the tests.

PYTHON ?= python3
VENV ?= .venv
PARITY ?= .venv-parity
INSTALL = -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test lint bench parity clean

demo: $(VENV)/installed-demo,serve
	$(VENV)/bin/trichrome demo

test: $(VENV)/installed-dev
	$(VENV)/bin/python -m pytest

lint: $(VENV)/installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# Agreement with FlagEmbedding and sentence-transformers, side by side in an environment of its own.
parity: $(PARITY)/installed-dev,parity
	$(PARITY)/bin/python -m pytest tests/parity -v

# Every figure of the README. Takes three hours on 2 cores; add --quick to a command to try it.
bench: $(PARITY)/installed-dev,parity
	$(PARITY)/bin/python -m benchmarks.quality --raw --name quality-base --max-queries 1500
	$(PARITY)/bin/python -m benchmarks.quality --max-queries 1500
	$(PARITY)/bin/python -m benchmarks.laws
	$(PARITY)/bin/python -m benchmarks.train
	$(PARITY)/bin/python -m benchmarks.search
	$(PARITY)/bin/python -m benchmarks.encode
	$(PARITY)/bin/python -m benchmarks.precision
	$(PARITY)/bin/python -m benchmarks.compress
	$(PARITY)/bin/python -m benchmarks.crash
	$(PARITY)/bin/python -m benchmarks.crash --serve
	$(PARITY)/bin/python -m benchmarks.crash --postgres
	$(PARITY)/bin/python -m benchmarks.serve
	$(PARITY)/bin/python -m benchmarks.fuzz --minutes 10
	$(PARITY)/bin/python -m benchmarks.tables

# An environment with the extras that follow "installed-"; made anew when what it is made from changes.
$(VENV)/installed-% $(PARITY)/installed-%: pyproject.toml constraints.txt
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(INSTALL) --editable '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) $(PARITY) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
