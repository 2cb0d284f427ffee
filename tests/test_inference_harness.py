"""lm-evaluation-harness beside our own scoring: the same likelihoods and answers; differences with paired errors; nothing downloaded."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from llama_gene import runtime
from llama_gene.data.harness_tasks import harness_task, split_ids, write_task
from llama_gene.data.instructions import Example
from llama_gene.data.prompts import encode_answer, encode_prompt, get_template, render_prompt, render_user
from llama_gene.errors import ConfigError, InputError, MachineError, MismatchError
from llama_gene.inference import harness
from llama_gene.inference.harness import (
    HarnessRun,
    compare,
    english_results,
    harness_model,
    open_tasks,
    refuse_downloads,
    render_english,
    run_harness,
)
from llama_gene.inference.scoring import score_labels
from llama_gene.models.adapters import load_model
from llama_gene.tokenization.tokenizer import open_vocabulary
from tests.fixtures.tiny_tokenizers import sentencepiece_like, tiktoken_like, without_bos
from tests.fixtures.tiny_vocabularies import spliced
from tests.tiny_models import save_adapter, tiny_gpt2, tiny_llama, tiny_tokenizer

installed = runtime.package_version("lm-eval") != "not installed"
needs_harness = pytest.mark.skipif(not installed, reason='lm-evaluation-harness is not installed: pip install "llama-gene[harness]"')

LABELS = ["Non-promoter", "promoter", "promoter site"]


def colon_newline() -> PreTrainedTokenizerFast:
    """Return LLaMA-3's pattern with ":\\n" as one token, as its real vocabulary has it."""
    state = json.loads(tiktoken_like().backend_tokenizer.to_str())
    state["model"]["vocab"][":Ċ"] = len(state["model"]["vocab"])
    state["model"]["merges"].insert(0, [":", "Ċ"])
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)), bos_token="<s>", eos_token="</s>")


def adds_bos() -> PreTrainedTokenizerFast:
    """Return the SentencePiece-like tokenizer with LLaMA's post-processor: BOS in front of every text."""
    backend = Tokenizer.from_str(sentencepiece_like().backend_tokenizer.to_str())
    backend.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


TOKENIZERS = {
    "bytes": tiny_tokenizer, "SentencePiece": sentencepiece_like, "tiktoken": tiktoken_like, "no BOS": without_bos,
    "colon and newline in one": colon_newline, "BOS by the tokenizer": adds_bos,
}  # fmt: skip


def gene_examples(num: int = 6) -> list[Example]:
    rng = np.random.default_rng(5)
    sequences = ["".join(rng.choice(list("ACGT"), size=int(rng.integers(8, 30)))) for _ in range(num)]
    return [
        Example(
            task="promoter", family="classification", split="test", instruction="Determine the promoter detection of following dna.",
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
    group = {
        "group": "own_group",
        "task": ["own_even", "own_last_word"],
        "aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}],
    }
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
    """Return the log-likelihood of the text between input and answer, by a plain forward pass: what the harness adds to all labels."""
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
    tokenizer = colon_newline()
    context, answer = "### Response:\n", "promoter"
    assert tokenizer.decode(split_ids(tokenizer, context, answer)) == "### Response:promoter"
    assert tokenizer.decode(split_ids(tokenizer, "ACGT", "\n\n" + context + answer)) == "ACGT\n\n### Response:\npromoter"


@pytest.mark.real_data
@pytest.mark.skipif("LLAMA_GENE_DATA" not in os.environ, reason="LLAMA_GENE_DATA names no data folder")
@pytest.mark.parametrize(("name", "lost"), [("llama2", 0), ("llama3", 100)])
def test_real_vocabularies_lose_nothing_at_the_seam(name: str, lost: int) -> None:
    folder = Path(os.environ["LLAMA_GENE_DATA"])
    tokenizer = open_vocabulary(str(folder / "tokenizers" / name / "tokenizer.model")).tokenizer()
    rows: list[Any] = json.loads((folder / "instructions" / "llama_gene_dna_test_1000_with_predictions.json").read_text())
    behind_the_prompt = 0
    for row in rows[::10]:
        example: Any = {**row, "task": "t", "labels": [row["output"]], "group": ""}
        assert harness_task("t", [example], tokenizer=tokenizer).other_ids == 0
        message = render_user(row["instruction"], row["input"])
        prompt, answer = tokenizer.bos_token + render_prompt(message), row["output"] + tokenizer.eos_token
        ours = encode_prompt(tokenizer, message) + encode_answer(tokenizer, row["output"])
        behind_the_prompt += split_ids(tokenizer, prompt, answer) != ours
    assert behind_the_prompt == lost


# --- English: two models, the same questions -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base, an adapter on it and four English tasks of our own."""
    folder = tmp_path_factory.mktemp("english")
    save_adapter(folder)
    write_english_tasks(folder / "tasks")
    return folder


OWN = ["own_even", "own_last_word", "own_whole", "own_said"]


@pytest.fixture(scope="module")
def measured(place: Path) -> dict[str, Any]:
    """The four tasks on base and adapter."""
    return english_results(str(place / "base"), str(place / "adapter"), OWN, include_path=place / "tasks")


@needs_harness
def test_base_and_model_answer_the_same_questions_and_the_difference_has_its_error(measured: dict[str, Any]) -> None:
    rows = {(row["task"], row["metric"]): row for row in measured["tasks"]}
    assert set(rows) == {
        ("own_even", "acc"), ("own_even", "acc_norm"), ("own_last_word", "acc"), ("own_last_word", "perplexity"),
        ("own_whole", "bits_per_byte"), ("own_said", "exact_match"),
    }  # fmt: skip
    assert [rows["own_even", "acc"]["n"], rows["own_last_word", "perplexity"]["n"]] == [12, 5]
    for row in rows.values():
        difference = row["difference"]
        assert difference["value"] == row["after"]["value"] - row["before"]["value"]
        assert difference["se"] >= 0 and difference["interval"][0] <= difference["value"] <= difference["interval"][1]
    assert rows["own_last_word", "perplexity"]["difference"]["se"] > 0 and rows["own_last_word", "perplexity"]["higher_is_better"] is False
    assert (measured["cut"], measured["adds_bos"], measured["changed"]) == ({"before": 0, "after": 0}, False, 0)
    assert measured["lm_eval"] == runtime.package_version("lm-eval") and measured["requests"] == 24 + 5 + 5


@needs_harness
def test_a_model_compared_with_itself_differs_by_nothing(place: Path) -> None:
    pair = load_model(place / "base")
    same = english_results(pair, pair, ["own_even", "own_last_word"], include_path=place / "tasks")
    assert all((row["difference"]["value"], row["difference"]["se"]) == (0.0, 0.0) for row in same["tasks"])
    assert pair[1].pad_token is None  # the harness gave its own copy one


@needs_harness
def test_values_and_errors_are_the_harness_own(place: Path, measured: dict[str, Any]) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    model, tokenizer = load_model(place / "adapter")
    manager = TaskManager(include_path=str(place / "tasks"), include_defaults=False)
    plain = simple_evaluate(HFLM(pretrained=model, tokenizer=tokenizer, batch_size=3), tasks=["own_even"], task_manager=manager)["results"]
    row = next(row for row in measured["tasks"] if (row["task"], row["metric"]) == ("own_even", "acc"))
    assert row["after"]["value"] == plain["own_even"]["acc,none"]
    assert row["after"]["se"] == pytest.approx(plain["own_even"]["acc_stderr,none"], abs=1e-12)


@needs_harness
@pytest.mark.parametrize("tied", [False, True])
def test_an_adapter_keeps_its_logits_inside_the_harness(tied: bool, tmp_path: Path) -> None:
    model, tokenizer = load_model(save_adapter(tmp_path, tied=tied))
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        before = model(input_ids=ids).logits
        wrapped = harness_model(model, tokenizer)
        torch.testing.assert_close(wrapped._model_call(ids), before)


@needs_harness
def test_likelihoods_of_a_bfloat16_model_are_taken_in_float32(place: Path) -> None:
    model, tokenizer = load_model(place / "base", "bfloat16")
    request = [(("", ""), [5, 6, 7], [8, 9])]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[5, 6, 7, 8]])).logits[0]
    chances = logits.float().log_softmax(-1)
    expected = float(chances[2, 8] + chances[3, 9])
    assert harness_model(model, tokenizer)._loglikelihood_tokens(request, disable_tqdm=True)[0][0] == pytest.approx(expected, abs=1e-5)
    rough = logits.log_softmax(-1)
    assert abs(float(rough[2, 8] + rough[3, 9]) - expected) > 1e-4


@needs_harness
def test_a_group_has_the_error_of_its_tasks(place: Path) -> None:
    results = english_results(str(place / "base"), str(place / "adapter"), ["own_group"], include_path=place / "tasks")
    rows = {row["task"]: row for row in results["tasks"] if row["metric"] == "acc"}
    even, word, group = (rows[name] for name in ("own_even", "own_last_word", "own_group"))
    assert group["n"] == 17 and group["after"]["value"] == pytest.approx((12 * even["after"]["value"] + 5 * word["after"]["value"]) / 17)
    for side in ("before", "after", "difference"):
        expected = np.hypot(12 / 17 * even[side]["se"], 5 / 17 * word[side]["se"])
        assert group[side]["se"] == pytest.approx(expected)


@needs_harness
def test_requests_longer_than_the_model_are_counted_and_said(place: Path) -> None:
    results = english_results(None, str(place / "base"), ["own_even"], include_path=place / "tasks", max_length=16, limit=3)
    assert results["cut"] == {"after": 6} and results["changed"] is None
    text = render_english(results)
    assert "cut off at the left: 6 after" in text and "Only the first 3 questions" in text
    assert "| own_even | acc ↑ | 3 | 0 | - | " in text


@needs_harness
def test_a_base_and_a_model_of_which_one_gets_bos_are_not_compared(place: Path) -> None:
    model, tokenizer = load_model(place / "base")
    other = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()), bos_token="<s>", eos_token="</s>"
    )
    other.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    with pytest.raises(MismatchError, match="the tokenizer of the model puts BOS in front"):
        english_results((model, tokenizer), (model, other), ["own_even"], include_path=place / "tasks")


@needs_harness
def test_tasks_that_need_a_download_are_named_before_anything_is_loaded(place: Path) -> None:
    with pytest.raises(InputError, match=r"arc_easy \(allenai/ai2_arc\), mmlu_\w+ \(\S+\).* and \d+ more.*HF_HUB_OFFLINE=1"):
        english_results("no such model", "no such model", ["own_even", "arc_easy", "mmlu"], include_path=place / "tasks")


@needs_harness
def test_a_file_behind_a_url_is_a_download_and_local_files_are_not(place: Path) -> None:
    with pytest.raises(InputError, match=r"own_far \(https://example.org/a.jsonl\)"):
        refuse_downloads(open_tasks(["own_far"], place / "tasks"), ["own_far"])
    refuse_downloads(open_tasks([*OWN, "own_group"], place / "tasks"), [*OWN, "own_group"])


@needs_harness
def test_an_unknown_task_an_empty_folder_and_no_task_are_one_line_each(place: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no task 'own_evn'.*Did you mean 'own_even'"):
        english_results(None, str(place / "base"), ["own_evn"], include_path=place / "tasks")
    with pytest.raises(InputError, match="holds no task file"):
        english_results(None, str(place / "base"), ["own_even"], include_path=tmp_path)
    with pytest.raises(ConfigError, match="no English task is given"):
        english_results(None, str(place / "base"), [])
    with pytest.raises(ConfigError, match="task 'own_even' is asked for by 'own_even' and by 'own_group'"):
        english_results(None, str(place / "base"), ["own_even", "own_group"], include_path=place / "tasks")
    with pytest.raises(ConfigError, match="the limit is 0"):
        english_results(None, str(place / "base"), ["own_even"], limit=0)


@needs_harness
def test_data_that_is_gone_is_one_line(tmp_path: Path, place: Path) -> None:
    folder = write_english_tasks(tmp_path / "tasks")
    (folder / "even.jsonl").unlink()
    with pytest.raises(InputError, match="the data of own_even cannot be read: FileNotFoundError"):
        run_harness(*load_model(place / "base"), open_tasks(["own_even"], folder), ["own_even"])


def test_without_the_harness_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "package_version", lambda name="llama-gene": "not installed")
    with pytest.raises(MachineError, match=r"lm-evaluation-harness is not installed.*llama-gene\[harness\]"):
        english_results(None, "model", ["arc_easy"])


def test_a_harness_that_does_not_load_beside_the_libraries_is_one_line_with_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "package_version", lambda name="llama-gene": "0.4.3")
    monkeypatch.setitem(sys.modules, "lm_eval.models", None)
    with pytest.raises(MachineError, match="lm-eval 0.4.3 does not load beside transformers 0.4.3.*: "):
        harness.check_installed()


# --- arithmetic, without the harness ---------------------------------------------------------------------------------------------


def runs(before: list[float], after: list[float], aggregate: Any = np.mean) -> tuple[HarnessRun, HarnessRun]:
    facts = {"t": {"version": 1, "shots": 0, "higher_is_better": {"acc": True}, "aggregate": {"acc": aggregate}}}
    key = ("t", "acc", "none")
    first, second = (HarnessRun({key: values}, {key: float(aggregate(values))}, facts) for values in (before, after))
    return first, second


def test_the_error_of_a_difference_is_paired() -> None:
    (row,) = compare(*runs([1, 0, 1, 0, 1, 0, 1, 0], [1, 0, 1, 0, 1, 0, 1, 1]))
    assert row["difference"]["value"] == 0.125 and row["difference"]["se"] == pytest.approx(0.125)  # sd of seven 0 and one 1, / sqrt(8)
    assert row["difference"]["interval"] == pytest.approx([0.125 - 0.244995, 0.125 + 0.244995], abs=1e-6)
    assert row["before"]["se"] == pytest.approx(np.std([0, 1], ddof=0) / np.sqrt(7))


def test_a_metric_that_is_no_mean_gets_the_bootstrap_error() -> None:
    rng = np.random.default_rng(0)
    before, after = rng.normal(3, 1, 400), rng.normal(3, 1, 400)

    def root_mean(values: Any) -> float:
        return float(np.sqrt(np.mean(values)))

    (row,) = compare(*runs(before.tolist(), after.tolist(), root_mean))
    expected = np.std(before, ddof=1) / np.sqrt(400) / (2 * np.sqrt(before.mean()))  # delta method
    assert row["before"]["se"] == pytest.approx(expected, rel=0.1)
    assert row["difference"]["se"] == pytest.approx(np.hypot(row["before"]["se"], row["after"]["se"]), rel=0.15)


def test_one_question_has_no_error() -> None:
    (row,) = compare(*runs([1], [0]))
    assert row["difference"] == {"value": -1.0, "se": None, "interval": None}
