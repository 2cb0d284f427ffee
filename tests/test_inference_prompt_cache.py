"""Prompts that were read to the last layer's keys and no further, against plain forward passes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from llama_gene.inference.prompt_cache import PromptCache
from tests.tiny_models import tiny_gpt2, tiny_llama

PROMPT = [0, *range(20, 40)]


def read(model: nn.Module, cache: PromptCache, tokens: list[list[int]]) -> None:
    """Read one stretch of equally long rows behind what is there."""
    stop = cache.num_filled + len(tokens[0])
    sees = torch.tril(torch.ones(len(tokens[0]), stop, dtype=torch.bool), cache.num_filled)[None, None]
    cache.read(model, input_ids=torch.tensor(tokens), attention_mask=sees, position_ids=torch.arange(cache.num_filled, stop)[None])


@pytest.mark.parametrize("make_model", [tiny_llama, tiny_gpt2])
@torch.inference_mode()
def test_a_token_behind_a_prompt_read_in_stretches_has_the_logits_of_the_plain_pass(make_model) -> None:  # type: ignore[no-untyped-def]
    model = make_model()
    begin = PromptCache(2, num_rows=1, num_columns=6)
    read(model, begin, [PROMPT[:6]])
    cache = PromptCache(2, num_rows=3, num_columns=len(PROMPT), begin=begin)
    for rows in ([PROMPT, PROMPT[::-1]], [PROMPT]):  # the second batch stands where the first one stood
        cache.empty()
        assert cache.num_filled == 6
        read(model, cache, [row[6:11] for row in rows])
        read(model, cache, [row[11:-1] for row in rows])
        last = torch.tensor([row[-1:] for row in rows])
        logits = model(input_ids=last, position_ids=torch.tensor([[20]]), past_key_values=cache, use_cache=True).logits[:, -1]
        for row, found in zip(rows, logits, strict=True):
            plain = model(input_ids=torch.tensor([PROMPT[:6] + row[6:]]), use_cache=False).logits[0, -1]
            torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_a_prompt_is_read_without_the_last_feed_forward_part_the_norm_and_the_head() -> None:
    model = tiny_llama()
    called = []
    parts = {"first": model.model.layers[0].mlp, "last": model.model.layers[1].mlp, "norm": model.model.norm, "head": model.lm_head}
    for name, part in parts.items():
        part.register_forward_hook(lambda *_, name=name: called.append(name))
    cache = PromptCache(2, num_rows=1, num_columns=22)
    read(model, cache, [PROMPT])
    assert called == ["first"]
    model(input_ids=torch.tensor([[7]]), past_key_values=cache, use_cache=True)
    assert called == ["first", "first", "last", "norm", "head"]


@torch.inference_mode()
def test_an_error_while_reading_is_no_end_of_reading() -> None:
    model = tiny_llama()
    with pytest.raises(IndexError):
        PromptCache(2, num_rows=1, num_columns=2).read(model, input_ids=torch.tensor([[0, 999]]))
