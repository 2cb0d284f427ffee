"""A task of GO terms held against the ontology: F-max and S-min of ours and of every baseline, each ontology apart.

A task is one of GO terms if its rows carry several labels and labels name GO ids ("conjugation (GO:0000746)"). F-max and S-min need one
scale of scores for all terms, and label likelihoods have none: a label that the model rarely says first is low for every protein. So each
term's chance is fitted on dev, by a logistic curve over its log-likelihood (Platt 1999, with his smoothed targets, so that a label without
a dev row is near 0 and not refused); without dev rows it is the label's share among the labels, times the mean number of labels of a
training row, at most 1. Baselines give chances of their own, a greedy answer says 0 or 1.

The frequency baseline is always there; the nearest neighbour is the best hit. Intervals draw whole groups of proteins.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llama_gene.data.ontology import ASPECTS, Ontology
from llama_gene.inference import go_metrics, intervals
from llama_gene.inference.go_metrics import Aspect, Floats

Example = Mapping[str, Any]
FREQUENCY = "frequency of the term"
NOT_GIVEN = "F-max and S-min were not computed: they need the ontology (--go_obo FILE)"
_GO_ID = re.compile(r"GO:\d{7}")


def go_ids(rows: Sequence[Example]) -> dict[str, str]:
    """Return label -> GO id of the labels that name one; empty for a task that is none of GO terms.

    >>> go_ids([{"labels": ["nucleus (GO:0005634)", "other"], "answers": ["other"]}])
    {'nucleus (GO:0005634)': 'GO:0005634'}
    """
    if not any(row.get("answers") for row in rows):
        return {}
    return {label: found.group() for label in rows[0]["labels"] if (found := _GO_ID.search(label))}


def term_chances(scores: NDArray[Any], train_rows: Sequence[Example], dev: tuple[Sequence[Example], NDArray[Any]] | None) -> Floats:
    """Return each label's chance, (N, K), from log-likelihoods (N, K); see the module's docstring. Other scores stay as they are."""
    values = np.asarray(scores, dtype=np.float64)
    if values.size == 0 or not ((values < 0).any() and (values <= 0).all()):
        return values
    if dev is not None and len(dev[0]):
        return _fitted(values, *dev)
    number = float(np.mean([len(row.get("answers") or []) for row in train_rows])) if train_rows else 1.0
    shares = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(np.minimum(1.0, number * shares / shares.sum(axis=1, keepdims=True)))


def _fitted(scores: Floats, dev_rows: Sequence[Example], dev_scores: NDArray[Any]) -> Floats:
    """Return chances by a logistic curve for each label, fitted on dev."""
    from sklearn.linear_model import LogisticRegression

    labels = list(dev_rows[0]["labels"])
    chances = np.zeros_like(scores)
    for k, label in enumerate(labels):
        has = np.array([label in (row.get("answers") or []) for row in dev_rows])
        own = np.asarray(dev_scores, dtype=np.float64)[:, k]
        mean, deviation = own.mean(), own.std() or 1.0
        # Platt's targets, as rows with weights: a label that no dev row has is fitted, too
        target = np.where(has, (has.sum() + 1) / (has.sum() + 2), 1 / ((~has).sum() + 2))
        twice = np.tile((own - mean) / deviation, 2)[:, None]
        answers, weights = np.repeat([1, 0], len(own)), np.concatenate([target, 1 - target])
        curve = LogisticRegression().fit(twice, answers, weights)
        chances[:, k] = curve.predict_proba(((scores[:, k] - mean) / deviation)[:, None])[:, 1]
    return chances


def judge_go(
    rows: Sequence[Example],
    scores: NDArray[Any],
    train_rows: Sequence[Example],
    baselines: Mapping[str, NDArray[Any]],
    ontology: Ontology,
    dev: tuple[Sequence[Example], NDArray[Any]] | None = None,
    seed: int = 0,
    num_resamples: int = 2000,
) -> dict[str, Any]:
    """Return {"ontologies", "unknown"} of a task of GO terms.

    `ontologies` holds for each of P, F and C with a true term: name, proteins, terms, and `scored`, by "ours", the frequency baseline and
    every given one: fmax, fmax_interval, threshold, precision, recall, coverage, smin (bits), smin_interval. `scores` and `baselines` are
    (N, K) in the order of the rows' labels. `unknown` counts the labels that have no GO id or whose id the ontology does not know (rows
    that say such a label lose it). Raises InputError where the ontology knows no label at all.
    """
    ids = go_ids(rows)
    labels = list(rows[0]["labels"])
    used = [k for k, label in enumerate(labels) if label in ids]
    terms = [ids[labels[k]] for k in used]
    truth, train = ([{ids[label] for label in row.get("answers") or [] if label in ids} for row in part] for part in (rows, train_rows))
    aspects = go_metrics.read_aspects(ontology, truth, terms, train)
    unknown = Counter({"label without a GO id": len(labels) - len(used), "GO id that the ontology does not know": 0})
    unknown["GO id that the ontology does not know"] = sum(ontology.resolve(term) is None for term in terms)
    given = {"ours": term_chances(scores, train_rows, dev), **baselines}
    names = {letter: name.replace("_", " ") for name, letter in ASPECTS.items()}
    groups = [str(row.get("group") or f"row {i}") for i, row in enumerate(rows)]
    found = {}
    for aspect in aspects:
        chances = {name: aspect.raised(np.asarray(array, dtype=np.float64)[:, used]) for name, array in given.items()}
        chances = {"ours": chances.pop("ours"), FREQUENCY: aspect.naive, **chances}
        own_groups = [group for group, own in zip(groups, aspect.truth, strict=True) if own]
        found[aspect.letter] = {
            "name": names[aspect.letter],
            "proteins": len(own_groups),
            "terms": len(aspect.columns),
            "scored": {name: _scored(aspect, array, own_groups, seed, num_resamples) for name, array in chances.items()},
        }
    missing = sorted({term for term in terms if ontology.resolve(term) is None})
    return {"ontologies": found, "unknown": {reason: count for reason, count in unknown.items() if count}, "unknown_ids": missing}


def _scored(aspect: Aspect, chances: Floats, groups: Sequence[str], seed: int, num_resamples: int) -> dict[str, Any]:
    """Return F-max and S-min of one model in one ontology."""
    best = go_metrics.fmax(aspect.truth, chances, aspect.columns)
    least = go_metrics.smin(aspect.truth, chances, aspect.columns, aspect.bits)
    f_measure = intervals.Sums(go_metrics.fmax_rows(aspect.truth, chances, aspect.columns), go_metrics.fmax_of)
    edges = intervals.interval(f_measure, groups, seed, num_resamples)
    return {
        "fmax": best.fmax,
        "fmax_interval": None if edges is None else list(edges),
        "threshold": best.threshold,
        "precision": best.precision,
        "recall": best.recall,
        "coverage": best.coverage,
        "smin": least.smin,
        "smin_interval": _bits_interval(aspect, chances, least.smin, groups, seed, num_resamples),
    }


def _bits_interval(
    aspect: Aspect, chances: Floats, value: float, groups: Sequence[str], seed: int, num_resamples: int
) -> list[float] | None:
    """Return the interval of S-min, which has no upper end: value +- t standard errors, not below 0; None for one group."""
    from scipy.stats import t

    numbers = intervals.group_numbers(groups, len(groups))
    num_groups = int(numbers.max()) + 1
    if num_groups < 2:
        return None
    measure = intervals.Sums(go_metrics.smin_rows(aspect.truth, chances, aspect.columns, aspect.bits), go_metrics.smin_of)
    reach = float(t.ppf(0.975, num_groups - 1)) * intervals.standard_error([measure], numbers, seed, num_resamples)
    return [max(0.0, value - reach), value + reach]
