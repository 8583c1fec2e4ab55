# make setup: everything that development, the demo and the tests need, in .venv, and PYNQ for its tests in .venv-pynq
# make demo:  the main job on real images, with a report        make test: every check        make test-fast: those that are quick
# make test-nightly: what takes too long for make test, and random cases for FUZZ_SECONDS each
# make plain: the built wheel in an environment without extras, a minute or two
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYNQ_VENV := .venv-pynq
PYNQ_READY := $(PYNQ_VENV)/.ready
# Boards have Python 3.10: their code is tested with it where there is one.
PYTHON310 := $(firstword $(wildcard $(HOME)/.pyenv/versions/3.10*/bin/python3.10 /usr/bin/python3.10 /usr/local/bin/python3.10) $(shell command -v python3.10))
PYNQ_PYTHON ?= $(or $(PYTHON310),$(PYTHON))

.PHONY: setup demo docs test pytest test-fast test-nightly plain lint format bench synth clean

setup: $(READY) $(PYNQ_READY)

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[test,demo]'
	touch $(READY)

$(PYNQ_READY): tests/pynq-requirements.txt
	$(PYNQ_PYTHON) -m venv $(PYNQ_VENV)
	$(PYNQ_VENV)/bin/python -m pip install -q --disable-pip-version-check -r tests/pynq-requirements.txt
	touch $(PYNQ_READY)

demo: $(READY)
	rm -rf build/demo
	mkdir -p build
	$(BIN)/edgemoe demo -o build/demo

# No compiler, no Verilator, no browser, and nothing that takes long.
test-fast: $(READY)
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m 'not browser and not compile and not rtl and not slow and not nightly'

test: lint pytest

# The tests of a file in one process: what they share is made once.
pytest: $(READY) $(PYNQ_READY)
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

FUZZ_SECONDS ?= 300
FUZZ_SEED ?= 1
FUZZ_TARGETS := designs "designs --csim" files host accelerators

# All of it, whatever fails first.
test-nightly: $(READY)
	status=0; \
	for target in $(FUZZ_TARGETS); do \
		$(BIN)/python scripts/fuzz.py $$target --seed $(FUZZ_SEED) --seconds $(FUZZ_SECONDS) || status=1; \
	done; \
	$(BIN)/python -m pytest -q -n 2 -m nightly || status=1; \
	$(BIN)/python scripts/mutate_rtl.py --count 20 --seed $(FUZZ_SEED) || status=1; \
	$(BIN)/python scripts/soak_host.py || status=1; \
	exit $$status

plain: $(READY)
	$(BIN)/python scripts/check_plain_install.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python scripts/lint_rtl.py

# The documentation as a site, in build/site, with the reports that it shows: minutes the first time.
docs: $(READY)
	$(BIN)/python scripts/build_reports.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python scripts/bench_pysim.py
	$(BIN)/python scripts/bench_host.py
	$(BIN)/python scripts/bench_import.py
	$(BIN)/python scripts/bench_evaluate.py

# Minutes the first time, in which Yosys compiles itself.
synth: setup
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[synth]'
	$(BIN)/python scripts/synth_rtl.py

clean:
	rm -rf $(VENV) $(PYNQ_VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
