"""What a score must beat: the majority answer and a linear model on k-mer counts.

The k-mer floor: k-mer counts (DNA and RNA 3-5-mers, every other alphabet 1-2-mers; a block for each sequence of a pair), dampened as
1 + log(count), scaled to unit length, then logistic regression with C = 10. A floor should be strong, so scaling and C were chosen on
*dev* rows: with 4,000 training rows this beat raw counts and counts over their maximum on three of three GUE tasks (by 2 to 5 points).
Structure questions ask about the end of a window, so their floor sees the last 15 residues by position besides the counts. Every other
choice is scikit-learn's; 4,000 rows of 300 bp take about a second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_LAST_RESIDUES = 15
MAX_FREE_TEXT_CLASSES = 50
Example = Mapping[str, Any]


def majority_baseline(train_rows: Sequence[Example]) -> str | None:
    """Return the commonest answer of the training rows (the first in the alphabet among equals), None without rows."""
    counts = Counter(str(row["output"]) for row in train_rows)
    return min(counts, key=lambda answer: (-counts[answer], answer)) if counts else None


def kmer_floor(
    train_rows: Sequence[Example], test_rows: Sequence[Example], kinds: Sequence[str], family: str, labels: Sequence[str], seed: int = 0
) -> NDArray[np.float64] | None:
    """Return the floor's probability of each label for each test row, shape (N, K), columns in the order of `labels`.

    A row is an instruction example: its "sequences" are read, its "output" is the class (regression: its bin). Returns None where no
    floor can be trained: no training rows, or free text with more than 50 different answers (pass the answers as `labels`).
    """
    if not train_rows or not test_rows or not labels or len(labels) > MAX_FREE_TEXT_CLASSES:
        return None
    column = {label: k for k, label in enumerate(labels)}
    known = [row for row in train_rows if row["output"] in column]
    classes = np.array([column[row["output"]] for row in known])
    chances = np.zeros((len(test_rows), len(labels)))
    if len(set(classes.tolist())) < 2:
        chances[:, classes[:1]] = 1.0
        return chances
    from sklearn.linear_model import LogisticRegression

    blocks_train, blocks_test = [], []
    for number, kind in enumerate(kinds):
        for vectorizer in _vectorizers(kind, family):
            blocks_train.append(vectorizer.fit_transform([row["sequences"][number] for row in known]))
            blocks_test.append(vectorizer.transform([row["sequences"][number] for row in test_rows]))
    from scipy.sparse import hstack

    model = LogisticRegression(C=10.0, max_iter=300, random_state=seed)
    model.fit(hstack(blocks_train).tocsr(), classes)
    chances[:, model.classes_] = model.predict_proba(hstack(blocks_test).tocsr())
    return chances


def _vectorizers(kind: str, family: str) -> list[Any]:
    """Return what turns one sequence of a row into feature blocks."""
    from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
    from sklearn.pipeline import make_pipeline

    smallest, largest = (3, 5) if kind in ("dna", "rna") else (1, 2)
    kmers = CountVectorizer(analyzer="char", ngram_range=(smallest, largest), lowercase=False)
    blocks = [make_pipeline(kmers, TfidfTransformer(use_idf=False, sublinear_tf=True))]
    if family == "structure":
        blocks.append(CountVectorizer(analyzer=_last_residues, binary=True))
    return blocks


def _last_residues(window: str) -> list[str]:
    """Return the last residues with their places, counted from the end: "MKV" -> ["1V", "2K", "3M"]."""
    return [f"{place}{letter}" for place, letter in enumerate(reversed(window[-NUM_LAST_RESIDUES:]), start=1)]
