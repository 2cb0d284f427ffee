"""How good answers are, and how sure one can be of it.

Answers are class numbers: 0 .. K-1 for the task's labels in their order, OFF_LIST (-1) for an answer that is none of them. Off-list
answers are never dropped: they are wrong, and a class of their own in MCC. Definitions follow scikit-learn (a test compares them);
they are written on the confusion matrix because a bootstrap evaluates them 2,000 times.

Intervals: Wilson's for a share of independent rows; a percentile bootstrap for every other metric, and for any metric whose rows
share a group (windows of one protein, variants of one gene): then whole groups are drawn, since intervals by rows are too narrow
(notes of issue 6: 62 % coverage instead of 95 %).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

OFF_LIST = -1
Classes = NDArray[np.int64]


def accuracy(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Return the share of rows whose prediction is right.

    >>> accuracy([0, 1, 1, 0], [0, 1, OFF_LIST, 1])
    0.5
    """
    return float(np.mean(np.asarray(truth) == np.asarray(predicted)))


def balanced_accuracy(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Return the mean recall of the classes that occur in the truth: 1/K for any constant answer.

    >>> balanced_accuracy([0, 0, 0, 1], [0, 0, 0, 0])
    0.5
    """
    table = _confusion(truth, predicted)
    rows = table.sum(1)
    occurs = rows > 0
    return float(np.mean(np.diagonal(table)[occurs] / rows[occurs]))


def mcc(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Return Matthews' correlation coefficient for any number of classes, off-list being one; 0 where it is undefined.

    >>> mcc([0, 0, 1, 1], [0, 0, 1, 1]), mcc([0, 0, 1, 1], [0, 0, 0, 0])
    (1.0, 0.0)
    """
    table = _confusion(truth, predicted).astype(float)
    total, right = table.sum(), np.trace(table)
    in_truth, in_answer = table.sum(1), table.sum(0)
    spread = (total**2 - in_truth @ in_truth) * (total**2 - in_answer @ in_answer)
    return float((right * total - in_truth @ in_answer) / np.sqrt(spread)) if spread > 0 else 0.0


def macro_f1(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Return the mean F1 of the labels that occur in truth or answers; off-list is no label, it only costs recall.

    >>> macro_f1([0, 0, 1, 1], [0, 0, 1, OFF_LIST])
    0.8333333333333333
    """
    table = _confusion(truth, predicted)[1:, 1:]  # column and row 0 are off-list
    sizes = _confusion(truth, predicted)[1:, :].sum(1) + table.sum(0)
    occurs = sizes > 0
    return float(np.mean(2 * np.diagonal(table)[occurs] / sizes[occurs]))


def spearman(truth: ArrayLike, expected: ArrayLike) -> float:
    """Return Spearman's rank correlation, 0 where one side is constant.

    For binned regression `expected` is the bin expectation (`bin_expectation`).
    """
    from scipy.stats import rankdata

    a, b = rankdata(np.asarray(truth, float)), rankdata(np.asarray(expected, float))
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size > 0 else 0.0


def bin_expectation(scores: ArrayLike) -> NDArray[np.float64]:
    """Return the expected bin number of each row from the log-likelihoods of the bins, (N, K) -> (N,).

    >>> bin_expectation([[0.0, 0.0, 0.0], [0.0, -100.0, -100.0]]).round(6).tolist()
    [1.0, 0.0]
    """
    chances = probabilities(scores)
    expectation: NDArray[np.float64] = chances @ np.arange(chances.shape[1], dtype=float)
    return expectation


def probabilities(scores: ArrayLike) -> NDArray[np.float64]:
    """Return the labels' probabilities given that one of them is the answer: softmax of log-likelihoods, (N, K) -> (N, K)."""
    values = np.asarray(scores, float)
    weights = np.exp(values - values.max(axis=1, keepdims=True))
    result: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return result


def word_f1(truth: str, answer: str) -> float:
    """Return the F1 of an answer's distinct words against the true text's, case ignored: for free-text answers.

    >>> word_f1("binds zinc and DNA", "Binds DNA")
    0.6666666666666666
    """
    wanted, given = set(re.findall(r"\w+", truth.lower())), set(re.findall(r"\w+", answer.lower()))
    shared = len(wanted & given)
    return 2 * shared / (len(wanted) + len(given)) if shared else 0.0


def semantic_match(text: str, labels: Sequence[str]) -> str | None:
    """Return the label that an answer begins with, None for an off-list answer.

    Longest label first, then a word boundary, case ignored (law 10):

    >>> semantic_match("Non-promoter.", ["promoter", "Non-promoter"])
    'Non-promoter'
    >>> semantic_match("Not Conform", ["Conform", "Not Conform"])
    'Not Conform'
    >>> semantic_match("Not Conform", ["Conform"]), semantic_match("promoters", ["promoter"])
    (None, None)
    """
    start = text.strip().strip("\"'`*").lstrip()
    for label in sorted(labels, key=len, reverse=True):
        # A boundary: no letter or digit follows, nor a hyphenated word ("promoter-like"), nor decimals (1 is not 1.5; EC 1.1 not 1.1.2).
        if re.match(re.escape(label) + r"(?!\w|-\w|\.\d)", start, flags=re.IGNORECASE):
            return label
    return None


def wilson_interval(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's interval for k right answers of n independent rows.

    >>> [round(edge, 3) for edge in wilson_interval(41, 100)]
    [0.319, 0.508]
    """
    from scipy.stats import binomtest

    interval = binomtest(k, n).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_interval(
    metric: Callable[[NDArray[np.float64]], float],
    rows: ArrayLike,
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
    n: int = 2000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Return the percentile-bootstrap interval of `metric(rows)` over `n` resamples.

    `rows` is an array with a row of values for each example (say truth and answer). With `groups`, one name for each row, whole
    groups are drawn with replacement; without, rows are.
    """
    values = np.asarray(rows)
    rng = np.random.default_rng(seed)
    members: dict[Hashable, list[int]] = {}
    for i, group in enumerate(groups if groups is not None else range(len(values))):
        members.setdefault(group, []).append(i)
    by_group = [np.array(rows_of_group) for rows_of_group in members.values()]
    shares_groups = len(by_group) < len(values)
    results = np.empty(n)
    for b in range(n):
        drawn = rng.integers(0, len(by_group), size=len(by_group))
        # One row a group: the draw is the rows themselves, and concatenating 2,000 times 500 arrays would dominate the run.
        indices = np.concatenate([by_group[g] for g in drawn]) if shares_groups else drawn
        results[b] = metric(values[indices])
    low, high = np.quantile(results, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _confusion(truth: ArrayLike, predicted: ArrayLike) -> NDArray[np.int64]:
    """Return counts, truth x answer; row and column 0 are off-list, then the classes."""
    rows, columns = np.asarray(truth, np.int64) + 1, np.asarray(predicted, np.int64) + 1
    size = int(max(rows.max(initial=0), columns.max(initial=0))) + 1
    return np.bincount(rows * size + columns, minlength=size * size).reshape(size, size)
