"""Which row comes next: a seeded index over row sets, drawn from shares, with no repacking.

A share is one of tokens (or of bytes of text): a language gets s_l / m_l of the rows, m_l being what its rows hold on average, since rows
of one language may be fuller than another's, and a row of 512 DNA tokens holds three times the text of one of protein.

For N rows and shares s, language l gets round(N * s_l) places (largest remainders, so the counts add up to N), spread evenly over
the run and shuffled within windows, so that every stretch of the run holds every language in its share. Rows of a language come in
a seeded permutation; a further pass over a language draws a new permutation. The index depends on the seed alone, never on the
number of processes (law 15). It is two arrays, 5 bytes a row: 115 MB for the 23 million rows of 48 GB of text, in each process.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from llama_gene.errors import ConfigError, did_you_mean

WINDOW = 64  # places; languages are interleaved exactly, then shuffled within windows of this size


@dataclass(frozen=True, eq=False)
class RowIndex(Sequence[tuple[str, int]]):
    """Places (language, row number), as arrays."""

    languages: tuple[str, ...]
    codes: NDArray[np.uint8]
    """Place -> number of its language."""
    rows: NDArray[np.int32]
    """Place -> row number in its language."""

    def __len__(self) -> int:
        return len(self.codes)

    @overload
    def __getitem__(self, place: int) -> tuple[str, int]: ...

    @overload
    def __getitem__(self, place: slice) -> RowIndex: ...

    def __getitem__(self, place: int | slice) -> tuple[str, int] | RowIndex:
        if isinstance(place, slice):
            return RowIndex(self.languages, self.codes[place], self.rows[place])
        return self.languages[self.codes[place]], int(self.rows[place])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def sizes(self, by_language: Mapping[str, NDArray[np.int64]]) -> NDArray[np.int64]:
        """Return a number for each place, looked up in one array a language."""
        found = np.zeros(len(self), np.int64)
        for code, language in enumerate(self.languages):
            here = self.codes == code
            if here.any():
                found[here] = by_language[language][self.rows[here]]
        return found


def mixture_index(num_rows: Mapping[str, int], shares: Mapping[str, float], length: int, seed: int) -> RowIndex:
    """Return `length` places (language, row number).

    Raises ConfigError when a share names no row set, is negative, or all are zero.

    >>> [language for language, _ in mixture_index({"dna": 9, "english": 9}, {"dna": 3, "english": 1}, 8, seed=0)].count("dna")
    6
    """
    for language, share in shares.items():
        if language not in num_rows:
            raise ConfigError(
                f"shares names '{language}'",
                f"one of the packed languages: {', '.join(num_rows)}",
                did_you_mean(language, num_rows) or "Pack it or drop it",
            )
        if not 0 <= share < math.inf:
            raise ConfigError(f"the share of '{language}' is {share}", "a number that is not negative")
        if share > 0 and num_rows[language] == 0:
            raise ConfigError(f"the row set '{language}' is empty", "at least one row", "Give it text or drop its share")
    total = sum(shares.values())
    if total <= 0:
        raise ConfigError("all shares are zero", "at least one share above 0", "Set shares")
    exact = {language: length * share / total for language, share in shares.items()}
    counts = {language: int(value) for language, value in exact.items()}
    by_remainder = sorted(exact, key=lambda language: counts[language] - exact[language])
    for language in by_remainder[: length - sum(counts.values())]:
        counts[language] += 1
    languages = tuple(sorted(language for language, count in counts.items() if count))
    if len(languages) > 255 or any(num_rows[language] > np.iinfo(np.int32).max for language in languages):
        raise ConfigError(f"{len(languages)} row sets", "at most 255, of at most 2,147,483,647 rows each", "Pack longer rows")
    positions = [(np.arange(counts[language]) + 0.5) / counts[language] for language in languages]
    codes = np.repeat(np.arange(len(languages), dtype=np.uint8), [counts[language] for language in languages])
    codes = codes[np.lexsort((codes, np.concatenate([np.zeros(0), *positions])))]
    within = np.random.default_rng(seed).random(length)
    codes = codes[np.lexsort((within, np.arange(length) // WINDOW))]
    rows = np.zeros(length, np.int32)
    for code, language in enumerate(languages):
        rows[codes == code] = _permutations(num_rows[language], counts[language], [seed, zlib.crc32(language.encode("utf-8"))])
    return RowIndex(languages, codes, rows)


def row_shares(shares: Mapping[str, float], mean_sizes: Mapping[str, float]) -> dict[str, float]:
    """Return the shares in rows that give these shares of what `mean_sizes` counts (tokens or bytes a row), of sum 1.

    Languages that `mean_sizes` lacks, or that are empty, and shares that make no sense are left as they are, for `mixture_index` to name.

    >>> row_shares({"dna": 1, "protein": 1}, {"dna": 3000.0, "protein": 1000.0})
    {'dna': 0.25, 'protein': 0.75}
    """
    rows = {language: share / (mean_sizes.get(language) or 1.0) for language, share in shares.items()}
    total = sum(rows.values())
    if not 0 < total < math.inf or min(shares.values()) < 0:
        return dict(shares)
    return {language: share / total for language, share in rows.items()}


def _permutations(size: int, count: int, seed: Sequence[int]) -> NDArray[np.int32]:
    """Return the first `count` of 0..size-1 in a seeded order, again and again in new orders."""
    rng = np.random.default_rng(seed)
    passes = [rng.permutation(size).astype(np.int32) for _ in range(-(-count // size))]
    return np.concatenate(passes)[:count]
