"""What two processes do together in one launch; started by the `two_processes` fixture, its answers are read by the tests of law 11.

    deepspeed --num_gpus 2 tests/two_processes.py PLAN.json

PLAN.json lists jobs. A job with `argv` runs an entry script of launch/ as the launcher would; the others train a tiny adapter on rows
whose target tokens differ threefold between the processes, and leave losses.json and the weights in the job's folder.
"""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from llama_gene import runtime
from llama_gene.data.mixing import mixture_index
from llama_gene.data.packing import IGNORED
from llama_gene.models.adapters import attach_lora
from llama_gene.models.settings import LoraSettings
from llama_gene.training.settings import TrainSettings, WatchSettings
from llama_gene.training.trainer import train
from llama_gene.training.watch import HeldOut
from tests.tiny_models import tiny_llama

STEPS, BATCH, ROWS_A_STEP = 12, 2, 8
FEW, MANY = 7, 21  # target tokens of the rows of the first and of the second process
Rows = list[dict[str, list[int]]]


class BrokenRows(Rows):
    """Rows of which some cannot be read: what an interruption is to a run."""

    def __init__(self, rows: Rows, unreadable: set[int]) -> None:
        super().__init__(rows)
        self.unreadable = unreadable

    def __getitem__(self, number: Any) -> Any:
        if number in self.unreadable:
            raise InterruptedError(f"row {number}")
        return super().__getitem__(number)


def row_order() -> list[int]:
    """Return the row numbers in the order in which they are read, each once."""
    return [number for _, number in mixture_index({"all": STEPS * ROWS_A_STEP}, {"all": 1.0}, STEPS * ROWS_A_STEP, seed=0)]


def uneven_rows() -> Rows:
    """Return rows of two documents; of each four that follow each other, the first process gets two and the second, with three times as
    many target tokens, the other two."""
    generator = torch.Generator().manual_seed(5)
    rows: Rows = [{} for _ in range(STEPS * ROWS_A_STEP)]
    for place, number in enumerate(row_order()):
        ids = (torch.randint(0, 12, (32,), generator=generator) + 40).tolist()
        num_targets = FEW if place % (2 * BATCH) < BATCH else MANY
        rows[number] = {"input_ids": ids, "labels": [IGNORED] * (32 - num_targets) + ids[-num_targets:], "lengths": [10, 22]}
    return rows


def train_job(
    folder: Path, deepspeed: Path | None, processes: int, rows: Rows, tied: bool = False, dropout: float = 0.0, watched: bool = False,
    **changes: Any,
) -> list[float]:  # fmt: skip
    """Train a fresh adapter in single pass over the rows, eight a step; return the losses, also in losses.json; weights are in `final`.

    `watched`: look at held-out rows of two languages every five steps; the looks are in looks.json.
    """
    model = attach_lora(tiny_llama(tied=tied), LoraSettings(rank=4, dropout=dropout))
    batch = ROWS_A_STEP if processes == 1 else BATCH  # one process takes the rows of a step at once: its mean is over all their targets
    settings = TrainSettings(
        steps=STEPS, batch_size=batch, accumulation=ROWS_A_STEP // batch // processes, learning_rate=1e-2, precision="fp32",
        logging_steps=1, deepspeed=deepspeed, report_to=[], watch=WatchSettings(every=5), **changes,
    )  # fmt: skip
    held_out = None
    if watched:
        token_bytes = np.ones(model.config.vocab_size, np.int32)
        held_out = HeldOut({"dna": uneven_rows()[:7], "english": uneven_rows()[7:8]}, token_bytes, {"dna": "base", "english": "byte"})
    result, _ = train(model, {"all": rows}, {"all": 1.0}, 1, settings, folder, "key", held_out)
    losses = [entry["loss"] for entry in result.history]
    if runtime.rank() == 0:
        runtime.write_json(folder / "losses.json", losses)
        runtime.write_json(folder / "looks.json", result.looks)
    return losses


def interrupted_job(folder: Path, deepspeed: Path, **changes: Any) -> None:
    """Train until step 7 of 12 can read no rows, then start again in the same folder with rows that only step 7 and later may read."""
    rows, order = uneven_rows(), row_order()
    saved = 4 * ROWS_A_STEP  # places before the checkpoint
    try:
        train_job(folder, deepspeed, 2, BrokenRows(rows, set(order[6 * ROWS_A_STEP :])), save_steps=4, **changes)
    except InterruptedError:
        train_job(folder, deepspeed, 2, BrokenRows(rows, set(order[:saved])), save_steps=4, **changes)
    else:
        raise AssertionError("the run was not interrupted")


def main() -> None:
    """Run the jobs of the plan one after the other."""
    runtime.set_library_switches()
    local_rank = next(item for item in sys.argv if re.match("--local[_-]rank", item))
    for job in json.loads(Path(sys.argv[-1]).read_text()):
        if "argv" in job:
            sys.argv = [job["argv"][0], local_rank, *job["argv"][1:]]
            try:
                with mock.patch.object(runtime, "leave_process_group"):  # more jobs follow in these processes
                    runpy.run_path(job["argv"][0], run_name="__main__")
            except SystemExit as done:
                assert not done.code, f"{job['argv'][0]} ended with {done.code}"
            continue
        folder, deepspeed = Path(job.pop("folder")), Path(job.pop("deepspeed")) if job["deepspeed"] else job.pop("deepspeed")
        if job.pop("interrupted", False):
            interrupted_job(folder, deepspeed, **job)
        else:
            train_job(folder, deepspeed, 2, uneven_rows(), **job)


if __name__ == "__main__":
    main()
