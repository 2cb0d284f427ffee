"""Which row comes next: a seeded index over row sets, drawn from shares, with no repacking.

A share is one of tokens (or of bytes of text): a language gets s_l / m_l of the rows, m_l being what its rows hold on average, since rows
of one language may be fuller than another's, and a row of 512 DNA tokens holds three times the text of one of protein.

For N rows and shares s, language l gets round(N * s_l) places (largest remainders, so the counts add up to N), spread evenly over
the run and shuffled within windows, so that every stretch of the run holds every language in its share. Rows of a language come in
a seeded permutation; a further pass over a language draws a new permutation. The index depends on the seed alone, never on the
number of processes (law 15).
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping

from llama_gene.errors import ConfigError, did_you_mean

WINDOW = 64  # places; languages are interleaved exactly, then shuffled within windows of this size


def mixture_index(num_rows: Mapping[str, int], shares: Mapping[str, float], length: int, seed: int) -> list[tuple[str, int]]:
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
    places = sorted(((index + 0.5) / count, language) for language, count in counts.items() for index in range(count))
    order = [language for _, language in places]
    rng = random.Random(seed)
    for start in range(0, length, WINDOW):
        window = order[start : start + WINDOW]
        rng.shuffle(window)
        order[start : start + WINDOW] = window
    rows = {language: _endless_permutations(num_rows[language], f"{seed}-{language}") for language in counts if counts[language]}
    return [(language, next(rows[language])) for language in order]


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


def _endless_permutations(size: int, seed: str) -> Iterator[int]:
    """Yield 0..size-1 in a seeded order, again and again in new orders."""
    rng = random.Random(seed)
    while True:
        order = list(range(size))
        rng.shuffle(order)
        yield from order
