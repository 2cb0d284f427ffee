"""Checkpoints that can be trusted: a checkpoint counts only once it is whole, and belongs to one config.

A killed process may leave a half-written `checkpoint-N`. The file `whole` is written when every process has written its part, and
only then are older checkpoints deleted; on a restart, checkpoints without it are deleted and training goes on from the last with it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from llama_gene import runtime
from llama_gene.errors import ConfigError, InputError

WHOLE = "whole"
KEY_NAME = "key.json"


class MarkWhole(TrainerCallback):
    """Mark a checkpoint once all processes have saved it, then delete all but the best and the last `keep` (the Trainer deletes before)."""

    def __init__(self, keep: int) -> None:
        self.keep = keep

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Mark the checkpoint of this step."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.barrier()  # the others may still be writing their random states
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero and folder.is_dir():
            runtime.write_text(folder / WHOLE, f"{state.global_step}\n")
            best = Path(state.best_model_checkpoint or folder).name  # a classifier's: its weights are wanted at the end
            for path in _by_step(folder.parent)[: -max(self.keep, 1)]:
                if path.name != best:
                    shutil.rmtree(path)


def last_whole_checkpoint(folder: Path) -> Path | None:
    """Return the whole checkpoint with the highest step, or None; half-written ones are deleted by rank 0."""
    whole = []
    for path in _by_step(folder):
        if (path / WHOLE).is_file():
            whole.append(path)
        elif runtime.rank() == 0:
            shutil.rmtree(path, ignore_errors=True)
    return whole[-1] if whole else None


def _by_step(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder, first step first (by number: checkpoint-10 comes after checkpoint-9)."""
    return sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rsplit("-", 1)[1]))


def claim_folder(folder: Path, key: str, restart: bool) -> None:
    """Tie a working folder to one config, so that a checkpoint of another config is never resumed.

    Raises ConfigError when the folder belongs to another config and `restart` is off, InputError when it is not one of ours.
    """
    if runtime.rank() != 0:
        return
    key_path = folder / KEY_NAME
    if folder.is_dir() and not key_path.is_file() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise InputError(f"{folder} exists and is not a working folder", "a new or empty folder", "Choose another output_dir")
    if restart and folder.is_dir():
        shutil.rmtree(folder)
    if key_path.is_file() and runtime.read_json(key_path) != key:
        raise ConfigError(
            f"{folder} holds checkpoints of another config or of other rows",
            "the config that they were written with",
            "Delete it or add --train.restart true to drop them, or choose another output_dir",
        )
    folder.mkdir(parents=True, exist_ok=True)
    runtime.write_json(key_path, key)
