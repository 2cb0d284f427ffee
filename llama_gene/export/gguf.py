"""Write an exported model folder as one GGUF file, which llama.cpp, Ollama and LM Studio read.

1. Plan: for each tensor of the safetensors files its GGUF name, shape and type. Nothing is read but the headers.
2. Write the metadata: the shape of the network, the vocabulary (gguf_tokens.py), the chat template, where the model comes from.
3. Write the tensors one by one: memory is that of the largest (92,160 x 4,096 in float32: 1.5 GB), whatever the model's size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoConfig

from llama_gene.export.gguf_tensors import (
    GGUFType,
    PlannedTensor,
    check_architecture,
    number_of_type,
    plan_tensors,
    read_tensor,
    require_gguf,
    rope_factors,
)
from llama_gene.export.gguf_tokens import TokenTable
from llama_gene.runtime import progress

ROPE_FACTORS = "rope_freqs.weight"


@dataclass(frozen=True)
class WrittenGGUF:
    """What was written."""

    tensors: int
    parameters: int
    types: dict[str, int]
    """Number of tensors of each type."""
    rows_cut: int
    """Rows of padding, of embedding and head together."""


def write_gguf(folder: Path, path: Path, kind: GGUFType, tokens: TokenTable, facts: Mapping[str, Any]) -> WrittenGGUF:
    """Write the model of `folder` to `path`.

    `facts` becomes metadata: a key with a dot as it is, another one under `llama_gene.`; texts, numbers and booleans.
    Raises InputError for a model that llama.cpp would run differently, MissingFileError for a missing shard.
    """
    gguf = require_gguf()
    config = AutoConfig.from_pretrained(folder)
    check_architecture(config, folder)
    num_tokens = len(tokens.tokens)
    plan, rows_cut = plan_tensors(config, folder, kind, num_tokens)
    writer = gguf.GGUFWriter(path, config.model_type)
    _add_shape(writer, config, num_tokens)
    writer.add_file_type(int(gguf.LlamaFileType[{"f32": "ALL_F32"}.get(kind, f"MOSTLY_{kind.upper()}")]))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_tokens(writer, tokens)
    for key, value in facts.items():
        _add_fact(writer, key if "." in key else f"llama_gene.{key}", value)
    factors = rope_factors(config)
    if factors is not None:
        writer.add_tensor_info(ROPE_FACTORS, factors.shape, factors.dtype, factors.nbytes)
    for tensor in plan:
        _announce(writer, tensor)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if factors is not None:
            writer.write_tensor_data(factors)
        with progress("gguf", "tensor", len(plan)) as bar:
            for tensor in plan:
                writer.write_tensor_data(read_tensor(tensor))
                bar.update(1)
    finally:
        writer.close()
    types = [tensor.type for tensor in plan] + ["f32"] * (factors is not None)
    return WrittenGGUF(
        tensors=len(types),
        parameters=sum(prod(tensor.shape) for tensor in plan),
        types={name: types.count(name) for name in sorted(set(types))},
        rows_cut=rows_cut,
    )


def _announce(writer: Any, tensor: PlannedTensor) -> None:
    """Enter a tensor that is written later into the file's table."""
    gguf = require_gguf()
    number = number_of_type(tensor.type)
    block, size = gguf.GGML_QUANT_SIZES[number]
    num_bytes = prod(tensor.shape) // block * size
    if tensor.type in ("f32", "f16"):
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(f"float{tensor.type[1:]}"), num_bytes, raw_dtype=number)
    else:  # the writer wants the shape in bytes where numpy has no such type
        shape = gguf.quant_shape_to_byte_shape(tensor.shape, number)
        writer.add_tensor_info(tensor.name, shape, np.dtype("uint8"), num_bytes, raw_dtype=number)


def _add_shape(writer: Any, config: Any, num_tokens: int) -> None:
    """Add the sizes of the network."""
    writer.add_vocab_size(num_tokens)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_head_count(config.num_attention_heads)
    if config.model_type == "gpt2":
        writer.add_feed_forward_length(config.n_inner or 4 * config.hidden_size)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if config.rope_parameters.get("rope_type") == "linear":
        from gguf import RopeScalingType

        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rope_parameters["factor"])


def _add_tokens(writer: Any, tokens: TokenTable) -> None:
    """Add the vocabulary."""
    writer.add_tokenizer_model(tokens.model)
    writer.add_tokenizer_pre(tokens.pre)
    writer.add_token_list(tokens.tokens)
    writer.add_token_types(tokens.types)
    if tokens.scores is not None:
        writer.add_token_scores(tokens.scores)
    if tokens.merges is not None:
        writer.add_token_merges(tokens.merges)
    add = {"bos": writer.add_bos_token_id, "eos": writer.add_eos_token_id, "unk": writer.add_unk_token_id, "pad": writer.add_pad_token_id}
    for name, number in tokens.special_ids.items():
        add[name](number)
    writer.add_add_bos_token(tokens.add_bos)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(tokens.add_space_prefix)
    if tokens.model == "llama":
        writer.add_remove_extra_whitespaces(False)
    if tokens.chat_template is not None:
        writer.add_chat_template(tokens.chat_template)


def _add_fact(writer: Any, key: str, value: Any) -> None:
    """Add one fact under its key."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float64(key, value)
    else:
        writer.add_string(key, str(value))
