"""sentencepiece_splice: what stays, what is new, and that sentencepiece and transformers agree id for id."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from transformers import AutoTokenizer

from llama_gene.errors import InputError
from llama_gene.tokenization.bpe import reference_encode
from llama_gene.tokenization.continued import N_LADDER, train_continued_pieces
from llama_gene.tokenization.sentencepiece_splice import SentencePieceVocabulary, private_character
from llama_gene.tokenization.tokenizer import decode, encode_batch, open_vocabulary, write_tokenizer
from tests.fixtures.tiny_vocabularies import (
    DATA,
    STRUCTURE,
    edge_texts,
    genes,
    needs_data,
    only_dna_letters,
    proteins,
    real_genes,
    real_proteins,
    spliced,
    structure_texts,
    with_structure,
    write_sentencepiece,
)


def made() -> tuple[SentencePieceVocabulary, SentencePieceVocabulary, SentencePieceVocabulary]:
    splice = spliced("sentencepiece")
    assert isinstance(splice.base, SentencePieceVocabulary)
    assert isinstance(splice.dna, SentencePieceVocabulary) and isinstance(splice.full, SentencePieceVocabulary)
    return splice.base, splice.dna, splice.full


def test_law_01_base_pieces_scores_types_and_specials_are_unchanged() -> None:
    base, _, full = made()
    assert [piece.SerializeToString() for piece in full.proto.pieces[: base.num_ids]] == [
        piece.SerializeToString() for piece in base.proto.pieces
    ]
    assert full.proto.normalizer_spec == base.proto.normalizer_spec
    tokenizer = AutoTokenizer.from_pretrained(spliced("sentencepiece").folder)
    assert (tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert all(tokenizer.convert_tokens_to_ids(piece) == number for piece, number in base.ids().items())


def test_new_scores_fall_with_id_below_the_ordinary_ones_in_float32() -> None:
    base, dna, full = made()
    lowest = min(piece.score for piece in base.proto.pieces if piece.score > -1e8)
    scores = np.array([piece.score for piece in full.proto.pieces[base.num_ids :]], dtype=np.float32)
    assert full.num_ids == base.num_ids + 300 and dna.num_ids == base.num_ids + 150
    assert scores[0] == lowest - 1 and (np.diff(scores) == -1).all()  # not below the multi-space pieces at -1e9


def test_law_03_every_new_piece_is_reachable_in_sentencepiece_itself() -> None:
    base, _, full = made()
    new = [piece.piece for piece in full.proto.pieces[base.num_ids :]]
    assert full.segment(new) == [[piece] for piece in new]


def test_law_03_sentencepiece_and_transformers_agree_after_reload() -> None:
    splice = spliced("sentencepiece")
    native = sentencepiece.SentencePieceProcessor(model_file=str(splice.folder / "tokenizer.model"))
    tokenizer = AutoTokenizer.from_pretrained(splice.folder)
    texts = edge_texts()
    assert encode_batch(tokenizer, texts) == native.encode(texts)
    assert tokenizer("ACGT").input_ids == [1, *native.encode("ACGT")]
    assert tokenizer.chat_template == "{{ messages }}"


def test_law_03_a_model_config_beside_it_changes_nothing(tmp_path: Path) -> None:
    full = made()[2]
    write_tokenizer(full.tokenizer(), tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama", "vocab_size": 800}')
    texts = edge_texts()
    assert encode_batch(AutoTokenizer.from_pretrained(tmp_path), texts) == full.native_encode(texts)


def test_law_04_adding_protein_changes_no_dna_encoding() -> None:
    _, dna, full = made()
    texts = [*genes(200, seed=21), "N" * 37, "ACGTNNNNACNGT", "acgtnACGT", *(text.lower() for text in genes(20, seed=22))]
    assert full.native_encode(texts) == dna.native_encode(texts)
    assert full.native_encode(["MKTAYIAKQRNTAGC"]) != dna.native_encode(["MKTAYIAKQRNTAGC" * 20])


def test_the_written_model_is_the_base_when_nothing_is_added(tmp_path: Path) -> None:
    path = write_sentencepiece(tmp_path / "base.model")
    SentencePieceVocabulary.read(path).append([]).write_native(tmp_path)
    assert (tmp_path / "tokenizer.model").read_bytes() == path.read_bytes()


def test_law_01_structure_letters_come_behind_all_ids_and_change_nothing_before_them() -> None:
    full, vocabulary = made()[2], with_structure("sentencepiece")
    assert isinstance(vocabulary, SentencePieceVocabulary)
    first = full.num_ids
    assert vocabulary.letters() == {token: first + place for place, token in enumerate(STRUCTURE)} and vocabulary.num_ids == first + 22
    assert [piece.SerializeToString() for piece in vocabulary.proto.pieces[:first]] == [
        piece.SerializeToString() for piece in full.proto.pieces
    ]
    scores = [piece.score for piece in full.proto.pieces[-1:]] + [piece.score for piece in vocabulary.proto.pieces[-2:]]
    assert scores == [scores[0], scores[0] - 1, scores[0] - 2]  # the step behind the letters goes on where the last one ended
    assert vocabulary.native_encode(edge_texts()) == full.native_encode(edge_texts()) and set(STRUCTURE).isdisjoint(vocabulary.pieces())


def test_law_03_both_libraries_agree_on_structure_letters_after_reload(tmp_path: Path) -> None:
    vocabulary = with_structure("sentencepiece")
    write_tokenizer(vocabulary.tokenizer(), tmp_path)
    vocabulary.write_native(tmp_path)
    native = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    texts = [*edge_texts(), *structure_texts()]
    ids = encode_batch(tokenizer, texts)
    assert ids == native.encode(texts) == open_vocabulary(tmp_path).native_encode(texts)
    assert [decode(tokenizer, row) for row in ids] == texts == native.decode(ids)
    first = made()[2].num_ids
    assert encode_batch(tokenizer, ["<3di:a><3di:c>"])[0][1:] == [first, first + 1]  # behind the word-start mark
    assert open_vocabulary(tmp_path).ids() == vocabulary.ids()


def test_sentencepiece_cannot_isolate_gene_runs() -> None:
    with pytest.raises(InputError, match="SentencePiece has no pre-tokenizer"):
        made()[2].isolated()


def test_the_private_character_of_a_letter_is_given_by_its_id_and_never_twice() -> None:
    characters = [ord(private_character(number)) for number in range(131_068)]
    assert len(set(characters)) == 131_068 and (characters[0], characters[65_533], characters[65_534]) == (0xF0000, 0xFFFFD, 0x100000)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["<3di:A>"], "no letter of a namespaced alphabet"),
        (["<s>"], "no letter of a namespaced alphabet"),
        (["<3di:a>", "<3di:a>"], "twice in the list"),
        (["<ss3:h>", "ACGT"], "no letter of a namespaced alphabet"),
    ],
)
def test_tokens_that_are_no_letters_are_refused(tokens: list[str], message: str) -> None:
    for vocabulary in (made()[0], spliced("tiktoken").base):
        with pytest.raises(InputError, match=message):
            vocabulary.append_letters(tokens)
    with pytest.raises(InputError, match="already in the base"):
        with_structure("sentencepiece").append_letters(["<3di:a>"])


def test_other_user_defined_pieces_are_refused(tmp_path: Path) -> None:
    vocabulary = SentencePieceVocabulary.read(write_sentencepiece(tmp_path / "base.model"))
    vocabulary.proto.pieces.add(piece="<image>", score=0.0, type=4)
    vocabulary.write_native(tmp_path)
    with pytest.raises(InputError, match="holds user-defined or unused pieces"):
        open_vocabulary(tmp_path / "tokenizer.model")


def test_segment_ids_are_the_ids_of_segment_and_bytes_have_no_text() -> None:
    full = made()[2]
    words = [*genes(80, seed=50), *proteins(80, seed=51), "", "acgt", "A"]
    names, texts = full.ids(), full.piece_texts()
    expected = [number for pieces in full.segment(words) for number in [*(names[piece] for piece in pieces), -1]]
    found = full.segment_ids(words)
    assert found.dtype == np.int32 and found.tolist() == expected and full.segment_ids([]).tolist() == []
    assert "".join("|" if number < 0 else texts[number] for number in found.tolist()) == "|".join(words) + "|"
    assert set(full.segment_ids(["é"]).tolist()).isdisjoint(texts) and 0 not in texts and texts[names["\u2581the"]] == " the"


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        (["<s>"], "looks like a special token"),
        (["<0x41>"], "looks like a special token"),
        (["AC GT"], "not a run of letters"),
        (["\u2581AC"], "not a run of letters"),
        ([""], "not a run of letters"),
        (["ACGTACGTACGT", "ACGTACGTACGT"], "twice in the list"),
        (["A"], "already in the base"),
    ],
)
def test_pieces_that_would_harm_the_base_are_refused(pieces: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        made()[0].append(pieces)


def test_a_corrupted_or_foreign_model_is_one_clear_line(tmp_path: Path) -> None:
    whole = write_sentencepiece(tmp_path / "base.model").read_bytes()
    for number, content in enumerate((whole[: len(whole) // 2], b"\x00\x01\x02" * 50, b"", b"not a model at all\n")):
        path = tmp_path / f"{number}.model"
        path.write_bytes(content)
        with pytest.raises(InputError) as caught:
            open_vocabulary(path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_unigram_model_is_refused(tmp_path: Path) -> None:
    path = write_sentencepiece(tmp_path / "base.model")
    vocabulary = SentencePieceVocabulary.read(path)
    vocabulary.proto.trainer_spec.model_type = 1
    path.write_bytes(vocabulary.proto.SerializeToString())
    with pytest.raises(InputError, match="is not a BPE"):
        SentencePieceVocabulary.read(path)


@needs_data
def test_law_03_llama_2_spliced_with_real_genes_agrees_and_is_reachable(tmp_path: Path) -> None:
    path = Path(str(DATA)) / "tokenizers/llama2/tokenizer.model"
    base = open_vocabulary(path)
    pieces = train_continued_pieces(base, real_genes(300_000), 500, first=N_LADDER).pieces
    dna = base.append(pieces)
    more = train_continued_pieces(dna, real_proteins(100_000), 500, forbid=only_dna_letters).pieces
    full = dna.append(more)
    assert (base.num_ids, full.num_ids) == (32_000, 33_000)
    assert all(reference_encode(piece, full.rank) == [piece] for piece in pieces + more)
    write_tokenizer(full.tokenizer(), tmp_path)
    texts = [*edge_texts(), *real_genes(400_000)[300:], *real_proteins(150_000)[-80:]]
    assert encode_batch(AutoTokenizer.from_pretrained(tmp_path), texts) == full.native_encode(texts)
    lettered = full.append_letters(STRUCTURE).append(["KHKHKH"])
    texts += structure_texts()
    assert encode_batch(lettered.tokenizer(), texts) == lettered.native_encode(texts)
    held_out = real_genes(400_000)[300:]
    assert full.native_encode(held_out) == dna.native_encode(held_out)
