"""Heads for residues and numbers, and every head on an encoder: trained, chosen by dev, tested once by what was written."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from transformers import pipeline

from llama_gene.errors import ConfigError, InputError, MismatchError
from llama_gene.inference import metrics
from llama_gene.models.heads import classify_rows
from llama_gene.models.settings import LoraSettings
from llama_gene.models.task_heads import IGNORED, Head, head_layers, is_encoder, letter_logits, new_head, open_reader
from llama_gene.recipes import classify
from llama_gene.recipes.classify_heads import load_head, lora_baseline
from llama_gene.runtime import read_json, read_manifest
from llama_gene.training.classifier import LabelCollator, LabelledRow, mean_cross_entropy, mean_squared_error
from llama_gene.training.settings import TrainSettings
from tests.tiny_encoders import RESIDUES, save_bert, save_esm
from tests.tiny_models import PIECES, save_model, tiny_gpt2, tiny_llama, tiny_tokenizer

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
STATE_OF = {letter: "H" if letter in "AELMQKRH" else "E" if letter in "VIYCWFT" else "C" for letter in LETTERS}
TRAIN = TrainSettings(epochs=3.0, batch_size=8, learning_rate=1e-2, precision="fp32", scheduler="linear", report_to=[])


def write_table(folder: Path, name: str, rows: dict[str, list[tuple[str, str]]], **task: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split, pairs in rows.items():
        (folder / f"{split}.csv").write_text("sequence,label\n" + "".join(f"{sequence},{label}\n" for sequence, label in pairs))
    path = folder / "task.yaml"
    path.write_text(yaml.safe_dump({"name": name, "title": name, **task, **{split: f"{split}.csv" for split in rows}}))
    return path


def structure_task(folder: Path, num_train: int = 60) -> Path:
    """Proteins whose states are decided by the residue alone; each fifth one is not resolved."""
    rng = random.Random(1)

    def protein(_: int) -> tuple[str, str]:
        sequence = "".join(rng.choices(LETTERS, k=rng.randrange(20, 50)))
        return sequence, "".join("-" if i % 5 == 4 else STATE_OF[letter] for i, letter in enumerate(sequence))

    rows = {split: [protein(i) for i in range(num)] for split, num in (("train", num_train), ("dev", 8), ("test", 10))}
    return write_table(folder, "states", rows, family="structure", kinds=["protein"])


def value_task(folder: Path, num_train: int = 120) -> Path:
    rng = random.Random(2)

    def gene(_: int) -> tuple[str, str]:
        share = rng.random()
        sequence = "".join(rng.choices("ACGT", [1 - share, share, share, 1 - share], k=24))
        return sequence, f"{1000 + 10 * sum(map(sequence.count, 'GC'))}"

    rows = {split: [gene(i) for i in range(num)] for split, num in (("train", num_train), ("dev", 40), ("test", 60))}
    return write_table(folder, "strength", rows, family="regression", strand="sense", bins=2)


def class_task(folder: Path, num_train: int = 96) -> Path:
    rng = random.Random(3)

    def protein(i: int) -> tuple[str, str]:
        return "".join(rng.choices("LIVFDEKR", [4, 4, 4, 4, 1, 1, 1, 1] if i % 2 else [1, 1, 1, 1, 4, 4, 4, 4], k=30)), str(i % 2)

    rows = {split: [protein(i) for i in range(num)] for split, num in (("train", num_train), ("dev", 30), ("test", 60))}
    return write_table(folder, "place", rows, family="classification", kinds=["protein"], labels={"0": "soluble", "1": "membrane"})


def run(model: Path, task: Path, output: Path, head: Head, **changes: Any) -> Path:
    values: dict[str, Any] = {"max_length": 64, "train": TRAIN, "num_resamples": 50}
    return classify.run(classify.Config(model=str(model), task=task, head=head, output_dir=output, **{**values, **changes}))


@pytest.mark.parametrize("kind", ["esm", "gpt2"])
def test_a_residue_head_learns_the_state_of_each_resolved_residue(kind: str, tmp_path: Path) -> None:
    if kind == "esm":
        model = save_esm(tmp_path / "base")
    else:
        model = save_model(tiny_gpt2(), tiny_tokenizer(), tmp_path / "base")
    task = structure_task(tmp_path / "task")
    folder = run(model, task, tmp_path / "out", "residue", max_length=32)
    result = read_json(folder / "results.json")["tasks"][0]
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert len(lines) == 10 and all(len(line["answer"]) == len(line["states"]) for line in lines)  # longer than max_length, none lost
    assert max(len(line["states"]) for line in lines) > 32
    resolved = [(state, said) for line in lines for state, said in zip(line["states"], line["answer"], strict=True) if state != "-"]
    assert result["metric"] == "Q3" and result["n"] == len(resolved) and result["proteins"] == 10 and result["labels"] == ["C", "E", "H"]
    assert result["score"] == pytest.approx(np.mean([state == said for state, said in resolved]))
    assert (
        result["score"] > 0.9 > result["baselines"]["majority"]["score"] + 0.3
        and result["interval"][0] <= result["score"] <= result["interval"][1]
    )
    assert "head residue, split test" in (folder / "results.html").read_text()
    assert not list(tmp_path.glob("*.work"))


def test_a_written_residue_head_is_read_by_transformers_alone(tmp_path: Path) -> None:
    folder = run(save_esm(tmp_path / "base"), structure_task(tmp_path / "task", 16), tmp_path / "out", "residue")
    sequence = (tmp_path / "task" / "test.csv").read_text().splitlines()[1].split(",")[0]
    found = pipeline("token-classification", model=str(folder), device="cpu")(sequence)
    line = json.loads((folder / "predictions.jsonl").read_text().splitlines()[0])
    assert "".join(token["entity"] for token in found) == line["answer"]


@pytest.mark.parametrize("kind", ["esm", "llama"])
def test_a_regression_head_predicts_the_value_in_its_own_unit(kind: str, tmp_path: Path) -> None:
    if kind == "esm":
        model = save_esm(tmp_path / "base")
    else:
        model = save_model(tiny_llama(), tiny_tokenizer(), tmp_path / "base")
    folder = run(model, value_task(tmp_path / "task"), tmp_path / "out", "regression")
    result = read_json(folder / "results.json")["tasks"][0]
    assert result["metric"] == "Spearman" and result["score"] > 0.7 and result["interval"][0] > 0.4 and result["n"] == 60
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    truth, said = np.array([[line["value"], line["answer"]] for line in lines]).T
    assert metrics.spearman(truth, said) == pytest.approx(result["score"])
    assert np.abs(truth - said).mean() < 0.7 * np.abs(truth - truth.mean()).mean()
    manifest = read_manifest(folder, "classify")
    assert manifest["head"] == "regression" and 1050 < manifest["value_mean"] < 1200
    report = read_json(folder / "results.json")
    best = max(look["score"] for look in report["dev"])
    assert report["chosen_step"] == next(look["step"] for look in report["dev"] if look["score"] == best)


def test_an_encoder_gets_a_head_for_classes_whole_or_by_lora(tmp_path: Path) -> None:
    model, task = save_bert(tmp_path / "base", list(RESIDUES)), class_task(tmp_path / "task")
    whole = run(model, task, tmp_path / "whole", "sequence")
    assert read_json(whole / "results.json")["tasks"][0]["score"] > 0.8
    assert read_manifest(whole, "classify")["spelling"] == "spaced"
    lora = LoraSettings(rank=4, dropout=0.0, target_modules=["query", "value"])
    adapter = run(model, task, tmp_path / "adapter", "sequence", full=False, lora=lora)
    assert read_json(adapter / "results.json")["tasks"][0]["score"] > 0.7 and not (adapter / "model.safetensors").exists()
    loaded, reader, _ = load_head(adapter)
    row = reader.encode({"sequences": ["LIVFLIVF"], "family": "classification"}, 64)  # type: ignore[typeddict-item]
    assert row is not None and classify_rows(loaded, [row.input_ids]).argmax() == 1


@pytest.mark.parametrize("kind", ["esm", "gpt2"])
def test_the_lora_baseline_beats_the_majority_on_given_splits_and_shuffled_labels_do_not(kind: str, tmp_path: Path) -> None:
    from llama_gene.inference.baselines.rows import shuffle_labels

    if kind == "esm":
        model = save_esm(tmp_path / "base")
    else:
        model = save_model(tiny_gpt2(), tiny_tokenizer(), tmp_path / "base")
    rng = random.Random(4)

    def rows(num: int) -> list[dict[str, Any]]:
        return [
            {
                "sequences": ["".join(rng.choices("LDKA", [4, 1, 1, 2] if i % 2 else [1, 4, 4, 2], k=24))],
                "output": "yes" if i % 2 else "no",
                "family": "classification",
            }
            for i in range(num)
        ]

    train, dev, test = rows(96), rows(30), rows(100)
    settings = TrainSettings(epochs=2.0, batch_size=8, learning_rate=1e-2, precision="fp32", report_to=[])
    lora = LoraSettings(rank=4, dropout=0.0, target_modules=[])

    def right(train_rows: list[dict[str, Any]], dev_rows: list[dict[str, Any]]) -> float:
        found = lora_baseline(
            str(model), train_rows, dev_rows, test, "classification", ["no", "yes"], settings, lora, tmp_path / "work", max_length=60
        )
        assert found.scores is not None, found.reason
        np.testing.assert_allclose(found.scores.sum(1), 1.0)
        return float(np.mean([["no", "yes"][k] == row["output"] for k, row in zip(found.scores.argmax(1), test, strict=True)]))

    assert right(train, dev) > 0.8 and not (tmp_path / "work").exists()
    assert right(shuffle_labels(train, 1), shuffle_labels(dev, 1)) < 0.65


def test_the_lora_baseline_of_a_regression_gives_numbers(tmp_path: Path) -> None:
    rng = random.Random(5)

    def rows(num: int) -> list[dict[str, Any]]:
        texts = ["".join(rng.choices("LD", [share, 1 - share], k=20)) for share in (rng.random() for _ in range(num))]
        return [
            {"sequences": [t], "value": 50.0 + t.count("L"), "output": "high" if t.count("L") > 9 else "low", "family": "regression"}
            for t in texts
        ]

    settings = TrainSettings(epochs=3.0, batch_size=8, learning_rate=1e-2, precision="fp32", report_to=[])
    test = rows(80)
    found = lora_baseline(
        str(save_esm(tmp_path / "base")), rows(120), rows(30), test, "regression", ["low", "high"], settings,
        LoraSettings(rank=4, dropout=0.0, target_modules=[]), tmp_path / "work", max_length=60,
    )  # fmt: skip
    truth = np.array([row["value"] for row in test])
    assert found.numbers is not None and metrics.spearman(truth, found.numbers) > 0.8 and 45 < found.numbers.mean() < 75
    assert found.scores is not None and found.scores.shape == (80, 2) and "regression head" in found.note
    several = [{**row, "answers": ["low"]} for row in test]
    none = lora_baseline(str(tmp_path / "base"), several, [], test, "function", ["low"], settings, LoraSettings(), tmp_path / "work")
    assert none.reason == "several labels a row"


@pytest.mark.parametrize("kind", ["esm", "bert", "llama", "gpt2"])
@pytest.mark.parametrize("head", ["residue", "regression", "sequence"])
def test_law_08_no_head_depends_on_batch_mates_or_padding(kind: str, head: Head, tmp_path: Path) -> None:
    if kind == "esm":
        model = save_esm(tmp_path)
    elif kind == "bert":
        model = save_bert(tmp_path, list(RESIDUES))
    else:
        model = save_model(tiny_llama() if kind == "llama" else tiny_gpt2(), tiny_tokenizer(), tmp_path)
    rng = random.Random(0)
    texts = ["".join(rng.choices(LETTERS, k=length)) for length in (1, 4, 11, 30, 40)]
    assert is_encoder(model) is (kind in ("esm", "bert"))
    reader = open_reader(model, texts)
    classifier = new_head(model, reader, head, ["C", "E", "H"]).eval()
    assert head_layers(classifier)
    if head == "residue":
        windows = [window for text in texts for window in reader.windows(text, 64)]
        alone = [next(iter(letter_logits(classifier, [window])))[1] for window in windows]
        together = dict(letter_logits(classifier, windows, batch_tokens=100))
        assert [part.shape for part in alone] == [(len(text), 3) for text in texts]
        assert max(np.abs(together[i] - alone[i]).max() for i in range(len(texts))) < 1e-5
        return
    rows = [row.input_ids for text in texts if (row := reader.encode({"sequences": [text], "family": "classification"}, 64))]  # type: ignore[typeddict-item]
    apart = np.concatenate([classify_rows(classifier, [row]) for row in rows])
    assert apart.shape == (5, 1 if head == "regression" else 3)
    assert np.abs(classify_rows(classifier, rows) - apart).max() < 1e-5


def test_a_letter_of_a_spliced_vocabulary_stays_a_token_of_its_own(tmp_path: Path) -> None:
    model = save_model(tiny_llama(len(tiny_tokenizer(PIECES))), tiny_tokenizer(PIECES), tmp_path)
    reader = open_reader(model, ["ACGT"])
    window = reader.windows("AACGTT", 64)[0]
    assert reader.tokenizer.decode(window.input_ids) == "<s>AACGTT</s>" and len(window.input_ids) == 8 and window.first == 1
    short = reader.windows("AACGTT", 6)
    assert [(part.start, part.size) for part in short] == [(0, 4), (4, 2)]
    with pytest.raises(ConfigError, match="more than 2, the special tokens"):
        reader.windows("AACGTT", 2)


def test_kmers_have_no_residue_head(tmp_path: Path) -> None:
    import itertools

    model = save_bert(tmp_path, ["".join(word) for word in itertools.product("ACGT", repeat=3)])
    reader = open_reader(model, ["ACGTACGT"])
    with pytest.raises(InputError, match="is not a token a letter in this vocabulary"):
        reader.windows("ACGTACGT", 60)


def test_losses_are_means_over_the_labels_of_the_whole_global_batch() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(4, 5, 3), torch.randint(0, 3, (4, 5))
    labels[0, 2:] = IGNORED
    whole = mean_cross_entropy({"logits": logits}, labels)
    known = labels != IGNORED
    assert torch.isclose(whole, torch.nn.functional.cross_entropy(logits[known], labels[known]))
    parts = [mean_cross_entropy({"logits": logits[a:b]}, labels[a:b], num_items_in_batch=17) for a, b in ((0, 1), (1, 4))]
    assert torch.isclose(sum(parts), whole)
    values = torch.tensor([1.0, 2.0])
    assert mean_squared_error({"logits": torch.tensor([[1.0], [4.0]])}, values).item() == 2.0
    assert mean_squared_error({"logits": torch.tensor([[1.0], [4.0]])}, values, num_items_in_batch=4).item() == 1.0


def test_labels_of_tokens_are_padded_with_what_carries_no_loss() -> None:
    batch = LabelCollator(7)([LabelledRow([1, 2, 3], [IGNORED, 0, 1]), LabelledRow([4], [2])])
    assert batch["labels"].tolist() == [[IGNORED, 0, 1], [2, IGNORED, IGNORED]] and batch["input_ids"].tolist()[1] == [4, 7, 7]
    assert LabelCollator(7)([LabelledRow([1], 0.5), LabelledRow([1], 1.0)])["labels"].dtype == torch.float32


def test_accumulation_gives_the_same_residue_head(tmp_path: Path) -> None:
    model = save_model(tiny_llama(classifier_dropout=0.0), tiny_tokenizer(), tmp_path / "base")  # micro-batches draw other masks
    task = structure_task(tmp_path / "task", 16)
    weights = {}
    for batch_size, accumulation in ((8, 1), (2, 4)):
        settings = TrainSettings(
            steps=2, batch_size=batch_size, accumulation=accumulation, precision="fp32", learning_rate=1e-3, report_to=[]
        )
        folder = run(model, task, tmp_path / f"out{accumulation}", "residue", train=settings)
        weights[accumulation] = load_head(folder)[0].state_dict()
    assert max((weights[1][name] - weights[4][name]).abs().max().item() for name in weights[1]) < 2e-5


def test_what_does_not_fit_together_is_refused_in_one_line(tmp_path: Path) -> None:
    model = save_esm(tmp_path / "esm")
    with pytest.raises(ConfigError, match="--head residue and task 'place' of the family classification; expected a structure task"):
        run(model, class_task(tmp_path / "classes", 16), tmp_path / "out", "residue")
    with pytest.raises(ConfigError, match="expected a regression task"):
        run(model, class_task(tmp_path / "classes", 16), tmp_path / "out", "regression")
    with pytest.raises(ConfigError, match="Set --head residue"):
        run(model, structure_task(tmp_path / "states", 8), tmp_path / "out", "sequence")
    with pytest.raises(ConfigError, match="max_length is 999; expected at most 66, the model's longest input"):
        run(model, class_task(tmp_path / "classes", 16), tmp_path / "out", "sequence", max_length=999)
    with pytest.raises(ConfigError, match="is an adapter; expected a whole model"):
        from tests.tiny_models import save_adapter

        run(save_adapter(tmp_path / "adapter"), structure_task(tmp_path / "states", 8), tmp_path / "out", "residue")
    assert not (tmp_path / "out").exists()


def test_a_head_with_another_vocabulary_is_not_loaded(tmp_path: Path) -> None:
    folder = run(
        save_esm(tmp_path / "base"),
        class_task(tmp_path / "task"),
        tmp_path / "out",
        "sequence",
        train=TrainSettings(steps=1, precision="fp32"),
    )
    tokens = (folder / "vocab.txt").read_text().split("\n")
    tokens[4], tokens[5] = tokens[5], tokens[4]
    (folder / "vocab.txt").write_text("\n".join(tokens))
    for name in ("tokenizer.json",):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(MismatchError, match="the tokenizer has vocabulary"):
        load_head(folder)
