"""What a tokenizer is worth: pieces that cannot or do not occur, letters per token, drift of English, faults of encoding.

Read the numbers together. *Unreachable* pieces are a fault of the vocabulary (0 with continued BPE). *Dead* ones were not seen on the
given text: a matter of its size. *Letters per token* is the gain; *English changed* is its price, counted against the base, each in its
format's own library. Any tokenizer can be measured (`report_subject`), and faults that are known from published files are flagged.

Texts are encoded batch by batch (some 2 million letters at a time); counts and the set of produced ids are all that is kept.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llama_gene.sequences.alphabet import reverse_complement
from llama_gene.tokenization.bpe import SPACE_MARK
from llama_gene.tokenization.english import without_gene_spans
from llama_gene.tokenization.report_page import markdown, write_report
from llama_gene.tokenization.report_subject import BYTE_SPACE, Flag, Subject, open_subject

__all__ = ["Sources", "markdown", "report", "write_report"]

Sources = Mapping[str, Sequence[str]]
"""Input file name -> its texts: sequences, or documents of English or code."""

LETTERS_A_BATCH = 1 << 21
NUM_EXAMPLES = 20
NUM_WINDOWS = 256
WINDOW_BASES = 512
MAX_CUT = 6  # bases cut off in front
FIRST_STABLE_LETTER = 64  # boundaries before it are not asked to survive a cut
CONTEXT_BYTES = 24
SPACE_SCORE = -1e8  # scores at or below it mark LLaMA-2's multi-space pieces, not a place in the order

_NOTHING: Sources = {}


def report(
    tokenizer: Path | str,
    base: Path | str | None = None,
    *,
    dna: Sources = _NOTHING,
    protein: Sources = _NOTHING,
    english: Sources = _NOTHING,
    code: Sources = _NOTHING,
    standalone_dna: Path | str | None = None,
    standalone_protein: Path | str | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the numbers of any tokenizer (a folder, a file or a hub id), on texts that it was not trained on.

    Counts of pieces are over those that `base` does not hold (all of them, where there is no base). A number is None where the text, the
    base or the stand-alone vocabulary that it needs was not given. `seed` draws the windows in which mutations, cuts and strands are
    compared. Only `load_seconds` differs between two runs; no path is in the numbers. Raises InputError for what is no tokenizer.
    """
    subject = open_subject(tokenizer)
    before = None if base is None else open_subject(base)
    alone = {
        kind: open_subject(source) for kind, source in (("dna", standalone_dna), ("protein", standalone_protein)) if source is not None
    }
    new = _new_pieces(subject, before)
    counts = _Counts(subject, before, alone)
    for kind, sources in (("dna", dna), ("protein", protein)):
        counts.add_genes(kind, sources)
    for kind, sources in (("english", english), ("code", code)):
        counts.add_lines(kind, sources)
    numbers = {
        "base": None if base is None else Path(base).name,
        "library": subject.library,
        "vocab_size": subject.num_ids,
        "pieces": len(new),
        **_reachability(subject, before, new),
        "dead": sum(not counts.produced[number] for number in new.values()) if counts.num_texts else None,
        "duplicates": _duplicates(subject, before),
        "base_ids_changed": None if before is None else _ids_changed(subject, before),
        **counts.numbers(),
        **_stability(subject, dna, random.Random(seed)),
        "load_seconds": round(subject.load_seconds, 2),
        "fingerprint": subject.fingerprint,
        "piece_lengths": {str(length): count for length, count in sorted(Counter(map(len, new)).items())},
        "by_source": counts.by_source,
    }
    return {"flags": _flags(subject, before, new, numbers), **numbers}


class _Counts:
    """Running counts over all texts."""

    def __init__(self, subject: Subject, base: Subject | None, alone: Mapping[str, Subject]) -> None:
        self.subject, self.base, self.alone = subject, base, alone
        self.produced: NDArray[np.bool_] = np.zeros(subject.num_ids, np.bool_)
        self.by_source: dict[str, dict[str, Any]] = {}
        self.examples: list[dict[str, Any]] = []
        self.num_texts = self.roundtrip_failures = self.library_mismatches = 0
        self._in_protein_block = np.zeros(subject.num_ids, np.bool_)
        for block in subject.protein_blocks or []:
            self._in_protein_block[block.start : block.stop] = True
        self._protein_tokens = 0
        self._outside: Counter[str] = Counter()

    def add_genes(self, kind: str, sources: Sources) -> None:
        """Count the sequences of a kind."""
        given = {"tokens_base": self.base, "tokens_standalone": self.alone.get(kind)}
        others = {key: other for key, other in given.items() if other is not None}
        for name, texts in sources.items():
            entry = self._new_entry(name, kind)
            tokens: Counter[str] = Counter()
            for batch in _batches(texts):
                tokens["letters"] += sum(map(len, batch))
                ids = _flat(self._encode(batch))
                tokens["tokens"] += len(ids)
                if kind == "dna":
                    self._protein_tokens += int(self._in_protein_block[ids].sum())
                for key, other in others.items():
                    tokens[key] += sum(map(len, other.encode(batch)))
            entry.update(_compression(tokens, list(others)))

    def add_lines(self, kind: str, sources: Sources) -> None:
        """Count the lines of English or code, and what differs in them from the base."""
        for name, documents in sources.items():
            entry = self._new_entry(name, kind)
            found: Counter[str] = Counter()
            for batch in _batches([line for text in documents for line in text.splitlines() if line.strip()]):
                ids = self._encode(batch)
                found.update(letters=sum(map(len, batch)), lines=len(batch), tokens=sum(map(len, ids)))
                if self.base is not None:
                    old = self.base.encode(batch)
                    found.update(self._drift(old, ids, name if kind == "english" else None))
                    if kind == "english":
                        self._outside.update(self._drift_outside_genes(batch, old, ids))
            entry.update(_compression(found, ["tokens_base"] if self.base is not None else []), lines=found["lines"])
            changed = ("lines_changed", "tokens_changed")
            entry.update({key: found[key] if self.base is not None else None for key in changed})

    def numbers(self) -> dict[str, Any]:
        """Return the counts over all sources, None for what was not given."""
        numbers: dict[str, Any] = {}
        for kind, key in (("dna", "bases_per_token"), ("protein", "residues_per_token")):
            for suffix in ("", "_base", "_standalone"):
                letters, tokens = self._sum(kind, "letters"), self._sum(kind, f"tokens{suffix}")
                numbers[key + suffix] = letters / tokens if letters and tokens else None
        for kind in ("english", "code"):
            numbers[f"{kind}_lines"] = self._sum(kind, "lines")
            for key in ("lines_changed", "tokens_changed"):
                numbers[f"{kind}_{key}"] = self._sum(kind, key)
            numbers[f"{kind}_tokens"] = self._sum(kind, "tokens_base")
        compared = self.base is not None and numbers["english_lines"] is not None
        for key in ("lines", "lines_changed", "tokens", "tokens_changed"):
            numbers[f"english_{key}_outside_genes"] = self._outside[key] if compared else None
        named = self.subject.protein_blocks is not None
        tokens = self._sum("dna", "tokens")
        numbers["protein_share_of_dna"] = self._protein_tokens / tokens if tokens and named else None
        numbers["roundtrip_failures"] = self.roundtrip_failures if self.num_texts else None
        numbers["library_mismatches"] = self.library_mismatches if self.num_texts and self.subject.transformers else None
        numbers["texts"] = self.num_texts
        numbers["english_examples"] = self.examples
        return numbers

    def _new_entry(self, name: str, kind: str) -> dict[str, Any]:
        """Return the entry of a source; a file that is given for two kinds has two."""
        key = name if name not in self.by_source else f"{name} ({kind})"
        return self.by_source.setdefault(key, {"kind": kind})

    def _sum(self, kind: str, key: str) -> int | None:
        """Return a count over all sources of a kind; None where no such source was given or counted."""
        values = [entry[key] for entry in self.by_source.values() if entry["kind"] == kind and entry.get(key) is not None]
        return sum(values) if values else None

    def _encode(self, batch: list[str]) -> list[list[int]]:
        """Return the ids of a batch; count what does not come back and what transformers encodes differently."""
        subject = self.subject
        encoded = subject.encode(batch)
        self.num_texts += len(batch)
        self.produced[_flat(encoded)] = True
        # a literal U+2581 is SentencePiece's own space: it never comes back, in no base either
        marked = SPACE_MARK if subject.space_mark == SPACE_MARK else None
        for text, ids in zip(batch, encoded, strict=True):
            if (marked is None or marked not in text) and subject.decode(ids) != text:
                self.roundtrip_failures += 1
        if subject.transformers is not None and subject.transformers is not subject.encode:
            theirs = subject.transformers(batch)
            self.library_mismatches += sum(ours != other for ours, other in zip(encoded, theirs, strict=True))
        return encoded

    def _drift(self, before: list[list[int]], after: list[list[int]], source: str | None = None) -> dict[str, int]:
        """Count lines whose ids differ, and the base's tokens in them that are no longer there; keep examples from a named source."""
        assert self.base is not None
        lines = tokens = 0
        for old, new in zip(before, after, strict=True):
            if old != new:
                lines += 1
                tokens += tokens_replaced(self.base, self.subject, old, new)
                if source is not None and len(self.examples) < NUM_EXAMPLES:
                    example = {"source": source, **_first_change(self.base, self.subject, old, new)}
                    if all(example["base_tokens"] != known["base_tokens"] for known in self.examples):
                        self.examples.append(example)
        return {"lines_changed": lines, "tokens_changed": tokens, "tokens_base": sum(map(len, before))}

    def _drift_outside_genes(self, batch: list[str], before: list[list[int]], after: list[list[int]]) -> dict[str, int]:
        """Return the drift with the gene spans cut out of the lines; lines that hold none are not encoded again."""
        assert self.base is not None
        kept = [without_gene_spans(line) for line in batch]
        same = [place for place, line in enumerate(batch) if kept[place] == line]
        cut = [line for place, line in enumerate(kept) if line != batch[place] and line.strip()]
        old = [before[place] for place in same] + self.base.encode(cut)
        new = [after[place] for place in same] + self.subject.encode(cut)
        drift = self._drift(old, new)
        return {"lines": len(old), "tokens": drift["tokens_base"], **{key: drift[key] for key in ("lines_changed", "tokens_changed")}}


def tokens_replaced(base: Subject, subject: Subject, before: Sequence[int], after: Sequence[int]) -> int:
    """Return how many of a text's base tokens are no longer there: the same id at the same place of the text."""
    old, new = base.ends(before), subject.ends(after)
    if old and new and old[-1] == new[-1]:
        return len(before) - len(set(zip(old, before, strict=True)) & set(zip(new, after, strict=True)))
    blocks = SequenceMatcher(None, before, after, autojunk=False).get_matching_blocks()  # an unknown character has no known length
    return len(before) - sum(block.size for block in blocks)


def _first_change(base: Subject, subject: Subject, before: Sequence[int], after: Sequence[int]) -> dict[str, Any]:
    """Return the first place of a text where the two differ: its surroundings, the base's tokens there, and the new ones."""
    place = next((place for place, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]), min(len(before), len(after)))
    old, new = base.ends(before), subject.ends(after)
    start = old[place - 1] if place else 0
    end = min((set(old) & set(new)) - set(old[:place]) - {start}, default=old[-1] if old else 0)
    whole = b"".join(base.token_bytes.get(number, b"") for number in before)
    around = whole[max(0, start - CONTEXT_BYTES) : end + CONTEXT_BYTES].decode("utf-8", "ignore")
    return {
        "text": around,
        "base_tokens": [base.text([number]) for number, at in zip(before, old, strict=True) if start < at <= end],
        "new_tokens": [subject.text([number]) for number, at in zip(after, new, strict=True) if start < at <= end],
    }


def _compression(found: Counter[str], others: Sequence[str]) -> dict[str, Any]:
    """Return letters, tokens and letters per token of one source, beside the base and the stand-alone vocabulary where they are given."""
    entry: dict[str, Any] = {"letters": found["letters"], "tokens": found["tokens"]}
    entry.update({key: found[key] if key in others else None for key in ("tokens_base", "tokens_standalone")})
    for suffix in ("", "_base", "_standalone"):
        tokens = entry[f"tokens{suffix}"]
        entry[f"letters_per_token{suffix}"] = found["letters"] / tokens if tokens else None
    return entry


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """Yield the texts some million letters at a time."""
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= LETTERS_A_BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _flat(ids: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    return np.fromiter(chain.from_iterable(ids), np.int64, count=sum(map(len, ids)))


# what the vocabulary itself says


def _new_pieces(subject: Subject, base: Subject | None) -> dict[str, int]:
    known = {piece for piece, _ in base.entries} if base is not None else set()
    return {piece: number for piece, number in subject.pieces.items() if piece not in known}


def _reachability(subject: Subject, base: Subject | None, new: Mapping[str, int]) -> dict[str, Any]:
    """Count the pieces that no text gives: new ones, and ones that the base did give."""
    trace = subject.gpt2_trace or subject.trace
    unreachable = [(piece, parts) for piece in new if (parts := trace(piece)) != [piece]]
    as_filed = sum(subject.trace(piece) != [piece] for piece in new) if subject.gpt2_trace else len(unreachable)
    lost = None
    if base is not None:
        kept = [piece for piece in base.pieces if piece in subject.pieces and subject.trace(piece) != [piece]]
        lost = sum(base.trace(piece) == [piece] for piece in kept)
    examples = [{"piece": piece, "becomes": parts} for piece, parts in unreachable[:NUM_EXAMPLES]]
    return {
        "unreachable": len(unreachable),
        "unreachable_as_filed": as_filed,
        "unreachable_examples": examples,
        "base_pieces_lost": lost,
    }


def _duplicates(subject: Subject, base: Subject | None) -> int:
    """Count entries that repeat the piece or the id of an earlier one; the base's own entries are not counted."""
    known = set(base.entries) if base is not None else set()
    pieces: set[str] = set()
    ids: set[int] = set()
    repeated = 0
    for piece, number in subject.entries:
        if (piece, number) not in known or (piece in pieces and number in ids):
            repeated += piece in pieces or number in ids
        pieces.add(piece)
        ids.add(number)
    return repeated


def _ids_changed(subject: Subject, base: Subject) -> int:
    """Count pieces and special tokens of the base that have another id now, or none."""
    ids = dict(reversed(subject.entries))  # of a piece that is there twice, the first
    return sum(ids.get(piece) != number for piece, number in base.entries)


# what one mutation, a cut and the other strand change


def _stability(subject: Subject, dna: Sources, rng: random.Random) -> dict[str, float | None]:
    """Return the three means over windows drawn from the DNA; None where the texts are too short."""
    windows = _windows(dna, rng)
    mutated = [_mutated(window, rng) for window in windows]
    encoded = subject.encode(windows)
    replaced = [_middle(old, new) for old, new in zip(encoded, subject.encode(mutated), strict=True)]
    ends = [_boundaries(subject, window, ids) for window, ids in zip(windows, encoded, strict=True)]
    return {
        "snv_tokens_changed": _mean(replaced),
        "phase_stability": _mean(_kept_after_cut(subject, windows, ends)),
        "rc_stability": _mean(_kept_on_other_strand(subject, windows, ends)),
    }


def _windows(dna: Sources, rng: random.Random) -> list[str]:
    """Return up to NUM_WINDOWS windows of at most WINDOW_BASES bases without a gap, drawn by length from all texts."""
    texts = [text for sources in dna.values() for text in sources if len(text) > 1]
    if not texts:
        return []
    drawn = rng.choices(texts, weights=[len(text) for text in texts], k=4 * NUM_WINDOWS)
    windows = []
    for text in drawn:
        start = rng.randrange(max(1, len(text) - WINDOW_BASES + 1))
        window = text[start : start + WINDOW_BASES]
        if re.fullmatch("[ACGTUacgtu]+", window):
            windows.append(window)
    return windows[:NUM_WINDOWS]


def _mutated(window: str, rng: random.Random) -> str:
    """Return a window with one base replaced by another, in the same case.

    >>> _mutated("AAAA", random.Random(1))
    'ATAA'
    """
    place = rng.randrange(len(window))
    old = window[place]
    letters = ("ACGU" if "U" in window.upper() else "ACGT").replace(old.upper(), "")
    new = rng.choice(letters)
    return window[:place] + (new if old.isupper() else new.lower()) + window[place + 1 :]


def _middle(before: Sequence[int], after: Sequence[int]) -> int:
    """Return how many tokens of the first stand between the common start and the common end.

    >>> _middle([1, 2, 3, 4], [1, 9, 4])
    2
    """
    shorter = min(len(before), len(after))
    start = next((place for place in range(shorter) if before[place] != after[place]), shorter)
    end = next((place for place in range(shorter - start) if before[-1 - place] != after[-1 - place]), shorter - start)
    return len(before) - start - end


def _boundaries(subject: Subject, window: str, ids: Sequence[int]) -> list[int] | None:
    """Return the places between tokens, in letters; None where a token's length is not known (an unknown letter)."""
    ends = subject.ends(ids)
    mark = ends[-1] - len(window) if ends else 0
    if mark not in (0, 1):  # 1: the space that SentencePiece puts in front
        return None
    return [end - mark for end in ends[:-1] if end > mark]


def _kept_after_cut(subject: Subject, windows: Sequence[str], ends: Sequence[list[int] | None]) -> Iterator[float]:
    for cut in range(1, MAX_CUT + 1):
        shortened = [window[cut:] for window in windows]
        for text, ids, whole in zip(shortened, subject.encode(shortened), ends, strict=True):
            after = _boundaries(subject, text, ids)
            places = [place for place in whole or [] if place > FIRST_STABLE_LETTER]
            if after is not None and places:
                yield len({place + cut for place in after}.intersection(places)) / len(places)


def _kept_on_other_strand(subject: Subject, windows: Sequence[str], ends: Sequence[list[int] | None]) -> Iterator[float]:
    strands = [reverse_complement(window, "rna" if "U" in window.upper() else "dna") for window in windows]
    for text, ids, places in zip(strands, subject.encode(strands), ends, strict=True):
        other = _boundaries(subject, text, ids)
        if other is not None and places:
            yield len({len(text) - place for place in other}.intersection(places)) / len(places)


def _mean(values: Iterator[float] | Sequence[float]) -> float | None:
    found = list(values)
    return sum(found) / len(found) if found else None


# faults


def _flags(subject: Subject, base: Subject | None, new: Mapping[str, int], numbers: Mapping[str, Any]) -> list[Flag]:
    """Return every fault that the file or the numbers show, the vocabulary's own first."""
    flags = [*_score_flags(subject, base, new), *_special_flags(subject, base), *_piece_flags(subject, base, new, numbers), *subject.flags]
    counted = (
        ("duplicates", "repeated pieces or ids", "{count:,} entries repeat a piece or an id"),
        (
            "base_ids_changed",
            "base ids changed",
            "{count:,} pieces or specials of the base have another id, or none: a base model misreads them",
        ),
        ("base_pieces_lost", "base pieces lost", "{count:,} pieces of the base can no longer occur: new merges fire inside them"),
        ("roundtrip_failures", "text does not come back", "decode(encode(x)) changes {count:,} of {texts:,} texts"),
        (
            "library_mismatches",
            "libraries disagree",
            f"{subject.library} and transformers encode {{count:,}} of {{texts:,}} texts differently: train with one, serve with the other",
        ),
    )
    for key, fault, detail in counted:
        if numbers[key]:
            flags.append({"fault": fault, "detail": detail.format(count=numbers[key], texts=numbers["texts"])})
    if numbers["protein_share_of_dna"]:
        share = f"{numbers['protein_share_of_dna']:.1%} of the tokens of DNA come from the protein pieces"
        flags.append({"fault": "protein pieces in DNA", "detail": share})
    return flags


def _score_flags(subject: Subject, base: Subject | None, new: Mapping[str, int]) -> Iterator[Flag]:
    """Yield the faults of a SentencePiece BPE's scores, which are merge priorities and should be whole, distinct and in order of id."""
    if subject.scores is None or subject.model_type != "BPE":
        return
    scores = {piece: score for piece, score in subject.scores.items() if score > SPACE_SCORE}
    ours = [scores[piece] for piece in new if piece in scores]
    fractional = [score for score in ours if score != int(score)]
    if fractional:
        detail = (
            f"{len(fractional):,} pieces have fractional scores ({max(fractional):.2f} to {min(fractional):.2f}): log-probabilities of a "
            "Unigram model, which BPE reads as merge priorities"
        )
        yield {"fault": "Unigram scores in a BPE model", "detail": detail}
    theirs = sorted(score for score in (base.scores or {}).values() if score > SPACE_SCORE) if base is not None else []
    if ours and theirs:
        known, best = set(theirs), max(ours)
        shared = sum(score in known for score in ours)
        if shared:
            detail = f"{shared:,} new pieces have the score of a base piece: which of the two merges first is left to chance"
            yield {"fault": "new scores collide with base scores", "detail": detail}
        above = sum(score >= theirs[0] for score in ours)
        if above:
            outranked = sum(score < best for score in theirs)
            detail = (
                f"{above:,} new pieces rank above base pieces, the best of them above {outranked:,} of {len(theirs):,}: English is cut anew"
            )
            yield {"fault": "new scores above base scores", "detail": detail}
    late = _out_of_order(subject, scores, new)
    if late:
        detail = f"{late:,} pieces do not score below all that come before them: sentencepiece merges by score, transformers by id"
        yield {"fault": "score order is not id order", "detail": detail}


def _out_of_order(subject: Subject, scores: Mapping[str, float], new: Mapping[str, int]) -> int:
    """Count the new pieces whose score is not below that of every piece before them."""
    lowest = float("inf")
    late = 0
    for piece in sorted(scores, key=lambda piece: subject.pieces[piece]):
        late += piece in new and scores[piece] >= lowest
        lowest = min(lowest, scores[piece])
    return late


def _special_flags(subject: Subject, base: Subject | None) -> Iterator[Flag]:
    """Yield specials that have moved against the base, or that transformers numbers otherwise than the file."""
    if base is not None:
        ids = {**subject.pieces, **subject.specials}
        moved = [f"{name} {number} -> {ids.get(name, 'none')}" for name, number in base.specials.items() if ids.get(name) != number]
        if moved:
            yield {"fault": "special tokens moved", "detail": f"{len(moved):,} of them against the base: {_some(moved)}"}
    theirs = subject.transformers_ids
    if theirs:
        moved = [f"{name} {number} -> {theirs[name]}" for name, number in subject.specials.items() if theirs.get(name, number) != number]
        absent = [name for name in subject.specials if name not in theirs]
        if moved:
            yield {"fault": "transformers moves special tokens", "detail": f"{len(moved):,} of them: {_some(moved)}"}
        if absent:
            yield {"fault": "transformers lacks special tokens", "detail": f"{len(absent):,} that the file implies: {_some(absent)}"}


def _piece_flags(subject: Subject, base: Subject | None, new: Mapping[str, int], numbers: Mapping[str, Any]) -> Iterator[Flag]:
    """Yield what is wrong with the new pieces: they cannot occur, or carry a space."""
    unreachable, as_filed = numbers["unreachable"], numbers["unreachable_as_filed"]
    if unreachable:
        detail = f"{unreachable:,} of {len(new):,} pieces ({unreachable / len(new):.1%}) can never occur: their ids are never trained"
        if unreachable != as_filed:
            detail += (
                f". The dictionary was made without a word pattern (use_regex=False) and is used through GPT2Tokenizer, whose pattern cuts "
                f"at spaces, digits and signs; run as the file itself says, {as_filed:,} could not occur"
            )
        yield {"fault": "unreachable pieces", "detail": detail}
    mark = re.escape(subject.space_mark)
    letters = "[A-Z]+" if base is not None else "[ACGTN]{5,}"
    marked = [piece for piece in new if re.fullmatch(mark + letters, piece)]
    if marked:
        shown = _some([piece.replace(BYTE_SPACE, SPACE_MARK) for piece in marked])
        detail = (
            f"{len(marked):,} gene pieces begin with a space ({shown}): they fire in English, and a gene reads differently behind a space"
        )
        yield {"fault": "space mark in gene pieces", "detail": detail}


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
