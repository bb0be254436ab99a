# make demo    everything once on simulated recordings; ends with the report's path
# make test    ruff, mypy and the tests; what .ci/run runs
# make bench NAME=ensemble    ratios against peers and limits, one bench
# make docs    the pages of docs/ as a site, in site/
# make clean   removes what make made
#
# PYTHON=...   the Python (3.11 or newer) that makes the environment
# VENV=...     an environment to use instead of .venv; if it holds a torch, that torch stays

PYTHON ?= $(firstword $(foreach name,python3.11 python3 python,$(shell command -v $(name))))
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
MADE := $(VENV)/.made-by-make
INSTALLED := $(VENV)/.hms-ray-installed
PINS := $(VENV)/.hms-ray-constraints.txt
TORCH := torch|torchvision|triton|nvidia-.*|cuda-.*

DEMO_DATA := demo_data
REPORT := reports/demo/index.html

.PHONY: demo install test lint format docs bench clean

demo: $(INSTALLED) $(DEMO_DATA)/train.csv
	$(BIN)/hms-ray search --space demo --data $(DEMO_DATA)
	$(BIN)/hms-ray predict --study runs/demo --data $(DEMO_DATA) --out submission.csv
	@echo "report: $(REPORT)"

$(DEMO_DATA)/train.csv: | $(INSTALLED)
	$(BIN)/hms-ray simulate $(DEMO_DATA) --eegs 360 --patients 80 --seed 0

install: $(INSTALLED)

# Tests start many processes: none compiles the package again, where the environment asks for no bytecode.
test: export PYTHONDONTWRITEBYTECODE :=
test: lint
	$(BIN)/python -m pytest -n auto

lint: $(INSTALLED)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

format: $(INSTALLED)
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

docs: $(INSTALLED)
	$(BIN)/python docs/generate_spaces.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "site: site/index.html"

bench: $(INSTALLED)
	$(BIN)/python -m bench $(NAME)

$(BIN)/python:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hms-ray needs Python 3.11 or newer: make PYTHON=...")'
	"$(PYTHON)" -m venv $(VENV)
	@touch $(MADE)

# An environment of our own gets every pin. One that was there before keeps its torch: the pins of torch and its CUDA
# packages give way to the version that it has.
$(INSTALLED): pyproject.toml setup.py constraints.txt | $(BIN)/python
	@if [ ! -e $(MADE) ] && version=$$($(BIN)/python -c 'import torch; print(torch.__version__)' 2>/dev/null); then \
		grep -vE '^($(TORCH))==' constraints.txt > $(PINS); echo "torch==$$version" >> $(PINS); \
	else cp constraints.txt $(PINS); fi
	@echo "installing into $(VENV); a fresh one takes some minutes and, with torch's CUDA packages, 7 GB"
	@$(PIP) install -q -c $(PINS) -e '.[test]'
	@touch $@

clean:
	rm -rf build site *.egg-info .mypy_cache .pytest_cache .ruff_cache $(DEMO_DATA) runs/demo reports/demo submission.csv
	find bench hms_ray tests -name __pycache__ -prune -exec rm -rf {} +
	rm -f $(INSTALLED) $(PINS)
	if [ -e $(MADE) ]; then rm -rf $(VENV); fi
