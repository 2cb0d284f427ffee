"""What a splice is worth: pieces that cannot or do not occur, letters per token, drift of English, faults of encoding.

Read the numbers together. *Unreachable* pieces are a fault of the vocabulary (0 with continued BPE). *Dead* ones were not seen on the
held-out text: a matter of its size. *Letters per token* is the gain; *English changed* is its price, counted against the base in the
same library (transformers reads a leading space differently from sentencepiece's own converters, in the base as in ours).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_gene.runtime import write_json, write_text
from llama_gene.tokenization.bpe import SPACE_MARK, reference_encode
from llama_gene.tokenization.tokenizer import decode, encode_batch, load_tokenizer, open_vocabulary, vocabulary_fingerprint

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

REPORT_NAME = "report.json"

_MEANINGS = {
    "pieces": "new pieces",
    "unreachable": "of them, not what their own letters encode to",
    "dead": "of them, never produced on the held-out gene text",
    "duplicates": "ids or pieces that occur twice",
    "base_ids_changed": "base pieces whose id changed",
    "bases_per_token": "DNA bases per token",
    "bases_per_token_base": "the same with the base",
    "residues_per_token": "protein residues per token",
    "residues_per_token_base": "the same with the base",
    "english_lines": "English lines",
    "english_lines_changed": "of them, encoded differently from the base",
    "english_tokens": "base tokens in them",
    "english_tokens_changed": "of them, replaced",
    "roundtrip_failures": "texts that decode(encode(x)) changes",
    "library_mismatches": "texts that the format's own library encodes differently",
    "fingerprint": "vocabulary fingerprint",
}


def report(
    tokenizer_folder: Path,
    base: Path | str,
    dna: Sequence[str] = (),
    protein: Sequence[str] = (),
    english: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the numbers of a spliced tokenizer folder against its base, on held-out texts.

    A number is None where the text that it needs was not given (or, for library_mismatches, where the format has no library of
    its own). `piece_lengths` is {letters: number of new pieces}.
    """
    spliced, before = open_vocabulary(tokenizer_folder), open_vocabulary(base)
    tokenizer, base_tokenizer = load_tokenizer(tokenizer_folder), before.tokenizer()
    old = before.pieces()
    new = {piece: number for piece, number in spliced.pieces().items() if piece not in old}
    ids = tokenizer.get_vocab()
    lines = [line for text in english for line in text.splitlines() if line.strip()]
    texts = [*dna, *protein, *lines]
    encoded = encode_batch(tokenizer, texts)
    genes = encoded[: len(dna) + len(protein)]
    native = spliced.native_encode(texts) if texts else None
    produced = {number for row in genes for number in row}
    changes = _changes(encode_batch(base_tokenizer, lines), encoded[len(genes) :])
    return {
        "pieces": len(new),
        "unreachable": sum(reference_encode(piece, spliced.rank) != [piece] for piece in new),
        "dead": sum(number not in produced for number in new.values()) if genes else None,
        "duplicates": len(ids) - len(set(ids.values())),
        "base_ids_changed": sum(ids.get(piece) != number for piece, number in base_tokenizer.get_vocab().items()),
        "bases_per_token": _per_token(dna, encoded[: len(dna)]),
        "bases_per_token_base": _per_token(dna, encode_batch(base_tokenizer, dna)),
        "residues_per_token": _per_token(protein, encoded[len(dna) : len(genes)]),
        "residues_per_token_base": _per_token(protein, encode_batch(base_tokenizer, protein)),
        "english_lines": len(lines) if english else None,
        "english_lines_changed": changes["lines"] if english else None,
        "english_tokens": changes["tokens"] if english else None,
        "english_tokens_changed": changes["changed"] if english else None,
        "roundtrip_failures": _roundtrip_failures(tokenizer, texts, encoded, spliced.kind) if texts else None,
        "library_mismatches": sum(a != b for a, b in zip(encoded, native, strict=True)) if native is not None else None,
        "fingerprint": vocabulary_fingerprint(tokenizer),
        "piece_lengths": {str(length): count for length, count in sorted(Counter(map(len, new)).items())},
    }


def write_report(numbers: dict[str, Any], folder: Path) -> None:
    """Write `report.json`, `report.md` and `piece_lengths.png` into a folder."""
    write_json(folder / REPORT_NAME, numbers)
    write_text(folder / "report.md", markdown(numbers))
    _write_figure(numbers["piece_lengths"], folder / "piece_lengths.png")


def markdown(numbers: dict[str, Any]) -> str:
    """Return the numbers as a Markdown table; what was not measured says so."""
    rows = [f"| {meaning} | {_shown(numbers[key])} | `{key}` |" for key, meaning in _MEANINGS.items()]
    return "\n".join(["# Vocabulary report", "", "| what | value | key |", "|---|---:|---|", *rows, ""])


def _shown(value: Any) -> str:
    if value is None:
        return "not measured"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}" if isinstance(value, float) else str(value)


def _per_token(texts: Sequence[str], encoded: Sequence[Sequence[int]]) -> float | None:
    num_tokens = sum(map(len, encoded))
    return sum(map(len, texts)) / num_tokens if num_tokens else None


def _changes(before: Sequence[list[int]], after: Sequence[list[int]]) -> dict[str, int]:
    """Count lines whose ids differ, and the base's tokens in them that are no longer there."""
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    kept = (sum(block.size for block in SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks()) for old, new in changed)
    lost = sum(len(old) for old, _ in changed) - sum(kept)
    return {"lines": len(changed), "tokens": sum(map(len, before)), "changed": lost}


def _roundtrip_failures(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], encoded: Sequence[list[int]], kind: str) -> int:
    """Count texts that do not come back; a literal U+2581 is SentencePiece's space and never does, in the base neither."""
    exempt = SPACE_MARK if kind == "sentencepiece" else None
    pairs = ((text, ids) for text, ids in zip(texts, encoded, strict=True) if exempt is None or exempt not in text)
    return sum(decode(tokenizer, ids) != text for text, ids in pairs)


def _write_figure(piece_lengths: dict[str, int], path: Path) -> None:
    """Draw how many new pieces have how many letters."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.bar([int(length) for length in piece_lengths], list(piece_lengths.values()), color="#3b6ea5")
    axes.set(xlabel="letters in a piece", ylabel="new pieces", title="Lengths of the new pieces")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120, metadata={"Software": None})  # no version in the file: the same numbers, the same bytes
