# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write a model of random weights with the tokenizer and the chat template of a real model.

tiny.py MODEL OUTPUT        runs in the project's environment, which has llama.cpp's own GGUF writer

llama-server loads it in a fraction of a second and answers with random words.
"""

from __future__ import annotations

import sys

import gguf
import numpy

WIDTH, HEADS, LAYERS = 64, 2, 2
HEAD = WIDTH // HEADS
CONTEXT = 131072
CONTROL = 3  # llama.cpp's type of a token such as <|im_end|>


def main(model: str, output: str) -> None:
    keys = {name: key.contents() for name, key in gguf.GGUFReader(model).fields.items()}
    writer = gguf.GGUFWriter(output, "llama")
    writer.add_name("Tiny")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_rope_dimension_count(HEAD)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model(keys["tokenizer.ggml.model"])
    writer.add_tokenizer_pre(keys["tokenizer.ggml.pre"])
    writer.add_token_list(keys["tokenizer.ggml.tokens"])
    writer.add_token_types(keys["tokenizer.ggml.token_type"])
    writer.add_token_merges(keys["tokenizer.ggml.merges"])
    writer.add_bos_token_id(keys["tokenizer.ggml.bos_token_id"])
    writer.add_eos_token_id(keys["tokenizer.ggml.eos_token_id"])
    writer.add_chat_template(keys["tokenizer.chat_template"])

    random = numpy.random.default_rng(4403)
    embeddings = random.standard_normal((len(keys["tokenizer.ggml.tokens"]), WIDTH), numpy.float32)
    # A control token could end an answer early. With weights of zero it is never among the likely tokens.
    embeddings[numpy.array(keys["tokenizer.ggml.token_type"]) == CONTROL] = 0
    tensors = {"token_embd": embeddings, "output_norm": numpy.ones(WIDTH, numpy.float32)}
    for number in range(LAYERS):
        layer = f"blk.{number}."
        tensors |= {layer + name: numpy.ones(WIDTH, numpy.float32) for name in ("attn_norm", "ffn_norm")}
        rows = {"attn_q": WIDTH, "attn_k": HEAD, "attn_v": HEAD, "attn_output": WIDTH}
        rows |= {"ffn_gate": WIDTH, "ffn_up": WIDTH, "ffn_down": WIDTH}
        tensors |= {layer + name: random.standard_normal((count, WIDTH), numpy.float32) for name, count in rows.items()}
    for name, tensor in tensors.items():
        kind = gguf.GGMLQuantizationType.Q8_0 if tensor.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(f"{name}.weight", gguf.quants.quantize(tensor, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
