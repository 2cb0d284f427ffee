"""Mark stretches of low complexity: poly-A, microsatellites, poly-Q. They are alike by chance and say nothing about descent.

Rules for alphabets of few letters, and one for those of many; each slides over a sequence, letter by letter:

few letters (DNA)   1. a stretch in which eight letters or more in a row equal those one to six before: short microsatellites (and by
                    chance 0.1 to 0.2 % of random DNA).
                    2. longer and less perfect repeats: the last 32 letters are 30 triplets. In a random window hardly any occurs
                    twice; with c occurrences of each, the sum of c (c - 1) / 2 is 7 for random DNA and 435 for poly-A. Above 1.7 a
                    triplet, the letters of every triplet that occurs three times or more are marked (the score of DUST, Morgulis et
                    al. 2006, on a shorter window).
many (protein)      a window of 12 letters whose entropy is at most 2.2 bits is marked (the trigger of SEG, Wootton and Federhen 1993).
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

FEW_LETTERS = 5
_WINDOW, _PER_TRIPLET, _REPEATED = 32, 1.7, 3
_PERIODS, _EQUAL = 6, 8
_FIRST_TRIPLETS = 8  # fewer are not judged: at the start of a sequence the window grows
_PROTEIN_WINDOW, _ENTROPY = 12, 2.2

Codes = NDArray[np.uint8]


def low_complexity(codes: Codes, num_letters: int) -> NDArray[np.bool_]:
    """Return which letters lie in a stretch of low complexity. Codes below `num_letters` are letters, every other one ends a window."""
    marked = np.zeros(len(codes), np.bool_)
    if num_letters <= FEW_LETTERS:
        _mark_triplets(codes, num_letters, marked)
        _mark_periods(codes, num_letters, marked)
    else:
        _mark_windows(codes, num_letters, marked)
    return marked


@numba.njit(cache=True)
def _mark_triplets(codes: Codes, num_letters: int, marked: NDArray[np.bool_]) -> None:
    counts = np.zeros(num_letters**3, np.int64)
    size = _WINDOW - 2
    recent = np.zeros(size, np.int64)  # triplets of the window, a ring
    num_recent, pairs, run = 0, 0, 0
    for end in range(len(codes)):
        if codes[end] >= num_letters:
            for k in range(min(num_recent, size)):
                counts[recent[k]] = 0
            num_recent, pairs, run = 0, 0, 0
            continue
        run += 1
        if run < 3:
            continue
        triplet = (np.int64(codes[end - 2]) * num_letters + codes[end - 1]) * num_letters + codes[end]
        if num_recent >= size:
            old = recent[num_recent % size]
            counts[old] -= 1
            pairs -= counts[old]
        pairs += counts[triplet]
        counts[triplet] += 1
        recent[num_recent % size] = triplet
        num_recent += 1
        inside = min(num_recent, size)
        if inside >= _FIRST_TRIPLETS and pairs > _PER_TRIPLET * (inside - 1):
            for k in range(inside):
                if counts[recent[(num_recent - 1 - k) % size]] >= _REPEATED:
                    for place in range(end - k - 2, end - k + 1):
                        marked[place] = True


@numba.njit(cache=True)
def _mark_periods(codes: Codes, num_letters: int, marked: NDArray[np.bool_]) -> None:
    for period in range(1, _PERIODS + 1):
        equal, run = 0, 0
        for place in range(len(codes)):
            run = run + 1 if codes[place] < num_letters else 0
            equal = equal + 1 if run > period and codes[place] == codes[place - period] else 0
            if equal == _EQUAL:
                marked[place - _EQUAL - period + 1 : place + 1] = True
            elif equal > _EQUAL:
                marked[place] = True


@numba.njit(cache=True)
def _mark_windows(codes: Codes, num_letters: int, marked: NDArray[np.bool_]) -> None:
    counts = np.zeros(num_letters, np.int64)
    information = np.zeros(_PROTEIN_WINDOW + 1, np.float64)  # of a letter that occurs c times in the window
    for c in range(1, _PROTEIN_WINDOW + 1):
        information[c] = -(c / _PROTEIN_WINDOW) * np.log2(c / _PROTEIN_WINDOW)
    run = 0
    for end in range(len(codes)):
        if codes[end] >= num_letters:
            counts[:] = 0
            run = 0
            continue
        run += 1
        counts[codes[end]] += 1
        if run > _PROTEIN_WINDOW:
            counts[codes[end - _PROTEIN_WINDOW]] -= 1
        if run >= _PROTEIN_WINDOW:
            entropy = 0.0
            for letter in range(num_letters):
                entropy += information[counts[letter]]
            if entropy <= _ENTROPY:
                marked[end - _PROTEIN_WINDOW + 1 : end + 1] = True
