"""How sure one can be of a number, and of a difference between two: 95 % intervals and paired tests, by groups of rows.

Rows that share a group (residues of one protein, variants of one gene) are not independent: whole groups are drawn, since intervals by
rows are too narrow (60 groups of 20 correlated rows: 62 % coverage instead of 95 %).

    share of independent rows     Wilson's interval
    every other metric            groups are drawn 2,000 times; the metric's standard error over the resamples goes onto the scale where
                                  its distribution is about normal (logit for shares and areas, Fisher's for correlations), and t with
                                  one degree of freedom less than there are groups gives the limits
    a metric at the end of its    no resample differs from it, so the limits are Wilson's for as many rows as there are groups (of the
    scale (all right)             rarest class, times the classes, for a metric that averages classes)

Why not the percentiles of the resamples: they miss the truth too often near 1 and with few groups (docs/adr/0002; the numbers come from
benchmarks/intervals.py). A normal error on the right scale costs nothing more and holds 95 % in every cell that was simulated.

Two models on the same rows: the difference, its interval from resamples that both share, and p from a permutation that swaps the two
models' answers in whole groups (for a share of independent rows: McNemar's exact test).

A measure is a metric bound to the answers of one model, in one of two forms: `Sums`, a function of summed features of rows, of which
2,000 resamples are one matrix product; and `Ranks`, a function of weighted rows.

Shapes: N rows, G groups, B resamples, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llama_gene.inference import metrics
from llama_gene.inference.metrics import Floats

Scale = Literal["share", "correlation"]
_CELLS = 4_000_000  # numbers of a block of resamples: 32 MB
_DRAWS, _FEWEST = 1_500_000, 500
"""Metrics of ranks sort each resample: over more than 750 rows there are fewer than 2,000 of them, so that no more than these are drawn in
all (a second of one core), and never fewer than 500, whose standard error has 3 % of noise."""


@dataclass(frozen=True)
class Sums:
    """A metric of summed features: `statistic` maps (..., *features.shape[1:]) to (...)."""

    features: NDArray[Any]
    """(N, ...)."""
    statistic: Callable[[NDArray[Any]], Floats]
    scale: Scale = "share"
    is_share: bool = False
    """Whether the metric is the share of rows with feature [0] of ([right, 1]): Wilson and McNemar hold."""
    smallest: int | None = None
    """For a metric that averages classes: rows of the rarest one times the classes; what its limits rest on when all is right."""

    def value(self) -> float:
        """Return the metric of all rows."""
        return float(self.statistic(self.features.sum(0)))


@dataclass(frozen=True)
class Ranks:
    """A metric of weighted rows: `statistic(truth, scores, weights (B, N))` gives (B,)."""

    truth: Floats
    scores: Floats
    statistic: Callable[[Any, Any, Any], Floats]
    scale: Scale = "share"
    smallest: int | None = None

    def value(self) -> float:
        """Return the metric of all rows; NaN where it is undefined."""
        return float(self.statistic(self.truth, self.scores, np.ones((1, len(self.truth))))[0])


Measure = Sums | Ranks


# --- measures --------------------------------------------------------------------------------------------------------------------


def share(right: ArrayLike) -> Sums:
    """Return the share of right rows as a measure."""
    hits = np.asarray(right, np.int64)
    return Sums(np.stack([hits, np.ones_like(hits)], 1), _mean, is_share=True)


def mean(values: ArrayLike) -> Sums:
    """Return the mean of values between 0 and 1 as a measure."""
    numbers = np.asarray(values, float)
    return Sums(np.stack([numbers, np.ones_like(numbers)], 1), _mean)


def of_classes(name: Literal["balanced_accuracy", "mcc", "macro_f1"], truth: ArrayLike, predicted: ArrayLike, num_labels: int) -> Sums:
    """Return a metric of class numbers as a measure."""
    statistic = {"balanced_accuracy": metrics.balanced_accuracy_of, "mcc": metrics.mcc_of, "macro_f1": metrics.macro_f1_of}[name]
    features = metrics.class_counts(truth, predicted, num_labels)
    sizes = np.bincount(np.asarray(truth, np.int64))
    smallest = int(sizes[sizes > 0].min() * (sizes > 0).sum())
    return Sums(features, statistic, "correlation" if name == "mcc" else "share", smallest=smallest)


def of_sets(name: Literal["micro_f1", "macro_f1"], truth: ArrayLike, chosen: ArrayLike) -> Sums:
    """Return a metric of label sets, (N, K) of 0 and 1, as a measure."""
    return Sums(metrics.set_counts(truth, chosen), {"micro_f1": metrics.micro_f1_of, "macro_f1": metrics.label_f1_of}[name])


def of_areas(name: Literal["auroc", "aupr"], positive: ArrayLike, scores: ArrayLike, prior: float | None = None) -> Ranks:
    """Return AUROC or AUPR of 0/1 truth as a measure."""

    def statistic(truth: Any, values: Any, weights: Any) -> Floats:
        return metrics.auroc_of(truth, values, weights) if name == "auroc" else metrics.aupr_of(truth, values, weights, prior)

    truth = np.asarray(positive, float)
    return Ranks(truth, np.asarray(scores, float), statistic, smallest=int(2 * min(truth.sum(), (1 - truth).sum())))


def of_numbers(name: Literal["spearman", "pearson"], truth: ArrayLike, expected: ArrayLike) -> Measure:
    """Return a correlation as a measure."""
    if name == "pearson":
        return Sums(metrics.moments(truth, expected), metrics.pearson_of, "correlation")
    return Ranks(np.asarray(truth, float), np.asarray(expected, float), metrics.spearman_of, "correlation")


def _mean(sums: NDArray[Any]) -> Floats:
    return np.asarray(sums[..., 0] / np.maximum(sums[..., 1], 1))


# --- intervals -------------------------------------------------------------------------------------------------------------------


def wilson_interval(k: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's interval for k right answers of n independent rows.

    >>> [round(edge, 3) for edge in wilson_interval(41, 100)]
    [0.319, 0.508]
    """
    from scipy.stats import norm

    z = float(norm.ppf(0.5 + level / 2))
    p = k / n
    middle, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)
    return (0.0 if k == 0 else float(low)), (1.0 if k == n else float(high))


def interval(
    measure: Measure, groups: Sequence[Hashable] | None = None, seed: int = 0, num_resamples: int = 2000, level: float = 0.95
) -> tuple[float, float] | None:
    """Return the interval of a measure, None where the measure is undefined or there is one group only.

    `groups` names each row's group; without it rows are independent.
    """
    group = group_numbers(groups, _num_rows(measure))
    num_groups, value = int(group.max(initial=-1)) + 1, measure.value()
    if num_groups < 2 or np.isnan(value):
        return None
    if isinstance(measure, Sums) and measure.is_share and num_groups == len(group):
        right, total = measure.features.sum(0)
        return wilson_interval(float(right), float(total), level)
    if abs(value) >= 1 - 1e-12 or (measure.scale == "share" and value <= 1e-12):
        return _at_the_end(measure, value, num_groups, level)
    return limits(value, standard_error([measure], group, seed, num_resamples), num_groups, measure.scale, level)


def limits(value: float, error: float, num_groups: int, scale: Scale, level: float = 0.95) -> tuple[float, float]:
    """Return value +- t errors, taken on the scale where the value's distribution is about normal (the delta method), and back."""
    from scipy.stats import t

    reach = float(t.ppf(0.5 + level / 2, num_groups - 1)) * error
    if scale == "correlation":
        middle, half = np.arctanh(value), reach / (1 - value**2)
        return float(np.tanh(middle - half)), float(np.tanh(middle + half))
    middle, half = np.log(value / (1 - value)), reach / (value * (1 - value))
    low, high = (float(1 / (1 + np.exp(-min(max(edge, -700.0), 700.0)))) for edge in (middle - half, middle + half))
    return low, high


def _at_the_end(measure: Measure, value: float, num_groups: int, level: float) -> tuple[float, float]:
    """Return the interval of a metric that is 0, 1 or -1, from Wilson's for all right."""
    rows = num_groups if measure.smallest is None else min(num_groups, measure.smallest)
    low = wilson_interval(rows, rows, level)[0]
    if measure.scale == "correlation":
        return (2 * low - 1, 1.0) if value > 0 else (-1.0, 1 - 2 * low)
    return (low, 1.0) if value > 0.5 else (0.0, 1 - low)


def standard_error(
    measures: Sequence[Measure], group: NDArray[np.int64], seed: int, num_resamples: int, theirs: Sequence[Measure] = ()
) -> float:
    """Return the standard error of the mean of `measures`, less the mean of `theirs`, over resamples of groups that all share."""
    results = []
    num_groups = int(group.max()) + 1
    for counts, total in _resamples([*measures, *theirs], group, np.random.default_rng(seed), num_resamples):
        values = [total(measure, counts) for measure in (*measures, *theirs)]
        ours = np.mean(values[: len(measures)], axis=0)
        results.append(ours - np.mean(values[len(measures) :], axis=0) if theirs else ours)
    # A bootstrap's variance is that of the sample, (G - 1) / G of the unbiased one.
    return float(np.nanstd(np.concatenate(results), ddof=1) * np.sqrt(num_groups / (num_groups - 1)))


def group_numbers(groups: Sequence[Hashable] | None, num_rows: int) -> NDArray[np.int64]:
    """Return the number of each row's group, in the order of first sight; without names each row is its own."""
    if groups is None:
        return np.arange(num_rows)
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in groups], np.int64)


Total = Callable[[Measure, NDArray[Any]], Floats]


def _num_rows(measure: Measure) -> int:
    return len(measure.features) if isinstance(measure, Sums) else len(measure.truth)


def _resamples(
    measures: Sequence[Measure], group: NDArray[np.int64], rng: np.random.Generator, num: int
) -> Iterator[tuple[NDArray[Any], Total]]:
    """Yield blocks of resamples: how often each unit was drawn, and a function that evaluates a measure on them.

    Where all measures are sums of whole numbers, groups with equal sums are one unit: 1,000 independent rows of two labels are four.
    """
    if all(isinstance(measure, Sums) for measure in measures):
        tables = {id(measure): group_sums(measure.features, group) for measure in measures if isinstance(measure, Sums)}
        sizes, tables = _merge_equal(tables)

        def of_sums(measure: Measure, counts: NDArray[Any]) -> Floats:
            assert isinstance(measure, Sums)
            return measure.statistic((counts @ tables[id(measure)]).reshape(len(counts), *measure.features.shape[1:]))

        width = max(len(sizes), *(table.shape[1] for table in tables.values()))
        for block in _blocks(num, width):
            yield rng.multinomial(sizes.sum(), sizes / sizes.sum(), size=block).astype(float), of_sums
        return

    num_groups = int(group.max()) + 1

    def of_rows(measure: Measure, counts: NDArray[Any]) -> Floats:
        if isinstance(measure, Ranks):
            return measure.statistic(measure.truth, measure.scores, counts[:, group])
        return measure.statistic(np.tensordot(counts[:, group], measure.features, 1))

    for block in _blocks(min(num, max(_FEWEST, _DRAWS // len(group))), len(group)):
        yield rng.multinomial(num_groups, np.full(num_groups, 1 / num_groups), size=block).astype(float), of_rows


def _blocks(num: int, width: int) -> Iterator[int]:
    """Yield sizes of blocks that add up to num, none over _CELLS / width."""
    size = max(1, _CELLS // max(width, 1))
    for start in range(0, num, size):
        yield min(size, num - start)


def group_sums(features: NDArray[Any], group: NDArray[np.int64]) -> NDArray[Any]:
    """Return the summed features of each group, (G, F)."""
    flat = features.reshape(len(features), -1)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(group[order]) > 0])
    return np.asarray(np.add.reduceat(flat[order], starts, axis=0))


def _merge_equal(tables: dict[int, NDArray[Any]]) -> tuple[NDArray[np.int64], dict[int, NDArray[Any]]]:
    """Return how many groups share all their sums, and the tables with one row for each such lot."""
    whole = all(np.issubdtype(table.dtype, np.integer) for table in tables.values())
    num_groups = len(next(iter(tables.values())))
    if not whole:
        return np.ones(num_groups, np.int64), {key: table.astype(float) for key, table in tables.items()}
    joined = np.ascontiguousarray(np.concatenate(list(tables.values()), axis=1))
    keys = joined.view(np.dtype((np.void, joined.dtype.itemsize * joined.shape[1])))[:, 0]
    _, first, sizes = np.unique(keys, return_index=True, return_counts=True)
    return sizes, {key: table[first].astype(float) for key, table in tables.items()}


# --- two models on the same rows -------------------------------------------------------------------------------------------------


def paired_difference(
    ours: Sequence[Measure],
    theirs: Sequence[Measure],
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
    num_resamples: int = 2000,
    level: float = 0.95,
) -> dict[str, Any]:
    """Return {"difference", "interval", "p", "test"} of two models' metrics on the same rows, ours less theirs.

    Several measures a side (one a seed) are averaged, and a side of one stands against each of the other's. The interval and p speak of
    the rows: other rows of the same kind, the same trained models. Both sides must hold the same number of measures, or one holds one.
    """
    from scipy.stats import t

    pairs = _pairs(ours, theirs)
    group = group_numbers(groups, _num_rows(ours[0]))
    num_groups = int(group.max(initial=-1)) + 1
    difference = float(np.mean([a.value() for a in ours]) - np.mean([b.value() for b in theirs]))
    result: dict[str, Any] = {"difference": difference, "interval": None, "p": None, "test": None}
    if num_groups < 2 or np.isnan(difference):
        return result
    error = standard_error(ours, group, seed, num_resamples, theirs)
    reach = float(t.ppf(0.5 + level / 2, num_groups - 1)) * error
    result["interval"] = [difference - reach, difference + reach]
    a, b = pairs[0]
    if len(pairs) == 1 and isinstance(a, Sums) and isinstance(b, Sums) and a.is_share and b.is_share and num_groups == len(group):
        return result | {"p": mcnemar_p(a.features[:, 0], b.features[:, 0]), "test": "McNemar's exact test"}
    drawn = _swapped(pairs, group, np.random.default_rng([seed, 1]), num_resamples)
    extreme = int((np.abs(drawn) >= abs(difference) - 1e-12).sum())
    return result | {"p": (extreme + 1) / (len(drawn) + 1), "test": f"permutation of {num_groups:,} groups"}


def mcnemar_p(ours: ArrayLike, theirs: ArrayLike) -> float:
    """Return the two-sided p of McNemar's exact test: are rows that only one model gets right as often ours as theirs?

    >>> round(mcnemar_p([1] * 8 + [0, 1], [0] * 8 + [1, 1]), 4)
    0.0391
    """
    from scipy.stats import binomtest

    right, other = np.asarray(ours, bool), np.asarray(theirs, bool)
    only_ours, only_theirs = int((right & ~other).sum()), int((~right & other).sum())
    return float(binomtest(only_ours, only_ours + only_theirs, 0.5).pvalue) if only_ours + only_theirs else 1.0


def _pairs(ours: Sequence[Measure], theirs: Sequence[Measure]) -> list[tuple[Measure, Measure]]:
    num = max(len(ours), len(theirs))
    sides = [list(side) * num if len(side) == 1 else list(side) for side in (ours, theirs)]
    return list(zip(*sides, strict=True))


def _swapped(pairs: Sequence[tuple[Measure, Measure]], group: NDArray[np.int64], rng: np.random.Generator, num: int) -> Floats:
    """Return differences after the two models' answers were swapped in a random half of the groups, the same groups in every pair."""
    num_groups = int(group.max()) + 1
    by_rows = any(isinstance(a, Ranks) for a, _ in pairs)
    num = min(num, max(_FEWEST, _DRAWS // (len(group) * len(pairs)))) if by_rows else num
    results = []
    for block in _blocks(num, 2 * len(group) if by_rows else num_groups):
        swap = rng.integers(0, 2, size=(block, num_groups)).astype(float)
        results.append(np.mean([_swap_pair(a, b, group, swap) for a, b in pairs], axis=0))
    return np.concatenate(results)


def _swap_pair(a: Measure, b: Measure, group: NDArray[np.int64], swap: Floats) -> Floats:
    if isinstance(a, Sums) and isinstance(b, Sums):
        first, second = group_sums(a.features, group), group_sums(b.features, group)
        moved = swap @ (second - first)
        shape = (len(swap), *a.features.shape[1:])
        return a.statistic((first.sum(0) + moved).reshape(shape)) - b.statistic((second.sum(0) - moved).reshape(shape))
    assert isinstance(a, Ranks) and isinstance(b, Ranks)
    from scipy.stats import rankdata

    # Scores of two models have different units; their ranks can change places.
    truth = np.concatenate([a.truth, b.truth])
    scores = np.concatenate([rankdata(a.scores), rankdata(b.scores)])
    taken = swap[:, group]
    values = [a.statistic(truth, scores, weights) for weights in (np.hstack([1 - taken, taken]), np.hstack([taken, 1 - taken]))]
    return values[0] - values[1]
