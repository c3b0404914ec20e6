# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control script: run.sh, with which an operator works by hand, over any manager and without Ansible. Pure.

Private to gpufleet.llamacpp; may change at any time.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from .launch import Launch
from .spec import Spec

# What the launch adds to the operator's own words, and why; shown in run.sh above the command that holds it.
ADDED = (
    ("--no-eval", "values of --env are taken as they stand; the runtime would evaluate $(...) in them"),
    ("--cleanenv", "nothing of the caller's environment, such as LLAMA_ARG_*, reaches llama-server"),
    ("--no-home", "nothing of the user's home folder is seen inside"),
    ("XDG_CONFIG_HOME", "llama-server reads no config.ini, whose options would come before these"),
    ("CUDA_DEVICE_ORDER", "GPU numbers are those of nvidia-smi; CUDA's own order is fastest first"),
    ("--api-key-file", "the key is in a file, so that the process list does not show it"),
)

SCRIPT = r"""#!/usr/bin/env bash
# @TITLE@
# Written by the Ansible collection gpufleet.llamacpp; a change made here is overwritten by the next deploy.
#
# What runs (launch @ID@), one option a line:
#
@COMMAND@
#
# Added to what was asked for:
@ADDED@
set -u

name=@NAME@
url=@URL@
host=@HOST@
port=@PORT@
manager=@MANAGER@
state_file=@STATE_FILE@
start_timeout=@START_TIMEOUT@
stop_timeout=@STOP_TIMEOUT@
prepare_command=(@PREPARE@)
start_command=(@START@)
stop_command=(@STOP@)
pid_command=(@PID@)
logs_command=(@LOGS@)
@EXPORT@
say() { printf '%s: %s\n' "$name" "$*"; }

# One value out of the runner's account of the running server.
state() {
  [ -r "$state_file" ] && sed -n "s/^.*\"$1\": \([0-9][0-9]*\).*$/\1/p" "$state_file" | head -n 1
}

# The process with this number, if it is the one that the runner started: a number alone may have been reused.
process() {
  local pid start stat fields
  pid=$(state "$1_pid")
  start=$(state "$1_start")
  [ -n "$pid" ] && [ -n "$start" ] && [ -r "/proc/$pid/stat" ] || return 1
  stat=$(cat "/proc/$pid/stat" 2>/dev/null) || return 1
  read -r -a fields <<<"${stat##*) }"
  [ "${fields[0]}" != Z ] && [ "${fields[19]}" = "$start" ] && printf '%s\n' "$pid"
}

health() {
  curl --silent --output /dev/null --noproxy '*' --max-time 5 --write-out '%{http_code}' "$url/health" 2>/dev/null
}

gpu_use() {
  command -v nvidia-smi >/dev/null || return 0
  local gpus
  gpus=$(nvidia-smi --query-gpu=index,uuid,memory.total --format=csv,noheader,nounits 2>/dev/null) || return 0
  nvidia-smi --query-compute-apps=pid,gpu_uuid,used_memory --format=csv,noheader,nounits 2>/dev/null |
    awk -F', *' -v pid="$1" -v gpus="$gpus" '
      BEGIN {
        n = split(gpus, rows, "\n")
        for (i = 1; i <= n; i++) { split(rows[i], f, ", *"); index_of[f[2]] = f[1]; total[f[2]] = f[3] }
      }
      $1 == pid { printf "  GPU %s      %s MiB of %s MiB\n", index_of[$2], $3, total[$2] }' | sort -n -k 2
}

start() {
  if process server >/dev/null && [ "$(health)" = 200 ]; then
    say "is running already"
    return 0
  fi
  local before waited=0 code said
  before=$(state runner_pid)
  # A manager that has to be started first may start the server with it.
  "${prepare_command[@]}" >/dev/null 2>&1
  if ! said=$("${start_command[@]}" 2>&1) && [[ $said != *"already started"* ]]; then
    printf '%s\n' "$said" >&2
    return 1
  fi
  while [ "$waited" -lt "$start_timeout" ]; do
    sleep 1
    waited=$((waited + 1))
    code=$(health)
    if [ "$code" = 200 ] && process server >/dev/null; then
      say "ready after $waited s, $url"
      return 0
    fi
    if [ "$(state runner_pid)" != "$before" ] && grep -q '"status"' "$state_file" 2>/dev/null; then
      say "llama-server ended with exit status $(state status); see: $0 logs" >&2
      return 1
    fi
    [ $((waited % 10)) -ne 0 ] || say "waiting since $waited s (503 is: loading the model): $code"
  done
  say "not ready after $start_timeout s, it goes on in the background; see: $0 logs" >&2
  return 1
}

stop() {
  if ! process runner >/dev/null; then
    say "is not running"
    # Nor is it to be started again. supervisord does that as soon as it is spoken to, and a TERM just then is lost.
    "${pid_command[@]}" >/dev/null 2>&1
    "${stop_command[@]}" >/dev/null 2>&1
    return 0
  fi
  local pid waited=0
  say "stopping; requests in flight may end first"
  "${stop_command[@]}" && ! process runner >/dev/null && return 0
  # Its manager is gone, so nobody but us can end it, and it takes as long as the manager would have allowed.
  pid=$(process runner) && kill "$pid"
  while process runner >/dev/null; do
    [ "$waited" -lt "$stop_timeout" ] || return 1
    sleep 1
    waited=$((waited + 1))
  done
}

status() {
  local pid code word
  if ! pid=$(process server); then
    if process runner >/dev/null; then
      say "is starting"
      return 0
    fi
    say "is not running"
    return 3
  fi
  code=$(health)
  case $code in
    200) word="ok" ;;
    503) word="loading the model (503)" ;;
    000) word="no answer" ;;
    *) word="HTTP $code" ;;
  esac
  say "is running"
  printf '  pid        %s (%s)\n' "$pid" "$manager"
  printf '  uptime     %s\n' "$(ps -o etime= -p "$pid" | tr -d ' ')"
  printf '  health     %s\n' "$word"
  printf '  listens    %s:%s\n' "$host" "$port"
  printf '  endpoints  %s/v1/chat/completions\n             %s/v1/models\n             %s/health\n' "$url" "$url" "$url"
  gpu_use "$pid"
  return 0
}

case "${1:-}" in
  start) start ;;
  stop) stop ;;
  restart) stop && start ;;
  status) status ;;
  logs) exec "${logs_command[@]}" ;;
  *)
    printf 'usage: %s start|stop|restart|status|logs\n' "$0" >&2
    exit 2
    ;;
esac
"""


def _comment(words: Sequence[str]) -> str:
    """The command as comment lines that a shell could run: an option and its value a line, every word quoted."""
    lines: list[list[str]] = [[]]
    for word in words:
        if lines[-1] and (word.startswith("-") or word.startswith("/")) and not _takes(lines[-1], word):
            lines.append([])
        lines[-1].append(word)
    shown = [" ".join(_quote(word) for word in line) for line in lines]
    return "\n".join(f"#   {'' if number == 0 else '  '}{line}" for number, line in enumerate(shown))


def _takes(line: Sequence[str], word: str) -> bool:
    """Whether the word is the value of the option that begins the line."""
    return len(line) == 1 and line[0].startswith("-") and not word.startswith("-")


def _quote(word: str) -> str:
    """Quoted for a shell, on one line: a line break would end the comment."""
    if "\n" in word or "\r" in word:
        return "$'" + word.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r") + "'"
    return shlex.quote(word)


def render(
    spec: Spec,
    launch: Launch,
    manager: str,
    commands: Mapping[str, Sequence[str]],
    *,
    start_timeout: int,
    user_bus: bool,
) -> bytes:
    """run.sh for the instance; ``commands`` are the manager's argument lists, ``start_timeout`` is seconds."""
    words = " ".join(launch.argv)
    values = {
        "TITLE": f"llama-server instance {spec.name} on port {spec.port}, kept running by {manager}.",
        "ID": launch.id,
        "COMMAND": _comment(launch.argv),
        "ADDED": "\n".join(f"#   {name}: {why}" for name, why in ADDED if name in words),
        "NAME": shlex.quote(spec.name),
        "URL": shlex.quote(launch.url),
        "HOST": shlex.quote(spec.host),
        "PORT": str(spec.port),
        "MANAGER": shlex.quote(manager),
        "STATE_FILE": shlex.quote(launch.state_file),
        "START_TIMEOUT": str(start_timeout),
        "STOP_TIMEOUT": str(launch.drain_timeout + launch.stop_timeout),
        "PREPARE": shlex.join(commands["prepare"]),
        "START": shlex.join(commands["start"]),
        "STOP": shlex.join(commands["stop"]),
        "PID": shlex.join(commands["pid"]),
        "LOGS": shlex.join(commands["logs"]),
        # Over ssh without a login session the variable is often not set, and systemctl --user finds no manager.
        "EXPORT": 'export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/run/user/$(id -u)}"\n' if user_bus else "",
    }
    # One pass, so that a value which looks like a place to fill in stays a value.
    return re.sub(r"@([A-Z_]+)@", lambda place: values[place[1]], SCRIPT).encode()
