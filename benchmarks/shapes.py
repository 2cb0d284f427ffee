"""The shipped 7B and 8B configs without weights: shapes after growth, which modules train, the trainable share, memory a GPU.

The models are built on torch's meta device from LLaMA's published shapes, grown to the rows that launch/configs/FOLDER/run.yaml asks
for, and given the LoRA of launch/configs/FOLDER/pretrain.yaml: seconds, and no memory. Llama-3.2-1B, whose embedding and head are one
matrix, has no config of its own and is given that of llama3_8b.

    python benchmarks/shapes.py [--gpus 8] [--memory 48] [--measure]

Memory a GPU is calculated, not measured on one. N GPUs, P parameters as PEFT holds them (the frozen originals of embedding and head lie
beside the trained copies), T of them trained, L layers, D width, F feed-forward, K width of keys and values, V ids, R tokens of a
micro-batch; bf16, gradient checkpointing, DeepSpeed's AdamW. GB are 1e9 bytes.

    weights      2 P;                 ZeRO-3: 2 P / N + 2 x stage3_max_live_parameters (1e9 unless set), as far as they are gathered
    gradients    2 T;                 ZeRO-2, 3: 2 T / N, and the largest gradient once, before it is split
    optimizer    12 T / N (float32 master, two moments); offload: 0
    buckets      2 x reduce_bucket_size of the JSON (5e8 unless set; auto: D x D), twice with overlap_comm
    borders      2 L D R: the hidden states between the layers
    peak         the larger of 14 V R, the logits of one micro-batch, all of them targets (in `sft` only answers are), and
                 (36.5 D + 10 F + 4 K + 152) R, the one layer that is recomputed: it comes when the logits have gone
    runtime      2 GB: CUDA context, NCCL, fragments (a guess)

Two of these numbers are measured on a CPU by `--measure` (2.4 GB of memory, 20 s): the 14 bytes a logit, and the bytes that autograd
saves in one bf16 layer with LoRA and dropout, fitted over five sizes. The float32 gradients of the optimizer's step, 4 T / N, come when
the logits have gone.
"""

from __future__ import annotations

import argparse
import json
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from llama_gene.config import parse
from llama_gene.models.adapters import attach_lora
from llama_gene.models.settings import LoraSettings
from llama_gene.recipes import pretrain, run

ROOT = Path(__file__).resolve().parents[1]
BYTES_A_LOGIT = 14
RUNTIME = 2e9


@dataclass(frozen=True)
class Base:
    """A published shape and the config folder that trains it."""

    name: str
    folder: str
    shape: dict[str, Any]


BASES = {
    base.name: base
    for base in (
        Base(
            "Llama-2-7B", "llama2_7b",
            {"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
             "num_key_value_heads": 32},
        ),
        Base(
            "Llama-3-8B", "llama3_8b",
            {"vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
             "num_key_value_heads": 8},
        ),
        Base(
            "Llama-3.2-1B", "llama3_8b",
            {"vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
             "num_key_value_heads": 8, "tie_word_embeddings": True},
        ),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Counts:
    """Parameters of an adapted model; a tied matrix counts once."""

    trained: int
    held: int
    """All that PEFT holds."""
    copies: int
    """Of these, the frozen originals of embedding and head, whose trained copies are used instead."""

    @property
    def needed(self) -> int:
        """All without PEFT's frozen copies."""
        return self.held - self.copies


def run_config(folder: str) -> Any:
    """Return launch/configs/`folder`/run.yaml as `llama-gene run` reads it."""
    return parse("run", run.Config, ["--config", str(ROOT / "launch/configs" / folder / "run.yaml")])


def pretrain_config(folder: str) -> Any:
    """Return launch/configs/`folder`/pretrain.yaml as `llama-gene pretrain` reads it."""
    return parse("pretrain", pretrain.Config, ["--config", str(ROOT / "launch/configs" / folder / "pretrain.yaml")])


def rows_after_growth(base: Base) -> int:
    """Return the ids of the base and of the pieces that its run.yaml adds."""
    return int(base.shape["vocab_size"] + sum(step.size for step in run_config(base.folder).vocab.steps))


def adapt(shape: dict[str, Any], rows: int, lora: LoraSettings) -> Any:
    """Return the base grown to `rows` embedding rows, with LoRA attached, on the meta device."""
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**shape))
        model.resize_token_embeddings(rows, mean_resizing=False)
        return attach_lora(model, lora)


def trained_modules(model: Any) -> dict[str, list[tuple[int, ...]]]:
    """Return the modules of the base that train, by their names there, with the shapes of what trains in them, sorted."""
    found: dict[str, list[tuple[int, ...]]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if parameter.requires_grad:
            module = name.removeprefix("base_model.model.").partition(".lora_")[0].partition(".modules_to_save")[0]
            found.setdefault(module, []).append(tuple(parameter.shape))
    return {module: sorted(shapes) for module, shapes in found.items()}


def count(model: Any) -> Counts:
    """Return how many parameters train and how many are held."""
    sizes = {name: (parameter.numel(), parameter.requires_grad) for name, parameter in model.named_parameters()}
    return Counts(
        trained=sum(size for size, trains in sizes.values() if trains),
        held=sum(size for size, _ in sizes.values()),
        copies=sum(size for name, (size, _) in sizes.items() if ".original_module." in name),
    )


def fixed_bytes(counts: Counts, shape: dict[str, Any], rows: int, zero_json: Path, gpus: int) -> dict[str, float]:
    """Return what a GPU keeps whatever the micro-batch: weights, gradients, optimizer, buckets, runtime, in bytes."""
    zero = json.loads(zero_json.read_text())["zero_optimization"]
    stage, width = zero["stage"], shape["hidden_size"]
    weights, gradients = 2.0 * counts.held, 2.0 * counts.trained
    if stage == 3:
        weights = min(weights, weights / gpus + 2 * float(zero.get("stage3_max_live_parameters", 1e9)))
    if stage >= 2:
        gradients = gradients / gpus + 2.0 * rows * width
    bucket = zero.get("reduce_bucket_size", 5e8)
    buckets = 2.0 * (width * width if bucket == "auto" else bucket) * (2 if zero.get("overlap_comm") else 1)
    optimizer = 0.0 if "offload_optimizer" in zero else 12.0 * counts.trained / gpus
    if "offload_param" in zero:
        weights -= 2.0 * counts.held / gpus
    return {"weights": weights, "gradients": gradients, "optimizer": optimizer, "buckets": buckets, "runtime": RUNTIME}


def moving_bytes(shape: dict[str, Any], rows: int, tokens: int) -> dict[str, float]:
    """Return what a micro-batch of so many tokens needs, in bytes: borders of the layers, and the peak beside them."""
    width, feed_forward = shape["hidden_size"], shape["intermediate_size"]
    keys = width * shape["num_key_value_heads"] // shape["num_attention_heads"]
    layer = tokens * (36.5 * width + 10 * feed_forward + 4 * keys + 152)
    return {"borders": 2.0 * shape["num_hidden_layers"] * width * tokens, "peak": max(float(BYTES_A_LOGIT) * rows * tokens, layer)}


def print_shapes() -> None:
    """Print the table of shapes."""
    print("| base | rows after growth | trained | of, as PEFT holds them | share | of, without PEFT's frozen copies | share |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for base in BASES.values():
        rows = rows_after_growth(base)
        counts = count(adapt(base.shape, rows, pretrain_config(base.folder).lora))
        shares = [f"{100 * counts.trained / total:.1f} %" for total in (counts.held, counts.needed)]
        name = f"{base.name}, tied" if base.shape.get("tie_word_embeddings") else base.name
        print(f"| {name} | {rows:,} | {counts.trained:,} | {counts.held:,} | {shares[0]} | {counts.needed:,} | {shares[1]} |")


def print_memory(gpus: int, limit: float) -> None:
    """Print the table of memory; `limit` in GB."""
    print(f"| GB a GPU of {gpus} | weights | gradients | optimizer | buckets | borders | peak | all | {limit:.0f} GB | most rows |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---|---:|")
    for base in BASES.values():
        settings, rows = pretrain_config(base.folder), rows_after_growth(base)
        row_length = run_config(base.folder).pack.row_length
        counts = count(adapt(base.shape, rows, settings.lora))
        for name in ("zero1", "zero2", "zero2_offload", "zero3", "zero3_offload"):
            fixed = fixed_bytes(counts, base.shape, rows, ROOT / f"ds_configs/{name}.json", gpus)
            tokens = settings.train.batch_size * row_length
            moving = moving_bytes(base.shape, rows, tokens)
            total = sum(fixed.values()) + sum(moving.values())
            room = 1e9 * limit - sum(fixed.values())
            most = max(0, int(room // (sum(moving.values()) / settings.train.batch_size)))
            parts = [fixed[part] for part in ("weights", "gradients", "optimizer", "buckets")] + list(moving.values())
            cells = " | ".join(f"{part / 1e9:.1f}" for part in [*parts, total])
            fits = "fits" if total <= 1e9 * limit else "too small"
            print(f"| {base.name}, {settings.train.batch_size} x {row_length} tokens, {name} | {cells} | {fits} | {most} |")


def measured_logit_bytes(num: int = 1536, rows: int = 92160) -> float:
    """Return by how much resident memory grows, at its peak, in head and cross-entropy of `num` targets, in bytes a logit."""
    head = torch.randn(rows, 16, dtype=torch.bfloat16).requires_grad_()
    hidden, wanted = torch.randn(num, 16, dtype=torch.bfloat16).requires_grad_(), torch.randint(0, rows, (num,))
    cross_entropy((hidden[:8] @ head.t()).float(), wanted[:8]).backward()  # what is needed once
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    logits = hidden @ head.t()  # held, as the model's output is
    cross_entropy(logits.float(), wanted, reduction="sum").backward()
    return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / num / rows


def saved_by_layer(width: int, feed_forward: int, keys: int, tokens: int = 512) -> float:
    """Return the bytes a token that autograd saves in one bf16 layer with LoRA and dropout; weights are not counted."""
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=width,
        intermediate_size=feed_forward,
        num_hidden_layers=1,
        num_attention_heads=8,
        num_key_value_heads=keys,
    )
    model = attach_lora(LlamaForCausalLM(config), LoraSettings(modules_to_save=[])).to(torch.bfloat16).train()
    body: Any = model.get_base_model().model
    states = torch.randn(1, tokens, width, dtype=torch.bfloat16, requires_grad=True)
    places = torch.arange(tokens)[None]
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    saved: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        angles = body.rotary_emb(states, places)
        body.layers[0](states, attention_mask=None, position_ids=places, position_embeddings=angles, use_cache=False)
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values()) / tokens


def measure() -> None:
    """Print the two measured numbers."""
    print(f"head and cross-entropy: {measured_logit_bytes():.2f} bytes a logit")
    sizes = [(256, 512, 8), (256, 1024, 8), (512, 1024, 8), (512, 2048, 8), (512, 1024, 2)]
    table = np.array([[width, feed_forward, width * keys / 8, 1.0] for width, feed_forward, keys in sizes])
    fitted = np.linalg.lstsq(table, np.array([saved_by_layer(*size) for size in sizes]), rcond=None)[0]
    print("one layer: {:.1f} D + {:.1f} F + {:.1f} K + {:.0f} bytes a token".format(*fitted))


def main() -> None:
    """Print both tables, or measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--memory", type=float, default=48.0, help="GB of a GPU")
    parser.add_argument("--measure", action="store_true", help="measure bytes a logit and a layer instead")
    asked = parser.parse_args()
    if asked.measure:
        measure()
        return
    print_shapes()
    print()
    print_memory(asked.gpus, asked.memory)


if __name__ == "__main__":
    main()
