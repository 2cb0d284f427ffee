"""Merge an adapter into its base, and believe the result only after comparing logits (law 6).

1. Take the logits of probe texts (DNA, protein, English, a prompt) from the unmerged model, in float32.
2. Merge, cut embedding rows that no token has, compare: a wrong merge stops here, before anything is written.
3. Write weights, config, generation config and the tokenizer's files (byte for byte) into a new folder.
4. Load that folder as a stranger would (AutoModelForCausalLM, AutoTokenizer), compare ids and logits again.
5. Hash every file into the manifest and seal the manifest; `verify_export` refuses a folder in which anything was changed.

A gap is the largest absolute difference of two logits, divided by the largest absolute logit (at least 1). Merging computes W + s B A once
instead of W x + s B (A x), which in float32 differs by rounding only (1e-7 to 1e-6 measured); rounding the weights to bfloat16 (8 bits)
costs about 1e-2. Memory: the whole model in float32, and its copy when the folder is read back.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel

from llama_gene.data.prompts import render_prompt, render_user
from llama_gene.errors import InputError, MismatchError
from llama_gene.models.settings import Precision
from llama_gene.runtime import MANIFEST_NAME, fingerprint, read_json, read_manifest, write_json
from llama_gene.tokenization.tokenizer import encode_text, load_tokenizer, vocabulary_fingerprint

TOLERANCE: dict[Precision, float] = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}
"""Largest gap allowed between the adapter's logits and those of the written folder, by the precision of its weights."""

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")

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


@dataclass(frozen=True)
class MergeReport:
    """What was found while merging and writing."""

    merge_gap: float
    """Adapter against merged model in memory, both float32."""
    written_gap: float
    """Adapter (float32) against the written folder, loaded anew in its own precision."""
    tolerance: float
    rows_cut: int
    """Embedding rows that no token has, cut off."""


def merge_adapter(model: Any, tokenizer: Any) -> tuple[PreTrainedModel, float, int, list[torch.Tensor]]:
    """Return (merged model, gap to the unmerged one, embedding rows cut off, the unmerged model's logits).

    `model` is a PeftModel, which is changed in place and must not be used again, or an ordinary model, which is returned as it is.
    Raises MismatchError when merged and unmerged logits differ by more than float32 rounding, or rows are missing.
    """
    rows = _num_rows(model.get_input_embeddings())
    if rows < len(tokenizer):
        raise MismatchError(f"the model has {rows} embedding rows for {len(tokenizer)} tokens", "a row for each token")
    expected = probe_logits(model, tokenizer)
    merged: PreTrainedModel = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
    if rows > len(tokenizer):
        merged.resize_token_embeddings(len(tokenizer))
    gap = logit_gap(expected, probe_logits(merged, tokenizer))
    if not gap <= TOLERANCE["float32"]:
        raise MismatchError(
            f"merged and unmerged logits differ by {gap:.2g} of the largest",
            f"at most {TOLERANCE['float32']:g}",
            "Some adapters do not merge exactly (randomised PiSSA); nothing was written",
        )
    return merged, gap, rows - len(tokenizer), expected


def write_model(
    merged: PreTrainedModel, tokenizer: Any, tokenizer_dir: Path, folder: Path, precision: Precision, max_shard_size: str = "4GB"
) -> None:
    """Write safetensors, config, generation config, and copy the tokenizer's files byte for byte from `tokenizer_dir`.

    Raises InputError when the tokenizer folder has no chat template: a server could not render the prompt that the model knows.
    """
    if not (tokenizer_dir / "chat_template.jinja").is_file():
        raise InputError(
            f"{tokenizer_dir} has no chat_template.jinja", "the prompt as a chat template", "Copy it from the tokenizer's folder"
        )
    config = merged.config
    config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    # A new one: a hub base brings sampling settings of its own (Llama 2: temperature 0.6), and label answers want greedy decoding.
    merged.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=pad, do_sample=False
    )
    merged.to(getattr(torch, precision))
    merged.save_pretrained(folder, max_shard_size=max_shard_size)
    for name in TOKENIZER_FILES:
        if (tokenizer_dir / name).is_file():
            shutil.copyfile(tokenizer_dir / name, folder / name)


def compare_written(folder: Path, tokenizer: Any, expected: Sequence[torch.Tensor], tolerance: float) -> float:
    """Load a written folder as a stranger would; return its gap to `expected`.

    Raises MismatchError when its tokenizer gives other ids, its rows are not its tokenizer's, or the gap exceeds `tolerance`.
    """
    reloaded_tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    if [encode_text(reloaded_tokenizer, text) for text in PROBES] != [encode_text(tokenizer, text) for text in PROBES]:
        raise MismatchError(f"{folder}: the written tokenizer gives other ids", "those of the adapter's tokenizer")
    reloaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder).eval()
    rows, columns = _num_rows(reloaded.get_input_embeddings()), _num_rows(reloaded.get_output_embeddings())
    if not rows == columns == reloaded.config.vocab_size == len(tokenizer):
        raise MismatchError(
            f"the written model has {rows} embedding rows, {columns} head rows, vocab_size {reloaded.config.vocab_size}",
            f"{len(tokenizer)}, the tokenizer's size",
        )
    gap = logit_gap(expected, probe_logits(reloaded.float(), tokenizer))
    if not gap <= tolerance:
        raise MismatchError(
            f"logits of the written folder differ from the adapter's by {gap:.2g} of the largest",
            f"at most {tolerance:g}",
            "Export in float32, or accept it with --tolerance; nothing was written",
        )
    return gap


def seal(folder: Path) -> None:
    """Add the SHA-256 of every file to the folder's manifest, and a seal over the manifest itself; call it last."""
    manifest = read_manifest(folder, "export")
    manifest.pop("seal", None)
    manifest["files"] = {name: _sha256(folder / name) for name in _file_names(folder)}
    write_json(folder / MANIFEST_NAME, {**manifest, "seal": fingerprint(manifest)})


def verify_export(folder: Path) -> dict[str, Any]:
    """Return the manifest of an exported folder in which nothing was changed since.

    Raises InputError for a folder that is no export or holds pickles, MismatchError naming what was changed, is missing or was added.
    """
    manifest = read_manifest(folder, "export")
    expected_seal = manifest.pop("seal", None)
    files: dict[str, str] = manifest.get("files", {})
    action = "Export the model again"
    if expected_seal != fingerprint(manifest):
        raise MismatchError(f"{folder / MANIFEST_NAME} was changed after the export", "the manifest as it was sealed", action)
    found = _file_names(folder)
    for name in found:
        if name.endswith(PICKLES):
            raise InputError(f"{folder / name} is a pickle, which can run code when it is loaded", "safetensors only", "Delete it")
    if missing := sorted(set(files) - set(found)):
        raise MismatchError(f"{folder} lacks {', '.join(missing)}", "every file of the export", action)
    if added := sorted(set(found) - set(files)):
        raise MismatchError(f"{folder} holds {', '.join(added)}", "only the files of the export", "Remove what was added")
    for name, digest in files.items():
        if _sha256(folder / name) != digest:
            raise MismatchError(f"{folder / name} was changed after the export", f"SHA-256 {digest[:16]}...", action)
    tokenizer = load_tokenizer(folder)
    if vocabulary_fingerprint(tokenizer) != manifest.get("vocabulary"):
        raise MismatchError(f"{folder}: vocabulary {vocabulary_fingerprint(tokenizer)}", f"{manifest.get('vocabulary')}", action)
    if read_json(folder / "config.json")["vocab_size"] != len(tokenizer):
        raise MismatchError(f"{folder / 'config.json'}: vocab_size differs from the tokenizer's", f"{len(tokenizer)}", action)
    return manifest


def probe_logits(model: Any, tokenizer: Any) -> list[torch.Tensor]:
    """Return the float32 logits (T, V) of each probe text, one at a time, for the tokenizer's tokens only."""
    limit = getattr(model.config, "max_position_embeddings", None) or 1024
    start = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
    model.eval()
    logits = []
    with torch.inference_mode():
        for text in PROBES:
            ids = torch.tensor([[*start, *encode_text(tokenizer, text)][:limit]], device=model.device)
            logits.append(model(input_ids=ids, use_cache=False).logits[0, :, : len(tokenizer)].float().cpu())
    return logits


def logit_gap(expected: Sequence[torch.Tensor], found: Sequence[torch.Tensor]) -> float:
    """Return the largest absolute difference, divided by the largest absolute expected logit (at least 1); NaN if a logit is NaN."""
    largest = max(1.0, *(float(tensor.abs().max()) for tensor in expected))
    differences = torch.stack([(a - b).abs().max() for a, b in zip(expected, found, strict=True)])
    return float(differences.max()) / largest


def _num_rows(layer: Any) -> int:
    """Return the rows of an embedding or a head."""
    return int(layer.weight.shape[0])


def _file_names(folder: Path) -> list[str]:
    """Return the files of a folder but for the manifest and what version control or the hub's client keep in hidden places."""
    names = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    return [name.as_posix() for name in names if name.as_posix() != MANIFEST_NAME and not any(part.startswith(".") for part in name.parts)]


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
