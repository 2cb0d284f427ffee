"""Label scores against the plain forward pass, one row at a time, without cache and padding."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from scipy.special import softmax
from transformers import BloomConfig, BloomForCausalLM, MambaConfig, MambaForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from llama_gene.errors import InputError
from llama_gene.inference.scoring import (
    batches_by_length,
    calibration_offsets,
    context_length,
    label_tree,
    normalise_scores,
    prefix_groups,
    score_labels,
)
from tests.tiny_models import tiny_gpt2, tiny_llama, tiny_mistral

LABELS = [[7, 1], [7, 8, 1], [9, 10, 11, 12, 1], [1]]


def tiny_eager() -> PreTrainedModel:
    """Return a LLaMA whose attention adds its mask."""
    return tiny_llama(attn_implementation="eager")


def tiny_qwen() -> PreTrainedModel:
    """Return a model with a window of 6 in its second layer only."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=259, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        initializer_range=0.2, use_sliding_window=True, sliding_window=6, layer_types=["full_attention", "sliding_attention"],
    )  # fmt: skip
    return Qwen2ForCausalLM(config).eval()


def tiny_bloom() -> PreTrainedModel:
    """Return a model whose positions are no input but a bias (ALiBi)."""
    torch.manual_seed(0)
    return BloomForCausalLM(BloomConfig(vocab_size=259, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.2)).eval()


def tiny_mamba() -> PreTrainedModel:
    """Return a recurrent model."""
    torch.manual_seed(0)
    return MambaForCausalLM(MambaConfig(vocab_size=259, hidden_size=32, state_size=4, num_hidden_layers=2, initializer_range=0.2)).eval()


MODELS = {
    "llama": tiny_llama, "gpt2": tiny_gpt2, "mistral with a window of 8": tiny_mistral, "eager attention": tiny_eager,
    "a window in one layer": tiny_qwen, "alibi": tiny_bloom, "recurrent": tiny_mamba,
}  # fmt: skip


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
    prompts = some_prompts(9, longest=40 if name != "recurrent" else 12)
    expected = [[plain_score(model, prompt, label) for label in LABELS] for prompt in prompts]
    np.testing.assert_allclose(score_labels(model, prompts, LABELS), expected, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "recurrent"])  # which is slow token by token
def test_law_08_a_score_does_not_depend_on_batch_mates_or_padding(name: str) -> None:
    model = MODELS[name]()
    probe = [0, *range(20, 32)]
    alone = score_labels(model, [probe], LABELS)
    for num, longest in [(1, 3), (1, 60), (3, 13), (7, 30), (15, 60), (31, 5)]:
        mates = some_prompts(num, longest, seed=num)
        for batch_tokens in (50, 200, 16384):
            together = score_labels(model, [*mates, probe], LABELS, batch_tokens=batch_tokens)
            np.testing.assert_allclose(together[-1:], alone, atol=1e-5)


ids_of_prompts = st.lists(st.lists(st.integers(3, 6), min_size=1, max_size=20), min_size=1, max_size=4)
ids_of_labels = st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=4), min_size=1, max_size=3)
SHARED = [5, 4, 3, 5, 6, 3, 3, 4, 6, 5]


@pytest.mark.parametrize("name", ["llama", "mistral with a window of 8", "a window in one layer"])
@settings(max_examples=10, deadline=None)
@given(prompts=ids_of_prompts, labels=ids_of_labels, batch_tokens=st.sampled_from([1, 60, 16384]), begin=st.sampled_from([0, 9, 10]))
def test_law_08_any_prompts_and_labels_score_as_in_plain_passes(
    name: str, prompts: list[list[int]], labels: list[list[int]], batch_tokens: int, begin: int
) -> None:
    model = MODEL_OF.setdefault(name, MODELS[name]())
    rows = [[0, *SHARED[:begin], *prompt] for prompt in prompts]
    expected = [[plain_score(model, row, label) for label in labels] for row in rows]
    np.testing.assert_allclose(score_labels(model, rows, labels, batch_tokens=batch_tokens), expected, atol=1e-4)


MODEL_OF: dict[str, PreTrainedModel] = {}


def test_law_08_a_shared_beginning_changes_no_score() -> None:
    model = tiny_mistral()
    begin = [0, *range(30, 60)]
    prompts = [begin + prompt for prompt in some_prompts(12, longest=20)]
    alone = np.concatenate([score_labels(model, [prompt], LABELS) for prompt in prompts])
    np.testing.assert_allclose(score_labels(model, prompts, LABELS), alone, atol=1e-5)
    np.testing.assert_allclose(score_labels(model, [*prompts, [0, 9]], LABELS)[:-1], alone, atol=1e-5)


def test_a_shared_beginning_is_read_once_and_a_batch_in_two_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_llama()
    shapes = []
    forward = model.model.forward
    monkeypatch.setattr(model.model, "forward", lambda **given: (shapes.append(tuple(given["input_ids"].shape)), forward(**given))[1])
    prompts = [[0, *range(30, 60), 100 + i, 7] for i in range(12)]
    score_labels(model, prompts, [[7, 1], [8, 9, 1], [8, 10, 1]])
    # 31 tokens once; then each prompt's own first token; then its last, and of the labels 7, 8, 9 and 10: EOS is never read.
    assert shapes == [(1, 31), (12, 1), (12, 5)]


def test_law_08_a_score_does_not_depend_on_the_stretches_that_a_batch_is_read_in(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_qwen()
    prompts = some_prompts(12, longest=30)
    whole = score_labels(model, prompts, LABELS)
    monkeypatch.setattr("llama_gene.inference.scoring.CPU_PASS", 40)
    np.testing.assert_allclose(score_labels(model, prompts, LABELS), whole, atol=1e-5)


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


def test_a_label_tree_reads_common_beginnings_once_and_spells_every_label() -> None:
    labels = [[7, 8, 9, 1], [7, 8, 1], [7, 8], [5]]
    tree = label_tree(labels)
    assert tree.tokens == (7, 8, 9) and tree.parents == (0, 1, 2) and tree.depths == [0, 1, 2, 3]
    assert [[token for _, token in path] for path in tree.steps] == labels
    assert tree.sees.tolist() == np.tri(4, dtype=bool).tolist()
    assert label_tree([[3, 1], [4, 1]]).sees.tolist() == [[True, False, False], [True, True, False], [True, False, True]]


@settings(deadline=None)
@given(prompts=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=30), max_size=40))
def test_prefix_groups_hold_every_prompt_once_and_share_what_they_say(prompts: list[list[int]]) -> None:
    groups = prefix_groups(prompts)
    assert sorted(i for members, _ in groups for i in members) == list(range(len(prompts)))
    for members, shared in groups:
        assert len({tuple(prompts[i][:shared]) for i in members}) == 1
        assert all(len(prompts[i]) > shared for i in members)
        assert shared == 0 or shared >= 8


def test_prompts_with_other_instructions_behind_one_template_are_groups_of_their_own() -> None:
    template = list(range(10))
    first = [[*template, *range(20, 32), 100 + i] for i in range(9)]
    second = [[*template, *range(40, 52), 100 + i] for i in range(9)]
    few = [[*template, 60 + i] for i in range(3)]
    groups = prefix_groups([*first, *second, *few])
    assert sorted((len(members), shared) for members, shared in groups) == [(3, 10), (9, 22), (9, 22)]


def test_normalised_scores_are_of_a_token_and_behind_the_offsets() -> None:
    scores = [[-2.0, -3.0], [-4.0, -2.0]]
    np.testing.assert_allclose(normalise_scores(scores, [2, 3]), scores)
    np.testing.assert_allclose(normalise_scores(scores, [2, 3], "mean"), [[-1.0, -1.0], [-2.0, -2 / 3]])
    np.testing.assert_allclose(normalise_scores(scores, [2, 3], "mean", offsets=[1.0, 0.0]), [[-1.5, -1.0], [-2.5, -2 / 3]])
    with pytest.raises(InputError, match="sum or mean"):
        normalise_scores(scores, [2, 3], "bytes")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="one count above 0"):
        normalise_scores(scores, [2, 0], "mean")


def test_calibration_takes_away_what_the_model_says_whatever_is_asked() -> None:
    rng = np.random.default_rng(0)
    neutral = rng.normal([5.0, 0.0, -3.0], 1, (50, 3))
    offsets = calibration_offsets(neutral)
    np.testing.assert_allclose(np.exp(offsets), softmax(neutral, axis=1).mean(0))
    np.testing.assert_allclose(calibration_offsets(neutral[:1])[0] - calibration_offsets(neutral[:1])[1], neutral[0, 0] - neutral[0, 1])
    biased = [[5.0, 0.0, -3.0]]
    assert np.ptp(normalise_scores(biased, [1, 1, 1], offsets=calibration_offsets(biased))) < 1e-9
    np.testing.assert_allclose(offsets - calibration_offsets(neutral, prior=[2, 1, 1]), np.log([0.5, 0.25, 0.25]))
    with pytest.raises(InputError, match="a finite score"):
        calibration_offsets([[0.0, -math.inf]])
    with pytest.raises(InputError, match="one share above 0"):
        calibration_offsets([[0.0, -1.0]], prior=[1.0, 0.0])


def test_no_prompts_give_an_empty_table() -> None:
    assert score_labels(tiny_llama(), [], LABELS).shape[0] == 0


def test_batches_hold_every_row_once_and_keep_to_the_budget() -> None:
    lengths = [5, 1, 9, 30, 2, 9]
    batches = list(batches_by_length(lengths, batch_tokens=20, max_rows=3))
    assert sorted(i for batch in batches for i in batch) == list(range(6))
    assert batches[0] == [3]  # one row that is longer than the budget still runs, alone
    assert all(len(batch) <= 3 and max(lengths[i] for i in batch) * len(batch) <= 20 for batch in batches[1:])
