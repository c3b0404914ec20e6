# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""ansible-test sanity, without Docker, on every ansible-core at once: all files, no ignore file.

All tests on the newest one, all but pylint on the oldest.

ansible-test wants a real folder .../ansible_collections/gpufleet/llamacpp, a bootstrap of pip that it would fetch from
the internet, and a home for its environments. It gets a copy, a bootstrap that uses Python's own ensurepip, and a home
of its own under .build/: nothing that lies in the user's home is used or changed. Each ansible-core has its own home,
since two that fill one environment at once break it for each other.
"""

from __future__ import annotations

import ast
import concurrent.futures
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import cores
import pythons
from cores import BUILD, ROOT, Environment

HOMES = BUILD / "home"
OLDEST_ON_HOSTS = "3.9"  # tests/config.yml
SLOW = 10.0  # s; a test that takes longer is worth a line

# The same arguments for which ansible-test would run get-pip.py; ensurepip as a process, since as a function it forgets
# pip's configuration.
BOOTSTRAP = """\
import subprocess, sys
subprocess.check_call([sys.executable, "-m", "ensurepip"], stdout=subprocess.DEVNULL)
subprocess.check_call([sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "pip=={version}"])
"""

printing = threading.Lock()


def say(words: str) -> None:
    """Print whole lines, also where two runs print at once."""
    with printing:
        print(words, flush=True)


def copy_of_checkout(folder: Path) -> Path:
    """A fresh copy of what git knows and of what is new and not ignored, as the collection's folder."""
    collection = folder / "ansible_collections" / "gpufleet" / "llamacpp"
    shutil.rmtree(folder, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout
    for name in sorted({os.fsdecode(part) for part in listed.split(b"\0") if part}):
        if (ROOT / name).is_file():  # not a file that was deleted and is still in the index
            target = collection / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target, follow_symlinks=False)
    return collection


def home_of(environment: Environment) -> Path:
    """The private home of what runs on this ansible-core."""
    return HOMES / environment.core


def write_pip_configuration(python: Path, home: Path) -> None:
    """Give pip in the private home what this user's pip is told; ansible-test drops every PIP_ variable."""
    # "no" is pip's way to say --no-compile in a file: little of what each test installs is ever imported.
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
    """Put our bootstrap where this ansible-test looks for the one that it would fetch. Raises SystemExit in words."""
    found = next(environment.folder.glob("lib/python*/site-packages/ansible_test/_internal/python_requirements.py"))
    version = re.search(r"\bpip='([0-9.]+)'", found.read_text(encoding="utf-8"))
    if version is None:
        raise SystemExit(
            f"{environment} no longer says in {found} which pip it wants: tools/sanity.py must learn where."
        )
    cache = home_of(environment) / ".ansible" / "test" / "cache" / f"get_pip_{version[1].replace('.', '_')}.py"
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_text(BOOTSTRAP.format(version=version[1]))


def run(environment: Environment, arguments: list[str]) -> bool:
    """One ansible-test, telling slow tests and every error as they come. All that it said is kept in a file."""
    collection = copy_of_checkout(BUILD / "sanity" / environment.core)
    # ansible-test asks git which files there are; the checkout's own git ignores all that lies here.
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
    # ansible-test takes the first python3.9 of the PATH, and one of pyenv's shims need not run.
    path = [str(environment.folder / "bin"), *([str(Path(oldest).parent)] if oldest else []), os.environ["PATH"]]
    variables = {**os.environ, "HOME": str(home_of(environment)), "PATH": os.pathsep.join(path)}
    for name in ("ANSIBLE_CONFIG", "ANSIBLE_COLLECTIONS_PATH", "PYTHONPATH"):
        variables.pop(name, None)

    say(f"{environment}: on the hosts Python {', '.join(targets)}")
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
                    say(f"  {environment.core}: {test} took {now - since:.0f} s")
                test, since, count = started[1] + (started[2] or ""), now, count + 1
            loud = line.startswith("FATAL:") or (loud and not started)
            if loud or line.startswith("ERROR:"):
                say(f"  {environment.core}: {line.rstrip()}")
    green = process.returncode == 0 and count > 0
    words = "all green" if green else f"red; all of it: {os.path.relpath(log)}"
    say(f"  {environment.core}: {count} tests in {time.monotonic() - begin:.0f} s, {words}")
    return green


def main(arguments: list[str]) -> int:
    """Run on all environments; the arguments go to ansible-test as they are ("--test", "pylint", a path...)."""
    if importlib.util.find_spec("ensurepip") is None:
        raise SystemExit("This Python has no ensurepip. On Debian: apt-get install python3-venv (or: make setup).")
    ignores = sorted(ROOT.glob("tests/sanity/ignore-*.txt"))
    if ignores:
        raise SystemExit(
            f"{ignores[0].relative_to(ROOT)} is there: mend what it hides, this collection has no ignore file."
        )
    environments = cores.chosen()
    for environment in environments:
        write_pip_configuration(ROOT / ".venv" / "bin" / "python", home_of(environment))
    with concurrent.futures.ThreadPoolExecutor() as pool:
        # What pylint finds depends least on the core, and it takes nearly half of the time: once is enough.
        once = [[], ["--skip-test", "pylint"]] if len(environments) > 1 and not arguments else [arguments] * 2
        results = list(pool.map(run, reversed(environments), once))
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
