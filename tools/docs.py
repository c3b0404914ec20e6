# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build .build/docs/html: the pages of docs/ and the reference out of the plugins, one site. A warning fails it.

`make docs` calls it. It uses no network: what the reference says of Ansible's own pages is a link to them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from cores import BUILD, ROOT

PAGES = ROOT / "docs"
SITE = BUILD / "docs"
COLLECTION = "gpufleet.llamacpp"
REPOSITORY = "https://github.com/gpufleet/llamacpp/blob/main/"
# A link of Markdown, without the images.
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
CONFIGURATION = """\
project = "gpufleet.llamacpp"
author = "gpufleet.llamacpp contributors"
extensions = ["myst_parser", "sphinx_antsibull_ext"]
html_theme = "alabaster"
html_theme_options = {"page_width": "72rem", "sidebar_width": "16rem", "sidebar_collapse": True}
html_copy_source = False
smartquotes = False
myst_heading_anchors = 4
"""
# The reference points at pages of Ansible's documentation, which is not built here. It finds these instead.
ANSIBLE = """\
:orphan:

Ansible's own pages
===================

.. _ansible_configuration_settings:

`Configuration settings <https://docs.ansible.com/ansible/latest/reference_appendices/config.html>`__
------------------------------------------------------------------------------------------------------

.. _common_return_values:

`Return values <https://docs.ansible.com/ansible/latest/reference_appendices/common_return_values.html>`__
----------------------------------------------------------------------------------------------------------

.. _action_plugins:

`Action plugins <https://docs.ansible.com/ansible/latest/plugins/action.html>`__
--------------------------------------------------------------------------------
"""


def links(page: Path) -> Iterator[str]:
    """The links of a page of Markdown, without those in its code blocks."""
    text = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    yield from (match[1] for match in LINK.finditer(text))


def outward(page: Path) -> str:
    """The page's text, with links that leave docs/ as addresses in the repository."""

    def address(match: re.Match[str]) -> str:
        target = match[1].partition("#")[0]
        path = Path(os.path.normpath(page.parent / target))
        if "://" in target or not target or path.is_relative_to(PAGES):
            return match[0]
        return match[0].replace(match[1], REPOSITORY + str(path.relative_to(ROOT)))

    return LINK.sub(address, page.read_text(encoding="utf-8"))


def contents() -> str:
    """The table of contents: the pages in the order in which the first page links them, then the reference.

    A page that it does not link is in no table, which Sphinx warns of.
    """
    named = [link.partition("#")[0] for link in links(PAGES / "index.md")]
    pages = dict.fromkeys(name for name in named if name.endswith(".md") and not name.startswith(("..", "http")))
    lines = ["", "```{toctree}", ":hidden:", *pages, "reference/index", "```", ""]
    return "\n".join(lines)


def gather(source: Path) -> None:
    """Put everything that Sphinx reads into a fresh folder."""
    shutil.rmtree(SITE, ignore_errors=True)
    reference = source / "reference"
    reference.mkdir(parents=True, mode=0o755)
    for page in PAGES.rglob("*.md"):
        copy = source / page.relative_to(PAGES)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(outward(page), encoding="utf-8")
    with (source / "index.md").open("a", encoding="utf-8") as file:
        file.write(contents())
    (source / "conf.py").write_text(CONFIGURATION, encoding="utf-8")
    run(
        *("antsibull-docs", "collection", "--use-current", "--squash-hierarchy", "--fail-on-error", "--no-breadcrumbs"),
        *("--dest-dir", str(reference), COLLECTION),
    )
    index = reference / "index.rst"
    # "Gpufleet.Llamacpp" is what antsibull-docs makes of the name.
    title = re.sub(r"^Gpufleet\.Llamacpp\n=+$", "Reference\n=========", index.read_text(encoding="utf-8"), flags=re.M)
    index.write_text(title.replace(":orphan:\n", "", 1), encoding="utf-8")
    (reference / "ansible.rst").write_text(ANSIBLE, encoding="utf-8")


def run(*argv: str) -> None:
    """Run a command of the environment that this runs in; ends everything where it fails."""
    variables = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    variables |= {"ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"), "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run(argv, cwd=ROOT, env=variables, check=False)
    if done.returncode:
        sys.exit(f"docs: `{' '.join(argv)}` failed, see above.")


def main() -> None:
    """Gather, render, and say where it is."""
    source, site = SITE / "source", SITE / "html"
    gather(source)
    run("sphinx-build", "-q", "-W", "--keep-going", "-b", "html", str(source), str(site))
    count = len(list(site.rglob("*.html")))
    print(f"{os.path.relpath(site / 'index.html', ROOT)}: {count} pages, no warnings")


if __name__ == "__main__":
    main()
