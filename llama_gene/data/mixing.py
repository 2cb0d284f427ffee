"""Which row comes next: a seeded index over row sets, drawn from shares, with no repacking.

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


def _endless_permutations(size: int, seed: str) -> Iterator[int]:
    """Yield 0..size-1 in a seeded order, again and again in new orders."""
    rng = random.Random(seed)
    while True:
        order = list(range(size))
        rng.shuffle(order)
        yield from order
