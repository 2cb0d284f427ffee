"""Keep English as it is: the strings that no new piece may be, collected from English text.

A base tokenizer cuts a word into pieces, and a new piece can only begin to act where it is the text of two adjacent base pieces. So if
no new piece is such a text, no merge ever starts in this English, and every id of it stays as it was: drift is 0 on the text given, by
construction, and small on text like it (abbreviations recur: HIV, PCR, GALT). The strings must be forbidden *while* merges are learned.

Two things are left out. *Gene spans*: articles quote primers and peptides, and encoding those anew is the purpose. *Strings of DNA
letters alone*, when asked: "CG", "TC" and "AG" stand at the bottom of every DNA merge, and forbidding them (CpG islands are in every
textbook) takes DNA from 6.1 back to 2.0 bases per token.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llama_gene.tokenization.bpe import Vocabulary

GENE_SPAN = re.compile(r"[ACGTUN]{6,}|[ACDEFGHIKLMNPQRSTVWY]{15,}")
_CAPITALS = re.compile(r"[A-Z]+")
_LINES_A_BATCH = 4096


def without_gene_spans(text: str) -> str:
    """Return the text without runs of at least 6 nucleotide letters or 15 residue letters.

    >>> without_gene_spans("primer GATTACAGATTACA, 3' end")
    "primer , 3' end"
    """
    return GENE_SPAN.sub("", text)


def forbidden_strings(vocabulary: Vocabulary, texts: Iterable[str]) -> Counter[str]:
    """Return the strings of capitals that two adjacent pieces of the vocabulary form in English, and how often each does.

    Each run of capitals is also cut by itself: "HIV" behind a space may be one piece and a letter, behind "(" two pieces, and the next
    article will have it the other way round. Gene spans are left out of the texts first.
    """
    texts_of = vocabulary.piece_texts()
    capital = np.zeros(vocabulary.num_ids + 1, bool)  # the last row is for -1, the end of a line
    capital[[number for number, text in texts_of.items() if _CAPITALS.fullmatch(text)]] = True
    in_text: Counter[str] = Counter()
    alone: Counter[str] = Counter()

    def count(strings: Counter[str], ids: NDArray[np.int32], times: int) -> None:
        for place in np.flatnonzero(capital[ids[:-1]] & capital[ids[1:]]):
            strings[texts_of[int(ids[place])] + texts_of[int(ids[place + 1])]] += times

    runs: Counter[str] = Counter()
    for lines in _batches(texts):
        runs.update(run for line in lines for run in _CAPITALS.findall(line) if len(run) > 1)
        for row in encode_lines(vocabulary, lines):
            count(in_text, np.array(row, np.int32), 1)
    cut = vocabulary.segment_ids(list(runs))
    for ids, times in zip(np.split(cut, np.flatnonzero(cut < 0) + 1), runs.values(), strict=False):
        count(alone, ids, times)
    return in_text | alone  # the larger count of each string


def encode_lines(vocabulary: Vocabulary, lines: list[str]) -> list[list[int]]:
    """Return the ids of lines: by the format's own library where it has one."""
    native = vocabulary.native_encode(lines)
    if native is not None:
        return native
    backend: Any = vocabulary.tokenizer().backend_tokenizer
    return [encoding.ids for encoding in backend.encode_batch_fast(lines, add_special_tokens=False)]


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yield the lines that hold two capitals in a row, gene spans left out, a few thousand at a time."""
    lines = (line for text in texts for line in without_gene_spans(text).splitlines() if re.search(r"[A-Z]{2}", line))
    while batch := list(islice(lines, _LINES_A_BATCH)):
        yield batch
