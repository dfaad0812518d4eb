# Every target sets up what it needs in .venv, once; a second run starts at once.
# Overridable: PYTHON=… (the interpreter to build .venv with), ARGS=… (passed on to what runs).

VENV := .venv
PY := $(VENV)/bin/python
CANDIDATES := python3.13 python3.12 python3.11 python3
IS_NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
ARGS ?=
COMMA := ,

# Tests start hundreds of processes: without bytecode each would compile all modules anew.
unexport PYTHONDONTWRITEBYTECODE

.NOTPARALLEL:
.PHONY: help test coverage check thorough lint types pytest format docs release-check demo bench paths torture clean FORCE

help:
	@echo 'make test      check format, lint and types, then run the tests'
	@echo 'make coverage  run the tests with their branch coverage, which has a floor'
	@echo 'make check     the same with the fast half of the tests, in one minute'
	@echo 'make thorough  the tests on every backend, with long searches (hours)'
	@echo 'make lint      ruff format --check, ruff check and lint-imports'
	@echo 'make types     mypy --strict'
	@echo 'make pytest    the tests alone; ARGS="-k fork" chooses'
	@echo 'make format    let ruff rewrite the code'
	@echo 'make docs      the documentation site in build/site; a warning or broken link fails'
	@echo 'make release-check  build wheel and sdist, install each, run the README and the examples'
	@echo 'make demo      a job that is killed, resumed, rewound and forked'
	@echo 'make bench     compare with LangGraph and its SQLite saver, as a table;'
	@echo '               ARGS="--backend postgres" or "--quick", ARGS=--help tells more'
	@echo 'make paths     print the functions between a call and its SQL statement'
	@echo 'make torture   kill -9 a writer thousands of times and check what it left'
	@echo 'make clean     remove .venv, caches and build results'

PIP := $(PY) -m pip install --quiet --disable-pip-version-check --no-compile

# worksteal: a few tests (kill -9, state machines) take most of the time.
PYTEST := $(PY) -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

# Types and documentation beside the tests: those have a single thread, these wait now and then.
# In a fresh clone all test modules are collected once, which compiles them; else each worker does.
test: $(VENV)/ready-test,docs lint
	@{ $(PY) -m mypy --strict && $(PY) docs/build_site.py; } & others=$$!; \
	[ -d tests/__pycache__ ] || $(PY) -m pytest --collect-only --quiet >/dev/null; \
	$(PYTEST) $(ARGS); tests=$$?; \
	wait $$others && exit $$tests

# Apart from `test`: measuring takes longer. What is marked no_cover repeats what others cover.
coverage: $(VENV)/ready-test
	$(PYTEST) --cov -m 'not no_cover' $(ARGS)

check: lint
	@$(PY) -m mypy --strict & types=$$!; \
	$(PYTEST) --quiet -m fast $(ARGS); tests=$$?; \
	wait $$types && exit $$tests

thorough: $(VENV)/ready-test
	HYPOTHESIS_PROFILE=thorough $(PYTEST) $(ARGS)

lint: $(VENV)/ready-test
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(VENV)/bin/lint-imports --no-cache --no-logo

types: $(VENV)/ready-test
	$(PY) -m mypy --strict

pytest: $(VENV)/ready-test
	$(PYTEST) $(ARGS)

format: $(VENV)/ready-test
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

docs: $(VENV)/ready-docs
	$(PY) docs/build_site.py

release-check: $(VENV)/ready-release
	$(PY) -m tests.release

demo: $(VENV)/ready-demo
	$(PY) docs/examples/operations/demo.py $(ARGS)

bench: $(VENV)/ready-bench
	$(PY) -m benchmarks.compare $(ARGS)

paths: $(VENV)/ready-test
	$(PY) -m benchmarks.paths $(ARGS)

torture: $(VENV)/ready-test
	$(PY) -m tests.eventstore.torture $(ARGS)
	$(PY) -m tests.graph.torture
	$(PY) -m tests.graph.torture --postgresql

clean:
	rm -rf $(VENV) .cache build dist .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment is of no use when its Python was removed or upgraded, or when it was copied here
# with the tree: its editable install would still run the code of the original.
usable := $(shell [ "$$(cat $(VENV)/made-for 2>/dev/null)" = "$(CURDIR)" ] \
	&& $(PY) -c '$(IS_NEW_ENOUGH)' 2>/dev/null && echo yes)

# The name after "ready-" is the extra in pyproject.toml, or several of them: one install is faster
# than two. It is editable: a change in the code needs no new one. Python compiles a module when it
# first imports it, and most never are. uv takes a sixth of pip's time, but does not know the mirrors
# of pip's configuration, and has no wheel for some machines.
$(VENV)/ready-%: pyproject.toml $(VENV)/made-for
	@echo "Installing graph-eventstore[$*] into $(VENV) …"
	@{ $(PIP) uv && $(VENV)/bin/uv pip install --quiet --python $(PY) --editable '.[$*]'; } || \
		$(PIP) --editable '.[$*]'
	@touch $@ $(foreach extra,$(subst $(COMMA), ,$*),$(VENV)/ready-$(extra))

.PRECIOUS: $(VENV)/ready-%

# A candidate is tried, not only looked up: a version manager's shim may exist and yet not run.
$(VENV)/made-for: $(if $(usable),,FORCE)
	@found=; no_venv=; \
	for python in $(or $(PYTHON),$(CANDIDATES)); do \
		"$$python" -c '$(IS_NEW_ENOUGH)' >/dev/null 2>&1 || continue; \
		if "$$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then found=$$python; break; fi; \
		no_venv=$${no_venv:-$$python}; \
	done; \
	if [ -z "$$found" ] && [ -n "$$no_venv" ]; then \
		version=$$("$$no_venv" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
		echo "$$no_venv cannot make virtual environments (its venv or ensurepip module is missing)."; \
		echo "On Debian and Ubuntu: sudo apt-get install python$$version-venv"; \
		echo "Elsewhere: install a complete Python, or name another one: make $(MAKECMDGOALS) PYTHON=…"; \
		exit 1; \
	elif [ -z "$$found" ]; then \
		echo "No Python 3.11 or newer was found; tried: $(or $(PYTHON),$(CANDIDATES))."; \
		echo "Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3"; \
		exit 1; \
	fi; \
	echo "Creating $(VENV) with $$("$$found" --version) …"; \
	rm -rf $(VENV) && "$$found" -m venv $(VENV) && echo '$(CURDIR)' > $@
