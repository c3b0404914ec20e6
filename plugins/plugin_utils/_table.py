# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines that fit the terminal: cells in columns, and sentences over several lines.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

GAP = 2  # spaces between two columns


def line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """One row. A cell that is too long is cut and ends with an ellipsis."""
    shown = [text if len(text) <= width else f"{text[: width - 1]}…" for text, width in zip(cells, widths)]
    return (" " * GAP).join(text.ljust(width) for text, width in zip(shown, widths)).rstrip()


def wrap(text: str, width: int) -> list[str]:
    """A sentence over as many lines as it needs, the later ones indented. Paths are not broken."""
    return textwrap.wrap(
        text,
        max(width, 40),
        subsequent_indent="    ",
        replace_whitespace=False,
        break_on_hyphens=False,
        break_long_words=False,
    )
