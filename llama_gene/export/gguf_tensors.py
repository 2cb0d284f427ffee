"""The weights of a model folder as GGUF names, orders and stores them, read one by one.

What differs from the safetensors:

- *Rotary positions.* transformers turns the first half of a head against the second, llama.cpp neighbours against each other; the rows
  of the query and key projections change places accordingly, 0, d/2, 1, d/2 + 1, ... within each head.
- *LLaMA-3's long context* (`rope_type: llama3`) is a factor for each frequency, in the tensor `rope_freqs.weight`.
- *A tied head* is not written; rows of padding, which no token has, are cut off.
- GPT-2's projections lie the other way round (Conv1D) and are turned.

Vectors (norms, biases) and GPT-2's position rows stay in float32 in every file, as llama.cpp expects. q8_0 holds blocks of 32 weights in
8 bits and a scale; a matrix whose rows are no multiple of 32 is written as f16 there, and counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from llama_gene.errors import InputError, MachineError, MismatchError
from llama_gene.export.tensors import StoredTensor, TensorFolder

if TYPE_CHECKING:
    from numpy.typing import NDArray

GGUFType = Literal["f32", "f16", "bf16", "q8_0"]
ROPE_TYPES = ("default", "linear", "llama3")
ROWS_AT_ONCE = 8192  # of 4,096 weights: 128 MB in float32
TURNED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")


@dataclass(frozen=True)
class PlannedTensor:
    """One tensor on its way from a safetensors file into the GGUF file."""

    name: str
    """GGUF's: blk.0.attn_q.weight."""
    source: str
    """transformers': model.layers.0.self_attn.q_proj.weight."""
    stored: StoredTensor
    shape: tuple[int, ...]
    """As it is written: rows of padding cut off, turned."""
    type: GGUFType
    heads: int = 0
    """Number of heads whose rows change places; 0: none."""
    turned: bool = False


def require_gguf() -> Any:
    """Return the module `gguf`. Raises MachineError, with the command that installs it, where it is absent."""
    try:
        import gguf
    except ImportError as error:
        raise MachineError("the package gguf is not installed", "the extra `gguf`", "pip install 'llama-gene[gguf]'") from error
    return gguf


def check_architecture(config: Any, where: Path) -> None:
    """Raise InputError for a network that GGUF's `llama` or `gpt2` would not compute as transformers does."""
    expected, action = "a LLaMA or a GPT-2 as transformers has them", "Use the folder in transformers or vLLM"
    problem = None
    if config.model_type == "llama":
        rope = config.rope_parameters.get("rope_type", "default")
        if rope not in ROPE_TYPES:
            problem, expected = f"scales its positions by '{rope}'", f"one of {', '.join(ROPE_TYPES)}"
        elif config.attention_bias or config.mlp_bias:
            problem = "has biases in its projections"
        elif config.hidden_act != "silu":
            problem = f"has the activation '{config.hidden_act}'"
    elif config.model_type == "gpt2":
        if config.activation_function != "gelu_new" or config.scale_attn_by_inverse_layer_idx or not config.scale_attn_weights:
            problem = "is a variant of GPT-2 (activation or scale of attention)"
    else:
        problem = f"is a '{config.model_type}'"
    if problem:
        raise InputError(f"{where}: the model {problem}", expected, action)


def plan_tensors(config: Any, folder: Path, kind: GGUFType, num_tokens: int) -> tuple[list[PlannedTensor], int]:
    """Return the tensors to write, and how many rows of padding are cut off.

    Raises MismatchError where a token has no row or a layer lacks a tensor, InputError for a missing or damaged
    shard and for a tensor that the architecture does not have.
    """
    gguf = require_gguf()
    architecture = {"llama": gguf.MODEL_ARCH.LLAMA, "gpt2": gguf.MODEL_ARCH.GPT2}[config.model_type]
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    plan, rows_cut = [], 0
    for source, stored in TensorFolder(folder).entries.items():
        path, shape = stored.path, stored.shape
        if source == "lm_head.weight" and config.tie_word_embeddings:
            continue
        name = names.get_name(source, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise InputError(
                f"{path}: GGUF's {config.model_type} has no place for '{source}'", "the tensors of that model", "Export it again"
            )
        if name.split(".")[0] in ("token_embd", "output"):
            if shape[0] < num_tokens:
                raise MismatchError(
                    f"{path}: '{source}' has {shape[0]:,} rows", f"one for each of {num_tokens:,} tokens", "Export it again"
                )
            rows_cut += shape[0] - num_tokens
            shape = (num_tokens, *shape[1:])
        turned = config.model_type == "gpt2" and source.endswith(TURNED)
        shape = shape[::-1] if turned else shape
        heads = {"attn_q": config.num_attention_heads, "attn_k": getattr(config, "num_key_value_heads", 0)}.get(name.split(".")[-2], 0)
        plan.append(PlannedTensor(name, source, stored, shape, _type_of(name, shape, kind), heads, turned))
    wanted = {name.format(bid=layer) for name in _needed(gguf, architecture, config) for layer in range(config.num_hidden_layers)}
    if lacking := sorted(wanted - {tensor.name.rpartition(".")[0] for tensor in plan}):
        raise MismatchError(f"{folder} has no tensor for '{lacking[0]}'", "a whole model", "Export it again")
    return plan, rows_cut


def read_tensor(tensor: PlannedTensor) -> NDArray[Any]:
    """Return a tensor as its bytes stand in the GGUF file, read by ROWS_AT_ONCE: memory is that of what is returned.

    Raises InputError where f16 cannot hold a weight.
    """
    if tensor.turned:
        return _written(tensor, tensor.stored.read().T)
    if tensor.heads:
        return _written(tensor, interleave_heads(tensor.stored.read(), tensor.heads))
    rows = tensor.shape[0]
    first = _written(tensor, tensor.stored.read(0, min(ROWS_AT_ONCE, rows)))
    written: NDArray[Any] = np.empty((rows, *first.shape[1:]), first.dtype)
    written[: len(first)] = first
    for start in range(ROWS_AT_ONCE, rows, ROWS_AT_ONCE):
        end = min(start + ROWS_AT_ONCE, rows)
        written[start:end] = _written(tensor, tensor.stored.read(start, end))
    return written


def _written(tensor: PlannedTensor, values: torch.Tensor) -> NDArray[Any]:
    """Return weights in the type of a tensor."""
    array: NDArray[np.float32] = values.float().contiguous().numpy()
    with np.errstate(over="ignore"):
        written: NDArray[Any] = require_gguf().quantize(array, number_of_type(tensor.type))
    if tensor.type == "f16" and np.isinf(written).any():
        largest = float(np.abs(array).max())
        raise InputError(f"{tensor.stored.path}: '{tensor.source}' holds {largest:g}", "weights below 65,504 for f16", "Write bf16 or q8_0")
    return written


def interleave_heads(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Return a query or key projection (rows, D) with the rows of each head in llama.cpp's order: 0, d/2, 1, d/2 + 1, ...

    >>> import torch
    >>> interleave_heads(torch.arange(8.0)[:, None], 2)[:, 0].int().tolist()
    [0, 2, 1, 3, 4, 6, 5, 7]
    """
    rows, *rest = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, *rest).transpose(1, 2).reshape(weight.shape)


def rope_factors(config: Any) -> NDArray[np.float32] | None:
    """Return by how much each rotary frequency is divided (d/2,), None where all are as they are or all share one factor."""
    if config.model_type != "llama" or config.rope_parameters.get("rope_type", "default") != "llama3":
        return None
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    plain = 1.0 / config.rope_parameters["rope_theta"] ** exponents
    factors: NDArray[np.float32] = (plain / scaled).numpy()
    return factors


def _needed(gguf: Any, architecture: Any, config: Any) -> list[str]:
    """Return the GGUF names of what a model must have; {bid} stands for the layer."""
    kinds = gguf.MODEL_TENSOR
    needed = [kinds.TOKEN_EMBD, kinds.OUTPUT_NORM, kinds.ATTN_NORM, kinds.ATTN_OUT, kinds.FFN_NORM, kinds.FFN_UP, kinds.FFN_DOWN]
    needed += (
        [kinds.ATTN_Q, kinds.ATTN_K, kinds.ATTN_V, kinds.FFN_GATE] if config.model_type == "llama" else [kinds.ATTN_QKV, kinds.POS_EMBD]
    )
    needed += [] if config.tie_word_embeddings else [kinds.OUTPUT]
    return [gguf.TENSOR_NAMES[kind] for kind in needed if kind in gguf.MODEL_TENSORS[architecture]]


def _type_of(name: str, shape: tuple[int, ...], kind: GGUFType) -> GGUFType:
    """Return the type that a tensor gets in a file of a kind."""
    if len(shape) < 2 or name.startswith("position_embd"):
        return "f32"
    return "f16" if kind == "q8_0" and shape[-1] % 32 else kind


def number_of_type(kind: GGUFType) -> Any:
    """Return gguf's own number of a type."""
    gguf = require_gguf()
    return gguf.GGMLQuantizationType[kind.upper()]
