"""Metrics against scikit-learn and scipy, what must not change them, label matching by literal cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    matthews_corrcoef,
    roc_auc_score,
)

from llama_gene.inference import metrics
from llama_gene.inference.metrics import (
    OFF_LIST,
    accuracy,
    aupr,
    aupr_of,
    auroc,
    auroc_of,
    balanced_accuracy,
    bin_expectation,
    brier,
    calibration,
    macro_f1,
    mcc,
    paper_match,
    pearson,
    probabilities,
    semantic_match,
    spearman,
    spearman_of,
    word_f1,
)


@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_metrics_equal_scikit_learn(num_classes: int) -> None:
    rng = np.random.default_rng(num_classes)
    truth = rng.integers(0, num_classes, 200)
    predicted = np.where(rng.random(200) < 0.6, truth, rng.integers(0, num_classes, 200))
    assert accuracy(truth, predicted) == pytest.approx(accuracy_score(truth, predicted))
    assert balanced_accuracy(truth, predicted) == pytest.approx(balanced_accuracy_score(truth, predicted))
    assert mcc(truth, predicted) == pytest.approx(matthews_corrcoef(truth, predicted))
    assert macro_f1(truth, predicted) == pytest.approx(f1_score(truth, predicted, average="macro"))


def test_off_list_answers_are_wrong_and_a_class_of_their_own_in_mcc() -> None:
    truth, predicted = np.array([0, 0, 1, 1, 1, 0]), np.array([0, OFF_LIST, 1, OFF_LIST, 1, 0])
    assert accuracy(truth, predicted) == pytest.approx(4 / 6)
    assert mcc(truth, predicted) == pytest.approx(matthews_corrcoef(truth, predicted))
    assert balanced_accuracy(truth, predicted) == pytest.approx(2 / 3)
    assert macro_f1(truth, predicted) == pytest.approx(f1_score(truth, predicted, average="macro", labels=[0, 1]))


def test_a_constant_answer_has_no_mcc_and_no_rank_correlation() -> None:
    assert mcc([0, 1, 1], [1, 1, 1]) == 0.0
    assert spearman([0, 1, 2], [5, 5, 5]) == 0.0


def test_spearman_equals_scipy_with_ties() -> None:
    rng = np.random.default_rng(0)
    truth, values = rng.integers(0, 10, 100), rng.normal(size=100).round(1)
    assert spearman(truth, values) == pytest.approx(spearmanr(truth, values).statistic)


def test_bin_expectation_weighs_bins_by_their_probability() -> None:
    assert bin_expectation(np.log([[0.5, 0.25, 0.25]])).tolist() == pytest.approx([0.75])
    assert probabilities([[-1000.0, -1000.0]]).tolist() == [[0.5, 0.5]]


PAIRS = ["Conform", "Not Conform"]


@pytest.mark.parametrize(
    ("text", "labels", "label"),
    [
        ("Non-promoter", ["promoter", "Non-promoter"], "Non-promoter"),
        ("promoter", ["promoter", "Non-promoter"], "promoter"),
        ("Non-promoter", ["promoter"], None),
        ("Not Conform", PAIRS, "Not Conform"),
        ("Not Conform", ["Conform"], None),
        ("Conform", PAIRS, "Conform"),
        (" not conform.\n", PAIRS, "Not Conform"),
        ("Conforming", PAIRS, None),
        ("Conform-like", PAIRS, None),
        ("promoter terminator", ["promoter", "terminator"], "promoter"),
        ("The promoter", ["promoter"], None),
        ("'promoter'", ["promoter"], "promoter"),
        ("1.1.2", ["1.1", "1"], None),
        ("1.1.2", ["1.1", "1.1.2"], "1.1.2"),
        ("1. It is", ["1", "2"], "1"),
        ("very high", ["high", "very high"], "very high"),
        ("nuclear membrane", ["nuclear", "nuclear membrane"], "nuclear membrane"),
        ("nuclear envelope", ["nuclear", "nuclear membrane"], "nuclear"),
        ("", ["promoter"], None),
        ("Jefferson Davis", PAIRS, None),
    ],
)
def test_law_10_a_label_counts_only_at_the_start_whole_and_longest_first(text: str, labels: list[str], label: str | None) -> None:
    assert semantic_match(text, labels) == label
    assert semantic_match(text, labels[::-1]) == label


def test_word_f1_counts_shared_words() -> None:
    assert word_f1("zinc finger", "Zinc finger") == 1.0
    assert word_f1("zinc finger", "kinase") == 0.0


@pytest.mark.parametrize(
    ("text", "output", "right"),
    [
        ("promoter", "promoter", True),
        ("Non-promoter", "promoter", False),
        ("promoter", "Non-promoter", False),
        (" Non-promoter ", "Non-promoter", True),
        ("Non-promoter, promoter", "Non-promoter", True),
        ("Not Conform", "Conform", True),  # the fault: only "Non" is guarded
        ("promoter terminator", "terminator", True),
        ("Promoter", "promoter", False),
        ("Splice Sites", "Non-Splice Sites", False),
    ],
)
def test_the_authors_scorer_looks_for_the_output_anywhere_and_guards_only_non(text: str, output: str, right: bool) -> None:
    assert paper_match(text, output) is right


@pytest.mark.parametrize("seed", range(3))
def test_areas_equal_scikit_learn_with_ties_and_with_weights(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, scores = rng.integers(0, 2, 150), rng.normal(size=150).round(1)
    assert auroc(truth, scores) == pytest.approx(roc_auc_score(truth, scores))
    assert aupr(truth, scores) == pytest.approx(average_precision_score(truth, scores))
    weights = rng.integers(0, 4, (5, 150))
    for row, area, precision in zip(weights, auroc_of(truth, scores, weights), aupr_of(truth, scores, weights), strict=True):
        assert area == pytest.approx(roc_auc_score(truth, scores, sample_weight=row))
        assert precision == pytest.approx(average_precision_score(truth, scores, sample_weight=row))


def test_aupr_at_a_prior_is_that_of_negatives_repeated_until_positives_are_so_rare() -> None:
    rng = np.random.default_rng(0)
    truth = np.r_[np.ones(50), np.zeros(50)]
    scores = rng.normal(size=100) + truth
    ten_times = np.r_[scores[:50], np.repeat(scores[50:], 10)]
    assert aupr(truth, scores, prior=1 / 11) == pytest.approx(aupr(np.r_[np.ones(50), np.zeros(500)], ten_times))
    assert aupr(truth, scores, prior=0.5) == pytest.approx(aupr(truth, scores))


def test_areas_are_undefined_without_both_classes() -> None:
    assert np.isnan(auroc([1, 1], [0.1, 0.2])) and np.isnan(aupr([0, 0], [0.1, 0.2]))


def test_weighted_spearman_is_that_of_repeated_rows() -> None:
    rng = np.random.default_rng(0)
    truth, values = rng.integers(0, 6, 60), rng.normal(size=60).round(1)
    weights = rng.integers(0, 4, (4, 60))
    for row, value in zip(weights, spearman_of(truth, values, weights), strict=True):
        assert value == pytest.approx(spearmanr(np.repeat(truth, row), np.repeat(values, row)).statistic)


def test_pearson_equals_scipy_also_far_from_zero() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=80), rng.normal(size=80)
    assert pearson(x, x + y) == pytest.approx(pearsonr(x, x + y).statistic)
    assert pearson(1e9 + x, x + y) == pytest.approx(pearsonr(x, x + y).statistic, abs=1e-6)
    assert pearson([1, 2, 3], [0.1, 0.1, 0.1]) == 0.0


@pytest.mark.parametrize("num_labels", [2, 4])
def test_brier_equals_scikit_learn(num_labels: int) -> None:
    rng = np.random.default_rng(0)
    truth, chances = rng.integers(0, num_labels, 90), rng.dirichlet(np.ones(num_labels), 90)
    theirs = brier_score_loss(truth, chances[:, 1]) if num_labels == 2 else brier_score_loss(truth, chances, labels=range(num_labels))
    assert brier(truth, chances) == pytest.approx(theirs)


def test_calibration_bins_rows_by_confidence() -> None:
    truth = [0] * 9 + [1] + [1, 0]
    chances = [[0.95, 0.05]] * 10 + [[0.35, 0.65]] * 2
    found = calibration(truth, chances)
    assert [(entry["low"], entry["high"], entry["n"], entry["accuracy"]) for entry in found["bins"]] == [
        (0.6, 0.7, 2, 0.5),
        (0.9, 1.0, 10, 0.9),
    ]
    assert found["ece"] == pytest.approx((2 * 0.15 + 10 * 0.05) / 12)
    assert calibration([0], [[1.0, 0.0]])["bins"][0]["high"] == 1.0  # full confidence belongs to the last bin


def test_f1_of_label_sets_equals_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth, chosen = rng.random((70, 5)) < 0.3, rng.random((70, 5)) < 0.4
    truth[:, 4] = chosen[:, 4] = False
    sums = metrics.set_counts(truth, chosen).sum(0)
    assert float(metrics.micro_f1_of(sums)) == pytest.approx(f1_score(truth, chosen, average="micro"))
    assert float(metrics.label_f1_of(sums)) == pytest.approx(f1_score(truth, chosen, average="macro", zero_division=0))


ANSWERS = st.integers(2, 5).flatmap(
    lambda k: st.lists(st.tuples(st.integers(0, k - 1), st.integers(OFF_LIST, k - 1)), min_size=2, max_size=40)
)
OF_CLASSES = [accuracy, balanced_accuracy, mcc, macro_f1]


@given(ANSWERS, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_no_metric_depends_on_the_order_of_rows_or_the_numbers_of_labels(pairs: list[tuple[int, int]], random: object) -> None:
    truth, predicted = np.array(pairs).T
    order = np.array(random.sample(range(len(pairs)), len(pairs)))  # type: ignore[attr-defined]
    names = np.array([*random.sample(range(5), 5), OFF_LIST])  # type: ignore[attr-defined]  # the last is the place of -1
    for metric in OF_CLASSES:
        value = metric(truth, predicted)
        assert metric(truth[order], predicted[order]) == pytest.approx(value)
        assert metric(names[truth], names[predicted]) == pytest.approx(value)


@given(ANSWERS)
@settings(max_examples=60, deadline=None)
def test_an_off_list_answer_in_place_of_a_right_one_never_helps(pairs: list[tuple[int, int]]) -> None:
    truth, predicted = np.array(pairs).T
    for i in np.flatnonzero(truth == predicted):
        spoiled = predicted.copy()
        spoiled[i] = OFF_LIST
        for metric in (accuracy, balanced_accuracy, macro_f1):
            assert metric(truth, spoiled) <= metric(truth, predicted) + 1e-12


@given(st.lists(st.tuples(st.booleans(), st.integers(-5, 5)), min_size=4, max_size=40))
@settings(max_examples=60, deadline=None)
def test_areas_depend_on_the_order_of_scores_only_and_auroc_turns_with_the_labels(pairs: list[tuple[bool, int]]) -> None:
    truth, scores = np.array([a for a, _ in pairs]), np.array([b for _, b in pairs], float)
    if 0 < truth.sum() < len(truth):
        assert auroc(truth, np.exp(scores)) == pytest.approx(auroc(truth, scores))
        assert aupr(truth, np.exp(scores)) == pytest.approx(aupr(truth, scores))
        assert auroc(~truth, -scores) == pytest.approx(auroc(truth, scores))
