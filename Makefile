# The whole interface; `make` alone lists it.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Also where another one is active. (On a line of its own: make keeps the space before a comment.)
export VIRTUAL_ENV := $(CURDIR)/.venv
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export PYTHONDONTWRITEBYTECODE := 1 # roles copy their Python files to servers: nothing compiled beside them
PYTHON ?= python3

.PHONY: help demo demo-down test lint unit input index public builds images molecule bench reliability lock docs
help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/complete  ## an index on throw-away hosts of this machine
	@tests/demo/demo

demo-down: .venv/complete  ## removes what `make demo` made
	@tests/demo/demo-down

test: .venv/complete  ## everything that proves it; takes its time
	@$(MAKE) --jobs 2 --output-sync=line images lint unit input index public builds
	@$(MAKE) molecule

lint: .venv/complete  ## style of the YAML, the roles and the Python; seconds
	yamllint --strict .
	ansible-lint --offline
	ruff check .
	ruff format --check .
	mypy .
	mypy --python-version 3.10 roles/pypi_stack/files roles/pypi_public/files # the Python of pypiserver's official image
	python docs/render_variables.py --check

unit: .venv/complete  ## the Python by itself; seconds
	pytest --numprocesses 2 tests/unit

input: .venv/complete  ## bad input is refused, with the name of the variable and the fix
	pytest --numprocesses 2 tests/input

index: .venv/complete  ## the static index behind a real gunicorn, killed and filled up
	pytest tests/index

public: .venv/complete  ## public packages, from PyPI and from an upstream that misbehaves
	pytest --numprocesses 2 tests/public

builds: images  ## image builds as docs/image-builds.md has them, taken apart in search of the password
	pytest tests/builds

images: .venv/complete  ## an engine and the images of the lab's hosts
	tests/lab/images

SCENARIOS ?= default platforms acme alternative
molecule: .venv/complete  ## the roles on real hosts, two scenarios at a time; SCENARIOS=default for one of them
	@rm -f .cache/red
	@$(MAKE) --jobs 2 --keep-going $(SCENARIOS:%=molecule-%) || { cat .cache/red 2>/dev/null; exit 1; }

molecule-%:
	@molecule test --scenario-name $* 2>&1 | sed --unbuffered 's/^/$*: /'

bench: .venv/complete  ## how fast it is, beside other ways of having an index: docs/benchmarks.md, an hour
	PYTHONPATH=tests python -m bench

reliability: .venv/complete  ## what faults cost users, backups, old stacks: docs/reliability.md; takes its time
	@RELIABILITY_REPORT=$(CURDIR)/docs/reliability.md PYTEST_ADDOPTS="-k 'test_backup or test_endurance or test_faults or test_moving'" molecule test --scenario-name default

docs: .venv/complete  ## the README's tables, from the roles' argument specs
	python docs/render_variables.py

lock: .venv/complete  ## resolve requirements.lock again
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
		--no-emit-index-url --group pyproject.toml:test pyproject.toml --upgrade --output-file requirements.lock

# uv comes first, by its own hashes, and then installs the rest in seconds.
.venv/complete: requirements.lock
	@echo "==> tool environment (.venv)"
	@rm -f $@
	@$(PYTHON) -m venv .venv
	@pip install --quiet --disable-pip-version-check --require-hashes -r <(sed -n '/^uv==/,/[^\\]$$/p' requirements.lock)
	@uv pip sync --quiet --require-hashes requirements.lock
	@python -m compileall -qq -x ansible_collections .venv/lib # else each of Ansible's processes compiles what it imports, every time
	@touch $@
