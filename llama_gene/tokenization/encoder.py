"""Byte-pair encoding of long words, with numba: the ids of `tokenizers`, 2.3 times as fast on DNA, 2.6 on proteins, 5 on English (LLaMA-2).

*What it is for.* DNA and proteins have no spaces: a fragment of 1,000 bases is one word to a tokenizer, and so is a whole English article
to one without a pre-tokenizer (LLaMA-2). `tokenizers` is made for short words: it keeps a heap of all candidate merges, allocates it for
every word and looks pairs up in a general hash.

*What it does.* The greedy merge loop itself: among all adjacent pairs merge the one of lowest rank, the leftmost among equals, until none
has a rank. Each pair of a word is one number, rank and place together; above these numbers lie the minima of every 8, of every 8 of those
and so on, so that the lowest is read at the top and a merge mends at most three short branches: no heap, no stale entries, few branches
that a processor cannot foresee. Where no merge joins a letter with a word-start mark behind it (in LLaMA-2: none does), the text is cut.
Measured with the 62,080 pieces of a spliced LLaMA-2, MB/s of DNA on one core: 13.5. Two other ways gave the same ids: minima of ranks alone
and a search for the place (8.3); a trie, the longest match, and going back where two pieces would not stand side by side (4.9: a DNA token
takes five trials).

*What it is sure of.* `read_encoder` looks at the tokenizer.json and answers None for anything that is not listed there: a normalizer other
than Prepend and Replace, a pre-tokenizer whose pattern it does not know, merges dropped at random, marks within words. With a known
pattern it takes texts of ASCII letters only. Whatever it does not take, the caller gives to `tokenizers`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from llama_gene.tokenization.bpe import SPACE_MARK
from llama_gene.tokenization.tiktoken_splice import LLAMA3_PATTERN, RUN, isolating_pattern

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

QWEN_PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
WHOLE_WORD_PATTERNS = (LLAMA3_PATTERN, QWEN_PATTERN)  # they leave ASCII letters in one piece
_NO_PAIR = np.int64(2**31 - 1) << 32  # above every rank
_LOW_HALF = np.int64(2**32 - 1)
_FREE = -1  # a free slot of the hash
_BITS = 3
_FAN = 1 << _BITS  # places under one minimum

_GENE_RUN = re.compile(RUN)


@dataclass(frozen=True)
class Encoder:
    """The tables of one BPE tokenizer; made by `read_encoder`."""

    replaced: tuple[tuple[str, str], ...]  # what the normalizer does, in order; ("", mark) puts a mark in front
    letters_only: bool  # takes texts of ASCII letters only
    cut: Callable[[str], list[str]] | None  # cuts a normalized text into words
    added: tuple[str, ...]  # tokens that are matched in a text before anything else: such a text is not taken
    words: Mapping[str, int]  # with `ignore_merges`, the vocabulary: a word that is in it is not merged
    longest_word: int  # letters
    letter_ids: Int32  # code point -> id of the letter, -1 where it is none
    byte_ids: Int32  # byte -> id for letters that are none; empty without byte fallback
    free_before_mark: NDArray[np.bool_]  # id of a letter -> no merge joins it with a word-start mark behind it
    mark: int  # id of the word-start mark, -1 without one
    pairs: Int64  # slot -> left << 32 | right, rank << 32 | id of the joined piece; _FREE, _NO_PAIR

    def takes(self, text: str) -> bool:
        """Return whether a text may be given to `encode`."""
        return (_is_letters(text) or not self.letters_only) and not any(token in text for token in self.added)

    def encode(self, texts: Sequence[str]) -> list[Int32 | None]:
        """Return the ids of each text, None where it holds a letter that is neither in the vocabulary nor can be written as bytes.

        Raises UnicodeEncodeError for half a surrogate pair.
        """
        words = [self._words(text) for text in texts]
        flat = list(chain.from_iterable(words))
        joined = "".join(flat)
        codes = np.frombuffer(joined.encode("utf-32-le"), np.uint32)
        bounds = _ends(map(len, flat), len(flat))
        known = [self.words.get(word, -1) if len(word) <= self.longest_word else -1 for word in flat]
        ids = np.empty(len(codes) if joined.isascii() else 4 * len(codes), np.int32)
        ends, unknown = _encode(
            codes, bounds, np.array(known, np.int32), self.letter_ids, self.byte_ids, self.free_before_mark, self.mark, self.pairs, ids
        )
        edges = _ends(map(len, words), len(words))
        parts = [ids[ends[first] : ends[last]] for first, last in pairwise(edges)]
        if not unknown.any():
            return list(parts)
        return [None if unknown[first:last].any() else part for part, first, last in zip(parts, edges[:-1], edges[1:], strict=True)]

    def _words(self, text: str) -> list[str]:
        """Return what is merged alone."""
        if not text:
            return []
        for old, new in self.replaced:
            text = text.replace(old, new) if old else new + text
        return self.cut(text) if self.cut else [text]


def read_encoder(content: Mapping[str, Any]) -> Encoder | None:
    """Return the encoder of a tokenizer.json, None where something in it is not known to this module.

    Special tokens are read as text, as `encode_text` reads them.
    """
    model = content["model"]
    plain = [token for token in content["added_tokens"] if not token["special"]]
    if model.get("type") != "BPE" or any(model.get(name) for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix")):
        return None
    replaced, pattern = _replacements(content["normalizer"]), _cutting(content["pre_tokenizer"])
    if replaced is None or pattern is None or any(token["normalized"] for token in plain):
        return None
    letters_only, cut = pattern
    letters_only |= content["normalizer"] is not None and not replaced  # a Unicode normal form, in which ASCII letters are
    vocab: dict[str, int] = model["vocab"]
    merges = {(left, right): rank for rank, (left, right) in enumerate(map(_pair, model["merges"]))}  # the last of two counts
    byte_names = [f"<0x{byte:02X}>" for byte in range(256)]
    falls_back = model.get("byte_fallback") and all(name in vocab for name in byte_names)
    if falls_back and not set(byte_names).isdisjoint(chain.from_iterable(merges)):
        return None
    letters = {piece: number for piece, number in vocab.items() if len(piece) == 1}
    letter_ids = np.full(max(map(ord, letters), default=0) + 1, -1, np.int32)
    for letter, number in letters.items():
        letter_ids[ord(letter)] = number
    before_mark = {left[-1] for left, right in merges if right[0] == SPACE_MARK}
    free = np.ones(1 + max(vocab.values(), default=0), np.bool_)
    free[[letters[letter] for letter in before_mark if letter in letters]] = False
    words = vocab if model.get("ignore_merges") else {}
    return Encoder(
        replaced=replaced,
        letters_only=letters_only,
        cut=cut,
        added=tuple(token["content"] for token in plain if not letters_only or _is_letters(token["content"])),
        words=words,
        longest_word=max(map(len, words), default=0),
        letter_ids=letter_ids,
        byte_ids=np.array([vocab[name] for name in byte_names] if falls_back else [], np.int32),
        free_before_mark=free,
        mark=letters.get(SPACE_MARK, -1),
        pairs=_pair_table(merges, vocab),
    )


def _is_letters(text: str) -> bool:
    return text.isascii() and text.isalpha()


def _pair(merge: str | Sequence[str]) -> tuple[str, str]:
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return left, right


def _pair_table(merges: Mapping[tuple[str, str], int], vocab: Mapping[str, int]) -> Int64:
    """Return a hash of the merges: at most half full, the key and its answer side by side in one cache line."""
    table = np.full((1 << (2 * len(merges)).bit_length(), 2), _FREE, np.int64)
    table[:, 1] = _NO_PAIR
    keys = np.array([vocab[left] << 32 | vocab[right] for left, right in merges], np.int64)
    answers = np.array([rank << 32 | vocab[left + right] for (left, right), rank in merges.items()], np.int64)
    _fill(table, keys, answers)
    return table


def _replacements(normalizer: Mapping[str, Any] | None) -> tuple[tuple[str, str], ...] | None:
    """Return (old, new) for each step of a normalizer, None where one is not known."""
    match normalizer:
        case None | {"type": "NFC" | "NFD" | "NFKC" | "NFKD"}:
            return ()
        case {"type": "Prepend", "prepend": str(mark)}:
            return (("", mark),)
        case {"type": "Replace", "pattern": {"String": str(old)}, "content": str(new)} if old and new:
            return ((old, new),)
        case {"type": "Sequence", "normalizers": list(steps)}:
            parts = [_replacements(step) for step in steps]
            # A normal form among replacements would need its place in their order.
            return tuple(chain.from_iterable(part for part in parts if part)) if all(parts) else None
    return None


def _cutting(pre_tokenizer: Mapping[str, Any] | None) -> tuple[bool, Callable[[str], list[str]] | None] | None:
    """Return (takes ASCII letters only, how to cut a text into words), None where the pre-tokenizer is not known."""
    match pre_tokenizer:
        case None:
            return False, None
        case {"type": "ByteLevel", "add_prefix_space": False}:
            return True, None  # with its own pattern (GPT-2's) or none: letters stay together, each written as itself
        case {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated", "invert": False}:
            if pattern in WHOLE_WORD_PATTERNS:
                return True, None
            if pattern in map(isolating_pattern, WHOLE_WORD_PATTERNS):
                return True, _leading_runs
            return (True, _all_runs) if pattern == RUN else None
        case {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious"}:
            return True, None
        case {"type": "Sequence", "pretokenizers": list(steps)}:
            parts = [_cutting(step) for step in steps]
            cuts = [part[1] for part in parts if part and part[1]]
            if not parts or None in parts or len(cuts) > 1:
                return None
            return True, cuts[0] if cuts else None
    return None


def _leading_runs(text: str) -> list[str]:
    """Return the words of an isolating pattern: gene runs, until a place where none begins; `\\p{L}+` takes all letters from there."""
    words = []
    start = 0
    while run := _GENE_RUN.match(text, start):
        words.append(run.group())
        start = run.end()
    return [*words, text[start:]] if start < len(text) else words


def _all_runs(text: str) -> list[str]:
    """Return the gene runs of a text and what lies between them.

    >>> _all_runs("geneACGTACGTACGTend")
    ['gene', 'ACGTACGTACGT', 'end']
    """
    return list(_with_gaps(text))


def _with_gaps(text: str) -> Iterator[str]:
    start = 0
    for run in _GENE_RUN.finditer(text):
        if run.start() > start:
            yield text[start : run.start()]
        yield run.group()
        start = run.end()
    if start < len(text):
        yield text[start:]


def _ends(sizes: Iterator[int], count: int) -> Int64:
    """Return 0 and the running sums of sizes."""
    ends = np.zeros(count + 1, np.int64)
    np.cumsum(np.fromiter(sizes, np.int64, count), out=ends[1:])
    return ends


# --- the merge loop ------------------------------------------------------------------------------------------------------------------


@numba.njit(cache=True)
def _slot(pairs: Int64, key: int) -> int:
    """Return where `key` is in the hash, or the free slot where it belongs."""
    mask = len(pairs) - 1
    slot = np.int64((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & mask
    while pairs[slot, 0] != _FREE and pairs[slot, 0] != key:
        slot = (slot + 1) & mask
    return int(slot)


@numba.njit(cache=True)
def _fill(pairs: Int64, keys: Int64, answers: Int64) -> None:
    for number in range(len(keys)):
        slot = _slot(pairs, keys[number])
        pairs[slot, 0] = keys[number]
        pairs[slot, 1] = answers[number]


@numba.njit(cache=True)
def _note(place: int, left: int, right: int, pairs: Int64, ranks: Int64, joined: Int32) -> None:
    """Write the rank and place of a pair, and what it would become."""
    answer = pairs[_slot(pairs, int((np.int64(left) << 32) | np.int64(right)))][1]
    ranks[place] = (answer & ~_LOW_HALF) | place
    joined[place] = answer & _LOW_HALF


@numba.njit(cache=True)
def _lowest(ranks: Int64, first: int) -> int:
    lowest = ranks[first]
    for place in range(first + 1, first + _FAN):
        lowest = min(lowest, ranks[place])
    return lowest  # type: ignore[no-any-return]


@numba.njit(cache=True)
def _mend(place: int, ranks: Int64, starts: Int64, num_levels: int) -> None:
    """Correct the minima over a place that has changed."""
    for level in range(1, num_levels):
        place >>= _BITS
        lowest = _lowest(ranks, starts[level - 1] + (place << _BITS))
        if ranks[starts[level] + place] == lowest:
            return
        ranks[starts[level] + place] = lowest


@numba.njit(cache=True)
def _raise_levels(size: int, ranks: Int64, starts: Int64) -> int:
    """Fill the minima over `size` pairs; return the number of levels, the last of which is one place."""
    level = 0
    start = 0
    while True:
        starts[level] = start
        padded = ((size + _FAN - 1) >> _BITS) << _BITS
        ranks[start + size : start + padded] = _NO_PAIR
        if size <= 1:
            return level + 1
        above = start + padded
        size = padded >> _BITS
        for block in range(size):
            ranks[above + block] = _lowest(ranks, start + (block << _BITS))
        start = above
        level += 1


@numba.njit(cache=True)
def _merge(
    size: int, symbols: Int32, pairs: Int64, ranks: Int64, joined: Int32, before: Int32, behind: Int32, starts: Int64, ids: Int32, end: int
) -> int:
    """Merge the first `size` symbols as far as they go, write what is left to `ids` from `end` on; return the new end."""
    for place in range(size):
        before[place] = place - 1
        behind[place] = place + 1
    for place in range(size - 1):
        _note(place, symbols[place], symbols[place + 1], pairs, ranks, joined)
    ranks[size - 1] = _NO_PAIR
    num_levels = _raise_levels(size, ranks, starts)
    top = starts[num_levels - 1]
    while ranks[top] < _NO_PAIR:
        place = ranks[top] & _LOW_HALF
        right = behind[place]
        last = behind[right]
        symbols[place] = joined[place]
        behind[place] = last
        ranks[right] = _NO_PAIR
        if right >> _BITS != place >> _BITS:
            _mend(right, ranks, starts, num_levels)
        if last < size:
            before[last] = place
            _note(place, symbols[place], symbols[last], pairs, ranks, joined)
        else:
            ranks[place] = _NO_PAIR
        left = before[place]
        if left >= 0:
            _note(left, symbols[left], symbols[place], pairs, ranks, joined)
            if left >> _BITS != place >> _BITS:
                _mend(left, ranks, starts, num_levels)
        _mend(place, ranks, starts, num_levels)
    place = 0
    while place < size:
        ids[end] = symbols[place]
        end += 1
        place = behind[place]
    return end


@numba.njit(cache=True)
def _spell(code: int, byte_ids: Int32, symbols: Int32, size: int) -> int:
    """Write a character as the ids of its UTF-8 bytes; return the new number of symbols."""
    if code < 0x80:
        symbols[size] = byte_ids[code]
        return size + 1
    num_more = 1 if code < 0x800 else 2 if code < 0x10000 else 3
    lead = 0xC0 if num_more == 1 else 0xE0 if num_more == 2 else 0xF0
    symbols[size] = byte_ids[lead | (code >> (6 * num_more))]
    for number in range(num_more):
        symbols[size + 1 + number] = byte_ids[0x80 | ((code >> (6 * (num_more - 1 - number))) & 0x3F)]
    return size + 1 + num_more


@numba.njit(cache=True)
def _encode(
    codes: NDArray[np.uint32], bounds: Int64, known: Int32, letter_ids: Int32, byte_ids: Int32, free_before_mark: NDArray[np.bool_],
    mark: int, pairs: Int64, ids: Int32,
) -> tuple[Int64, NDArray[np.bool_]]:  # fmt: skip
    """Encode words into `ids`; return where each word ends, 0 first, and which of them hold an unknown letter."""
    longest = 4 * np.max(bounds[1:] - bounds[:-1]) if len(bounds) > 1 else 0
    symbols = np.empty(longest + 1, np.int32)
    ranks = np.empty(longest + longest // (_FAN - 1) + 12 * _FAN, np.int64)
    joined, before, behind = np.empty(longest + 1, np.int32), np.empty(longest + 1, np.int32), np.empty(longest + 1, np.int32)
    starts = np.zeros(16, np.int64)
    ends = np.zeros(len(bounds), np.int64)
    unknown = np.zeros(len(bounds) - 1, np.bool_)
    end = 0
    for word in range(len(bounds) - 1):
        if known[word] >= 0:
            ids[end] = known[word]
            end += 1
            ends[word + 1] = end
            continue
        size = 0
        for place in range(bounds[word], bounds[word + 1]):
            code = codes[place]
            symbol = letter_ids[code] if code < len(letter_ids) else -1
            if symbol < 0:
                if len(byte_ids) == 0:
                    unknown[word] = True
                    break
                size = _spell(code, byte_ids, symbols, size)
                continue
            if symbol == mark and size > 0 and free_before_mark[symbols[size - 1]]:
                end = _merge(size, symbols, pairs, ranks, joined, before, behind, starts, ids, end)
                size = 0
            symbols[size] = symbol
            size += 1
        if size > 0 and not unknown[word]:
            end = _merge(size, symbols, pairs, ranks, joined, before, behind, starts, ids, end)
        ends[word + 1] = end
    return ends, unknown
