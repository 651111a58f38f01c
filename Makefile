# The two commands: `make demo` and `make test`. Both set everything up from nothing.
#
#   VENV=path      the environment to use, made if it is not there (default: .venv in the checkout);
#                  one that has what requirements.txt asks for is left as it is
#   PYTHON=python  the interpreter to make it with, 3.10 or newer
#   WORKERS=2      processes that share the tests; 0: one, without pytest-xdist

VENV ?= .venv
PYTHON ?= python3
WORKERS ?= 2
PY := $(VENV)/bin/python
DEMO := runs/toys
BENCH := runs/bench

# one thread per process: the pictures of tests are tiny
TEST := OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS)

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow lint bench clean setup

help:
	@echo "make demo       train on the embedded Toys data; render, film and mesh the result"
	@echo "make test       lint, type check, and every test but the slow ones"
	@echo "make test-slow  the slow tests alone"
	@echo "make lint       ruff and pyright"
	@echo "make bench      ours against the plain reference on this machine, about half an hour: lines of JSON"
	@echo "make clean      remove the environment and the caches, never a run"

# Five sides of eight figures, and once around each; an interrupted demo goes on where it stopped.
demo: setup
	$(PY) train.py --output_dir $(DEMO) --sample_interval 200 --eval_freq 400 \
		$(if $(wildcard $(DEMO)/generator.pth),--load_dir $(DEMO),\
		--curriculum $$($(PY) -c 'import torch; print("ToysGPU" if torch.cuda.is_available() else "Toys")'))
	$(PY) render_multiview_images.py $(DEMO) --seeds 0-7 --psi 0.8 --image_size 64 --ray_step_multiplier 3 \
		--yaws -2.513 -1.257 0 1.257 2.513 --output_dir $(DEMO)/views
	$(PY) render_multiview_images.py $(DEMO) --seeds 0-7 --psi 0.8 --image_size 64 --ray_step_multiplier 3 \
		--turnaround 12 --output_dir $(DEMO)/turnaround
	$(PY) render_video.py $(DEMO) --seeds 0-3 --grid 4x1 --psi 0.8 --image_size 96 --ray_step_multiplier 3 \
		--trajectory orbit --num_frames 36 --pitch 1.2 --output_dir $(DEMO)/video
	$(PY) extract_shapes.py $(DEMO) --seed 0 --psi 0.8 --format ply glb --preview --output_dir $(DEMO)/shapes
	$(PY) plot_metrics.py $(DEMO)
	@echo "look at $(DEMO)/views/overview.png, $(DEMO)/turnaround/overview.png, $(DEMO)/video/grid.mp4,"
	@echo "$(DEMO)/shapes/0.png, $(DEMO)/metrics.png, $(DEMO)/samples"

test: lint
	$(TEST)

test-slow: setup
	$(TEST) -m "slow and not gpu"

lint: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pyright --pythonpath $(PY)

# Fitted fields come first: an untrained one says nothing of empty space.
bench: setup $(BENCH)/fitted_wall/generator.pth $(BENCH)/fitted_object/generator.pth
	@set -e; for what in "field --compile_reference" "train_step --batch_size 1" \
		"train_step --batch_size 1 --run $(BENCH)/fitted_wall" \
		"picture $(BENCH)/fitted_wall --seeds 0 --views 2" \
		"proposal $(BENCH)/fitted_wall --seeds 0 --rounds 1" \
		"shapes $(BENCH)/fitted_object --psi 1 --voxel_resolution 128 --no_warm_up" \
		dataloader memory; do \
		set -- $$what; script=$$1; shift; \
		echo "benchmarks/$$script.py $$*"; \
		OMP_NUM_THREADS=1 PYTHONPATH=. $(PY) benchmarks/$$script.py "$$@" > $(BENCH)/last.jsonl; \
		cat $(BENCH)/last.jsonl | tee -a $(BENCH)/results.jsonl; \
	done; rm $(BENCH)/last.jsonl
	@echo "all lines are in $(BENCH)/results.jsonl"

$(BENCH)/fitted_wall/generator.pth: | setup
	PYTHONPATH=. $(PY) benchmarks/fitted.py --output_dir $(@D)

$(BENCH)/fitted_object/generator.pth: | setup
	PYTHONPATH=. $(PY) benchmarks/fitted.py --output_dir $(@D) --object

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Without the venv module's ensurepip (Debian splits it off), the interpreter's own pip steps in.
# torch and torchvision go first and together, so that one resolution picks builds that match.
setup: $(PY)
	@why=$$($(PY) .ci/requirements_met.py requirements.txt 2>&1) || { \
		echo "setting up $(VENV): $$why"; \
		$(PY) -m pip install $$(grep -E '^torch(vision)?[^a-z]' requirements.txt) && \
		$(PY) -m pip install -r requirements.txt; }

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and \
		f"PeriGAN needs Python 3.10 or newer, {sys.executable} is {sys.version.split()[0]}")'
	$(PYTHON) -m venv $(VENV) || { \
		$(PYTHON) -m venv --clear --without-pip $(VENV) && \
		$(PYTHON) -m pip --python $(PY) install pip; }
