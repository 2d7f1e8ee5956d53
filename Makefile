PYTHON ?=
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.installed
PEERS := .venv-peers
PEERS_READY := $(PEERS)/.installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help study bench test test-all test-keys lint clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

study: $(READY) ## run the quickstart study and show its result
	$(VENV)/bin/bayes-moe study run quickstart

bench: $(PEERS_READY) ## measure ours beside NumPyro, PyMC, Stan, BlackJAX (two hours; BENCH=--quick: minutes)
	$(PEERS)/bin/python -m comparisons.peers.bench $(BENCH)

# Most of the tests' time is XLA compiling what runs for milliseconds; without optimisation it takes half of that.
test: $(READY) ## run the quick tests, on code that is compiled without optimisation
	XLA_FLAGS="$$XLA_FLAGS --xla_backend_optimization_level=0" $(PY) -m pytest -n 2 --dist worksteal -m "not slow"

test-all: $(READY) ## run every test, the slow ones too, on code as users have it
	$(PY) -m pytest -n 2 --dist worksteal

test-keys: $(READY) ## run the statistical tests under 20 other keys, in turn, and print a table (hours; KEYS="1 2": some)
	$(PY) tests/keys.py $(KEYS)

lint: $(READY) ## check the code's style and format
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

clean: ## remove the environments, builds and caches (results/ stays)
	rm -rf $(VENV) $(PEERS) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A candidate must run, not only be found: a pyenv shim exists for versions that are not selected.
USABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))

$(READY): pyproject.toml constraints.txt
	@$(PY) -c 'import pip; $(USABLE)' 2>/dev/null || { \
	  for python in "$(PYTHON)" python3.13 python3.12 python3 none; do \
	    "$$python" -c '$(USABLE)' >/dev/null 2>&1 && break; \
	  done; \
	  if [ "$$python" = none ]; then \
	    echo "bayes-moe needs Python 3.12 or newer, with its venv module; tried: python3.13 python3.12 python3 $(PYTHON)" >&2; \
	    echo "Get one with your system's packages (Debian, Ubuntu: python3 and python3-venv; macOS: brew install python@3.13)," >&2; \
	    echo "with pyenv (pyenv install 3.13) or from python.org. If it is installed already: make PYTHON=/its/path/python3 ..." >&2; \
	    exit 1; \
	  fi; \
	  echo "Making $(VENV) with $$("$$python" --version)"; \
	  "$$python" -m venv --clear $(VENV); \
	}
	@echo "Installing bayes-moe and what it needs into $(VENV): about a minute, once"
	@$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

$(PEERS_READY): $(READY) constraints-peers.txt comparisons/peers/mend_stan.py
	@echo "Installing other software into $(PEERS): some minutes, once"
	@$(PY) -m venv --clear $(PEERS)
	@$(PEERS)/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -c constraints-peers.txt -e ".[peers]"
	@$(PEERS)/bin/python -m comparisons.peers.mend_stan
	@touch $@
