"""Vectors against plain forward passes, windows, spans, and every kind of model that can be read."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    BertConfig,
    BertModel,
    EsmConfig,
    EsmForMaskedLM,
    EsmTokenizer,
    LlamaForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

from llama_gene.errors import ConfigError, InputError, MissingFileError
from llama_gene.inference.embeddings import Reader, choose_layers, embed, load_reader, plan_windows, token_spans
from llama_gene.tokenization.tokenizer import encode_text
from tests.fixtures.tiny_tokenizers import sentencepiece_like, tiktoken_like
from tests.tiny_models import save_adapter, save_model, tiny_gpt2, tiny_llama, tiny_mistral, tiny_tokenizer

RNG = random.Random(0)
TEXTS = ["".join(RNG.choices("ACGT", k=k)) for k in (5, 120, 17, 1, 40)]
ESM_TOKENS = ["<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<null_1>", "<mask>"]


def save_esm(folder: Path) -> Path:
    """Write an encoder of residues with the tokenizer of ESM-2, which is written in Python."""
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(ESM_TOKENS))
    EsmTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = EsmConfig(
        vocab_size=len(ESM_TOKENS), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, pad_token_id=1,
        mask_token_id=32, max_position_embeddings=66, position_embedding_type="absolute", initializer_range=0.2,
    )  # fmt: skip
    EsmForMaskedLM(config).save_pretrained(folder)
    return folder


def save_bert(folder: Path) -> Path:
    """Write an encoder with a byte-level tokenizer that adds no special token."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=259, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, max_position_embeddings=64,
        initializer_range=0.2,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def save_t5(folder: Path) -> Path:
    """Write an encoder-decoder."""
    torch.manual_seed(0)
    config = T5Config(vocab_size=259, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0)
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reader]:
    folder = tmp_path_factory.mktemp("readers")
    for name, model in (("llama", tiny_llama()), ("gpt2", tiny_gpt2()), ("mistral", tiny_mistral())):
        save_model(model, tiny_tokenizer(), folder / name)
    save_bert(folder / "bert")
    save_t5(folder / "t5")
    save_esm(folder / "esm")
    places = {name: folder / name for name in ("llama", "gpt2", "mistral", "bert", "t5", "esm")}
    return {name: load_reader(place) for name, place in {**places, "adapter": save_adapter(folder / "adapter")}.items()}


ALL = ("llama", "gpt2", "mistral", "adapter", "bert", "t5", "esm")


def states(reader: Reader, text: str, layer: int) -> np.ndarray[Any, Any]:
    """Return a layer's vectors of a text's own tokens, from a plain forward pass."""
    tokenizer = reader.tokenizer
    ids = encode_text(tokenizer, text) if hasattr(tokenizer, "backend_tokenizer") else tokenizer.convert_tokens_to_ids(list(text))
    with torch.no_grad():
        output = reader.model(input_ids=torch.tensor([[*reader.prefix, *ids, *reader.suffix]]), output_hidden_states=True)
    first = len(reader.prefix)
    found: np.ndarray[Any, Any] = output.hidden_states[layer][0, first : first + len(ids)].numpy()
    return found


def test_what_a_model_reads_around_a_sequence(readers: dict[str, Reader]) -> None:
    around = {name: (reader.prefix, reader.suffix, reader.causal, reader.max_tokens) for name, reader in readers.items()}
    assert around["llama"] == around["adapter"] == ([0], [], True, 1024)
    assert around["gpt2"] == ([0], [], True, 256)
    assert around["bert"] == ([], [], False, 64)
    assert around["t5"] == ([], [], False, None)
    assert around["esm"] == ([0], [2], False, 64)  # 66 positions, two of them before and at the padding index


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("layer", [-1, 0, 1])
def test_vectors_are_those_of_a_plain_forward_pass(readers: dict[str, Reader], name: str, layer: int) -> None:
    reader = readers[name]
    texts = [text for text in TEXTS if len(text) <= 40]
    expected = [states(reader, text, layer) for text in texts]
    for pooling, pool in (("mean", lambda x: x.mean(0, keepdims=True)), ("last", lambda x: x[-1:]), ("residue", lambda x: x)):
        found = list(embed(reader, texts, pooling, [layer]))  # type: ignore[arg-type]
        for item, vectors in zip(found, expected, strict=True):
            np.testing.assert_allclose(item.vectors, pool(vectors), atol=1e-5)  # type: ignore[no-untyped-call]
            assert (item.tokens, item.windows, item.is_last) == (len(vectors), 1, True)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_law_08_a_vector_does_not_depend_on_batch_mates_order_or_batch_tokens(readers: dict[str, Reader], name: str, pooling: Any) -> None:
    reader = readers[name]
    alone = {text: next(embed(reader, [text], pooling, max_length=32)).vectors for text in TEXTS}
    for batch_tokens in (1, 70, 16384):
        texts = random.Random(batch_tokens).sample(TEXTS, len(TEXTS))
        for text, item in zip(texts, embed(reader, texts, pooling, max_length=32, batch_tokens=batch_tokens), strict=True):
            np.testing.assert_allclose(item.vectors, alone[text], atol=1e-5)


def test_between_two_vectors_the_caller_may_train(readers: dict[str, Reader]) -> None:
    found = embed(readers["llama"], TEXTS)
    next(found)
    assert not torch.is_inference_mode_enabled() and torch.ones(1, requires_grad=True).sum().requires_grad
    assert len(list(found)) == len(TEXTS) - 1


def test_a_classifier_is_read_without_its_head(readers: dict[str, Reader], tmp_path: Path) -> None:
    model = LlamaForSequenceClassification(tiny_llama().config)
    model.model.load_state_dict(tiny_llama().model.state_dict())
    reader = load_reader(save_model(model, tiny_tokenizer(), tmp_path / "classifier"))
    for item, other in zip(embed(reader, TEXTS), embed(readers["llama"], TEXTS), strict=True):
        np.testing.assert_array_equal(item.vectors, other.vectors)


def test_several_layers_are_concatenated_or_averaged(readers: dict[str, Reader]) -> None:
    reader = readers["llama"]
    layers = [next(embed(reader, TEXTS[:1], layers=[layer])).vectors for layer in (0, -1)]
    both = next(embed(reader, TEXTS[:1], layers=[0, -1])).vectors
    np.testing.assert_allclose(both, np.concatenate(layers, 1), atol=1e-5)
    mean = next(embed(reader, TEXTS[:1], layers=[0, -1], combine="mean")).vectors
    np.testing.assert_allclose(mean, (layers[0] + layers[1]) / 2, atol=1e-5)


@given(st.integers(1, 60), st.integers(1, 20), st.booleans())
def test_windows_hold_each_token_and_own_it_once(num_tokens: int, room: int, causal: bool) -> None:
    plan = plan_windows(num_tokens, room, causal)
    assert [token for *_, own, own_end in plan for token in range(own, own_end)] == list(range(num_tokens))
    for begin, end, own, own_end in plan:
        assert 0 <= begin <= own < own_end <= end <= num_tokens and end - begin == min(room, num_tokens)
        if causal and room > 1:
            assert own == 0 or own - begin >= room // 2


@pytest.mark.parametrize("name", ["llama", "esm"])
def test_long_sequences_are_windowed_and_pooled_by_tokens_counted_once(readers: dict[str, Reader], name: str) -> None:
    reader, text, room = readers[name], TEXTS[1], 18 - len(readers[name].prefix) - len(readers[name].suffix)
    plan = plan_windows(len(text), room, reader.causal)
    parts = [states(reader, text[begin:end], -1)[own - begin : own_end - begin] for begin, end, own, own_end in plan]
    expected = np.concatenate(parts)
    assert expected.shape == (120, 32)
    [mean] = embed(reader, [text], max_length=18)
    np.testing.assert_allclose(mean.vectors[0], expected.mean(0), atol=1e-5)
    assert (mean.tokens, mean.windows) == (120, len(plan)) and len(plan) > 10
    pieces = list(embed(reader, [text], "residue", max_length=18))
    np.testing.assert_allclose(np.concatenate([piece.vectors for piece in pieces]), expected, atol=1e-5)
    assert [piece.is_last for piece in pieces] == [False] * (len(plan) - 1) + [True]
    assert [piece.first_token for piece in pieces] == [own for *_, own, _ in plan]


def test_small_groups_change_nothing(readers: dict[str, Reader], monkeypatch: pytest.MonkeyPatch) -> None:
    before = [item.vectors for item in embed(readers["llama"], TEXTS, max_length=32)]
    monkeypatch.setattr("llama_gene.inference.embeddings.GROUP_TOKENS", 40)
    taken = 0

    def texts() -> Any:
        nonlocal taken
        for text in TEXTS:
            taken += 1
            yield text

    found = embed(readers["llama"], texts(), max_length=32)
    first = next(found)
    assert taken < len(TEXTS)  # the first vector is there before the last text is asked for
    for item, vectors in zip([first, *found], before, strict=True):
        np.testing.assert_allclose(item.vectors, vectors, atol=1e-5)


@pytest.mark.parametrize("make", [sentencepiece_like, tiktoken_like, tiny_tokenizer])
@given(text=st.text("ACGTNacgt", min_size=1, max_size=80))
def test_spans_spell_the_sequence(make: Any, text: str) -> None:
    tokenizer = make()
    reader = Reader(None, tokenizer, [], [], True, None, 0, 0)
    spans = token_spans(reader, text)
    assert "".join(text[start:end] for start, end in spans) == text
    assert len(spans) == len(encode_text(tokenizer, text))


def test_spans_of_a_tokenizer_in_python(readers: dict[str, Reader]) -> None:
    assert token_spans(readers["esm"], "MKV") == [(0, 1), (1, 2), (2, 3)]


def test_layers_are_counted_from_either_end(readers: dict[str, Reader]) -> None:
    assert choose_layers(readers["llama"], [-1, 0, 2, -3]) == [2, 0, 2, 0]
    for layer in (3, -4):
        with pytest.raises(ConfigError, match=f"layer {layer}; expected 0 to 2, or -1 to -3"):
            choose_layers(readers["llama"], [layer])
    with pytest.raises(ConfigError, match="no layer is named"):
        choose_layers(readers["llama"], [])


def test_what_cannot_be_read_is_refused(readers: dict[str, Reader], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no room for a sequence"):
        next(embed(readers["esm"], ["MKV"], max_length=2))
    with pytest.raises(InputError, match="sequence 2 has no token"):
        list(embed(readers["llama"], ["ACGT", ""]))
    with pytest.raises(MissingFileError):
        load_reader(tmp_path / "gone")
    with pytest.raises(InputError, match=r"holds neither adapter_config.json nor config.json"):
        (tmp_path / "empty").mkdir()
        load_reader(tmp_path / "empty")


def test_an_encoder_without_some_of_its_weights_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save_bert(tmp_path / "bert")
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="lacks 1 weights, such as encoder.layer.1.output.dense.weight"):
        load_reader(folder)
