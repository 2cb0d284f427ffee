"""Baselines of pairs: who is in the pair, with no sequence read; and whether the protein is a translation of the DNA.

identity      logistic regression on the identities of the members: each sequence of train has a weight, one that train does not hold has
              none. In a random split of pairs it tells which proteins are promiscuous, not which pair fits; among pairs of unseen members
              (C3, Park and Marcotte 2012) it can say nothing but the base rate.
translation   how well the protein matches a reading frame of the DNA, a number from a function that the caller gives (say, the longest
              shared stretch in six frames); the threshold is fitted on train.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from llama_gene.inference.baselines.rows import Baseline, Example, Target
from llama_gene.inference.baselines.simple import NO_ROWS, from_features, logistic_scores

Match = Callable[[str, str], float]
"""(DNA, protein) -> how well they match, higher is better."""


def run_identity(target: Target, train_rows: Sequence[Example], rows: Sequence[Example], kinds: Sequence[str], seed: int) -> Baseline:
    """Return what the members' names say; `coverage` is the share of pairs with at least one member that train holds."""
    if len(kinds) != 2:
        return Baseline("identity", reason="rows are no pairs")
    if not target.rows or not target.labels:
        return Baseline("identity", reason=NO_ROWS if target.labels else "the answers are free text")
    known = [train_rows[i] for i in target.rows]
    names = [_members(row, kinds) for row in known]
    column = {name: k for k, name in enumerate(dict.fromkeys(name for row in names for name in row))}
    train, test = (_marks(part, column) for part in (names, [_members(row, kinds) for row in rows]))
    scores = logistic_scores(target, train, test, strength=1.0, seed=seed)
    coverage = float(np.mean(np.asarray(test.sum(1)).reshape(-1) > 0))
    return Baseline(
        "identity", scores=scores, numbers=target.numbers_of(scores), note=f"{len(column):,} members in train", coverage=coverage
    )


def _members(row: Example, kinds: Sequence[str]) -> list[tuple[str, str]]:
    """Return the members of a pair; of one kind, it does not matter which is first."""
    return list(zip(kinds, row["sequences"], strict=True))


def _marks(rows: Sequence[Sequence[tuple[str, str]]], column: dict[tuple[str, str], int]) -> Any:
    """Return (N, members) with how often each member is in the pair."""
    from scipy.sparse import csr_matrix

    places = [(i, column[name]) for i, row in enumerate(rows) for name in row if name in column]
    indices = np.array(places, dtype=np.int64).reshape(-1, 2)
    return csr_matrix((np.ones(len(places)), (indices[:, 0], indices[:, 1])), shape=(len(rows), len(column)))


def run_translation(
    target: Target, train_rows: Sequence[Example], rows: Sequence[Example], kinds: Sequence[str], match: Match | None
) -> Baseline:
    """Return the threshold on the match of DNA and protein."""
    if sorted(kinds) != ["dna", "protein"]:
        return Baseline("translation", reason="rows are no pairs of DNA and protein")
    if match is None:
        return Baseline("translation", reason="no function that matches DNA and protein was given")
    if target.is_multi or target.values is not None or not target.labels:
        return Baseline("translation", reason="the answers are no classes")
    dna, protein = kinds.index("dna"), kinds.index("protein")
    train, test = (
        np.array([[match(row["sequences"][dna], row["sequences"][protein])] for row in part], float).reshape(-1, 1)
        for part in ([train_rows[i] for i in target.rows], rows)
    )
    return from_features("translation", target, train, test)
