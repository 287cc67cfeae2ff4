# `make demo` and `make test` do all their set-up themselves, in .venv; the second run starts in seconds.
PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# As native/cargo_build.py does: the extension uses the stable ABI, its build need not look for an interpreter.
export PYO3_NO_PYTHON := 1
CARGO ?= cargo
NATIVE := native/cargo_build.py native/Cargo.toml native/Cargo.lock $(shell find native/src -name '*.rs')

.PHONY: demo test test-all check check-native native stubs bench clean help

help:
	@echo "make demo       train, serve on two runtimes, put load on it, and check the claims (about a minute after set-up)"
	@echo "make test       the tests that CI runs"
	@echo "make test-all   those and the long ones"
	@echo "make check      ruff, mypy, import contracts, generated stubs; cargo's checks where cargo is there"
	@echo "make native     compile the native extension again, as the other targets do when it has changed"
	@echo "make stubs      regenerate the protocol stubs"
	@echo "make bench      compare with peers on this machine (long; see bench/README.md)"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@echo "creating .venv"
	@$(PYTHON) -m venv .venv

# The extension, in the source tree, where an editable installation has it. Without cargo this says so and goes on.
.venv/.native: $(NATIVE) | $(BIN)/python
	@echo "compiling the native extension (the first time this takes a minute or two)"
	@$(BIN)/python native/cargo_build.py gateway
	@touch $@

# A stamp for each set of extras: what is installed is what pyproject.toml says now. A change of the extension alone
# installs nothing again.
.venv/.demo: pyproject.toml setup.py | .venv/.native
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
	@$(BIN)/mypy native/cargo_build.py
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python -m protos.generate --check
	@$(MAKE) --no-print-directory check-native
	@echo "all checks passed"

# The tests need no Python; the bindings are checked with it.
check-native:
	@if command -v $(CARGO) >/dev/null; then \
	  set -e; cd native; \
	  $(CARGO) fmt --check; \
	  $(CARGO) clippy --quiet --locked --all-targets -- -D warnings; \
	  $(CARGO) clippy --quiet --locked --all-targets --features python -- -D warnings; \
	  $(CARGO) test --quiet --locked; \
	elif [ "$$CI" = true ]; then echo "error: cargo was not found, and CI must check native/"; exit 1; \
	else echo "cargo was not found: native/ is not checked"; fi

native:
	@rm -f .venv/.native
	@$(MAKE) --no-print-directory .venv/.native

stubs: .venv/.dev
	@$(BIN)/python -m protos.generate

bench: .venv/.dev
	@$(BIN)/python -m bench setup
	@$(BIN)/python -m bench run

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
