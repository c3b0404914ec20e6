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
    names = [folder.partition("=")[0] for folder in folders]

    async def index(dummy: web.Request) -> web.Response:
        links = "".join(f'<a href="/{name}/">{name}</a>\n' for name in names)
        return web.Response(text=links, content_type="text/html")

    application.router.add_get("/", index)
    web.run_app(application, host=address, port=int(port), access_log_format='%a "%r" %s %b "%{Range}i"', print=None)


if __name__ == "__main__":
    main()
