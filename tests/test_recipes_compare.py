"""compare: folders of results in, differences out; other rows and other tasks are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llama_gene import cli, runtime
from llama_gene.errors import ConfigError, InputError, MismatchError
from llama_gene.inference.judging import judge, judge_text
from llama_gene.recipes.compare import Config, run
from tests.test_inference_judging import PROMOTER, make_rows, noisy

TRUTH = np.arange(120) % 2
ROWS = make_rows(TRUTH, PROMOTER, group=[f"gene {i // 4}" for i in range(120)])
TEXTS = [{"task": "f", "family": "function", "output": "kinase" if i % 2 else "binds zinc"} for i in range(30)]


def write_results(folder: Path, right: float, seed: int, texts: list[str], rejected: int | None = None) -> Path:
    scores = noisy(TRUTH, 2, right, seed)
    tasks = [
        {"task": "t", "family": "classification", **judge(ROWS, PROMOTER, scores, num_resamples=20)},
        {"task": "f", "family": "function", **judge_text(TEXTS, texts, num_resamples=20)},
    ]
    lines: list[dict[str, Any]] = []
    for i, row in enumerate(ROWS):
        line = {"task": "t", "row": i, "output": row["output"], "group": row["group"], "answer": PROMOTER[scores[i].argmax()]}
        line["log_likelihood"] = dict(zip(PROMOTER, scores[i].tolist(), strict=True))
        lines.append(line if i != rejected else {"task": "t", "row": i, "output": row["output"], "rejected": "prompt too long"})
    lines += [
        {"task": "f", "row": i, "output": row["output"], "answer": text} for i, (row, text) in enumerate(zip(TEXTS, texts, strict=True))
    ]
    folder.mkdir()
    runtime.write_json(folder / "results.json", {"tasks": tasks})
    runtime.write_text(folder / "predictions.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    for seed in range(3):
        write_results(folder / f"good-{seed}", 0.9, seed, ["kinase"] * 30, rejected=7 if seed == 0 else None)
    for seed in range(2):
        write_results(folder / f"poor-{seed}", 0.4, 10 + seed, ["nothing"] * 30)
    return folder


def config(place: Path, output: Path, ours: list[str], theirs: list[str], **changes: Any) -> Config:
    values: dict[str, Any] = {"ours": [place / name for name in ours], "theirs": [place / name for name in theirs]}
    return Config(**(values | {"num_resamples": 200, "output_dir": output} | changes))


def test_three_seeds_against_one_model_give_mean_sd_difference_and_p(place: Path, tmp_path: Path) -> None:
    entries = run(config(place, tmp_path / "out", ["good-0", "good-1", "good-2"], ["poor-0"]))
    assert [(entry["task"], entry["metric"]) for entry in entries] == [("t", "accuracy"), ("t", "mcc"), ("f", "exact match")]
    first = entries[0]
    assert (first["n"], first["left_out"]) == (119, 1)  # one folder rejected a row: it is left out for all
    assert len(first["ours"]["scores"]) == 3 and first["ours"]["sd"] > 0 and first["theirs"]["sd"] is None
    assert first["p"] < 0.02 and first["interval"][0] > 0 and first["test"] == "permutation of 30 groups"
    assert entries[2]["difference"] == 0.5
    assert json.loads((tmp_path / "out" / "comparison.json").read_text()) == entries
    table = (tmp_path / "out" / "comparison.md").read_text()
    assert (
        "(3 seeds)" in table
        and "119 (1 left out)" in table
        and "| f | exact match | 30 | 0.500 +- 0.000 (3 seeds) | 0.000 | +0.500" in table
    )


def test_law_15_two_comparisons_give_the_same_bytes(place: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        run(config(place, tmp_path / name, ["good-0"], ["poor-0"], tasks=["t"]))
    assert (tmp_path / "a" / "comparison.json").read_bytes() == (tmp_path / "b" / "comparison.json").read_bytes()


def test_a_model_does_not_differ_from_itself(place: Path, tmp_path: Path) -> None:
    entry = run(config(place, tmp_path / "out", ["good-1"], ["good-1"], tasks=["t"]))[0]
    assert (entry["difference"], entry["p"], entry["interval"]) == (0.0, 1.0, [0.0, 0.0])


def test_the_command_line_compares_lists_of_folders(place: Path, tmp_path: Path) -> None:
    folders = [str(place / name) for name in ("good-1", "good-2", "poor-0", "poor-1")]
    arguments = [
        "compare",
        "--ours",
        *folders[:2],
        "--theirs",
        *folders[2:],
        "--output_dir",
        str(tmp_path / "out"),
        "--num_resamples",
        "50",
    ]
    assert cli.main(arguments) == 0
    assert len(runtime.read_json(tmp_path / "out" / "comparison.json")) == 3


def test_what_cannot_be_compared_is_said(place: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--ours FOLDERS"):
        run(Config(ours=[place / "good-0"], output_dir=tmp_path / "out"))
    with pytest.raises(ConfigError, match="3 folders of ours and 2 of theirs"):
        run(config(place, tmp_path / "out", ["good-0", "good-1", "good-2"], ["poor-0", "poor-1"]))
    with pytest.raises(ConfigError, match="task 'x' is not in every folder"):
        run(config(place, tmp_path / "out", ["good-0"], ["poor-0"], tasks=["x"]))
    other = write_results(tmp_path / "other", 0.5, 5, ["kinase"] * 30)
    lines = [json.loads(line) for line in (other / "predictions.jsonl").read_text().splitlines()]
    lines[3]["output"] = "promoter" if lines[3]["output"] != "promoter" else "Non-promoter"
    (other / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(MismatchError, match="the rows of task 't' in"):
        run(config(place, tmp_path / "out", ["good-1"], [str(other)]))
    (other / "results.json").write_text('{"tasks": []}')
    with pytest.raises(InputError, match="no task in common"):
        run(config(place, tmp_path / "out", ["good-1"], [str(other)]))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("text", "message"), [("", "holds no prediction"), ('{"task"', r"line 1: '\{"), ('{"a": 1}\n', "line 1: ")])
def test_a_file_of_predictions_that_is_none_is_refused_in_one_line(place: Path, tmp_path: Path, text: str, message: str) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(place / "poor-0", broken)
    (broken / "predictions.jsonl").write_text(text)
    with pytest.raises(InputError, match=message):
        run(Config([broken], [place / "poor-0"], num_resamples=50, output_dir=tmp_path / "out"))
