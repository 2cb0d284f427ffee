"""Bits per letter against the plain sum over each document alone."""

from __future__ import annotations

import math

import pytest
import torch

from llama_gene.errors import InputError
from llama_gene.inference.perplexity import bits_per_letter
from llama_gene.tokenization.tokenizer import encode_text
from tests.tiny_models import tiny_gpt2, tiny_llama, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
DOCUMENTS = ["ACGTACGT", "M", "TTTTAACG" * 6, "αβ and γ", ""]


def plain_bits(model: torch.nn.Module, document: str) -> float:
    """Return -log2 p of a document's tokens and its EOS, given BOS; one row, no padding, no windows."""
    ids = torch.tensor([[0, *encode_text(TOKENIZER, document), 1]])
    with torch.no_grad():
        log_probs = model(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)
    return -float(log_probs[:-1].gather(1, ids[0, 1:, None]).sum()) / math.log(2)


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
@pytest.mark.parametrize("batch_tokens", [1, 64, 16384])
def test_bits_are_those_of_each_document_alone(make, batch_tokens: int) -> None:  # type: ignore[no-untyped-def]
    model = make()
    result = bits_per_letter(model, TOKENIZER, DOCUMENTS, batch_tokens=batch_tokens, max_length=128)
    expected = sum(plain_bits(model, document) for document in DOCUMENTS)
    assert result["bits"] == pytest.approx(expected, rel=1e-5)
    assert result["letters"] == sum(map(len, DOCUMENTS)) and result["bytes"] == result["letters"] + 3
    assert result["tokens"] == result["bytes"] + len(DOCUMENTS)  # one token a byte here, and one EOS a document
    assert result["bits_per_letter"] == pytest.approx(expected / result["letters"], rel=1e-5)


def test_english_is_measured_per_byte() -> None:
    result = bits_per_letter(tiny_llama(), TOKENIZER, ["αβγ"], unit="byte")
    assert result["bits_per_letter"] == result["bits"] / 6


def test_a_model_that_knows_nothing_pays_log2_of_its_vocabulary() -> None:
    model = tiny_llama()
    with torch.no_grad():
        model.lm_head.weight.zero_()
    result = bits_per_letter(model, TOKENIZER, ["ACGT" * 50], max_length=32)
    assert result["bits"] == pytest.approx(201 * math.log2(259))


def test_long_documents_are_windowed_and_every_token_is_scored_once() -> None:
    model = tiny_llama()
    document = "".join("ACGT"[(i * i) % 4] for i in range(100))
    for max_length in (10, 16, 33, 101, 102, 200):
        result = bits_per_letter(model, TOKENIZER, [document], max_length=max_length)
        assert result["tokens"] == 101
    assert bits_per_letter(model, TOKENIZER, [document], max_length=102)["bits"] == pytest.approx(plain_bits(model, document), rel=1e-5)


def test_a_tokenizer_without_bos_starts_documents_with_eos() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = None
    result = bits_per_letter(tiny_gpt2(), tokenizer, ["ACGT"])
    assert result["tokens"] == 5


def test_padding_rows_of_the_vocabulary_take_no_probability() -> None:
    model = tiny_llama(vocab_size=300)
    result = bits_per_letter(model, TOKENIZER, ["ACGT"])
    model.resize_token_embeddings(259)
    assert result["bits"] == pytest.approx(bits_per_letter(model, TOKENIZER, ["ACGT"])["bits"], rel=1e-5)


def test_documents_without_a_letter_are_refused() -> None:
    with pytest.raises(InputError, match="no letter in the documents"):
        bits_per_letter(tiny_llama(), TOKENIZER, [""])
