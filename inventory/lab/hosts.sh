#!/usr/bin/env bash
# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The lab's hosts as an Ansible inventory: whatever `tests/lab/lab up` has booted.
exec "$(dirname "$(readlink -f "$0")")/../../tests/lab/lab" inventory "$@"
