"""Merge adapters into a base a few rows at a time. What is allocated: a few pieces of 4 MB and one pair A, B.

Rows are read as they are stored, widened to float32 (exactly), changed by the steps of their recipe, and rounded once, to the element
type that is written. 2**20 numbers are 4 MB of float32, which stay in the cache of a core between the steps: for W of 4096 x 4096 and
rank 8 the product costs less than reading W. A tensor that no adapter changed, written in its own type, keeps its bits.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from math import prod
from pathlib import Path

import torch

from llama_gene.errors import MachineError
from llama_gene.export.plan import LowRank, MergePlan, Recipe, Replace, Rows
from llama_gene.export.shards import Layout, num_bytes, write_shards
from llama_gene.models.settings import Precision

CHUNK = 2**20  # numbers merged at a time


class MergedTensors:
    """The tensors of a merged model by name; rows are computed when they are asked for."""

    def __init__(self, plan: MergePlan) -> None:
        self.plan = plan

    def read(self, name: str) -> torch.Tensor:
        """Return a whole tensor: in float32, or in its own type where that holds no fractions. A tied head is the embedding."""
        whole: torch.Tensor | None = None
        start = 0
        for rows in self.pieces(name, torch.float32):
            if not rows.ndim or len(rows) == self.recipe(name).shape[0]:
                return rows
            if whole is None:
                whole = torch.empty(self.recipe(name).shape, dtype=rows.dtype)
            whole[start : start + len(rows)] = rows
            start += len(rows)
        assert whole is not None
        return whole

    def recipe(self, name: str) -> Recipe:
        """Return a tensor's recipe; a tied head's is the embedding's."""
        return self.plan.recipes[self.plan.embedding if name == self.plan.head and self.plan.tied else name]

    def layout(self, precision: Precision) -> Layout:
        """Return shape and type of each tensor to be written."""
        wanted = getattr(torch, precision)
        base = self.plan.base
        types = {name: base.entries[recipe.source].dtype for name, recipe in self.plan.recipes.items()}
        return {
            name: (recipe.shape, wanted if types[name].is_floating_point else types[name]) for name, recipe in self.plan.recipes.items()
        }

    def pieces(self, name: str, dtype: torch.dtype) -> Iterator[torch.Tensor]:
        """Yield the rows of a tensor, from the first to the last, rounded once to `dtype` (integers stay as they are)."""
        recipe = self.recipe(name)
        kept = [step for step in recipe.steps if isinstance(step, Replace)]
        if not recipe.shape:  # a single number
            yield _cast(self.plan.base.read(recipe.source), dtype)
            return
        source = self.plan.adapters[kept[-1].adapter].entries[kept[-1].name] if kept else self.plan.base.entries[recipe.source]
        steps = [_Step(self.plan, step) for step in recipe.steps if not isinstance(step, Replace)]
        for start, stop in _chunks(recipe):
            rows = source.read(start, stop)
            if steps:
                rows = _padded(rows.float(), stop - start)  # rows of new ids follow
                for step in steps:
                    rows = step.apply(rows, start, stop)
            yield _cast(rows, dtype)


class _Step:
    """One step with its small matrices in memory."""

    def __init__(self, plan: MergePlan, step: LowRank | Rows) -> None:
        self.step = step
        tensors = plan.adapters[step.adapter]
        if isinstance(step, LowRank):
            self.a = tensors.read(step.a).float()
            self.b = tensors.read(step.b).float()
            if step.transposed:
                self.a, self.b = self.b.T, self.a.T.contiguous()
            self.magnitude = tensors.read(step.magnitude).float().flatten() if step.magnitude else None
        else:
            self.source = tensors.entries[step.name]
            self.first = step.indices[0]
            self.is_range = step.indices == tuple(range(self.first, self.first + len(step.indices)))
            self.indices = torch.tensor(step.indices)

    def apply(self, rows: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """Return the rows start to stop after this step."""
        if isinstance(self.step, LowRank):
            rows.addmm_(self.b[start:stop], self.a, alpha=self.step.scale)
            if self.magnitude is not None:
                if self.step.transposed:  # all rows are here: an output is a column
                    return rows.mul_(self.magnitude / rows.norm(dim=0))
                return rows.mul_((self.magnitude[start:stop] / rows.norm(dim=1))[:, None])
            return rows
        if self.is_range:
            low, high = max(start, self.first), min(stop, self.first + len(self.indices))
            if low < high:
                rows[low - start : high - start] = self.source.read(low - self.first, high - self.first).float()
            return rows
        inside = (self.indices >= start) & (self.indices < stop)
        if inside.any():
            rows[self.indices[inside] - start] = self.source.read()[inside].float()
        return rows


def _chunks(recipe: Recipe) -> Iterator[tuple[int, int]]:
    """Yield the row ranges in which a tensor is made: all at once where a step needs whole columns."""
    num_rows = recipe.shape[0]
    columns = any(isinstance(step, LowRank) and step.transposed and step.magnitude for step in recipe.steps)
    size = num_rows if columns else max(1, CHUNK // max(1, prod(recipe.shape[1:])))
    for start in range(0, num_rows, max(1, size)):
        yield start, min(start + size, num_rows)


def _cast(rows: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return rows in the wanted type; those that have it already are not copied."""
    return rows.to(dtype) if rows.is_floating_point() else rows


def _padded(rows: torch.Tensor, num_rows: int) -> torch.Tensor:
    """Return rows with zeros behind them, up to `num_rows`."""
    return rows if len(rows) == num_rows else torch.cat([rows, rows.new_zeros(num_rows - len(rows), *rows.shape[1:])])


def write_merged(merged: MergedTensors, folder: Path, precision: Precision, max_shard_size: str) -> dict[str, str]:
    """Write a merged model's weights; return the SHA-256 of each file. Raises MachineError where the disk has not the room."""
    layout = merged.layout(precision)
    need, free = num_bytes(layout), shutil.disk_usage(folder).free
    if need > free:
        raise MachineError(f"{folder.parent} has {free / 1e9:.1f} GB free", f"{need / 1e9:.1f} GB for the weights", "Free some")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # 0.6 ms for 2 MB of rank 8, and 1.2 ms to hash them: more threads would wait, spinning, for the writer's
    try:
        return write_shards(folder, layout, lambda name: merged.pieces(name, layout[name][1]), max_shard_size)
    finally:
        torch.set_num_threads(threads)
