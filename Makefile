# `make reproduce` and `make test` work in a fresh clone. VENV=, PYTHON=, OUT= and WORKERS= may be given.
PYTHON ?= python3
VENV ?= .venv
OUT ?= out
WORKERS ?= auto
BIN := $(VENV)/bin
# pip reads these; the second reaches the isolated build of the package itself in pip 25.3 and later.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help reproduce test check lint house screenshots docs benchmark chromium wheel package-check constraints clean

help:
	@echo "make reproduce    the reference experiment and its report, into $(OUT)/"
	@echo "make check        lint, types, import rules and the fast tests: while you work"
	@echo "make test         lint, types, import rules, all tests"
	@echo "make lint         ruff, mypy --strict, import-linter"
	@echo "make house        docs/images/house.svg, drawn from the imports, and transcript.svg, from a batch"
	@echo "make screenshots  the explorer's pictures in docs/images, and how fast it answers"
	@echo "make docs         the documentation, into site/"
	@echo "make benchmark    ours against each peer, same work, one run, into $(OUT)/ (some 20 minutes)"
	@echo "make wheel        the package and its sources, into dist/"
	@echo "make package-check  the wheel in an environment of its own, used from an empty folder (some minutes)"
	@echo "make constraints  pin the newest versions that pyproject.toml allows"
	@echo "make clean        remove what the above made, $(OUT)/ included"

reproduce: $(VENV)/installed-dev
	$(BIN)/cotinterp reproduce --out $(OUT)

# The models are small: one thread for each process, and the cores shared out among processes.
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --maxprocesses 4 --dist worksteal
test: lint chromium
	$(PYTEST)

check: lint
	$(PYTEST) -m "not slow and not browser"

lint: $(VENV)/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --strict cotinterp analyses benchmarks
	$(BIN)/lint-imports

house: $(VENV)/installed-dev
	$(BIN)/python docs/draw_house.py
	OMP_NUM_THREADS=1 $(BIN)/python docs/draw_transcript.py

screenshots: $(VENV)/installed-dev chromium
	$(BIN)/python docs/screenshots.py

docs: $(VENV)/installed-dev $(VENV)/installed-docs
	OMP_NUM_THREADS=1 $(BIN)/python docs/run_notebooks.py
	$(BIN)/mkdocs build --strict

# Wants the machine for itself. WORKS= takes options of `python -m benchmarks`.
benchmark: $(VENV)/installed-dev
	$(BIN)/python -m benchmarks --out $(OUT) $(WORKS)

# Some tests open the report in a browser. Without one they are deselected, and pytest's last lines say so again.
chromium:
	@for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "No Chromium on PATH: installing it with apt-get."; \
		apt-get update -qq && apt-get install -y -qq chromium >/dev/null && exit 0; \
		echo "NOTE: apt-get could not install Chromium; the browser tests will not run."; \
	else \
		echo "NOTE: no Chromium on PATH, and installing it needs root and apt-get; the browser tests will not run."; \
	fi

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cotinterp needs Python 3.11 or newer; say make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed-%: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -q -e ".[$*]"
	@touch $@

wheel: $(VENV)/installed-dev
	rm -rf dist
	$(BIN)/python -m hatchling build -t sdist -d dist
	tar -xzf dist/cotinterp-*.tar.gz -C dist
	cd dist/cotinterp-*/ && $(abspath $(BIN))/python -m hatchling build -t wheel -d ..
	rm -rf dist/cotinterp-*/

# Each command from an empty folder, with its exit code and seconds; the first that fails ends it.
define IN_AN_EMPTY_FOLDER
set -e
bin="$$1/bin"; cd "$$(mktemp -d)"; echo "in $$PWD"
printf 'from cotinterp import FoldTask\nclass Swap(FoldTask):\n    name = "sum-mod3"\n    operands = "012"\n    commutative = True\n\n    def step(self, total, operand):\n        return (total + operand) %% 3\n' > mine.py
check() { began=$$(date +%s); code=0; "$$@" > said 2>&1 || code=$$?; echo "exit $$code  $$(($$(date +%s) - began)) s  $$*" | sed "s|$$bin/||"; [ $$code = 0 ] || { tail said; exit $$code; }; }
check "$$bin/python" -c 'import cotinterp; print(cotinterp.__version__)'
check "$$bin/python" -c 'from cotinterp import load_run; load_run("s3-cot-L4-s0-42df236d")'
check "$$bin/python" -m cotinterp --version
check "$$bin/cotinterp" --help
check "$$bin/cotinterp" tasks
check "$$bin/cotinterp" claims
check "$$bin/cotinterp" status depth_frontier
check "$$bin/cotinterp" evaluate s3-cot-L4-s0-42df236d --quick
check "$$bin/cotinterp" reproduce --quick
check "$$bin/cotinterp" report
check "$$bin/cotinterp" depth mine.py:Swap --quick
endef
export IN_AN_EMPTY_FOLDER

package-check: wheel
	rm -rf .venv-package
	$(PYTHON) -m venv .venv-package
	.venv-package/bin/python -m pip install -q dist/*.whl
	@printf '%s\n' "$$IN_AN_EMPTY_FOLDER" | bash -s -- $(abspath .venv-package)

# torch stays where it is: a newer one is a decision (other weights, bit for bit), made by editing its line.
constraints: export PIP_CONSTRAINT :=
constraints: export PIP_BUILD_CONSTRAINT :=
constraints:
	rm -rf .venv-pins
	$(PYTHON) -m venv .venv-pins
	.venv-pins/bin/python -m pip install -q -e ".[dev,docs,static]" hatchling editables \
		"$$(grep '^torch==' constraints.txt)"
	{ sed -n '/^#/p' constraints.txt; \
	  .venv-pins/bin/python -m pip freeze --all --exclude pip --exclude-editable | sed 's/+cpu$$//'; } > .venv-pins/pins
	mv .venv-pins/pins constraints.txt
	rm -rf .venv-pins

clean:
	rm -rf $(VENV) .venv-ci .venv-package .venv-pins $(OUT) site dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find cotinterp analyses tests benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
