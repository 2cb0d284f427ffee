"""The export gate: a merged model is believed only after its logits were compared with the adapter's (law 6).

Probe texts of DNA, protein, English and a prompt are read by the unmerged model (PEFT's), by the merged one in float32 before anything is
written, and by the written folder, which a process of its own loads as a stranger would. A gap is the largest absolute difference of two
logits, divided by the largest absolute logit (at least 1). Merging computes W + s B A once instead of W x + s B (A x), which in float32
differs by rounding only (1e-7 to 1e-6 measured); rounding the weights to bfloat16 (8 bits) costs about 1e-2.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from llama_gene.data.prompts import render_prompt, render_user
from llama_gene.errors import InputError, MismatchError
from llama_gene.export import reload
from llama_gene.models.settings import Precision
from llama_gene.tokenization.tokenizer import encode_text

TOLERANCE: dict[Precision, float] = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}
"""Largest gap allowed between the adapter's logits and those of the written folder, by the precision of its weights."""

_DNA = "TATAAAAGGCGCGCCATGGCTAGCAAAGGTGAAGAACTGTTCACCGGTGTTGTTCCGATCCTGGTTGAACTGTAATAAGTAAGTNNNCAGGT"
_PROTEIN = "MASKGEELFTGVVPILVELDGDVNGHKFSVSGEGEGDATYGKLTLKFICTTGKLPVPWPTLVTTFXX"
_ENGLISH = "A gene is a stretch of DNA whose sequence of bases says how to build a protein, and when."
PROBES = (
    _DNA,
    _DNA[::-1],
    "acgtacgt" + _DNA.lower(),
    _PROTEIN,
    _PROTEIN[::-1],
    _ENGLISH,
    "The promoter TATAAA lies 25 bp upstream;  the kinase MSKGEELFT does not.",
    render_prompt(render_user("Determine the promoter of following dna sequence.", _DNA)),
    render_prompt(render_user("Determine the function of following protein sequence.", _PROTEIN)),
)


def context(config: Any) -> int:
    """Return the longest input that probes may have."""
    return int(getattr(config, "max_position_embeddings", None) or 1024)


def probe_ids(tokenizer: Any, limit: int, texts: Sequence[str] = PROBES) -> list[list[int]]:
    """Return the ids of each probe text, BOS first where there is one, cut at the model's context."""
    start = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
    return [[*start, *encode_text(tokenizer, text)][:limit] for text in texts]


def probe_logits(model: Any, tokenizer: Any, texts: Sequence[str] = PROBES) -> list[torch.Tensor]:
    """Return the float32 logits (T, V) of each probe text, one at a time, for the tokenizer's tokens only."""
    model.eval()
    logits = []
    with torch.inference_mode():
        for row in probe_ids(tokenizer, context(model.config), texts):
            ids = torch.tensor([row], device=model.device)
            logits.append(model(input_ids=ids, use_cache=False).logits[0, :, : len(tokenizer)].float().cpu())
    return logits


def lazy_logits(model: Any, tokenizer: Any, texts: Sequence[str] = PROBES) -> list[torch.Tensor]:
    """Return the same of a model whose weights are read layer by layer: all texts in one pass, the short ones filled up on the right.

    A causal model's token does not see what stands behind it, so what fills up changes nothing (law 8).
    """
    rows = probe_ids(tokenizer, context(model.config), texts)
    longest = max(map(len, rows))
    ids = torch.tensor([row + [row[-1]] * (longest - len(row)) for row in rows])
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False).logits[:, :, : len(tokenizer)]
    return [logits[number, : len(row)].float() for number, row in enumerate(rows)]


def logit_gap(expected: Sequence[torch.Tensor], found: Sequence[torch.Tensor]) -> float:
    """Return the largest absolute difference, divided by the largest absolute expected logit (at least 1); NaN if a logit is NaN."""
    largest = max(1.0, *(float(tensor.abs().max()) for tensor in expected))
    differences = torch.stack([(a - b).abs().max() for a, b in zip(expected, found, strict=True)])
    return float(differences.max()) / largest


def check_merge(expected: Sequence[torch.Tensor], found: Sequence[torch.Tensor], name: str = "merged") -> float:
    """Return the gap between unmerged and merged logits; raise MismatchError when it is more than float32 rounding."""
    gap = logit_gap(expected, found)
    if not gap <= TOLERANCE["float32"]:
        raise MismatchError(
            f"{name} and unmerged logits differ by {gap:.2g} of the largest",
            f"at most {TOLERANCE['float32']:g}",
            "Some adapters do not merge exactly (randomised PiSSA); nothing was written",
        )
    return gap


def compare_written(
    folder: Path,
    tokenizer: Any,
    expected: Sequence[torch.Tensor],
    tolerance: float,
    fresh: bool = True,
    lazy: bool = False,
    texts: Sequence[str] = PROBES,
    padding_rows: int = 0,
) -> float:
    """Load a written folder as a stranger would, in a process of its own if `fresh`; return its gap to `expected`.

    `lazy` reads its weights layer by layer; `padding_rows` are known of a folder from elsewhere.
    Raises MismatchError when its tokenizer gives other ids, its rows are not its tokenizer's, or the gap exceeds `tolerance`; InputError
    when it does not load.
    """
    found, logits = read_back(folder, texts, fresh, lazy)
    if probe_ids(tokenizer, found["limit"], texts) != found["ids"]:
        raise MismatchError(f"{folder}: the written tokenizer gives other ids", "those of the adapter's tokenizer")
    rows, columns, size = found["rows"], found["columns"], found["vocab_size"]
    if not rows == columns == size == len(tokenizer) + padding_rows or found["tokens"] != len(tokenizer):
        raise MismatchError(
            f"the written model has {rows} embedding rows, {columns} head rows, vocab_size {size}, {found['tokens']} tokens",
            f"{len(tokenizer)}, the tokenizer's size",
        )
    gap = logit_gap(expected, [tensor[:, : len(tokenizer)] for tensor in logits])
    if not gap <= tolerance:
        raise MismatchError(
            f"logits of the written folder differ from the adapter's by {gap:.2g} of the largest",
            f"at most {tolerance:g}",
            "Export again, in float32 where rounding is the cause, or accept it with --tolerance",
        )
    return gap


def read_back(folder: Path, texts: Sequence[str], fresh: bool = True, lazy: bool = False) -> tuple[dict[str, Any], list[torch.Tensor]]:
    """Return (sizes and ids, logits) of a folder as `reload` reads them, in a new Python process if `fresh`. Raises InputError."""
    if not fresh:
        facts, logits = reload.read(str(folder), list(texts), lazy)
        return facts, [logits[str(number)] for number in range(len(texts))]
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "texts.json").write_text(json.dumps(list(texts)), encoding="utf-8")
        root = str(Path(reload.__file__).resolve().parents[2])
        paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        command = [sys.executable, "-m", reload.__name__, str(folder.resolve()), str(work), str(int(lazy))]
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, cwd=work, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
            raise InputError(f"{folder} does not load in a process of its own: {lines[-1][:300]}", "a folder that loads")
        logits = load_file(work / "logits.safetensors")
        facts = json.loads((work / "facts.json").read_text(encoding="utf-8"))
    return facts, [logits[str(number)] for number in range(len(texts))]
