# Every target sets up its own .venv first; nothing but Python 3.11+, git and make is needed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
UV     := uv==0.13.9
# Two processes of tests on two cores (a third gains nothing): threads that wait for each other
# would spin.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo loop test check lint lock audit wheel clean

demo: $(STAMP)
	$(BIN)/python scripts/pipeline.py

# Serve, log, audit, review, train again, shadow, promote: once round, on digits.
loop: $(STAMP)
	$(BIN)/python benchmarks/lifecycle_circle.py

test: $(STAMP)
	$(PYTEST)

check: lint
	$(PYTEST) -m "not slow"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

wheel: $(STAMP)
	$(BIN)/uv build --wheel --out-dir dist

# The lock names no index host and carries hashes for every platform; run after editing pyproject.toml.
lock: $(STAMP)
	$(BIN)/uv pip compile pyproject.toml --group dev --all-extras --universal --python-version 3.11 \
		--no-emit-index-url --generate-hashes --upgrade --quiet --custom-compile-command "make lock" \
		--output-file requirements.lock
	$(BIN)/uv pip compile --group production --universal --python-version 3.11 \
		--constraint requirements.lock --no-emit-index-url --generate-hashes --upgrade --quiet \
		--custom-compile-command "make lock" --output-file requirements-serve.lock

# Known vulnerabilities of what is locked; asks pypi.org.
audit: $(STAMP)
	$(BIN)/uv tool run pip-audit --disable-pip --require-hashes -r requirements.lock
	$(BIN)/uv tool run pip-audit --disable-pip --require-hashes -r requirements-serve.lock

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v >= (3, 11) or sys.exit("Expected Python 3.11 or newer but $(PYTHON) is %d.%d. Name another: make PYTHON=python3.11 ..." % v)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(UV)"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --compile-bytecode -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

clean:
	rm -rf $(VENV) dist .pytest_cache .ruff_cache .hypothesis
