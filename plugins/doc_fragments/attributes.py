# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The attributes of all modules: check mode, diff mode, idempotency, platform and action group."""

from __future__ import annotations


class ModuleDocFragment:
    # A module that extends this declares its own support of the first three.
    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return the changed status prediction without modifying the host.
  diff_mode:
    description: Will return details on what has changed, or in C(check_mode) would change, when in diff mode.
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
      - This assumes that the host did not change in between.
  platform:
    description: Systems that the module runs on.
    platforms: posix
    support: full
    details: Linux only.
"""

    # For modules that only read.
    INFO_MODULE = r"""
options: {}
attributes:
  check_mode:
    support: full
    details: This module does not modify the host.
  diff_mode:
    support: N/A
    details: This module does not modify the host.
  idempotent:
    support: full
    details: This module does not modify the host.
"""

    # For all modules of the action group in meta/runtime.yml.
    ACTIONGROUP = r"""
options: {}
attributes:
  action_group:
    description: >-
      Use C(group/gpufleet.llamacpp.llamacpp) in C(module_defaults) to set defaults for this module together with the
      others of the collection.
    support: full
    membership:
      - gpufleet.llamacpp.llamacpp
"""
