"""F-max, S-min and slim-F1 by hand, by brute force, and beside scikit-learn."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from llama_gene.data.ontology import Ontology, Term, read_obo
from llama_gene.errors import InputError
from llama_gene.inference.go_metrics import best_hit_scores, fmax, naive_scores, raise_ancestors, score_ontologies, slim_f1, smin
from tests.test_data_ontology import OBO

TERMS = ["A", "B", "C"]
TRUTH = [{"A", "B", "C"}, {"A"}]
SCORES = np.array([[0.9, 0.5, 0.2], [0.4, 0.6, 0.0]])


def test_fmax_by_hand() -> None:
    # up to 0.2 the first protein is right in full, the second says A and B: precision (1 + 1/2) / 2, recall 1, F 1.5 / 1.75
    found = fmax(TRUTH, SCORES, TERMS)
    assert (found.fmax, found.threshold) == (pytest.approx(6 / 7), 0.01)
    assert (found.precision, found.recall, found.coverage, found.num_proteins) == (0.75, 1.0, 1.0, 2)


def test_precision_averages_over_proteins_that_say_anything_and_recall_over_all() -> None:
    # at 0.7 and above only the first protein speaks: precision 1, recall (1/3 + 0) / 2
    found = fmax(TRUTH, np.where(SCORES > 0.6, SCORES, 0), TERMS)
    assert (found.precision, found.recall, found.coverage) == (1.0, pytest.approx(1 / 6), 0.5)
    assert found.fmax == pytest.approx(2 / 7)


def test_smin_by_hand() -> None:
    information = {"A": 1.0, "B": 2.0, "C": 3.0}
    found = smin(TRUTH, SCORES, TERMS, information)
    assert (found.smin, found.threshold, found.remaining_uncertainty, found.misinformation) == (1.0, 0.01, 0.0, 1.0)  # B said of the second
    silent = smin(TRUTH, np.zeros((2, 3)), TERMS, information)
    assert (silent.smin, silent.remaining_uncertainty, silent.misinformation) == (3.5, 3.5, 0.0)  # (6 + 1) / 2


def test_a_perfect_prediction_has_fmax_1_and_smin_0_whatever_the_terms_weigh() -> None:
    scores = np.array([[term in own for term in TERMS] for own in TRUTH], dtype=float)
    assert fmax(TRUTH, scores, TERMS).fmax == 1.0
    assert smin(TRUTH, scores, TERMS, {"A": 0.3, "B": 2.0, "C": 5.0}).smin == 0.0


def test_true_terms_that_nobody_scores_are_missed() -> None:
    truth = [{"A", "Z"}]
    assert fmax(truth, np.array([[1.0]]), ["A"]).recall == 0.5
    found = smin(truth, np.array([[1.0]]), ["A"], {"A": 1.0, "Z": 4.0})
    assert (found.smin, found.num_unknown_terms) == (4.0, 0)
    assert smin(truth, np.array([[1.0]]), ["A"], {"A": 1.0}).num_unknown_terms == 1


def test_proteins_without_a_term_are_left_out() -> None:
    assert fmax([*TRUTH, set()], np.vstack([SCORES, [1, 1, 1]]), TERMS) == fmax(TRUTH, SCORES, TERMS)


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 10_000))
def test_fmax_and_smin_equal_the_definition_written_out(num_proteins: int, num_terms: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    terms = [f"T{number}" for number in range(num_terms)]
    truth = [{term for term in terms if rng.random() < 0.5} for _ in range(num_proteins)]
    truth[0] = {"T0"}
    scores = rng.integers(0, 101, (num_proteins, num_terms)) / 100
    bits = {term: float(rng.random() * 4) for term in terms}
    best_f, best_s = 0.0, math.inf
    kept = [(own, row) for own, row in zip(truth, scores, strict=True) if own]
    for step in range(1, 101):
        said = [{term for term, score in zip(terms, row, strict=True) if score >= step / 100} for _, row in kept]
        precisions = [len(mine & own) / len(mine) for (own, _), mine in zip(kept, said, strict=True) if mine]
        recall = sum(len(mine & own) / len(own) for (own, _), mine in zip(kept, said, strict=True)) / len(kept)
        if precisions and (precision := sum(precisions) / len(precisions)) + recall:
            best_f = max(best_f, 2 * precision * recall / (precision + recall))
        missed = sum(bits[term] for (own, _), mine in zip(kept, said, strict=True) for term in own - mine) / len(kept)
        wrong = sum(bits[term] for (own, _), mine in zip(kept, said, strict=True) for term in mine - own) / len(kept)
        best_s = min(best_s, math.hypot(missed, wrong))
    assert fmax(truth, scores, terms).fmax == pytest.approx(best_f)
    assert smin(truth, scores, terms, bits).smin == pytest.approx(best_s)


@given(st.lists(st.tuples(st.sets(st.sampled_from("abcd")), st.sets(st.sampled_from("abcd"))), min_size=1, max_size=8))
def test_slim_f1_equals_scikit_learn(pairs: list[tuple[set[str], set[str]]]) -> None:
    truth, said = [own for own, _ in pairs], [mine for _, mine in pairs]
    terms = sorted(set().union(*truth, *said))
    if not terms:
        with pytest.raises(InputError, match="without a term"):
            slim_f1(truth, said)
        return
    if len(terms) == 1:
        terms.append("e")  # one column would be read as two classes
        truth, said = [*truth, {"e"}], [*said, {"e"}]
    matrices = [np.array([[term in own for term in terms] for own in sets], dtype=int) for sets in (truth, said)]
    found = slim_f1(truth, said)
    assert found.micro == pytest.approx(f1_score(*matrices, average="micro", zero_division=0))
    assert found.macro == pytest.approx(f1_score(*matrices, average="macro", zero_division=0))


def test_the_frequency_baseline_says_the_same_of_every_protein() -> None:
    scores = naive_scores([{"A", "B"}, {"A"}, {"A"}, set()], TERMS, 2)
    assert scores.tolist() == [[0.75, 0.25, 0.0]] * 2


def test_the_best_hit_baseline_passes_on_the_terms_of_the_nearest() -> None:
    train = [{"A", "B"}, {"A", "C"}]
    scores = best_hit_scores([[(0, 0.9), (1, 0.4)], [(1, 0.7)], []], train, TERMS)
    assert scores.tolist() == [[0.9, 0.9, 0.4], [0.7, 0.0, 0.7], [0.0, 0.0, 0.0]]


def test_annotations_and_scores_are_propagated_and_the_ontologies_kept_apart(tmp_path: Path) -> None:
    (tmp_path / "go.obo").write_text(OBO)
    ontology = read_obo(tmp_path / "go.obo")
    train = [{"GO:D"}, {"GO:A", "GO:X"}, {"GO:A", "GO:B"}, {"GO:B"}]  # A and B in 3 of 4, C and D in 1 of 4
    found = score_ontologies(ontology, [{"GO:C"}, {"GO:A"}], np.array([[0.8, 0.0], [0.0, 0.3]]), ["GO:D", "GO:A"], train)
    assert set(found) == {"P"}
    own = found["P"]
    # the first protein is told D, so C, A and B: 3 of 4 right, all 3 found; the second A
    assert (own.fmax.precision, own.fmax.recall, own.num_terms) == ((3 / 4 + 1) / 2, 1.0, 4)
    assert own.smin.smin == 0.0  # D adds nothing to C: whoever has C in train has D
    # the frequency baseline at up to 0.25 says A, B, C, D of both; above it A and B
    assert own.naive_fmax.fmax == pytest.approx(2 * 0.75 * (5 / 6) / (0.75 + 5 / 6))
    assert own.naive_smin.remaining_uncertainty == 0.5 and own.naive_smin.misinformation == pytest.approx(math.log2(4 / 3) / 2)
    with pytest.raises(InputError, match="knows none of the 1 scored terms"):
        score_ontologies(ontology, [{"GO:C"}], np.array([[0.5]]), ["GO:9"], train)
    unknown: Counter[str] = Counter()
    with_stranger = score_ontologies(
        ontology, [{"GO:C", "GO:9"}, {"GO:A"}], np.array([[0.8, 0, 1], [0, 0.3, 1]]), ["GO:D", "GO:A", "GO:9"], train, unknown
    )
    assert with_stranger == found and unknown == {"GO:9": 2}


def test_a_term_is_never_scored_below_one_under_it() -> None:
    ontology = Ontology({"R": Term("R", "", "P"), "A": Term("A", "", "P", ("R",)), "B": Term("B", "", "P", ("A",)),
                         "C": Term("C", "", "P", ("B",))})  # fmt: skip
    scores = np.array([[0.1, 0.5, 0.3], [0.9, 0.2, 0.1]])
    assert raise_ancestors(scores, TERMS, ontology).tolist() == [[0.5, 0.5, 0.3], [0.9, 0.2, 0.1]]
    assert scores[0, 0] == 0.1  # the given scores stay


def test_bad_input() -> None:
    with pytest.raises(InputError, match=r"shape \(2, 2\); expected \(2, 3\)"):
        fmax(TRUTH, SCORES[:, :2], TERMS)
    for wrong in (1.5, -0.1, math.nan):
        with pytest.raises(InputError, match="from 0 to 1"):
            fmax(TRUTH, np.where(SCORES > 0.8, wrong, SCORES), TERMS)
    with pytest.raises(InputError, match="2 proteins without a true term"):
        smin([set(), set()], SCORES, TERMS, {})
    with pytest.raises(InputError, match="no training protein"):
        naive_scores([], TERMS, 2)
    with pytest.raises(InputError, match="hit"):
        best_hit_scores([[(2, 0.5)]], [{"A"}], TERMS)
    with pytest.raises(InputError, match="one of each"):
        slim_f1([{"A"}], [])
