"""Checkpoints that can be trusted: a checkpoint counts only once it is whole, and belongs to one config.

A killed process may leave a half-written `checkpoint-N`. After each save every file is in place before the file `whole` is written;
on a restart, checkpoints without it are deleted and training goes on from the last one that has it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from llama_gene import runtime
from llama_gene.errors import ConfigError

WHOLE = "whole"
KEY_NAME = "key.json"


class MarkWhole(TrainerCallback):
    """Write the mark after a checkpoint is saved, on rank 0."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Mark the checkpoint of this step."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero and folder.is_dir():
            runtime.write_text(folder / WHOLE, f"{state.global_step}\n")


def last_whole_checkpoint(folder: Path) -> Path | None:
    """Return the whole checkpoint with the highest step, or None; half-written ones are deleted by rank 0."""
    whole: dict[int, Path] = {}
    for path in folder.glob("checkpoint-*"):
        if (path / WHOLE).is_file():
            whole[int(path.name.rsplit("-", 1)[1])] = path
        elif runtime.rank() == 0:
            shutil.rmtree(path, ignore_errors=True)
    return whole[max(whole)] if whole else None


def claim_folder(folder: Path, key: str, restart: bool) -> None:
    """Tie a working folder to one config, so that a checkpoint of another config is never resumed.

    Raises ConfigError when the folder belongs to another config and `restart` is off.
    """
    if runtime.rank() != 0:
        return
    key_path = folder / KEY_NAME
    if folder.is_dir() and (restart or not key_path.is_file()):
        shutil.rmtree(folder)
    if key_path.is_file() and runtime.read_json(key_path) != key:
        raise ConfigError(
            f"{folder} holds checkpoints of another config or of other rows",
            "the config that they were written with",
            "Add --train.restart true to drop them, or choose another output_dir",
        )
    folder.mkdir(parents=True, exist_ok=True)
    runtime.write_json(key_path, key)
