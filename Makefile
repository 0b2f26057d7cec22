# Everything here works alone on a machine with Python >= 3.11, make and gcc.
#   PYTHON=…     the interpreter of the virtual environment
#   EXTRA=cuda   install for a CUDA machine instead of the CPU
#   ARGS=…       further arguments for demo, test, test-slow, test-versions and bench
#   VERSIONS=…   the vLLMs of test-versions, each in an environment of its own in the user's cache

EXTRA  ?= cpu
VERSIONS ?= 0.27.0 0.30.0
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed-$(EXTRA)
SHIM   := scripts/vllm-cpu-shim
PYTHON ?= $(shell sh scripts/find-python.sh)

# Two files of tests at a time: an engine needs about 3 GiB, and one core while it starts.
# In the order of their names, so that the long ones, which start engines, do not come last.
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup model demo test test-slow test-versions lint format typecheck bench gpu clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv and install interv with vLLM (EXTRA=cpu or cuda)

$(STAMP): pyproject.toml $(SHIM)/pyproject.toml scripts/setup.sh
	@sh scripts/setup.sh "$(PYTHON)" "$(EXTRA)" "$(VENV)"
	@touch $@

model: setup ## Fetch and convert the demo's model once
	@$(BIN)/interv model

demo: setup ## Show a real model unedited and under each example program
	@$(BIN)/interv demo $(ARGS)

test: model ## Run the tests
	@$(BIN)/python -m pytest -m "not slow" $(PARALLEL) $(ARGS)

test-slow: model ## Run the wide matrix (long)
	@$(BIN)/python -m pytest -m slow $(ARGS)

# An environment that cannot be made here is skipped, with its reason.
test-versions: model ## Compare other vLLMs with the one of .venv (long)
	@for version in $(VERSIONS); do \
		$(BIN)/python scripts/vllm_environment.py $$version > /dev/null || [ $$? = 1 ] || exit; \
	done
	@$(BIN)/python -m pytest tests/versions $(addprefix --vllm=,$(VERSIONS)) $(ARGS)

# The import linter runs inside the tree, since it looks into the current folder first. Its cache
# goes by times of change, which a fresh tree of links does not have.
lint: setup typecheck ## Check types, style and import layers
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@cd build/tree && $(CURDIR)/$(BIN)/lint-imports --no-logo --no-cache \
		--config $(CURDIR)/pyproject.toml

format: setup ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

typecheck: setup ## Check types
	@$(BIN)/python scripts/link_tree.py
	@$(BIN)/mypy

bench: setup ## Measure edited against stock vLLM
	@$(BIN)/python -m benchmarks $(ARGS)

# On a machine that has a CUDA vLLM already, whatever made it: make gpu PYTHON=python3
gpu: ## Check and measure on a CUDA card (with the vLLM of PYTHON)
	@$(PYTHON) -m benchmarks.gpu $(ARGS)

clean: ## Remove what was built here (the model in the user's cache stays)
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache
	find . -name '*.egg-info' -prune -exec rm -rf {} + -o -name __pycache__ -prune -exec rm -rf {} +
