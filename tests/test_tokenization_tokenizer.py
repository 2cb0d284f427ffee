"""tokenizer: loading, encoding text as text, decoding it whole, and the vocabulary's fingerprint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

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
from tests.fixtures.tiny_vocabularies import edge_texts, spliced, write_ranks, write_sentencepiece

KINDS = ["sentencepiece", "tiktoken"]
WORDS = ["The gene", " binds", "  ", "\n", "</s>", "<s>", "<|eot_id|>", "<|begin_of_text|>", "é", "😀", "NNNN", "TATAAA", "mktay"]
TEXTS = st.one_of(
    st.text("ACGT", max_size=80),
    st.text("ACGTNacgtn", max_size=80),
    st.text("ACDEFGHIKLMNPQRSTVWYBXZUO*-", max_size=80),
    st.lists(st.sampled_from(WORDS) | st.text("ACGT", max_size=20), max_size=8).map("".join),
    st.text(max_size=40),
).filter(lambda text: "\u2581" not in text)


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
