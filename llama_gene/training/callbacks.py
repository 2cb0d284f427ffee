"""What watches a run: a loss that is not a number stops it with advice."""

from __future__ import annotations

import math
from typing import Any

from transformers import TrainerCallback

from llama_gene.errors import LlamaGeneError


class StopOnBadLoss(TrainerCallback):
    """Stop when the loss or the gradient norm is no longer finite."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Check what was just logged. Raises LlamaGeneError with advice."""
        for name in ("loss", "grad_norm"):
            value = (logs or {}).get(name)
            if value is not None and not math.isfinite(float(value)):
                raise LlamaGeneError(
                    f"{name} is {value} at step {state.global_step}",
                    "a finite number",
                    "Lower train.learning_rate, add warm-up, or use precision bf16 instead of fp16; the last whole checkpoint is kept",
                )
