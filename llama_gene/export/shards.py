"""Write safetensors shards tensor by tensor, hashed on the way, so that no shard is ever whole in memory.

The format (8 bytes of length, a JSON header, the bytes of the tensors one after the other) needs only names, types and shapes in
advance. The library's own writer wants all tensors of a file at once: 5 GB for a shard of 5 GB; this one holds a few MB. Bytes are
hashed and written by a thread of its own while the next rows are computed.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from math import prod
from pathlib import Path

import torch
from huggingface_hub import split_state_dict_into_shards_factory

from llama_gene.errors import ConfigError
from llama_gene.export.tensors import DTYPE_NAMES, INDEX_NAME
from llama_gene.runtime import write_json

Layout = Mapping[str, tuple[tuple[int, ...], torch.dtype]]
"""Name of each tensor -> its shape and element type, in the order of writing."""
QUEUED = 3  # pieces of a few MB that may wait for the disk


def num_bytes(layout: Layout) -> int:
    """Return the bytes that the tensors of a layout take."""
    return sum(prod(shape) * dtype.itemsize for shape, dtype in layout.values())


def write_shards(
    folder: Path, layout: Layout, pieces: Callable[[str], Iterable[torch.Tensor]], max_shard_size: str = "4GB"
) -> dict[str, str]:
    """Write all tensors, in several files and an index if they exceed `max_shard_size`; return the SHA-256 of each file of weights.

    `pieces` gives the rows of a tensor from the first to the last, in its element type. Raises ConfigError for a size that is none.
    """
    hashes = {}
    files = _split(layout, max_shard_size)
    with ThreadPoolExecutor(1) as writer:
        for name, tensors in files.items():
            hashes[name] = _write_file(folder / name, {tensor: layout[tensor] for tensor in tensors}, pieces, writer)
    if len(files) > 1:
        places = {tensor: name for name, tensors in files.items() for tensor in tensors}
        write_json(folder / INDEX_NAME, {"metadata": {"total_size": num_bytes(layout)}, "weight_map": dict(sorted(places.items()))})
    return hashes


def _split(layout: Layout, max_shard_size: str) -> dict[str, list[str]]:
    """Return the names of the files and the tensors in each, as transformers shares them out."""
    empty = {name: torch.empty(shape, dtype=dtype, device="meta") for name, (shape, dtype) in layout.items()}
    try:
        split = split_state_dict_into_shards_factory(
            empty,
            get_storage_size=lambda tensor: tensor.numel() * tensor.dtype.itemsize,
            get_storage_id=lambda tensor: None,
            filename_pattern="model{suffix}.safetensors",
            max_shard_size=max_shard_size,
        )
    except ValueError as error:
        raise ConfigError(f"max_shard_size is '{max_shard_size}'", "a size such as 4GB or 500MB") from error
    return {str(name): list(tensors) for name, tensors in split.filename_to_tensors.items()}


def _write_file(path: Path, layout: Layout, pieces: Callable[[str], Iterable[torch.Tensor]], writer: ThreadPoolExecutor) -> str:
    """Write one file; return its SHA-256. Raises RuntimeError when a tensor's pieces are not of the size that was promised."""
    ordered = sorted(layout, key=lambda name: -layout[name][1].itemsize)  # wide elements first: each then lies at a multiple of its size
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in ordered:
        shape, dtype = layout[name]
        end = offset + prod(shape) * dtype.itemsize
        header[name] = {"dtype": DTYPE_NAMES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with path.open("wb") as file:

        def put(data: bytes | memoryview) -> None:
            digest.update(data)
            file.write(data)

        put(len(text).to_bytes(8, "little") + text)
        waiting: deque[Future[None]] = deque()
        for name in ordered:
            start, sent = header[name]["data_offsets"][0], 0  # type: ignore[index]
            for piece in pieces(name):
                data = memoryview(piece.contiguous().reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
                sent += len(data)
                waiting.append(writer.submit(put, data))
                if len(waiting) > QUEUED:
                    waiting.popleft().result()
            if start + sent != header[name]["data_offsets"][1]:  # type: ignore[index]
                raise RuntimeError(f"{name}: {sent} bytes instead of {header[name]}")
        for future in waiting:
            future.result()
    return digest.hexdigest()
