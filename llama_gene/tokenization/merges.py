"""Byte-pair merges of one long array of symbols: the hot path of vocabulary training, with numba.

*What it keeps.* `symbols` holds the corpus, one int32 a symbol, -1 before, between and after words. A merged piece keeps its id in its
first place and its width in its first and last, so that both neighbours are found without links (6 bytes a symbol in all). A *pair*
record has a count and a list of places; a hash finds it by (left, right); a heap gives the most frequent. Counts are exact at every
moment; the heap is corrected when a stale entry comes up. All occurrences of a pair with the newest symbol are born in one merge, so
its count is known at birth and only falls: a pair born with fewer than MIN_FREQUENCY places can never be merged and is not stored. That
keeps 50 MB of DNA (27 million LLaMA-2 symbols, 30,080 merges) far below the 3 GB that `tokenizers` needs.

*What it decides.* Nothing but the order: the highest count first, among equals the smaller (left, right), as `tokenizers`' BpeTrainer
has it. Whether a pair may become a piece is asked outside, between `best` and `merge` (30,000 questions, not 30 million), which is the
hook for forbidden strings that no library's trainer has.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

MIN_FREQUENCY = 2
WORD_END = -1
_INSIDE = -2  # a place that a merged piece covers
_FREE = -1  # a free slot of the hash
_FIRST_PAIRS = 1 << 16

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Pair:
    """Two adjacent symbols and how often they stand side by side."""

    left: int
    right: int
    count: int
    record: int


class MergeCorpus:
    """A corpus of symbols in which pairs are counted and merged.

    `symbols` are words of ids 0, 1, 2 ... with -1 behind each word; `lengths` is the number of letters of each id. Pairs with more than
    `max_length` letters together are not counted.
    """

    def __init__(self, symbols: Int32, lengths: Int32, max_length: int) -> None:
        if len(symbols) >= 2**31 - 2:
            raise ValueError(f"{len(symbols):,} symbols: places are 32-bit numbers")
        self.symbols: Int32 = np.concatenate([np.array([WORD_END], np.int32), symbols.astype(np.int32), np.array([WORD_END], np.int32)])
        self.widths: NDArray[np.uint16] = (self.symbols != WORD_END).astype(np.uint16)
        self.lengths: Int32 = np.zeros(1 << 12, np.int32)
        self.num_symbols = 0
        self.max_length = max_length
        for length in lengths:
            self.add_symbol(int(length))
        self._keys: Int64 = np.full(4 * _FIRST_PAIRS, _FREE, np.int64)
        self._records: Int32 = np.zeros(4 * _FIRST_PAIRS, np.int32)
        self._pairs: Int32 = np.zeros((_FIRST_PAIRS, 4), np.int32)  # left, right, count, number of places
        self._starts: Int64 = np.zeros(_FIRST_PAIRS, np.int64)  # first place in the pool
        self._pool: Int32 = np.zeros(0, np.int32)
        self._heap: Int32 = np.zeros((_FIRST_PAIRS, 2), np.int32)  # count when pushed, record
        self._sizes: Int64 = np.zeros(3, np.int64)  # records, pool, heap in use
        self._last_merged = self.num_symbols - 1  # symbols up to here may stand in the corpus already
        self._count_pairs()

    def copy(self) -> MergeCorpus:
        """Return a corpus in the same state, to be merged in another way."""
        other = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                setattr(other, name, value.copy())
        return other

    def add_symbol(self, length: int) -> int:
        """Return the id of a new symbol of `length` letters."""
        if self.num_symbols == len(self.lengths):
            self.lengths = np.concatenate([self.lengths, np.zeros_like(self.lengths)])
        self.lengths[self.num_symbols] = length
        self.num_symbols += 1
        return self.num_symbols - 1

    def best(self) -> Pair | None:
        """Take the most frequent pair from the queue and return it; None when none occurs MIN_FREQUENCY times."""
        record = _pop(self._heap, self._pairs, self._sizes)
        return None if record < 0 else self._pair(record)

    def find(self, left: int, right: int) -> Pair | None:
        """Return a pair by its symbols, None where it is not counted; it stays in the queue."""
        record = _find(self._keys, self._records, _key(left, right))
        return None if record < 0 else self._pair(record)

    def merge(self, pair: Pair, new: int) -> int:
        """Write `new` wherever `pair` stands, leftmost first; return how often.

        `new` is a fresh symbol or an earlier one of the same text (G + IT where GI + T is known already).
        """
        room = 2 * int(self._pairs[pair.record, 3])
        fresh = new > self._last_merged
        self._last_merged = max(self._last_merged, new)
        listed = 0 if fresh else _num_places(new, self.num_symbols, self._keys, self._records, self._pairs)  # lists that may move
        self._make_room(room, room + listed)
        return int(
            _merge(
                pair.record, new, fresh, self.max_length, self.symbols, self.widths, self.lengths, self.num_symbols,
                self._keys, self._records, self._pairs, self._starts, self._pool, self._heap, self._sizes,
            )
        )  # fmt: skip

    def _pair(self, record: int) -> Pair:
        left, right, count, _ = (int(value) for value in self._pairs[record])
        return Pair(left, right, count, record)

    def _count_pairs(self) -> None:
        """Count every adjacent pair of the corpus and queue those that may be merged."""
        keys, counts = _adjacent(self.symbols, self.num_symbols)
        lengths = self.lengths
        fits = (counts >= MIN_FREQUENCY) & (lengths[keys >> 32] + lengths[keys & 0xFFFFFFFF] <= self.max_length)
        keys, counts = keys[fits], counts[fits]
        self._make_room(len(keys), int(counts.sum()))
        _store(keys, counts, self.symbols, self._keys, self._records, self._pairs, self._starts, self._pool, self._heap, self._sizes)

    def _make_room(self, num_pairs: int, num_places: int) -> None:
        """Grow the arrays so that `num_pairs` more records and `num_places` more places fit."""
        records, pool, heap = (int(size) for size in self._sizes)
        if records + num_pairs > len(self._starts):
            size = max(records + num_pairs, len(self._starts) * 3 // 2)
            self._pairs, self._starts = _grown(self._pairs, size), _grown(self._starts, size)
        if heap + num_pairs > len(self._heap):
            self._heap = _grown(self._heap, max(heap + num_pairs, len(self._heap) * 3 // 2))
        if pool + num_places > len(self._pool):
            self._pool = _grown(self._pool, max(pool + num_places, len(self._pool) * 5 // 4))
        if 2 * (records + num_pairs) > len(self._keys):
            size = 1 << (4 * (records + num_pairs) - 1).bit_length()
            self._keys, self._records = _rehashed(self._pairs, records, size)


def _grown(array: Any, size: int) -> Any:
    """Return a copy with `size` rows, the old ones first."""
    new = np.zeros((size, *array.shape[1:]), array.dtype)
    new[: len(array)] = array
    return new


@numba.njit(cache=True)
def _key(left: int, right: int) -> int:
    return int((np.int64(left) << 32) | np.int64(right))


@numba.njit(cache=True)
def _slot(keys: Int64, key: int) -> int:
    """Return where `key` is in the hash, or the free slot where it belongs."""
    mask = np.uint64(len(keys) - 1)
    mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    slot = (mixed ^ (mixed >> np.uint64(32))) & mask
    while keys[slot] != _FREE and keys[slot] != key:
        slot = (slot + np.uint64(1)) & mask
    return int(slot)


@numba.njit(cache=True)
def _find(keys: Int64, records: Int32, key: int) -> int:
    slot = _slot(keys, key)
    return int(records[slot]) if keys[slot] == key else -1


@numba.njit(cache=True)
def _rehashed(pairs: Int32, num_records: int, size: int) -> tuple[Int64, Int32]:
    """Return a hash of `size` slots over all records."""
    keys = np.full(size, _FREE, np.int64)
    records = np.zeros(size, np.int32)
    for record in range(num_records):
        key = _key(pairs[record, 0], pairs[record, 1])
        slot = _slot(keys, key)
        keys[slot] = key
        records[slot] = record
    return keys, records


@numba.njit(cache=True)
def _adjacent(symbols: Int32, num_symbols: int) -> tuple[Int64, Int64]:
    """Return the keys of all adjacent pairs, ascending, and their counts."""
    size = 1 << 16
    keys = np.full(size, _FREE, np.int64)
    counts = np.zeros(size, np.int64)
    used = 0
    for place in range(len(symbols) - 1):
        left, right = symbols[place], symbols[place + 1]
        if left < 0 or right < 0:
            continue
        key = _key(left, right)
        slot = _slot(keys, key)
        if keys[slot] == _FREE:
            if 2 * (used + 1) > size:
                size *= 2
                larger = np.full(size, _FREE, np.int64)
                sums = np.zeros(size, np.int64)
                for old in range(len(keys)):
                    if keys[old] != _FREE:
                        at = _slot(larger, keys[old])
                        larger[at] = keys[old]
                        sums[at] = counts[old]
                keys, counts = larger, sums
                slot = _slot(keys, key)
            keys[slot] = key
            used += 1
        counts[slot] += 1
    filled = keys != _FREE
    keys, counts = keys[filled], counts[filled]
    order = np.argsort(keys)
    return keys[order], counts[order]


@numba.njit(cache=True)
def _store(
    new_keys: Int64, counts: Int64, symbols: Int32, keys: Int64, records: Int32, pairs: Int32, starts: Int64, pool: Int32, heap: Int32,
    sizes: Int64,
) -> None:  # fmt: skip
    """Make the records of the first count, with their places in ascending order."""
    for number in range(len(new_keys)):
        record = _add(new_keys[number] >> 32, new_keys[number] & 0xFFFFFFFF, counts[number], keys, records, pairs, starts, sizes)
        sizes[1] += counts[number]
        _push(heap, pairs, sizes, counts[number], record)
    for place in range(len(symbols) - 1):
        left, right = symbols[place], symbols[place + 1]
        if left < 0 or right < 0:
            continue
        record = _find(keys, records, _key(left, right))
        if record >= 0:
            pool[starts[record] + pairs[record, 3]] = place
            pairs[record, 3] += 1


@numba.njit(cache=True)
def _add(left: int, right: int, count: int, keys: Int64, records: Int32, pairs: Int32, starts: Int64, sizes: Int64) -> int:
    """Return a new record with no places yet; they will begin at the end of the pool."""
    record = int(sizes[0])
    sizes[0] += 1
    pairs[record, 0] = left
    pairs[record, 1] = right
    pairs[record, 2] = count
    pairs[record, 3] = 0
    starts[record] = sizes[1]
    key = _key(left, right)
    slot = _slot(keys, key)
    keys[slot] = key
    records[slot] = record
    return record


@numba.njit(cache=True)
def _before(heap: Int32, pairs: Int32, first: int, second: int) -> bool:
    """Return whether one entry of the heap comes out before another."""
    if heap[first, 0] != heap[second, 0]:
        return bool(heap[first, 0] > heap[second, 0])
    one, two = heap[first, 1], heap[second, 1]
    if pairs[one, 0] != pairs[two, 0]:
        return bool(pairs[one, 0] < pairs[two, 0])
    return bool(pairs[one, 1] < pairs[two, 1])


@numba.njit(cache=True)
def _swap(heap: Int32, first: int, second: int) -> None:
    for column in range(2):
        heap[first, column], heap[second, column] = heap[second, column], heap[first, column]


@numba.njit(cache=True)
def _push(heap: Int32, pairs: Int32, sizes: Int64, count: int, record: int) -> None:
    child = sizes[2]
    sizes[2] += 1
    heap[child, 0] = count
    heap[child, 1] = record
    while child > 0:
        parent = (child - 1) // 2
        if not _before(heap, pairs, child, parent):
            break
        _swap(heap, child, parent)
        child = parent


@numba.njit(cache=True)
def _sink(heap: Int32, pairs: Int32, size: int) -> None:
    """Move the top entry down to its place."""
    parent = 0
    while True:
        child = 2 * parent + 1
        if child >= size:
            return
        if child + 1 < size and _before(heap, pairs, child + 1, child):
            child += 1
        if not _before(heap, pairs, child, parent):
            return
        _swap(heap, child, parent)
        parent = child


@numba.njit(cache=True)
def _pop(heap: Int32, pairs: Int32, sizes: Int64) -> int:
    """Remove and return the record with the highest count, -1 when none reaches MIN_FREQUENCY."""
    while sizes[2] > 0:
        record = heap[0, 1]
        count = pairs[record, 2]
        stale = heap[0, 0] != count
        if stale and count >= MIN_FREQUENCY:
            heap[0, 0] = count
            _sink(heap, pairs, sizes[2])
            continue
        sizes[2] -= 1
        heap[0, 0] = heap[sizes[2], 0]
        heap[0, 1] = heap[sizes[2], 1]
        _sink(heap, pairs, sizes[2])
        if count >= MIN_FREQUENCY:
            return int(record)
    return -1


@numba.njit(cache=True)
def _num_places(symbol: int, num_symbols: int, keys: Int64, records: Int32, pairs: Int32) -> int:
    """Return how many places the pairs with `symbol` list."""
    total = 0
    for other in range(num_symbols):
        for key in (_key(other, symbol), _key(symbol, other)):
            record = _find(keys, records, key)
            if record >= 0:
                total += pairs[record, 3]
    return total


@numba.njit(cache=True)
def _lower(left: int, right: int, keys: Int64, records: Int32, pairs: Int32) -> None:
    """Count one occurrence of a pair less."""
    record = _find(keys, records, _key(left, right))
    if record >= 0:
        pairs[record, 2] -= 1


@numba.njit(cache=True)
def _merge(
    record: int, new: int, fresh: bool, max_length: int, symbols: Int32, widths: NDArray[np.uint16], lengths: Int32, num_symbols: int,
    keys: Int64, records: Int32, pairs: Int32, starts: Int64, pool: Int32, heap: Int32, sizes: Int64,
) -> int:  # fmt: skip
    """Merge a pair everywhere, count the pairs that are born and queue them; return the number of merges."""
    a, b = pairs[record, 0], pairs[record, 1]
    places = pool[starts[record] : starts[record] + pairs[record, 3]]  # merged ones are kept in its front
    for number in range(1, len(places)):
        if places[number] < places[number - 1]:  # two lists were joined; merging goes from left to right
            places.sort()
            break
    merged = 0
    for place in places:
        behind = place + widths[place]
        if symbols[place] != a or symbols[behind] != b:
            continue
        joined_before = merged > 0 and place - widths[place - 1] == places[merged - 1] and widths[place - 1] > 0
        if widths[place - 1] > 0 and not joined_before:
            _lower(symbols[place - widths[place - 1]], a, keys, records, pairs)
        last = behind + widths[behind]
        if symbols[last] >= 0:
            _lower(b, symbols[last], keys, records, pairs)
        width = np.uint16(last - place)
        symbols[behind] = _INSIDE
        symbols[place] = new
        widths[place] = width
        widths[last - 1] = width
        places[merged] = place
        merged += 1
    pairs[record, 2] = 0
    pairs[record, 3] = 0
    _count_born(
        places[:merged], new, fresh, max_length, symbols, widths, lengths, num_symbols, keys, records, pairs, starts, pool, heap, sizes
    )
    return merged


@numba.njit(cache=True)
def _count_born(
    merged: Int32, new: int, fresh: bool, max_length: int, symbols: Int32, widths: NDArray[np.uint16], lengths: Int32, num_symbols: int,
    keys: Int64, records: Int32, pairs: Int32, starts: Int64, pool: Int32, heap: Int32, sizes: Int64,
) -> None:  # fmt: skip
    """Make records of the pairs that the newly written symbols stand in: one pass counts, one lists the places."""
    before = np.zeros(num_symbols, np.int32)  # counts of (symbol, new)
    after = np.zeros(num_symbols, np.int32)  # counts of (new, symbol); (new, new) is counted in `before`
    for filling in (False, True):
        for number in range(len(merged)):
            place = merged[number]
            if widths[place - 1] > 0:
                start = place - widths[place - 1]
                _note(symbols[start], new, start, before, filling, lengths, max_length, records, keys, pairs, starts, pool)
            behind = place + widths[place]
            if symbols[behind] < 0 or (number + 1 < len(merged) and merged[number + 1] == behind):
                continue
            if symbols[behind] == new:
                _note(new, new, place, before, filling, lengths, max_length, records, keys, pairs, starts, pool)
            else:
                _note(symbols[behind], new, place, after, filling, lengths, max_length, records, keys, pairs, starts, pool)
        if not filling:
            for symbol in range(num_symbols):
                if before[symbol] > 0:
                    before[symbol] = _open(symbol, new, before[symbol], fresh, keys, records, pairs, starts, pool, heap, sizes)
                if after[symbol] > 0:
                    after[symbol] = _open(new, symbol, after[symbol], fresh, keys, records, pairs, starts, pool, heap, sizes)


@numba.njit(cache=True)
def _note(
    symbol: int, new: int, place: int, counts: Int32, filling: bool, lengths: Int32, max_length: int, records: Int32, keys: Int64,
    pairs: Int32, starts: Int64, pool: Int32,
) -> None:  # fmt: skip
    """Count an occurrence of a symbol beside the new one, or list its place; `counts` holds records by then."""
    if lengths[symbol] + lengths[new] > max_length:
        return
    if not filling:
        counts[symbol] += 1
    elif counts[symbol] >= 0:
        record = counts[symbol]
        pool[starts[record] + pairs[record, 3]] = place
        pairs[record, 3] += 1


@numba.njit(cache=True)
def _open(
    left: int, right: int, count: int, fresh: bool, keys: Int64, records: Int32, pairs: Int32, starts: Int64, pool: Int32, heap: Int32,
    sizes: Int64,
) -> int:  # fmt: skip
    """Return the record that takes `count` more places of a pair, -1 where the pair is too rare to be stored."""
    record = -1 if fresh else _find(keys, records, _key(left, right))
    if record < 0:
        if count < MIN_FREQUENCY:
            return -1
        record = _add(left, right, count, keys, records, pairs, starts, sizes)
        sizes[1] += count
    else:
        kept = pairs[record, 3]
        pairs[record, 2] += count
        start = sizes[1]
        pool[start : start + kept] = pool[starts[record] : starts[record] + kept]
        starts[record] = start
        sizes[1] += kept + count
    _push(heap, pairs, sizes, pairs[record, 2], record)
    return record
