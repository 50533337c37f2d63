PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE ?= 1
export HF_HUB_DISABLE_TELEMETRY = 1
export TOKENIZERS_PARALLELISM = false

CLAIMS ?= realgen flow-grpo adv-grpo skywork-reward-v2 secrets-rlhf-2 reward-topology-tree contrast-instructions polar \
  basereward ixc-2.5-reward rewardbench-2 rewardmath mrmbench remodetect lvis-ap starc one-token-to-fool \
  reward-clip-delta noisy-rewards-rpr self-aligned-reward co-reward fine-grained-rlhf follow-up-likelihood \
  hybrid-multi-aspect regularized-relevance-reward shop-r1 resume-grpo extrans

.PHONY: install demo test test-slow lint claims perf flagship docs clean

# The stamp is newer than the two files that say what to install: a second call does nothing.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "guerdon needs Python 3.11 or newer; set PYTHON=/path/to/python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

install: $(VENV)/.installed

demo: install
	$(BIN)/guerdon run realgen --out runs/demo --overwrite

test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: install
	$(BIN)/python -m pytest -m slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

claims: install
	mkdir -p runs/claims
	for slug in $(CLAIMS); do $(BIN)/guerdon claim $$slug --json | tee runs/claims/$$slug.json; done

perf: install
	for script in perf/bench_*.py; do $(BIN)/python $$script; done

flagship: install
	$(BIN)/python scripts/flagship.py

docs: install
	$(BIN)/python scripts/write_docs.py

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache
