# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A line of progress: its words, its length, and when it is due."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.plugin_utils._progress_line import is_due, line, shown, size, span

GB = 10**9
SPLIT = "GLM-4.7-UD-Q4_K_XL-00002-of-00003.gguf"


def progress(**changed: Any) -> dict[str, Any]:
    return {
        "pid": 17,
        "name": "GLM-4.7-Flash.gguf",
        "file": 1,
        "files": 1,
        "phase": "download",
        "bytes": 45 * GB,
        "total": 100 * GB,
        "resumed": 0,
        "rate": 310e6,
        "eta": 55 * GB / 310e6,
        **changed,
    }


def no_numbers(phase: str) -> dict[str, Any]:
    return progress(phase=phase, bytes=None, total=None, resumed=None, rate=None, eta=None)


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (999499, "999 kB"),
        (999500, "1 MB"),
        (310e6, "310 MB"),
        (999.6e6, "1.0 GB"),
        (12.1e9, "12.1 GB"),
        (99.94e9, "99.9 GB"),
        (99.96e9, "100 GB"),
        (193e9, "193 GB"),
        (1.25e12, "1.2 TB"),
    ],
)
def test_sizes(count: float, words: str) -> None:
    assert size(count) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "1 s"), (40.4, "40 s"), (59.4, "59 s"), (59.6, "1 min"), (89, "1 min"), (3569, "59 min"), (7500, "2 h 5 min")],
)
def test_times(seconds: float, words: str) -> None:
    assert span(seconds) == words


class TestLine:
    def test_of_one_file(self) -> None:
        assert line("gpu1", progress(), 1) == "gpu1: GLM-4.7-Flash.gguf  45 %  310 MB/s  3 min left"

    def test_of_a_set_that_is_resumed(self) -> None:
        value = progress(file=2, files=3, resumed=12.1 * GB)
        expected = "gpu1: GLM-4.7-Flash.gguf  2 of 3  45 %  310 MB/s  3 min left  (12.1 GB resumed)"
        assert line("gpu1", value, 1) == expected

    @pytest.mark.parametrize("columns", [79, 80, 100])
    @pytest.mark.parametrize("resumed", [0, 100.1 * GB])
    def test_fits(self, columns: int, resumed: float) -> None:
        text = line("gpu-17", progress(name=SPLIT, file=2, files=3, resumed=resumed), 1, columns)
        assert len(text) <= columns
        assert text.startswith("gpu-17: GLM-4")
        assert "2 of 3  45 %  310 MB/s  3 min left" in text

    def test_cuts_a_name_in_its_middle(self) -> None:
        assert "  2 of 3" in line("gpu1", progress(name=SPLIT, file=2, files=3), 1, 60)
        assert line("gpu1", progress(name=SPLIT), 1, 60).startswith("gpu1: GLM-4.7-UD-Q...-00003.gguf  45 %")

    def test_of_a_file_that_is_verified(self) -> None:
        value = progress(file=2, files=3, phase="verify", resumed=GB)
        assert line("gpu1", value, 1) == "gpu1: GLM-4.7-Flash.gguf  2 of 3  verifying  45 %  310 MB/s  3 min left"

    def test_without_the_size_of_the_whole(self) -> None:
        assert line("gpu1", progress(total=None, eta=None), 1) == "gpu1: GLM-4.7-Flash.gguf  45.0 GB  310 MB/s"

    def test_before_there_is_a_rate(self) -> None:
        assert line("gpu1", progress(rate=0.0, eta=None), 1) == "gpu1: GLM-4.7-Flash.gguf  45 %"

    @pytest.mark.parametrize(
        ("phase", "words"),
        [("build", "pulling with Apptainer"), ("copy", "copying"), ("look", "checking existing files")],
    )
    def test_without_numbers(self, phase: str, words: str) -> None:
        assert line("gpu1", no_numbers(phase), 95) == f"gpu1: GLM-4.7-Flash.gguf  {words}  for 2 min"


class TestIsDue:
    def after(self, percent: float, seconds: float, **changed: Any) -> bool:
        last = shown(progress(bytes=45 * GB), 100.0)
        return is_due(last, progress(bytes=percent * GB, **changed), 100.0 + seconds)

    def test_first_with_a_rate(self) -> None:
        assert is_due(None, progress(), 0.0)
        assert not is_due(None, progress(rate=0.0), 0.0)

    def test_first_of_what_has_no_numbers(self) -> None:
        assert is_due(None, no_numbers("build"), 0.0)
        assert is_due(None, no_numbers("copy"), 0.0)
        assert not is_due(None, no_numbers("look"), 0.0)

    def test_after_five_percent(self) -> None:
        assert not self.after(49.9, 5)
        assert self.after(50, 1)

    def test_after_half_a_minute(self) -> None:
        assert not self.after(45.1, 29)
        assert self.after(45.1, 30)

    def test_when_another_phase_begins(self) -> None:
        assert self.after(45.1, 1, phase="verify")
        assert not self.after(99.9, 1, phase="verify", eta=1.0)
        assert not self.after(45.1, 1, name="another.gguf")  # the numbers are of the whole set

    def test_when_it_goes_back(self) -> None:
        assert self.after(40, 1)

    def test_without_numbers_only_now_and_then(self) -> None:
        last = shown(no_numbers("build"), 100.0)
        assert not is_due(last, no_numbers("build"), 129.0)
        assert is_due(last, no_numbers("build"), 130.0)
