"""tokenizer: loading, encoding text as text, decoding it whole, and the vocabulary's fingerprint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_gene.errors import InputError
from llama_gene.tokenization.tokenizer import (
    decode,
    encode_batch,
    encode_text,
    load_tokenizer,
    open_vocabulary,
    vocabulary_fingerprint,
    write_tokenizer,
)
from tests.fixtures.tiny_vocabularies import STRUCTURE, edge_texts, spliced, with_structure, write_ranks, write_sentencepiece

KINDS = ["sentencepiece", "tiktoken"]
WORDS = ["The gene", " binds", "  ", "\n", "</s>", "<s>", "<|eot_id|>", "<|begin_of_text|>", "é", "😀", "NNNN", "TATAAA", "mktay"]
TEXTS = st.one_of(
    st.text("ACGT", max_size=80),
    st.text("ACGTNacgtn", max_size=80),
    st.text("ACDEFGHIKLMNPQRSTVWYBXZUO*-", max_size=80),
    st.lists(st.sampled_from(WORDS) | st.text("ACGT", max_size=20), max_size=8).map("".join),
    st.text(max_size=40),
).filter(lambda text: "\u2581" not in text)

STRUCTURE_TEXTS = (
    st.lists(
        st.sampled_from([*WORDS, *STRUCTURE, "<3di:", "<3di:x>", ">", " ", "'"]) | st.text("ACGTN", max_size=30) | st.text(max_size=5),
        max_size=10,
    )
    .map("".join)
    .filter(lambda text: not any(letter == "\u2581" or letter >= "\U000f0000" for letter in text))
)  # those stand for others


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
def test_law_02_decode_of_encode_is_the_text(kind: str, text: str) -> None:
    tokenizer = load_once(kind)
    assert decode(tokenizer, encode_text(tokenizer, text)) == text


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=200, deadline=None)
@given(texts=st.lists(TEXTS, max_size=4))
def test_law_03_both_libraries_agree_on_any_text(kind: str, texts: list[str]) -> None:
    assert encode_batch(load_once(kind), texts) == spliced(kind).full.native_encode(texts)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=200, deadline=None)
@given(text=STRUCTURE_TEXTS)
def test_law_02_and_03_hold_for_structure_letters_and_isolation_on_any_text(kind: str, text: str) -> None:
    tokenizer = load_with_structure(kind)
    ids = encode_text(tokenizer, text)
    assert decode(tokenizer, ids) == text and [ids] == with_structure(kind).native_encode([text])


@pytest.mark.parametrize("kind", KINDS)
def test_law_02_text_that_spells_a_special_token_stays_text(kind: str) -> None:
    tokenizer = load_once(kind)
    special = {tokenizer.convert_tokens_to_ids(name) for name in (tokenizer.bos_token, tokenizer.eos_token)}
    for name in (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token or "<|eot_id|>"):
        text = f"ACGT{name} and {name}"
        ids = encode_text(tokenizer, text)
        assert not special & set(ids) and len(ids) > 5
        assert encode_batch(tokenizer, [text]) == [ids] and decode(tokenizer, ids) == text
        assert special & set(tokenizer(f"{tokenizer.eos_token}").input_ids)  # and outside these calls it still is a special token


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_gives_what_single_calls_give(kind: str) -> None:
    tokenizer = load_once(kind)
    assert encode_batch(tokenizer, edge_texts()) == [encode_text(tokenizer, text) for text in edge_texts()]


def test_an_earlier_call_with_truncation_cuts_nothing_here() -> None:
    tokenizer = load_tokenizer(spliced("tiktoken").folder)
    whole = encode_text(tokenizer, "ACGTTGCA" * 30)
    tokenizer("ACGT", truncation=True, max_length=2)
    tokenizer.backend_tokenizer.enable_padding(length=500)
    assert encode_text(tokenizer, "ACGTTGCA" * 30) == whole


@pytest.mark.parametrize("kind", KINDS)
def test_fingerprint_survives_saving_and_ignores_the_chat_template(kind: str, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(spliced(kind).folder)
    before = vocabulary_fingerprint(tokenizer)
    tokenizer.chat_template = "{{ other }}"
    tokenizer("ACGT", truncation=True, max_length=3)
    tokenizer.save_pretrained(tmp_path)
    assert before == vocabulary_fingerprint(tokenizer) == vocabulary_fingerprint(load_tokenizer(tmp_path))
    assert before == vocabulary_fingerprint(spliced(kind).full.tokenizer())


def test_fingerprint_knows_pieces_merge_order_pattern_and_specials() -> None:
    splice = spliced("tiktoken")
    swapped = splice.base.append([splice.dna_pieces[1], splice.dna_pieces[0]])
    plain = splice.base.append(splice.dna_pieces[:2])
    other_pattern = plain.tokenizer()
    other_pattern.backend_tokenizer.pre_tokenizer = None
    more_specials = plain.tokenizer()
    more_specials.add_special_tokens({"pad_token": "<pad>"})
    prints = [vocabulary_fingerprint(item) for item in (plain.tokenizer(), swapped.tokenizer(), other_pattern, more_specials)]
    assert len(set(prints)) == 4 and prints[0] == vocabulary_fingerprint(plain.tokenizer())


def test_fingerprint_knows_isolation_and_structure_letters(tmp_path: Path) -> None:
    full = spliced("tiktoken").full
    variants = [full, full.isolated(), full.append_letters(["<3di:a>"]), full.append_letters(["<3di:c>"])]
    variants += [spliced("sentencepiece").full, spliced("sentencepiece").full.append_letters(["<3di:a>"])]
    for number, vocabulary in enumerate(variants):
        write_tokenizer(vocabulary.tokenizer(), tmp_path / str(number))
        vocabulary.write_native(tmp_path / str(number))
    prints = [vocabulary_fingerprint(vocabulary.tokenizer()) for vocabulary in variants]
    assert len(set(prints)) == 6
    assert prints == [vocabulary_fingerprint(load_tokenizer(tmp_path / str(number))) for number in range(6)]
    assert prints == [vocabulary_fingerprint(open_vocabulary(tmp_path / str(number)).tokenizer()) for number in range(6)]


@pytest.mark.parametrize("write", [write_sentencepiece, write_ranks])
def test_a_bare_model_is_known_by_its_content(write: object, tmp_path: Path) -> None:
    path = write(tmp_path / "tokenizer.model")  # type: ignore[operator]
    renamed = shutil.copy(path, tmp_path / "renamed.bin")
    for source in (path, tmp_path, str(renamed)):
        tokenizer = load_tokenizer(source)
        assert tokenizer.bos_token_id is not None and tokenizer("ACGT").input_ids[0] == tokenizer.bos_token_id
        assert decode(tokenizer, encode_text(tokenizer, " two  spaces ")) == " two  spaces "


def test_missing_and_unreadable_tokenizers_are_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "tokenizer.json").write_text('{"model": ')
    for source in (tmp_path / "nothing", "./nothing/here", tmp_path / "empty", broken):
        with pytest.raises(InputError) as caught:
            load_tokenizer(source)
        assert "\n" not in str(caught.value) and str(Path(source)) in str(caught.value)


def test_a_hub_id_gives_its_own_model_and_says_what_to_set_when_it_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sentencepiece(tmp_path / "tokenizer.model")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, allow_patterns: str(tmp_path))
    assert open_vocabulary("somebody/a-base").kind == "sentencepiece"

    def refuse(name: str, allow_patterns: list[str]) -> str:
        raise OSError("gated")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(InputError, match=r"HF_TOKEN.*HF_HOME.*HF_ENDPOINT"):
        open_vocabulary("somebody/a-base")


def test_a_pad_token_that_only_the_json_holds_is_refused(tmp_path: Path) -> None:
    base = spliced("sentencepiece").base
    tokenizer = base.tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    write_tokenizer(tokenizer, tmp_path)
    base.write_native(tmp_path)
    with pytest.raises(InputError, match=f"'<pad>' has id {base.num_ids} in tokenizer.json and none in tokenizer.model"):
        open_vocabulary(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_json_of_fewer_pieces_than_the_model_is_refused(kind: str, tmp_path: Path) -> None:
    splice = spliced(kind)
    write_tokenizer(splice.dna.tokenizer(), tmp_path)
    splice.full.write_native(tmp_path)
    piece, number = splice.protein_pieces[0], splice.dna.num_ids
    with pytest.raises(InputError, match=f"'{piece}' has id none in tokenizer.json and {number} in tokenizer.model"):
        open_vocabulary(tmp_path)
    assert open_vocabulary(tmp_path / "tokenizer.model").num_ids == splice.full.num_ids


@pytest.mark.parametrize(
    ("content", "message"),
    [('{"model": {"type": "Unigram", "vocab": [["a", 0.0]]}}', "is not a BPE"), ("[]", "is not a BPE"), ('{"model"', "line 1")],
)
def test_a_tokenizer_json_of_another_kind_beside_the_model_is_one_line(content: str, message: str, tmp_path: Path) -> None:
    spliced("sentencepiece").base.write_native(tmp_path)
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        open_vocabulary(tmp_path)
    assert str(tmp_path / "tokenizer.json") in str(caught.value) and "\n" not in str(caught.value)


def test_a_base_that_is_neither_kind_is_one_line(tmp_path: Path) -> None:
    contents = {
        "a.png": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
        "b.txt": b"once upon a time\n",
        "c.json": b'{"a": 0}',
        "d.model": b"\xff" * 99,
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="is neither a rank file nor a whole SentencePiece model") as caught:
            open_vocabulary(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_written_is_one_line_and_nothing_half_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "taken" / "tokenizer.json" / "inside").mkdir(parents=True)
    tokenizer = spliced("sentencepiece").base.tokenizer()
    for folder in ("file", "taken"):
        with pytest.raises(InputError, match="cannot be written") as caught:
            write_tokenizer(tokenizer, tmp_path / folder)
        assert str(tmp_path / folder) in str(caught.value) and "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "inside", "taken", "tokenizer.json"]


def test_a_read_only_folder_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *arguments: object, **options: object) -> int:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "write_text", refuse)  # root, who runs tests in containers, may write anywhere
    with pytest.raises(InputError, match=f"{tmp_path}.* cannot be written: Permission denied"):
        write_tokenizer(spliced("sentencepiece").base.tokenizer(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_config_holds_what_autotokenizer_needs_and_no_more(tmp_path: Path) -> None:
    write_tokenizer(spliced("sentencepiece").full.tokenizer(), tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast" and config["clean_up_tokenization_spaces"] is False
    assert (config["bos_token"], config["eos_token"], config["unk_token"]) == ("<s>", "</s>", "<unk>")
    assert "add_bos_token" not in config and "pad_token" not in config


def load_once(kind: str, loaded: dict[str, object] = {}) -> object:  # noqa: B006 (one load for all examples)
    """Return the reloaded tokenizer of a kind."""
    if kind not in loaded:
        loaded[kind] = load_tokenizer(spliced(kind).folder)
    return loaded[kind]


def load_with_structure(kind: str, loaded: dict[str, object] = {}) -> object:  # noqa: B006 (one load for all examples)
    """Return the reloaded tokenizer of a kind, 3Di letters in it."""
    if kind not in loaded:
        with TemporaryDirectory() as folder:
            write_tokenizer(with_structure(kind).tokenizer(), Path(folder))
            loaded[kind] = load_tokenizer(folder)
    return loaded[kind]
