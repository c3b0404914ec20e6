# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to be done about a model: its wish with what the hub tells, what is there, and the plan.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from . import from_hub
from .observe import observe
from .plan import Observed, Plan, Wanted, plan
from .spec import hub_model, want


@dataclass(frozen=True)
class Decision:
    """The wish, what was seen of it, the plan, and the way to the hub, where the model is from there."""

    wanted: Wanted
    observed: Observed
    plan: Plan
    hub: Callable[[], Any] | None


def decide(
    params: Mapping[str, Any],
    environ: Mapping[str, str],
    ready: Callable[[], bool],
    hide: Callable[[str], object],
    *,
    foresee: bool,
) -> Decision:
    """Look at the model of gguf_model's options; changes nothing. Raises ModelError, FileChanged.

    ``ready`` tells whether the network can be asked, and ``hide`` is told what no output may hold. ``foresee``: also
    what is to come is looked into, as far as it lies on the host.
    """
    hub = hub_model(params["repo"], params["file"], params["revision"], params["endpoint"], environ)
    wish = want(
        params["path"],
        params["state"],
        params["verify"],
        params["url"],
        params["src"],
        params["sha256"],
        params["mirrors"],
        hub,
        from_hub.is_offline(params["offline"], environ),
    )
    access = from_hub.Access(params["token"], params["token_file"], params["ca_path"], ready, hide)
    wanted = from_hub.resolve(wish, access)
    observed = observe(wanted, foresee=foresee)
    return Decision(wanted, observed, plan(wanted, observed), partial(access.hub, hub) if hub else None)
