"""json_splice: a base that has only a tokenizer.json."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from llama_gene.errors import InputError
from llama_gene.tokenization.bpe import reference_encode, train_continued_pieces, train_unified
from llama_gene.tokenization.json_splice import JsonVocabulary
from llama_gene.tokenization.tokenizer import decode, encode_batch, open_vocabulary, write_tokenizer
from tests.fixtures.tiny_vocabularies import ENGLISH, SENTENCES, edge_texts, genes, spliced


def write_base(folder: Path) -> Path:
    """Write a byte-level base with a chat token behind its vocabulary, as many hub models have."""
    tokenizer = train_unified([*ENGLISH, *SENTENCES], 380)
    tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
    write_tokenizer(tokenizer, folder)
    return folder


def test_law_01_base_ids_and_added_tokens_are_unchanged_and_new_pieces_follow(tmp_path: Path) -> None:
    base = open_vocabulary(write_base(tmp_path / "base"))
    assert isinstance(base, JsonVocabulary) and base.num_ids == 381
    pieces = train_continued_pieces(base.segment, genes(60), 100, base_pieces=base.pieces(), base_rank=base.rank)
    full = base.append(pieces)
    write_tokenizer(full.tokenizer(), tmp_path / "full")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "full")
    assert [tokenizer.convert_tokens_to_ids(piece) for piece in pieces] == list(range(381, 481))
    assert all(tokenizer.convert_tokens_to_ids(piece) == number for piece, number in base.ids().items())
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, len(tokenizer)) == (380, 0, 481)


def test_law_03_pieces_are_reachable_pair_by_pair_and_texts_come_back(tmp_path: Path) -> None:
    base = open_vocabulary(write_base(tmp_path / "base"))
    pieces = train_continued_pieces(base.segment, genes(60), 100, base_pieces=base.pieces(), base_rank=base.rank)
    full = base.append(pieces)
    assert full.segment(pieces) == [[piece] for piece in pieces]
    assert all(reference_encode(piece, full.rank) == [piece] for piece in pieces)
    tokenizer = full.tokenizer()
    assert [decode(tokenizer, ids) for ids in encode_batch(tokenizer, edge_texts())] == edge_texts()
    before = base.tokenizer()
    assert encode_batch(tokenizer, SENTENCES) == encode_batch(before, SENTENCES)


def test_a_sentencepiece_like_json_is_spliced_too(tmp_path: Path) -> None:
    write_tokenizer(spliced("sentencepiece").base.tokenizer(), tmp_path)
    base = open_vocabulary(tmp_path)
    pieces = train_continued_pieces(base.segment, genes(60), 50, base_pieces=base.pieces(), base_rank=base.rank)
    full = base.append(pieces)
    assert isinstance(base, JsonVocabulary) and full.num_ids == base.num_ids + 50
    tokenizer = full.tokenizer()
    assert [decode(tokenizer, ids) for ids in encode_batch(tokenizer, edge_texts())] == edge_texts()


def wordpiece() -> Tokenizer:
    return Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))


def lower_casing() -> Tokenizer:
    backend = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    backend.normalizer = normalizers.Lowercase()
    return backend


def splitting() -> Tokenizer:
    backend = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return backend


@pytest.mark.parametrize(
    ("make", "message"),
    [(wordpiece, "is a WordPiece tokenizer"), (lower_casing, "changes or splits gene"), (splitting, "changes or splits gene")],
)
def test_what_is_not_simple_is_refused(make: object, message: str, tmp_path: Path) -> None:
    write_tokenizer(PreTrainedTokenizerFast(tokenizer_object=make()), tmp_path)  # type: ignore[operator]
    with pytest.raises(InputError, match=message):
        open_vocabulary(tmp_path)
