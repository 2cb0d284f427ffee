"""tiktoken_splice: the specials keep their ids, new ranks come behind them, tiktoken and transformers agree id for id."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import numpy as np
import pytest
import tiktoken
from transformers import AutoTokenizer

from llama_gene.errors import InputError
from llama_gene.tokenization.bpe import reference_encode
from llama_gene.tokenization.continued import N_LADDER, train_continued_pieces
from llama_gene.tokenization.tiktoken_splice import (
    LLAMA3_PATTERN,
    LLAMA3_SPECIALS,
    RUN,
    TiktokenVocabulary,
    is_rank_file,
    isolating_pattern,
)
from llama_gene.tokenization.tokenizer import decode, encode_batch, encode_text, open_vocabulary, write_tokenizer
from tests.fixtures.tiny_vocabularies import (
    BEFORE_A_RUN,
    DATA,
    ENGLISH,
    SENTENCES,
    STRUCTURE,
    edge_texts,
    gene_runs,
    genes,
    needs_data,
    only_dna_letters,
    proteins,
    real_genes,
    real_proteins,
    spliced,
    structure_texts,
    two_new_pieces,
    with_structure,
    write_ranks,
)

RUN_FINDER = re.compile(RUN)


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


def test_law_03_a_gene_run_encodes_the_same_behind_anything() -> None:
    full = made()[2]
    isolated, runs = full.isolated(), gene_runs()
    alone = isolated.native_encode(runs)
    assert alone is not None
    for before in BEFORE_A_RUN:
        there = isolated.native_encode([before + run for run in runs])
        assert there is not None and all(row[-len(ids) :] == ids for row, ids in zip(there, alone, strict=True))
    plain, behind = full.native_encode(runs), full.native_encode([" " + run for run in runs])
    assert plain is not None and behind is not None
    assert sum(row[-len(ids) :] == ids for row, ids in zip(behind, plain, strict=True)) < len(runs)  # what the pattern is for


def test_law_04_isolation_changes_no_english_and_no_short_run() -> None:
    full = made()[2]
    texts = [*ENGLISH[:2], *ENGLISH[3:], *SENTENCES, "TATAAA and GATTACAGATT", "MKTAYIAKQRQISFVKSHFSRQL", "  (CCAAT)"]
    assert RUN_FINDER.search(" ".join(texts)) is None
    assert full.isolated().native_encode(texts) == full.native_encode(texts)


def test_law_03_both_libraries_agree_under_isolation_and_with_structure_letters(tmp_path: Path) -> None:
    vocabulary = with_structure("tiktoken")
    write_tokenizer(vocabulary.tokenizer(), tmp_path)
    vocabulary.write_native(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    texts = [*edge_texts(), *structure_texts(), *gene_runs(), *(before + run for before in BEFORE_A_RUN for run in gene_runs()[::7])]
    ids = encode_batch(tokenizer, texts)
    assert ids == vocabulary.native_encode(texts) == open_vocabulary(tmp_path).native_encode(texts)
    assert [decode(tokenizer, row) for row in ids] == texts
    assert tokenizer("ACGT<3di:a>").input_ids == [tokenizer.bos_token_id, *encode_text(tokenizer, "ACGT<3di:a>")]


def test_an_isolated_folder_with_structure_letters_is_read_as_it_was_written(tmp_path: Path) -> None:
    vocabulary = with_structure("tiktoken")
    assert isinstance(vocabulary, TiktokenVocabulary)
    write_tokenizer(vocabulary.tokenizer(), tmp_path)
    vocabulary.write_native(tmp_path)
    again = open_vocabulary(tmp_path)
    assert isinstance(again, TiktokenVocabulary)
    assert (again.ids(), again.pattern, again.letters()) == (vocabulary.ids(), vocabulary.pattern, vocabulary.letters())
    assert again.isolated().pattern == again.pattern == isolating_pattern(LLAMA3_PATTERN)
    swapped = made()[2].isolated().append_letters(STRUCTURE).append(two_new_pieces(made()[2]))
    assert (swapped.ids(), swapped.pattern, swapped.letters()) == (vocabulary.ids(), vocabulary.pattern, vocabulary.letters())
    further = again.append(["WWWWHHHH"])
    assert further.ids()["WWWWHHHH"] == vocabulary.num_ids and further.pattern == again.pattern and further.letters() == again.letters()
    with pytest.raises(InputError, match="give its whole folder"):  # the bare file has a gap where the letters are
        open_vocabulary(tmp_path / "tokenizer.model")
    full = made()[2]
    bare = tmp_path / "bare"
    full.isolated().write_native(bare)
    opened = open_vocabulary(bare / "tokenizer.model")
    assert isinstance(opened, TiktokenVocabulary) and opened.pattern == LLAMA3_PATTERN


def test_law_01_structure_letters_come_behind_all_ids_and_are_no_special_tokens() -> None:
    full, vocabulary = made()[2], with_structure("tiktoken")
    first = full.num_ids
    assert [vocabulary.ids()[token] for token in STRUCTURE] == list(range(first, first + 20)) and vocabulary.num_ids == first + 22
    assert {piece: vocabulary.ids()[piece] for piece in full.ids()} == full.ids()
    tokenizer = vocabulary.tokenizer()
    assert encode_text(tokenizer, "<3di:a><3di:c>") == [first, first + 1] and not {first, first + 1} & set(tokenizer.all_special_ids)
    assert set(STRUCTURE).isdisjoint(vocabulary.pieces())


def test_a_folder_whose_pre_tokenizer_tiktoken_cannot_run_is_refused(tmp_path: Path) -> None:
    full = made()[2]
    tokenizer = full.tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = None
    write_tokenizer(tokenizer, tmp_path)
    full.write_native(tmp_path)
    with pytest.raises(InputError, match="splits text in a way that tiktoken cannot"):
        open_vocabulary(tmp_path)


def test_segment_ids_are_the_ids_of_segment() -> None:
    full = made()[2]
    words = [*genes(80, seed=50), *proteins(80, seed=51), "", "acgt", "A"]
    names, texts = full.ids(), full.piece_texts()
    expected = [number for pieces in full.segment(words) for number in [*(names[piece] for piece in pieces), -1]]
    found = full.segment_ids(words)
    assert found.dtype == np.int32 and found.tolist() == expected and full.segment_ids([]).tolist() == []
    assert "".join("|" if number < 0 else texts[number] for number in found.tolist()) == "|".join(words) + "|"
    assert texts[names["\u0120quokka"]] == " quokka" and 0xC3 not in texts  # the first half of a character has no text


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
    pieces = train_continued_pieces(base, real_genes(300_000), 500, first=N_LADDER).pieces
    dna = base.append(pieces)
    more = train_continued_pieces(dna, real_proteins(100_000), 500, forbid=only_dna_letters).pieces
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
    isolated = full.append_letters(STRUCTURE).isolated()
    runs = [*held_out, *(run for run in real_proteins(150_000)[-80:] if RUN_FINDER.match(run))]
    alone = isolated.native_encode(runs)
    assert alone is not None
    for before in BEFORE_A_RUN:
        there = isolated.native_encode([before + run for run in runs])
        assert there is not None and all(row[-len(ids) :] == ids for row, ids in zip(there, alone, strict=True))
    texts += structure_texts()
    assert encode_batch(isolated.tokenizer(), texts) == isolated.native_encode(texts)
