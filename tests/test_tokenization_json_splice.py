"""json_splice: a base that has only a tokenizer.json."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from llama_gene.errors import InputError
from llama_gene.tokenization.bpe import reference_encode
from llama_gene.tokenization.continued import train_continued_pieces
from llama_gene.tokenization.json_splice import JsonVocabulary
from llama_gene.tokenization.standalone import train_unified
from llama_gene.tokenization.tokenizer import decode, encode_batch, encode_text, open_vocabulary, write_tokenizer
from tests.fixtures.tiny_vocabularies import (
    BEFORE_A_RUN,
    ENGLISH,
    SENTENCES,
    STRUCTURE,
    edge_texts,
    gene_runs,
    genes,
    only_dna_letters,
    proteins,
    spliced,
    structure_texts,
    two_new_pieces,
    write_gemma,
    write_gpt2,
    write_qwen,
)


def write_base(folder: Path) -> Path:
    """Write a byte-level base with a chat token behind its vocabulary, as many hub models have."""
    tokenizer = train_unified([*ENGLISH, *SENTENCES], 380)
    tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
    write_tokenizer(tokenizer, folder)
    return folder


def test_law_01_base_ids_and_added_tokens_are_unchanged_and_new_pieces_follow(tmp_path: Path) -> None:
    base = open_vocabulary(write_base(tmp_path / "base"))
    assert isinstance(base, JsonVocabulary) and base.num_ids == 381
    pieces = train_continued_pieces(base, genes(60), 100).pieces
    full = base.append(pieces)
    write_tokenizer(full.tokenizer(), tmp_path / "full")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "full")
    assert [tokenizer.convert_tokens_to_ids(piece) for piece in pieces] == list(range(381, 481))
    assert all(tokenizer.convert_tokens_to_ids(piece) == number for piece, number in base.ids().items())
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, len(tokenizer)) == (380, 0, 481)


def test_law_03_pieces_are_reachable_pair_by_pair_and_texts_come_back(tmp_path: Path) -> None:
    base = open_vocabulary(write_base(tmp_path / "base"))
    pieces = train_continued_pieces(base, genes(60), 100).pieces
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
    pieces = train_continued_pieces(base, genes(60), 50).pieces
    full = base.append(pieces)
    assert isinstance(base, JsonVocabulary) and full.num_ids == base.num_ids + 50
    tokenizer = full.tokenizer()
    assert [decode(tokenizer, ids) for ids in encode_batch(tokenizer, edge_texts())] == edge_texts()


SHAPES = {"gemma": write_gemma, "gpt2": write_gpt2, "qwen": write_qwen}


@dataclass(frozen=True)
class Steps:
    """A base of one shape, and DNA, then protein behind it."""

    base: JsonVocabulary
    dna: JsonVocabulary
    full: JsonVocabulary
    pieces: list[str]


@cache
def steps(shape: str) -> Steps:
    """Return the splice of 60 DNA and 60 protein pieces behind a small base of a shape; made once for all tests."""
    with TemporaryDirectory() as folder:
        base = open_vocabulary(SHAPES[shape](Path(folder) / shape))
    assert isinstance(base, JsonVocabulary)
    dna_pieces = train_continued_pieces(base, genes(60), 60).pieces
    dna = base.append(dna_pieces)
    protein_pieces = train_continued_pieces(dna, proteins(60), 60, forbid=only_dna_letters).pieces
    return Steps(base, dna, dna.append(protein_pieces), dna_pieces + protein_pieces)


@pytest.mark.parametrize("shape", SHAPES)
def test_law_01_every_base_id_special_and_merge_of_a_shape_stays(shape: str, tmp_path: Path) -> None:
    made = steps(shape)
    write_tokenizer(made.full.tokenizer(), tmp_path)
    tokenizer, before = AutoTokenizer.from_pretrained(tmp_path), made.base.tokenizer()
    assert {name: number for name, number in tokenizer.get_vocab().items() if number < made.base.num_ids} == before.get_vocab()
    assert tokenizer.convert_tokens_to_ids(made.pieces) == list(range(made.base.num_ids, made.base.num_ids + 120))
    assert tokenizer.all_special_ids == before.all_special_ids and tokenizer.special_tokens_map == before.special_tokens_map
    added = {number: token.special for number, token in before.added_tokens_decoder.items()}
    assert {number: token.special for number, token in tokenizer.added_tokens_decoder.items()} == added and added
    merges = made.base.content["model"]["merges"]
    assert made.full.content["model"]["merges"][: len(merges)] == merges


@pytest.mark.parametrize("shape", SHAPES)
def test_law_03_every_piece_behind_a_shape_is_reachable_and_reload_agrees(shape: str, tmp_path: Path) -> None:
    made = steps(shape)
    assert made.full.segment(made.pieces) == [[piece] for piece in made.pieces]
    assert all(reference_encode(piece, made.full.rank) == [piece] for piece in made.pieces)
    write_tokenizer(made.full.tokenizer(), tmp_path)
    texts = [text for text in edge_texts() if "\u2581" not in text]
    ids = encode_batch(AutoTokenizer.from_pretrained(tmp_path), texts)
    assert ids == encode_batch(made.full.tokenizer(), texts)
    assert [decode(made.full.tokenizer(), row) for row in ids] == texts


@pytest.mark.parametrize("shape", SHAPES)
def test_law_04_behind_a_shape_protein_changes_no_dna_and_neither_changes_plain_english(shape: str) -> None:
    made = steps(shape)
    dna = [*genes(100, seed=61), "N" * 37, "ACGTNNNNACNGT", "acgtnACGT"]
    assert encode_batch(made.full.tokenizer(), dna) == encode_batch(made.dna.tokenizer(), dna)
    assert encode_batch(made.full.tokenizer(), SENTENCES) == encode_batch(made.base.tokenizer(), SENTENCES)


@pytest.mark.parametrize("shape", SHAPES)
def test_law_03_behind_a_shape_an_isolated_gene_run_encodes_the_same_behind_anything(shape: str, tmp_path: Path) -> None:
    made, runs = steps(shape), gene_runs()
    write_tokenizer(made.full.isolated().tokenizer(), tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    alone = encode_batch(tokenizer, runs)
    for before in BEFORE_A_RUN:
        there = encode_batch(tokenizer, [before + run for run in runs])
        assert all(row[-len(ids) :] == ids for row, ids in zip(there, alone, strict=True))
        assert all(decode(tokenizer, row) == before + run for row, run in zip(there, runs, strict=True))
    plain = made.full.tokenizer()
    behind = encode_batch(plain, [" " + run for run in runs])
    assert any(row[-len(ids) :] != ids for row, ids in zip(behind, encode_batch(plain, runs), strict=True))  # what the pattern is for
    english = [*SENTENCES, *ENGLISH[:2], *ENGLISH[3:], "GATTACAGATT (TATAAA)"]
    assert encode_batch(tokenizer, english) == encode_batch(plain, english)
    again = open_vocabulary(tmp_path)
    assert again.isolated().tokenizer().backend_tokenizer.to_str() == again.tokenizer().backend_tokenizer.to_str()


def test_a_rank_file_and_its_tokenizer_json_give_the_same_ids_isolated(tmp_path: Path) -> None:
    full = spliced("tiktoken").full
    write_tokenizer(full.tokenizer(), tmp_path)
    texts = [*edge_texts(), *(before + run for before in BEFORE_A_RUN for run in gene_runs()[::9]), "x  ACGTACGTACGTACGT"]
    base = open_vocabulary(tmp_path)
    assert isinstance(base, JsonVocabulary)
    assert encode_batch(base.isolated().tokenizer(), texts) == full.isolated().native_encode(texts)


@pytest.mark.parametrize("shape", SHAPES)
def test_law_02_structure_letters_behind_a_shape_are_one_id_each_and_come_back(shape: str, tmp_path: Path) -> None:
    full = steps(shape).full
    lettered = full.append_letters(STRUCTURE)
    vocabulary = lettered.append(two_new_pieces(full))
    write_tokenizer(vocabulary.tokenizer(), tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    first = full.num_ids
    assert encode_text(tokenizer, "<3di:a><3di:c>") == [first, first + 1] and vocabulary.num_ids == first + 22
    assert open_vocabulary(tmp_path).ids() == vocabulary.ids() and set(STRUCTURE).isdisjoint(vocabulary.pieces())
    assert vocabulary.letters() == {token: first + place for place, token in enumerate(STRUCTURE)}
    straight = steps(shape).base.append_letters(STRUCTURE)  # with no step before it, specials may stand outside the model's vocabulary
    vocab = straight.tokenizer().get_vocab()
    assert {name: number for name, number in vocab.items() if number < straight.num_ids - 20} == steps(shape).base.tokenizer().get_vocab()
    texts = structure_texts()
    assert [decode(tokenizer, ids) for ids in encode_batch(tokenizer, texts)] == texts
    assert encode_batch(lettered.tokenizer(), edge_texts()) == encode_batch(full.tokenizer(), edge_texts())


@pytest.mark.parametrize("shape", SHAPES)
def test_segment_ids_are_the_ids_of_segment(shape: str) -> None:
    full = steps(shape).full
    words = [*genes(80, seed=50), *proteins(80, seed=51), "", "acgt", "A"]
    names, texts = full.ids(), full.piece_texts()
    expected = [number for pieces in full.segment(words) for number in [*(names[piece] for piece in pieces), -1]]
    found = full.segment_ids(words)
    assert found.dtype == np.int32 and found.tolist() == expected and full.segment_ids([]).tolist() == []
    assert "".join("|" if number < 0 else texts[number] for number in found.tolist()) == "|".join(words) + "|"
    special = set(full.tokenizer().all_special_ids)
    assert special.isdisjoint(texts) and " e" in texts.values() and not any(text.startswith("<0x") for text in texts.values())


def test_a_base_that_marks_every_part_of_a_text_is_not_isolated_and_takes_no_letters(tmp_path: Path) -> None:
    write_tokenizer(spliced("sentencepiece").base.tokenizer(), tmp_path / "prepend")
    marked = open_vocabulary(write_gpt2(tmp_path / "gpt2")).tokenizer()
    marked.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    write_tokenizer(marked, tmp_path / "marked")
    with pytest.raises(InputError, match="puts a word-start mark before every part"):
        open_vocabulary(tmp_path / "marked").isolated()
    for folder in ("prepend", "marked"):
        with pytest.raises(InputError, match="puts a space before the text behind"):
            open_vocabulary(tmp_path / folder).append_letters(STRUCTURE)


def test_law_03_a_base_of_262_144_pieces_is_spliced_in_two_steps(tmp_path: Path) -> None:
    base = open_vocabulary(write_gemma(tmp_path / "base", num_ids=262_144, num_unused=6_242))
    assert isinstance(base, JsonVocabulary)
    dna_pieces = train_continued_pieces(base, genes(60), 60).pieces
    dna = base.append(dna_pieces)
    protein_pieces = train_continued_pieces(dna, proteins(60), 60, forbid=only_dna_letters).pieces
    start = process_time()
    full = dna.append(protein_pieces)
    assert process_time() - start < 2  # linear: 0.1 s; 4 s where the tokenizer was built at every step
    new = dna_pieces + protein_pieces
    assert full.segment(new) == [[piece] for piece in new]
    write_tokenizer(full.tokenizer(), tmp_path / "full")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "full")
    assert tokenizer.convert_tokens_to_ids(new) == list(range(262_144, 262_264)) and len(tokenizer) == 262_264
    assert tokenizer.convert_tokens_to_ids(["<pad>", "<eos>", "<bos>", "<unk>", "<unused6241>"]) == [0, 1, 2, 3, 262_143]
    assert encode_batch(tokenizer, edge_texts()) == encode_batch(full.tokenizer(), edge_texts())


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
