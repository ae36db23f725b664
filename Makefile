# Two commands on a fresh machine do everything: `make demo` and `make test`.
# PYTHON: the interpreter of the virtual environment; TORCH: what to install as torch, e.g. TORCH="torch==2.14.1 ...";
# WORKERS: processes that share the tests, file by file.

PYTHON ?= python3
TORCH ?= torch>=2.9 torchvision
VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py $(shell find csrc -type f)

.PHONY: demo test slow lint format build clean

demo: build
	$(BIN)/flopcuda validate resnet50 --batch 4 --json build/resnet50.json

# Threads that wait for others would spin on the cores that another worker needs.
test: build
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

slow: build
	$(BIN)/python -m pytest -m slow

lint: build
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files '*.cpp' '*.h' '*.cu' '*.cuh')

format: build
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files '*.cpp' '*.h' '*.cu' '*.cuh')

build: $(VENV)/built

$(VENV)/torch:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install $(foreach requirement,$(TORCH),'$(requirement)') 'setuptools>=77' ninja pybind11
	touch $@

$(VENV)/built: $(VENV)/torch $(SOURCES)
	$(BIN)/pip install --no-build-isolation --editable '.[dev]'
	touch $@

clean:
	rm -rf build flopcuda/*.so flopcuda/kernel_ptx $(VENV)/built
