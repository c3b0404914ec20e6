# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the sources of a file say about it, asked before anything is made on the disk.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from .http_range import Answer, Client, Refused, Retry, failed, refused
from .source import Address, FetchError, Place, Source
from .worker import Tally


@dataclass(frozen=True)
class Remote:
    """What a source says about the file; ``validator`` is its strong ETag or the date of its last change."""

    size: int
    validator: str | None
    ranged: bool
    url: str


def inspect(source: Source, *, size: int | None = None, ca_path: str | None = None, timeout: float = 30.0) -> Remote:
    """Ask ``source`` for what it says about its file; changes nothing on the host. Raises FetchError."""
    return probe([Place(source, False)], size, ca_path, timeout, Tally())[0]


def probe(
    places: list[Place], size: int | None, ca_path: str | None, timeout: float, tally: Tally
) -> tuple[Remote, list[Place]]:
    """What the first place with ranges says about the file, else the first that has it; and the places to use."""
    client = Client(ca_path, timeout)
    whole: list[tuple[Remote, Place]] = []
    try:
        for number, place in enumerate(places):
            answer = _first_answer(client, place, size, tally, number + 1 < len(places) or bool(whole))
            if answer is None:
                continue
            answer.close()
            if answer.total is None:
                place.drop("does not tell how large the file is")
                continue
            remote = Remote(answer.total, answer.validator, answer.ranged, str(place))
            if answer.ranged:
                for _remote, other in whole:
                    other.drop("serves no ranges, where another source does")
                return remote, places
            whole.append((remote, place))
    finally:
        client.close()
    if not whole:
        raise FetchError(f"nothing to fetch from: {reasons(places)}. Check the address and the access to it")
    return whole[0][0], [place for dummy, place in whole]


def _first_answer(client: Client, place: Place, size: int | None, tally: Tally, spare: bool) -> Answer | None:
    """The answer to a request for the first byte; None if the place had to be dropped."""
    address: Address | None = None
    while place.dropped is None:
        time.sleep(max(0.0, place.not_before - time.monotonic()))
        began, generation = time.monotonic(), place.generation
        try:
            return client.ask(place, 0, 1, size, address=address)
        except Retry as failure:
            tally.retry()
            failed(place, failure, began, generation, spare)
            address = None
        except Refused as failure:
            tally.retry()
            address = refused(place, failure)
    return None


def reasons(places: Sequence[Place]) -> str:
    """Why each of ``places`` that is out of use is."""
    return "; ".join(f"{place}: {place.dropped}" for place in places if place.dropped)
