"""A frozen random encoder keeps composition, which a probe finds; shuffled labels leave it nothing."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llama_gene.errors import InputError
from llama_gene.inference import metrics
from llama_gene.inference.baselines.probe import run_probe
from llama_gene.inference.baselines.rows import shuffle_labels
from tests.tiny_encoders import RESIDUES, save_bert, save_esm
from tests.tiny_models import save_model, tiny_llama, tiny_tokenizer

LABELS = ["soluble", "membrane"]


def protein(rng: random.Random, is_membrane: bool, length: int = 40) -> str:
    return "".join(rng.choices("LIVFDEKR", [3, 3, 3, 3, 2, 2, 2, 2] if is_membrane else [2, 2, 2, 2, 3, 3, 3, 3], k=length))


def protein_rows(num: int, seed: int) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    rows = []
    for i in range(num):
        sequence = protein(rng, bool(i % 2))
        answers = [name for name, letter in (("many L", "L"), ("many D", "D")) if sequence.count(letter) > 5]
        rows.append(
            {"sequences": [sequence], "output": LABELS[i % 2], "value": 100.0 + sum(map(sequence.count, "LIVF")), "answers": answers}
        )
    return rows


def single(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "answers": []} for row in rows]


@pytest.fixture(scope="module")
def esm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_esm(tmp_path_factory.mktemp("esm"))


TRAIN, DEV, TEST = protein_rows(200, 0), protein_rows(60, 1), protein_rows(120, 2)


def share_right(found: Any, rows: list[dict[str, Any]]) -> float:
    assert found.scores is not None
    return float(np.mean([LABELS[k] == row["output"] for k, row in zip(found.scores.argmax(1), rows, strict=True)]))


def test_a_probe_finds_composition_and_not_in_shuffled_labels(esm: Path) -> None:
    found = run_probe(esm, single(TRAIN), single(DEV), single(TEST), ["protein"], "classification", LABELS)
    assert share_right(found, TEST) > 0.8 and found.name == f"probe {esm}"
    assert "32 numbers a row, spelled plain, C" in found.note and found.note.endswith("by dev")
    np.testing.assert_allclose(found.scores.sum(1), 1.0)
    control = [
        share_right(run_probe(esm, shuffle_labels(single(TRAIN), seed), [], single(TEST), ["protein"], "classification", LABELS), TEST)
        for seed in range(3)
    ]
    assert np.mean(control) < 0.58


def test_a_causal_model_is_probed_as_well(tmp_path: Path) -> None:
    folder = save_model(tiny_llama(), tiny_tokenizer(), tmp_path)
    found = run_probe(folder, single(TRAIN), [], single(TEST), ["protein"], "classification", LABELS)
    assert share_right(found, TEST) > 0.7 and "by a tenth of train" in found.note


def test_a_number_is_predicted_in_its_own_unit(esm: Path) -> None:
    rows = [[{**row, "output": "high" if row["value"] > 120 else "low"} for row in single(part)] for part in (TRAIN, DEV, TEST)]
    found = run_probe(esm, *rows, ["protein"], "regression", ["low", "high"])
    truth = np.array([row["value"] for row in TEST])
    assert found.numbers is not None and metrics.spearman(truth, found.numbers) > 0.75 and np.abs(found.numbers - truth).mean() < 3
    assert found.scores is not None and found.scores.shape == (120, 2)


def test_each_label_of_several_has_a_probe(esm: Path) -> None:
    found = run_probe(esm, TRAIN, DEV, TEST, ["protein"], "function", ["many L", "many D"])
    truth = np.array([[label in row["answers"] for label in ("many L", "many D")] for row in TEST])
    assert found.scores is not None and ((found.scores > 0.5) == truth).mean() > max(truth.mean(), 1 - truth.mean()) + 0.1


def test_a_pair_has_both_vectors_their_difference_and_their_product(esm: Path) -> None:
    def pairs(num: int, seed: int) -> list[dict[str, Any]]:
        rng = random.Random(seed)
        sides = [(rng.random() < 0.5, rng.random() < 0.5) for _ in range(num)]
        return [{"sequences": [protein(rng, a, 60), protein(rng, b, 60)], "output": "same" if a == b else "other"} for a, b in sides]

    found = run_probe(esm, pairs(300, 0), pairs(60, 1), pairs(100, 2), ["protein", "protein"], "pair", ["other", "same"])
    truth = [["other", "same"].index(row["output"]) for row in pairs(100, 2)]
    assert found.scores is not None and "128 numbers a row" in found.note
    assert (found.scores.argmax(1) == truth).mean() > 0.65


def test_a_structure_window_is_read_at_its_middle_and_its_end(tmp_path: Path) -> None:
    rng = random.Random(0)

    def window(i: int) -> dict[str, Any]:
        body = "".join(rng.choices("AGSTDE", k=30))
        return {"sequences": [body[:15] + ("W" if i % 2 else "P") + body[15:]], "output": "helix" if i % 2 else "coil"}

    rows = [window(i) for i in range(160)]
    found = run_probe(save_bert(tmp_path, list(RESIDUES)), rows[:100], [], rows[100:], ["protein"], "structure", ["coil", "helix"])
    assert found.scores is not None and "96 numbers a row, spelled spaced" in found.note
    assert (found.scores.argmax(1) == [i % 2 for i in range(100, 160)]).mean() > 0.9


def test_what_cannot_be_probed_says_why(esm: Path) -> None:
    assert run_probe(esm, TRAIN, [], TEST, ["protein"], "function", []).reason == "the answers are free text"
    assert run_probe(esm, [], [], TEST, ["protein"], "function", ["a"]).reason == "no training row has an answer"
    digits = [{"sequences": ["123123"], "output": LABELS[i % 2]} for i in range(4)]
    with pytest.raises(InputError, match="unknown"):
        run_probe(esm, digits, [], digits, ["protein"], "classification", LABELS)
