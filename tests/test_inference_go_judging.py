"""F-max and S-min of a task of GO terms: chances from likelihoods, ontologies apart, baselines beside, strangers counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llama_gene.data.ontology import Ontology, read_obo
from llama_gene.errors import InputError
from llama_gene.inference import go_metrics
from llama_gene.inference.go_judging import FREQUENCY, go_ids, judge_go, term_chances

LABELS = ["growth (GO:0000001)", "fast growth (GO:0000002)", "kinase (GO:0000011)", "of another year (GO:0000099)"]
OBO = "".join(
    f"\n[Term]\nid: GO:{number:07d}\nname: {name}\nnamespace: {space}\n{above}"
    for number, name, space, above in (
        (0, "process", "biological_process", ""),
        (1, "growth", "biological_process", "is_a: GO:0000000 ! process\n"),
        (2, "fast growth", "biological_process", "is_a: GO:0000001 ! growth\n"),
        (10, "function", "molecular_function", ""),
        (11, "kinase", "molecular_function", "is_a: GO:0000010 ! function\n"),
    )
)


def rows(*answers: list[int], group: str = "") -> list[dict[str, Any]]:
    return [{"labels": LABELS, "answers": [LABELS[k] for k in own], "group": group} for own in answers]


@pytest.fixture
def ontology(tmp_path: Path) -> Ontology:
    (tmp_path / "go.obo").write_text(OBO)
    return read_obo(tmp_path / "go.obo")


def test_a_task_of_go_terms_has_several_labels_a_row_and_ids_in_them() -> None:
    assert go_ids(rows([0]))[LABELS[1]] == "GO:0000002" and len(go_ids(rows([0]))) == 4
    assert go_ids([{"labels": LABELS, "output": LABELS[0]}]) == {}
    assert go_ids([{"labels": ["nucleus"], "answers": ["nucleus"]}]) == {}


def test_ontologies_stand_apart_with_the_frequency_and_each_baseline_beside_ours(ontology: Ontology) -> None:
    test, train = rows([1], [0], [2]), rows([1], [0], [0], [2, 0])
    perfect, nothing = np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0]], float), np.zeros((3, 4))
    found = judge_go(test, perfect, train, {"nearest neighbour": nothing}, ontology, num_resamples=50)
    process, function = found["ontologies"]["P"], found["ontologies"]["F"]
    assert list(found["ontologies"]) == ["P", "F"] and list(process["scored"]) == ["ours", FREQUENCY, "nearest neighbour"]
    assert (process["name"], process["proteins"], process["terms"]) == ("biological process", 2, 2)
    assert (process["scored"]["ours"]["fmax"], process["scored"]["ours"]["smin"]) == (1.0, 0.0)
    assert function["proteins"] == 1 and function["scored"]["nearest neighbour"]["fmax"] == 0.0
    # growth in 4 of 4 train proteins, fast growth in 1: above 0.25 the baseline says growth of both, precision 1, recall (1/2 + 1) / 2
    assert process["scored"][FREQUENCY]["fmax"] == pytest.approx(2 * 0.75 / 1.75)
    assert process["scored"]["nearest neighbour"]["smin"] == pytest.approx(1.0)  # fast growth (2 bits) missed in one of two
    low, high = process["scored"][FREQUENCY]["fmax_interval"]
    assert low < process["scored"][FREQUENCY]["fmax"] < high
    assert function["scored"]["ours"]["smin_interval"] is None  # one protein


def test_labels_that_the_ontology_does_not_know_are_counted_and_all_of_them_refused(ontology: Ontology) -> None:
    found = judge_go(rows([1, 3], [0]), np.ones((2, 4)), rows([0]), {}, ontology, num_resamples=10)
    assert found["unknown"] == {"GO id that the ontology does not know": 1} and found["unknown_ids"] == ["GO:0000099"]
    strangers = [{"labels": ["x (GO:0000099)"], "answers": ["x (GO:0000099)"], "group": ""}]
    with pytest.raises(InputError, match="the ontology knows none of the 1 scored terms"):
        judge_go(strangers, np.ones((1, 1)), strangers, {}, ontology)


def test_chances_follow_dev_where_the_likelihoods_of_labels_have_scales_of_their_own() -> None:
    dev = rows(*[[k % 2] for k in range(40)])
    own = np.array([k % 2 for k in range(40)])
    scores = np.column_stack([-own - 1.0, -50.0 + own, np.full(40, -3.0), np.full(40, -4.0)])
    chances = term_chances(scores, [], (dev, scores))
    assert chances[0, 0] > 0.8 > 0.2 > chances[1, 0] and chances[1, 1] > 0.8 > 0.2 > chances[0, 1]
    assert (chances[:, 2:] < 0.05).all()  # no dev row has them


def test_chances_without_dev_are_shares_times_the_labels_of_a_row() -> None:
    chances = term_chances(np.log([[0.2, 0.1, 0.1, 1e-9]]), rows([0, 1], [2]), None)
    assert chances[0] == pytest.approx([0.75, 0.375, 0.375, 0.0], abs=1e-6)
    given = np.array([[True, False, True, False]])
    assert term_chances(given, [], None).tolist() == [[1.0, 0.0, 1.0, 0.0]]


def test_fmax_and_smin_of_summed_rows_are_those_of_all_proteins() -> None:
    rng = np.random.default_rng(0)
    terms = [f"t{k}" for k in range(6)]
    truth = [{term for term in terms if rng.random() < 0.4} | {"t0"} for _ in range(30)]
    scores, bits = rng.random((30, 6)), {term: float(k) for k, term in enumerate(terms)}
    best, least = go_metrics.fmax(truth, scores, terms).fmax, go_metrics.smin(truth, scores, terms, bits).smin
    assert go_metrics.fmax_of(go_metrics.fmax_rows(truth, scores, terms).sum(0)) == pytest.approx(best)
    assert go_metrics.smin_of(go_metrics.smin_rows(truth, scores, terms, bits).sum(0)) == pytest.approx(least)
