"""Generated answers against transformers' own loop, and where an answer begins and ends."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_gene.errors import InputError
from llama_gene.inference.generate import generate_answers, is_decided, stop_tokens, stream_answer
from llama_gene.inference.metrics import semantic_match
from llama_gene.tokenization.tokenizer import encode_text
from tests.tiny_models import tiny_gpt2, tiny_llama, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
QUESTIONS = ["ACGT", "MKV is a protein.", "x", "What does TATAAA do in front of a gene?"]


def prompts() -> list[list[int]]:
    return [[0, *encode_text(TOKENIZER, text)] for text in QUESTIONS]


def reference_ids(model: torch.nn.Module, prompt: list[int], num: int) -> list[int]:
    """Return greedy ids of the plain loop: the whole row anew for each token, no cache, no padding."""
    ids = list(prompt)
    for _ in range(num):
        with torch.no_grad():
            ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        if ids[-1] == 1:
            break
    return ids[len(prompt) :]


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_greedy_answers_equal_the_plain_loop_of_each_prompt_alone(make) -> None:  # type: ignore[no-untyped-def]
    model = make()
    expected = [TOKENIZER.decode([i for i in reference_ids(model, prompt, 12) if i > 2]).strip() for prompt in prompts()]
    assert generate_answers(model, TOKENIZER, prompts(), max_new_tokens=12) == expected
    assert generate_answers(model, TOKENIZER, prompts(), max_new_tokens=12, batch_tokens=1) == expected


def copying_model(answer: str) -> torch.nn.Module:
    """Return a model that says `answer` after "?", then EOS, then "!" for ever: its logits depend on the last token only."""
    model = tiny_gpt2()
    follow = dict(zip(encode_text(TOKENIZER, "?" + answer), [*encode_text(TOKENIZER, answer), 1], strict=True))
    follow |= dict.fromkeys([1, *encode_text(TOKENIZER, "!")], encode_text(TOKENIZER, "!")[0])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "ln" not in name:
                parameter.zero_()
        # Token i is the unit vector of its place among the few tokens in use; the head maps it to the vector of its successor.
        used = sorted({*follow, *follow.values()})
        head = torch.zeros(259, 32)
        for place, token in enumerate(used):
            model.transformer.wte.weight[token, place] = 1.0
            if token in follow:
                head[follow[token], place] = 50.0
        model.lm_head.weight = torch.nn.Parameter(head)
    return model


def test_an_answer_stops_at_eos_and_holds_no_prompt() -> None:
    model = copying_model(" yes")
    prompt = [0, *encode_text(TOKENIZER, "is it?")]
    assert generate_answers(model, TOKENIZER, [prompt, prompt[:1] + prompt], max_new_tokens=20) == ["yes", "yes"]
    assert generate_answers(model, TOKENIZER, [prompt], max_new_tokens=3) == ["ye"]
    late, early = [0, *encode_text(TOKENIZER, "?")], [0, *encode_text(TOKENIZER, "e")]
    assert generate_answers(model, TOKENIZER, [late, early], max_new_tokens=20) == ["yes", "s"]  # a row that is done says no more


def test_streamed_pieces_join_to_the_answer_and_never_break_a_letter() -> None:
    answer = "α→é"  # seven bytes, all different: the model knows its last token only
    model = copying_model(answer)
    pieces = list(stream_answer(model, TOKENIZER, [0, *encode_text(TOKENIZER, "?")], max_new_tokens=40))
    assert "".join(pieces) == answer
    assert all("�" not in piece for piece in pieces) and len(pieces) > 1


def test_text_that_spells_eos_does_not_end_an_answer() -> None:
    assert len(encode_text(TOKENIZER, "</s>")) == 4


def test_sampling_is_repeatable_and_follows_the_seed() -> None:
    model = tiny_llama()
    first = generate_answers(model, TOKENIZER, prompts(), max_new_tokens=8, temperature=1.0, seed=3)
    assert first == generate_answers(model, TOKENIZER, prompts(), max_new_tokens=8, temperature=1.0, seed=3)
    assert first != generate_answers(model, TOKENIZER, prompts(), max_new_tokens=8, temperature=1.0, seed=4)


def test_padding_rows_of_the_vocabulary_are_never_generated() -> None:
    model = tiny_llama(vocab_size=300)
    with torch.no_grad():
        model.lm_head.weight[259:] = model.lm_head.weight[:41] * 100  # the padding rows would win every step
    ids = [[0, *encode_text(TOKENIZER, "ACGT")]]
    assert isinstance(generate_answers(model, TOKENIZER, ids, max_new_tokens=8)[0], str)
    assert max(reference_ids(model, ids[0], 8)) >= 259


def test_a_prompt_without_room_for_its_answer_is_refused_not_truncated() -> None:
    with pytest.raises(InputError, match="the prompt has 20 tokens and 13 are kept for the answer; expected at most the model's 32"):
        generate_answers(tiny_gpt2(context=32), TOKENIZER, [[0] * 20], max_new_tokens=13)
    with pytest.raises(InputError, match="no token"):
        list(stream_answer(tiny_gpt2(), TOKENIZER, []))


def test_stop_tokens_are_the_tokenizers_and_the_models() -> None:
    model = tiny_llama()
    model.generation_config.eos_token_id = [1, 7]
    assert stop_tokens(model, TOKENIZER) == {1, 7}


CLOSED = ["no", "no-go", "yes", "1", "1.5", "1.5.2", "yes sir"]
words = st.lists(st.sampled_from([*CLOSED, "n", "o", "-", ".", " ", "'", '"', "5", "N", "\n", "x"]), max_size=6).map("".join)


@settings(max_examples=200, deadline=None)
@given(begin=words, rest=words)
def test_no_continuation_changes_a_decided_answer(begin: str, rest: str) -> None:
    if is_decided(begin, CLOSED):
        assert semantic_match(begin, CLOSED) == semantic_match(begin + rest, CLOSED)


def test_a_batch_ends_when_every_answer_is_decided_or_has_stopped() -> None:
    model = copying_model(" yes:Qu")
    prompt = [0, *encode_text(TOKENIZER, "is it?")]
    assert generate_answers(model, TOKENIZER, [prompt], max_new_tokens=20) == ["yes:Qu"]
    assert generate_answers(model, TOKENIZER, [prompt], max_new_tokens=20, labels=["no", "yes"]) == ["yes:"]
    assert generate_answers(model, TOKENIZER, [prompt], max_new_tokens=20, labels=["no", "yes:Quite"]) == ["yes:Qu"]
