"""Intervals and paired tests: coverage by simulation, literal cases, what must not change them."""

from __future__ import annotations

import time
from argparse import Namespace

import numpy as np
import pytest
from scipy.stats import binomtest

from benchmarks.intervals import coverage, false_alarms
from llama_gene.inference import intervals
from llama_gene.inference.intervals import interval, mcnemar_p, paired_difference, wilson_interval


def test_wilson_interval_holds_a_published_example() -> None:
    low, high = wilson_interval(41, 100)  # the committed run of LLaMA-Gene, scored strictly (notes: reference faults, C1)
    assert (round(low, 2), round(high, 2)) == (0.32, 0.51)
    assert wilson_interval(0, 10)[0] == 0.0 and wilson_interval(10, 10)[1] == 1.0


@pytest.mark.parametrize(("k", "n"), [(0, 5), (3, 7), (50, 50), (199, 1000)])
def test_wilson_interval_equals_scipy(k: int, n: int) -> None:
    theirs = binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(k, n) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_a_share_of_independent_rows_gets_wilsons_interval() -> None:
    right = np.arange(200) % 5 > 0
    assert interval(intervals.share(right)) == pytest.approx(wilson_interval(160, 200))
    assert interval(intervals.share(right), [f"protein {i}" for i in range(200)]) == pytest.approx(wilson_interval(160, 200))


# 3 standard errors of 120 test sets are 6 points; the full simulation of 2,000 is benchmarks/intervals.py.
@pytest.mark.parametrize(("num_rows", "share"), [(200, 0.5), (200, 0.95), (1000, 0.8)])
def test_95_percent_intervals_of_independent_rows_hold_the_truth(num_rows: int, share: float) -> None:
    held = coverage(share, Namespace(sets=120, resamples=300, seed=1), num_rows)
    assert 0.89 <= held["accuracy", "ours"] <= 0.995 and 0.89 <= held["mcc", "ours"] <= 0.995


def test_95_percent_intervals_of_grouped_rows_hold_the_truth_and_by_rows_they_do_not() -> None:
    held = coverage(0.8, Namespace(sets=120, resamples=300, seed=1))
    assert held["accuracy", "ours"] >= 0.89 and held["mcc", "ours"] >= 0.89
    assert held["accuracy", "by rows"] <= 0.75


@pytest.mark.parametrize(("grouped", "metric"), [(False, "accuracy"), (False, "mcc"), (True, "accuracy")])
def test_equal_models_are_told_apart_once_in_twenty(grouped: bool, metric: str) -> None:
    assert false_alarms(grouped, metric, Namespace(sets=150, resamples=300, seed=2)) <= 0.11


def test_an_interval_is_seeded_and_holds_its_value() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 100)
    predicted = np.where(rng.random(100) < 0.8, truth, 1 - truth)
    measure = intervals.of_classes("mcc", truth, predicted, 2)
    assert interval(measure, seed=1) == interval(measure, seed=1) != interval(measure, seed=2)
    low, high = interval(measure, seed=1) or (1.0, 0.0)
    assert low < measure.value() < high


def test_intervals_by_group_are_wider_where_groups_agree() -> None:
    right = np.repeat(np.arange(20) % 2, 10)  # 20 groups of 10 rows that are all right or all wrong
    by_rows, by_groups = interval(intervals.share(right)), interval(intervals.share(right), [i // 10 for i in range(200)])
    assert by_rows is not None and by_groups is not None
    assert by_groups[1] - by_groups[0] > 2.5 * (by_rows[1] - by_rows[0])  # sqrt(10) times


def test_perfect_answers_have_an_interval_with_width() -> None:
    truth = np.arange(200) % 2
    mcc = interval(intervals.of_classes("mcc", truth, truth, 2))
    assert mcc == pytest.approx((2 * wilson_interval(200, 200)[0] - 1, 1.0))
    rare = (np.arange(200) < 5).astype(int)  # five rows of the rarer class say little about it
    low, _ = interval(intervals.of_classes("balanced_accuracy", rare, rare, 2)) or (1.0, 1.0)
    assert low == pytest.approx(wilson_interval(10, 10)[0])
    assert interval(intervals.of_numbers("spearman", truth, -truth)) == pytest.approx((-1.0, 1 - 2 * wilson_interval(200, 200)[0]))
    grouped = interval(intervals.share(np.ones(100)), [i // 10 for i in range(100)])
    assert grouped == pytest.approx(wilson_interval(10, 10))  # ten groups, not a hundred rows


def test_what_cannot_be_resampled_has_no_interval() -> None:
    assert interval(intervals.of_classes("mcc", [0, 1], [0, 0], 2), ["one", "one"]) is None
    assert interval(intervals.of_areas("auroc", [1, 1], [0.1, 0.2])) is None


def test_a_constant_answer_has_the_mcc_of_chance_for_sure() -> None:
    assert interval(intervals.of_classes("mcc", [0, 1, 1, 0], [0, 0, 0, 0], 2)) == (0.0, 0.0)


def test_resamples_of_merged_rows_and_of_single_rows_give_the_same_error() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 300)
    predicted = np.where(rng.random(300) < 0.7, truth, rng.integers(0, 3, 300))
    whole = intervals.of_classes("mcc", truth, predicted, 3)
    split = intervals.Sums(whole.features.astype(float), whole.statistic, "correlation")  # floats are not merged
    group = np.arange(300)
    errors = [intervals.standard_error([measure], group, 0, 4000) for measure in (whole, split)]
    assert errors[0] == pytest.approx(errors[1], rel=0.05)


def test_mcnemar_looks_at_the_rows_that_one_model_alone_gets_right() -> None:
    assert mcnemar_p([1] * 8 + [0, 1], [0] * 8 + [1, 1]) == pytest.approx(binomtest(8, 9, 0.5).pvalue)
    assert mcnemar_p([1, 0], [1, 0]) == 1.0


def test_a_better_model_is_told_apart_and_sides_turn_the_sign() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 300)
    good, poor = (np.where(rng.random(300) < share, truth, 1 - truth) for share in (0.9, 0.7))
    sides = [intervals.of_classes("mcc", truth, answers, 2) for answers in (good, poor)]
    found, turned = paired_difference(sides[:1], sides[1:]), paired_difference(sides[1:], sides[:1])
    assert found["p"] < 0.002 and found["interval"][0] > 0.2 and found["test"] == "permutation of 300 groups"
    assert turned["difference"] == -found["difference"]
    same = paired_difference(sides[:1], sides[:1])
    assert (same["difference"], same["p"]) == (0.0, 1.0)


def test_ranks_of_two_models_are_compared_whatever_their_units() -> None:
    rng = np.random.default_rng(0)
    positive = rng.integers(0, 2, 200)
    good, poor = rng.normal(size=200) + 2 * positive, rng.normal(size=200) + 0.3 * positive
    measures = [intervals.of_areas("auroc", positive, scores) for scores in (good, 1000 * poor)]
    assert paired_difference(measures[:1], measures[1:], num_resamples=500)["p"] < 0.01
    scaled = intervals.of_areas("auroc", positive, np.exp(good))
    assert paired_difference(measures[:1], [scaled], num_resamples=500)["p"] == 1.0


def test_seeds_of_a_side_are_averaged() -> None:
    rng = np.random.default_rng(0)
    rights = [rng.random(400) < 0.8 for _ in range(3)]
    sides = [intervals.share(right) for right in rights]
    other = intervals.share(rng.random(400) < 0.6)
    found = paired_difference(sides, [other])
    assert found["difference"] == pytest.approx(np.mean([right.mean() for right in rights]) - other.value())
    assert found["p"] < 0.01 and "permutation" in found["test"]
    with pytest.raises(ValueError, match="argument"):
        paired_difference(sides, sides[:2])


def test_a_thousand_rows_take_a_fraction_of_a_second() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 10, 1000)
    measure = intervals.of_classes("mcc", truth, rng.integers(0, 10, 1000), 10)
    start = time.process_time()
    interval(measure)
    paired_difference([measure], [measure])
    assert time.process_time() - start < 3  # 0.2 s on an idle core
