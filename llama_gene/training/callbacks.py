"""What watches a run: a loss that is not a number stops it with advice, before it gets into a checkpoint."""

from __future__ import annotations

import math
from typing import Any

from transformers import TrainerCallback

from llama_gene.errors import LlamaGeneError


class StopOnBadLoss(TrainerCallback):
    """Stop when the loss or the gradient norm is no longer finite (fp16: the loss only, its scaler tries norms that overflow)."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Look at the loss before every checkpoint too; a resumed run then also logs the means that an uninterrupted one logs."""
        if control.should_save:
            control.should_log = True
        return control

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Check what was just logged. Raises LlamaGeneError with advice."""
        for name in ("loss",) if args.fp16 else ("loss", "grad_norm"):
            value = (logs or {}).get(name)
            if value is not None and not math.isfinite(float(value)):
                raise LlamaGeneError(
                    f"{name} is {value} at step {state.global_step}",
                    "a finite number",
                    "Lower train.learning_rate, add warm-up, or use precision bf16 instead of fp16; the last whole checkpoint is kept",
                )
