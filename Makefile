# Two commands need nothing else typed, installed or fetched by hand:
#   make demo      make test
# Variables: DATASET, RECIPE, VIDEOS, LABELS, PRETRAIN, MODEL, ON, SCORES, FORMAT, OUT, PHOTOS, CONFIG, BENCH, and ARGS
# for any further option.

PYTHON  ?= $(firstword $(shell command -v python3.11 python3))
DATASET ?= demo
RECIPE  ?= $(DATASET)
FORMAT  ?= h5
SCORES  ?= runs/scores.csv
ARGS    ?=

PICTURES = $(if $(PHOTOS),'$(PHOTOS)') $(if $(VIDEOS),'$(VIDEOS)')

VENV    := .venv
DIFFVQA := $(VENV)/bin/diffvqa

# The environment is up to date when this stamp exists: it is named after what is installed from and which modules there
# are, because an editable installation links each file.
SOURCES := $(sort $(shell find cache pipeline stages -type f -not -path '*/__pycache__/*' -not -name '.*'))
STAMP   := $(VENV)/installed-$(firstword $(shell (cat pyproject.toml constraints.txt; echo $(SOURCES)) | cksum))

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-browser lint types format prepare extract train evaluate sweep score report export pretrain align adapt reconstruct nano bench bench-quality clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP)  ## make .venv with pinned versions; the other targets do this themselves

$(STAMP):
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--config-settings editable_mode=strict --editable '.[demo,dev]'
	rm -f $(VENV)/installed-*
	touch $@

demo: $(STAMP)  ## the whole job on real clips: prepare, extract, train, score, export
	$(DIFFVQA) demo $(ARGS)

test: $(STAMP)  ## run the tests, two files at a time; ARGS=-n0 for one process, or a path for some of them
	$(VENV)/bin/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --durations 10 $(ARGS)

test-browser: $(STAMP)  ## run the tests of the report in a real Chromium, which must be there with its driver
	$(VENV)/bin/python -m pytest tests/browser -m browser $(ARGS)

lint: $(STAMP)  ## check style and formatting
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(STAMP)  ## check types
	$(VENV)/bin/mypy

format: $(STAMP)  ## format the code
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

prepare: $(STAMP)  ## list a data set's videos and scores: DATASET=konvid-1k VIDEOS= [LABELS= RECIPE=csv|folder]
	$(DIFFVQA) prepare $(RECIPE) --name $(DATASET) $(if $(VIDEOS),--videos '$(VIDEOS)') \
		$(if $(LABELS),--labels '$(LABELS)') $(ARGS)

extract: $(STAMP)  ## extract its features, once: DATASET= [MODEL=nano]; with VIDEOS= it prepares first
	$(if $(VIDEOS)$(filter demo,$(DATASET)),@test -f runs/$(DATASET)/manifest.csv || $(MAKE) --no-print-directory prepare ARGS=)
	$(DIFFVQA) extract $(DATASET) $(if $(MODEL),--model '$(MODEL)') $(ARGS)

train: $(STAMP)  ## train the regressor on them: DATASET= [PRETRAIN=data set]; ARGS=--ablate compares its blocks
	$(DIFFVQA) train $(DATASET) $(if $(PRETRAIN),--pretrain $(PRETRAIN)) $(ARGS)

evaluate: $(STAMP)  ## evaluate a trained model on other data sets: MODEL=data set ON='data sets'
	$(DIFFVQA) evaluate --model '$(MODEL)' $(foreach name,$(ON),--on $(name)) $(ARGS)

sweep: $(STAMP)  ## search the training recipe: DATASET=
	$(DIFFVQA) sweep $(DATASET) $(ARGS)

score: $(STAMP)  ## score videos: VIDEOS=path [MODEL=data set] [SCORES=runs/scores.csv]
	$(DIFFVQA) score '$(VIDEOS)' --out '$(SCORES)' $(if $(MODEL),--model '$(MODEL)') $(ARGS)

report: $(STAMP)  ## write everything about a data set and its model into one HTML file: DATASET=
	$(DIFFVQA) report $(DATASET) $(if $(MODEL),--model '$(MODEL)') $(if $(OUT),--out '$(OUT)') $(ARGS)

export: $(STAMP)  ## export its features: DATASET= [FORMAT=h5|npz|parquet OUT=path]
	$(DIFFVQA) export $(DATASET) --format $(FORMAT) $(if $(OUT),--out '$(OUT)') $(ARGS)

pretrain: $(STAMP)  ## train a small diffusion U-Net: PHOTOS=folder [VIDEOS=folder] OUT=folder [CONFIG=recipe.toml]
	$(DIFFVQA) pretrain $(PICTURES) --out '$(OUT)' $(if $(CONFIG),--config '$(CONFIG)') $(ARGS)

align: $(STAMP)  ## have its blocks tell what a CNN sees too: MODEL=folder PHOTOS=folder OUT=folder [CONFIG=recipe.toml]
	$(DIFFVQA) align $(PICTURES) --model '$(MODEL)' --out '$(OUT)' $(if $(CONFIG),--config '$(CONFIG)') $(ARGS)

adapt: $(STAMP)  ## adapt a diffusion model's Controller: MODEL=folder PHOTOS=folder and/or VIDEOS=folder [OUT=folder]
	$(DIFFVQA) adapt $(PICTURES) --model '$(MODEL)' $(if $(OUT),--out '$(OUT)') $(if $(CONFIG),--config '$(CONFIG)') $(ARGS)

reconstruct: $(STAMP)  ## see what a model makes of a video's frames: VIDEOS=path [MODEL=nano] [OUT=reconstruction.png]
	$(DIFFVQA) reconstruct '$(VIDEOS)' $(if $(MODEL),--model '$(MODEL)') $(if $(OUT),--out '$(OUT)') $(ARGS)

nano: $(STAMP)  ## make a small diffusion model, U-Net and Controller: PHOTOS=folder [VIDEOS=folder] OUT=folder
	$(DIFFVQA) pretrain $(PICTURES) --out '$(OUT)-pretrained' $(if $(CONFIG),--config '$(CONFIG)') $(ARGS)
	$(DIFFVQA) align $(PICTURES) --model '$(OUT)-pretrained' --out '$(OUT)' $(if $(CONFIG),--config '$(CONFIG)') $(ARGS)
	$(DIFFVQA) adapt $(PICTURES) --model '$(OUT)' $(if $(CONFIG),--config '$(CONFIG)') $(ARGS)

bench: $(STAMP)  ## measure every claim of speed, and write docs/benchmarks.md; or BENCH=one module of tests/benchmarks
	$(VENV)/bin/python -m tests.benchmarks.$(or $(BENCH),whole) $(ARGS)

bench-quality: $(STAMP)  ## how well features predict human scores: PHOTOS=folder with images/ and labels.csv
	$(VENV)/bin/python -m tests.benchmarks.quality $(if $(PHOTOS),--photographs '$(PHOTOS)') $(ARGS)

clean:  ## remove the environment, caches and builds, but never runs/
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
