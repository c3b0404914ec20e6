# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the sources say about a file, before anything is written.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from .._result import Problem
from .http_range import RangeClient, Response
from .source import Address, FetchError, Rejected, Retry, Source, Upstream
from .worker import Counters


@dataclass(frozen=True)
class RemoteFile:
    """What a source says about the file. ``validator`` is its strong ETag, else its Last-Modified."""

    size: int
    validator: str | None
    ranged: bool
    url: str


def inspect(
    source: Source, *, size: int | None = None, ca_path: str | None = None, timeout: float = 30.0
) -> RemoteFile:
    """Ask ``source`` about its file, and write nothing. Raises FetchError."""
    return probe([Upstream(source, False)], size, ca_path, timeout, Counters())[0]


def probe(
    upstreams: list[Upstream], size: int | None, ca_path: str | None, timeout: float, counters: Counters
) -> tuple[RemoteFile, list[Upstream]]:
    """The file at the first upstream with ranges, else at the first that has it; and the upstreams to use."""
    client = RangeClient(ca_path, timeout)
    without_ranges: list[tuple[RemoteFile, Upstream]] = []
    try:
        for number, upstream in enumerate(upstreams):
            spare = number + 1 < len(upstreams) or bool(without_ranges)
            response = _first_byte(client, upstream, size, counters, spare)
            if response is None:
                continue
            response.close()
            if response.total is None:
                upstream.drop("does not say how large the file is")
                continue
            remote = RemoteFile(response.total, response.validator, response.ranged, str(upstream))
            if response.ranged:
                for _remote, other in without_ranges:
                    other.drop("has no ranges, and another source has")
                return remote, upstreams
            without_ranges.append((remote, upstream))
    finally:
        client.close()
    if not without_ranges:
        remedy = "Check the address and the access to it."
        raise FetchError(Problem("", f"no source has the file: {reasons(upstreams)}", remedy))
    return without_ranges[0][0], [upstream for _remote, upstream in without_ranges]


def _first_byte(
    client: RangeClient, upstream: Upstream, size: int | None, counters: Counters, spare: bool
) -> Response | None:
    """The response to a request for the first byte; None if the upstream had to be dropped."""
    address: Address | None = None
    while upstream.dropped is None:
        time.sleep(max(0.0, upstream.not_before - time.monotonic()))
        began, generation = time.monotonic(), upstream.generation
        try:
            return client.request(upstream, 0, 1, size, address=address)
        except Retry as failure:
            counters.retry()
            upstream.failed(failure, began, generation, spare)
            address = None
        except Rejected as failure:
            counters.retry()
            address = upstream.new_address(failure)
    return None


def reasons(upstreams: Sequence[Upstream]) -> str:
    """Why each dropped upstream was dropped."""
    return "; ".join(f"{upstream}: {upstream.dropped}" for upstream in upstreams if upstream.dropped)
