# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""ansible-test sanity, without Docker: all files, no ignore file.

Usage: sanity.py [newest] [ARGUMENT...]     on the oldest ansible-core, or on the newest

The arguments go to ansible-test.

ansible-test needs a folder .../ansible_collections/gpufleet/llamacpp, a bootstrap of pip that it would fetch from the
internet, and a home for its environments. It gets a copy, a bootstrap with Python's own ensurepip, and a home under
.build for each ansible-core. It does not read or change the user's home.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cores
import pythons
from cores import BUILD, ROOT, Environment

HOMES = BUILD / "home"
OLDEST_ON_HOSTS = "3.9"  # tests/config.yml
SLOW = 10.0  # s; a test that takes longer is reported

# Takes the arguments of get-pip.py. ensurepip is a process, because as a function it ignores pip's configuration.
BOOTSTRAP = """\
import subprocess, sys
subprocess.check_call([sys.executable, "-m", "ensurepip"], stdout=subprocess.DEVNULL)
subprocess.check_call([sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "pip=={version}"])
"""


def copy_of_checkout(folder: Path) -> Path:
    """Make a fresh copy of the files that git knows or does not ignore, as the collection's folder."""
    collection = folder / "ansible_collections" / "gpufleet" / "llamacpp"
    shutil.rmtree(folder, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout
    for name in sorted({os.fsdecode(part) for part in listed.split(b"\0") if part}):
        if (ROOT / name).is_file():  # git also lists files that were deleted and are still in the index
            target = collection / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target, follow_symlinks=False)
    return collection


def home_of(environment: Environment) -> Path:
    """The home of ansible-test of this ansible-core."""
    return HOMES / environment.core


def write_pip_configuration(python: Path, home: Path) -> None:
    """Give pip in that home the configuration of this user's pip; ansible-test removes every PIP_ variable."""
    # In a file, "no" is pip's value for --no-compile: a test imports little of what it installs.
    settings: dict[str, dict[str, str]] = {"global": {}, "install": {"no-compile": "no"}}
    listed = subprocess.run([python, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True).stdout
    cache = subprocess.run([python, "-m", "pip", "cache", "dir"], check=False, capture_output=True, text=True).stdout
    if cache.strip():
        settings["global"]["cache-dir"] = cache.strip()
    proxy = os.environ.get("https_proxy") or os.environ.get("HTTPS_PROXY")
    if proxy:
        settings["global"]["proxy"] = proxy
    for line in listed.splitlines():
        key, separator, value = line.partition("=")
        section, dot, option = key.rpartition(".")
        if separator and dot:
            section = "global" if section == ":env:" else section
            settings.setdefault(section, {})[option] = str(ast.literal_eval(value)).strip().replace("\n", "\n    ")
    path = home / ".config" / "pip" / "pip.conf"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)  # an index address may hold a password
    path.write_text(
        "".join(
            f"[{section}]\n" + "".join(f"{option} = {value}\n" for option, value in options.items())
            for section, options in settings.items()
        )
    )


def write_bootstrap(environment: Environment) -> None:
    """Write our bootstrap to the path at which ansible-test looks before it fetches one. Raises SystemExit."""
    found = next(environment.folder.glob("lib/python*/site-packages/ansible_test/_internal/python_requirements.py"))
    version = re.search(r"\bpip='([0-9.]+)'", found.read_text(encoding="utf-8"))
    if version is None:
        raise SystemExit(f"{found} of {environment} has no line with the version of pip. Correct tools/sanity.py.")
    cache = home_of(environment) / ".ansible" / "test" / "cache" / f"get_pip_{version[1].replace('.', '_')}.py"
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_text(BOOTSTRAP.format(version=version[1]))


def run(environment: Environment, arguments: list[str]) -> bool:
    """Run ansible-test, and print slow tests and every error. Its whole output goes to a file."""
    collection = copy_of_checkout(BUILD / "sanity" / environment.core)
    # ansible-test asks git for the files, and the checkout's own git ignores this folder.
    subprocess.run(["git", "init", "--quiet"], cwd=collection, check=True)
    write_bootstrap(environment)
    targets = [environment.python]
    oldest = pythons.find([OLDEST_ON_HOSTS])
    if oldest:
        targets.insert(0, OLDEST_ON_HOSTS)
    command = [str(environment.folder / "bin" / "ansible-test"), "sanity", "--color", "no", "--truncate", "0"]
    command += ["--controller", f"origin:python={environment.python}"]
    command += [word for target in targets for word in ("--target-python", target)]
    log = BUILD / "log" / f"sanity-{environment.core}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    # ansible-test takes the first python3.9 of the PATH, and not every shim of pyenv runs.
    path = [str(environment.folder / "bin"), *([str(Path(oldest).parent)] if oldest else []), os.environ["PATH"]]
    variables = {**os.environ, "HOME": str(home_of(environment)), "PATH": os.pathsep.join(path)}
    for name in ("ANSIBLE_CONFIG", "ANSIBLE_COLLECTIONS_PATH", "PYTHONPATH"):
        variables.pop(name, None)

    print(f"{environment}: on the hosts Python {', '.join(targets)}", flush=True)
    begin = since = time.monotonic()
    test, count = "preparation", 0
    with (
        log.open("w", encoding="utf-8") as kept,
        subprocess.Popen(
            [*command, *arguments],
            cwd=collection,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        loud = False
        for line in process.stdout or ():
            kept.write(line)
            started = re.match(r'Running sanity test "(.*?)"( on .*)?$', line)
            if started:
                now = time.monotonic()
                if now - since > SLOW:
                    print(f"  {test} took {now - since:.0f} s", flush=True)
                test, since, count = started[1] + (started[2] or ""), now, count + 1
            loud = line.startswith("FATAL:") or (loud and not started)
            if loud or line.startswith("ERROR:"):
                print(f"  {line.rstrip()}", flush=True)
    passed = process.returncode == 0 and count > 0
    outcome = "all passed" if passed else f"some failed; the whole output: {os.path.relpath(log)}"
    print(f"  {count} tests in {time.monotonic() - begin:.0f} s, {outcome}", flush=True)
    return passed


def main(arguments: list[str]) -> int:
    """Run on one ansible-core."""
    if importlib.util.find_spec("ensurepip") is None:
        raise SystemExit("This Python has no ensurepip. On Debian: apt-get install python3-venv (or: make setup).")
    ignores = sorted(ROOT.glob("tests/sanity/ignore-*.txt"))
    if ignores:
        raise SystemExit(
            f"{ignores[0].relative_to(ROOT)} exists, and this collection has no ignore file: correct what it hides."
        )
    environment = cores.newest_or_exit() if arguments[:1] == ["newest"] else cores.floor()
    write_pip_configuration(ROOT / ".venv" / "bin" / "python", home_of(environment))
    return 0 if run(environment, arguments[arguments[:1] == ["newest"] :]) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
