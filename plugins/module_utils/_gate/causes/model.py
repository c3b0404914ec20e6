# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why llama-server does not load a model file, in its own words (builds 10434, 11434 and 11669). Data.

Private to gpufleet.llamacpp; may change at any time. Most were brought about with the real program and a broken file.
"""

from __future__ import annotations

from .cause import cause

NEWER = "Use a newer image, or a file that was made for this one."
AGAIN = "Fetch the file again (gguf_model, which checks it), then run the task again."

# What is the more special stands before what follows from it.
MODEL = (
    cause(
        "part missing",
        r"failed to load GGUF split from (?P<file>\S+)",
        "A part of the split model cannot be loaded: {file}.",
        "All parts have to lie in one folder under their own names: fetch the missing one with gguf_model.",
    ),
    cause(
        "not the first part",
        r"illegal split file idx: (?P<number>\d+) \(file: (?P<file>[^)]+)\)",
        "{file} is not the first part of its model, and llama-server has to be given that one.",
        "Name the first part, ...-00001-of-..., in model.",
    ),
    cause(
        "part renamed",
        r"invalid split file name: (?P<file>\S+)",
        "{file} is part of a split model, and its name does not say which.",
        "Give the parts back the names that they came with, ...-00001-of-0000N.gguf.",
    ),
    cause(
        "parts mixed",
        r"invalid split file idx|corrupted model: (?P<wanted>\d+) tensors expected but (?P<found>\d+) found",
        "The parts of the split model do not belong together (tensors expected {wanted}, found {found}).",
        AGAIN,
    ),
    cause(
        "model missing",
        r"failed to open GGUF file '?(?P<file>[^'(]+?)'? \(?No such file or directory",
        "There is no file {file} for llama-server.",
        "Fetch it with gguf_model, or correct the path; a path inside the container comes from model and binds.",
    ),
    cause(
        "model not readable",
        r"failed to open GGUF file '?(?P<file>[^'(]+?)'? \(?(?P<said>Permission denied|[A-Z][a-z ]+)",
        "{file} cannot be opened by llama-server: {said}.",
        "Let the user that the server runs as read it, and pass through its folders (chmod o+rX).",
    ),
    cause(
        "model too new",
        r"this GGUF file is version (?P<found>\d+) but this software only supports up to version (?P<known>\d+)",
        "The model is a GGUF of version {found}, and the llama-server in this image reads up to {known}.",
        NEWER,
    ),
    cause(
        "model type too new",
        r"tensor '(?P<tensor>[^']+)' (?:of type (?P<type>\d+)|has invalid ggml type (?P<also>\d+))",
        "The model has tensors of a kind ({type}{also}) that the llama-server in this image does not know, {tensor} "
        "for one: the image is too old for it, or the file is damaged.",
        NEWER,
    ),
    cause(
        "not a GGUF",
        r"invalid magic characters: '(?P<found>[^']*)'",
        "The model is no GGUF: its file begins with {found}, where a GGUF begins with GGUF. A web page or a pointer of "
        "Git LFS ('vers') may have come instead of the file.",
        AGAIN,
    ),
    cause(
        "empty model",
        r"failed to read magic",
        "The model is no GGUF: its file is empty, or a folder.",
        AGAIN,
    ),
    cause(
        "model truncated",
        r"tensor '(?P<tensor>[^']+)' data is not within the file bounds|failed to read (?P<what>key-value pairs|tensor "
        r"info|tensor data|header)|unexpectedly reached end of file",
        "The model is cut short or damaged: its file ends before all of it has come ({what}{tensor}).",
        AGAIN,
    ),
    cause(
        "architecture unknown",
        r"unknown model architecture: '(?P<found>[^']+)'",
        "The image is too old for the model: its llama-server does not know the architecture {found}.",
        NEWER,
    ),
    cause(
        "tokenizer unknown",
        r"unknown (?P<what>pre-tokenizer type|tokenizer): '?(?P<found>[^']+)'?",
        "The image is too old for the model: its llama-server does not know the {what} {found}.",
        NEWER,
    ),
    cause(
        "tensor missing",
        r"tensor '(?P<tensor>[^']+)' not found|missing tensor '(?P<also>[^']+)'|key not found in model: (?P<key>\S+)|"
        r"wrong number of tensors|has wrong shape",
        "The model and the llama-server in this image do not fit: it lacks {tensor}{also}{key}. It was made for "
        "another version of llama.cpp, or is damaged.",
        "Use a newer image, or fetch the model as it is published today.",
    ),
)
