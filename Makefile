# `make help` lists the targets. Everything installs itself into .venv first.

PYTHON ?= python3
# PyTorch's CPU wheels are a tenth the size: make test TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
HOST ?= 127.0.0.1
PORT ?= 3000
# Where the corpora are (docs/data.md); only `make build` and `make test-data` need them.
DATA ?= data
ARGS ?=
# Of the comparison with other servers: peer NAME serves MODEL; peers takes NAMES (none: all).
NAME ?= starlette
MODEL ?= ner-base
NAMES ?=
ROUNDS ?= 4
SECONDS ?= 3
# What `make compare` compares, the first one with the others, and what is promised of it.
VARIANTS ?=
PROMISES ?=

export BENTOML_DO_NOT_TRACK := True
export TOKENIZERS_PARALLELISM := false

BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
TORCH := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.DEFAULT_GOAL := help
.PHONY: help serve test test-data check format build frontier compare loadtest bench overload soak peer \
  rehearse peers peers-tune bulk image lock clean

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20
	@echo 'Variables, as in `make serve PORT=3001`: HOST and PORT of the server, DATA (the corpora),'
	@echo 'VARIANTS="ner-base ner-int8" (to compare), PROMISES=FILE (what a comparison must keep),'
	@echo 'ARGS (passed on), PYTHON (makes .venv) and TORCH_INDEX (PyTorch for the CPU: see README.md).'
	@echo 'Of the comparison (docs/benchmarks.md): NAME and MODEL of peer; NAMES, ROUNDS and SECONDS of peers.'

# create_server binds as the server will (SO_REUSEADDR); all but a port in use is left to the server.
serve: .venv/.serve ## serve the embedded models on 127.0.0.1:3000
	@[ "$(PORT)" -ge 1 ] 2>/dev/null && [ "$(PORT)" -le 65535 ] || { \
	  echo "PORT=$(PORT) is no port: give one of 1 to 65535, as make serve PORT=3001" >&2; exit 1; }
	@if $(BIN)/python -c 'import socket; socket.create_server(("$(HOST)", $(PORT)))' 2>&1 \
	  | grep -q 'in use'; then \
	  echo "port $(PORT) is in use: make serve PORT=$$(($(PORT) + 1))" >&2; exit 1; fi
	$(BIN)/bentoml serve service.app:Kadogo --host $(HOST) --port $(PORT)

test: .venv/.test ## every test that needs no corpora
	$(BIN)/python -m pytest $(ARGS)

test-data: .venv/.test ## the tests that read the corpora in DATA
	KADOGO_TEST_DATA=$(abspath $(DATA)) $(BIN)/python -m pytest -m data $(ARGS)

check: .venv/.test ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/.test ## format the code and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The commands that read no corpora take no --data.
build: .venv/.build ## make variants: make build ARGS="ner-int8" DATA=...
	$(BIN)/python -m build $(ARGS) $(if $(filter import shape files measure report frontier bench,$(ARGS)),,--data $(DATA))

frontier: .venv/.build ## draw quality against bytes and speed: docs/compression.md
	$(BIN)/python -m build frontier $(ARGS)

compare: .venv/.loadtest ## which of VARIANTS of a running server to deploy, under load
	$(BIN)/python -m loadtest compare --host http://$(HOST):$(PORT) --variants "$(VARIANTS)" \
	  $(if $(PROMISES),--promises $(PROMISES)) $(ARGS)

loadtest: compare ## the same of all its variants

bench: .venv/.test ## speed ratios from one interleaved run on this machine
	$(BIN)/python -m build bench $(ARGS)

overload: .venv/.loadtest ## three times what a running server can do, for a minute
	$(BIN)/python -m loadtest overload --host http://$(HOST):$(PORT) $(ARGS)

rehearse: .venv/.serve .venv/.loadtest ## add, replace and remove servers behind haproxy under load
	$(BIN)/python -m loadtest rehearse $(ARGS)

# Of a server with KADOGO_WORKERS=2: the last of them kills one.
soak: .venv/.loadtest ## long tests: half an hour at 70 % of a running server, overload, a worker killed
	$(BIN)/python -m loadtest soak --host http://$(HOST):$(PORT) $(ARGS)
	$(BIN)/python -m loadtest overload --host http://$(HOST):$(PORT)
	$(BIN)/python -m loadtest killed --host http://$(HOST):$(PORT)

PEERS := $(patsubst loadtest/peers/%/requirements.txt,%,$(wildcard loadtest/peers/*/requirements.txt))
ENVIRONMENTS = $(foreach name,$(or $(NAMES),$(PEERS)),.venv-peers/$(name)/.made)

peer: .venv-peers/$(NAME)/.made .cache/peers/.made ## another server by itself: NAME=litserve
	$(BIN)/python -m loadtest.peers serve $(NAME) --model $(MODEL) --port $(PORT)

peers: .venv/.serve .venv/.loadtest $(ENVIRONMENTS) .cache/peers/.made ## other servers beside Kadogo
	$(BIN)/python -m loadtest.peers run --names "$(NAMES)" --rounds $(ROUNDS) --seconds $(SECONDS) $(ARGS)

peers-tune: $(ENVIRONMENTS) .cache/peers/.made ## find other servers' best settings
	$(BIN)/python -m loadtest.peers tune $(NAMES)

bulk: .venv/.bulk ## tag a corpus: make bulk ARGS="corpus.parquet --variant ner-int8 --out tagged.parquet"
	$(BIN)/python -m service.bulk tag $(ARGS)

image: .venv/.serve ## a container image: TARGET=bento, slim or torch (docs/operating.md)
	deploy/image.sh

lock: .venv/.test ## resolve requirements/*.in into pinned requirements/*.txt
	requirements/lock.sh

.venv-peers/%/.made: loadtest/peers/%/requirements.txt | .venv/bin/python
	$(PYTHON) -m venv .venv-peers/$*
	.venv-peers/$*/bin/python -m pip install --quiet --disable-pip-version-check $(TORCH) -r $<
	touch $@

# What others read: the embedded baseline and its int8, AfriBERTa-base's shape whole and compressed.
.cache/peers/.made: models/zoo/ner-base/model.onnx models/zoo/ner-int8/model.onnx | .venv/.build .venv/.loadtest
	rm -rf .cache/peers
	$(BIN)/python -m build shape afriberta-base --like ner-small --out .cache/peers/shapes
	$(BIN)/python -m build files ner-base --network --out .cache/peers
	$(BIN)/python -m build files ner-int8 --out .cache/peers
	$(BIN)/python -m build files afriberta-base-base --network --catalog .cache/peers/shapes --out .cache/peers
	touch $@

clean: ## remove what the targets above made; trained checkpoints in .cache stay
	rm -rf .venv .venv-peers reports .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Kadogo needs Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

.venv/.serve: requirements/serve.txt | .venv/bin/python
	$(INSTALL) -r requirements/serve.txt
	touch $@

.venv/.loadtest: requirements/loadtest.txt | .venv/bin/python
	$(INSTALL) -r requirements/loadtest.txt
	touch $@

.venv/.build: requirements/serve.txt requirements/build.txt | .venv/bin/python
	$(INSTALL) $(TORCH) -r requirements/serve.txt -r requirements/build.txt
	touch $@

.venv/.bulk: requirements/serve.txt requirements/bulk.txt | .venv/bin/python
	$(INSTALL) -r requirements/serve.txt -r requirements/bulk.txt
	touch $@

.venv/.test: $(wildcard requirements/*.txt) | .venv/bin/python
	$(INSTALL) $(TORCH) $(foreach file,serve tracing build loadtest test,-r requirements/$(file).txt)
	touch $@ .venv/.serve .venv/.build .venv/.loadtest
