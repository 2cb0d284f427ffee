"""How good are predicted GO terms? F-max and S-min with an ontology, F1 over slim terms without one, and what they must beat.

N proteins, K terms; truth and scores are (N, K), the terms in one order. Of one aspect (P, F, C), propagated, roots left out:
    F-max   the best F over thresholds t; precision averages over proteins with a score >= t, recall over all annotated proteins
    S-min   the least sqrt(ru^2 + mi^2): remaining uncertainty ru is the information of terms missed, misinformation mi that of terms
            wrongly said, both averaged over all annotated proteins
(Radivojac et al. 2013; Clark and Radivojac 2013). Thresholds run over 0.01, 0.02, ... 1.00. A score says "this term" if it is >= t.
Proteins without a true term of the aspect are left out and counted. A term that is scored higher than one above it would be said without
it: `raise_ancestors` gives each term the highest score of those below it.

Baselines: `naive_scores` says of every protein each term's share of the training proteins; `best_hit_scores` passes on the terms of the
nearest training proteins, each with the similarity of the nearest one that has it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llama_gene.data.ontology import ASPECTS, Ontology, information_content
from llama_gene.errors import InputError

Floats = NDArray[np.float64]
Truth = Sequence[Collection[str]]
"""The true terms of each protein."""

_THRESHOLDS = np.arange(1, 101) / 100.0


@dataclass(frozen=True)
class Fmax:
    """`fmax` at `threshold`, with the precision and recall there, and the share of annotated proteins about which anything is said."""

    fmax: float
    threshold: float
    precision: float
    recall: float
    coverage: float
    num_proteins: int


@dataclass(frozen=True)
class Smin:
    """`smin` in bits at `threshold`, with the remaining uncertainty and the misinformation there."""

    smin: float
    threshold: float
    remaining_uncertainty: float
    misinformation: float
    num_proteins: int
    num_unknown_terms: int
    """Terms whose information the training annotations do not tell: they weigh nothing."""


@dataclass(frozen=True)
class SlimF1:
    """F1 over terms: `micro` counts all decisions together, `macro` averages over the terms that occur in truth or prediction."""

    micro: float
    macro: float
    precision: float
    recall: float
    num_terms: int


@dataclass(frozen=True)
class OntologyScores:
    """What a model reaches in one ontology (P, F or C), beside the frequency baseline on the same proteins."""

    fmax: Fmax
    smin: Smin
    naive_fmax: Fmax
    naive_smin: Smin
    num_terms: int


def score_ontologies(
    ontology: Ontology,
    truth: Truth,
    scores: NDArray[np.floating],
    terms: Sequence[str],
    train: Truth,
    unknown: Counter[str] | None = None,
) -> dict[str, OntologyScores]:
    """Return F-max and S-min of each ontology in which a protein has a true term, by its letter.

    `truth` and `train` are annotations as they are given, `scores` (N, K) those of `terms`: all are propagated here, a term above several
    takes the highest of their scores, and the information of terms is that of `train`. Terms that the ontology does not know (a file of
    another year) are left out and counted in `unknown`, once each time they occur.
    Raises InputError where it knows none of the scored terms, and what `fmax` raises.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.shape != (len(truth), len(terms)):
        raise InputError(f"scores of shape {values.shape}", f"({len(truth)}, {len(terms)}): proteins and terms")
    if terms and not any(map(ontology.resolve, terms)):
        raise InputError(f"the ontology knows none of the {len(terms)} scored terms ({terms[0]}, ...)", "GO ids such as GO:0005829")
    above = [frozenset().union(*ontology.propagate([term], unknown).values()) for term in terms]
    true, known = [ontology.propagate(own, unknown) for own in truth], [ontology.propagate(own, unknown) for own in train]
    found = {}
    for aspect in ASPECTS.values():
        own_truth, own_train = [sets[aspect] for sets in true], [sets[aspect] for sets in known]
        if not any(own_truth):
            continue
        listed = {term for own in (*above, *own_train) for term in own}
        columns = sorted(term for term in listed if ontology.terms[term].aspect == aspect)
        raised = np.zeros((len(truth), len(columns)))
        for number, column in enumerate(columns):
            below = [place for place, own in enumerate(above) if column in own]
            if below:
                raised[:, number] = values[:, below].max(axis=1)
        annotated = [own for own in own_train if own]  # a protein without a term of this ontology is unknown, not negative
        bits = information_content(ontology, annotated)
        naive = naive_scores(annotated, columns, len(truth)) if annotated else np.zeros_like(raised)
        found[aspect] = OntologyScores(
            fmax(own_truth, raised, columns),
            smin(own_truth, raised, columns, bits),
            fmax(own_truth, naive, columns),
            smin(own_truth, naive, columns, bits),
            len(columns),
        )
    return found


def fmax(truth: Truth, scores: NDArray[np.floating], terms: Sequence[str]) -> Fmax:
    """Return the best F-measure over thresholds; see the module's docstring.

    `truth`: propagated terms of one aspect, N sets; `scores`: (N, K) from 0 to 1, in the order of `terms`. True terms that are not among
    `terms` count as missed. Raises InputError for another shape, scores outside 0 to 1, and where no protein has a true term.
    """
    values, true, sizes = _checked(truth, scores, terms)
    best = Fmax(0.0, 1.0, 0.0, 0.0, 0.0, len(values))
    for threshold in _THRESHOLDS:
        said = values >= threshold
        num_said, num_right = said.sum(axis=1), (said & true).sum(axis=1)
        covered = num_said > 0
        if not covered.any():
            continue
        precision = float((num_right[covered] / num_said[covered]).mean())
        recall = float((num_right / sizes).mean())
        value = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        if value > best.fmax:
            best = Fmax(value, float(threshold), precision, recall, float(covered.mean()), len(values))
    return best


def smin(truth: Truth, scores: NDArray[np.floating], terms: Sequence[str], information: Mapping[str, float]) -> Smin:
    """Return the least semantic distance over thresholds, in bits; `information` is that of `ontology.information_content` on train.

    Raises what `fmax` raises.
    """
    values, true, _ = _checked(truth, scores, terms)
    bits = np.array([information.get(term, 0.0) for term in terms])
    everything = {term for own in truth for term in own} | set(terms)
    num_unknown = len(everything - set(information))
    # what is missed whatever the threshold: true terms that nobody scores
    listed = set(terms)
    unlisted = np.array([sum(information.get(term, 0.0) for term in set(own) - listed) for own in truth if own])
    candidates = []
    for threshold in _THRESHOLDS:
        said = values >= threshold
        missed = float((((true & ~said) @ bits) + unlisted).mean())
        wrong = float(((said & ~true) @ bits).mean())
        candidates.append(Smin(float(np.hypot(missed, wrong)), float(threshold), missed, wrong, len(values), num_unknown))
    return min(candidates, key=lambda found: found.smin)


def slim_f1(truth: Truth, predicted: Truth) -> SlimF1:
    """Return micro- and macro-F1 of sets of terms, N proteins each; a term that is neither true nor said of any protein does not count.

    Raises InputError for lists of different lengths, and where there is no term at all.

    >>> slim_f1([{"a", "b"}, {"a"}], [{"a"}, {"a", "c"}])
    SlimF1(micro=0.6666666666666666, macro=0.3333333333333333, precision=0.6666666666666666, recall=0.6666666666666666, num_terms=3)
    """
    if len(truth) != len(predicted):
        raise InputError(f"{len(truth)} true sets and {len(predicted)} predicted ones", "one of each for every protein")
    terms = sorted({term for own in (*truth, *predicted) for term in own})
    if not terms:
        raise InputError(f"{len(truth)} proteins without a term", "true or predicted terms")
    right = {term: sum(term in own and term in said for own, said in zip(truth, predicted, strict=True)) for term in terms}
    num_true = {term: sum(term in own for own in truth) for term in terms}
    num_said = {term: sum(term in said for said in predicted) for term in terms}
    total_right, total_true, total_said = sum(right.values()), sum(num_true.values()), sum(num_said.values())
    macro = sum(2 * right[term] / (num_true[term] + num_said[term]) for term in terms) / len(terms)
    return SlimF1(
        micro=2 * total_right / (total_true + total_said),
        macro=macro,
        precision=total_right / total_said if total_said else 0.0,
        recall=total_right / total_true if total_true else 0.0,
        num_terms=len(terms),
    )


def naive_scores(train: Truth, terms: Sequence[str], num_proteins: int) -> Floats:
    """Return the frequency baseline, (num_proteins, K): every protein gets each term's share of the training proteins.

    Raises InputError without a training protein.
    """
    if not train:
        raise InputError("no training protein", "annotated proteins")
    shares = np.array([sum(term in own for own in train) / len(train) for term in terms], dtype=np.float64)
    return np.tile(shares, (num_proteins, 1))


def best_hit_scores(hits: Sequence[Sequence[tuple[int, float]]], train: Truth, terms: Sequence[str]) -> Floats:
    """Return the best-hit baseline, (N, K), from hits that any aligner gave: (number in `train`, similarity from 0 to 1) of each protein.

    A term gets the similarity of the most similar hit that has it; 0 where none has. Raises InputError for a similarity outside 0 to 1, or
    a number that is no training protein.
    """
    column = {term: number for number, term in enumerate(terms)}
    scores = np.zeros((len(hits), len(terms)))
    for row, own in enumerate(hits):
        for number, similarity in own:
            if not 0 <= number < len(train) or not 0 <= similarity <= 1:
                raise InputError(f"hit ({number}, {similarity:g})", f"a number below {len(train)}, and a similarity from 0 to 1")
            for term in train[number]:
                if term in column:
                    scores[row, column[term]] = max(scores[row, column[term]], similarity)
    return scores


def raise_ancestors(scores: NDArray[np.floating], terms: Sequence[str], ontology: Ontology) -> Floats:
    """Return scores in which no term is below a term under it; ancestors that are not among `terms` are not added."""
    column = {term: number for number, term in enumerate(terms)}
    raised = np.array(scores, dtype=np.float64)
    for term, number in column.items():
        for above in ontology.ancestors(term) - {term}:
            if above in column:
                np.maximum(raised[:, column[above]], scores[:, number], out=raised[:, column[above]])
    return raised


def _checked(truth: Truth, scores: NDArray[np.floating], terms: Sequence[str]) -> tuple[Floats, NDArray[np.bool_], NDArray[np.int64]]:
    """Return scores (N', K), truth (N', K) and the number of true terms of the N' proteins that have any."""
    values = np.asarray(scores, dtype=np.float64)
    if values.shape != (len(truth), len(terms)):
        raise InputError(f"scores of shape {values.shape}", f"({len(truth)}, {len(terms)}): proteins and terms")
    if not np.isfinite(values).all() or values.min(initial=0) < 0 or values.max(initial=0) > 1:
        raise InputError("scores that are not numbers from 0 to 1", "probabilities", "Turn log-likelihoods into probabilities first")
    keep = np.array([bool(own) for own in truth], dtype=bool)
    if not keep.any():
        raise InputError(f"{len(truth)} proteins without a true term", "at least one annotated protein")
    true = np.array([[term in own for term in terms] for own in truth if own], dtype=bool).reshape(int(keep.sum()), len(terms))
    sizes = np.array([len(own) for own in truth if own], dtype=np.int64)
    return values[keep], true, sizes
