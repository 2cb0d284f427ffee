"""How to train; no torch, so that the command line reads it quickly."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Optimizer = Literal["adamw", "adamw_8bit", "paged_adamw_8bit"]
Attention = Literal["auto", "eager", "sdpa", "flash_attention_2", "flex_attention"]


@dataclass
class WatchSettings:
    """Looks at held-out rows while training, in bits per base, residue or byte, and the guard against forgetting."""

    tokens: int = 32768
    """Held-out tokens of each language that a look reads; 0: no looks."""
    every: int = 500
    """Steps between looks; 0: none between the one before training and the one at its end."""
    guard: list[str] = field(default_factory=lambda: ["english"])
    """Languages that the base knew and must not forget: their bits are compared with those before training."""
    warn: float = 0.02
    """A warning is given where a guarded language needs more bits than before training by this share."""
    stop: float = 0.25
    """The run stops where a guarded language needs more bits by this share before the end; 0: never."""


@dataclass
class TrainSettings:
    """How to train."""

    steps: int = 0
    """Optimizer steps; 0: as many as `epochs` need."""
    epochs: float = 1.0
    """Passes over the language with the largest share, when steps is 0; the others come along by their shares."""
    batch_size: int = 8
    """Rows a process takes at a time."""
    accumulation: int = 1
    """Micro-batches a process adds up before a step; rows a step = batch_size x accumulation x processes."""
    learning_rate: float = 2e-4
    """Peak learning rate (LLaMA-Gene's code: 2e-4 for continued pretraining, 1e-4 for tuning)."""
    warmup_share: float = 0.05
    """Share of the steps over which the learning rate rises to its peak."""
    scheduler: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    """How the learning rate falls after the warm-up."""
    weight_decay: float = 0.01
    """AdamW's weight decay."""
    optimizer: Optimizer = "adamw"
    """AdamW in full precision, or bitsandbytes' with 8-bit states (paged: they give way to host memory); 8 bits save 6 bytes a weight."""
    loraplus_ratio: float = 0.0
    """LoRA+: learning rate of B over that of A (16 in Hayou et al. 2024); 0: the same rate for both."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm."""
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"
    """Arithmetic of the forward and backward pass; fp16 overflows where bf16 does not."""
    deepspeed: Path | None = None
    """DeepSpeed JSON (ds_configs/); unset: plain PyTorch, one process or DDP under torchrun."""
    attention: Attention = "auto"
    """Attention kernel; auto: PyTorch's own (sdpa). flash_attention_2 needs its package and a GPU, flex_attention a GPU."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: a third more work for much less memory."""
    logging_steps: int = 10
    """Steps between log lines."""
    save_steps: int = 0
    """Steps between checkpoints; 0: none before the end."""
    keep_checkpoints: int = 2
    """Checkpoints kept while training; they are deleted when the run has ended well."""
    report_to: list[str] = field(default_factory=lambda: ["tensorboard"])
    """Where the curves go: tensorboard (files in `runs`), or any tracker that transformers knows, such as wandb or mlflow; [] for none."""
    stuck_steps: int = 200
    """Stop when the loss has not moved at all, or no gradient has come, for so many steps; 0: never."""
    watch: WatchSettings = field(default_factory=WatchSettings)
    """Looks at held-out rows, and the guard against forgetting."""
    seed: int = 0
    """Seed of the row order, of new weights and of dropout."""
    restart: bool = False
    """Drop checkpoints of an interrupted run instead of going on from them."""
