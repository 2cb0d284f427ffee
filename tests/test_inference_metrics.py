"""Metrics against scikit-learn and scipy, label matching by literal cases, intervals by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, matthews_corrcoef

from llama_gene.inference.metrics import (
    OFF_LIST,
    accuracy,
    balanced_accuracy,
    bin_expectation,
    bootstrap_interval,
    macro_f1,
    mcc,
    probabilities,
    semantic_match,
    spearman,
    wilson_interval,
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


def test_wilson_interval_holds_a_published_example() -> None:
    low, high = wilson_interval(41, 100)  # the committed run of LLaMA-Gene, scored strictly (notes: reference faults, C1)
    assert (round(low, 2), round(high, 2)) == (0.32, 0.51)
    assert wilson_interval(0, 10)[0] == 0.0


def test_bootstrap_interval_is_seeded_and_near_wilson_for_independent_rows() -> None:
    rows = np.stack([np.ones(200), np.arange(200) % 5 > 0], 1)
    measure = lambda drawn: accuracy(drawn[:, 0], drawn[:, 1])  # noqa: E731
    low, high = bootstrap_interval(measure, rows, seed=1)
    assert (low, high) == bootstrap_interval(measure, rows, seed=1)
    assert (low, high) != bootstrap_interval(measure, rows, seed=2)
    assert np.allclose((low, high), wilson_interval(160, 200), atol=0.02)


def test_bootstrap_by_group_is_wider_when_groups_agree_and_equal_when_each_row_is_its_own() -> None:
    right = np.repeat(np.arange(20) % 2, 10)  # 20 groups of 10 rows that are all right or all wrong
    rows = np.stack([np.ones(200), right], 1)
    measure = lambda drawn: accuracy(drawn[:, 0], drawn[:, 1])  # noqa: E731
    by_rows, by_groups = bootstrap_interval(measure, rows), bootstrap_interval(measure, rows, groups=[i // 10 for i in range(200)])
    assert by_groups[1] - by_groups[0] > 2.5 * (by_rows[1] - by_rows[0])  # sqrt(10) times
    assert bootstrap_interval(measure, rows, groups=list(range(200))) == by_rows


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_bootstrap_intervals_of_grouped_rows_cover_the_truth(share: float) -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(100):
        right = np.repeat(rng.random(60) < share, 10)  # rows of a group are wholly correlated
        rows = np.stack([np.ones(600), right], 1)
        groups = [i // 10 for i in range(600)]
        low, high = bootstrap_interval(lambda drawn: float((drawn[:, 0] == drawn[:, 1]).mean()), rows, groups, seed=trial, n=300)
        covered += low <= share <= high
    assert covered >= 87  # 92 % expected, less two standard errors of 100 trials
