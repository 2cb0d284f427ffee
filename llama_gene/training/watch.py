"""Looks at held-out rows while a run trains: bits per base, residue and byte, and a guard against forgetting what the base knew.

A look reads the same rows each time, without dropout, and adds up -log2 p of their target tokens; divided by the bytes of text that these
tokens stand for it is a number that no vocabulary can bend, so two runs with different pieces can be compared (a base or a residue is a
byte). The EOS of a document costs bits and stands for no text. The rows are dealt out to the processes, which all take the same number of
forward passes (ZeRO-3 needs them in step), and the sums are added up. No random number is drawn: a run that is watched ends in the same
weights as one that is not. The looks are logged, so they are in the checkpoints, and a resumed run compares with the same start.

The guard compares with the base as it was, not with the base after its vocabulary has grown, whose new rows take a share of the
probability (5 % more bits of English in a small model): before training, base ids are scored among base ids alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy
from transformers import TrainerCallback

from llama_gene import runtime
from llama_gene.data.packing import IGNORED, expand_row
from llama_gene.errors import LlamaGeneError
from llama_gene.training.loss import TargetLoss
from llama_gene.training.settings import WatchSettings

PREFIX = "held_out/"
BASE_PREFIX = "base/"
MAX_LOGITS = 2**27  # at a time: all tokens of a row are targets, more than in a tuning step


@dataclass(frozen=True)
class HeldOut:
    """What a look reads."""

    rows: Mapping[str, Sequence[Mapping[str, Any]]]
    """Rows of each language."""
    token_bytes: NDArray[np.int32]
    """Bytes of text that each id stands for."""
    units: Mapping[str, str]
    """What a byte of a language is: base, residue, byte."""
    guarded: Sequence[str] = ()
    """Languages that must not be forgotten."""
    num_base_ids: int | None = None
    """Ids that the base knew; None: all, nothing has grown."""


class Watcher(TrainerCallback):
    """Looks before the first step, every `settings.every` steps and after the last one. Raises LlamaGeneError where the guard stops."""

    def __init__(self, held_out: HeldOut, settings: WatchSettings, batch_size: int, collator: Any, loss: TargetLoss) -> None:
        self.held_out = held_out
        self.settings = settings
        widest = max((len(row["input_ids"]) for rows in held_out.rows.values() for row in rows), default=1)
        self.batch_size = max(1, min(batch_size, MAX_LOGITS // (widest * len(held_out.token_bytes))))
        self.collator = collator
        self.loss = loss
        self.trainer: Any = None  # set when there is one

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look at the untrained model; a resumed run has done so."""
        if not looks(state.log_history):
            self._look(state, control)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look when it is time."""
        every = self.settings.every
        if state.global_step >= state.max_steps or (every and state.global_step % every == 0):
            self._look(state, control)

    def _look(self, state: Any, control: Any) -> None:
        due = control.should_log  # to log is to have logged, for the Trainer: the loss of this step would be left out
        self._log(state)
        control.should_log = due

    def _log(self, state: Any) -> None:
        bits = {language: self._bits(rows) for language, rows in self.held_out.rows.items()}
        logged = {PREFIX + language: value for language, value in bits.items()}
        if not looks(state.log_history):
            logged["watch_tokens"] = self.settings.tokens
            known = {language: rows for language, rows in self.held_out.rows.items() if language in self.held_out.guarded}
            logged |= {BASE_PREFIX + language: self._bits(rows, self.held_out.num_base_ids) for language, rows in known.items()}
        self.trainer.log(logged)
        first = looks(state.log_history)[0]
        said = ", ".join(f"{language} {value:.3f} bits per {self.held_out.units[language]}" for language, value in bits.items())
        runtime.get_logger().info("step %s, held out: %s", f"{state.global_step:,}", said)
        guarded = [language for language in self.held_out.guarded if state.global_step and language in bits]
        for language in guarded:
            if self._is_comparable(state.log_history, language):
                is_last = state.global_step >= state.max_steps
                self._guard(language, first[BASE_PREFIX + language], bits[language], state.global_step, is_last)

    def _is_comparable(self, history: Sequence[Mapping[str, Any]], language: str) -> bool:
        """Tell whether the first look read the same rows of a language as this one: the settings may have changed at a resume."""
        first = next(entry for entry in history if any(name.startswith(PREFIX) for name in entry))
        same = first.get("watch_tokens") == self.settings.tokens and BASE_PREFIX + language in first and first["step"] == 0
        if not same and runtime.rank() == 0:
            runtime.get_logger().warning("the look before training did not read %s as this one does: nothing guards it", language)
        return bool(same)

    def _guard(self, language: str, before: float, now: float, step: int, is_last: bool) -> None:
        """Warn or stop where a language that the base knew is being forgotten; what is trained to the end is written."""
        rise, unit = now / before - 1, self.held_out.units[language]
        found = f"{language} needs {now:.3f} bits per {unit} at step {step:,}, {100 * rise:.1f} % more than the {before:.3f} of the base"
        advice = f"Raise the share of {language} (shares, or replay_shares), or lower train.learning_rate; train.watch sets the limits"
        if self.settings.stop and rise > self.settings.stop and not is_last:
            raise LlamaGeneError(found, f"at most {100 * self.settings.stop:g} %", f"{advice}. The last whole checkpoint is kept")
        if rise > self.settings.warn and runtime.rank() == 0:
            runtime.get_logger().warning("%s (warning at %g %%). %s", found, 100 * self.settings.warn, advice)

    @torch.no_grad()
    def _bits(self, rows: Sequence[Mapping[str, Any]], num_ids: int | None = None) -> float:
        """Return the bits per byte of text of the target tokens of `rows`, all processes together; `num_ids`: of, and among, ids below."""
        model, device = self.trainer.model_wrapped, self.trainer.args.device
        rank, world = runtime.rank(), runtime.world_size()
        sums = torch.zeros(2, dtype=torch.float64, device=device)  # bits, bytes
        was_training = model.training
        model.eval()
        for module in model.modules():  # else bitsandbytes repacks 4-bit weights for inference on CPU, and later gradients are wrong
            if type(module).__name__ == "Linear4bit":
                module.train()
        try:
            for start in range(0, len(rows), self.batch_size * world):
                own = rows[start + rank * self.batch_size : start + (rank + 1) * self.batch_size]
                sums += self._score(model, own or rows[:1], counts=bool(own), device=device, num_ids=num_ids)
        finally:
            model.train(was_training)
        if world > 1:
            torch.distributed.all_reduce(sums)
        return float(sums[0] / sums[1])

    def _score(self, model: Any, rows: Sequence[Mapping[str, Any]], counts: bool, device: Any, num_ids: int | None) -> torch.Tensor:
        """Return (bits, bytes) of a batch; nothing where it is only there to keep the processes in step."""
        batch = {name: values.to(device) for name, values in self.collator([expand_row(dict(row)) for row in rows]).items()}
        labels = batch.pop("labels")
        self.loss.see(labels)
        with self.trainer.compute_loss_context_manager():
            logits_NV = model(**batch, use_cache=False).logits
        self.loss.forget()
        wanted_N = labels[:, 1:][labels[:, 1:] != IGNORED]
        if num_ids is not None:
            known_N = wanted_N < num_ids
            logits_NV, wanted_N = logits_NV[known_N, :num_ids], wanted_N[known_N]
        nats = cross_entropy(logits_NV.float(), wanted_N, reduction="sum").double()
        size = torch.as_tensor(self.held_out.token_bytes[wanted_N.cpu().numpy()].sum(), device=device)
        return torch.stack([nats / math.log(2), size.double()]) * counts


def looks(history: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Return the looks in a log, first look first: step, bits under PREFIX + language, at first also those of the base, BASE_PREFIX."""
    prefixes = PREFIX, BASE_PREFIX
    return [
        {"step": entry["step"], **{name: value for name, value in entry.items() if name.startswith(prefixes)}}
        for entry in history
        if any(name.startswith(PREFIX) for name in entry)
    ]
