"""tiktoken_splice: the specials keep their ids, new ranks come behind them, tiktoken and transformers agree id for id."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import tiktoken
from transformers import AutoTokenizer

from llama_gene.errors import InputError
from llama_gene.tokenization.bpe import N_LADDER, reference_encode, train_continued_pieces
from llama_gene.tokenization.tiktoken_splice import LLAMA3_PATTERN, LLAMA3_SPECIALS, TiktokenVocabulary, is_rank_file
from llama_gene.tokenization.tokenizer import encode_batch, open_vocabulary, write_tokenizer
from tests.fixtures.tiny_vocabularies import (
    DATA,
    edge_texts,
    genes,
    needs_data,
    only_dna_letters,
    real_genes,
    real_proteins,
    spliced,
    write_ranks,
)


def made() -> tuple[TiktokenVocabulary, TiktokenVocabulary, TiktokenVocabulary]:
    splice = spliced("tiktoken")
    assert isinstance(splice.base, TiktokenVocabulary)
    assert isinstance(splice.dna, TiktokenVocabulary) and isinstance(splice.full, TiktokenVocabulary)
    return splice.base, splice.dna, splice.full


def read_ranks(path: Path) -> dict[bytes, int]:
    return {base64.b64decode(line.split()[0]): int(line.split()[1]) for line in path.read_text().splitlines()}


def test_there_are_256_specials_with_llama_3_names() -> None:
    assert len(set(LLAMA3_SPECIALS)) == 256
    assert LLAMA3_SPECIALS[9] == "<|eot_id|>" and LLAMA3_SPECIALS[4] == "<|finetune_right_pad_id|>"
    assert LLAMA3_SPECIALS[-1] == "<|reserved_special_token_247|>"


def test_law_01_base_ranks_and_specials_are_unchanged() -> None:
    base, _, full = made()
    num_base = len(base.ranks)
    written = read_ranks(spliced("tiktoken").folder / "tokenizer.model")
    assert list(written.items())[:num_base] == list(base.ranks.items())
    assert [rank for rank in written.values()][num_base:] == list(range(num_base + 256, num_base + 256 + 300))
    tokenizer = AutoTokenizer.from_pretrained(spliced("tiktoken").folder)
    assert tokenizer.convert_tokens_to_ids(list(LLAMA3_SPECIALS)) == list(range(num_base, num_base + 256))
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (num_base, num_base + 1)
    assert all(tokenizer.convert_tokens_to_ids(piece) == number for piece, number in base.ids().items())
    assert len(tokenizer) == full.num_ids == num_base + 256 + 300


def test_law_03_every_new_piece_is_reachable_by_the_reference_loop() -> None:
    """Never by Encoding.encode: a piece that is a whole pre-token is found there without a merge."""
    full = made()[2]
    new = spliced("tiktoken").dna_pieces + spliced("tiktoken").protein_pieces
    assert all(reference_encode(piece, full.rank) == [piece] for piece in new)


def test_law_03_tiktoken_and_transformers_agree_after_reload() -> None:
    folder = spliced("tiktoken").folder
    ranks = read_ranks(folder / "tokenizer.model")
    first = next(place for place, rank in enumerate(ranks.values()) if place != rank)
    specials = {name: first + offset for offset, name in enumerate(LLAMA3_SPECIALS)}
    native = tiktoken.Encoding(
        "test", pat_str=LLAMA3_PATTERN, mergeable_ranks=ranks, special_tokens=specials, explicit_n_vocab=len(ranks) + 256
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = edge_texts()
    assert encode_batch(tokenizer, texts) == [native.encode_ordinary(text) for text in texts]
    assert tokenizer("ACGT").input_ids == [first, *native.encode_ordinary("ACGT")]
    assert tokenizer("<|eot_id|>", add_special_tokens=False).input_ids == native.encode("<|eot_id|>", allowed_special="all")


def test_law_03_a_model_config_beside_it_changes_nothing(tmp_path: Path) -> None:
    full = made()[2]
    write_tokenizer(full.tokenizer(), tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama", "vocab_size": 1000}')
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert encode_batch(tokenizer, edge_texts()) == full.native_encode(edge_texts()) and tokenizer.bos_token_id == full.num_base


def test_law_04_adding_protein_changes_no_dna_encoding() -> None:
    _, dna, full = made()
    texts = [*genes(200, seed=21), "N" * 37, "ACGTNNNNACNGT", "acgtnACGT"]
    assert full.native_encode(texts) == dna.native_encode(texts)


def test_a_spliced_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    full = made()[2]
    again = open_vocabulary(spliced("tiktoken").folder)
    assert isinstance(again, TiktokenVocabulary)
    assert (again.ranks, again.num_base, again.num_ids) == (full.ranks, full.num_base, full.num_ids)


def test_names_of_the_specials_come_from_the_tokenizer_json_beside_the_ranks(tmp_path: Path) -> None:
    names = ["<|begin_of_text|>", "<|end_of_text|>", *(f"<|old_reserved_{number}|>" for number in range(254))]
    older = TiktokenVocabulary(made()[0].ranks, names)
    write_tokenizer(older.tokenizer(), tmp_path)
    older.write_native(tmp_path)
    opened = open_vocabulary(tmp_path)
    assert isinstance(opened, TiktokenVocabulary) and opened.specials == tuple(names)


def test_a_file_changed_in_place_is_read_anew(tmp_path: Path) -> None:
    path = write_ranks(tmp_path / "tokenizer.model", num_merges=10)
    assert open_vocabulary(path).num_ids == 256 + 11 + 256
    assert open_vocabulary(write_ranks(path, num_merges=12)).num_ids == 256 + 13 + 256


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:100], "100 of 256 bytes"),
        (lambda lines: [*lines[:300], b"QUNHVA== 700"], "at most one gap of 256"),
        (lambda lines: [*lines[:300], b"!!! x"], "line 301: not a rank"),
        (lambda lines: [*lines[:300], lines[299].split()[0]], "line 301: not a rank"),
    ],
)
def test_a_corrupted_rank_file_is_one_clear_line(tmp_path: Path, change: object, message: str) -> None:
    path = write_ranks(tmp_path / "tokenizer.model")
    path.write_bytes(b"\n".join(change(path.read_bytes().splitlines())) + b"\n")  # type: ignore[operator]
    assert is_rank_file(path)
    with pytest.raises(InputError, match=message):
        open_vocabulary(path)


@needs_data
def test_law_03_llama_3_spliced_with_real_genes_agrees_and_is_reachable(tmp_path: Path) -> None:
    base = open_vocabulary(Path(str(DATA)) / "tokenizers/llama3/tokenizer.model")
    pieces = train_continued_pieces(
        base.segment, real_genes(300_000), 500, base_pieces=base.pieces(), base_rank=base.rank, first=N_LADDER
    )  # fmt: skip
    dna = base.append(pieces)
    more = train_continued_pieces(
        dna.segment, real_proteins(100_000), 500, base_pieces=dna.pieces(), base_rank=dna.rank, forbid=only_dna_letters
    )  # fmt: skip
    full = dna.append(more)
    assert (base.num_ids, full.num_ids, min(dna.ids()[piece] for piece in pieces)) == (128_256, 129_256, 128_256)
    assert all(reference_encode(piece, full.rank) == [piece] for piece in pieces + more)
    write_tokenizer(full.tokenizer(), tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (128_000, 128_001)
    assert tokenizer.convert_tokens_to_ids("<|eot_id|>") == 128_009
    held_out = real_genes(400_000)[300:]
    texts = [*edge_texts(), *held_out, *real_proteins(150_000)[-80:]]
    assert encode_batch(tokenizer, texts) == full.native_encode(texts)
    assert full.native_encode(held_out) == dna.native_encode(held_out)
