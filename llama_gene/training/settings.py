"""How to train; no torch, so that the command line reads it quickly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


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
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm."""
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"
    """Arithmetic of the forward and backward pass; fp16 overflows where bf16 does not."""
    deepspeed: Path | None = None
    """DeepSpeed JSON (ds_configs/); unset: plain PyTorch, one process or DDP under torchrun."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: a third more work for much less memory."""
    logging_steps: int = 10
    """Steps between log lines."""
    save_steps: int = 0
    """Steps between checkpoints; 0: none before the end."""
    keep_checkpoints: int = 2
    """Checkpoints kept while training; they are deleted when the run has ended well."""
    tensorboard: bool = False
    """Write TensorBoard events beside the checkpoints."""
    seed: int = 0
    """Seed of the row order, of new weights and of dropout."""
    restart: bool = False
    """Drop checkpoints of an interrupted run instead of going on from them."""
