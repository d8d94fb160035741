# On a fresh machine: `make demo` and `make test`. Each builds its own .venv; needed are only Python 3.11 or later and make.
#
#   make PYTHON=/path/to/python test     with a Python of your choice
#   make test ARGS="-k cancel -x"        with arguments for the program behind the target

VENV   := .venv
LOWEST := .venv-lowest
NEWEST := .venv-newest
PINNED := pyproject.toml constraints.txt
BIN    := $(VENV)/bin

# A process for each core; a file's tests stay together, because they share what is built once.
PYTEST   := python -m pytest --numprocesses auto --dist loadfile
SELECTED := tests/llm tests/crew tests/flow tests/streaming tests/recordings

# Tried in this order, unless PYTHON names one.
PYTHON  ?=
PYTHONS := $(or $(PYTHON),python3 python3.13 python3.12 python3.11)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-all check format docs dist bench bench-alternatives storm soak schema wheel-test test-lowest test-newest constraints clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-19s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.runtime ## a flow, streamed to a live dashboard; offline, no key
	@$(BIN)/python examples/progress_dashboard.py $(ARGS)

test: $(VENV)/.test ## all tests but the slow ones: minutes
	@$(call print_versions,$(VENV))
	@$(BIN)/$(PYTEST) -m "not slow" $(ARGS)

test-all: $(VENV)/.test ## all tests
	@$(call print_versions,$(VENV))
	@$(BIN)/$(PYTEST) $(ARGS)

check: $(VENV)/.dev ## everything that must pass: format, lint, types, documentation, all tests
	@$(call print_versions,$(VENV))
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/pyright
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	$(BIN)/$(PYTEST) $(ARGS)

format: $(VENV)/.dev ## formats the code, and repairs what ruff can repair
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

docs: $(VENV)/.dev ## the documentation site, into site/; needs no network, and every warning is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "Read it at http://127.0.0.1:8000 with: $(BIN)/python -m http.server --directory site --bind 127.0.0.1 8000"

bench: $(VENV)/.test ## the benchmarks
	@$(BIN)/python -m benchmarks $(ARGS)

bench-alternatives: $(VENV)/.test ## what else one would pick, beside rxflow; installs them into .venv-alternatives
	@$(BIN)/python -m benchmarks.alternatives --install $(ARGS)

storm: $(VENV)/.test ## 2,000 flows, each cancelled at a random point; 500 of random shape at once; 1,000 readers; 100 killed workers
	@RXFLOW_STORM=2000 RXFLOW_CROWD=500 RXFLOW_READERS=1000 RXFLOW_KILLS=100 $(BIN)/python -m pytest -s tests/reliability/test_storm.py \
	  tests/reliability/test_isolation.py tests/runs/test_many_readers.py tests/runs/test_processes.py $(ARGS)

soak: $(VENV)/.test ## ten minutes of mixed load
	@RXFLOW_SOAK=600 $(BIN)/python -m pytest -s tests/reliability/test_soak.py $(ARGS)

schema: $(VENV)/.runtime ## writes docs/events.schema.json anew, from the classes of the events
	@$(BIN)/python -m rxflow.types.event_schema > docs/events.schema.json

wheel-test: $(VENV)/.test ## builds the wheel, and looks at it from outside (part of the tests)
	@$(BIN)/python -m pytest tests/packaging $(ARGS)

dist: $(VENV)/.test ## the sdist and the wheel, into dist/
	@rm -rf dist
	$(BIN)/python -m build --no-isolation

test-lowest: $(LOWEST)/.test ## tests of models, crews, flows and streams, with the oldest dependencies that we allow
	@$(call print_versions,$(LOWEST))
	@$(LOWEST)/bin/$(PYTEST) $(SELECTED) $(ARGS)

test-newest: ## the same with the newest dependencies that there are; made anew each time
	@rm -rf $(NEWEST)
	@$(call create_venv,$(NEWEST))
	$(NEWEST)/bin/python -m pip install --quiet 'setuptools>=77'
	$(NEWEST)/bin/python -m pip install --quiet --no-build-isolation --editable '.[test]'
	@$(call print_versions,$(NEWEST))
	@$(NEWEST)/bin/$(PYTEST) $(SELECTED) $(ARGS)

constraints: ## writes constraints.txt anew; name the oldest Python: PYTHON=python3.11
	@rm -rf .venv-constraints
	@$(call create_venv,.venv-constraints)
	.venv-constraints/bin/python -m pip install --quiet 'setuptools>=77'
	.venv-constraints/bin/python -m pip install --quiet --no-build-isolation --editable '.[dev]'
	@{ echo '# What CI installs: exact versions. Written by `make constraints`, with the oldest supported Python.'; \
	  .venv-constraints/bin/python -m pip list --format=freeze --exclude pip --exclude rxflow; } > constraints.txt
	@rm -rf .venv-constraints

clean: ## removes what was built, the environments too
	rm -rf .venv .venv-* build dist site *.egg-info .coverage .coverage.* htmlcov
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One environment in three steps, so that the demo need not wait for the tools of developers.
$(VENV)/.python:
	@$(call create_venv,$(VENV))
	@touch $@

$(VENV)/.runtime: $(VENV)/.python $(PINNED)
	@$(call install,.[terminal])

$(VENV)/.test: $(VENV)/.python $(PINNED)
	@$(call install,.[test])

$(VENV)/.dev: $(VENV)/.python $(PINNED)
	@$(call install,.[dev])

# No constraints here: they name the newest versions of what the oldest need.
$(LOWEST)/.test: pyproject.toml
	@$(call create_venv,$(LOWEST))
	@$(LOWEST)/bin/python -c "import re, tomllib; \
	  project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
	  print(*(re.sub('>=([^,]+).*', r'==\1', line) for line in project['dependencies']), sep='\n')" > $(LOWEST)/lowest.txt
	$(LOWEST)/bin/python -m pip install --quiet 'setuptools>=77'
	$(LOWEST)/bin/python -m pip install --quiet --no-build-isolation -r $(LOWEST)/lowest.txt --editable '.[test]'
	@touch $@

define install
echo "Installing rxflow and what it needs into $(VENV): a minute or two, once." && \
$(BIN)/python -m pip install --quiet --constraint constraints.txt setuptools && \
$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '$(1)' && \
touch $@
endef

# The first Python that is new enough and can make an environment. One without ensurepip lends its own pip.
define create_venv
for python in $(PYTHONS); do \
  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
  "$$python" -m venv --clear $(1) >/dev/null 2>&1 && exit 0; \
  "$$python" -m venv --clear --without-pip $(1) >/dev/null 2>&1 && \
    "$$python" -m pip --python $(1)/bin/python install --quiet pip && exit 0; \
done; \
rm -rf $(1); \
echo "rxflow needs Python 3.11 or later with venv and pip. Tried: $(PYTHONS)." >&2; \
echo "Install one, or name one: make PYTHON=/path/to/python $(MAKECMDGOALS)" >&2; \
exit 1
endef

# One line: this environment's Python, and what a result depends on most.
define print_versions
$(1)/bin/python -c "import platform; from importlib.metadata import version; \
  names = 'rxflow litellm openai httpx aiohttp pydantic reactivex anyio'.split(); \
  print('$(1): Python', platform.python_version(), *(f'{name} {version(name)}' for name in names))"
endef
