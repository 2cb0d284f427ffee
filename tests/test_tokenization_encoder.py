"""encoder: the ids of `tokenizers` for every kind of tokenizer, or no encoder at all."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from llama_gene.tokenization import tokenizer as tokenizer_module
from llama_gene.tokenization.encoder import Encoder, read_encoder
from llama_gene.tokenization.tokenizer import encode_arrays, encode_batch, encode_text, load_tokenizer, open_vocabulary
from tests.fixtures.tiny_tokenizers import sentencepiece_like, tiktoken_like
from tests.fixtures.tiny_vocabularies import (
    DATA,
    STRUCTURE,
    edge_texts,
    gene_runs,
    genes,
    needs_data,
    proteins,
    real_genes,
    real_proteins,
    spliced,
    structure_texts,
    with_structure,
    write_gemma,
    write_gpt2,
    write_qwen,
)
from tests.tiny_models import tiny_tokenizer


def written(write: Callable[[Path], object], isolated: bool = False) -> PreTrainedTokenizerFast:
    with TemporaryDirectory() as folder:
        write(Path(folder) / "base")
        vocabulary = open_vocabulary(Path(folder) / "base").append(["ACG", "TACG", "ACGTACG"])
        return (vocabulary.isolated() if isolated else vocabulary).tokenizer()


TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "sentencepiece splice": lambda: load_tokenizer(spliced("sentencepiece").folder),
    "sentencepiece splice with structure letters": lambda: with_structure("sentencepiece").tokenizer(),
    "tiktoken splice": lambda: load_tokenizer(spliced("tiktoken").folder),
    "tiktoken splice, isolated": lambda: spliced("tiktoken").full.isolated().tokenizer(),
    "tiktoken splice, isolated, with structure letters": lambda: with_structure("tiktoken").tokenizer(),
    "gpt2": lambda: written(write_gpt2),
    "gpt2, isolated": lambda: written(write_gpt2, isolated=True),
    "qwen": lambda: written(write_qwen),
    "qwen, isolated": lambda: written(write_qwen, isolated=True),
    "gemma": lambda: written(write_gemma),
    "gemma, isolated": lambda: written(write_gemma, isolated=True),
    "sentencepiece like": sentencepiece_like,
    "tiktoken like": tiktoken_like,
    "no merges but two": lambda: tiny_tokenizer(("AC", "GT")),
}
LETTERS = st.one_of(
    st.text("ACGT", min_size=1, max_size=300),
    st.text("ACGTNacgtn", min_size=1, max_size=120),
    st.text("ACDEFGHIKLMNPQRSTVWYBXZUO", min_size=1, max_size=120),
    st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", min_size=1, max_size=40),
    st.lists(st.sampled_from(["A", "CG", "ACGTACG", "TATAAA", "quokka", "aaaa", "AAAAAAAAAAAAAAAA"]), min_size=1, max_size=40).map("".join),
)
ANY = st.one_of(
    LETTERS,
    st.lists(
        st.sampled_from(
            ["The gene", " binds", "  ", "\n", "</s>", "<0x41>", "é", "😀", "\u2581", "日本", "\x00", "ACGTACGT", *STRUCTURE[:3]]
        )
        | st.text(max_size=6),
        max_size=20,
    ).map("".join),
)


@cache
def opened(name: str) -> tuple[PreTrainedTokenizerFast, Encoder]:
    tokenizer = TOKENIZERS[name]()
    encoder = read_encoder(json.loads(tokenizer.backend_tokenizer.to_str()))
    assert encoder is not None
    return tokenizer, encoder


def reference(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
    return [encode_text(tokenizer, text) for text in texts]


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=60, deadline=None)
@given(texts=st.lists(LETTERS, max_size=4))
def test_genes_have_the_ids_that_tokenizers_gives(name: str, texts: list[str]) -> None:
    tokenizer, encoder = opened(name)
    assert all(encoder.takes(text) for text in texts)
    assert [ids.tolist() for ids in encoder.encode(texts)] == reference(tokenizer, texts)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=60, deadline=None)
@given(texts=st.lists(ANY, max_size=4))
def test_what_is_taken_of_any_text_has_the_ids_that_tokenizers_gives(name: str, texts: list[str]) -> None:
    tokenizer, encoder = opened(name)
    taken = [text for text in texts if encoder.takes(text)]
    found = [None if ids is None else ids.tolist() for ids in encoder.encode(taken)]
    assert all(ids in (None, expected) for ids, expected in zip(found, reference(tokenizer, taken), strict=True))
    if not encoder.letters_only and len(encoder.byte_ids):
        assert None not in found


@pytest.mark.parametrize("name", TOKENIZERS)
def test_long_and_odd_texts_have_the_ids_that_tokenizers_gives(name: str) -> None:
    tokenizer, encoder = opened(name)
    rng = random.Random(4)
    long = ["".join(rng.choices("ACGT", k=20_000)), "A" * 5000, "N" * 700, "ACGTACGTACGT" + "a" * 30 + "ACGT" * 200]
    texts = [*genes(20), *proteins(20), *gene_runs(), *edge_texts(), *structure_texts(), *long]
    taken = [text for text in texts if encoder.takes(text)]
    assert len(taken) > 40
    found = [None if ids is None else ids.tolist() for ids in encoder.encode(taken)]
    assert all(ids in (None, expected) for ids, expected in zip(found, reference(tokenizer, taken), strict=True))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_list_of_merges_is_followed_in_its_order(data: st.DataObject) -> None:
    """Also where a piece has a lower rank than its parts, has several splits, or is out of reach."""
    pieces = sorted({"A", "C", "▁", *data.draw(st.sets(st.text("AC▁", min_size=2, max_size=5), max_size=14))})
    splits = [(piece[:cut], piece[cut:]) for piece in pieces for cut in range(1, len(piece))]
    merges = data.draw(st.permutations([pair for pair in splits if pair[0] in pieces and pair[1] in pieces]))
    backend = Tokenizer(models.BPE(vocab={piece: number for number, piece in enumerate(pieces)}, merges=list(merges)))
    backend.normalizer = normalizers.Replace(" ", "▁")
    encoder = read_encoder(json.loads(backend.to_str()))
    assert encoder is not None
    texts = data.draw(st.lists(st.text("AC ", max_size=40), max_size=5))
    expected = [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]
    assert [ids.tolist() for ids in encoder.encode(texts)] == expected


def changed(change: Callable[[Any], object]) -> dict[str, Any]:
    backend = Tokenizer.from_str(spliced("sentencepiece").full.tokenizer().backend_tokenizer.to_str())
    change(backend)
    content: dict[str, Any] = json.loads(backend.to_str())
    return content


def set_part(name: str, value: object) -> Callable[[Any], object]:
    return lambda backend: setattr(backend, name, value)


@pytest.mark.parametrize(
    "change",
    [
        set_part("normalizer", normalizers.Lowercase()),
        set_part("normalizer", normalizers.Sequence([normalizers.NFC(), normalizers.Replace(" ", "\u2581")])),
        set_part("normalizer", normalizers.Replace(Regex("A+"), "A")),
        set_part("pre_tokenizer", pre_tokenizers.Metaspace()),
        set_part("pre_tokenizer", pre_tokenizers.Whitespace()),
        set_part("pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True)),
        set_part("pre_tokenizer", pre_tokenizers.Split(Regex(r"[A-Z]"), "isolated")),
        set_part("pre_tokenizer", pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(add_prefix_space=False)])),
        lambda backend: setattr(backend.model, "dropout", 0.1),
        lambda backend: setattr(backend.model, "continuing_subword_prefix", "##"),
        lambda backend: backend.add_tokens([AddedToken("ACG", normalized=True)]),
        set_part("model", models.WordLevel({"<unk>": 0}, "<unk>")),
    ],
)
def test_what_is_not_known_has_no_encoder(change: Callable[[Any], object]) -> None:
    assert read_encoder(changed(change)) is None


def test_a_unicode_normal_form_leaves_only_ascii_letters() -> None:
    encoder = read_encoder(changed(set_part("normalizer", normalizers.NFC())))
    assert encoder is not None and encoder.takes("ACGT") and not encoder.takes("é") and not encoder.takes("A C")


def test_a_text_with_an_added_token_is_not_taken() -> None:
    encoder = read_encoder(changed(lambda backend: backend.add_tokens([AddedToken("GATTACA", normalized=False)])))
    assert encoder is not None and encoder.takes("ACGT") and not encoder.takes("CGATTACAC")


def test_a_letter_that_is_nowhere_leaves_its_text_to_tokenizers() -> None:
    backend = Tokenizer(models.BPE(vocab={"<unk>": 0, "A": 1, "C": 2, "AC": 3}, merges=[("A", "C")], unk_token="<unk>"))
    encoder = read_encoder(json.loads(backend.to_str()))
    assert encoder is not None
    found = encoder.encode(["ACA", "ACG", "", "CAC"])
    assert [None if ids is None else ids.tolist() for ids in found] == [[3, 1], None, [], [2, 3]]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    assert encode_with_tables(tokenizer, ["ACA", "ACG", "", "CAC"]) == [[3, 1], [3, 0], [], [2, 3]]


def encode_with_tables(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer_module, "LETTERS_WORTH_TABLES", 0)
        return encode_batch(tokenizer, texts)


@pytest.mark.parametrize("kind", ["sentencepiece", "tiktoken"])
def test_a_batch_with_tables_is_the_batch_without(kind: str) -> None:
    tokenizer = load_tokenizer(spliced(kind).folder)
    texts = [*edge_texts(), "ACGT" * 50, *structure_texts()]
    before = encode_batch(tokenizer, texts)
    assert encode_with_tables(tokenizer, texts) == before == encode_batch(tokenizer, texts)
    arrays = encode_arrays(tokenizer, texts)
    assert {ids.dtype for ids in arrays} == {np.dtype(np.int32)} and [ids.tolist() for ids in arrays] == before


def test_a_tokenizer_that_is_changed_gets_new_tables() -> None:
    tokenizer = spliced("sentencepiece").full.tokenizer()
    texts = ["ACGTTGCA" * 20, "a gene"]
    assert encode_with_tables(tokenizer, texts) == reference(tokenizer, texts)
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    assert encode_with_tables(tokenizer, texts) == reference(tokenizer, texts)
    tokenizer.add_tokens(["GTTG"])
    assert encode_with_tables(tokenizer, texts) == reference(tokenizer, texts)
    piece = spliced("sentencepiece").dna_pieces[-1]
    tokenizer.add_tokens([piece])  # a piece already: no new id, but now it is cut out of every text
    texts.append("A" + piece * 5)
    assert encode_with_tables(tokenizer, texts) == reference(tokenizer, texts)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Split("T", "isolated")
    assert encode_with_tables(tokenizer, texts) == reference(tokenizer, texts)


@needs_data
@pytest.mark.parametrize("name", ["llama2", "llama3", "gene_eng_merged", "dnahlm_merged_dna_eng"])
def test_real_tokenizers_and_real_texts(name: str) -> None:
    assert DATA is not None
    tokenizer = load_tokenizer(Path(DATA) / "tokenizers" / name / "tokenizer.model")
    encoder = read_encoder(json.loads(tokenizer.backend_tokenizer.to_str()))
    assert encoder is not None
    texts = [*real_genes(100_000), *real_proteins(50_000), *edge_texts()]
    taken = [text for text in texts if encoder.takes(text)]
    assert len(taken) > 200
    assert [ids.tolist() for ids in encoder.encode(taken) if ids is not None] == encode_batch(tokenizer, taken)
