# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later

venv:
	@mkdir -p .collections/ansible_collections/gpufleet
	@ln -sfn ../../.. .collections/ansible_collections/gpufleet/llamacpp
	@python3 tools/venv.py .venv requirements/dev.txt

unit: venv
	@.venv/bin/pytest tests/unit
.PHONY: venv unit
