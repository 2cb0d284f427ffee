"""Label scores against the plain forward pass, one row at a time, without cache and padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel

from llama_gene.errors import InputError
from llama_gene.inference.scoring import batches_by_length, context_length, score_labels
from tests.tiny_models import tiny_gpt2, tiny_llama, tiny_mistral

LABELS = [[7, 1], [7, 8, 1], [9, 10, 11, 12, 1], [1]]
MODELS = {"llama": tiny_llama, "gpt2": tiny_gpt2, "mistral with a window of 8": tiny_mistral}


def some_prompts(num: int, longest: int, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [[0, *rng.integers(3, 259, size=int(rng.integers(0, longest))).tolist()] for _ in range(num)]


def plain_score(model: PreTrainedModel, prompt: list[int], label: list[int], vocab_size: int | None = None) -> float:
    """Return the reference: one whole row, no cache, no padding, all logits."""
    ids = torch.tensor([prompt + label])
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits[0, :, :vocab_size].float()
    log_probs = logits.log_softmax(-1)
    return float(sum(log_probs[len(prompt) - 1 + j, token] for j, token in enumerate(label)))


@pytest.mark.parametrize("name", MODELS)
def test_scores_equal_the_plain_forward_pass_of_each_row_alone(name: str) -> None:
    model = MODELS[name]()
    prompts = some_prompts(9, longest=40)
    expected = [[plain_score(model, prompt, label) for label in LABELS] for prompt in prompts]
    np.testing.assert_allclose(score_labels(model, prompts, LABELS), expected, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_law_08_a_score_does_not_depend_on_batch_mates_or_padding(name: str) -> None:
    model = MODELS[name]()
    probe = [0, *range(20, 32)]
    alone = score_labels(model, [probe], LABELS)
    for num, longest in [(1, 3), (1, 60), (3, 13), (7, 30), (15, 60), (31, 5)]:
        mates = some_prompts(num, longest, seed=num)
        for batch_tokens in (1, 200, 16384):
            together = score_labels(model, [*mates, probe], LABELS, batch_tokens=batch_tokens)
            np.testing.assert_allclose(together[-1:], alone, atol=1e-5)


def test_law_08_a_score_does_not_depend_on_the_other_labels() -> None:
    model = tiny_llama()
    prompts = some_prompts(5, longest=20)
    together = score_labels(model, prompts, LABELS)
    for k, label in enumerate(LABELS):
        np.testing.assert_allclose(score_labels(model, prompts, [label])[:, 0], together[:, k], atol=1e-5)


def test_labels_may_differ_between_prompts_and_missing_ones_score_minus_infinity() -> None:
    model = tiny_llama()
    prompts = some_prompts(3, longest=20)
    per_prompt = [[LABELS[0]], [LABELS[1], LABELS[2]], [LABELS[3], LABELS[0], LABELS[1]]]
    scores = score_labels(model, prompts, per_prompt)
    assert scores.shape == (3, 3)
    for i, labels in enumerate(per_prompt):
        np.testing.assert_allclose(scores[i, : len(labels)], [plain_score(model, prompts[i], label) for label in labels], atol=1e-4)
        assert np.isneginf(scores[i, len(labels) :]).all()


def test_a_label_that_is_a_prefix_of_another_does_not_win_by_being_shorter() -> None:
    scores = score_labels(tiny_llama(), [[0, 5, 6]], [[7, 1], [7, 8, 1], [7]])
    assert scores[0, 2] > scores[0, 0] and scores[0, 2] > scores[0, 1]  # without EOS the prefix holds both
    assert np.exp(scores[0, :2]).sum() < np.exp(scores[0, 2])


def test_padding_rows_of_the_vocabulary_get_no_probability() -> None:
    model = tiny_llama(vocab_size=300)
    prompts = some_prompts(4, longest=10)
    expected = [[plain_score(model, prompt, label, vocab_size=259) for label in LABELS] for prompt in prompts]
    np.testing.assert_allclose(score_labels(model, prompts, LABELS, vocab_size=259), expected, atol=1e-4)
    assert (score_labels(model, prompts, LABELS) < np.array(expected)).all()


def test_an_adapter_is_scored_as_the_model_it_wraps() -> None:
    torch.manual_seed(1)
    adapter = get_peft_model(tiny_llama(), LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)).eval()
    prompts = some_prompts(4, longest=10)
    expected = [[plain_score(adapter, prompt, label) for label in LABELS] for prompt in prompts]
    np.testing.assert_allclose(score_labels(adapter, prompts, LABELS), expected, atol=1e-4)


def test_dropout_is_off_while_scoring_and_the_training_mode_comes_back() -> None:
    model = tiny_gpt2().train()
    prompts = some_prompts(3, longest=10)
    np.testing.assert_array_equal(score_labels(model, prompts, LABELS), score_labels(model, prompts, LABELS))
    assert model.training


def test_a_prompt_longer_than_the_context_is_refused() -> None:
    model = tiny_gpt2(context=16)
    assert context_length(model) == 16
    assert score_labels(model, [[0] * 11], LABELS).shape == (1, 4)
    with pytest.raises(InputError, match="17 tokens; expected at most the model's 16"):
        score_labels(model, [[0] * 12], LABELS)


def test_empty_prompts_and_labels_are_refused() -> None:
    with pytest.raises(InputError, match="no token"):
        score_labels(tiny_llama(), [[]], LABELS)
    with pytest.raises(InputError, match="without a token"):
        score_labels(tiny_llama(), [[0]], [[3], []])
    with pytest.raises(InputError, match="1 lists of labels for 2 prompts"):
        score_labels(tiny_llama(), [[0], [0]], [[[3]]])


def test_no_prompts_give_an_empty_table() -> None:
    assert score_labels(tiny_llama(), [], LABELS).shape[0] == 0


def test_batches_hold_every_row_once_and_keep_to_the_budget() -> None:
    lengths = [5, 1, 9, 30, 2, 9]
    batches = list(batches_by_length(lengths, batch_tokens=20, max_rows=3))
    assert sorted(i for batch in batches for i in batch) == list(range(6))
    assert batches[0] == [3]  # one row that is longer than the budget still runs, alone
    assert all(len(batch) <= 3 and max(lengths[i] for i in batch) * len(batch) <= 20 for batch in batches[1:])
