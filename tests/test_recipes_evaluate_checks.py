"""What evaluate refuses in one line before a model is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llama_gene.errors import ConfigError, InputError, MissingFileError
from llama_gene.recipes.evaluate import Config
from llama_gene.recipes.evaluate_checks import check_baselines, check_config, check_rows

LABELS = ["Non-promoter", "promoter"]


def rows(**changes: Any) -> list[dict[str, Any]]:
    row = {"labels": LABELS, "output": "promoter", "kinds": ["dna"], "sequences": ["ACGT"], "value": None}
    return [dict(row), {**row, **changes}]


def test_good_rows_pass_with_free_text_several_labels_and_empty_splits() -> None:
    check_rows("t", {"facts": {}, "train": [], "test": rows()}, True)
    check_rows("t", {"test": rows(output="promoter, Non-promoter", answers=LABELS[::-1])}, True)
    check_rows("t", {"test": [{**row, "labels": [], "output": "binds zinc"} for row in rows()]}, True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output": "enhancer"}, "train row 2 of task 't' has the answer 'enhancer'; expected one of Non-promoter, promoter"),
        ({"output": "promoter", "answers": ["promoter", "x"]}, "train row 2 of task 't' has the answer 'x'"),
        ({"sequences": [""]}, "has 0 sequences that are not empty; expected 1, as its kinds say"),
        ({"sequences": []}, "has 0 sequences that are not empty; expected 1, as its kinds say"),
        ({"sequences": [], "kinds": []}, "has no sequence; expected one for the baselines"),
        ({"value": "abc"}, "has the value 'abc'; expected a finite number"),
        ({"value": float("nan")}, "has the value 'nan'; expected a finite number"),
        ({"labels": LABELS[::-1]}, "rows of task 't' have different lists of labels"),
    ],
)
def test_a_row_that_contradicts_its_task_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_rows("t", {"train": rows(**changes)}, True)


@pytest.mark.parametrize(("labels", "message"), [(["promoter"], "one label, 'promoter'"), ([*LABELS, "promoter"], "'promoter' twice")])
def test_a_list_of_labels_that_tells_nothing_apart_is_refused(labels: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_rows("t", {"test": [{**row, "labels": labels} for row in rows()]}, False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_resamples": 0}, "num_resamples is 0; expected 2 or more"),
        ({"calibrate": -3}, "calibrate is -3"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"batch_tokens": 0}, "batch_tokens is 0"),
        ({"lora_baseline": ["x"], "baseline_seeds": 1}, "baseline_seeds is 1; expected 3 or more"),
    ],
)
def test_a_number_that_means_nothing_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_config(Config(model="x", instructions=Path("i"), output_dir=Path("o"), **changes))


def test_a_baseline_that_is_not_there_is_named_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no baseline 'kmerr'.*Did you mean 'kmer'"):
        check_baselines(Config(instructions=tmp_path, baseline=["kmerr"]))
    with pytest.raises(MissingFileError):
        check_baselines(Config(instructions=tmp_path, baseline=[str(tmp_path / "none")]))
    with pytest.raises(MissingFileError):
        check_baselines(Config(instructions=tmp_path, lora_baseline=[str(tmp_path / "none")]))
    check_baselines(Config(instructions=tmp_path))
