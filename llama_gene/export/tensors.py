"""The tensors of a folder of safetensors files, read a few rows at a time.

Opening a folder checks what it promises before anything is loaded: every shard that the index names is there, every file is whole, every
tensor is in the file that the index says, and no weights are pickles (which can run code when they are loaded). Rows are read, not mapped:
torch maps a whole file for one tensor of it, as memory of its own, and four shards of 5 GB then break a limit of 20 GB. What is asked for
is all that is held.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from llama_gene.errors import InputError
from llama_gene.models.build import PICKLES, refuse_pickled_weights
from llama_gene.runtime import read_json

INDEX_NAME = "model.safetensors.index.json"
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies, and what it is."""

    path: Path
    shape: tuple[int, ...]
    dtype: torch.dtype
    offset: int
    """Of its first byte in the file."""

    def read(self, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Return rows start to stop (of the first dimension) in memory of their own; a tensor without a dimension is one number."""
        if not self.shape:
            return replace(self, shape=(1,)).read()[0]
        stop = self.shape[0] if stop is None else min(stop, self.shape[0])
        rows = torch.empty((max(0, stop - start), *self.shape[1:]), dtype=self.dtype)
        if not rows.numel():
            return rows
        rest = rows.reshape(-1).view(torch.uint8).numpy().data
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.offset + start * prod(self.shape[1:]) * self.dtype.itemsize)
            while rest:
                num_read = file.readinto(rest)
                if not num_read:
                    raise InputError(f"{self.path} ends early", "the whole file that was opened", "Copy it again")
                rest = rest[num_read:]
        return rows


class TensorFolder:
    """The tensors of one folder by name, in the order of its files.

    Raises InputError for a missing shard, a truncated file, a tensor that is not where the index says, an element type that this package
    does not know (packed weights), and weights that are pickles.
    """

    def __init__(self, folder: Path, pattern: str = "*.safetensors") -> None:
        self.folder = folder
        self.entries: dict[str, StoredTensor] = {}
        for path, wanted in _files(folder, pattern).items():
            with _open(path) as file:
                held, offsets = set(file.keys()), _offsets(path)
                if lacking := sorted(wanted - held):
                    raise InputError(f"{path} lacks {lacking[0]}", f"what {INDEX_NAME} says", "Copy the folder again")
                for name in wanted or file.keys():
                    stored = file.get_slice(name)
                    if stored.get_dtype() not in DTYPES:
                        raise InputError(f"{path}: {name} has elements of type {stored.get_dtype()}", f"one of {', '.join(DTYPES)}")
                    shape = tuple(stored.get_shape())
                    self.entries[name] = StoredTensor(path, shape, DTYPES[stored.get_dtype()], offsets[name])

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self.entries[name].shape

    def read(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Return rows start to stop (of the first dimension) of a tensor, in its own element type."""
        return self.entries[name].read(start, stop)


def _offsets(path: Path) -> dict[str, int]:
    """Return where each tensor of a file begins: a safetensors file is the length of its header (8 bytes), the header (JSON), the data."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return {name: 8 + length + entry["data_offsets"][0] for name, entry in header.items() if name != "__metadata__"}


def refuse_pickles(folder: Path) -> None:
    """Raise InputError when a folder that shall travel holds a pickle."""
    for path in sorted(folder.rglob("*")):
        if path.suffix in PICKLES and path.is_file():
            raise InputError(f"{path} is a pickle, which can run code when it is loaded", "safetensors only", "Delete it")


def _files(folder: Path, pattern: str) -> dict[Path, set[str]]:
    """Return the files of a folder and the tensors that its index promises of each (none where there is no index)."""
    found = sorted(folder.glob(pattern))
    if (folder / INDEX_NAME).is_file() and pattern == "*.safetensors":
        index = read_json(folder / INDEX_NAME)
        places = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(places, dict) or not places:
            raise InputError(f"{folder / INDEX_NAME} has no weight_map", "an index of shards", "Copy the folder again")
        wanted: dict[Path, set[str]] = {}
        for name, file in places.items():
            wanted.setdefault(folder / Path(str(file)).name, set()).add(name)
        lacking = [path.name for path in sorted(wanted) if not path.is_file()]
        if lacking:
            names = ", ".join(lacking[:3]) + (" ..." if len(lacking) > 3 else "")
            fault = f"{folder} lacks {names} ({len(lacking)} of {len(wanted)} shards)"
            raise InputError(fault, f"every shard that {INDEX_NAME} names", "Copy the missing files")
        return dict(sorted(wanted.items()))
    if found:
        return {path: set() for path in found}
    refuse_pickled_weights(folder, pattern)
    raise InputError(f"{folder} holds no {pattern}", "weights as safetensors", "Check the path")


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    """Open a safetensors file; turn its library's refusal into one line."""
    try:
        opened = safe_open(path, framework="pt")
    except (SafetensorError, OSError, ValueError) as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise InputError(f"{path} cannot be read: {reason}", "a whole safetensors file", "It may be cut short; copy it again") from error
    with opened as file:
        yield file
