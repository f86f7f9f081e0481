# Every target works on a fresh machine with Python 3.10 or later, pip and make. Environments are made on first use and
# kept; a second run starts at once. To use another package index, set pip's own variables (PIP_INDEX_URL and so on).

PYTHON ?= python3
VENV ?= .venv
# Judged sets for `make quality`, and training sets for `make models`: folders in BEIR layout, kept outside the project.
DATA ?=
# More arguments for what `make quality` and `make bench` run: ARGS="--sets scifact --sweep".
ARGS ?=

# Pinned so that pip keeps to one known build. On an index that offers the CPU build it takes 200 MB; elsewhere on Linux
# pip may choose a build with several GB of GPU libraries: PyTorch's own page tells how to get the CPU build.
TORCH := torch==2.13.0
# Only the parity tests need it: the shipped models must give the same order there as here.
PARITY := sentence-transformers>=5
# The version that torch 2.13 names. Its interpreter and its compiler need no card, so that the GPU engine's kernels are
# tested everywhere that has it; where an index has none, these tests are skipped.
TRITON := triton==3.7.1
# Without pyterrier, which adds 120 MB (pandas, statsmodels, lxml): after `.venv/bin/python -m pip install pyterrier` its tests
# run, too, and are skipped before.
EXTRAS := search,server,telemetry,torch,eval,llama-index,langchain,haystack,mcp,llm,train,postgres,qdrant,opensearch,elasticsearch,test,server-test,lint

CODE := src tests scripts recipes benchmarks
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
WORK := recipes/work
RECIPES_INSTALLED := .venv-recipes/.installed
# What `fast` and `tiny` learn from: `small`, the start model and `late`, which are in the package by then.
TAUGHT := --scale 2.3 --similarity 10 --late 1 --queries 17000 --topical 8 --keywords 13 --candidates 9 --tokens 160 --keep 250
# All layers of `small` but the last, with a third of their feed-forward units; and three layers of that, with a quarter.
FAST := --begin small --layers 0 1 2 3 4 --units 512 --rate 1.5e-4 $(TAUGHT)
TINY := --begin fast --layers 0 1 4 --units 384 --rate 2e-4 $(TAUGHT)

# Nothing here may talk to a model hub: tests, demo and measurements use the models in the package.
export HF_HUB_OFFLINE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Images of containers set it. Each of the many processes that the tests start would compile some 1,300 modules of torch
# and transformers again: half of the 18 seconds of a core that a short `crossrank tune` takes.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test lint format native bench wheel quality models tiny clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*##/  make \1\t/p' $(MAKEFILE_LIST)

demo:  ## search Python's own documentation, with the ranking before and after reranking
	$(PYTHON) scripts/demo.py

# A process for each core, so libraries that start a thread for each would only take turns.
test: lint  ## everything that must hold before a change is merged: lint, types, tests
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

lint: $(INSTALLED)  ## style and types
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy

format: $(INSTALLED)  ## rewrite the code in the project's style
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

native:  ## compile the native engine again after a change, beside the Python sources
	cmake -S native -B build/native -DCROSSRANK_IN_PLACE=ON
	cmake --build build/native --parallel

bench: $(INSTALLED)  ## how fast is this install on this machine: make bench ARGS="--backend reference"
	$(BIN)/crossrank bench $(ARGS)

wheel:  ## build the wheel for Linux into dist/
	PYTHON=$(PYTHON) scripts/wheel.sh

quality: $(INSTALLED)  ## measure every stage on judged sets: make quality DATA=FOLDER
	@test -n "$(DATA)" || { echo "Which judged sets? make quality DATA=FOLDER, one set a subfolder" >&2; exit 2; }
	$(BIN)/python benchmarks/quality.py $(DATA) --cache .quality $(ARGS)

models: $(RECIPES_INSTALLED)  ## train the models in the package again: make models DATA=FOLDER
	@test -n "$(DATA)" || { echo "Which training sets? make models DATA=FOLDER, one set a subfolder" >&2; exit 2; }
	.venv-recipes/bin/python recipes/groups.py $(DATA) $(WORK)
	.venv-recipes/bin/python recipes/train_reranker.py $(WORK) --to $(WORK)/reranker --queries 24000
	.venv-recipes/bin/python recipes/topical.py $(DATA) $(WORK)
	.venv-recipes/bin/python recipes/keywords.py $(WORK) --queries 2600
	.venv-recipes/bin/python recipes/train_embedder.py $(WORK) --to $(WORK)/embedder --queries 1280
	.venv-recipes/bin/python recipes/package.py $(WORK) --rerankers small=$(WORK)/reranker \
		--embedder $(WORK)/embedder/averaged --trained-on 24000 --thresholds small=0.1
	.venv-recipes/bin/python recipes/train_late.py $(WORK) --to $(WORK)/late --queries 3200 --topical 4 --tokens 128 --scale 2.3 \
		--similarity 12
	.venv-recipes/bin/python recipes/package.py $(WORK) --late $(WORK)/late
	.venv-recipes/bin/python recipes/distil.py $(WORK) --to $(WORK)/fast $(FAST)
	.venv-recipes/bin/python recipes/average.py $(WORK)/fast --last 2 --to $(WORK)/fast/averaged
	.venv-recipes/bin/python recipes/package.py $(WORK) --rerankers fast=$(WORK)/fast/averaged --trained-on 17000 --thresholds fast=0.1
	.venv-recipes/bin/python recipes/distil.py $(WORK) --to $(WORK)/tiny $(TINY)
	.venv-recipes/bin/python recipes/average.py $(WORK)/tiny --last 2 --to $(WORK)/tiny/averaged
	.venv-recipes/bin/python recipes/package.py $(WORK) --rerankers tiny=$(WORK)/tiny/averaged --trained-on 17000 --thresholds tiny=0.1

tiny: $(RECIPES_INSTALLED)  ## train `tiny` alone again, from the others in the package: make tiny DATA=FOLDER
	@test -n "$(DATA)" || { echo "Which training sets? make tiny DATA=FOLDER, one set a subfolder" >&2; exit 2; }
	.venv-recipes/bin/python recipes/groups.py $(DATA) $(WORK) --passages 5000
	.venv-recipes/bin/python recipes/topical.py $(DATA) $(WORK)
	.venv-recipes/bin/python recipes/keywords.py $(WORK) --queries 2600
	.venv-recipes/bin/python recipes/distil.py $(WORK) --to $(WORK)/tiny $(TINY)
	.venv-recipes/bin/python recipes/average.py $(WORK)/tiny --last 2 --to $(WORK)/tiny/averaged

clean:  ## remove environments and caches
	rm -f src/crossrank/backends/cpu/libcrossrank.* src/crossrank/backends/cpu/crossrank.dll
	rm -rf .venv .venv-demo .venv-recipes .quality .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist

# --no-compile: most of what is installed is never imported, and Python compiles the rest as it is.
# Where there is a compiler, an engine that does not compile is an error, and not an install without it.
COMPILER := $(shell command -v "$${CXX:-c++}" || command -v g++ || command -v clang++)
$(INSTALLED): pyproject.toml Makefile $(wildcard native/*)
	$(PYTHON) -m venv $(VENV)
	CROSSRANK_REQUIRE_NATIVE=$(if $(COMPILER),1,0) $(BIN)/python -m pip install --quiet --no-compile "$(TORCH)" "$(PARITY)" --editable ".[$(EXTRAS)]"
	$(BIN)/python -m pip install --quiet --no-compile "$(TRITON)" || echo "no Triton: the tests of its kernels are skipped" >&2
	touch $@

$(RECIPES_INSTALLED): pyproject.toml Makefile
	$(PYTHON) -m venv .venv-recipes
	.venv-recipes/bin/python -m pip install --quiet --no-compile "$(TORCH)" --editable ".[recipes]"
	touch $@
