#!/usr/bin/env bash
# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The hosts that `tests/lab/lab up` booted, as an Ansible inventory.
exec "$(dirname "$(readlink -f "$0")")/../../tests/lab/lab" inventory "$@"
