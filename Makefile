# The two commands are `make lab` and `make test`; each builds the environment first if there is none.
# Needs Python >= 3.11, make and git. Another interpreter: make test PYTHON=python3.13

$(if $(filter-out Makefile ./Makefile,$(lastword $(MAKEFILE_LIST))),$(error run it where it lies: make -C $(dir $(lastword $(MAKEFILE_LIST))) $(MAKECMDGOALS)))

# an environment that is there stays, unless another interpreter is named
PYTHON ?= $(if $(wildcard .venv/bin/python),.venv/bin/python,python3)
BIN := .venv/bin
PYTHON_VERSION := $(shell $(PYTHON) -c 'import platform; print(platform.python_version())' 2>/dev/null)
$(if $(PYTHON_VERSION),,$(error $(PYTHON) does not run. Name an interpreter, 3.11 or newer: make $(MAKECMDGOALS) PYTHON=python3.12))
INSTALLED := .venv/.installed-$(PYTHON_VERSION)
PLATFORM ?= cpu
NOTEBOOKS := $(wildcard notebooks/*.ipynb)
QUICK := $(addprefix tests/,test_layout.py test_data.py test_spectra.py \
	bounds/test_hermite.py bounds/test_limiting.py bounds/test_empirical.py bounds/test_features.py \
	lab/test_exponents.py lab/test_claims.py lab/test_plotting.py lab/test_live.py)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# as the package sets it, but before NumPy is imported: two OpenBLAS in a process slow each other
export OPENBLAS_THREAD_TIMEOUT ?= 20
# what is imported is compiled once: the installation leaves it to the first import
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help lab test test-quick reproduce execute clean-notebooks figure2 bombari22 book neural-tangents-suite bench lint lock clean .venv

help: ## list the targets
	@awk -F ':.*## ' '/^[.a-z0-9-]+:.*## / { printf "make %-21s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# compiled programs are kept: a notebook that is run again does not wait for the same ones
lab reproduce figure2 bombari22: export JAX_COMPILATION_CACHE_DIR := $(CURDIR)/build/compiled
lab reproduce figure2 bombari22: export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS := 0

lab: .venv ## open JupyterLab on the first notebook (more options: LAB_FLAGS="--no-browser")
	@[ "$$(id -u)" != 0 ] || case "$(LAB_FLAGS)" in *--allow-root*) ;; *) echo 'as root, JupyterLab wants to be told: make lab LAB_FLAGS="--allow-root"'; exit 1;; esac
	@echo "JupyterLab shows $(CURDIR); if no browser opens, open the address that it prints. Stop it here with Ctrl-C."
	$(BIN)/jupyter lab --ServerApp.root_dir="$(CURDIR)" --LabApp.default_url=/lab/tree/notebooks/00-start-here.ipynb $(LAB_FLAGS)

test: .venv ## run every check: unit tests, doctests, all notebooks against their stored outputs, coverage
	JAX_PLATFORMS=cpu OPENBLAS_NUM_THREADS=1 TQDM_DISABLE=1 $(BIN)/pytest --numprocesses 2 --dist loadscope --cov=ntk_utils --cov-config=pyproject.toml $(PYTEST_FLAGS)

test-quick: .venv ## run the unit tests of data, bounds and claims alone: a minute or two
	JAX_PLATFORMS=cpu OPENBLAS_NUM_THREADS=1 $(BIN)/pytest --quiet --numprocesses 2 $(QUICK)

reproduce: .venv ## execute all notebooks headless into build/, print a line a claim (SEEDS="0 1 2" for other draws)
	$(BIN)/python -m ntk_utils.lab.reproduce $(if $(SEED)$(SEEDS),--seeds $(SEED) $(SEEDS) --) $(NOTEBOOKS)

execute: .venv ## re-execute the notebooks in place and store their outputs (NOTEBOOKS=... for some)
	JAX_PLATFORMS=cpu OPENBLAS_NUM_THREADS=1 TQDM_DISABLE=1 $(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False $(NOTEBOOKS)
	$(BIN)/python -m ntk_utils.lab.stored $(NOTEBOOKS)
	$(BIN)/python -m ntk_utils.lab.reproduce --first-figure notebooks/data/overview.png notebooks/00-start-here.ipynb

clean-notebooks: .venv ## undo what JupyterLab adds to a notebook that is only opened and saved
	$(BIN)/python -m ntk_utils.lab.stored $(NOTEBOOKS)

# one thread a process: two trials side by side are done sooner than one after the other. And glibc
# gives large arrays back at once: by itself it keeps a gigabyte of them in each process
MEASURE = MALLOC_ARENA_MAX=1 MALLOC_MMAP_THRESHOLD_=1048576 MALLOC_TRIM_THRESHOLD_=1048576 JAX_PLATFORMS=$(PLATFORM) OPENBLAS_NUM_THREADS=1 XLA_FLAGS=--xla_cpu_multi_thread_eigen=false $(BIN)/python -m

figure2: .venv ## measure both panels of Figure 2 of arXiv:2012.11654, resumable: hours on two cores (TRIALS=2 for a look)
	$(MEASURE) ntk_utils.figure2 $(if $(TRIALS),--trials $(TRIALS))

bombari22: .venv ## measure Figures 1 and 2 of arXiv:2205.10217, resumable: half an hour on two cores (TRIALS=2 for a look)
	$(MEASURE) ntk_utils.bombari22 $(if $(TRIALS),--trials $(TRIALS))

book: .venv ## build the site of all notebooks into build/site: offline, from their stored outputs, in a minute
	JAX_PLATFORMS=cpu $(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --fresh-env --conf-dir book . build/site
	@echo "The start page is build/site/index.html"

neural-tangents-suite: .venv ## run neural-tangents' own tests through compat (NEURAL_TANGENTS=<checkout of v0.6.5>): about an hour
	$(BIN)/python tests/upstream.py $(or $(NEURAL_TANGENTS),$(error name a checkout of neural-tangents v0.6.5: make neural-tangents-suite NEURAL_TANGENTS=../neural-tangents)) $(FILES)

bench: .venv ## measure the speed of core and notebooks, as ratios within one run (PLATFORM=cuda on a GPU)
	JAX_PLATFORMS=$(PLATFORM) $(BIN)/pytest tests/benchmarks tests/browser --override-ini python_files='bench_*.py' --override-ini addopts= --benchmark-disable-gc --benchmark-columns min,median,rounds -s

lint: .venv ## check style and formatting of code and notebooks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

lock: .venv ## write requirements.lock anew from pyproject.toml (LOCK_FLAGS=--upgrade for newer versions)
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make lock" $(LOCK_FLAGS) --output-file requirements.lock --quiet

.venv: $(INSTALLED) ## build the environment alone

# neural-tangents asks for TensorFlow, which nothing here uses: the lock leaves it out, and --no-deps respects that
$(INSTALLED): requirements.lock
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python >= 3.11 is needed, $(PYTHON) is " + sys.version.split()[0] + ". Name another one: make PYTHON=python3.12")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --no-compile --no-deps --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/jupyter labextension disable --level=sys_prefix @jupyterlab/apputils-extension:announcements >/dev/null 2>&1
	touch $@

clean: ## remove the environment and everything that was built
	rm -rf .venv build .pytest_cache .ruff_cache .benchmarks .coverage
