# Every target sets up what it needs in a virtual environment: `make demo` the package, the others the development tools too.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
RUN_DIR ?= runs/demo

.PHONY: help setup demo weights test numerics soak check format bench-check
help:
	@echo "make demo    pretrain on generated images, evaluate, write $(RUN_DIR)/report.html (minutes on two cores)"
	@echo "make weights train our small encoders and write them into weights/ (under an hour on two cores)"
	@echo "make test    run the tests;  make numerics  the numerical ones under other roundings"
	@echo "make soak    run long repetitions of what the tests check once"
	@echo "make check   lint, format and types: report;  make bench-check  the cost of a step: within its bounds"
	@echo "make format  lint and format: fix"
	@echo "make setup   install the package and the development tools into $(VENV)"

setup: $(VENV)/.dev

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
	  [ "$$(id -u)" = 0 ] && apt-get update && apt-get install -y python3-venv && $(PYTHON) -m venv $(VENV); } || \
	  { echo "the venv module is missing; run: sudo apt-get install python3-venv"; exit 1; }

$(VENV)/.installed: pyproject.toml | $(BIN)/pip
	$(PIP) -e .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/pip
	$(PIP) -e ".[dev]"
	@touch $(VENV)/.installed $@

# DEMO adds settings, such as DEMO="steps=100 data.scenes.train=4000" to try it on a slow machine.
demo: $(VENV)/.installed
	$(BIN)/python -m jepa.launch --modality image --run-dir $(RUN_DIR) --processes auto probe.every=600 $(DEMO)

# WEIGHTS names some of them, such as demo-image. WEIGHTS_STEPS trains for fewer steps, to try the commands.
weights: $(VENV)/.installed
	$(BIN)/python -m benchmarks.weights $(WEIGHTS) $(if $(WEIGHTS_STEPS),--steps $(WEIGHTS_STEPS))

# Three files at a time, the longest first, as tests of SLURM mostly wait; one thread a process, as threads that wait
# for a busy core are slow.
test: export OMP_NUM_THREADS ?= 1
test: setup
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

# The tests of numerical code once more under the roundings of an old processor and two threads.
NUMERICAL := tests/test_transformer.py tests/test_encoder.py tests/test_predictor.py tests/test_loss.py tests/test_model.py \
  tests/test_positions.py tests/evaluate/probes tests/evaluate/test_evaluate.py tests/evaluate/test_forecast.py
numerics: export OMP_NUM_THREADS = 2
numerics: export MKL_CBWR = COMPATIBLE
numerics: export ATEN_CPU_CAPABILITY = default
numerics: export ONEDNN_MAX_CPU_ISA = SSE41
numerics: setup
	$(BIN)/python -m pytest $(NUMERICAL)

soak: export OMP_NUM_THREADS ?= 1
soak: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile -m soak

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench-check: setup
	$(BIN)/python -m benchmarks.check

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
