"""How good answers are: the numbers of each task family, by the definitions of scikit-learn and scipy (tests compare them).

Answers are class numbers: 0 .. K-1 for the task's labels in their order, OFF_LIST (-1) for an answer that is none of them. Off-list
answers are never dropped: they are wrong, and a class of their own in MCC.

Every metric here exists once, in a form that a resample can evaluate 2,000 times at once. Metrics of classes depend on three counts of
each class only (rows of it, answers of it, right answers of it), so `class_counts` turns rows into features and `mcc_of` and its like
read sums of them, with any number of leading dimensions. Metrics of ranks (AUROC, AUPR, Spearman) take a weight for each row: a
resample is how often each row was drawn. The functions of (truth, predicted) below are these, for one set of rows.

Shapes: N rows, K labels, B resamples.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

OFF_LIST = -1
Classes = NDArray[np.int64]
Floats = NDArray[np.float64]

# --- classes ---------------------------------------------------------------------------------------------------------------------


def class_counts(truth: ArrayLike, predicted: ArrayLike, num_labels: int | None = None) -> NDArray[np.int64]:
    """Return features of each row, (N, 3, K + 1): is it of the class, is it answered so, is that right; class 0 is off-list.

    >>> class_counts([1], [OFF_LIST], 2)[0].tolist()
    [[0, 0, 1], [1, 0, 0], [0, 0, 0]]
    """
    rows, answers = np.asarray(truth, np.int64) + 1, np.asarray(predicted, np.int64) + 1
    size = int(max(rows.max(initial=0), answers.max(initial=0), num_labels or 0)) + 1
    features = np.zeros((len(rows), 3, size), np.int64)
    place = np.arange(len(rows))
    features[place, 0, rows] = 1
    features[place, 1, answers] = 1
    features[place, 2, rows] = rows == answers
    return features


def accuracy_of(sums: NDArray[Any]) -> Floats:
    """Return accuracy from summed class counts, (..., 3, K + 1) -> (...)."""
    return _ratio(sums[..., 2, :].sum(-1), sums[..., 0, :].sum(-1))


def balanced_accuracy_of(sums: NDArray[Any]) -> Floats:
    """Return the mean recall of the classes that occur in the truth, (..., 3, K + 1) -> (...)."""
    occurs = sums[..., 0, :] > 0
    return _ratio(_ratio(sums[..., 2, :], sums[..., 0, :]).sum(-1), occurs.sum(-1))


def mcc_of(sums: NDArray[Any]) -> Floats:
    """Return Matthews' correlation, off-list being a class, 0 where it is undefined, (..., 3, K + 1) -> (...)."""
    in_truth, in_answer, right = (sums[..., part, :].astype(float) for part in range(3))
    total = in_truth.sum(-1)
    spread = (total**2 - (in_truth**2).sum(-1)) * (total**2 - (in_answer**2).sum(-1))
    return _ratio(right.sum(-1) * total - (in_truth * in_answer).sum(-1), np.sqrt(np.maximum(spread, 0.0)))


def macro_f1_of(sums: NDArray[Any]) -> Floats:
    """Return the mean F1 of the labels that occur in truth or answers, (..., 3, K + 1) -> (...)."""
    labels = sums[..., 1:]  # off-list is no label: it only costs recall
    sizes = labels[..., 0, :] + labels[..., 1, :]
    return _ratio(_ratio(2 * labels[..., 2, :], sizes).sum(-1), (sizes > 0).sum(-1))


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
    return float(balanced_accuracy_of(class_counts(truth, predicted).sum(0)))


def mcc(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Return Matthews' correlation coefficient for any number of classes, off-list being one; 0 where it is undefined.

    >>> mcc([0, 0, 1, 1], [0, 0, 1, 1]), mcc([0, 0, 1, 1], [0, 0, 0, 0])
    (1.0, 0.0)
    """
    return float(mcc_of(class_counts(truth, predicted).sum(0)))


def macro_f1(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Return the mean F1 of the labels that occur in truth or answers; off-list is no label, it only costs recall.

    >>> round(macro_f1([0, 0, 1, 1], [0, 0, 1, OFF_LIST]), 6)
    0.833333
    """
    return float(macro_f1_of(class_counts(truth, predicted).sum(0)))


# --- several labels a row --------------------------------------------------------------------------------------------------------


def set_counts(truth: ArrayLike, chosen: ArrayLike) -> NDArray[np.int64]:
    """Return features of each row of a multi-label task, (N, K) and (N, K) of 0 and 1 -> (N, 3, K): hits, false ones, missed ones."""
    wanted, given = np.asarray(truth, bool), np.asarray(chosen, bool)
    return np.stack([wanted & given, ~wanted & given, wanted & ~given], 1).astype(np.int64)


def micro_f1_of(sums: NDArray[Any]) -> Floats:
    """Return the F1 of all labels' decisions together, (..., 3, K) -> (...)."""
    hits, false, missed = (sums[..., part, :].sum(-1) for part in range(3))
    return _ratio(2 * hits, 2 * hits + false + missed)


def label_f1_of(sums: NDArray[Any]) -> Floats:
    """Return the mean of the labels' F1; a label that is neither true nor given counts 0, as in scikit-learn, (..., 3, K) -> (...)."""
    hits, false, missed = (sums[..., part, :] for part in range(3))
    return np.asarray(_ratio(2 * hits, 2 * hits + false + missed).mean(-1))


# --- ranks -----------------------------------------------------------------------------------------------------------------------


def auroc_of(truth: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> Floats:
    """Return the area under the ROC curve, ties counting half; NaN where a class is absent. Weights (B, N) -> (B,).

    >>> float(auroc_of([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])[0])
    0.75
    """
    positive, negative = _runs(truth, scores, weights)
    below = np.cumsum(negative, 1) - negative
    pairs = positive.sum(1) * negative.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((positive * (below + negative / 2)).sum(1) / pairs)


def aupr_of(truth: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None, prior: float | None = None) -> Floats:
    """Return the area under the precision-recall curve (average precision); NaN without a positive row. Weights (B, N) -> (B,).

    With `prior`, negatives are weighed so that positives hold that share: what the curve would be where a partner is that rare.

    >>> round(float(aupr_of([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])[0]), 4)
    0.8333
    """
    positive, negative = _runs(truth, scores, weights)
    total = positive.sum(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        if prior is not None:
            negative = negative * (total * (1 - prior) / prior / negative.sum(1, keepdims=True))
        hits = np.cumsum(positive[:, ::-1], 1)  # from the highest score down
        given = hits + np.cumsum(negative[:, ::-1], 1)
        precision = np.where(given > 0, hits / np.where(given > 0, given, 1), 0.0)
        return np.asarray((positive[:, ::-1] * precision).sum(1) / total[:, 0])


def spearman_of(truth: ArrayLike, expected: ArrayLike, weights: ArrayLike | None = None) -> Floats:
    """Return Spearman's rank correlation, ties by mid-ranks, 0 where one side is constant. Weights (B, N) -> (B,)."""
    drawn = _weights(weights, len(np.asarray(truth)))
    total = drawn.sum(1, keepdims=True)
    x, y = (_mid_ranks(values, drawn) - (total + 1) / 2 for values in (truth, expected))  # the mean of mid-ranks is (total + 1) / 2
    return _ratio((drawn * x * y).sum(1), np.sqrt((drawn * x * x).sum(1) * (drawn * y * y).sum(1)))


def auroc(truth: ArrayLike, scores: ArrayLike) -> float:
    """Return the area under the ROC curve of 0/1 truth and the positive label's scores."""
    return float(auroc_of(truth, scores)[0])


def aupr(truth: ArrayLike, scores: ArrayLike, prior: float | None = None) -> float:
    """Return the area under the precision-recall curve (average precision) of 0/1 truth and the positive label's scores."""
    return float(aupr_of(truth, scores, prior=prior)[0])


def spearman(truth: ArrayLike, expected: ArrayLike) -> float:
    """Return Spearman's rank correlation, 0 where one side is constant.

    For binned regression `expected` is the bin expectation (`bin_expectation`).
    """
    return float(spearman_of(truth, expected)[0])


def moments(truth: ArrayLike, expected: ArrayLike) -> Floats:
    """Return features of each row for Pearson's correlation, (N, 6): 1, x, y, xx, yy, xy (both sides standardised first)."""
    columns = []
    for values in (truth, expected):
        values = np.asarray(values, float)
        spread = values.std()
        columns.append((values - values.mean()) / (spread if spread > 1e-12 * max(1.0, np.abs(values).max(initial=0.0)) else np.inf))
    x, y = columns
    return np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], 1)


def pearson_of(sums: Floats) -> Floats:
    """Return Pearson's correlation from summed moments, 0 where one side is constant, (..., 6) -> (...)."""
    n, x, y, xx, yy, xy = (sums[..., part] for part in range(6))
    spread = (n * xx - x * x) * (n * yy - y * y)
    return _ratio(n * xy - x * y, np.sqrt(np.maximum(spread, 0.0)))


def pearson(truth: ArrayLike, expected: ArrayLike) -> float:
    """Return Pearson's correlation, 0 where one side is constant."""
    return float(pearson_of(moments(truth, expected).sum(0)))


def _ratio(above: Any, below: Any) -> Floats:
    """Return above / below, 0 where below is 0."""
    below = np.asarray(below, float)
    return np.asarray(np.where(below > 0, above / np.where(below > 0, below, 1.0), 0.0))


def _weights(weights: ArrayLike | None, num: int) -> Floats:
    return np.ones((1, num)) if weights is None else np.atleast_2d(np.asarray(weights, float))


def _runs(truth: ArrayLike, scores: ArrayLike, weights: ArrayLike | None) -> tuple[Floats, Floats]:
    """Return the weight of positive and of negative rows at each distinct score, ascending, (B, distinct) each."""
    values, positive = np.asarray(scores, float), np.asarray(truth, bool)
    drawn = _weights(weights, len(values))
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(values[order]) > 0])
    everyone = drawn[:, order]
    hits = np.add.reduceat(everyone * positive[order], starts, axis=1)
    return hits, np.add.reduceat(everyone, starts, axis=1) - hits


def _mid_ranks(values: ArrayLike, drawn: Floats) -> Floats:
    """Return each row's mid-rank among the drawn rows, (B, N)."""
    array = np.asarray(values, float)
    _, inverse = np.unique(array, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(inverse[order]) > 0])
    sizes = np.add.reduceat(drawn[:, order], starts, axis=1)
    return np.asarray((np.cumsum(sizes, 1) - sizes + (sizes + 1) / 2)[:, inverse])


# --- probabilities ---------------------------------------------------------------------------------------------------------------


def bin_expectation(scores: ArrayLike, values: ArrayLike | None = None) -> Floats:
    """Return the expected value of each row from the log-likelihoods of the bins, (N, K) -> (N,); without `values`, the bin number.

    >>> bin_expectation([[0.0, 0.0, 0.0], [0.0, -100.0, -100.0]]).round(6).tolist()
    [1.0, 0.0]
    >>> bin_expectation([[0.0, 0.0]], values=[2.0, 5.0]).tolist()
    [3.5]
    """
    chances = probabilities(scores)
    expectation: Floats = chances @ (np.arange(chances.shape[1], dtype=float) if values is None else np.asarray(values, float))
    return expectation


def probabilities(scores: ArrayLike) -> Floats:
    """Return the labels' probabilities given that one of them is the answer: softmax of log-likelihoods, (N, K) -> (N, K)."""
    values = np.asarray(scores, float)
    weights = np.exp(values - values.max(axis=1, keepdims=True))
    result: Floats = weights / weights.sum(axis=1, keepdims=True)
    return result


def brier(truth: ArrayLike, chances: ArrayLike) -> float:
    """Return the mean squared error of probabilities: of the second label for two labels, summed over labels for more (scikit-learn's).

    >>> brier([0, 1], [[0.5, 0.5], [0.0, 1.0]])
    0.125
    """
    values = np.asarray(chances, float)
    errors = ((values - np.eye(values.shape[1])[np.asarray(truth, np.int64)]) ** 2).sum(1)
    return float(errors.mean() / (2 if values.shape[1] == 2 else 1))


def calibration(truth: ArrayLike, chances: ArrayLike, num_bins: int = 10) -> dict[str, Any]:
    """Return how far confidence can be trusted: {"bins", "ece", "brier"} of the chosen labels' probabilities.

    A bin holds the rows whose highest probability lies in an equal part of 0 .. 1: {"low", "high", "n", "confidence", "accuracy"};
    empty bins are left out. ECE is the mean distance of the two, weighted by n.
    """
    values = np.asarray(chances, float)
    confidence, right = values.max(1), values.argmax(1) == np.asarray(truth)
    place = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    bins = []
    for b in np.unique(place):
        inside = place == b
        bins.append(
            {
                "low": int(b) / num_bins,
                "high": (int(b) + 1) / num_bins,
                "n": int(inside.sum()),
                "confidence": float(confidence[inside].mean()),
                "accuracy": float(right[inside].mean()),
            }
        )
    distance = sum(entry["n"] * abs(entry["confidence"] - entry["accuracy"]) for entry in bins)
    return {"bins": bins, "ece": distance / len(right), "brier": brier(truth, values)}


# --- answers in words ------------------------------------------------------------------------------------------------------------


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


def semantic_matches(text: str, labels: Sequence[str]) -> tuple[list[str], int]:
    """Return the labels of an answer that lists several, in the order of `labels`, and how many of its parts are off the list.

    >>> semantic_matches("nucleus, cell wall; and DNA", ["cell wall", "cell", "nucleus"])
    (['cell wall', 'nucleus'], 1)
    >>> semantic_matches("binding, ATP", ["binding, ATP", "binding"])
    (['binding, ATP'], 0)
    """
    found, unknown, rest = set(), 0, text.strip()
    while rest:
        label = semantic_match(rest, labels)
        found |= {label} - {None}
        unknown += label is None
        rest = rest[rest.lower().index(label.lower()) + len(label) :] if label is not None else rest
        separator = re.search(r"[,;\n]\s*(?:and\s+)?", rest)
        rest = rest[separator.end() :].strip() if separator else ""
    return [label for label in labels if label in found], unknown


def paper_match(text: str, output: str) -> bool:
    """Return whether the authors' scorer counts an answer as right: the true output stands anywhere in it, and "Non" not against it.

    Kept to print the papers' number beside ours, faults included: only "Non" is guarded, so "Not Conform" is right where "Conform" is
    true, and an answer that names both labels is right for either (notes: reference faults, C1 and C1b).

    >>> paper_match("Non-promoter", "promoter"), paper_match(" D Donor Sites", "Donor Sites")
    (False, True)
    >>> paper_match("Not Conform", "Conform"), paper_match("promoter terminator", "terminator")
    (True, True)
    """
    return output in text and ("Non" in output or "Non" not in text)
