# `make demo` and `make test` do all their set-up themselves, in .venv; the second run starts in seconds.
PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-all check stubs bench clean help

help:
	@echo "make demo       train, serve on two runtimes, put load on it, and check the claims (about a minute after set-up)"
	@echo "make test       the tests that CI runs"
	@echo "make test-all   those and the long ones"
	@echo "make check      ruff, mypy, import contracts, generated stubs"
	@echo "make stubs      regenerate the protocol stubs"
	@echo "make bench      compare with peers on this machine (long; see bench/README.md)"

# A stamp for each set of extras: what is installed is what pyproject.toml says now.
.venv/.demo: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || { echo "creating .venv"; $(PYTHON) -m venv .venv; }
	@echo "installing crossgate[demo] into .venv (the first time this takes a minute or two)"
	@$(BIN)/python -m pip install --quiet --editable '.[demo]'
	@touch $@

.venv/.dev: pyproject.toml .venv/.demo
	@echo "installing crossgate[dev] into .venv"
	@$(BIN)/python -m pip install --quiet --editable '.[dev,bench]'
	@touch $@

demo: .venv/.demo
	@$(BIN)/crossgate demo

test: .venv/.dev
	@$(BIN)/python -m pytest -m "not long"

test-all: .venv/.dev
	@$(BIN)/python -m pytest

check: .venv/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python -m protos.generate --check
	@echo "all checks passed"

stubs: .venv/.dev
	@$(BIN)/python -m protos.generate

bench: .venv/.dev
	@$(BIN)/python -m bench setup
	@$(BIN)/python -m bench run

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
