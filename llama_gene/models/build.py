"""Get a causal language model: load a base from a hub id or a folder, or make a small one from scratch.

Nothing outside this file knows what family a base is; everything else asks its config and its tokenizer.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from llama_gene import runtime
from llama_gene.errors import ConfigError, InputError, MachineError, MissingFileError
from llama_gene.models.settings import Architecture, Precision, Quantize

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


def refuse_pickled_weights(folder: Path, pattern: str = "*.safetensors") -> None:
    """Raise InputError where a folder holds its weights as a pickle only; what stands beside safetensors is never opened."""
    pickles = [path.name for path in sorted(folder.iterdir()) if path.suffix in PICKLES and "model" in path.name]
    if pickles and not any(folder.glob(pattern)):
        fault = f"{folder} holds its weights as a pickle ({pickles[0]}), which can run code when it is loaded"
        raise InputError(fault, "safetensors", "Convert it where you trust it (save_pretrained writes safetensors)")


def new_model(shape: Architecture, tokenizer: Any, seed: int = 0) -> PreTrainedModel:
    """Return a model of the given shape with seeded random weights, in float32, its vocabulary as large as the tokenizer's."""
    for name in ("width", "layers", "heads", "max_length"):
        if getattr(shape, name) < 1:
            raise ConfigError(f"architecture: {name} {getattr(shape, name)}", "sizes of at least 1", f"Change {name}")
    if shape.width % shape.heads:
        raise ConfigError(f"width {shape.width} is not divisible by heads {shape.heads}", "a multiple", "Change either")
    if shape.family == "llama" and shape.width // shape.heads % 2:
        found = f"width {shape.width} gives each of {shape.heads} heads {shape.width // shape.heads} numbers"
        raise ConfigError(found, "an even number, which rotary positions turn in pairs", "Change either")
    torch.manual_seed(seed)
    common = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": shape.tie_embeddings,
    }
    if shape.family == "llama":
        feed_forward = shape.feed_forward or -(-shape.width * 8 // 3 // 32) * 32
        return LlamaForCausalLM(
            LlamaConfig(
                hidden_size=shape.width,
                intermediate_size=feed_forward,
                num_hidden_layers=shape.layers,
                num_attention_heads=shape.heads,
                num_key_value_heads=shape.heads,
                max_position_embeddings=shape.max_length,
                **common,
            )
        )
    return GPT2LMHeadModel(
        GPT2Config(
            n_embd=shape.width,
            n_inner=shape.feed_forward or 4 * shape.width,
            n_layer=shape.layers,
            n_head=shape.heads,
            n_positions=shape.max_length,
            **common,
        )
    )


def load_base(
    name_or_path: str | Path, precision: Precision = "float32", quantize: Quantize = "none", attention: str | None = None
) -> PreTrainedModel:
    """Load a causal language model from a local folder or a hub id.

    `quantize` holds the linear layers (not embedding and head) in 4 or 8 bits; `attention` names the kernel, None for PyTorch's own.
    Raises MissingFileError for a folder that does not exist, InputError for one that is no model or a pickle, and MachineError, in one line
    that names HF_TOKEN, HF_HOME and HF_ENDPOINT and an ungated alternative, when a hub model cannot be had.
    """
    name = str(name_or_path)
    local = Path(name).expanduser()
    if local.is_dir():
        if not (local / "config.json").is_file():
            raise InputError(f"{local} has no config.json", "a Hugging Face model folder", "Check the path")
        refuse_pickled_weights(local)
        name = str(local)
    elif local.is_file():
        raise InputError(f"{local} is a file", "a Hugging Face model folder or a hub id", "Give the folder that holds config.json")
    elif name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise MissingFileError(name, "a Hugging Face model folder or a hub id such as meta-llama/Llama-2-7b-hf")
    options: dict[str, Any] = {"dtype": getattr(torch, precision)}
    if attention is not None:
        options["attn_implementation"] = attention
    if quantize != "none":
        options["quantization_config"] = _quantization(quantize, precision)
        if torch.cuda.is_available():  # packed weights cannot be moved between GPUs afterwards
            options["device_map"] = {"": runtime.local_rank()}
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(name, trust_remote_code=False, use_safetensors=True, **options)
    except ImportError as error:  # flash-attn, bitsandbytes
        raise MachineError(_first_line(error), "the package that it names", "Install it, or choose another kernel") from error
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if local.is_dir():
            raise InputError(
                f"{local}: {_first_line(error)}", "a causal language model", "Check the folder's config and weights"
            ) from error
        raise hub_error(name, error) from error
    written_as = ", ".join(getattr(model.config, "architectures", None) or [])
    if "SequenceClassification" in written_as:  # transformers would give it a random output head
        raise InputError(f"{name} is a {written_as}", "a causal language model", "Use the model that the classifier was made from")
    return model


def _quantization(quantize: Quantize, precision: Precision) -> Any:
    """Return the settings of bitsandbytes: NF4 with the constants quantized again, as QLoRA has it (Dettmers et al. 2023), or 8 bits."""
    from transformers import BitsAndBytesConfig

    if quantize == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=getattr(torch, precision)
    )


def frozen_precision(name: str, training: Literal["bf16", "fp16", "fp32"]) -> Precision:
    """Return the precision in which frozen weights are held while training: a 16-bit base is not widened for 16-bit arithmetic.

    A 7B base takes 13.5 GB of host memory for each process instead of 27.
    """
    if training == "fp32":
        return "float32"
    try:
        own = str(getattr(AutoConfig.from_pretrained(name), "dtype", None)).removeprefix("torch.")
    except (OSError, ValueError):
        return "float32"  # no model: `load_base` says so
    if own not in ("bfloat16", "float16"):
        return "float32"
    return "bfloat16" if training == "bf16" else "float16"


def hub_error(name: str, error: Exception) -> MachineError:
    """Return the one line for a hub model that is gated, unknown or out of reach."""
    offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
    return MachineError(
        f"the base '{name}' is no folder here and could not be loaded from the hub{offline}: {_first_line(error)}",
        "a reachable, ungated or already downloaded model",
        "Gated: accept its licence on the hub and set HF_TOKEN. Offline: put a copy under HF_HOME or pass a local folder. "
        "Behind a mirror: set HF_ENDPOINT. Ungated alternative: base huggyllama/llama-7b",
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0].rstrip(". ")[:200]
