"""Packing: documents become fixed-length token rows, and every row remembers where its documents end.

A document is [BOS] text EOS. Documents are laid end to end and cut every `row_length` tokens; a document that is cut goes on as the
first segment of the next row. A row holds `input_ids` (int32: a vocabulary of 91k or 188k does not fit in uint16) and `lengths`, the
lengths of its segments. From `lengths` come positions that restart at each segment, which is what keeps attention inside a document
(transformers reads restarted positions as block boundaries when no attention mask is given), and the masked label at each segment's
first token, which no token of its own document predicts. Nothing is dropped: the last row may be shorter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from llama_gene.errors import ConfigError

IGNORED = -100  # the label that the loss skips


def pack_documents(documents: Iterable[Sequence[int]], row_length: int) -> Iterator[dict[str, list[int]]]:
    """Yield rows {"input_ids", "lengths"} of `row_length` tokens (the last may be shorter).

    Raises ConfigError for a row that has no room for a token and its target.

    >>> list(pack_documents([[1, 5, 2], [1, 6, 7, 2]], row_length=5))
    [{'input_ids': [1, 5, 2, 1, 6], 'lengths': [3, 2]}, {'input_ids': [7, 2], 'lengths': [2]}]
    """
    if row_length < 2:
        raise ConfigError(f"row_length is {row_length}", "at least 2 tokens: one to read, one to predict")
    ids: list[int] = []
    lengths: list[int] = []
    for document in documents:
        start = 0
        while start < len(document):
            piece = list(document[start : start + row_length - len(ids)])
            ids += piece
            lengths.append(len(piece))
            start += len(piece)
            if len(ids) == row_length:
                yield {"input_ids": ids, "lengths": lengths}
                ids, lengths = [], []
    if ids:
        yield {"input_ids": ids, "lengths": lengths}


def pack_examples(examples: Iterable[tuple[Sequence[int], Sequence[int]]], row_length: int) -> list[dict[str, list[int]]]:
    """Pack whole examples (input_ids, labels) into rows of at most `row_length` tokens; no example is cut.

    First fit over the last 64 open rows, so that the waste stays small and the order stays nearly that of the input.
    An example longer than `row_length` gets a row of its own (the caller has shortened what is too long for the model).
    """
    rows: list[dict[str, list[int]]] = []
    first_open = 0
    for input_ids, labels in examples:
        target = None
        for index in range(first_open, len(rows)):
            if len(rows[index]["input_ids"]) + len(input_ids) <= row_length:
                target = rows[index]
                break
        if target is None:
            target = {"input_ids": [], "labels": [], "lengths": []}
            rows.append(target)
            first_open = max(first_open, len(rows) - 64)
        target["input_ids"] += input_ids
        target["labels"] += labels
        target["lengths"].append(len(input_ids))
    return rows


def expand_row(row: dict[str, Any]) -> tuple[list[int], list[int], list[int]]:
    """Return (input_ids, labels, position_ids) of a row: positions restart, and a segment's first label is masked.

    >>> expand_row({"input_ids": [1, 5, 2, 1, 6], "lengths": [3, 2]})
    ([1, 5, 2, 1, 6], [-100, 5, 2, -100, 6], [0, 1, 2, 0, 1])
    """
    input_ids = list(row["input_ids"])
    labels = list(row.get("labels") or input_ids)
    positions: list[int] = []
    for length in row["lengths"]:
        labels[len(positions)] = IGNORED
        positions += range(length)
    return input_ids, labels, positions
