"""Training a head: a label, a number or a label for each token of a row, right-padded rows, the checkpoint that dev likes best.

The same Trainer as for packed rows (`trainer.fit`): the same order of rows for any number of processes, resumed in the same way. The loss
is the mean cross-entropy over the rows (tokens with a label) of the whole global batch; of numbers, the mean squared error. transformers'
classifiers take the mean of each micro-batch and are not told how many there are, so that accumulation would multiply their gradient;
hence losses of our own.

Dev is measured at every checkpoint and at the end; the earliest checkpoint with the best dev score is kept. Test rows never come here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from llama_gene import runtime
from llama_gene.data.mixing import mixture_index
from llama_gene.models.heads import pad_rows
from llama_gene.models.task_heads import IGNORED
from llama_gene.training.settings import TrainSettings
from llama_gene.training.trainer import fit, plan_steps

Metric = Callable[[Any, Any], float]
"""(label numbers (N,), logits (N, K)) -> a score, higher is better."""


@dataclass(frozen=True)
class ClassifierResult:
    """What a run did, and what dev said."""

    steps: int
    chosen_step: int  # the step whose weights were kept
    tokens: int  # trained tokens of all processes, padding not counted
    history: list[dict[str, float]]  # step, loss, grad_norm, learning_rate
    looks: list[dict[str, float]]  # step, score, loss on dev


@dataclass(frozen=True)
class LabelledRow:
    """Token ids of a row and the number of its label, a value (float), or the number of each token's label (IGNORED where it has none)."""

    input_ids: list[int]
    label: int | float | list[int]


class LabelledRows(Dataset):  # type: ignore[type-arg]
    """Rows in the order of an index."""

    def __init__(self, rows: Sequence[LabelledRow], index: Sequence[int]) -> None:
        self.rows = rows
        self.index = index

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, place: int) -> LabelledRow:
        return self.rows[self.index[place]]


@dataclass
class LabelCollator:
    """Pad rows on the right to (B, T)."""

    pad_id: int

    def __call__(self, rows: Sequence[LabelledRow]) -> dict[str, torch.Tensor]:
        batch = pad_rows([row.input_ids for row in rows], self.pad_id)
        longest = batch["input_ids"].shape[1]
        labels = [[*row.label, *[IGNORED] * (longest - len(row.label))] if isinstance(row.label, list) else row.label for row in rows]
        return {**batch, "labels": torch.tensor(labels)}


def train_classifier(
    model: Any,
    rows: Sequence[LabelledRow],
    dev_rows: Sequence[LabelledRow],
    metric: Metric,
    settings: TrainSettings,
    work_dir: Path,
    key: str,
    loss: Callable[..., torch.Tensor] | None = None,
) -> tuple[ClassifierResult, Path]:
    """Train `model` in place; return the result and the folder with the chosen weights (on every rank).

    `loss` is `mean_cross_entropy` (labels of rows or tokens) unless another is given, `mean_squared_error` for numbers.

    `settings.save_steps` is the distance of the checkpoints, and so of the looks at dev (0: once an epoch). Without dev rows the last
    weights are kept. Raises what `trainer.fit` raises.
    """
    steps, rows_a_step = plan_steps(len(rows), settings, runtime.world_size())
    index = [number for _, number in mixture_index({"rows": len(rows)}, {"rows": 1.0}, steps * rows_a_step, settings.seed)]
    changes: dict[str, Any] = {}
    parts: dict[str, Any] = {}
    if dev_rows:
        every = min(settings.save_steps or math.ceil(len(rows) / rows_a_step), steps)
        changes = {
            "eval_strategy": "steps",
            "eval_steps": every,
            "save_strategy": "steps",
            "save_steps": every,
            "per_device_eval_batch_size": settings.batch_size,
            "load_best_model_at_end": True,
            "metric_for_best_model": "score",
            "greater_is_better": True,
        }
        parts = {
            "eval_dataset": LabelledRows(dev_rows, range(len(dev_rows))),
            "compute_metrics": lambda outcome: {"score": metric(outcome.label_ids, outcome.predictions)},
            "preprocess_logits_for_metrics": lambda logits, _: logits[0] if isinstance(logits, tuple) else logits,
        }
    fitted = fit(
        model,
        LabelledRows(rows, index),
        LabelCollator(model.config.pad_token_id),
        steps,
        settings,
        work_dir,
        key,
        changes,
        compute_loss_func=loss or mean_cross_entropy,
        **parts,
    )
    if settings.deepspeed is not None:
        unset_hf_deepspeed_config()  # under ZeRO-3, the model that the caller loads next would be partitioned as it is built
    looks = [
        {"step": entry["step"], "score": entry["eval_score"], "loss": entry["eval_loss"]}
        for entry in fitted.history
        if "eval_score" in entry
    ]
    result = ClassifierResult(
        steps=steps,
        tokens=sum(len(rows[number].input_ids) for number in index[fitted.first_step * rows_a_step :]),
        history=[entry for entry in fitted.history if "loss" in entry],
        looks=looks,
        chosen_step=int(max(looks, key=lambda look: (look["score"], -look["step"]))["step"]) if looks else steps,
    )
    return result, fitted.folder


def mean_cross_entropy(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
    """Return the cross-entropy summed over the labels at hand, divided by those of the whole global batch (in dev, by their number)."""
    logits = outputs["logits"].float().flatten(0, -2)
    total = torch.nn.functional.cross_entropy(logits, labels.flatten(), reduction="sum", ignore_index=IGNORED)
    return total / (num_items_in_batch if num_items_in_batch is not None else (labels != IGNORED).sum().clamp(min=1))


def mean_squared_error(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
    """Return the squared error summed over the rows at hand, divided by the rows of the whole global batch (in dev, by their number)."""
    total = torch.nn.functional.mse_loss(outputs["logits"].float().squeeze(-1), labels.float(), reduction="sum")
    return total / (num_items_in_batch if num_items_in_batch is not None else len(labels))
