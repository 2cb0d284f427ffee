"""Byte-pair encoding by its definition: the reference merge loop, merge lists, and what the package asks of a vocabulary of any format."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerFast

SPACE_MARK = "\u2581"  # SentencePiece's visible space

Rank = Callable[[str, str], float | None]
_BEHIND = 1e12  # behind any rank or score of a base


class Vocabulary(Protocol):
    """What the splice, the recipe and the report need from a base of any format."""

    kind: str
    """"sentencepiece", "tiktoken" or "bpe"."""

    @property
    def pattern(self) -> str | None:
        """The pre-tokenizer's pattern, where the format has one."""

    @property
    def num_ids(self) -> int:
        """One more than the highest id, specials included."""

    def pieces(self) -> dict[str, int]:
        """Return the text pieces (no specials, no raw bytes) and their ids."""

    def ids(self) -> dict[str, int]:
        """Return every piece and special token with its id."""

    def rank(self, left: str, right: str) -> float | None:
        """Return the priority of merging two adjacent pieces (lower merges first), None where they do not merge."""

    def piece_texts(self) -> dict[int, str]:
        """Return id -> text of every text piece (no specials, no raw bytes)."""

    def segment(self, words: list[str]) -> list[list[str]]:
        """Return each word's pieces, as it is segmented inside a text (no word-start mark)."""

    def segment_ids(self, words: Sequence[str]) -> NDArray[np.int32]:
        """Return the ids of `segment` for all words, one behind the other, with -1 behind each word."""

    def append(self, pieces: Sequence[str]) -> Vocabulary:
        """Return a vocabulary with new pieces behind all ids; the base's ids, pieces, priorities and specials stay."""

    def append_letters(self, tokens: Sequence[str]) -> Vocabulary:
        """Return a vocabulary with the tokens of a namespaced alphabet (`<3di:a>`) behind all ids, each one id and never merged."""

    def isolated(self) -> Vocabulary:
        """Return the same pieces behind a pre-tokenizer that cuts gene runs out of their surroundings; InputError where there is none."""

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Return the tokenizer that transformers runs."""

    def native_encode(self, texts: list[str]) -> list[list[int]] | None:
        """Return ids from the format's own library (no specials added), None where it has none."""

    def write_native(self, folder: Path) -> None:
        """Write the format's own file (`tokenizer.model`), if it has one."""


def reference_encode(word: str, rank: Rank) -> list[str]:
    """Return a word's pieces by the definition of BPE: merge the best-ranked adjacent pair, leftmost on ties, until none is left.

    Plain and slow (quadratic) on purpose: what it says is what SentencePiece and tiktoken must say.

    >>> ranks = {"AC": 0, "GT": 1, "ACGT": 2}
    >>> reference_encode("TACGTA", lambda left, right: ranks.get(left + right))
    ['T', 'ACGT', 'A']
    """
    pieces = list(word)
    while len(pieces) > 1:
        best: float | None = None
        where = -1
        for position in range(len(pieces) - 1):
            found = rank(pieces[position], pieces[position + 1])
            if found is not None and (best is None or found < best):
                best, where = found, position
        if best is None:
            break
        pieces[where : where + 2] = [pieces[where] + pieces[where + 1]]
    return pieces


def rank_behind(base: Rank, chosen: Mapping[str, int]) -> Rank:
    """Return the priority of merges where new pieces stand behind a base, in the order of their numbers; `chosen` may grow meanwhile.

    >>> rank = rank_behind(lambda left, right: 5.0 if left + right == "AC" else None, {"AC": 0, "ACG": 1})
    >>> rank("A", "C"), rank("AC", "G"), rank("A", "CG")
    (5.0, 1000000000001.0, 1000000000001.0)
    """

    def rank(left: str, right: str) -> float | None:
        found = base(left, right)
        if found is None and (new := chosen.get(left + right)) is not None:
            return _BEHIND + new
        return found

    return rank


def merge_list(pieces: Iterable[str], known: Container[str]) -> list[tuple[str, str]]:
    """Return the merges of a `tokenizer.json`: every split of every piece into two known pieces, pieces in order of priority.

    A merge list must rank the splits of one piece, where the string rule says "leftmost"; the two never disagreed on 240,000 texts
    under random vocabularies, nor on 20,000 tandem repeats under 5,000 real pieces, so the splits simply go from left to right.

    >>> merge_list(["AC", "ACA"], {"A", "C", "AC", "ACA"})
    [('A', 'C'), ('AC', 'A')]
    """
    merges = []
    for piece in pieces:
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in known and right in known:
                merges.append((left, right))
    return merges
