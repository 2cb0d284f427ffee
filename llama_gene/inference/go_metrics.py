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


@dataclass(frozen=True)
class Aspect:
    """One ontology of a task, propagated: what scores of the task's own terms are held against."""

    letter: str
    truth: list[frozenset[str]]
    """Of each protein; empty for one without a term of this ontology."""
    columns: list[str]
    """Scored and trained terms with all above them, roots left out."""
    below: list[list[int]]
    """Of each column: the numbers of the scored terms that it is or stands above."""
    bits: dict[str, float]
    """Information of the terms, from train."""
    naive: Floats
    """(N, columns): the frequency baseline."""

    def raised(self, scores: NDArray[np.floating]) -> Floats:
        """Return (N, columns) from scores of the task's terms (N, K): a term above several takes the highest of their scores."""
        found = np.zeros((len(scores), len(self.columns)))
        for number, below in enumerate(self.below):
            if below:
                found[:, number] = np.asarray(scores, dtype=np.float64)[:, below].max(axis=1)
        return found


def read_aspects(ontology: Ontology, truth: Truth, terms: Sequence[str], train: Truth, unknown: Counter[str] | None = None) -> list[Aspect]:
    """Return each ontology in which a protein has a true term.

    `truth` and `train` are annotations as they are given; all are propagated here. Terms that the ontology does not know (a file of
    another year) are left out and counted in `unknown`, once each time they occur. Raises InputError where it knows none of `terms`.
    """
    if terms and not any(map(ontology.resolve, terms)):
        raise InputError(f"the ontology knows none of the {len(terms)} scored terms ({terms[0]}, ...)", "GO ids such as GO:0005829")
    above = [frozenset().union(*ontology.propagate([term], unknown).values()) for term in terms]
    true, known = [ontology.propagate(own, unknown) for own in truth], [ontology.propagate(own, unknown) for own in train]
    found = []
    for letter in ASPECTS.values():
        own_truth, own_train = [sets[letter] for sets in true], [sets[letter] for sets in known]
        if not any(own_truth):
            continue
        listed = {term for own in (*above, *own_train) for term in own}
        columns = sorted(term for term in listed if ontology.terms[term].aspect == letter)
        below = [[place for place, own in enumerate(above) if column in own] for column in columns]
        annotated = [own for own in own_train if own]  # a protein without a term of this ontology is unknown, not negative
        naive = naive_scores(annotated, columns, len(truth)) if annotated else np.zeros((len(truth), len(columns)))
        found.append(Aspect(letter, own_truth, columns, below, information_content(ontology, annotated), naive))
    return found


def score_ontologies(
    ontology: Ontology,
    truth: Truth,
    scores: NDArray[np.floating],
    terms: Sequence[str],
    train: Truth,
    unknown: Counter[str] | None = None,
) -> dict[str, OntologyScores]:
    """Return F-max and S-min of each ontology in which a protein has a true term, by its letter.

    `scores` (N, K) are those of `terms`; the rest, and what is raised, is as in `read_aspects`, besides what `fmax` raises.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.shape != (len(truth), len(terms)):
        raise InputError(f"scores of shape {values.shape}", f"({len(truth)}, {len(terms)}): proteins and terms")
    return {
        aspect.letter: OntologyScores(
            fmax(aspect.truth, raised := aspect.raised(values), aspect.columns),
            smin(aspect.truth, raised, aspect.columns, aspect.bits),
            fmax(aspect.truth, aspect.naive, aspect.columns),
            smin(aspect.truth, aspect.naive, aspect.columns, aspect.bits),
            len(aspect.columns),
        )
        for aspect in read_aspects(ontology, truth, terms, train, unknown)
    }


def fmax(truth: Truth, scores: NDArray[np.floating], terms: Sequence[str]) -> Fmax:
    """Return the best F-measure over thresholds; see the module's docstring.

    `truth`: propagated terms of one aspect, N sets; `scores`: (N, K) from 0 to 1, in the order of `terms`. True terms that are not among
    `terms` count as missed. Raises InputError for another shape, scores outside 0 to 1, and where no protein has a true term.
    """
    rows = fmax_rows(truth, scores, terms)
    sums = rows.sum(axis=0)
    values = _f_measures(sums)
    best = int(values.argmax())
    if values[best] == 0:
        return Fmax(0.0, 1.0, 0.0, 0.0, 0.0, len(rows))
    precision, covered, recall, num = sums[best]
    return Fmax(float(values[best]), float(_THRESHOLDS[best]), precision / covered, recall / num, covered / num, len(rows))


def fmax_rows(truth: Truth, scores: NDArray[np.floating], terms: Sequence[str]) -> Floats:
    """Return (N', T, 4) of the N' annotated proteins at each of T thresholds: precision, whether anything is said, recall, 1.

    `fmax_of` of their sum is F-max: resampled proteins need no more. Raises what `fmax` raises.
    """
    values, true, sizes = _checked(truth, scores, terms)
    rows = np.ones((len(values), len(_THRESHOLDS), 4))
    for place, threshold in enumerate(_THRESHOLDS):
        said = values >= threshold
        num_said, num_right = said.sum(axis=1), (said & true).sum(axis=1)
        rows[:, place, :3] = np.column_stack([num_right / np.maximum(num_said, 1), num_said > 0, num_right / sizes])
    return rows


def fmax_of(sums: NDArray[np.floating]) -> Floats:
    """Return F-max (...) of summed `fmax_rows`, (..., T, 4)."""
    return np.asarray(_f_measures(sums).max(axis=-1))


def _f_measures(sums: NDArray[np.floating]) -> Floats:
    precision, recall = sums[..., 0] / np.maximum(sums[..., 1], 1), sums[..., 2] / np.maximum(sums[..., 3], 1)
    both = precision + recall
    return np.asarray(2 * precision * recall / np.where(both > 0, both, 1.0))


def smin(truth: Truth, scores: NDArray[np.floating], terms: Sequence[str], information: Mapping[str, float]) -> Smin:
    """Return the least semantic distance over thresholds, in bits; `information` is that of `ontology.information_content` on train.

    Raises what `fmax` raises.
    """
    rows = smin_rows(truth, scores, terms, information)
    missed, wrong = rows[..., :2].mean(axis=0).T
    distances = np.hypot(missed, wrong)
    best = int(distances.argmin())
    everything = {term for own in truth for term in own} | set(terms)
    num_unknown = len(everything - set(information))
    return Smin(float(distances[best]), float(_THRESHOLDS[best]), float(missed[best]), float(wrong[best]), len(rows), num_unknown)


def smin_rows(truth: Truth, scores: NDArray[np.floating], terms: Sequence[str], information: Mapping[str, float]) -> Floats:
    """Return (N', T, 3) of the N' annotated proteins at each of T thresholds: bits missed, bits wrongly said, 1; see `fmax_rows`."""
    values, true, _ = _checked(truth, scores, terms)
    bits = np.array([information.get(term, 0.0) for term in terms])
    # what is missed whatever the threshold: true terms that nobody scores
    listed = set(terms)
    unlisted = np.array([sum(information.get(term, 0.0) for term in set(own) - listed) for own in truth if own])
    rows = np.ones((len(values), len(_THRESHOLDS), 3))
    for place, threshold in enumerate(_THRESHOLDS):
        said = values >= threshold
        rows[:, place, :2] = np.column_stack([(true & ~said) @ bits + unlisted, (said & ~true) @ bits])
    return rows


def smin_of(sums: NDArray[np.floating]) -> Floats:
    """Return S-min (...) of summed `smin_rows`, (..., T, 3)."""
    number = np.maximum(sums[..., 2], 1)
    return np.asarray(np.hypot(sums[..., 0] / number, sums[..., 1] / number).min(axis=-1))


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
