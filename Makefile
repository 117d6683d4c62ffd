# The README's two commands: `make demo` and `make test`. Both make .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# What is installed is compiled when it is first imported: all of it at once would take as long as the installation.
# So it must be kept where it is: without, every process that imports torch and transformers takes twice as long.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt

.PHONY: demo test lint types unit kernel full-size ray audio-campaign app-check docs reproduce-quick benchmark gpu clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Spectrim needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Name another with: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch --editable '.[test,synthesis]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/spectrim demo

test: lint types unit

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# On a busy machine mypy's workers may not start in time; alone it needs none.
types: $(VENV)/.installed
	$(BIN)/mypy --num-workers auto || $(BIN)/mypy

# A process a processor, each with its half of the tests in their order; one that is done takes from the other's end.
# What takes long to make they share: tests/helpers/shared.py. Alone, a test needs none of this:
# .venv/bin/python -m pytest tests/audio/test_files.py
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist worksteal

unit: $(VENV)/.installed
	$(PYTEST)

# The GPU kernel, in Triton's interpreter and as machine code. Triton, 286 MB, is not in CPU builds of torch.
kernel: $(VENV)/.installed
	$(PIP) --editable '.[kernel]'
	SPECTRIM_FULL_SIZE=1 $(PYTEST) tests/pruning/kernels tests/benchmarks/test_gpu_benchmark.py

# Heavier checks, run by hand and recorded.
full-size: $(VENV)/.installed
	SPECTRIM_FULL_SIZE=1 $(PYTEST)

# Tagging on a Ray cluster: two machines of Ray on this one, of which an actor and a machine are killed on the way.
ray: $(VENV)/.installed
	$(PIP) --editable '.[ray]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/inference/test_ray_engine.py

# 20,000 damaged sound files against independent decoders; five minutes on one core.
audio-campaign: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet miniaudio==1.71
	$(BIN)/python benchmarks/audio_mutants.py --seed 0 --json benchmarks/results/audio_mutants_seed0.json
	$(BIN)/python benchmarks/audio_mutants.py --seed 1 --json benchmarks/results/audio_mutants_seed1.json

# The page of `spectrim app` in a browser that is installed already: CHROMIUM=... where it is not found by itself.
app-check: $(VENV)/.installed
	$(PIP) --editable '.[app]' playwright
	$(BIN)/python tests/app/browser_check.py $(if $(CHROMIUM),--chromium $(CHROMIUM))

# The documentation as a site: build/site/index.html. Fails on a link to nothing. Search in it needs a server, such as
# .venv/bin/python -m http.server --directory build/site --bind 127.0.0.1
docs: $(VENV)/.installed
	$(PIP) --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

reproduce-quick: $(VENV)/.installed
	$(BIN)/spectrim reproduce --quick build/reproduce-quick

# On a machine that does nothing else; REFERENCE and LIBRARIES: see benchmarks/peers/reference.py.
benchmark: $(VENV)/.installed
	$(BIN)/python benchmarks/speed.py --json benchmarks/results/speed.json $(if $(REFERENCE),--reference $(REFERENCE) --libraries $(LIBRARIES))
	$(BIN)/python benchmarks/methods.py --json benchmarks/results/methods.json
	$(BIN)/python benchmarks/files.py --json benchmarks/results/files.json
	$(BIN)/python benchmarks/files.py --cases ast-10s ast-1s --exported onnxruntime:int8 openvino:int8 \
		--json benchmarks/results/files_exported.json
	$(BIN)/python benchmarks/frontend.py --json benchmarks/results/frontend.json
	$(BIN)/python benchmarks/where_time_goes.py --json benchmarks/results/where_time_goes.json
	$(BIN)/python benchmarks/long_recording.py --json benchmarks/results/long_recording.json
	$(BIN)/python benchmarks/export.py --models spectrim-mini --json benchmarks/results/export.json
	$(BIN)/python benchmarks/kendall.py --rows 1 12 96 1536 --json benchmarks/results/kendall.json
	$(BIN)/python benchmarks/pretraining.py --json benchmarks/results/pretraining.json
	$(if $(wildcard ../shared/data/kwt-1),$(BIN)/python benchmarks/kwt.py --data ../shared/data/arabic-speech-commands \
		--weights ../shared/data/kwt-1/kwt1.tflite --json benchmarks/results/kwt.json)
	$(if $(wildcard ../shared/data/esc-10),$(BIN)/python benchmarks/audio_cache.py ../shared/data/esc-10 \
		--json benchmarks/results/audio_cache.json)
	$(BIN)/python benchmarks/tables.py

# On a machine with an NVIDIA GPU and a build of torch for it; less than ten minutes.
gpu: $(VENV)/.installed
	$(BIN)/python benchmarks/gpu.py --json benchmarks/results/gpu.json

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
