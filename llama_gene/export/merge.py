"""Merge adapters into their base and write one folder, believed only behind the gate (law 6).

1. The logits of probe texts from the unmerged model: loaded whole where it fits twice, else layer by layer.
2. The same from the merged tensors in float32: a wrong merge stops here, before anything is written.
3. Weights (a few rows at a time, shard by shard), config, generation config, the tokenizer's files.
4. The folder read back in a process of its own: ids, sizes and logits again.
5. The caller seals it (`manifest.seal`) and verifies it.

What cannot be streamed (plan.py says what and why) is merged in memory by PEFT, through the same gate.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Literal

import psutil
import torch
from transformers import AutoConfig

from llama_gene.errors import ConfigError
from llama_gene.export.folder import copy_tokenizer_files, generation_config, set_vocabulary, write_config
from llama_gene.export.gate import PROBES, check_merge, compare_written, context, lazy_logits, probe_ids, probe_logits
from llama_gene.export.lazy import lazy_adapter, lazy_model
from llama_gene.export.memory import load_unmerged, merge_adapter, quantized_gap, write_model
from llama_gene.export.plan import MergePlan, NotStreamable, empty_model, plan_merge
from llama_gene.export.sources import Sources, check_config
from llama_gene.export.streaming import MergedTensors, write_merged
from llama_gene.export.tensors import TensorFolder
from llama_gene.models.settings import Precision
from llama_gene.runtime import get_logger

How = Literal["auto", "streaming", "memory"]
Compare = Literal["auto", "whole", "layers"]


@dataclass(frozen=True)
class Options:
    """How to merge, write and compare."""

    precision: Precision
    tolerance: float
    max_shard_size: str = "4GB"
    how: How = "auto"
    compare: Compare = "auto"
    fresh_process: bool = True


@dataclass(frozen=True)
class MergeReport:
    """What was found while merging and writing."""

    merge_gap: float
    """Adapter against merged model, both float32, before anything was written."""
    written_gap: float
    """Adapter (float32) against the written folder, loaded anew in its own precision."""
    tolerance: float
    rows_cut: int
    """Embedding rows that no token has, cut off."""
    merge: str = "memory"
    """streaming or memory."""
    compared: dict[str, Any] = field(default_factory=dict)
    """What was compared, and how."""
    quantized_gap: float | None = None
    """Adapter on the full-precision base against the adapter on the packed base that it was trained on (QLoRA)."""


def merge_sources(sources: Sources, folder: Path, options: Options) -> tuple[MergeReport, dict[str, str]]:
    """Write the merged model into `folder`; return what was found and the SHA-256 of the weights as they were written (streaming).

    Raises MismatchError where a gap is too large; ConfigError where streaming was asked for and cannot be.
    """
    config = AutoConfig.from_pretrained(sources.base)
    check_config(config, sources.base)
    base = sources.base_tensors
    if options.how == "memory":
        with suppress(NotStreamable):
            plan_of(sources, base, config, len(sources.adapters))  # a base that lacks a tensor would get random numbers for it
    else:
        try:
            return _stream(sources, base, config, folder, options)
        except NotStreamable as reason:
            if options.how == "streaming" or options.compare == "layers":
                raise ConfigError(f"this merge cannot be streamed: {reason}", "--merge memory, models compared whole") from None
            get_logger().info("export: merged in memory, since %s", reason)
    return _in_memory(sources, folder, options), {}


def plan_of(sources: Sources, base: TensorFolder, config: Any, num_adapters: int) -> MergePlan:
    """Return the plan of the first `num_adapters` adapters."""
    adapters = sources.adapters[:num_adapters]
    sizes = [len(sources.base_tokenizer), *(len(adapter.tokenizer) for adapter in adapters)]
    return plan_merge(base, empty_model(config), [(adapter.settings, adapter.tensors) for adapter in adapters], sizes[-1], sizes[:-1])


def compare_folder(sources: Sources, folder: Path, options: Options, padding_rows: int) -> float:
    """Return the gap between a folder's logits, whoever wrote it, and those of base and adapters, not merged.

    Raises MismatchError where it exceeds the tolerance, or tokenizer or sizes differ.
    """
    config = AutoConfig.from_pretrained(sources.base)
    check_config(config, sources.base)
    base = sources.base_tensors
    whole = options.compare != "layers"
    if options.compare == "auto":
        try:
            whole = _fits(plan_of(sources, base, config, len(sources.adapters)))
        except NotStreamable:
            whole = True
    expected = probe_logits(load_unmerged(sources), sources.tokenizer) if whole else _layer_gaps(sources, base, config)[1]
    return compare_written(
        folder, sources.tokenizer, expected, options.tolerance, options.fresh_process, lazy=not whole, padding_rows=padding_rows
    )


def _stream(sources: Sources, base: TensorFolder, config: Any, folder: Path, options: Options) -> tuple[MergeReport, dict[str, str]]:
    """Merge rows by rows."""
    plan = plan_of(sources, base, config, len(sources.adapters))
    merged = MergedTensors(plan)
    architecture = type(empty_model(config)).__name__
    whole = options.compare == "whole" or (options.compare == "auto" and _fits(plan))
    quantized: float | None = None
    reason = "models were read layer by layer" if sources.manifest.get("quantize", "none") != "none" else ""
    if whole:
        expected, quantized, reason = _whole_logits(sources)
        gap = check_merge(expected, _merged_logits(merged, config, sources.tokenizer))
    else:
        gap, expected = _layer_gaps(sources, base, config)
    if plan.left_out:
        get_logger().info("export: %s tensors that the model does not have left out, such as %s", len(plan.left_out), plan.left_out[0])
    final = set_vocabulary(deepcopy(config), plan.num_ids, plan.tied, sources.tokenizer)
    hashes = write_merged(merged, folder, options.precision, options.max_shard_size)
    write_config(final, architecture, options.precision, folder)
    generation_config(sources.tokenizer).save_pretrained(folder)
    copy_tokenizer_files(sources.tokenizer_dir, folder)
    written = compare_written(folder, sources.tokenizer, expected, options.tolerance, options.fresh_process, lazy=not whole)
    compared = _compared(sources, final, "whole" if whole else "layers", options, reason)
    compared["tensors_left_out"] = len(plan.left_out)
    return MergeReport(gap, written, options.tolerance, plan.rows_cut, "streaming", compared, quantized), hashes


def _in_memory(sources: Sources, folder: Path, options: Options) -> MergeReport:
    """Merge with PEFT, the whole model in memory."""
    merged, gap, rows_cut, expected = merge_adapter(load_unmerged(sources), sources.tokenizer)
    write_model(merged, sources.tokenizer, sources.tokenizer_dir, folder, options.precision, options.max_shard_size)
    config = merged.config
    del merged
    gc.collect()
    quantized, reason = quantized_gap(sources, expected)
    written = compare_written(folder, sources.tokenizer, expected, options.tolerance, options.fresh_process)
    compared = _compared(sources, config, "whole", options, reason)
    return MergeReport(gap, written, options.tolerance, rows_cut, "memory", compared, quantized)


def _whole_logits(sources: Sources) -> tuple[list[torch.Tensor], float | None, str]:
    """Return the unmerged model's logits, the gap to the packed model it was trained as, and why there is none."""
    model = load_unmerged(sources)
    expected = probe_logits(model, sources.tokenizer)
    del model
    gc.collect()
    return (expected, *quantized_gap(sources, expected))


def _merged_logits(merged: MergedTensors, config: Any, tokenizer: Any) -> list[torch.Tensor]:
    """Return the logits of merged tensors in float32, read layer by layer."""
    plan = merged.plan
    return lazy_logits(lazy_model(set_vocabulary(deepcopy(config), plan.num_ids, plan.tied), merged.read), tokenizer)


def _layer_gaps(sources: Sources, base: TensorFolder, config: Any) -> tuple[float, list[torch.Tensor]]:
    """Return (largest gap between unmerged and merged, logits of the last adapter unmerged), every model read layer by layer.

    One adapter after the other: each is compared, unmerged on what the ones before it were merged into, with its own merge.
    """
    before = MergedTensors(plan_of(sources, base, config, 0))
    gap, expected = 0.0, []
    if not sources.adapters:
        expected = lazy_logits(lazy_model(deepcopy(config), base_reader(base, before.plan)), sources.tokenizer)
        return check_merge(expected, _merged_logits(before, config, sources.tokenizer)), expected
    for number, adapter in enumerate(sources.adapters):
        after = MergedTensors(plan_of(sources, base, config, number + 1))
        grown = set_vocabulary(deepcopy(config), len(adapter.tokenizer), before.plan.tied)
        tied = before.plan.embedding if before.plan.tied else ""
        model = lazy_adapter(grown, _grown(before, len(adapter.tokenizer)), adapter.settings, adapter.tensors, tied)
        expected = lazy_logits(model, adapter.tokenizer)
        gap = max(gap, check_merge(expected, _merged_logits(after, config, adapter.tokenizer), f"adapter {number + 1}: merged"))
        before = after
    return gap, expected


def base_reader(base: TensorFolder, plan: MergePlan) -> Callable[[str], torch.Tensor]:
    """Return a function that reads the base's own tensors, a tied head as the embedding."""
    return lambda name: base.read(name if name in base else plan.embedding)


def _grown(before: MergedTensors, num_ids: int) -> Callable[[str], torch.Tensor]:
    """Return a function that reads merged tensors with zeros as the rows of new ids, which the next adapter replaces."""

    def read(name: str) -> torch.Tensor:
        tensor = before.read(name)
        if name in (before.plan.embedding, before.plan.head) and len(tensor) < num_ids:
            return torch.cat([tensor, tensor.new_zeros(num_ids - len(tensor), tensor.shape[1])])
        return tensor

    return read


def _fits(plan: MergePlan) -> bool:
    """Return whether the merged model fits into the free memory twice, in float32."""
    numbers = sum(prod(recipe.shape) for recipe in plan.recipes.values())
    return bool(2 * 4 * numbers < psutil.virtual_memory().available)


def _compared(sources: Sources, config: Any, models: str, options: Options, reason: str) -> dict[str, Any]:
    """Return what was compared and how, in words for the manifest."""
    facts: dict[str, Any] = {
        "reference": "PEFT, not merged, float32" if sources.adapters else "the model itself, float32",
        "texts": len(PROBES),
        "tokens": sum(map(len, probe_ids(sources.tokenizer, context(config)))),
        "models": models,
        "process": "its own" if options.fresh_process else "the same",
    }
    left = [*sources.not_compared, *([reason] if reason else [])]
    return {**facts, "not_compared": left} if left else facts
