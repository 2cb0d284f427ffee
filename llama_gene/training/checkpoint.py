"""Checkpoints that can be trusted: one counts only when it is whole, and belongs to one config.

A killed process leaves a half-written `checkpoint-N`, a bad disk a damaged one. So the file `whole` is written last, by rank 0, once every
process has written its part and the weights have been looked at: no empty tensor (what ZeRO-3 leaves when it is asked wrongly), every
name there, in its shape. It is a seal: size and CRC-32 of each file (zlib: 3.6 GB/s a core; SHA-256 1.0, BLAKE2 0.8; it guards against
damage, not against malice), flushed to the disk before an older checkpoint is deleted. On a restart the newest checkpoint that agrees
with its seal is taken; those without a seal are deleted, damaged ones are set aside under another name.
"""

from __future__ import annotations

import errno
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from transformers import TrainerCallback
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import PrefixChange

from llama_gene import runtime
from llama_gene.errors import ConfigError, InputError, LlamaGeneError, MachineError

WHOLE = "whole"
KEY_NAME = "key.json"
STATE_NAME = "trainer_state.json"  # the Trainer's own
DAMAGED = "damaged-"  # before the name of a checkpoint that disagrees with its seal
CHUNK_BYTES = 2**20

Value = TypeVar("Value")


class MarkWhole(TrainerCallback):
    """Seal a checkpoint once all processes have saved it, then delete all but the best and the last `keep` (the Trainer deletes before)."""

    def __init__(self, keep: int) -> None:
        self.keep = keep
        self.failed_step: int | None = None  # of the last checkpoint, if it was not whole

    def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Look at the checkpoint of this step and seal it; on every rank. A first one that is not whole is deleted with a warning.

        Raises LlamaGeneError at the second in a row, or when the best checkpoint (a classifier's) is not whole.
        """
        if is_distributed():
            torch.distributed.barrier()  # the others may still be writing their random states
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        best = Path(state.best_model_checkpoint).name if state.best_model_checkpoint else None  # its weights are wanted at the end
        shapes = expected_shapes(model) if model is not None and runtime.rank() == 0 else {}
        fault = _of_first_rank(lambda: _seal_or_delete(folder, state.global_step, shapes, self.keep, best))
        if fault is None:
            self.failed_step = None
        elif self.failed_step is not None or best == folder.name:
            before = f", after that of step {self.failed_step}" if self.failed_step is not None else ", the best on dev"
            raise LlamaGeneError(
                f"the checkpoint of step {state.global_step} is not whole{before}: {fault}",
                "files as they were written",
                "Look at the disk and the DeepSpeed JSON (stage3_gather_16bit_weights_on_model_save); earlier whole checkpoints stay",
            )
        else:
            self.failed_step = state.global_step
            if runtime.rank() == 0:
                message = "the checkpoint of step %s is not whole and is deleted (training goes on; a second in a row ends it): %s"
                runtime.get_logger().warning(message, state.global_step, fault)


def last_whole_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint with the highest step that agrees with its seal, or None: what rank 0 finds, on every rank.

    Rank 0 deletes those without a seal and sets damaged ones aside as `damaged-checkpoint-N`, with a warning that names the file.
    """
    return _of_first_rank(lambda: _newest_whole(folder))


def _newest_whole(folder: Path) -> Path | None:
    whole = None
    for path in reversed(_by_step(folder)):
        if not (path / WHOLE).is_file():
            shutil.rmtree(path, ignore_errors=True)  # cut short while it was written or deleted
        elif whole is None:
            fault = seal_fault(path)
            if fault is None:
                whole = path
            else:
                aside = folder / f"{DAMAGED}{path.name}"
                shutil.rmtree(aside, ignore_errors=True)
                path.rename(aside)
                runtime.get_logger().warning("%s is damaged and not used (now %s): %s", path, aside.name, fault)
    return whole


def _by_step(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder, first step first (by number: checkpoint-10 comes after checkpoint-9)."""
    # a user's copy, checkpoint-5-backup, is left alone
    found = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("checkpoint-")))


def _seal_or_delete(folder: Path, step: int, shapes: Mapping[str, tuple[int, ...]], keep: int, best: str | None) -> str | None:
    """Seal a checkpoint and delete older ones; or delete it and return what is wrong with it."""
    if not folder.is_dir():
        return f"{folder} was not written"
    fault = _lack(folder) or weights_fault(folder, shapes)
    if fault is not None:
        shutil.rmtree(folder, ignore_errors=True)
        return fault
    with one_line_for_full_disk(folder):
        seal(folder, step)
    # One whose files have lost their sizes since is no reason to delete an older one.
    whole = [path for path in _by_step(folder.parent) if seal_fault(path, checksums=False) is None]
    for path in whole[: -max(keep, 1)]:
        if path.name != best:
            (path / WHOLE).unlink()  # first: what a kill leaves here has no seal
            shutil.rmtree(path, ignore_errors=True)
    return None


def _lack(folder: Path) -> str | None:
    """Return which file a checkpoint lacks to be resumed bit by bit, or which is empty."""
    processes = runtime.world_size()
    states = ["rng_state.pth"] if processes == 1 else [f"rng_state_{rank}.pth" for rank in range(processes)]
    for name in (STATE_NAME, *states):
        if not (folder / name).is_file():
            return f"{name} was not written"
    empty = [name for name, path in _files(folder) if path.stat().st_size == 0]
    return f"{empty[0]} is empty" if empty else None


def seal(folder: Path, step: int) -> None:
    """Write the seal of a checkpoint: step, processes, and size and CRC-32 of every file, all flushed to the disk.

    Raises MachineError when the disk is full.
    """
    files = {name: {"bytes": path.stat().st_size, "crc32": _checksum(path)} for name, path in _files(folder)}
    for _, path in _files(folder):
        _flush(path)
    runtime.write_json(folder / WHOLE, {"step": step, "processes": runtime.world_size(), "files": files})
    _flush(folder / WHOLE)


def seal_fault(folder: Path, checksums: bool = True) -> str | None:
    """Return what differs from the seal, naming the file, or None; without `checksums` only sizes are compared."""
    try:
        files = runtime.read_json(folder / WHOLE)["files"]
        for name, wanted in files.items():
            path = folder / name
            if not path.is_file():
                return f"{name} is not there"
            size = path.stat().st_size
            if size != wanted["bytes"]:
                return f"{name} has {size:,} bytes, not {wanted['bytes']:,}"
        for name, wanted in files.items() if checksums else ():
            found = _checksum(folder / name)
            if found != wanted["crc32"]:
                return f"{name} has CRC-32 {found}, not {wanted['crc32']}"
    except (LlamaGeneError, KeyError, TypeError, AttributeError):
        return f"its file '{WHOLE}' is not a seal"
    except OSError as error:
        return f"{error.filename or folder} cannot be read: {error.strerror}"
    return None


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield name and path of every file of a checkpoint except its seal."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != WHOLE:
            yield path.relative_to(folder).as_posix(), path


def _checksum(path: Path) -> str:
    """Return the CRC-32 of a file as eight hex digits."""
    value, chunk = 0, bytearray(CHUNK_BYTES)
    view = memoryview(chunk)
    with path.open("rb", buffering=0) as handle:
        while size := handle.readinto(chunk):
            value = zlib.crc32(view[:size], value)
    return f"{value:08x}"


def _flush(path: Path) -> None:
    """Have the system write a file to its disk."""
    with path.open("r+b") as handle:
        os.fsync(handle.fileno())


def expected_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of the weights that saving `model` writes: an adapter's, or all; ZeRO-3's parts count in full.

    Empty for a whole model whose weights transformers renames as it saves them (mixtures of experts).
    """
    if isinstance(model, PeftModel):
        named = dict(model.named_parameters(remove_duplicate=False))
        named = get_peft_model_state_dict(model, state_dict=named, save_embedding_layers=False)
    else:
        named = {} if _renames(model) else dict(model.named_parameters())  # tied weights are written once
    return {name: tuple(getattr(weights, "ds_shape", weights.shape)) for name, weights in named.items()}


def _renames(model: Any) -> bool:
    """Tell whether transformers writes a model's weights under other names than they have in memory."""
    conversions = getattr(model, "_weight_conversions", None)  # set where the model was read from files
    if conversions is None:
        conversions = [one for one in get_model_conversion_mapping(model, add_legacy=False) if not isinstance(one, PrefixChange)]
    return bool(conversions)


def weights_fault(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Return what is wrong with the safetensors files of a folder, naming the tensor, or None; only their headers are read."""
    found: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as handle:
                found |= {name: tuple(handle.get_slice(name).get_shape()) for name in handle.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            return f"{path.name} cannot be read: {error}"
    if not found:
        return "there are no weights (*.safetensors)"
    for name, shape in found.items():
        if 0 in shape:
            return f"tensor {name} is empty: its shape is {list(shape)}"
    for name, shape in shapes.items():
        if name not in found:
            return f"tensor {name} is missing"
        if found[name] != shape:
            return f"tensor {name} has shape {list(found[name])}, not {list(shape)}"
    return None


def check_weights(folder: Path, model: Any) -> None:
    """Raise LlamaGeneError, on every rank, when the weights that `model` was saved to are not whole."""
    shapes = expected_shapes(model) if runtime.rank() == 0 else {}
    fault = _of_first_rank(lambda: weights_fault(folder, shapes))
    if fault is not None:
        raise LlamaGeneError(f"{folder}: {fault}", "whole weights", "The checkpoints are kept; the same command goes on from the last one")


_REFUSED = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_TORCH_WRITER = ("inline_container", "PytorchStreamWriter", "iostream error")  # torch.save tells no errno


@contextmanager
def one_line_for_full_disk(folder: Path) -> Iterator[None]:
    """Around the writing of `folder`: when the disk is full, remove what was written and raise MachineError; earlier checkpoints stay."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if not isinstance(error, MachineError) and not _is_refused_write(error):
            raise
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, MachineError):  # runtime has said it already
            raise
        free = shutil.disk_usage(folder.parent).free
        raise MachineError(
            f"the disk is full: {folder} was not written ({' '.join(str(error).split())[:120]}; {free / 2**20:,.0f} MiB free without it)",
            "free space",
            "Free some and give the same command again: it goes on from the last whole checkpoint",
        ) from error


def _is_refused_write(error: BaseException) -> bool:
    """Tell whether a library could not write: the system's error number where there is one, else its words."""
    if isinstance(error, OSError):
        return error.errno in _REFUSED
    if isinstance(error, SafetensorError):
        return any(f"(os error {number})" in str(error) for number in _REFUSED)
    return any(word in str(error) for word in _TORCH_WRITER)


@dataclass(frozen=True)
class Launch:
    """What a launch may change and still go on from a checkpoint, or may not."""

    processes: int
    rows_a_step: int
    deepspeed: str | None = None  # name of the JSON; None: plain PyTorch, alone or DDP


def claim_folder(folder: Path, key: str, restart: bool, launch: Launch | None = None) -> None:
    """Tie a working folder to one config, so that a checkpoint of another config is never resumed.

    With `launch`, another number of processes may go on where nothing depends on it: without DeepSpeed, and with as many rows a step.

    Raises ConfigError when the folder belongs to another config or launch and `restart` is off, InputError when it is not one of ours.
    """
    if runtime.rank() != 0:
        return
    key_path = folder / KEY_NAME
    if folder.is_dir() and not key_path.is_file() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise InputError(f"{folder} exists and is not a working folder", "a new or empty folder", "Choose another output_dir")
    if restart and folder.is_dir():
        shutil.rmtree(folder)
    if key_path.is_file():
        _compare(folder, runtime.read_json(key_path), key, launch)
    folder.mkdir(parents=True, exist_ok=True)
    runtime.write_json(key_path, {"key": key, "launch": launch})


def _compare(folder: Path, found: Any, key: str, launch: Launch | None) -> None:
    """Raise ConfigError when the checkpoints of a folder cannot be gone on from by this launch; say what changes when they can."""
    if not isinstance(found, dict) or found.get("key") != key:
        raise ConfigError(
            f"{folder} holds checkpoints of another config or of other rows",
            "the config that they were written with",
            "Delete it or add --train.restart true to drop them, or choose another output_dir",
        )
    if launch is None or not found.get("launch"):
        return
    before = Launch(**found["launch"])
    if before.rows_a_step != launch.rows_a_step:
        raise ConfigError(
            f"{folder} holds checkpoints of {before.rows_a_step} rows a step ({before.processes} processes), "
            f"this launch takes {launch.rows_a_step} ({launch.processes} processes)",
            "as many rows a step: batch_size x accumulation x processes",
            f"Set train.accumulation so, launch with {before.processes} processes, or add --train.restart true to drop them",
        )
    if before.processes == launch.processes:
        return
    if launch.deepspeed is not None:
        raise ConfigError(
            f"{folder} holds DeepSpeed checkpoints of {before.processes} processes, this launch has {launch.processes}",
            f"{before.processes} processes, among which the optimizer's state is divided",
            f"Launch with `deepspeed --num_gpus {before.processes}` (several hosts: {before.processes} GPUs in all), "
            "or add --train.restart true to drop them",
        )
    message = "going on with %s processes where %s wrote: the same rows, another dropout (random states belong to a process)"
    runtime.get_logger().warning(message, launch.processes, before.processes)


def is_distributed() -> bool:
    """Tell whether there are other processes to agree with."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _of_first_rank(make: Callable[[], Value]) -> Value:
    """Return what `make` returns on rank 0, on every rank; its LlamaGeneError is raised on every rank. None on another rank alone."""
    outcome: list[Any] = [None]
    if runtime.rank() == 0:
        try:
            outcome = [make()]
        except LlamaGeneError as error:
            outcome = [error]
    if is_distributed():
        torch.distributed.broadcast_object_list(outcome, src=0)
    if isinstance(outcome[0], LlamaGeneError):
        raise outcome[0]
    value: Value = outcome[0]
    return value
