"""What a training run keeps in memory, calculated: for the dry run, and for the advice after memory ran out. B rows, T tokens.

For one process, in bytes. Activations: what the backward pass of a LLaMA block with LoRA keeps, measured on CPU in bfloat16
(`benchmarks/shapes.py --measure`): 36.5 x width + 10 x feed-forward + 4 x key width + 152 bytes a token and layer, twice that in float32;
or the block's input alone where activations are recomputed. Logits: 14 bytes each at their peak (16 in float32), for the target tokens of
a micro-batch. An estimate: allocators round up.
"""

from __future__ import annotations

from typing import Any

import torch

from llama_gene import runtime
from llama_gene.errors import MachineError
from llama_gene.training.settings import TrainSettings


def consumers(model: Any, settings: TrainSettings, row_length: int) -> dict[str, int]:
    """Return the bytes of each consumer of one process, largest first."""
    stage, offloaded = zero_stage(settings)
    world = runtime.world_size()
    in_16_bits = settings.precision != "fp32"
    frozen = trained = 0
    for parameter in model.parameters():
        size = int(getattr(parameter, "ds_numel", parameter.numel()))
        if parameter.requires_grad:
            trained += size
        else:
            frozen += size * int(parameter.element_size())
    config = model.config.get_text_config()
    number = 2 if in_16_bits else 4
    width, layers = config.hidden_size, config.num_hidden_layers
    feed_forward = getattr(config, "intermediate_size", None) or 4 * width
    tokens = settings.batch_size * row_length
    heads = config.num_attention_heads
    key_width = width // heads * (getattr(config, "num_key_value_heads", None) or heads)
    block = int(tokens * (36.5 * width + 10 * feed_forward + 4 * key_width + 152)) * number // 2
    stored = layers * tokens * width * number + block if settings.gradient_checkpointing else layers * block
    masters = 4 if stage and in_16_bits else 0
    # transformers keeps embeddings (not the head) in 32 bits under the 8-bit optimizers
    tables = [layer.weight for layer in model.modules() if isinstance(layer, torch.nn.Embedding) and layer.weight.requires_grad]
    wide = sum(int(getattr(weight, "ds_numel", weight.numel())) for weight in tables)
    states = 8 * trained if settings.optimizer == "adamw" else 8 * wide + 2 * (trained - wide)
    weight = (2 if stage and in_16_bits else 4) * trained
    found = {
        "frozen weights": frozen // (world if stage == 3 else 1),
        "trained weights": weight // (world if stage == 3 else 1),
        "gradients": weight // (world if stage >= 2 else 1),
        "optimizer states": 0 if offloaded else (states + masters * trained) // (world if stage else 1),
        f"activations of {settings.batch_size} rows of {row_length:,} tokens": stored,
        f"logits over {config.vocab_size:,} ids": tokens * config.vocab_size * (14 if in_16_bits else 16),
    }
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def zero_stage(settings: TrainSettings) -> tuple[int, bool]:
    """Return the ZeRO stage of a config (0 without DeepSpeed), and whether optimizer states lie in host memory."""
    if settings.deepspeed is None or not settings.deepspeed.is_file():
        return 0, False
    zero = runtime.read_json(settings.deepspeed).get("zero_optimization", {})
    return int(zero.get("stage", 0)), (zero.get("offload_optimizer") or {}).get("device", "none") != "none"


def smaller(settings: TrainSettings) -> str:
    """Return the next config that takes less memory and makes the same step."""
    stage, offloaded = zero_stage(settings)
    if settings.batch_size > 1:
        half = next(size for size in range(settings.batch_size // 2, 0, -1) if settings.batch_size % size == 0)
        return f"train.batch_size {half} and train.accumulation {settings.accumulation * settings.batch_size // half} (the same step)"
    if not settings.gradient_checkpointing:
        return "train.gradient_checkpointing true"
    if stage < 2:
        return "train.deepspeed ds_configs/zero2.json"
    if stage == 2 and not offloaded:
        return "train.deepspeed ds_configs/zero2_offload.json"
    if stage == 2 or not offloaded:
        return "train.deepspeed ds_configs/zero3_offload.json"
    return "shorter rows (pack.row_length), lora.quantize nf4, or more GPUs"


def out_of_memory(error: BaseException, model: Any, settings: TrainSettings, row_length: int) -> MachineError | None:
    """Return the one line for an error that says that memory ran out, None for any other error."""
    text = str(error)
    known = any(sign in text for sign in ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED"))
    if type(error).__name__ != "OutOfMemoryError" and not known and not isinstance(error, MemoryError):
        return None
    largest = ", ".join(f"{name} {size / 1e9:.2g} GB" for name, size in list(consumers(model, settings, row_length).items())[:5])
    return MachineError(
        f"memory ran out ({' '.join(text.split())[:120]})",
        f"room, calculated for a process: {largest}",
        f"Next to try: {smaller(settings)}",
    )
