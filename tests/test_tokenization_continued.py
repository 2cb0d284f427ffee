"""continued: pieces learned on a base's own segmentation, each reachable, none forbidden, exactly as many as asked."""

from __future__ import annotations

import pytest

from llama_gene.errors import InputError
from llama_gene.tokenization import continued
from llama_gene.tokenization.bpe import merge_list, reference_encode
from llama_gene.tokenization.continued import N_LADDER, train_continued_pieces, words_of
from tests.fixtures.letters import LettersVocabulary
from tests.fixtures.tiny_vocabularies import genes, spliced
from tests.test_tokenization_merges import train_tokenizers


def train(texts: list[str], size: int, **options: object) -> list[str]:
    """Train behind a base of the letters ACGTN alone."""
    return train_continued_pieces(LettersVocabulary(), texts, size, **options).pieces  # type: ignore[arg-type]


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


def test_law_03_unreachable_merges_are_passed_over_and_the_number_stays() -> None:
    """The pairs say GI + T; the encoder's string rule joins IT first, so GIT must come from G + IT or not at all."""
    base = LettersVocabulary("GITA", {"IT": 0})  # its encoder merges IT, which its segmentation here left apart
    learned = train_continued_pieces(base, ["GITGIT", "GIGIGI", "GITA", "GIAGIA"] * 4, 4)
    rank = {"IT": 0, **{piece: 1 + number for number, piece in enumerate(learned.pieces)}}
    assert len(learned.pieces) == 4
    assert all(reference_encode(piece, lambda a, b: rank.get(a + b)) == [piece] for piece in learned.pieces)


def test_without_anything_forbidden_the_pieces_are_those_of_tokenizers() -> None:
    texts = genes(120)
    words = list(words_of(texts))
    assert train(texts, 900) == train_tokenizers(words, 900, 64)


def test_law_04_forbidden_strings_are_no_pieces_and_nothing_is_built_on_them() -> None:
    free = train(genes(60), 150)
    forbidden = frozenset(free[:3])
    learned = train_continued_pieces(LettersVocabulary(), genes(60), 150, forbidden=forbidden)
    assert len(learned.pieces) == 150 and forbidden.isdisjoint(learned.pieces) and learned.num_forbidden >= 3
    rank = {piece: number for number, piece in enumerate(learned.pieces)}
    assert all(reference_encode(piece, lambda a, b: rank.get(a + b)) == [piece] for piece in learned.pieces)


def test_pieces_have_at_least_min_length_letters() -> None:
    base = spliced("sentencepiece").dna  # it has longer pieces to build on
    assert min(map(len, train_continued_pieces(base, genes(100, seed=3), 40, min_length=6).pieces)) >= 6


def test_a_reserve_continues_the_list() -> None:
    learned = train_continued_pieces(LettersVocabulary(), genes(60), 100, reserve=20)
    assert len(learned.pieces) == 120 and learned.pieces[:100] == train(genes(60), 100)
    assert len(train_continued_pieces(LettersVocabulary(), ["ACAC", "ACAC"], 1, reserve=50).pieces) == 2  # as far as the corpus goes


def test_detours_are_taken_only_where_they_save_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("DETOUR_LETTERS", 40_000), ("CHECK_LETTERS", 40_000), ("DETOUR_SIZE", 60), ("DETOUR_GAIN", 0.0)):
        monkeypatch.setattr(continued, name, value)
    texts = genes(300)
    with_detours = train_continued_pieces(LettersVocabulary(), texts, 100)
    plain = train_continued_pieces(LettersVocabulary(), texts, 100, detours=False)
    assert plain.detours == [] and with_detours.detours and set(with_detours.detours).isdisjoint(with_detours.pieces)
    assert num_tokens(texts, with_detours.pieces) < num_tokens(texts, plain.pieces)


def num_tokens(texts: list[str], pieces: list[str]) -> int:
    from tokenizers import models

    vocab = {piece: number for number, piece in enumerate([*"ACGTN", *pieces])}
    model = models.BPE(vocab=vocab, merges=merge_list(pieces, vocab))
    return sum(len(model.tokenize(text)) for text in texts)


def test_a_small_corpus_has_no_detours() -> None:
    assert train_continued_pieces(LettersVocabulary(), genes(100), 50).detours == []


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
