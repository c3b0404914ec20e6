# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's web server: what an air-gapped site would have on its own network. Static files, with Range.

    server.py ADDRESS PORT NAME=FOLDER...      serves each folder under /NAME/
"""

from __future__ import annotations

import logging
import sys

from aiohttp import web


def main() -> None:
    address, port, *folders = sys.argv[1:]
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    application = web.Application()
    for folder in folders:
        name, _separator, path = folder.partition("=")
        application.router.add_static(f"/{name}/", path, show_index=True)
    # A bare list: pip --find-links reads the index of /wheels/, people read this one.
    index = "".join(f'<a href="/{folder.partition("=")[0]}/">{folder.partition("=")[0]}</a>\n' for folder in folders)
    application.router.add_get("/", lambda dummy: web.Response(text=index, content_type="text/html"))
    web.run_app(application, host=address, port=int(port), access_log_format='%a "%r" %s %b "%{Range}i"', print=None)


if __name__ == "__main__":
    main()
