"""Packing: no token is lost, no example is cut, and a row knows its documents."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_gene.data import packing
from llama_gene.data.packing import IGNORED, RowPacker, expand_row, pack_documents, pack_examples
from llama_gene.errors import ConfigError

token_lists = st.lists(st.integers(0, 99), max_size=30)


def test_a_document_that_is_cut_goes_on_in_the_next_row() -> None:
    rows = list(pack_documents([[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 11, 12]], row_length=5))
    assert rows == [
        {"input_ids": [1, 2, 3, 4, 5], "lengths": [3, 1, 1]},
        {"input_ids": [6, 7, 8, 9, 10], "lengths": [5]},
        {"input_ids": [11, 12], "lengths": [2]},
    ]


def test_no_documents_give_no_rows_and_empty_documents_leave_no_trace() -> None:
    assert list(pack_documents([], 5)) == []
    assert list(pack_documents([[], [1], []], 5)) == [{"input_ids": [1], "lengths": [1]}]


@given(st.lists(token_lists, max_size=20), st.integers(2, 40))
def test_packing_loses_no_token_and_fills_every_row_but_the_last(documents: list[list[int]], row_length: int) -> None:
    rows = list(pack_documents(documents, row_length))
    assert [token for row in rows for token in row["input_ids"]] == [token for document in documents for token in document]
    assert all(len(row["input_ids"]) == row_length for row in rows[:-1])
    assert all(0 < len(row["input_ids"]) <= row_length for row in rows)
    for row in rows:
        assert sum(row["lengths"]) == len(row["input_ids"]) and min(row["lengths"]) >= 1


@given(st.lists(token_lists.filter(len), max_size=20), st.integers(2, 40))
def test_the_segments_of_the_rows_are_the_documents(documents: list[list[int]], row_length: int) -> None:
    """Documents come back if the first segment of a row joins the last one of the row before wherever a document was cut there."""
    boundaries = set()
    position = 0
    for row in pack_documents(documents, row_length):
        for length in row["lengths"]:
            boundaries.add(position)
            position += length
    starts = {sum(map(len, documents[:number])) for number in range(len(documents))}
    cuts = set(range(0, position, row_length))
    assert starts <= boundaries <= starts | cuts


@pytest.mark.parametrize("row_length", [1, 0, -5])
def test_a_row_without_room_for_a_target_is_refused(row_length: int) -> None:
    with pytest.raises(ConfigError, match=f"row_length is {row_length}; expected at least 2 tokens"):
        list(pack_documents([[1, 2]], row_length))


def test_best_fit_puts_the_longest_first_and_each_where_least_is_left() -> None:
    rows = list(pack_documents([[1] * 3, [2] * 6, [3] * 5, [4] * 2, [5] * 4], row_length=10, packing="best_fit"))
    assert [row["lengths"] for row in rows] == [[6, 4], [5, 3, 2]]
    assert rows[0]["input_ids"] == [2] * 6 + [5] * 4


def test_best_fit_cuts_a_document_that_is_longer_than_a_row() -> None:
    rows = list(pack_documents([list(range(11)), [99]], row_length=4, packing="best_fit"))
    assert [row["input_ids"] for row in rows] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 99]]
    assert [row["lengths"] for row in rows] == [[4], [4], [3, 1]]


@given(st.lists(token_lists, max_size=30), st.integers(2, 40))
def test_best_fit_keeps_each_document_that_fits_whole_and_once(documents: list[list[int]], row_length: int) -> None:
    rows = list(pack_documents(documents, row_length, "best_fit"))
    found: Counter[tuple[int, ...]] = Counter()
    for row in rows:
        start = 0
        for length in row["lengths"]:
            found[tuple(row["input_ids"][start : start + length])] += 1
            start += length
        assert start == len(row["input_ids"]) <= row_length
    pieces = (document[start : start + row_length] for document in documents for start in range(0, len(document), row_length))
    assert found == Counter(map(tuple, pieces))
    if documents:  # first fit leaves no two rows that would go into one
        lengths = sorted(len(row["input_ids"]) for row in rows)
        assert len(lengths) < 2 or lengths[0] + lengths[1] > row_length


@given(st.lists(token_lists, max_size=30), st.integers(2, 40), st.sampled_from(["concatenate", "best_fit"]), st.integers(1, 60))
def test_every_token_and_every_unused_place_is_counted(
    documents: list[list[int]], row_length: int, kind: packing.Packing, window: int
) -> None:
    """In windows small enough that there are several."""
    packer = RowPacker(row_length, kind)
    whole, packing.WINDOW_TOKENS = packing.WINDOW_TOKENS, window
    try:
        rows = list(packer.pack([[np.array(document, np.int32) for document in documents]]))
    finally:
        packing.WINDOW_TOKENS = whole
    counts = packer.counts
    assert counts.documents == sum(bool(document) for document in documents)
    assert counts.tokens == sum(map(len, documents)) == sum(len(batch.ids) for batch in rows)
    assert counts.rows == sum(len(batch.row_ends) for batch in rows)
    assert counts.unused_tokens == counts.rows * row_length - counts.tokens
    where: dict[int, set[int]] = {}
    if kind == "concatenate":
        position = 0
        for number, document in enumerate(documents):
            for place in range(len(document)):
                where.setdefault(number, set()).add((position + place) // row_length)
            position += len(document)
        assert counts.cut_documents == sum(len(found) > 1 for found in where.values())
        assert [token for batch in rows for token in batch.ids.tolist()] == [token for document in documents for token in document]
    else:
        assert counts.cut_documents == sum(len(document) > row_length for document in documents)


def test_another_packing_is_refused() -> None:
    with pytest.raises(ConfigError, match="packing is 'tight'; expected concatenate or best_fit"):
        list(pack_documents([[1, 2]], 8, "tight"))  # type: ignore[arg-type]


def test_examples_are_never_cut_and_fill_gaps() -> None:
    examples = [([1, 1, 1], [-100, 1, 1]), ([2, 2, 2], [-100, 2, 2]), ([3, 3], [-100, 3])]
    assert pack_examples(examples, row_length=5) == [
        {"input_ids": [1, 1, 1, 3, 3], "labels": [-100, 1, 1, -100, 3], "lengths": [3, 2]},
        {"input_ids": [2, 2, 2], "labels": [-100, 2, 2], "lengths": [3]},
    ]


def test_an_example_longer_than_a_row_gets_a_row_of_its_own() -> None:
    rows = pack_examples([([1], [1]), ([2] * 9, [2] * 9), ([3], [3])], row_length=5)
    assert [row["input_ids"] for row in rows] == [[1, 3], [2] * 9]


@given(st.lists(st.integers(1, 12), max_size=150))
def test_packing_examples_keeps_each_whole_and_once(sizes: list[int]) -> None:
    examples = [([number] * size, [number] * size) for number, size in enumerate(sizes)]
    rows = pack_examples(examples, row_length=12)
    seen = []
    for row in rows:
        assert len(row["input_ids"]) <= 12 and row["labels"] == row["input_ids"]
        start = 0
        for length in row["lengths"]:
            seen.append(row["input_ids"][start : start + length])
            start += length
    assert sorted(seen) == sorted(ids for ids, _ in examples)


def test_positions_restart_at_each_segment_and_its_first_label_is_masked() -> None:
    row = {"input_ids": [7, 8, 9, 5, 6], "lengths": [3, 2]}
    assert expand_row(row) == ([7, 8, 9, 5, 6], [IGNORED, 8, 9, IGNORED, 6], [0, 1, 2, 0, 1])


def test_labels_of_examples_are_kept() -> None:
    row = {"input_ids": [7, 8, 9], "labels": [IGNORED, IGNORED, 9], "lengths": [3]}
    assert expand_row(row)[1] == [IGNORED, IGNORED, 9]
    assert row["labels"] == [IGNORED, IGNORED, 9]  # untouched: a row is read again in the next pass
