# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""GGUF files: what is read from sound ones, and how damaged and incomplete ones are refused."""

from __future__ import annotations

import os
import random
import resource
import struct

import gguf as oracle
import numpy
import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gguf import file as gguf
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gguf.header import Array
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._gguf.types import FILE_TYPES, TENSOR_TYPES
from ansible_collections.gpufleet.llamacpp.tests.unit._gguf import gguf_builder as build


def read(tmp_path, content, name="m.gguf"):
    path = tmp_path / name
    path.write_bytes(content)
    return gguf.read(str(path))


def check_whole(path, found):
    return gguf.check_length(found) or gguf.check_holes(path, found)


def refusal(tmp_path, content):
    with pytest.raises(gguf.GgufError) as caught:
        read(tmp_path, content)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "m.gguf"))
    return message


def test_problems_name_the_file_as_it_is_shown(tmp_path):
    path = tmp_path / "staged.gguf"
    path.write_bytes(build.model()[:-100])
    found = gguf.read(str(path), shown="https://h/m.gguf")
    (problem,) = gguf.check_length(found)
    assert problem.path == found.path == "https://h/m.gguf"
    assert problem.text.startswith("https://h/m.gguf is cut short")
    path.write_bytes(b"")
    with pytest.raises(gguf.GgufError, match=r"^https://h/m\.gguf is empty"):
        gguf.read(str(path), shown="https://h/m.gguf")


# Sound files


def test_reads_a_small_model(tmp_path):
    found = read(tmp_path, build.model())
    assert found.metadata["general.architecture"] == "llama"
    assert found.metadata["tokenizer.ggml.tokens"] == Array(8, 3)
    assert found.metadata["tokenizer.ggml.scores"] == (0.0, 1.0, 2.0)
    assert [(tensor.name, tensor.size, tensor.elements) for tensor in found.tensors] == [
        ("one", 512, 128),
        ("two", 20, 32),
    ]
    assert found.required_size == found.data_offset + build.REQUIRED_AFTER_HEADER
    assert check_whole(found.path, found) == []


def test_version_2_has_the_same_layout(tmp_path):
    content = bytearray(build.model())
    content[4:8] = struct.pack("<I", 2)
    assert read(tmp_path, bytes(content)).parameters == 160


def test_summary_of_a_small_model(tmp_path):
    assert gguf.summary([read(tmp_path, build.model())]) == {
        "architecture": "llama",
        "name": "Tiny",
        "quantization": "Q4_1",
        "parameters": 160,
        "layers": 2,
        "experts": None,
        "experts_used": None,
        "context_length": 4096,
        "chat_template": True,
        "tensor_bytes": 532,
        "kv_bytes_per_token": 2 * 2 * (16 + 16) * 2,
        "kv_window_bytes_per_token": 0,
        "sliding_window": None,
    }


def test_summary_has_the_same_keys_for_a_file_without_metadata(tmp_path):
    found = gguf.summary([read(tmp_path, build.header([], []))])
    assert tuple(found) == gguf.SUMMARY_KEYS
    assert found["quantization"] is None


@pytest.mark.parametrize(("recorded", "expected"), [(15, "Q4_K_M"), (1024 + 15, "Q4_K_M"), (999, "F32"), (None, "F32")])
def test_quantization_by_file_type_else_by_the_weights(tmp_path, recorded, expected):
    keys = [] if recorded is None else [build.key("general.file_type", "u32", recorded)]
    content = build.padded(build.header(keys, build.TENSORS)) + build.DATA
    assert gguf.summary([read(tmp_path, content)])["quantization"] == expected


def test_long_arrays_are_counted_and_not_kept(tmp_path):
    content = build.header([build.key("a", "array:i32", range(5000)), build.key("b", "u32", 7)], [])
    assert read(tmp_path, content).metadata == {"a": Array(5, 5000), "b": 7}


def test_a_vocabulary_larger_than_the_window(tmp_path):
    tokens = ["x" * (index % 300) for index in range(30000)]  # some 4 MiB
    keys = [build.key("tokenizer.ggml.tokens", "array:str", tokens), build.key("after", "str", "here")]
    found = read(tmp_path, build.padded(build.header(keys, build.TENSORS)) + build.DATA)
    assert found.metadata == {"tokenizer.ggml.tokens": Array(8, 30000), "after": "here"}
    assert [tensor.name for tensor in found.tensors] == ["one", "two"]


def test_alignment_moves_data_and_offsets(tmp_path):
    keys = [build.key("general.alignment", "u32", 256)]
    tensors = [build.tensor("one", [4], 0, 0), build.tensor("two", [4], 0, 256)]
    found = read(tmp_path, build.padded(build.header(keys, tensors), 256) + bytes(272))
    assert found.data_offset % 256 == 0
    assert found.required_size == found.data_offset + 256 + 16


def test_a_part_without_tensors_ends_with_its_header(tmp_path):
    content = build.header(build.LLAMA, [])
    found = read(tmp_path, content)
    assert found.required_size == len(content)
    assert check_whole(found.path, found) == []


# The oracle: gguf-py, llama.cpp's own package


def test_tables_agree_with_gguf_py():
    sizes = {int(kind): (kind.name, *size) for kind, size in oracle.GGML_QUANT_SIZES.items()}
    # Not found in files. gguf-py 0.19 still has its old layout; ggml-common.h has two halves and 32 bytes: 36.
    sizes.pop(int(oracle.GGMLQuantizationType.Q8_1))
    assert {kind: TENSOR_TYPES[kind] for kind in sizes} == sizes
    names = {int(kind): kind.name for kind in oracle.LlamaFileType if kind.name != "GUESSED"}
    ours = {kind: name for kind, name in FILE_TYPES.items() if kind in names}
    assert ours == {kind: name.replace("MOSTLY_", "").replace("ALL_", "") for kind, name in names.items()}


def test_reads_what_gguf_py_writes_and_agrees_with_its_reader(tmp_path):
    path = str(tmp_path / "written.gguf")
    writer = oracle.GGUFWriter(path, "llama")
    writer.add_name("Öl")
    writer.add_file_type(oracle.LlamaFileType.MOSTLY_Q8_0)
    writer.add_block_count(1)
    writer.add_token_list(["<s>", "ä", "日本"])
    writer.add_head_count_kv([1, 2, 3])
    writer.add_float32("a.float", 0.5)
    writer.add_bool("a.bool", True)
    writer.add_tensor("weight", numpy.arange(64 * 3, dtype=numpy.float32).reshape(3, 64))
    packed = oracle.quants.quantize(numpy.ones((2, 32), dtype=numpy.float32), oracle.GGMLQuantizationType.Q8_0)
    writer.add_tensor("packed", packed, raw_dtype=oracle.GGMLQuantizationType.Q8_0)
    writer.add_tensor("half", numpy.ones(5, dtype=numpy.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    found, theirs = gguf.read(path), oracle.GGUFReader(path)
    assert [
        (tensor.name, tensor.elements, tensor.type, found.data_offset + tensor.offset, tensor.size)
        for tensor in found.tensors
    ] == [
        (tensor.name, tensor.n_elements, int(tensor.tensor_type), tensor.data_offset, tensor.n_bytes)
        for tensor in theirs.tensors
    ]
    assert found.data_offset == theirs.data_offset
    assert found.metadata["general.name"] == "Öl"
    assert found.metadata["llama.attention.head_count_kv"] == (1, 2, 3)
    assert (found.metadata["a.float"], found.metadata["a.bool"]) == (0.5, True)
    assert check_whole(path, found) == []


# Files that are not GGUF


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty (0 bytes)"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "an HTML or XML page"),
        (b"\r\n  <html>", "an HTML or XML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "a git-LFS pointer"),
        (b'{"error": "not found"}', "a JSON text"),
        (b"PK\x03\x04rest", "a zip archive"),
        (b"tjggrest", "a GGJT file"),
        (bytes(4096), "interrupted download or a power cut"),
        (b"GG", "starts with b'GG' instead of"),
        (b"abcdefgh", "starts with b'abcd' instead of"),
    ],
)
def test_the_kind_of_another_file_is_named(tmp_path, content, words):
    assert words in refusal(tmp_path, content)


def test_big_endian_is_refused(tmp_path):
    assert "big-endian" in refusal(tmp_path, b"GGUF" + struct.pack(">IQQ", 3, 1, 1) + bytes(50))


@pytest.mark.parametrize("version", [0, 1, 4])
def test_other_versions_are_refused(tmp_path, version):
    assert f"GGUF version {version}" in refusal(tmp_path, build.header([], [], version=version))


def test_a_file_cut_inside_its_header(tmp_path):
    assert "cut short inside its header: it has 100 bytes" in refusal(tmp_path, build.model()[:100])


@pytest.mark.parametrize(
    ("keys", "tensors", "words"),
    [
        ([build.key("a", "u8", 1)] * 2, [], "the key 'a' occurs twice"),
        ([build.text("a") + struct.pack("<I", 99)], [], "unknown value type 99"),
        ([build.text("a") + struct.pack("<IIQ", 9, 9, 1)], [], "an array of arrays"),
        ([build.text("a") + struct.pack("<IIQ", 9, 77, 1)], [], "an array of the unknown value type 77"),
        ([build.text(b"\xff\xfe") + struct.pack("<IB", 0, 1)], [], "not valid UTF-8"),
        ([struct.pack("<Q", 1 << 40)], [], "a key has 1099511627776 bytes"),
        ([build.text("a") + struct.pack("<IQ", 8, 1 << 62)], [], "cut short inside its header"),
        ([build.text("a") + struct.pack("<IIQ", 9, 8, 1 << 30)], [], "cut short inside its header"),
        ([build.text("a") + struct.pack("<IIQ", 9, 8, (1 << 64) - 1)], [], "cut short inside its header"),
        ([build.text("a") + struct.pack("<IIQ", 9, 4, (1 << 64) - 1)], [], "cut short inside its header"),
        ([build.text("a") + struct.pack("<IIQQ", 9, 8, 1, (1 << 64) - 1)], [], "cut short inside its header"),
        ([build.key("general.alignment", "u32", 24)], [], "general.alignment is 24"),
        ([build.key("general.alignment", "u32", 0)], [], "general.alignment is 0"),
        ([build.key("general.alignment", "str", "32")], [], "general.alignment is '32'"),
        ([], [build.tensor("t", [32], 0, 0)] * 2, "the tensor 't' occurs twice"),
        ([], [build.tensor("t", [32], 0, 32)], "starts at 32, and the tensors before it end at 0"),
        ([], [build.tensor("a", [64], 0, 0), build.tensor("b", [64], 0, 128)], "starts at 128"),
        ([], [build.tensor("t", [33], 8, 0)], "expected is a multiple of 32 for Q8_0"),
        ([], [build.tensor("t", [32], 4, 0)], "has a tensor 't' of the unknown type 4"),
        ([], [build.tensor("t", [-32], 0, 0)], "the impossible dimensions"),
        ([], [build.tensor("t", [1 << 40, 1 << 40], 0, 0)], "the impossible dimensions"),
        ([], [build.tensor("t", [1] * 5, 0, 0)], "has 5 dimensions"),
        ([], [build.tensor("t" * 64, [32], 0, 0)], "a tensor's name has 64 bytes"),
    ],
)
def test_damage_is_refused_as_llama_cpp_refuses_it(tmp_path, keys, tensors, words):
    assert words in refusal(tmp_path, build.padded(build.header(keys, tensors)) + bytes(64))


def test_impossible_counts_are_refused_before_anything_is_allocated(tmp_path):
    assert "announces" in refusal(tmp_path, b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1 << 60))


# Hostile input


def test_every_truncation_is_found(tmp_path):
    content = build.model()
    data_offset = read(tmp_path, content).data_offset
    path = tmp_path / "cut.gguf"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        try:
            found = gguf.read(str(path))
        except gguf.GgufError:
            continue
        whole = length >= data_offset + build.REQUIRED_AFTER_HEADER
        assert (check_whole(str(path), found) == []) == whole, length


def test_flipped_bytes_never_raise_anything_but_gguf_error(tmp_path):
    content = build.model()
    end = len(content) - len(build.DATA)
    path = tmp_path / "flipped.gguf"
    choices = random.Random(4401)
    for position in range(end):
        for value in (0xFF, content[position] ^ 1, choices.randrange(256)):
            path.write_bytes(content[:position] + bytes([value]) + content[position + 1 :])
            try:
                found = gguf.read(str(path))
            except gguf.GgufError:
                continue
            check_whole(str(path), found)
            gguf.check_set([found])
            gguf.summary([found])


@pytest.mark.parametrize(
    "start",
    [
        build.text("a") + struct.pack("<IIQ", 9, 8, 1 << 28),  # strings that are all empty
        build.text("a") + struct.pack("<IIQ", 9, 4, 1 << 28),  # numbers
        build.text("a") + struct.pack("<IQ", 8, 100 << 20) + build.text("b") + struct.pack("<I", 9),  # one long text
    ],
)
def test_an_endless_header_is_not_read_into_memory(tmp_path, start):
    path = tmp_path / "endless.gguf"
    with open(path, "wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 0, 9) + start)
        file.truncate(4 << 30)  # sparse
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(gguf.GgufError):
        gguf.read(str(path))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10  # KiB


# Complete or not


def test_missing_data_is_reported_in_bytes(tmp_path):
    content = build.model()
    found = read(tmp_path, content[:-200])
    (problem,) = check_whole(found.path, found)
    needed = found.required_size
    assert f"it has {len(content) - 200} bytes of the {needed} that its header describes" in problem.text


def test_missing_padding_and_appended_bytes_are_no_damage(tmp_path):
    content = build.model()
    for whole in (content[:-12], content + b"more"):
        found = read(tmp_path, whole)
        assert check_whole(found.path, found) == []


def test_the_remedy_for_a_piece_of_a_cut_file(tmp_path):
    found = read(tmp_path, build.model()[:-200], "m.gguf.part1of3")
    assert "join all pieces" in check_whole(found.path, found)[0].remedy


def big_model(tensor_bytes):
    keys = [build.key("general.architecture", "str", "llama")]
    return build.padded(build.header(keys, [build.tensor("weights", [tensor_bytes // 4], 0, 0)]))


@pytest.mark.parametrize("how", ["sparse", "preallocated"])
def test_holes_are_found_where_nothing_was_written(tmp_path, how):
    path, start, size = tmp_path / "m.gguf", big_model(4 << 20), 4 << 20
    with open(path, "wb") as file:
        file.write(start)
        if how == "sparse":
            file.truncate(len(start) + size)
        else:
            os.posix_fallocate(file.fileno(), 0, len(start) + size)
        file.seek(2 << 20)
        file.write(b"\x01" * (1 << 20))
        file.flush()
        os.fsync(file.fileno())
    (problem,) = check_whole(str(path), gguf.read(str(path)))
    assert "has holes" in problem.text
    assert "tensor 'weights'" in problem.text


def test_written_zeros_are_no_holes(tmp_path):
    found = read(tmp_path, big_model(4 << 20) + bytes(4 << 20))
    assert check_whole(found.path, found) == []


def test_a_file_system_without_holes(tmp_path):
    def seek(handle, position, how):
        raise OSError(22, "Invalid argument")

    found = read(tmp_path, build.model())
    assert gguf.check_holes(found.path, found, seek) == []


# Split models


def test_all_parts_follow_from_any_part():
    parts = [f"/m/big-Q4-{part:05d}-of-00003.gguf" for part in (1, 2, 3)]
    assert gguf.split_paths(parts[1]) == parts
    assert gguf.split_paths("/m/small.gguf") == ["/m/small.gguf"]
    address = "https://h/big-00002-of-00002.gguf?download=true"
    assert gguf.split_paths(address)[0] == "https://h/big-00001-of-00002.gguf?download=true"
    assert gguf.split_paths("/m/what?-00001-of-00001.gguf") == ["/m/what?-00001-of-00001.gguf"]


@pytest.mark.parametrize("name", ["x-00004-of-00003.gguf", "x-00000-of-00003.gguf", "x-00001-of-00000.gguf"])
def test_impossible_parts_are_refused(name):
    with pytest.raises(gguf.GgufError, match="is named as part [0-9] of [0-9], expected is 1 to"):
        gguf.split_paths(f"/m/{name}")


def test_a_complete_split_model(tmp_path):
    parts = [gguf.read(str(path)) for path in build.split(tmp_path)]
    assert gguf.check_set(parts) == []
    found = gguf.summary(parts)
    assert (found["parameters"], found["tensor_bytes"], found["name"]) == (192, 768, "Tiny")


def test_swapped_parts_are_named(tmp_path):
    first, second, third = (gguf.read(str(path)) for path in build.split(tmp_path))
    problems = gguf.check_set([first, third, second])
    assert len(problems) == 2
    assert "part 2 of 3, and its header has split.no 2 and split.count 3, expected are 1 and 3" in problems[0].text


def test_a_part_of_another_split_is_found(tmp_path):
    two = [gguf.read(str(path)) for path in build.split(tmp_path, 2, "other")]
    assert "is a part of a model of 2 files" in gguf.check_set([*two, two[1]])[0].text


def test_missing_tensors_in_a_set_are_found(tmp_path):
    paths = build.split(tmp_path)
    keys = [build.key("split.no", "u16", 2), build.key("split.count", "u16", 3)]
    paths[2].write_bytes(build.header(keys, []))
    assert "have 2 tensors, expected are 3" in gguf.check_set([gguf.read(str(path)) for path in paths])[0].text


def test_a_part_under_another_name(tmp_path):
    part = gguf.read(str(build.split(tmp_path)[0]))
    assert "is one part of a model of 3 files" in gguf.check_set([part])[0].text
