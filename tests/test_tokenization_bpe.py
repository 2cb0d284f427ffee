"""bpe: the reference merge loop, continued training and the two trainers from nothing."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_gene.errors import InputError
from llama_gene.tokenization.bpe import (
    N_LADDER,
    merge_list,
    reference_encode,
    train_continued_pieces,
    train_sentencepiece_base,
    train_unified,
    words_of,
)
from llama_gene.tokenization.tokenizer import decode, encode_text, open_vocabulary
from tests.fixtures.tiny_vocabularies import ENGLISH, SENTENCES, genes, spliced

LETTERS = set("ACGTN")


def no_merge(left: str, right: str) -> None:
    """The base of single letters: nothing merges."""


def train(texts: list[str], size: int, **options: object) -> list[str]:
    """Train behind a base of the letters ACGTN alone."""
    return train_continued_pieces(
        lambda words: [list(word) for word in words], texts, size, base_pieces=LETTERS, base_rank=no_merge, **options  # type: ignore[arg-type]
    )  # fmt: skip


def test_reference_loop_merges_the_best_pair_leftmost_first() -> None:
    ranks = {"AA": 0, "AAA": 1}
    assert reference_encode("AAAAA", lambda left, right: ranks.get(left + right)) == ["AA", "AAA"]


def test_most_frequent_pair_comes_first_and_pieces_build_on_each_other() -> None:
    assert train(["GATTACA" * 20], 6)[-1] == "GATTACA"
    assert train(["ACACACAC", "ACAC", "GT"] * 3, 1) == ["AC"]


def test_sizes_are_exact_and_prefixes_of_one_another() -> None:
    small, large = train(genes(60), 100), train(genes(60), 300)
    assert len(small) == 100 and len(set(large)) == 300 and large[:100] == small


def test_two_runs_give_the_same_pieces() -> None:
    assert train(genes(40), 200) == train(genes(40), 200)


def test_n_ladder_comes_first_and_no_longer_than_max_length() -> None:
    assert train(genes(20), 10, first=N_LADDER)[:6] == ["NN", "N" * 4, "N" * 8, "N" * 16, "N" * 32, "N" * 64]
    assert train(genes(20), 10, first=N_LADDER, max_length=8)[:4] == ["NN", "N" * 4, "N" * 8, train(genes(20), 1)[0]]


def test_pieces_are_no_longer_than_max_length() -> None:
    assert max(map(len, train(genes(60), 50, max_length=4))) <= 4


def test_forbidden_pieces_are_replaced_by_further_merges() -> None:
    pieces = train(genes(60), 150, forbid=lambda piece: set(piece) <= {"A", "C"})
    assert len(pieces) == 150 and not any(set(piece) <= {"A", "C"} for piece in pieces)


def test_letters_that_the_base_lacks_become_pieces() -> None:
    assert train(["ACWW", "ACWW"], 2) == ["W", "AC"]


def test_words_are_runs_of_letters_cut_to_length() -> None:
    assert list(words_of(["MKV*\nAC GT", "x" * 7], max_letters=5)) == ["MKV", "AC", "GT", "xxxxx", "xx"]


def test_law_03_every_learned_piece_is_reachable_by_the_reference_loop() -> None:
    for kind in ("sentencepiece", "tiktoken"):
        made = spliced(kind)
        new = made.dna_pieces + made.protein_pieces
        assert len(new) == 300
        assert [piece for piece in new if reference_encode(piece, made.full.rank) != [piece]] == []


def test_law_03_unreachable_merges_are_dropped_and_refilled() -> None:
    """The pair trainer learns GI + T; the encoder's string rule joins G + IT first, so what was built on it must not stay."""
    ranks: dict[str, int] = {"IT": 0}  # a base whose segmentation, taken apart here, is not its own merge order
    texts = ["GITGIT", "GIGIGI", "GITA"] * 4
    pieces = train_continued_pieces(
        lambda words: [list(word) for word in words], texts, 3,
        base_pieces={*"GITA", "IT"}, base_rank=lambda left, right: ranks.get(left + right),
    )  # fmt: skip
    rank = {**ranks, **{piece: 1 + number for number, piece in enumerate(pieces)}}
    assert len(pieces) == 3
    assert all(reference_encode(piece, lambda a, b: rank.get(a + b)) == [piece] for piece in pieces)


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


@pytest.mark.parametrize(
    ("texts", "size", "message"),
    [
        ([], 10, "the corpus has no letters"),
        (["", "12 34"], 10, "the corpus has no letters"),
        (["ACGT"], 10, "the corpus gives 0 pieces; expected 10"),
        (["ACGTWSKM" * 3], 3, "4 letters of the corpus are not in the base, but size is 3"),
        (["ACGT"], 0, "size 0"),
    ],
)
def test_bad_corpora_are_one_clear_line(texts: list[str], size: int, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        train(texts, size)
    assert "\n" not in str(caught.value)


def test_sentencepiece_base_has_llama_ids_and_loses_no_long_line(tmp_path: Path) -> None:
    long_line = "word " * 5000 + "ZEBRAQUAGGA"
    train_sentencepiece_base([*ENGLISH, *SENTENCES, long_line + "\u2585xylophone\x00end"], 420, tmp_path / "a.model")
    train_sentencepiece_base([*ENGLISH, *SENTENCES, long_line + "\u2585xylophone\x00end"], 420, tmp_path / "b.model")
    assert (tmp_path / "a.model").read_bytes() == (tmp_path / "b.model").read_bytes()
    base = open_vocabulary(tmp_path / "a.model")
    ids = base.ids()
    assert base.num_ids == 420 and (ids["<unk>"], ids["<s>"], ids["</s>"], ids["<0x00>"], ids["<0xFF>"]) == (0, 1, 2, 3, 258)
    assert "\u2581word" in ids  # the word occurs in the long line only


@pytest.mark.parametrize(("size", "message"), [(200, "does not hold 3 specials, 256 bytes"), (50_000, "base_size of at most")])
def test_sentencepiece_base_of_an_impossible_size_is_refused(tmp_path: Path, size: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        train_sentencepiece_base(ENGLISH, size, tmp_path / "base.model")
    assert list(tmp_path.iterdir()) == []


def test_empty_base_texts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="texts are empty"):
        train_sentencepiece_base(["", "\n"], 400, tmp_path / "base.model")
    with pytest.raises(InputError, match="texts are empty"):
        train_unified([], 400)


def test_unified_dictionary_reads_dna_and_english() -> None:
    tokenizer = train_unified([*genes(40), *ENGLISH, *SENTENCES], 500)
    assert len(tokenizer) == 500 and tokenizer.eos_token_id == tokenizer.bos_token_id == 0
    for text in ("ACGTTTGA", "The gene binds.", "<|endoftext|>", "é\n"):
        assert decode(tokenizer, encode_text(tokenizer, text)) == text
    assert len(encode_text(tokenizer, genes(1)[0])) < len(genes(1)[0]) / 2
    with pytest.raises(InputError, match="the texts give"):
        train_unified(["ACGT"], 5000)


def test_two_thousand_pieces_on_two_megabases_take_less_than_twenty_cpu_seconds() -> None:
    made = spliced("sentencepiece")
    started = time.process_time()
    pieces = train_continued_pieces(
        made.base.segment, genes(5000, 400), 2000, base_pieces=made.base.pieces(), base_rank=made.base.rank, first=N_LADDER
    )  # fmt: skip
    assert len(pieces) == 2000 and time.process_time() - started < 20
