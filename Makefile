# sampan: the two commands a newcomer needs are `make run` and `make test` (as root on Debian).

VENV   := .venv
BIN    := $(VENV)/bin
PYTHON ?= $(shell tools/find-python)
JOBS   ?= 2
STAMP  := $(VENV)/.installed

.PHONY: help install run test check test-vm bench lint format clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP) ## .venv/bin/sampan, sampand and sampan-runtime

$(STAMP): pyproject.toml tools/debian-packages
	tools/debian-packages install
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

run: install ## build a Debian image from Debian's packages and run a container of it
	tools/debian-packages run
	tools/demo $(BIN)

check: install ## the fast part: linters, types, layers, pure tests (under a minute)
	$(BIN)/python -X dev -m pytest -q -n $(JOBS) --dist loadfile tests/meta tests/unit tests/golden tests/property

test: install ## everything
	tools/debian-packages test
	-tools/debian-packages vm
	-$(BIN)/python tools/vm/guest.py build $(VM_CACHE) # else its tests say why they are skipped
	tools/in-namespaces $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile tests

bench: install ## side by side with dockerd, podman, runc and crun
	tools/debian-packages bench
	$(BIN)/python -m bench

format: install ## format and sort imports
	$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format --quiet .

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build src/*.egg-info

-include tools/vm.mk
-include tools/fuzz.mk
