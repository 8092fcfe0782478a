# Needs Python 3.11 or newer, git and make. uv is taken from the PATH, or put into .uv/ first.

.DEFAULT_GOAL := help
.PHONY: help demo test suite combinations test-system stress soak bench bench-growth bench-hanging \
	bench-generator instructions check lint format env-example session release environment clean

# The first interpreter that runs and is new enough; a name may exist and not run (pyenv's shims).
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON := $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$python" -c '$(NEW_ENOUGH)' 2>/dev/null && echo "$$python" && break; done)

UV := $(shell uv --version >/dev/null 2>&1 && echo uv)
ifeq ($(UV),)
UV := .uv/bin/uv
environment: .uv/bin/uv
export PATH := $(PATH):$(CURDIR)/.uv/bin
endif

# With a fitting interpreter at hand there is nothing to download.
ifneq ($(PYTHON),)
export UV_PYTHON_DOWNLOADS ?= never
endif

# Tests at a time: a third of the time they wait for what they have set.
PROCESSES ?= $$($(UV) run python -c 'import os; print(3 * (os.cpu_count() or 1) // 2)')

COMBINATIONS := tests/matrix/test_combinations.py
UNPLUGGED := tests/unplug
AT_A_TIME := 'import os; print(3 * (os.cpu_count() or 1))'

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' Makefile | awk -F '|' '{ printf "%-20s %s\n", $$1, $$2 }'

demo: environment ## Render a default service, fire each guardrail at it, print what each did
	$(UV) run python -m tests.demo

test: environment ## All there is to hold: lint and the next two, each also when another fails
	@$(MAKE) --no-print-directory --keep-going lint suite combinations

suite: environment ## All tests but those of the next one, in parallel
	$(UV) run pytest --numprocesses $(PROCESSES) --dist loadgroup \
		--ignore $(COMBINATIONS) --ignore $(UNPLUGGED)

# Half of its time a combination waits for the limits that its own tests set.
combinations: environment ## Every combination of the choices, and each guardrail taken out of some
	$(UV) run pytest --numprocesses $$($(UV) run python -c $(AT_A_TIME)) $(COMBINATIONS) $(UNPLUGGED)

stress: environment ## The races for money, keys and places, and leaks, ten times as long (ROUNDS=10)
	$(UV) run pytest --rounds $(or $(ROUNDS),10) tests/resources/test_races.py tests/providers/test_leaks.py

soak: environment ## Ten minutes of load and mixed faults: figures, and what was counted (MINUTES=10)
	$(UV) run pytest --minutes $(or $(MINUTES),10) tests/soak

bench: environment ## What the guardrails cost; needs wrk (ROUNDS=5 SECONDS=5 ONLY=redis PEERS=1)
	$(UV) run python -m benchmarks.guardrails --rounds $(or $(ROUNDS),5) --seconds $(or $(SECONDS),5) \
		$(foreach word,$(ONLY),--only $(word)) $(if $(PEERS),--peers) $(if $(OUTPUT),--output $(OUTPUT))

bench-growth: environment ## How costs grow with what is sent and held (ROUNDS=3 ONLY=history)
	$(UV) run python -m benchmarks.growth --rounds $(or $(ROUNDS),3) \
		$(foreach word,$(ONLY),--only $(word)) $(if $(OUTPUT),--output $(OUTPUT))

bench-hanging: environment ## What a provider that hangs costs those who do not ask it
	$(UV) run python -m benchmarks.hanging_provider

bench-generator: environment ## What `scaffold` costs before and beside Copier (ROUNDS=10 ONLY=wheel)
	$(UV) run python -m benchmarks.generator --rounds $(or $(ROUNDS),10) \
		$(if $(ONLY),--only $(ONLY)) $(if $(OUTPUT),--output $(OUTPUT))

instructions: environment ## Bytecode per request beside the baseline (WRITE=1 renews it, ONLY=redis)
	$(UV) run python -m benchmarks.instructions $(if $(WRITE),--write) \
		$(if $(FUNCTIONS),--functions $(FUNCTIONS)) $(foreach word,$(ONLY),--only $(word))

test-system: environment ## What needs Debian's packages, which .ci/run installs
	$(UV) run pytest --numprocesses auto tests/system

check: lint ## The quick tier: what reads the code, and as few combinations as have each choice once
	$(UV) run pytest --numprocesses $(PROCESSES) --quick $(COMBINATIONS)

lint: environment ## Formatter, linter and type checkers, without changing a file
	$(UV) run ruff format --check
	$(UV) run ruff check
	$(UV) run mypy
	$(UV) run mypy template/tests  # a package `tests` of its own; the rest is read from the cache

format: environment ## Format, and mend what the linter can mend
	$(UV) run ruff format
	$(UV) run ruff check --fix

env-example: environment ## Write the template's .env.example from the descriptions of its settings
	PYTHONPATH=template $(UV) run python -m tools.env_example

session: environment ## Record the README's pictures of a session anew, in a real terminal (needs tmux)
	$(UV) run python -m tools.record_session

# The checks first: they take no time.
release: environment ## Check, commit, tag and build a version (VERSION=1.2.0); it never publishes
	@$(UV) run python -m tools.release --check "$(VERSION)"
	@$(MAKE) --no-print-directory lint
	@$(UV) run python -m tools.release "$(VERSION)"

clean: ## Remove the environments and caches
	rm -rf .venv .uv .mypy_cache .ruff_cache .pytest_cache .hypothesis

environment:
	@test -e "$${UV_PROJECT_ENVIRONMENT:-.venv}/pyvenv.cfg" || $(UV) venv $(if $(PYTHON),--python $(PYTHON))
	$(UV) sync

# An environment of its own: `uv sync` removes from .venv whatever it did not put there. Debian
# ships venv and pip as packages of their own, so either will do.
.uv/bin/uv:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; python3 here is:" \
		"$$(python3 --version 2>&1). Install one, or uv, which brings its own." >&2; exit 1; }
	@echo "uv is not on the PATH: installing it into .uv/"
	@rm -rf .uv && { $(PYTHON) -m venv .uv >/dev/null 2>&1 || rm -rf .uv; }
	@if test -x .uv/bin/python; then .uv/bin/python -m pip install --quiet uv; \
	elif $(PYTHON) -m pip --version >/dev/null 2>&1; then \
		$(PYTHON) -m pip install --quiet --target .uv uv; \
	else echo "$(PYTHON) has neither venv nor pip: install them (Debian, Ubuntu:" \
		"apt install python3-venv), or install uv." >&2; exit 1; fi
