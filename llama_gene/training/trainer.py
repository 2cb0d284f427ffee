"""Training: transformers.Trainer over packed rows, alone or under DeepSpeed. B rows, T tokens.

The order of rows is an index made beforehand from a seed (data/mixing.py) and read in sequence, so that the same global batches come in
the same order for any number of processes, and a resumed run goes on at the row where it stopped. A batch is input_ids, labels and
position_ids of shape (B, T) and *no* attention mask: positions that restart are what keeps packed documents apart (an all-ones mask
would let them see each other). The loss is the mean over the target tokens of the whole global batch, not a mean of means.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from torch.utils.data import Dataset, SequentialSampler
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from llama_gene import runtime
from llama_gene.data.mixing import RowIndex, mixture_index
from llama_gene.data.packing import IGNORED, expand_row
from llama_gene.data.rows import row_tokens
from llama_gene.errors import ConfigError
from llama_gene.models.adapters import save_adapter
from llama_gene.training.callbacks import StopOnBadLoss
from llama_gene.training.checkpoint import Launch, MarkWhole, check_weights, claim_folder, last_whole_checkpoint, one_line_for_full_disk
from llama_gene.training.loss import TargetLoss
from llama_gene.training.machine import check_machine
from llama_gene.training.memory import out_of_memory
from llama_gene.training.meter import Meter, peak_memory
from llama_gene.training.settings import TrainSettings
from llama_gene.training.stopping import StopOnSigterm
from llama_gene.training.watch import HeldOut, Watcher, looks

OPTIMIZERS = {"adamw": "adamw_torch_fused", "adamw_8bit": "adamw_bnb_8bit", "paged_adamw_8bit": "paged_adamw_8bit"}
LOGGED = ("step", "epoch", "loss", "grad_norm", "learning_rate")
"""What the history of a run holds: nothing that differs between two runs with the same seed."""


@dataclass
class TrainResult:
    """What a run did."""

    steps: int
    tokens: int  # trained tokens of all processes and all launches, padding not counted
    new_tokens: int  # those of this launch: fewer, where it went on from a checkpoint
    seconds: float  # wall time of this launch's training loop
    history: list[dict[str, float]] = field(default_factory=list)  # step, epoch, loss, grad_norm, learning_rate
    looks: list[dict[str, float]] = field(default_factory=list)  # step, held_out/LANGUAGE: bits per base, residue or byte
    speeds: list[float] = field(default_factory=list)  # tokens per second, from one log line to the next
    peak_memory: int = 0  # bytes that this process has held at most

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second of this launch, all processes together."""
        return self.new_tokens / self.seconds if self.seconds else 0.0


class IndexedRows(Dataset):  # type: ignore[type-arg]
    """The rows of an index, expanded when they are asked for."""

    def __init__(self, row_sets: Mapping[str, Any], index: RowIndex) -> None:
        self.row_sets = row_sets
        self.index = index

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, place: int) -> tuple[list[int], list[int], list[int]]:
        language, number = self.index[place]
        return expand_row(self.row_sets[language][number])

    def tokens(self) -> NDArray[np.int64]:
        """Return the tokens of each row, in the order of the index."""
        return self.index.sizes({language: row_tokens(rows) for language, rows in self.row_sets.items()})


@dataclass
class RowCollator:
    """Stack rows to (B, T); shorter rows are padded with tokens that carry no label and sit in a segment of their own.

    T is a multiple of 64: few shapes, so that the libraries' caches of kernels and memory stay small.
    """

    pad_id: int
    multiple: int = 64

    def __call__(self, rows: Sequence[tuple[list[int], list[int], list[int]]]) -> dict[str, torch.Tensor]:
        longest = -(-max(len(row[0]) for row in rows) // self.multiple) * self.multiple
        batch: dict[str, list[list[int]]] = {"input_ids": [], "labels": [], "position_ids": []}
        for input_ids, labels, positions in rows:
            missing = longest - len(input_ids)
            batch["input_ids"].append(input_ids + [self.pad_id] * missing)
            batch["labels"].append(labels + [IGNORED] * missing)
            batch["position_ids"].append(positions + list(range(missing)))
        return {name: torch.tensor(values, dtype=torch.long) for name, values in batch.items()}


class RowTrainer(Trainer):
    """A Trainer that reads its index in order, saves adapters our way and says how fast it is."""

    meter: Meter | None = None
    loraplus_ratio = 0.0
    optimizer: Any  # mypy cannot always see the Trainer's own

    def create_optimizer(self, model: Any = None) -> Any:
        """Give B of each adapter its own learning rate where LoRA+ is asked for."""
        if self.optimizer is None and self.loraplus_ratio:
            from peft.optimizers import create_loraplus_optimizer

            adapted: Any = self.model
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, adapted)
            options = {**options, "weight_decay": self.args.weight_decay, "loraplus_weight_decay": self.args.weight_decay}
            self.optimizer = create_loraplus_optimizer(adapted, kind, loraplus_lr_ratio=self.loraplus_ratio, **options)
        return super().create_optimizer(model)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add speed and memory to what is logged with a loss."""
        if self.meter is not None and "loss" in logs:
            logs |= self.meter.read(self.state.global_step)
        super().log(logs, start_time)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *rest: Any, **named: Any) -> Any:
        """Tell the loss where the targets are before the forward pass."""
        if isinstance(self.compute_loss_func, TargetLoss):
            self.compute_loss_func.see(inputs["labels"])
        return super().compute_loss(model, inputs, *rest, **named)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        rows: Any = train_dataset if train_dataset is not None else self.train_dataset
        return SequentialSampler(rows)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Leave nothing half-written where the disk is full."""
        with one_line_for_full_disk(Path(self.args.output_dir or ".") / f"checkpoint-{self.state.global_step}"):
            super()._save_checkpoint(model, trial)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if isinstance(self.model, PeftModel):
            if self.args.should_save:
                save_adapter(self.model, output_dir or self.args.output_dir or ".", state_dict)
        else:
            super()._save(output_dir, state_dict)


def rows_an_epoch(num_rows: Mapping[str, int], shares: Mapping[str, float]) -> int:
    """Return how many rows make a pass over the row set with the largest share, the others mixed in by theirs.

    >>> rows_an_epoch({"instructions": 90, "english": 500}, {"instructions": 0.9, "english": 0.1})
    100
    """
    largest = max(shares, key=lambda name: shares[name])
    return math.ceil(num_rows.get(largest, 0) * sum(shares.values()) / shares[largest] - 1e-9) if shares[largest] > 0 else 0


def plan_run(row_sets: Mapping[str, Any], shares: Mapping[str, float], settings: TrainSettings) -> tuple[int, int, RowIndex]:
    """Return (optimizer steps, rows a step, the rows in the order in which they are read). Raises ConfigError as its parts do."""
    num_rows = {name: len(rows) for name, rows in row_sets.items()}
    mixture_index(num_rows, shares, 0, settings.seed)  # a wrong share is said before it makes an epoch of no rows
    steps, rows_a_step = plan_steps(rows_an_epoch(num_rows, shares), settings, runtime.world_size())
    return steps, rows_a_step, mixture_index(num_rows, shares, steps * rows_a_step, settings.seed)


def plan_steps(num_rows: int, settings: TrainSettings, processes: int) -> tuple[int, int]:
    """Return (optimizer steps, rows a step). Raises ConfigError for a setting that leaves nothing to do."""
    if settings.batch_size < 1 or settings.accumulation < 1:
        raise ConfigError(f"batch_size {settings.batch_size}, accumulation {settings.accumulation}", "both at least 1")
    rows_a_step = settings.batch_size * settings.accumulation * processes
    steps = settings.steps or math.ceil(settings.epochs * num_rows / rows_a_step)
    if steps < 1:
        raise ConfigError(f"steps {settings.steps} and epochs {settings.epochs} leave nothing to do", "at least one step")
    return steps, rows_a_step


def train(
    model: Any,
    row_sets: Mapping[str, Any],
    shares: Mapping[str, float],
    pad_id: int,
    settings: TrainSettings,
    work_dir: Path,
    key: str,
    held_out: HeldOut | None = None,
    save: bool = True,
) -> tuple[TrainResult, Path]:
    """Train `model` in place; return the result and the folder with the saved weights (on every rank).

    Without `save` the weights are not written. `work_dir` holds checkpoints while training; `key` names config and rows, and a working
    folder of another key is refused.
    Raises ConfigError, MachineError (no GPU for fp16, no compiler for DeepSpeed, no memory left), LlamaGeneError (the loss is not finite
    or does not move, a language is forgotten).
    """
    steps, rows_a_step, index = plan_run(row_sets, shares, settings)
    rows = IndexedRows(row_sets, index)
    runtime.get_logger().info("%s steps of %s rows, %s processes", f"{steps:,}", f"{rows_a_step:,}", runtime.world_size())
    tokens = rows.tokens()
    collator = RowCollator(pad_id)
    loss = TargetLoss(model)
    callbacks: list[Any] = []
    if held_out is not None and held_out.rows and settings.watch.tokens:
        callbacks.append(Watcher(held_out, settings.watch, settings.batch_size, collator, loss))
    longest = int(tokens.max())
    meter = Meter(model, tokens.reshape(steps, rows_a_step).sum(axis=1).cumsum(), longest)
    try:
        fitted = fit(
            model, rows, collator, steps, settings, work_dir, key, callbacks=callbacks, meter=meter, save=save, compute_loss_func=loss
        )
    except (RuntimeError, MemoryError) as error:
        advice = out_of_memory(error, model, settings, longest)
        if advice is None:
            raise
        raise advice from error
    finally:
        loss.remove()
    result = TrainResult(
        steps=steps,
        tokens=int(tokens.sum()),
        new_tokens=int(tokens[fitted.first_step * rows_a_step :].sum()),
        seconds=fitted.seconds,
        history=[{name: entry[name] for name in LOGGED if name in entry} for entry in fitted.history if "loss" in entry],
        looks=looks(fitted.history),
        speeds=[entry["tokens_per_second"] for entry in fitted.history if "tokens_per_second" in entry],
        peak_memory=peak_memory(),
    )
    return result, fitted.folder


@dataclass(frozen=True)
class Fitted:
    """What the Trainer did: where the weights are, what it logged, where it started."""

    folder: Path
    history: list[dict[str, float]]
    first_step: int  # 0, or the step of the checkpoint that the run went on from
    seconds: float


def fit(
    model: Any,
    rows: Any,
    collator: Any,
    steps: int,
    settings: TrainSettings,
    work_dir: Path,
    key: str,
    changes: Mapping[str, Any] | None = None,
    callbacks: Sequence[Any] = (),
    meter: Meter | None = None,
    save: bool = True,
    **parts: Any,
) -> Fitted:
    """Run the Trainer over `rows` in their order, resumed where it stopped, and save the weights; packed rows and classifiers alike.

    `changes` replace TrainingArguments, `parts` are handed to the Trainer (an eval_dataset, a loss of its own); a callback that has a
    `trainer` is told of it.
    """
    check_machine(settings)
    processes = runtime.world_size()
    deepspeed = settings.deepspeed.name if settings.deepspeed is not None else None
    launch = Launch(processes, settings.batch_size * settings.accumulation * processes, deepspeed)
    claim_folder(work_dir, key, settings.restart, launch)
    if settings.deepspeed is not None:
        runtime.set_single_process_rendezvous()
    on_cpu = not torch.cuda.is_available()
    choices: dict[str, Any] = dict(
        output_dir=str(work_dir),
        max_steps=steps,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.learning_rate,
        warmup_steps=math.ceil(settings.warmup_share * steps),
        lr_scheduler_type=settings.scheduler,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        bf16=settings.precision == "bf16",
        fp16=settings.precision == "fp16",
        deepspeed=str(settings.deepspeed) if settings.deepspeed is not None else None,
        activation_checkpointing=settings.gradient_checkpointing,
        logging_steps=settings.logging_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,  # it would hide a bad loss behind the mean of the good ones
        save_strategy="steps" if settings.save_steps else "no",
        save_steps=settings.save_steps or 500,
        report_to=settings.report_to,
        optim=OPTIMIZERS[settings.optimizer],
        seed=settings.seed,
        data_seed=settings.seed,
        average_tokens_across_devices=True,  # the loss is a mean over the targets of all processes, not a mean of their means
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        remove_unused_columns=False,
        ddp_find_unused_parameters=False if runtime.world_size() > 1 else None,
        disable_tqdm=runtime.rank() != 0,
    )
    arguments = TrainingArguments(**{**choices, **(changes or {})})
    use_cache = model.config.use_cache
    stop = StopOnSigterm()
    trainer = RowTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=collator,
        callbacks=[stop, MarkWhole(settings.keep_checkpoints), StopOnBadLoss(settings.stuck_steps), *callbacks],
        **parts,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.meter, trainer.loraplus_ratio = meter, settings.loraplus_ratio
    for callback in callbacks:
        callback.trainer = trainer
    resume_from = last_whole_checkpoint(work_dir)
    if resume_from is not None:
        runtime.get_logger().info("going on from %s", resume_from)
    first_step = int(resume_from.name.rsplit("-", 1)[1]) if resume_from else 0
    if meter is not None:
        meter.start(first_step)
    with stop:
        outcome = trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    stop.raise_if_stopped()
    model.config.use_cache = use_cache  # the Trainer switches it off, which does not belong into a saved config
    final = work_dir / "final"
    if save:
        with one_line_for_full_disk(final):
            trainer.save_model(str(final))
        trainer.accelerator.wait_for_everyone()
        check_weights(final, model)
    return Fitted(
        folder=final,
        history=trainer.state.log_history,
        first_step=first_step,
        seconds=float(outcome.metrics.get("train_runtime", 0.0)),
    )
