# Two commands do everything on a fresh machine:
#   make figures   set up, run every paper notebook on the embedded data, count the verdicts on the reports' claims
#   make test      set up, run every check
# A third binds what is committed:
#   make book      the notebooks, the library reference and the ledger as pages, in _book/html; nothing is run
PYTHON ?= python3
BIN    := .venv/bin
JOBS   ?= 2  # papers, or processes of tests, at once
STAMP  := .venv/.ready
PYTEST := $(BIN)/python -m pytest -q -n $(JOBS) --dist loadscope --no-loadscope-reorder
# Modules are compiled once, not by each of a hundred processes.
unexport PYTHONDONTWRITEBYTECODE
export PATH := $(CURDIR)/$(BIN):$(PATH)
# One thread for BLAS: more of them wait for each other on small matrices.
export TF_CPP_MIN_LOG_LEVEL ?= 1
export OPENBLAS_NUM_THREADS ?= 1

.PHONY: figures evidence test test-fast test-bounds test-jax lint types book overview papers detector export lab clean-check

figures: $(STAMP)
	$(BIN)/deepfake-nb run --profile quick --jobs $(JOBS)

# Every check: notebooks, tests, the JAX pass and the papers at `smoke` in one pool of processes.
test: $(STAMP)
	$(PYTEST) --durations=25

# Form, rules and words; nothing is changed.
lint: $(STAMP)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/codespell

# Types of the library, by pyright's basic rules.
types: $(STAMP)
	$(BIN)/basedpyright

# For every save: nothing that trains, renders or runs a notebook.
test-fast: $(STAMP)
	$(PYTEST) -m "not slow"

# The wheel with the lowest and the latest versions that settings.ini allows, and its core without TensorFlow, each in a new environment.
test-bounds: $(STAMP)
	$(BIN)/python tests/bounds.py .bounds

# The papers at `smoke` on JAX, with faces found by YuNet.
test-jax: $(STAMP)
	KERAS_BACKEND=jax $(BIN)/deepfake-nb run --profile smoke --jobs $(JOBS) -p face_detector=yunet --out runs/jax

book: $(STAMP)
	$(BIN)/python nbs/book/build.py

# Notebooks clean, library in step with the notebooks, README in step with the index.
clean-check: $(STAMP)
	$(BIN)/python tests/in_step.py

# Run the papers at `quick` and bring their outputs back into nbs/papers; count their verdicts anew in the README and its picture.
papers: $(STAMP)
	$(BIN)/python -c "from deepfake_nb.runs.evidence import make_papers; make_papers(jobs=$(JOBS))"
	$(BIN)/nbdev_clean --fname nbs/papers
	$(BIN)/python tests/in_step.py --write
	$(BIN)/python nbs/book/overview.py

# Train the detector in the package on rendered people; score the real datasets under DEEPFAKE_NB_DATA with it, for its card.
detector: $(STAMP)
	$(BIN)/python -c "import deepfake_nb as dnb; dnb.train_detector('deepfake_nb/_detector', 'synthetic-faces', 'localiser', options={'identities': 480, 'videos': 1, 'frames': 4}, size=96, epochs=12, limit=3000, seed=0, half=True, elsewhere='dfdc-faces+uadfv+faceforensics')"

# Run the papers on the real datasets under DEEPFAKE_NB_DATA; keep their scores, numbers and verdicts in nbs/papers/evidence.
evidence: $(STAMP)
	$(BIN)/python -c "from deepfake_nb.runs.evidence import make_evidence; make_evidence()"

# The picture of the README, nbs/overview.png, from rendered data and the ledgers of nbs/papers.
overview: $(STAMP)
	$(BIN)/python nbs/book/overview.py

# After a change to a notebook: clean it, write the library and the README anew.
export: $(STAMP)
	$(BIN)/python tests/in_step.py --write

lab: $(STAMP)
	$(BIN)/jupyter lab nbs

$(STAMP): requirements.lock settings.ini setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"Python 3.11 to 3.13 is needed, this is {v[0]}.{v[1]}; set PYTHON=python3.12, say")'
	@$(PYTHON) -c 'import ctypes, sys; missing = []; exec("for n in (\"libGL.so.1\", \"libglib-2.0.so.0\"):\n try: ctypes.CDLL(n)\n except OSError: missing.append(n)"); sys.exit(f"OpenCV needs {missing}: apt-get install libgl1 libglib2.0-0, or what your system calls them" if missing and sys.platform == "linux" else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
