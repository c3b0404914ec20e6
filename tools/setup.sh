#!/bin/sh
# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Everything from apt that the make targets need. First the Python that runs the rest; the lab knows its own needs.
set -eu
cd "$(dirname "$0")/.."

missing=
# Debian keeps ensurepip, without which no environment gets pip, in python3-venv.
python3 -c "import ensurepip" 2>/dev/null || missing="$missing python3 python3-venv"
# What the tests call: a file system that fills up, and what run.sh uses on a host.
for command in git mount curl ps:procps; do
    command -v "${command%:*}" >/dev/null || missing="$missing ${command#*:}"
done
if [ -n "$missing" ]; then
    if [ "$(id -u)" -ne 0 ]; then
        echo "These packages are missing, and only root can install them:$missing. Run: sudo make setup" >&2
        exit 1
    fi
    echo "Installing from apt:$missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    # shellcheck disable=SC2086 # a list of words
    apt-get install -qy --no-install-recommends $missing
fi
exec tests/lab/lab setup
