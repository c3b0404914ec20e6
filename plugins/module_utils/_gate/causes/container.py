# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Causes in the container: messages of systemd, Apptainer 1.4 and the dynamic linker.

Private to gpufleet.llamacpp; may change at any time. Most were recorded from the real programs.
"""

from __future__ import annotations

from .cause import COMMAND, cause

PULL_AGAIN = "Pull the image again, and set image_sha256, so that a damaged image is refused before the server stops."

CONTAINER = (
    cause(
        "runner cannot be started",
        r"Failed to execute (?P<file>/\S+): (?P<reason>.*\S)",
        text="systemd cannot start {file}",
        detail="{reason}",
        remedy="If the file is missing, deploy again, which creates it. Otherwise let the unit's user read it and "
        "enter its folder (chmod o+rX).",
    ),
    cause(
        "no user namespaces",
        r"(?P<reason>Failed to create user namespace.*|.*maximum number of user namespaces exceeded.*)",
        text="The container runtime may not create user namespaces on this host",
        detail="{reason}",
        remedy="Ask the administrator to allow them (user.max_user_namespaces above 0, "
        "kernel.unprivileged_userns_clone 1, on Ubuntu kernel.apparmor_restrict_unprivileged_userns 0), or "
        "install apptainer-suid.",
    ),
    cause(
        "no fuse",
        r"fuse: (?P<reason>device not found|failed to open /dev/fuse.*|.*try 'modprobe fuse' first)",
        r"fusermount3?: (?P<reason>.*)",
        text="The image cannot be mounted, because FUSE does not work on this host",
        detail="{reason}",
        remedy="Ask the administrator to enable it (modprobe fuse, /dev/fuse open to all users), or install "
        "apptainer-suid.",
    ),
    cause(
        "image truncated",
        r"Something went wrong trying to read the squashfs image|squashfs image.*(corrupt|truncat)|"
        r"SQUASHFS error|unable to read squashfs|squashfs.*superblock",
        text="The file system in the image {image} cannot be read: the image is incomplete or damaged",
        remedy=PULL_AGAIN,
    ),
    cause(
        "not an image",
        r"could not open image (?P<file>\S+?): (?:image format not recognized|.*not a valid SIF|.*invalid SIF)",
        text="{file} is not a SIF image that the container runtime can read: it is another kind of file, or incomplete",
        remedy=PULL_AGAIN,
    ),
    cause(
        "image not readable",
        r"(?P<file>/\S+) is not readable by the current user",
        r"could not open image (?P<file>\S+): .*permission denied",
        text="The user that the server runs as may not read the image {file}",
        remedy="Let that user read it and enter its folders (chmod o+rX).",
    ),
    cause(
        "image missing",
        r"could not open image (?P<file>\S+): .*no such file",
        text="The image {file} does not exist",
        remedy="Put it there, or correct the path in image.",
    ),
    cause(
        "no server in the image",
        r"^(?:\W*)FATAL: +stat (?P<file>\S+): no such file or directory",
        r"^(?:\W*)FATAL: +\"(?P<file>[^\"]+)\": executable file not found",
        text="The image does not contain {file}",
        remedy="Set server_path to the path of llama-server in the image, or use another image.",
    ),
    cause(
        "bind missing",
        r"mount source (?P<file>\S+) doesn't exist",
        r"mounting (?P<file>/\S+): .*no such file or directory",
        text="{file} is bound into the container and does not exist on the host",
        remedy="Create it, mount it, or remove it from binds.",
    ),
    cause(
        "container refused",
        r"FATAL: +(?P<reason>(?:container creation failed|while |could not ).*)",
        text="The container runtime could not start the container",
        detail="{reason}",
        remedy=f"Start it by hand to see more: {COMMAND}.",
    ),
    cause(
        "library missing",
        r"error while loading shared libraries: (?P<file>[^:\s]+)",
        text="llama-server cannot start, because the container has no {file}",
        remedy="libcuda and libnvidia-ml come from the host's driver: set gpus, and check that nvidia-smi works on the "
        "host. Any other library is missing in the image: use another image.",
    ),
    cause(
        "C library too old",
        r"(?P<file>\S+): version `(?P<needed>GLIBC\S*)' not found",
        text="{file} needs {needed}, which the container does not have",
        remedy="NVIDIA's library of the host is often newer than the image: use an image built on a newer system.",
    ),
)
