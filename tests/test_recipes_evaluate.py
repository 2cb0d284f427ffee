"""The evaluate stage on a model with a random adapter: what it counts, compares, writes and refuses."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from llama_gene import runtime
from llama_gene.data.instructions import Example, write_examples
from llama_gene.data.prompts import encode_prompt, render_user
from llama_gene.errors import ConfigError, InputError
from llama_gene.recipes import compare
from llama_gene.recipes.evaluate import Config, run
from llama_gene.tokenization.tokenizer import load_tokenizer
from tests.fixtures.documents import write_documents
from tests.tiny_models import save_adapter

FAMILIES: dict[str, tuple[list[str], list[str]]] = {
    "classification": (["dna"], ["Non-promoter", "promoter"]),
    "structure": (["protein"], ["alpha helix", "beta sheet", "random coil"]),
    "pair": (["dna", "protein"], ["Conform", "Not Conform"]),
    "function": (["protein"], []),
    "regression": (["dna"], ["low", "medium", "high"]),
}


def example(family: str, split: str, i: int, rng: random.Random, length: int = 20) -> Example:
    kinds, labels = FAMILIES[family]
    sequences = ["".join(rng.choice("ACGT" if kind == "dna" else "MKVWDE") for _ in range(length)) for kind in kinds]
    output = labels[i % len(labels)] if labels else ["binds zinc", "kinase"][i % 2]
    return Example(
        task=f"{family}_task", family=family, split=split, instruction="Determine it.", input="\n####\n".join(sequences), output=output,
        labels=labels, sequences=sequences, kinds=kinds, group=f"protein {i // 3}" if family == "structure" else "",
        oracle=output if i % 4 else (labels[-1] if labels else "kinase"), value=None,
    )  # fmt: skip


def write_instructions(folder: Path, long_rows: int = 0) -> Path:
    folder.mkdir()
    rng = random.Random(0)
    for split, num in (("train", 12), ("dev", 3), ("test", 9)):
        rows = [example(family, split, i, rng) for family in FAMILIES for i in range(num)]
        if split == "test":
            rows += [example("classification", split, i, rng, length=400) for i in range(long_rows)]
        if split == "train":
            rows.append({**rows[0], "task": "english", "family": "english", "input": "", "output": "Hello", "labels": [], "sequences": []})
        write_examples(folder / f"{split}.jsonl", rows)
    titles = {family: {"family": family, "title": f"the {family}", "published": ""} for family in FAMILIES}
    titles["pair"]["published"] = "acc 0.8"
    tasks = {f"{family}_task": facts for family, facts in titles.items()}
    runtime.write_manifest(folder, "instruct", {}, tasks=tasks, simulated=True)
    return folder


def write_corpus(folder: Path) -> Path:
    texts = {"dna": "ACGT" * 20, "protein": "MKVLA" * 9, "english": "Genes are read."}
    languages = {name: {"train": [[text]], "valid": [[text + text[:i] for i in range(5)]]} for name, text in texts.items()}
    return write_documents(folder, {**languages, "rna": {"train": [["ACGU"]]}})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an adapter, instructions of the five families and a corpus."""
    folder = tmp_path_factory.mktemp("evaluate")
    save_adapter(folder)
    write_instructions(folder / "instructions")
    write_corpus(folder / "corpus")
    return folder


def config(place: Path, output: Path, **changes: Any) -> Config:
    values: dict[str, Any] = {
        "model": str(place / "adapter"), "instructions": place / "instructions", "max_length": 320, "max_new_tokens": 6,
        "num_resamples": 50, "output_dir": output,
    }  # fmt: skip
    return Config(**(values | changes))


def test_five_families_and_three_languages_are_measured_and_written(place: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    report = run(config(place, output, corpus=place / "corpus", base=str(place / "base"), max_documents=3))
    assert json.loads((output / "results.json").read_text()) == report
    names = {"results.json", "results.md", "results.html", "results.png", "predictions.jsonl", "manifest.json"}
    assert {path.name for path in output.iterdir()} == names
    results = {result["family"]: result for result in report["tasks"]}
    assert {family: result["metric"] for family, result in results.items()} == {
        "classification": "accuracy", "structure": "accuracy", "pair": "accuracy", "function": "exact match", "regression": "Spearman",
    }  # fmt: skip
    for family, result in results.items():
        assert result["n"] == 9 and result["rejected"] == 0
        assert result["interval"][0] <= result["score"] <= result["interval"][1]
        assert set(result["baselines"]) >= {"majority", "k-mer logistic regression"} and 0 < result["ceiling"] < 1, family
        assert all(0 < entry["p"] <= 1 for entry in result["baselines"].values())
    majorities = {family: result["baselines"]["majority"]["score"] for family, result in results.items()}
    assert majorities["structure"] == pytest.approx(1 / 3) and majorities["regression"] == 0.0
    assert sum(cell["n"] for cell in results["pair"]["confusion"]) == 9
    assert {name: facts["unit"] for name, facts in report["languages"].items()} == {"dna": "base", "protein": "residue", "english": "byte"}
    assert all(facts["documents"] == 3 and facts["before"] != facts["after"] for facts in report["languages"].values())
    text = (output / "results.md").read_text()
    assert "simulated" in text and "| pair_task | pair | accuracy | 9 |" in text and "| english | byte |" in text
    lines = [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]
    assert len(lines) == 45 and set(lines[0]["log_likelihood"]) == {"Non-promoter", "promoter"}
    right = sum(line["answer"] == line["output"] for line in lines if line["task"] == "pair_task")
    assert right / 9 == results["pair"]["score"]


def test_law_15_two_evaluations_give_the_same_bytes(place: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        run(config(place, tmp_path / name))
    for name in ("results.md", "results.html", "predictions.jsonl", "results.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_generated_answers_off_the_list_are_counted_as_wrong(place: Path, tmp_path: Path) -> None:
    report = run(config(place, tmp_path / "out", scorer="generate", tasks=["pair_task"], baseline=[]))
    result = report["tasks"][0]  # a random model says nothing that is on the list
    assert (result["off_list"], result["score"], result["mcc"]) == (9, 0.0, 0.0)
    assert result["paper_scorer"] == {"score": 0.0, "interval": pytest.approx([0.0, 0.299], abs=1e-3)}
    assert list(result["baselines"]) == ["majority"]
    assert result["baselines"]["majority"]["score"] == pytest.approx(5 / 9)  # without training rows, the test rows' own
    assert "Answers off the list of labels (counted as wrong): pair_task 9." in (tmp_path / "out" / "results.md").read_text()


def test_a_control_on_shuffled_labels_is_written_into_the_table(place: Path, tmp_path: Path) -> None:
    report = run(config(place, tmp_path / "out", tasks=["classification_task"], control=True))
    controls = report["tasks"][0]["controls"]
    assert set(controls) == {"k-mer logistic regression", "positional logistic regression", "nearest neighbour"}
    for control in controls.values():
        assert control["metric"] == "accuracy" and control["sits"] and control["majority"] == pytest.approx(5 / 9)
        assert len(control["scores"]) == 3 and control["interval"][0] < control["score"] < control["interval"][1]
    text = (tmp_path / "out" / "results.md").read_text()
    assert "| classification_task | nearest neighbour | 3 | accuracy |" in text
    assert "Trained on shuffled labels" in (tmp_path / "out" / "results.html").read_text()


@pytest.mark.parametrize("scorer", ["likelihood", "generate"])
def test_a_task_with_several_labels_a_row_is_measured_as_sets(
    place: Path, tmp_path: Path, scorer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llama_gene.data.instructions.read_examples", lambda path: list(map(json.loads, path.read_text().splitlines())))
    folder = tmp_path / "instructions"
    folder.mkdir()
    rng, labels = random.Random(0), ["nucleus", "membrane", "cytoplasm"]
    for split, num in (("train", 6), ("dev", 6), ("test", 8)):
        rows: list[Any] = []
        for i in range(num):
            answers = labels[: 1 + i % 3]
            rows.append(
                {**example("function", split, i, rng), "labels": labels, "answers": answers, "output": ", ".join(answers), "oracle": None}
            )
        write_examples(folder / f"{split}.jsonl", rows)
    runtime.write_manifest(folder, "instruct", {}, tasks={"function_task": {"family": "function", "title": "places"}}, simulated=True)
    for name in ("a", "b"):
        result = run(config(place, tmp_path / name, instructions=folder, scorer=scorer))["tasks"][0]
    assert result["metric"] == "micro-F1" and set(result["baselines"]) >= {"majority", "k-mer logistic regression"}
    assert result["baselines"]["majority"]["score"] > 0.5 and set(result["thresholds"]) == set(labels)
    lines = [json.loads(line) for line in (tmp_path / "a" / "predictions.jsonl").read_text().splitlines()]
    assert all(line["answers"] and line["answer"] == ", ".join(line["chosen"]) for line in lines)
    if scorer == "generate":
        assert result["off_list"] == 8 and result["score"] == 0.0  # a random model says nothing that is on the list
    else:
        assert any(line["chosen"] for line in lines)  # thresholds come from dev: log-likelihoods never reach 0.5
    same = compare.run(compare.Config([tmp_path / "a"], [tmp_path / "b"], num_resamples=50, output_dir=tmp_path / "out"))
    assert [(entry["metric"], entry["difference"]) for entry in same] == [("micro-F1", 0.0)]


def test_prompts_that_are_too_long_are_rejected_and_counted_or_shortened_if_asked(place: Path, tmp_path: Path) -> None:
    instructions = write_instructions(tmp_path / "instructions", long_rows=3)
    changes: dict[str, Any] = {"instructions": instructions, "tasks": ["classification_task"]}
    rejected = run(config(place, tmp_path / "rejected", **changes))["tasks"][0]
    assert (rejected["n"], rejected["rejected"], rejected["shortened"]) == (9, 3, 0)
    lines = [json.loads(line) for line in (tmp_path / "rejected" / "predictions.jsonl").read_text().splitlines()]
    assert [line["row"] for line in lines if "rejected" in line] == [9, 10, 11] and len(lines) == 12
    shortened = run(config(place, tmp_path / "shortened", shorten=True, **changes))["tasks"][0]
    assert (shortened["n"], shortened["rejected"], shortened["shortened"]) == (12, 0, 3)
    assert "12 (25 % shortened)" in (tmp_path / "shortened" / "results.md").read_text()
    with pytest.raises(InputError, match="are too long for 40 tokens"):
        run(config(place, tmp_path / "none", max_length=40, **changes))
    assert not (tmp_path / "none").exists()


def test_the_room_for_an_answer_does_not_depend_on_the_right_answer(place: Path, tmp_path: Path) -> None:
    kept = set()
    tokenizer = load_tokenizer(place / "adapter")
    rows = [json.loads(line) for line in (place / "instructions" / "test.jsonl").read_text().splitlines()[:9]]
    lengths = [len(encode_prompt(tokenizer, render_user(row["instruction"], row["input"]))) for row in rows]
    limits = range(min(lengths) + 8, max(lengths) + 15, 2)
    for max_length in limits:
        try:
            run(config(place, tmp_path / "out", tasks=["classification_task"], max_length=max_length, baseline=[]))
        except InputError:
            continue
        for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines():
            if "rejected" not in line:
                kept.add((max_length, json.loads(line)["row"]))
    room = len("Non-promoter") + 1  # of the longest label, whatever the right answer is
    assert kept == {(limit, i) for limit in limits for i, length in enumerate(lengths) if length + room <= limit}


def test_bits_alone_need_no_instructions(place: Path, tmp_path: Path) -> None:
    report = run(config(place, tmp_path / "out", instructions=None, corpus=place / "corpus"))
    assert report["tasks"] == [] and "before" not in report["languages"]["dna"]
    assert not (tmp_path / "out" / "results.png").exists()


def test_what_is_missing_is_named_before_a_model_is_loaded(place: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--model and --output_dir"):
        run(Config(instructions=place / "instructions"))
    with pytest.raises(ConfigError, match="none of instructions, corpus and english"):
        run(Config(model="x", output_dir=tmp_path / "out"))
    with pytest.raises(ConfigError, match="there is no task 'promotr'"):
        run(config(place, tmp_path / "out", model="nowhere", tasks=["promotr"]))
    with pytest.raises(InputError, match="was written by `instruct`"):
        run(config(place, tmp_path / "out", model="nowhere", corpus=place / "instructions"))
    assert not (tmp_path / "out").exists()
