# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The names of the options about an image, for problems and their remedies: two modules share the code, not the names.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ImageOptionNames:
    """Each field is what a module calls that option; ``login`` names all options that give a user and a password."""

    path: str
    src: str
    sha256: str
    pull: str
    login: str
    auth_file: str
    no_https: str
    ca_path: str


SIF_IMAGE = ImageOptionNames(
    path="path",
    src="src",
    sha256="sha256",
    pull="pull",
    login="username and password, or auth_file",
    auth_file="auth_file",
    no_https="no_https",
    ca_path="ca_path",
)
LLAMACPP_INSTANCE = ImageOptionNames(
    path="image",
    src="image",
    sha256="image_sha256",
    pull="pull",
    login="image_auth_file",
    auth_file="image_auth_file",
    no_https="image_no_https",
    ca_path="image_ca_path",
)
