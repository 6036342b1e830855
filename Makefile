# make demo: the whole line on an invented hospital, ending with a report.   make test: the tests.
# make bench: what we claim about speed, measured here; writes docs/performance.md.
PYTHON ?= python3
BIN := .venv/bin
FLEXCARE := $(BIN)/flexcare
DEMO := demo
# The network of all questions; the question that needs film and note together, asked alone; and
# that question with its teachers from one modality at a time. Two at once, a core each.
BESIDE := alone series film note
ONE := OMP_NUM_THREADS=1 $(FLEXCARE)
TRAIN := $(ONE) train $(DEMO)/store --config runs/demo.toml --out

.PHONY: demo test bench check clean together $(BESIDE)

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	    --editable '.[dev,text,minilm,tensorboard,gradients,tune,aces]'
	touch $@

demo: .venv/installed
	rm -rf $(DEMO)
	$(FLEXCARE) simulate --subjects 2000 --seed 0 --out $(DEMO)/hospital
	$(FLEXCARE) prepare synthetic $(DEMO)/hospital --out $(DEMO)/store
	$(MAKE) --no-print-directory --jobs 2 together $(BESIDE)
	$(FLEXCARE) report $(DEMO)/together $(BESIDE:%=--beside $(DEMO)/%) --question readmission

together:
	$(TRAIN) $(DEMO)/$@
	$(ONE) evaluate $(DEMO)/$@

alone:
	$(TRAIN) $(DEMO)/$@ --tasks readmission 2> $(DEMO)/$@.log
	$(ONE) evaluate $(DEMO)/$@ --no-baselines >> $(DEMO)/$@.log

series film note:
	$(TRAIN) $(DEMO)/$@ --modalities $@ --tasks readmission,diagnosis,phenotyping,drg 2> $(DEMO)/$@.log
	$(ONE) evaluate $(DEMO)/$@ --no-baselines >> $(DEMO)/$@.log

test: .venv/installed
	$(BIN)/python -m pytest

bench: .venv/installed
	$(BIN)/python benchmarks/all.py

check: .venv/installed
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2

clean:
	rm -rf $(DEMO) .venv build dist
