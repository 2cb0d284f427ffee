"""Causal models of any make: scores, bits and answers equal those of the plain forward pass; a folder needs no manifest of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from llama_gene.errors import InputError
from llama_gene.inference.generate import generate_answers
from llama_gene.inference.perplexity import bits_per_letter
from llama_gene.inference.scoring import score_labels
from llama_gene.models.adapters import load_model
from llama_gene.recipes.evaluate import Config, run
from tests.fixtures.tiny_vocabularies import write_gpt2
from tests.test_recipes_evaluate import write_corpus, write_instructions
from tests.tiny_models import tiny_tokenizer

LABELS = [[7, 1], [7, 8, 1], [9, 10, 11, 1]]
USUAL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 512}
ATTENTION: dict[str, dict[str, Any]] = {
    "gpt_neox": USUAL,
    "gptj": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512, "rotary_dim": 4},
    "gpt_neo": {
        "hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 8,
        "max_position_embeddings": 512,
    },
    "opt": {**USUAL, "ffn_dim": 64, "word_embed_proj_dim": 32, "pad_token_id": 2},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "falcon": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": True},
    "qwen3": {**USUAL, "num_key_value_heads": 2, "head_dim": 8},
    "gemma3_text": {**USUAL, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 8},
    "mixtral": {**USUAL, "num_key_value_heads": 2, "num_local_experts": 2},
}  # fmt: skip
STATES: dict[str, dict[str, Any]] = {
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
    "recurrent_gemma": {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64, "lru_width": 32},
    "rwkv": {"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32, "intermediate_size": 64, "context_length": 512},
}
EVERY = ATTENTION | STATES


def tiny(kind: str) -> PreTrainedModel:
    tokenizer = tiny_tokenizer()
    common = {"vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None, "initializer_range": 0.2}
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **(common | EVERY[kind]))).eval()
    return model


def chances(model: PreTrainedModel, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float().log_softmax(-1)


def some_prompts() -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [[0, *rng.integers(3, 259, size=length).tolist()] for length in (0, 5, 31, 50)]


@pytest.mark.parametrize("kind", EVERY)
def test_label_scores_equal_the_plain_forward_pass(kind: str) -> None:
    model, prompts = tiny(kind), some_prompts()
    expected = []
    for prompt in prompts:
        rows = [chances(model, prompt + label) for label in LABELS]
        expected.append([
            sum(float(row[len(prompt) - 1 + j, token]) for j, token in enumerate(label)) for row, label in zip(rows, LABELS, strict=True)
        ])  # fmt: skip
    np.testing.assert_allclose(score_labels(model, prompts, LABELS), expected, atol=1e-4)
    np.testing.assert_allclose(score_labels(model, prompts[1:2], LABELS), expected[1:2], atol=1e-4)


@pytest.mark.parametrize("kind", EVERY)
def test_bits_equal_the_plain_forward_pass(kind: str) -> None:
    model, tokenizer = tiny(kind), tiny_tokenizer()
    nats = 0.0
    for text in ("ACGTAC" * 8, "ACG"):
        ids = [0, *tokenizer.encode(text, add_special_tokens=False), 1]
        row = chances(model, ids)
        nats -= sum(float(row[i, ids[i + 1]]) for i in range(len(ids) - 1))
    assert bits_per_letter(model, tokenizer, ["ACGTAC" * 8, "ACG"])["bits"] == pytest.approx(nats / np.log(2), rel=1e-5)


@pytest.mark.parametrize("kind", [*ATTENTION, "recurrent_gemma"])
def test_greedy_answers_equal_the_plain_forward_pass(kind: str) -> None:
    model, tokenizer, prompts = tiny(kind), tiny_tokenizer(), some_prompts()
    expected = []
    for prompt in prompts:
        ids = list(prompt)
        while len(ids) < len(prompt) + 6 and (token := int(chances(model, ids)[-1].argmax())) != 1:
            ids.append(token)
        expected.append(tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True).strip())
    assert generate_answers(model, tokenizer, prompts, max_new_tokens=6) == expected


@pytest.mark.parametrize(("kind", "name"), [("mamba", "MambaForCausalLM"), ("rwkv", "RwkvForCausalLM")])
def test_a_model_that_would_forget_its_prompt_is_not_asked_to_generate(kind: str, name: str) -> None:
    with pytest.raises(InputError, match=f"{name} keeps what it has read in a form of its own"):
        generate_answers(tiny(kind), tiny_tokenizer(), some_prompts(), max_new_tokens=6)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 folder as the hub has it: no chat template, no manifest, BOS and EOS the same token."""
    folder = write_gpt2(tmp_path_factory.mktemp("foreign") / "gpt2")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    end = tokenizer.eos_token_id
    shape = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512, "bos_token_id": end, "eos_token_id": end}
    transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=len(tokenizer), **shape)).save_pretrained(folder)
    return folder


def test_a_foreign_gpt2_folder_is_evaluated_as_ours_are(gpt2: Path, tmp_path: Path) -> None:
    assert not (gpt2 / "manifest.json").exists() and load_model(gpt2)[1].chat_template is None
    report = run(
        Config(
            model=str(gpt2), base=str(gpt2), instructions=write_instructions(tmp_path / "instructions"),
            corpus=write_corpus(tmp_path / "corpus"), max_length=500, max_new_tokens=6, num_resamples=20,
            max_documents=3, baseline=[], output_dir=tmp_path / "out",
        )
    )  # fmt: skip
    assert report["template"] == "alpaca" and {task["family"] for task in report["tasks"]} >= {"classification", "pair", "function"}
    assert all(task["rejected"] == 0 and 0 <= abs(task["score"]) <= 1 for task in report["tasks"])
    for facts in report["languages"].values():
        assert facts["before"] == facts["after"] and np.isfinite(facts["after"]["bits_per_letter"])


def test_a_folder_whose_tokenizer_has_no_end_of_sequence_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "no_eos"
    tiny("gpt_neox").save_pretrained(folder)
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)
    instructions = write_instructions(tmp_path / "instructions")
    with pytest.raises(InputError, match="no_eos has no end-of-sequence token"):
        run(Config(model=str(folder), instructions=instructions, max_length=500, baseline=[], output_dir=tmp_path / "out"))
