"""lm-evaluation-harness beside our own scoring: the same likelihoods, the same answers; differences with paired errors; nothing downloaded."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from llama_gene import runtime
from llama_gene.data.harness_tasks import harness_task, split_ids, write_task
from llama_gene.data.instructions import Example
from llama_gene.data.prompts import encode_answer, encode_prompt, get_template, render_user
from llama_gene.errors import ConfigError, InputError, MachineError, MismatchError
from llama_gene.inference import harness
from llama_gene.inference.harness import HarnessRun, compare, english_results, harness_model, refuse_downloads, render_english, run_harness
from llama_gene.inference.scoring import score_labels
from llama_gene.models.adapters import load_model
from tests.fixtures.tiny_tokenizers import sentencepiece_like, tiktoken_like, without_bos
from tests.fixtures.tiny_vocabularies import spliced
from tests.tiny_models import save_adapter, save_model, tiny_gpt2, tiny_llama, tiny_tokenizer

installed = runtime.package_version("lm-eval") != "not installed"
needs_harness = pytest.mark.skipif(not installed, reason='lm-evaluation-harness is not installed: pip install "llama-gene[harness]"')

LABELS = ["Non-promoter", "promoter", "promoter site"]
TOKENIZERS = {"bytes": tiny_tokenizer, "SentencePiece": sentencepiece_like, "tiktoken": tiktoken_like, "no BOS": without_bos}


def gene_examples(num: int = 6) -> list[Example]:
    rng = np.random.default_rng(5)
    sequences = ["".join(rng.choice(list("ACGT"), size=int(rng.integers(8, 30)))) for _ in range(num)]
    return [
        Example(
            task="promoter", family="classification", split="test", instruction="Determine the promoter detection of following dna sequence.",
            input=text, output=LABELS[i % 3], labels=LABELS, sequences=[text], kinds=["dna"], group="", oracle=None, value=None,
        )
        for i, text in enumerate(sequences)
    ]  # fmt: skip


def write_gene_task(folder: Path, tokenizer: Any) -> Path:
    folder.mkdir(exist_ok=True)
    write_task(harness_task("promoter", gene_examples(), tokenizer=tokenizer), folder, folder, {})
    return folder


def write_english_tasks(folder: Path) -> Path:
    """Write four tasks of our own: choices, a last word, whole texts, a generated answer; and a group of the first two."""
    folder.mkdir()
    choices = [{"question": f"Is {i} even?", "choices": ["yes", "no"], "gold": i % 2} for i in range(12)]
    words = [{"text": f"A gene of length {i} is", "word": " read"} for i in range(5)]
    files = {"even": choices, "last_word": words, "whole": words, "said": words}
    metric = {"aggregation": "mean", "higher_is_better": True}
    perplexity = {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False}
    facts: dict[str, dict[str, Any]] = {
        "even": {
            "output_type": "multiple_choice", "doc_to_text": "Question: {{question}}\nAnswer:", "doc_to_choice": "choices",
            "doc_to_target": "gold", "metric_list": [{"metric": "acc", **metric}, {"metric": "acc_norm", **metric}],
        },
        "last_word": {
            "output_type": "loglikelihood", "doc_to_text": "text", "doc_to_target": "word", "target_delimiter": "",
            "metric_list": [{"metric": "acc", **metric}, perplexity],
        },
        "whole": {
            "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "text",
            "metric_list": [{"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False}],
        },
        "said": {
            "output_type": "generate_until", "doc_to_text": "text", "doc_to_target": "word",
            "generation_kwargs": {"until": ["."], "max_gen_toks": 4, "do_sample": False},
            "metric_list": [{"metric": "exact_match", **metric}],
        },
    }  # fmt: skip
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        head = {"task": f"own_{name}", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(folder / f"{name}.jsonl")}}}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**head, "test_split": "test", **facts[name]}))
    group = {"group": "own_group", "task": ["own_even", "own_last_word"], "aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}]}
    (folder / "group.yaml").write_text(yaml.safe_dump(group))
    far = {"task": "own_far", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "https://example.org/a.jsonl"}}}
    (folder / "far.yaml").write_text(yaml.safe_dump({**far, "test_split": "test", **facts["even"]}))
    return folder


def ours(model: Any, tokenizer: Any, width: int | None = None) -> np.ndarray[Any, Any]:
    prompts = [encode_prompt(tokenizer, render_user(row["instruction"], row["input"])) for row in gene_examples()]
    labels = [encode_answer(tokenizer, label) for label in LABELS]
    return score_labels(model, prompts, labels, vocab_size=width or len(tokenizer))


def theirs(model: Any, tokenizer: Any, folder: Path, batch_size: int = 4) -> np.ndarray[Any, Any]:
    """Return the harness's likelihoods (N, K) of the exported task."""
    from lm_eval.evaluator import evaluate
    from lm_eval.tasks import TaskManager

    write_gene_task(folder, tokenizer)
    tasks = TaskManager(include_path=str(folder), include_defaults=False).load(["llama_gene_promoter"])
    answered = evaluate(harness_model(model, tokenizer, batch_size), tasks, bootstrap_iters=0)
    samples = sorted(answered["samples"]["llama_gene_promoter"], key=lambda sample: sample["doc_id"])
    assert [sample["target"] for sample in samples] == [LABELS.index(row["output"]) for row in gene_examples()]
    return np.array([[choice[0][0] for choice in sample["resps"]] for sample in samples])


def header_nats(model: Any, tokenizer: Any) -> np.ndarray[Any, Any]:
    """Return the log-likelihood of the text between input and answer, by one plain forward pass a row: what the harness adds to all labels."""
    after = get_template().after
    values = []
    for row in gene_examples():
        ids = encode_prompt(tokenizer, render_user(row["instruction"], row["input"]))
        for start in range(len(ids)):  # the context is the longest head of the prompt's ids without the header
            if tokenizer.decode(ids[start:]) in (after, after.lstrip()):
                break
        with torch.no_grad():
            chances = model(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)
        values.append(sum(float(chances[place - 1, ids[place]]) for place in range(start, len(ids))))
    return np.array(values)


# --- the exported gene tasks: the harness's scores are ours ----------------------------------------------------------------------


@needs_harness
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_harness_likelihoods_of_exported_tasks_are_ours_and_that_of_the_header(kind: str, tmp_path: Path) -> None:
    tokenizer = TOKENIZERS[kind]()
    model = tiny_llama(vocab_size=len(tokenizer))
    own, harness_own = ours(model, tokenizer), theirs(model, tokenizer, tmp_path / "tasks")
    np.testing.assert_array_equal(own.argmax(1), harness_own.argmax(1))
    np.testing.assert_allclose(harness_own - own, np.repeat(header_nats(model, tokenizer)[:, None], 3, axis=1), atol=2e-3)
    np.testing.assert_allclose(harness_own - harness_own[:, :1], own - own[:, :1], atol=5e-4)


@needs_harness
def test_the_harness_likelihoods_do_not_depend_on_padding_either(tmp_path: Path) -> None:
    tokenizer = tiktoken_like()
    model = tiny_gpt2(vocab_size=len(tokenizer))
    alone, together = (theirs(model, tokenizer, tmp_path / "tasks", size) for size in (1, 18))
    np.testing.assert_allclose(alone, together, atol=1e-3)


@needs_harness
def test_padded_columns_of_the_head_share_in_the_harness_softmax_only(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_llama(vocab_size=len(tokenizer) + 61)
    own, wide = ours(model, tokenizer), ours(model, tokenizer, len(tokenizer) + 61)
    harness_own = theirs(model, tokenizer, tmp_path / "tasks")
    np.testing.assert_allclose(harness_own - harness_own[:, :1], wide - wide[:, :1], atol=5e-4)
    assert np.abs((harness_own - harness_own[:, :1]) - (own - own[:, :1])).max() > 0.1


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_exported_texts_have_the_ids_of_the_prompt_contract(kind: str) -> None:
    task = harness_task("promoter", gene_examples(), tokenizer=TOKENIZERS[kind]())
    assert (len(task.rows), task.other_ids) == (6, 0)


@pytest.mark.parametrize("kind", ["sentencepiece", "tiktoken"])
def test_the_exported_texts_have_the_ids_of_the_prompt_contract_in_spliced_vocabularies(kind: str) -> None:
    from llama_gene.tokenization.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(spliced(kind).folder)
    task = harness_task("promoter", gene_examples(), tokenizer=tokenizer)
    assert (len(task.rows), task.other_ids) == (6, 0)


def test_a_seam_behind_the_header_would_lose_the_newline_of_a_llama3_vocabulary() -> None:
    tokenizer = tiktoken_like()
    if ":\n" not in [tokenizer.decode([i]) for i in range(len(tokenizer))]:
        tokenizer = spliced_with_colon_newline()
    context, answer = "### Response:\n", "promoter"
    assert tokenizer.decode(split_ids(tokenizer, context, answer)) == "### Response:promoter"
    assert tokenizer.decode(split_ids(tokenizer, "ACGT", "\n\n" + context + answer)) == "ACGT\n\n### Response:\npromoter"


def spliced_with_colon_newline() -> Any:
    """Return LLaMA-3's pattern with ":\\n" as one token, as its real vocabulary has it."""
    from tokenizers import Tokenizer

    state = json.loads(tiktoken_like().backend_tokenizer.to_str())
    state["model"]["vocab"][":Ċ"] = len(state["model"]["vocab"])
    state["model"]["merges"].insert(0, [":", "Ċ"])
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)), bos_token="<s>", eos_token="</s>")
