"""merges: the inner loops of the trainer, merge for merge those of `tokenizers`."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_gene.tokenization.merges import MergeCorpus
from tests.fixtures.tiny_vocabularies import genes, proteins


def train_tokenizers(words: list[str], size: int, max_length: int | None = None) -> list[str]:
    """Return the merges of `tokenizers`' BpeTrainer, in order, each as its text; its length limit is exclusive."""
    from tokenizers import Tokenizer, models, trainers

    options = {} if max_length is None else {"max_token_length": max_length + 1}
    trainer = trainers.BpeTrainer(vocab_size=len(set("".join(words))) + size, min_frequency=2, show_progress=False, **options)
    trained = Tokenizer(models.BPE())
    trained.train_from_iterator(words, trainer)
    return [piece for piece, _ in sorted(trained.get_vocab().items(), key=lambda item: item[1]) if len(piece) > 1]


def corpus_of(words: list[str], max_length: int = 10_000) -> tuple[MergeCorpus, list[str]]:
    letters = sorted(set("".join(words)))
    number = {letter: place for place, letter in enumerate(letters)}
    symbols = np.array([symbol for word in words for symbol in (*(number[letter] for letter in word), -1)], np.int32)
    return MergeCorpus(symbols, np.ones(len(letters), np.int32), max_length), letters


def train_ours(words: list[str], size: int, max_length: int = 10_000) -> tuple[list[str], int]:
    """Return our merges and how often a string was made a second way."""
    corpus, texts = corpus_of(words, max_length)
    symbols: dict[str, int] = {}
    again = 0
    while len(symbols) < size and (pair := corpus.best()) is not None:
        piece = texts[pair.left] + texts[pair.right]
        if piece in symbols:
            again += 1
        else:
            symbols[piece] = corpus.add_symbol(len(piece))
            texts.append(piece)
        corpus.merge(pair, symbols[piece])
    return list(symbols), again


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("ABC", min_size=1, max_size=30), min_size=1, max_size=12), st.integers(1, 40))
def test_merges_are_those_of_tokenizers_on_any_words(words: list[str], size: int) -> None:
    assert train_ours(words, size)[0] == train_tokenizers(words, size)


@pytest.mark.parametrize("texts", [genes(150), proteins(150)], ids=["dna", "protein"])
def test_merges_are_those_of_tokenizers_until_no_pair_is_left(texts: list[str]) -> None:
    ours, _ = train_ours(texts, 50_000)
    assert len(ours) > 1000 and ours == train_tokenizers(texts, 50_000)


@pytest.mark.parametrize("max_length", [2, 3, 5, 8])
def test_the_length_limit_is_that_of_tokenizers_made_inclusive(max_length: int) -> None:
    texts = genes(80)
    ours, _ = train_ours(texts, 400, max_length)
    assert ours == train_tokenizers(texts, 400, max_length) and max(map(len, ours)) <= max_length


def test_a_string_made_a_second_way_keeps_its_symbol_and_adds_to_its_pairs() -> None:
    """A base may cut GIT into GI + T here and G + IT there: both become one symbol, whose pairs count both."""
    gi, t, g, it, a = range(5)
    words = [[gi, t, a, gi, t], [g, it, a, g, it, g, it], [gi, t, a], [g, it, a]]
    symbols = np.array([symbol for word in words for symbol in (*word, -1)], np.int32)
    corpus = MergeCorpus(symbols, np.array([2, 1, 1, 2, 1], np.int32), 64)
    git = corpus.add_symbol(3)
    for left, right, num in ((gi, t, 3), (g, it, 4)):
        pair = corpus.find(left, right)
        assert pair is not None and pair.count == num and corpus.merge(pair, git) == num
    followed = corpus.find(git, a)
    assert followed is not None and followed.count == 4
    assert corpus.merge(followed, corpus.add_symbol(4)) == 4
    assert [int(symbol) for symbol in corpus.symbols if symbol != -2] == [-1, 6, git, -1, 6, git, git, -1, 6, -1, 6, -1, -1]


def test_runs_are_merged_from_the_left_and_words_stay_apart() -> None:
    corpus, _ = corpus_of(["AAAAA", "AB", "BA"])
    pair = corpus.find(0, 0)
    assert pair is not None and pair.count == 4  # pairs in a run overlap
    assert corpus.merge(pair, corpus.add_symbol(2)) == 2
    assert [int(symbol) for symbol in corpus.symbols if symbol != -2] == [-1, 2, 2, 0, -1, 0, 1, -1, 1, 0, -1, -1]


def test_a_pair_that_is_passed_over_stays_apart_and_does_not_come_back() -> None:
    corpus, _ = corpus_of(["ABAB", "ABAB"])
    first = corpus.best()
    second = corpus.best()
    assert first is not None and second is not None and (first.left, first.right) == (0, 1) and (second.left, second.right) == (1, 0)
    assert corpus.best() is None


def test_counts_are_exact_after_every_merge() -> None:
    corpus, texts = corpus_of(genes(20))
    for _ in range(120):
        pair = corpus.best()
        assert pair is not None
        alive = [int(symbol) for symbol in corpus.symbols if symbol != -2]
        assert pair.count == sum(here == (pair.left, pair.right) for here in pairwise(alive))
        texts.append(texts[pair.left] + texts[pair.right])
        corpus.merge(pair, corpus.add_symbol(len(texts[-1])))
