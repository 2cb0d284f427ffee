"""Growing embeddings: old rows keep their bits, new rows are means, padding rows never stand for a piece."""

from __future__ import annotations

import pytest
import torch

from llama_gene.errors import MismatchError
from llama_gene.models.embeddings import base_pieces_of, grow_embeddings
from tests.fixtures.tiny_vocabularies import spliced
from tests.tiny_models import tiny_gpt2, tiny_llama

KINDS = ["sentencepiece", "tiktoken"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_law_05_new_rows_are_means_and_old_rows_keep_their_bits(kind: str, tied: bool) -> None:
    base, full = spliced(kind).base.tokenizer(), spliced(kind).full.tokenizer()
    model = tiny_llama(len(base), tied=tied)
    before = [model.get_input_embeddings().weight.clone(), model.get_output_embeddings().weight.clone()]
    assert grow_embeddings(model, full, base) == 300
    after = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]
    assert model.config.vocab_size == len(full) == after[0].shape[0] == after[1].shape[0]
    assert (after[0] is after[1]) == tied == model.config.tie_word_embeddings
    number = spliced(kind).base.ids()
    words = spliced(kind).base.segment([*spliced(kind).dna_pieces, *spliced(kind).protein_pieces])  # by the native library
    for old, new in zip(before, after, strict=True):
        assert torch.equal(new[: len(base)], old)
        for place, parts in enumerate(words):
            torch.testing.assert_close(new[len(base) + place], torch.stack([old[number[part]] for part in parts]).mean(0))


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_of_a_piece_spell_the_piece(kind: str) -> None:
    base, full = spliced(kind).base.tokenizer(), spliced(kind).full.tokenizer()
    for new_id in range(len(base), len(full)):
        piece = full.convert_ids_to_tokens(new_id)
        parts = base_pieces_of(piece, base)
        assert "".join(base.convert_ids_to_tokens(parts)) == piece and max(parts) < len(base)


@pytest.mark.parametrize("padding", [1, 100, 300, 500])
def test_padding_rows_of_a_base_become_pieces_or_are_cut(padding: int) -> None:
    base, full = spliced("sentencepiece").base.tokenizer(), spliced("sentencepiece").full.tokenizer()
    model, padded = tiny_llama(len(base)), tiny_llama(len(base) + padding)
    with torch.no_grad():
        for own, other in zip(padded.parameters(), model.parameters(), strict=True):
            own[: other.shape[0]] = other
            own[other.shape[0] :] = 99.0
    assert grow_embeddings(padded, full, base) == grow_embeddings(model, full, base) == 300
    assert torch.equal(padded.get_input_embeddings().weight, model.get_input_embeddings().weight)
    assert torch.equal(padded.get_output_embeddings().weight, model.get_output_embeddings().weight)


def test_an_unchanged_vocabulary_changes_nothing() -> None:
    base = spliced("tiktoken").base.tokenizer()
    model = tiny_gpt2(len(base))
    before = model.get_input_embeddings().weight.clone()
    assert grow_embeddings(model, base, base) == 0
    assert torch.equal(model.get_input_embeddings().weight, before)


def test_half_precision_rows_are_averaged_in_float32_and_a_bias_grows() -> None:
    base, full = spliced("tiktoken").base.tokenizer(), spliced("tiktoken").full.tokenizer()
    model = tiny_llama(len(base)).to(torch.bfloat16)
    model.lm_head = torch.nn.Linear(32, len(base), bias=True, dtype=torch.bfloat16)
    bias = model.lm_head.bias.detach().clone()
    grow_embeddings(model, full, base)
    parts = base_pieces_of(full.convert_ids_to_tokens(len(full) - 1), base)
    assert len(parts) > 1
    assert torch.equal(model.lm_head.bias[: len(base)], bias)
    assert model.lm_head.bias[-1] == bias[parts].float().mean().bfloat16()
    rows = model.get_input_embeddings().weight
    assert rows.dtype == torch.bfloat16 and torch.equal(rows[-1], rows[parts].float().mean(0).bfloat16())


def test_a_tokenizer_that_does_not_extend_the_base_is_refused() -> None:
    base, full = spliced("sentencepiece").base.tokenizer(), spliced("sentencepiece").full.tokenizer()
    other = spliced("tiktoken").full.tokenizer()
    with pytest.raises(MismatchError, match="does not extend the base's"):
        grow_embeddings(tiny_llama(len(base)), other, base)
    with pytest.raises(MismatchError, match="does not extend the base's"):
        grow_embeddings(tiny_llama(len(full)), base, full)
    with pytest.raises(MismatchError, match=r"has 100 embedding rows, its tokenizer \d+ ids"):
        grow_embeddings(tiny_llama(100), full, base)
