"""The DNAHLM route: a classification head on a causal model, trained, chosen by dev, tested once and written whole."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerFast, pipeline

from llama_gene.data.instructions import Example
from llama_gene.data.supervised import EncodedPrompt, encode_sequences
from llama_gene.errors import ConfigError, InputError
from llama_gene.models.heads import classify_rows, load_classifier, new_classifier, pad_rows, padding_id
from llama_gene.models.settings import LoraSettings
from llama_gene.recipes import classify
from llama_gene.runtime import read_json, read_manifest
from llama_gene.training.classifier import LabelledRow, mean_cross_entropy, train_classifier
from llama_gene.training.settings import TrainSettings
from tests.tiny_models import save_adapter, save_model, tiny_gpt2, tiny_llama, tiny_tokenizer

LABELS = ["weak", "strong"]
TRAIN = TrainSettings(epochs=2.0, batch_size=8, learning_rate=3e-3, precision="fp32", scheduler="linear", logging_steps=10)


def gene(rng: random.Random, label: str, length: int) -> str:
    """Return DNA in which AT pairs are frequent (strong) or rare (weak): what a k-mer model and a head both learn."""
    return "".join(rng.choices("ACGT", weights=[4, 1, 1, 4] if label == "strong" else [1, 2, 2, 1], k=length))


def row_of(tokenizer: PreTrainedTokenizerFast, *sequences: str, max_length: int = 200) -> EncodedPrompt:
    """Return the encoded row of some sequences."""
    row = encode_sequences(tokenizer, cast("Example", {"sequences": list(sequences), "family": "pair"}), max_length)
    assert row is not None
    return row


def write_task(folder: Path, num_train: int = 160, length: int = 24, **changes: object) -> Path:
    """Write a task of two classes, 0 and 1 in the tables, and return its YAML."""
    rng = random.Random(3)
    folder.mkdir(parents=True, exist_ok=True)
    for split, num_rows in (("train", num_train), ("dev", 40), ("test", 60)):
        rows = [(gene(rng, LABELS[i % 2], length), i % 2) for i in range(num_rows)]
        (folder / f"{split}.csv").write_text("sequence,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    task = {
        "name": "strength",
        "title": "promoter strength",
        "family": "classification",
        "strand": "sense",
        "labels": {"0": "weak", "1": "strong"},
    }
    task |= {split: f"{split}.csv" for split in ("train", "dev", "test")}
    path = folder / "task.yaml"
    path.write_text(yaml.safe_dump({**task, **changes}))
    return path


def endless() -> PreTrainedTokenizerFast:
    """Return GPT-2's kind of tokenizer: one special token, which begins, ends and pads."""
    tokenizer = tiny_tokenizer()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, bos_token="</s>", eos_token="</s>")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One classifier, trained whole."""
    folder = tmp_path_factory.mktemp("classify")
    save_model(tiny_llama(), tiny_tokenizer(), folder / "base")
    config = classify.Config(
        model=str(folder / "base"), task=write_task(folder / "task"), max_length=64, train=TRAIN, output_dir=folder / "classifier"
    )
    return classify.run(config)


def test_a_task_that_can_be_learned_is_learned(trained: Path) -> None:
    report = read_json(trained / "results.json")
    result = report["tasks"][0]
    assert result["baselines"]["majority"]["score"] == 0.5 and result["n"] == 60
    assert result["interval"][0] > 0.5 and result["score"] > 0.8
    assert result["baselines"]["k-mer logistic regression"]["score"] > 0.8
    table = (trained / "results.md").read_text()
    assert "| strength | classification | accuracy | 60 | 0.500 |" in table and "Chosen by dev: step" in table


def test_the_folder_is_complete_and_nothing_else_is_left(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert names >= {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "results.json",
        "results.md",
        "results.html",
        "predictions.jsonl",
    }
    assert (trained / "loss.png").is_file() and (trained / "predictions.jsonl").is_file()
    page = (trained / "results.html").read_text()
    assert "head sequence, split test" in page and "k-mer logistic regression" in page and "Calibration" in page
    assert not list(trained.parent.glob("*.work")) and not list(trained.parent.glob(".*part"))
    manifest = read_manifest(trained, "classify")
    assert manifest["labels"] == LABELS and manifest["rows"]["train"] == {"rows": 160, "shortened": 0, "rejected": 0}


def test_dev_alone_chooses_the_weights(trained: Path) -> None:
    report = read_json(trained / "results.json")
    steps = [look["step"] for look in report["dev"]]
    assert steps == [20, 40]  # 160 rows of 8, twice
    best = max(look["score"] for look in report["dev"])
    assert report["chosen_step"] == next(look["step"] for look in report["dev"] if look["score"] == best)


def test_weights_that_dev_likes_less_later_are_not_kept(tmp_path: Path) -> None:
    classifier = new_classifier(save_model(tiny_llama(), tiny_tokenizer(), tmp_path / "base"), tiny_tokenizer(), LABELS)
    rows = [LabelledRow(row_of(tiny_tokenizer(), "ACGT" * (1 + i % 3)).input_ids, i % 2) for i in range(8)]
    verdicts = iter([0.4, 0.9, 0.1, 0.9])
    settings = TrainSettings(steps=4, batch_size=4, save_steps=1, precision="fp32", learning_rate=1e-2)
    result, folder = train_classifier(classifier, rows, rows[:4], lambda truth, logits: next(verdicts), settings, tmp_path / "work", "key")
    assert [look["score"] for look in result.looks] == [0.4, 0.9, 0.1, 0.9] and result.chosen_step == 2
    kept, chosen = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "work" / "checkpoint-2"))
    last = load_file(tmp_path / "work" / "checkpoint-4" / "model.safetensors")
    assert all(torch.equal(kept[name], chosen[name]) for name in kept)
    assert not torch.equal(kept["score.weight"], last["score.weight"])


def test_transformers_alone_gives_the_same_probabilities(trained: Path) -> None:
    lines = [json.loads(line) for line in (trained / "predictions.jsonl").read_text().splitlines()]
    texts = [line.split(",")[0] for line in (trained.parent / "task" / "test.csv").read_text().splitlines()[1:]]
    classifier = pipeline("text-classification", model=str(trained), top_k=None, device="cpu")
    for line, scores in zip(lines[:9], classifier(texts[:9], batch_size=4), strict=True):
        found = {score["label"]: score["score"] for score in scores}
        assert found == pytest.approx(line["probability"], abs=2e-6)


@pytest.mark.parametrize("kind", ["unknown pads", "end pads", "gpt2"])
def test_law_08_a_score_does_not_depend_on_batch_mates_or_padding(kind: str, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer() if kind == "unknown pads" else endless()
    model = tiny_gpt2() if kind == "gpt2" else tiny_llama()
    classifier = new_classifier(save_model(model, tokenizer, tmp_path), tokenizer, LABELS).eval()
    assert padding_id(tokenizer) == (2 if kind == "unknown pads" else tokenizer.eos_token_id)
    rng = random.Random(0)
    texts = [gene(rng, "weak", length) for length in (1, 3, 17, 60, 60, 120)]
    rows = [row_of(tokenizer, text).input_ids for text in texts]
    alone = np.concatenate([classify_rows(classifier, [row]) for row in rows])
    assert np.abs(alone - alone.mean(0)).max() > 1e-2  # the rows do differ
    for batch_tokens in (130, 16384):
        assert np.abs(classify_rows(classifier, rows, batch_tokens) - alone).max() < 1e-5
    assert np.abs(classify_rows(classifier, rows[::-1])[::-1] - alone).max() < 1e-5


def test_a_row_is_read_at_its_end_and_not_at_its_padding() -> None:
    padded = pad_rows([[0, 9, 8, 1], [0, 7, 1]], pad_id=2)
    assert padded["input_ids"].tolist() == [[0, 9, 8, 1], [0, 7, 1, 2]]
    assert padded["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]


def test_the_loss_is_the_mean_over_the_whole_global_batch() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 2), torch.tensor([0, 1, 1, 0, 1, 0])
    whole = mean_cross_entropy({"logits": logits}, labels)
    parts = [mean_cross_entropy({"logits": logits[a:b]}, labels[a:b], num_items_in_batch=6) for a, b in ((0, 2), (2, 6))]
    assert torch.isclose(sum(parts), whole)


def test_accumulation_gives_the_same_weights(tmp_path: Path) -> None:
    task = write_task(tmp_path / "task", num_train=32)
    save_model(tiny_llama(), tiny_tokenizer(), tmp_path / "base")
    weights = {}
    for batch_size, accumulation in ((8, 1), (2, 4)):
        train = TrainSettings(steps=3, batch_size=batch_size, accumulation=accumulation, precision="fp32", learning_rate=1e-3)
        folder = tmp_path / f"out{accumulation}"
        classify.run(
            classify.Config(model=str(tmp_path / "base"), task=task, max_length=64, train=train, num_resamples=10, output_dir=folder)
        )
        weights[accumulation] = AutoModelForSequenceClassification.from_pretrained(folder).state_dict()
    assert max((weights[1][name] - weights[4][name]).abs().max().item() for name in weights[1]) < 1e-5


def test_lora_saves_the_adapter_and_the_head(tmp_path: Path) -> None:
    save_model(tiny_gpt2(), endless(), tmp_path / "base")
    config = classify.Config(
        model=str(tmp_path / "base"),
        task=write_task(tmp_path / "task", num_train=80),
        max_length=64,
        full=False,
        lora=LoraSettings(rank=4, dropout=0.0, target_modules=["c_attn"], modules_to_save=["score"]),
        train=TrainSettings(epochs=2.0, batch_size=8, learning_rate=2e-2, precision="fp32"),
        output_dir=tmp_path / "out",
    )
    folder = classify.run(config)
    assert not (folder / "model.safetensors").exists()
    manifest = read_manifest(folder, "classify")
    assert manifest["trainable_parameters"] == 2 * 4 * (32 + 96) + 2 * 32  # c_attn in two layers, the head
    result = read_json(folder / "results.json")["tasks"][0]
    assert result["interval"][0] > result["baselines"]["majority"]["score"]
    model, _ = load_classifier(folder)
    assert model.get_base_model().score.weight.shape == (2, 32)


def test_a_pair_is_joined_by_a_newline_and_shortened_evenly() -> None:
    tokenizer = tiny_tokenizer()
    assert tokenizer.decode(row_of(tokenizer, "AAAAAA", "CCCC").input_ids) == "<s>AAAAAA\nCCCC</s>"
    short = row_of(tokenizer, "AAAAAA", "CCCC", max_length=8)
    assert tokenizer.decode(short.input_ids) == "<s>AAA\nCC</s>" and short.num_shortened == 5


def test_long_training_rows_are_shortened_and_long_test_rows_rejected_unless_asked(tmp_path: Path) -> None:
    task = write_task(tmp_path / "task", num_train=16)
    with (tmp_path / "task" / "train.csv").open("a") as train, (tmp_path / "task" / "test.csv").open("a") as test:
        train.write("AC" * 25 + ",1\n")
        test.write("T" * 50 + ",1\n")
    save_model(tiny_llama(), tiny_tokenizer(), tmp_path / "base")
    for shorten in (False, True):
        config = classify.Config(
            model=str(tmp_path / "base"),
            task=task,
            max_length=30,
            shorten=shorten,
            train=TrainSettings(steps=1, precision="fp32"),
            num_resamples=10,
            output_dir=tmp_path / "out",
        )
        result = read_json(classify.run(config) / "results.json")["tasks"][0]
        assert (result["n"], result["rejected"], result["shortened"]) == ((61, 0, 1) if shorten else (60, 1, 0))
        assert read_manifest(tmp_path / "out")["rows"]["train"] == {"rows": 17, "shortened": 1, "rejected": 0}
        lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
        assert len(lines) == 61 and ('"rejected": "row too long"' in lines[60]) is not shorten


def test_what_cannot_be_a_classifier_is_refused_in_one_line(tmp_path: Path, trained: Path) -> None:
    task = write_task(tmp_path / "task")
    adapter = save_adapter(tmp_path / "adapter")

    def run(**changes: object) -> None:
        values: dict = {"model": str(trained.parent / "base"), "task": task, "max_length": 64, "output_dir": tmp_path / "out"}
        classify.run(classify.Config(**{**values, **changes}))

    with pytest.raises(ConfigError, match=r"is an adapter; expected a whole model\. Export it first: llama-gene export"):
        run(model=str(adapter))
    with pytest.raises(InputError, match="is a LlamaForSequenceClassification; expected a causal language model"):
        run(model=str(trained))
    with pytest.raises(ConfigError, match="max_length is 4096; expected at most 1024"):
        run(max_length=4096)
    for name in ("max_length", "batch_tokens", "num_resamples"):
        with pytest.raises(ConfigError, match=f"{name} is 0; expected at least 1"):
            run(**{name: 0})
    free = write_task(tmp_path / "free", family="function", labels={}, max_closed_labels=1)
    with pytest.raises(ConfigError, match="no closed list of answers"):
        run(task=free)
    with pytest.raises(InputError, match="no test row of task 'strength' fits 8 tokens"):
        run(max_length=8)
    with pytest.raises(ConfigError, match="model, task or output_dir"):
        run(model=None)
    assert not (tmp_path / "out").exists()


def test_the_written_tokenizer_gives_the_rows_of_training(trained: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(trained)
    assert tokenizer("ACGT")["input_ids"] == row_of(tiny_tokenizer(), "ACGT").input_ids
    assert tokenizer(["ACGT", "A"], padding=True)["input_ids"][1][-3:] == [2, 2, 2]
