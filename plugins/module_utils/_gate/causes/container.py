# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a container does not come up, in the words of systemd, Apptainer 1.4 and the dynamic linker. Data.

Private to gpufleet.llamacpp; may change at any time. Most were brought about with the real program.
"""

from __future__ import annotations

from .cause import cause

CONTAINER = (
    cause(
        "runner cannot be started",
        r"Failed to execute (?P<file>/\S+): (?P<said>.*\S)",
        "systemd cannot start {file}: {said}.",
        "Where it is gone, deploy again, which makes it anew. Otherwise let the unit's user enter its folder and read "
        "it (chmod o+rX).",
    ),
    cause(
        "no user namespaces",
        r"(?P<said>Failed to create user namespace.*|.*maximum number of user namespaces exceeded.*)",
        "The container runtime may not make user namespaces on this host: {said}.",
        "Let the administrator allow them (user.max_user_namespaces above 0, kernel.unprivileged_userns_clone 1, on "
        "Ubuntu kernel.apparmor_restrict_unprivileged_userns 0), or install apptainer-suid.",
    ),
    cause(
        "no fuse",
        r"fuse: (?P<said>device not found|failed to open /dev/fuse.*|.*try 'modprobe fuse' first)|"
        r"fusermount3?: (?P<also>.*)",
        "The image cannot be mounted, since the host has no working FUSE ({said}{also}).",
        "Let the administrator load it (modprobe fuse, /dev/fuse open to everybody) or install apptainer-suid.",
    ),
    cause(
        "image truncated",
        r"Something went wrong trying to read the squashfs image|squashfs image.*(corrupt|truncat)|"
        r"SQUASHFS error|unable to read squashfs|squashfs.*superblock",
        "The image {image} is broken: its file system cannot be read, so it is cut short or damaged.",
        "Bring the image again, and give image_sha256 so that a broken one is refused before anything is stopped.",
    ),
    cause(
        "not an image",
        r"could not open image (?P<file>\S+?): (?:image format not recognized|.*not a valid SIF|.*invalid SIF)",
        "{file} is not a SIF image that this runtime can read: another kind of file, or cut short.",
        "Bring the image again, and give image_sha256 so that a wrong one is refused before anything is stopped.",
    ),
    cause(
        "image not readable",
        r"(?P<file>/\S+) is not readable by the current user|could not open image (?P<also>\S+): .*permission denied",
        "The image {file}{also} may not be read by the user that the server runs as.",
        "Give that user the right to read it and to pass through its folders (chmod o+rX).",
    ),
    cause(
        "image missing",
        r"could not open image (?P<file>\S+): .*no such file",
        "The image {file} is not there.",
        "Bring it there, or name the right one in image.",
    ),
    cause(
        "no server in the image",
        r"^(?:\W*)FATAL: +(?:stat (?P<file>\S+): no such file or directory|\"(?P<also>[^\"]+)\": executable file not "
        r"found)",
        "The image holds no {file}{also}.",
        "Name llama-server's place in the image with server_path, or use another image.",
    ),
    cause(
        "bind missing",
        r"mount source (?P<file>\S+) doesn't exist|mounting (?P<also>/\S+): .*no such file or directory",
        "The folder {file}{also}, which is bound into the container, is not there on the host.",
        "Make it, mount it, or take it out of binds.",
    ),
    cause(
        "container refused",
        r"FATAL: +(?P<said>(?:container creation failed|while |could not ).*)",
        "The container runtime could not start the container: {said}.",
        "Start it by hand to see more: the command is the last line of run.sh in the instance's folder.",
    ),
    cause(
        "library missing",
        r"error while loading shared libraries: (?P<file>[^:\s]+)",
        "llama-server cannot start, since the container has no {file}.",
        "With libcuda or libnvidia-ml the host's driver is missing in the container: name GPUs in gpus, and see that "
        "nvidia-smi works on the host. Any other is missing in the image: use another one.",
    ),
    cause(
        "C library too old",
        r"(?P<file>\S+): version `(?P<wanted>GLIBC\S*)' not found",
        "{file} needs {wanted}, which the container does not have.",
        "Often NVIDIA's library of the host is newer than the image: use an image made on a newer system.",
    ),
)
