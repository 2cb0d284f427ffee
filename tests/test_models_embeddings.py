"""Growing embeddings: old rows keep their bits, new rows start as asked, padding rows never stand for a piece."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedTokenizerFast

from llama_gene.errors import ConfigError, MismatchError
from llama_gene.models.embeddings import CHUNK, base_pieces_of, grow_embeddings
from llama_gene.models.settings import EmbeddingInit
from tests.fixtures.tiny_vocabularies import spliced
from tests.tiny_models import tiny_llama, tiny_tokenizer

KINDS = ["sentencepiece", "tiktoken"]
INITS: list[EmbeddingInit] = ["pieces", "quiet", "mean", "normal"]


def rows_of(model: Any) -> list[torch.Tensor]:
    """Return a copy of everything that has a row an id: embedding, head and the head's bias where there is one."""
    head = model.get_output_embeddings()
    tables = [model.get_input_embeddings().weight, head.weight, *([head.bias] if head.bias is not None else [])]
    return [table.detach().clone() for table in tables]


def model_with_bias(vocab_size: int, precision: torch.dtype = torch.float32) -> Any:
    """Return a random model whose head has a bias."""
    model = tiny_llama(vocab_size).to(precision)
    torch.manual_seed(1)
    model.lm_head = torch.nn.Linear(32, vocab_size, bias=True, dtype=precision)
    return model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_law_05_new_rows_are_means_and_old_rows_keep_their_bits(kind: str, tied: bool) -> None:
    base, full = spliced(kind).base.tokenizer(), spliced(kind).full.tokenizer()
    model = tiny_llama(len(base), tied=tied)
    before = rows_of(model)
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


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("shape", ["untied", "tied", "bias"])
def test_law_05_old_rows_keep_their_bits_and_every_new_row_is_set(init: EmbeddingInit, precision: torch.dtype, shape: str) -> None:
    base, full = spliced("tiktoken").base.tokenizer(), spliced("tiktoken").full.tokenizer()
    model = model_with_bias(len(base), precision) if shape == "bias" else tiny_llama(len(base), tied=shape == "tied").to(precision)
    before = rows_of(model)
    if init == "quiet" and shape == "tied":
        with pytest.raises(ConfigError, match="the head is the embedding .tied.; expected a head of its own"):
            grow_embeddings(model, full, base, init)
        return
    grow_embeddings(model, full, base, init)
    assert model.config.tie_word_embeddings == (shape == "tied")
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == (shape == "tied")
    after = rows_of(model)
    for old, new in zip(before, after, strict=True):
        assert new.dtype == precision and len(new) == len(full)
        assert torch.equal(new[: len(base)], old)
    spread, least = before[0].float().std(), {"mean": 0.01, "quiet": 0.05}.get(init, 0.1)
    for new in after[:2]:
        sizes = new[len(base) :].float().std(1)
        assert sizes.min() > least * spread and sizes.max() < 2 * spread


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_mean_gives_every_new_row_the_mean_of_all_base_rows(precision: torch.dtype) -> None:
    base, full = spliced("tiktoken").base.tokenizer(), spliced("tiktoken").full.tokenizer()
    model = model_with_bias(len(base), precision)
    before = rows_of(model)
    grow_embeddings(model, full, base, "mean")
    for old, new in zip(before, rows_of(model), strict=True):
        assert torch.equal(new[len(base) :], old.double().mean(0).to(precision).expand(300, *old.shape[1:]))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_quiet_rows_are_read_as_their_pieces_and_answer_half_way_to_the_mean(precision: torch.dtype) -> None:
    base, full = spliced("tiktoken").base.tokenizer(), spliced("tiktoken").full.tokenizer()
    grown = {}
    for init in INITS:
        model = model_with_bias(len(base), precision)
        grow_embeddings(model, full, base, init)
        grown[init] = rows_of(model)
    assert torch.equal(grown["quiet"][0], grown["pieces"][0])
    near = 2e-3 if precision == torch.bfloat16 else 1e-6
    for quiet, pieces, mean in zip(grown["quiet"][1:], grown["pieces"][1:], grown["mean"][1:], strict=True):
        assert torch.equal(quiet[: len(base)], pieces[: len(base)])
        torch.testing.assert_close(quiet.float(), (pieces.float() + mean.float()) / 2, atol=near, rtol=1e-2)


def test_normal_rows_are_drawn_from_the_seed_with_the_models_own_spread_and_a_bias_starts_at_zero() -> None:
    base, full = spliced("tiktoken").base.tokenizer(), spliced("tiktoken").full.tokenizer()

    def grown(seed: int, precision: torch.dtype = torch.float32) -> list[torch.Tensor]:
        torch.rand(seed + 3)  # what a process has drawn before must not matter
        model = model_with_bias(len(base), precision)
        grow_embeddings(model, full, base, "normal", seed)
        return [table[len(base) :] for table in rows_of(model)]

    rows, head, bias = grown(0)
    for drawn in (rows, head):  # 300 x 32 numbers from N(0, 0.2): the mean is within 0.2 / 98 and the spread within 1 % of it, times 4
        assert abs(float(drawn.mean())) < 4 * 0.2 / 98 and float(drawn.std()) == pytest.approx(0.2, rel=0.04)
    assert not torch.equal(rows, head) and torch.equal(bias, torch.zeros(300))
    assert all(torch.equal(one, two) for one, two in zip(grown(0), (rows, head, bias), strict=True))
    assert not torch.equal(grown(1)[0], rows)
    assert torch.equal(grown(0, torch.bfloat16)[0], rows.bfloat16())  # the same draw in any precision


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_of_a_piece_spell_the_piece(kind: str) -> None:
    base, full = spliced(kind).base.tokenizer(), spliced(kind).full.tokenizer()
    for new_id in range(len(base), len(full)):
        piece = full.convert_ids_to_tokens(new_id)
        parts = base_pieces_of(piece, base)
        assert "".join(base.convert_ids_to_tokens(parts)) == piece and max(parts) < len(base)


def with_private_use_letters(base: PreTrainedTokenizerFast, num: int) -> PreTrainedTokenizerFast:
    """Return a SentencePiece-like tokenizer with private-use characters behind its ids, as namespaced letters stand in its file."""
    content = json.loads(base.backend_tokenizer.to_str())
    content["model"]["vocab"] |= {chr(0xE000 + number): len(base) + number for number in range(num)}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(content)))


def test_a_piece_that_the_base_cannot_spell_starts_as_the_mean_of_all_base_rows() -> None:
    base = spliced("sentencepiece").base.tokenizer()
    full = with_private_use_letters(base, 3)
    assert base_pieces_of("\ue000", base) == []  # not the bytes <0xEE> <0x80> <0x80>
    model = tiny_llama(len(base))
    before = rows_of(model)
    assert grow_embeddings(model, full, base) == 3
    for old, new in zip(before, rows_of(model), strict=True):
        assert torch.equal(new[: len(base)], old)
        assert torch.equal(new[len(base) :], old.double().mean(0).float().expand(3, -1))


def test_spelled_and_unspelled_pieces_stand_side_by_side() -> None:
    base, dna = spliced("sentencepiece").base.tokenizer(), spliced("sentencepiece").full.tokenizer()
    mixed = with_private_use_letters(dna, 2)
    plain, other = tiny_llama(len(base)), tiny_llama(len(base))
    grow_embeddings(plain, dna, base)
    assert grow_embeddings(other, mixed, base) == 302
    for one, two in zip(rows_of(plain), rows_of(other), strict=True):
        assert torch.equal(two[: len(dna)], one)
        assert torch.equal(two[-1], one[: len(base)].double().mean(0).float())


def test_a_namespaced_letter_starts_as_the_mean_of_the_pieces_that_spell_it() -> None:
    base, full = spliced("tiktoken").base.tokenizer(), spliced("tiktoken").base.tokenizer()
    full.add_tokens([AddedToken("<3di:a>", special=False, normalized=False)])
    model = tiny_llama(len(base))
    [old, _] = rows_of(model)
    assert grow_embeddings(model, full, base) == 1
    parts = [number for letter in "<3di:a>" for number in base.convert_tokens_to_ids([letter])]  # no base piece joins two of them
    assert base_pieces_of("<3di:a>", base) == parts
    torch.testing.assert_close(rows_of(model)[0][-1], old[parts].mean(0))


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("padding", [1, 100, 300, 500])
def test_padding_rows_of_a_base_become_pieces_or_are_cut(padding: int, init: EmbeddingInit) -> None:
    base, full = spliced("sentencepiece").base.tokenizer(), spliced("sentencepiece").full.tokenizer()
    model, padded = tiny_llama(len(base)), tiny_llama(len(base) + padding)
    with torch.no_grad():
        for own, other in zip(padded.parameters(), model.parameters(), strict=True):
            own[: other.shape[0]] = other
            own[other.shape[0] :] = 99.0
    assert grow_embeddings(padded, full, base, init) == grow_embeddings(model, full, base, init) == 300
    assert torch.equal(padded.get_input_embeddings().weight, model.get_input_embeddings().weight)
    assert torch.equal(padded.get_output_embeddings().weight, model.get_output_embeddings().weight)


@pytest.mark.parametrize("init", INITS)
def test_an_unchanged_vocabulary_changes_nothing(init: EmbeddingInit) -> None:
    base = spliced("tiktoken").base.tokenizer()
    model = model_with_bias(len(base))
    before = model.get_input_embeddings().weight.clone()
    assert grow_embeddings(model, base, base, init) == 0
    assert torch.equal(model.get_input_embeddings().weight, before)


def test_half_precision_rows_are_averaged_in_float32_and_a_bias_grows() -> None:
    base, full = spliced("tiktoken").base.tokenizer(), spliced("tiktoken").full.tokenizer()
    model = model_with_bias(len(base), torch.bfloat16)
    bias = model.lm_head.bias.detach().clone()
    grow_embeddings(model, full, base)
    parts = base_pieces_of(full.convert_ids_to_tokens(len(full) - 1), base)
    assert len(parts) > 1
    assert torch.equal(model.lm_head.bias[: len(base)], bias)
    assert model.lm_head.bias[-1] == bias[parts].float().mean().bfloat16()
    rows = model.get_input_embeddings().weight
    assert rows.dtype == torch.bfloat16 and torch.equal(rows[-1], rows[parts].float().mean(0).bfloat16())


class CountOperations(TorchDispatchMode):
    """Count the tensor operations inside a `with` block."""

    num = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.num += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("init", INITS)
def test_more_rows_need_no_more_tensor_operations(init: EmbeddingInit) -> None:
    base = spliced("tiktoken").base.tokenizer()
    counts = []
    for grown in (spliced("tiktoken").dna, spliced("tiktoken").full):  # 150 and 300 new rows
        model, tokenizer = tiny_llama(len(base)), grown.tokenizer()
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        with CountOperations() as operations:
            grow_embeddings(model, tokenizer, base, init)
        counts.append(operations.num)
    assert counts[0] == counts[1] < 100


@pytest.mark.parametrize("init", INITS)
def test_law_15_the_number_of_threads_changes_no_bit_and_chunks_join(init: EmbeddingInit) -> None:
    letters = [left + right for left in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" for right in "ACGTNacgtn"]
    pieces = tuple(f"{pair}{tail}" for pair in letters for tail in "ABCDEFGHIJKLMNOPQR")  # more than a chunk
    base, full = tiny_tokenizer(), tiny_tokenizer()
    full.add_tokens(list(pieces))
    assert len(full) - len(base) > CHUNK
    threads, tables = torch.get_num_threads(), []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            model = model_with_bias(len(base))
            grow_embeddings(model, full, base, init)
            tables.append(rows_of(model))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for one, other in zip(*tables, strict=True))
    if init in ("pieces", "quiet"):
        old = tables[0][0]
        for place in (0, CHUNK - 1, CHUNK, len(pieces) - 1):  # first and last of a chunk
            torch.testing.assert_close(old[len(base) + place], old[base_pieces_of(pieces[place], base)].mean(0))


def test_a_tokenizer_that_does_not_extend_the_base_is_refused() -> None:
    base, full = spliced("sentencepiece").base.tokenizer(), spliced("sentencepiece").full.tokenizer()
    other = spliced("tiktoken").full.tokenizer()
    with pytest.raises(MismatchError, match="does not extend the base's"):
        grow_embeddings(tiny_llama(len(base)), other, base)
    with pytest.raises(MismatchError, match="does not extend the base's"):
        grow_embeddings(tiny_llama(len(full)), base, full)
    with pytest.raises(MismatchError, match=r"has 100 embedding rows, its tokenizer \d+ ids"):
        grow_embeddings(tiny_llama(100), full, base)


def test_an_unknown_start_is_refused_before_the_model_is_touched() -> None:
    base, full = spliced("sentencepiece").base.tokenizer(), spliced("sentencepiece").full.tokenizer()
    model = tiny_llama(len(base))
    with pytest.raises(ConfigError, match="embedding_init is 'zeros'; expected one of pieces, quiet, mean, normal"):
        grow_embeddings(model, full, base, "zeros")  # type: ignore[arg-type]
    assert model.get_input_embeddings().weight.shape[0] == len(base)
