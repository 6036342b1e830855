# make demo: the whole line on an invented hospital, ending with a report.   make test: the tests.
PYTHON ?= python3
BIN := .venv/bin
FLEXCARE := $(BIN)/flexcare
DEMO := demo
# The network of all questions; the question that needs film and note together, asked alone; and
# all questions from one modality at a time.
BESIDE := alone series film note
TRAIN = OMP_NUM_THREADS=1 $(FLEXCARE) train $(DEMO)/store --config runs/demo.toml --out

.PHONY: demo demo-runs test check clean together $(BESIDE)

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	    --editable '.[dev,text,minilm,tensorboard]'
	touch $@

demo: .venv/installed
	rm -rf $(DEMO)
	$(FLEXCARE) simulate --subjects 2000 --seed 0 --out $(DEMO)/hospital
	$(FLEXCARE) prepare synthetic $(DEMO)/hospital --out $(DEMO)/store
	$(MAKE) --no-print-directory --jobs 2 together $(BESIDE)
	$(FLEXCARE) report $(DEMO)/together $(BESIDE:%=--beside $(DEMO)/%) --question readmission

together:
	$(TRAIN) $(DEMO)/$@
	$(FLEXCARE) evaluate $(DEMO)/$@

alone:
	$(TRAIN) $(DEMO)/$@ --tasks readmission 2> $(DEMO)/$@.log
	$(FLEXCARE) evaluate $(DEMO)/$@ --no-baselines >> $(DEMO)/$@.log

series film note: alone
	$(TRAIN) $(DEMO)/$@ --modalities $@ 2> $(DEMO)/$@.log
	$(FLEXCARE) evaluate $(DEMO)/$@ --no-baselines >> $(DEMO)/$@.log

test: .venv/installed
	$(BIN)/python -m pytest

check: .venv/installed
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2

clean:
	rm -rf $(DEMO) .venv build dist
