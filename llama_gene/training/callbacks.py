"""What stops a run with advice: a loss that is not a number, before it gets into a checkpoint, and one that does not move."""

from __future__ import annotations

import math
from typing import Any

from transformers import TrainerCallback

from llama_gene.errors import LlamaGeneError

STUCK = 1e-5  # of the loss: float32 training that learns anything moves it by more, from batch to batch alone


class StopOnBadLoss(TrainerCallback):
    """Stop when the loss or the gradient norm is no longer finite (fp16: the loss only, its scaler tries norms that overflow), or when for
    `stuck_steps` steps the loss has stood still or no gradient has come."""

    def __init__(self, stuck_steps: int = 0) -> None:
        self.stuck_steps = stuck_steps
        self.moved: tuple[int, float] | None = None  # step and loss when it last moved
        self.no_gradient_since: int | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Look at the loss before every checkpoint too; a resumed run then also logs the means that an uninterrupted one logs."""
        if control.should_save:
            control.should_log = True
        return control

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Check what was just logged. Raises LlamaGeneError with advice."""
        self._check_stuck(state.global_step, logs or {})
        for name in ("loss",) if args.fp16 else ("loss", "grad_norm"):
            value = (logs or {}).get(name)
            if value is not None and not math.isfinite(float(value)):
                raise LlamaGeneError(
                    f"{name} is {value} at step {state.global_step}",
                    "a finite number",
                    "Lower train.learning_rate, add warm-up, or use precision bf16 instead of fp16; the last whole checkpoint is kept",
                )

    def _check_stuck(self, step: int, logs: dict[str, float]) -> None:
        """Raise LlamaGeneError where nothing has moved for long."""
        if not self.stuck_steps or "loss" not in logs:
            return
        loss = float(logs["loss"])
        if self.moved is None or abs(loss - self.moved[1]) > STUCK * abs(self.moved[1]):
            self.moved = step, loss
        has_gradient = float(logs.get("grad_norm", 1.0)) != 0.0
        self.no_gradient_since = None if has_gradient else self.no_gradient_since or step
        if step - self.moved[0] >= self.stuck_steps:
            raise LlamaGeneError(
                f"the loss has stood at {loss:g} for {step - self.moved[0]} steps",
                "a loss that moves",
                "Look at the rows (--preview 3): do any tokens train? Is train.learning_rate 0? train.stuck_steps sets the limit",
            )
        if self.no_gradient_since is not None and step - self.no_gradient_since >= self.stuck_steps:
            raise LlamaGeneError(
                f"no gradient has come for {step - self.no_gradient_since} steps, at step {step}",
                "a gradient norm above 0",
                "Use precision bf16 instead of fp16; look at what trains (--dry_run true); train.stuck_steps sets the limit",
            )
