"""A loss or a gradient that is no number stops a run; fp16 may try norms that overflow."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import TrainerControl

from llama_gene.errors import LlamaGeneError
from llama_gene.training.callbacks import StopOnBadLoss


def log(fp16: bool = False, **logs: float) -> None:
    """Log values at step 7."""
    state: Any = SimpleNamespace(global_step=7)
    StopOnBadLoss().on_log(SimpleNamespace(fp16=fp16), state, TrainerControl(), logs)


@pytest.mark.parametrize("logs", [{"loss": math.nan}, {"loss": math.inf}, {"loss": 1.0, "grad_norm": math.nan}, {"grad_norm": math.inf}])
def test_what_is_no_number_stops_the_run_with_advice(logs: dict[str, float]) -> None:
    with pytest.raises(LlamaGeneError, match=r"is (nan|inf) at step 7; expected a finite number\. Lower train\.learning_rate"):
        log(**logs)


def test_finite_values_and_other_log_lines_pass() -> None:
    log(loss=3.5, grad_norm=120.0)
    log(train_runtime=12.0)


def test_fp16_may_overflow_in_the_gradient_but_not_in_the_loss() -> None:
    log(fp16=True, loss=3.5, grad_norm=math.inf)
    with pytest.raises(LlamaGeneError, match="loss is nan"):
        log(fp16=True, loss=math.nan)


def test_the_loss_is_looked_at_before_every_checkpoint() -> None:
    control = TrainerControl(should_save=True)
    assert StopOnBadLoss().on_step_end(None, None, control).should_log
    assert not StopOnBadLoss().on_step_end(None, None, TrainerControl()).should_log


def stuck(logs: list[dict[str, float]]) -> None:
    """Log values every ten steps to one callback that allows 30 steps without a move."""
    callback = StopOnBadLoss(stuck_steps=30)
    for number, values in enumerate(logs):
        state: Any = SimpleNamespace(global_step=10 * number)
        callback.on_log(SimpleNamespace(fp16=False), state, TrainerControl(), values)


def test_a_loss_that_stands_still_stops_the_run_with_advice() -> None:
    with pytest.raises(LlamaGeneError, match=r"the loss has stood at 2\.5 for 30 steps; expected a loss that moves"):
        stuck([{"loss": 3.0}, *[{"loss": 2.5, "grad_norm": 1.0}] * 4])
    stuck([{"loss": 2.5 + 0.001 * (number % 2), "grad_norm": 1.0} for number in range(20)])


def test_no_gradient_for_long_stops_the_run() -> None:
    with pytest.raises(LlamaGeneError, match="no gradient has come for 30 steps, at step 40"):
        stuck([{"loss": 3.0 - 0.1 * number, "grad_norm": float(number == 0)} for number in range(9)])
    stuck([{"loss": 3.0 - 0.1 * number, "grad_norm": float(number % 3 == 0)} for number in range(9)])
