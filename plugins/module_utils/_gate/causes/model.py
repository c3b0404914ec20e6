# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Causes in the model file: messages of llama-server (builds 10434, 11434 and 11669) that refuses to load it.

Private to gpufleet.llamacpp; may change at any time. Most were recorded from the real program with a broken file.
"""

from __future__ import annotations

from .cause import cause

NEWER_IMAGE = "Use a newer image, or a model file that was made for this version of llama.cpp."
FETCH_AGAIN = "Fetch the model again with gguf_model, which verifies it, and run the task again."

# A specific cause stands before the general ones that follow from it.
MODEL = (
    cause(
        "part missing",
        r"failed to load GGUF split from (?P<file>\S+)",
        text="llama-server cannot load {file}, a part of the split model",
        remedy="All parts must be in one folder and keep their names: fetch the missing one with gguf_model.",
    ),
    cause(
        "not the first part",
        r"illegal split file idx: (?P<number>\d+) \(file: (?P<file>[^)]+)\)",
        text="{file} is not the first part of its model, and llama-server needs the first one",
        remedy="Set model to the first part, ...-00001-of-....",
    ),
    cause(
        "part renamed",
        r"invalid split file name: (?P<file>\S+)",
        text="{file} is a part of a split model, and its name does not show which one",
        remedy="Give all parts their original names, ...-00001-of-0000N.gguf.",
    ),
    cause(
        "parts mixed",
        r"invalid split file idx|corrupted model: (?P<expected>\d+) tensors expected but (?P<found>\d+) found",
        text="The parts of the split model do not belong together",
        detail="they have {found} tensors, expected are {expected}",
        remedy=FETCH_AGAIN,
    ),
    cause(
        "model missing",
        r"failed to open GGUF file '?(?P<file>[^'(]+?)'? \(?No such file or directory",
        text="llama-server does not find the file {file}",
        remedy="Fetch it with gguf_model, or correct the path. Paths inside the container come from model and binds.",
    ),
    cause(
        "model not readable",
        r"failed to open GGUF file '?(?P<file>[^'(]+?)'? \(?(?P<reason>Permission denied|[A-Z][a-z ]+)",
        text="llama-server cannot open {file}",
        detail="{reason}",
        remedy="Let the user that the server runs as read it and enter its folders (chmod o+rX).",
    ),
    cause(
        "model too new",
        r"this GGUF file is version (?P<found>\d+) but this software only supports up to version (?P<known>\d+)",
        text="The model file has GGUF version {found}, and the llama-server in this image reads versions up to {known}",
        remedy=NEWER_IMAGE,
    ),
    cause(
        "model type too new",
        r"tensor '(?P<tensor>[^']+)' of type (?P<type>\d+)",
        r"tensor '(?P<tensor>[^']+)' has invalid ggml type (?P<type>\d+)",
        text="The tensor {tensor} of the model has type {type}, which the llama-server in this image does not know: "
        "the image is too old for this model, or the file is damaged",
        remedy=NEWER_IMAGE,
    ),
    cause(
        "not a GGUF",
        r"invalid magic characters: '(?P<found>[^']*)'",
        text="The model is not a GGUF file: it starts with '{found}' instead of 'GGUF'",
        remedy="The download may have stored a web page or a Git LFS pointer (which starts with 'vers'). "
        + FETCH_AGAIN,
    ),
    cause(
        "empty model",
        r"failed to read magic",
        text="The model is not a GGUF file: it is empty, or a folder",
        remedy=FETCH_AGAIN,
    ),
    cause(
        "model truncated",
        r"tensor '(?P<place>[^']+)' data is not within the file bounds|unexpectedly reached end of file",
        r"failed to read (?P<place>key-value pairs|tensor info|tensor data|header)",
        text="The model file is incomplete or damaged",
        detail="it ends before the end of {place}",
        remedy=FETCH_AGAIN,
    ),
    cause(
        "architecture unknown",
        r"unknown model architecture: '(?P<found>[^']+)'",
        text="The image is too old for the model: its llama-server does not know the architecture {found}",
        remedy=NEWER_IMAGE,
    ),
    cause(
        "tokenizer unknown",
        r"unknown (?P<kind>pre-tokenizer type|tokenizer): '?(?P<found>[^']+)'?",
        text="The image is too old for the model: its llama-server does not know the {kind} {found}",
        remedy=NEWER_IMAGE,
    ),
    cause(
        "tensor missing",
        r"tensor '(?P<missing>[^']+)' not found",
        r"missing tensor '(?P<missing>[^']+)'",
        r"key not found in model: (?P<missing>\S+)|wrong number of tensors|has wrong shape",
        text="The model does not fit the llama-server in this image",
        detail="it has no {missing}",
        remedy="The file was made for another version of llama.cpp, or is damaged: use a newer image, or fetch the "
        "model as it is published today.",
    ),
)
