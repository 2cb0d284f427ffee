"""bpe: the reference merge loop and merge lists."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from llama_gene.tokenization.bpe import merge_list, reference_encode


def test_reference_loop_merges_the_best_pair_leftmost_first() -> None:
    ranks = {"AA": 0, "AAA": 1}
    assert reference_encode("AAAAA", lambda left, right: ranks.get(left + right)) == ["AA", "AAA"]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=9), st.text("ABC", max_size=25))
def test_law_03_a_merge_list_gives_what_the_string_rule_gives(joins: list[tuple[int, int]], word: str) -> None:
    from tokenizers import models

    pieces = list("ABC")
    for left, right in joins:
        piece = pieces[left % len(pieces)] + pieces[right % len(pieces)]
        if piece not in pieces:
            pieces.append(piece)
    ranks = {piece: number for number, piece in enumerate(pieces) if len(piece) > 1}
    model = models.BPE(vocab={piece: number for number, piece in enumerate(pieces)}, merges=merge_list(ranks, set(pieces)))
    assert [token.value for token in model.tokenize(word)] == reference_encode(word, lambda a, b: ranks.get(a + b))
