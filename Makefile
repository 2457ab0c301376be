# Two commands that work on a fresh machine with Python 3.11 or 3.12:
#   make demo    restore the clips of datasets/demo, print scores, write pictures to look at
#   make test    lint and the whole test suite
# And make bench: seconds and memory of each stage, beside the path of the published script.
PYTHON ?= python3
unexport PYTHON  # it makes the environment; what runs in there finds its own
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: demo test bench lint format clean

demo: $(INSTALLED)
	$(BIN)/python -m finetune.scripts.demo

# One process a core and one thread each: the networks of the tests are too small for more.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks.restore --output results/benchmark

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(INSTALLED): requirements.txt requirements-pyiqa.txt requirements-curation.txt constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))" || \
		{ echo "Python 3.11 or 3.12 is needed, $(PYTHON) is $$($(PYTHON) -V); use: make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -r requirements.txt -c constraints.txt
	$(BIN)/pip install -q --no-deps -r requirements-pyiqa.txt -r requirements-curation.txt -c constraints.txt
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
