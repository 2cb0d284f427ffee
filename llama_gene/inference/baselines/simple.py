"""Baselines on composition and place: majority, GC content, k-mers, letters by place, counts of mutations. No alignment, no network.

majority        the shares of the labels in train; free text: the commonest answer
gc              GC content of each DNA or RNA sequence: for two classes and one sequence the threshold (and side) with the best accuracy on
                train, else linear discriminants; a regression: a straight line
kmer            k-mer counts (DNA and RNA 3-5-mers, every other alphabet 1-2-mers; a block for each sequence of a pair), dampened as
                1 + log(count), scaled to unit length, then logistic regression with C = 10. A floor should be strong, so scaling and C were
                chosen on *dev* rows: with 4,000 training rows this beat raw counts and counts over their maximum on three of three GUE
                tasks (by 2 to 5 points). Structure questions ask about one place of a window, which a bag of k-mers cannot know, so their
                floor sees letters by place besides: a token's, at the end, the last 15; a residue's, in the middle, it and 7 on each side,
                with C = 1 (on dev with 4,000 training rows 0.589 of the residues of protein_secondary_structure, 0.518 with the last 15
                and C = 10, 0.463 without places; 0.777, 0.754 of the bases of drosophila_gene_structure). Every other choice is
                scikit-learn's; 4,000 rows of 300 bp take about a second
positional      which letter stands at which place, logistic regression with C = 0.1: rows of one length (windows) place by place; rows of
                different lengths by the first and the last 50 letters
kmer_ridge,     the same features, ridge regression on the value itself; the penalty is chosen on a tenth of train
positional_ridge
mutations       libraries of mutants: how many letters differ from the commonest letters of train (the wild type), a straight line on train:
                a line goes on beyond the counts that train holds (train up to 3, test from 4), which isotonic regression would not

Multi-label tasks: a model for each label by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from llama_gene.data.structure import show_middle
from llama_gene.inference.baselines.rows import Baseline, Example, Floats, Ints, Target, majority_baseline, read_target

NUM_LAST_RESIDUES = 15
NUM_BESIDE_MIDDLE = 7
NUM_END_LETTERS = 50
MAX_CLASSES = 50
MAX_LABEL_SETS = 200
"""Labels of a multi-label task that get a linear model each."""
PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)
LIBRARY_IDENTITY = 0.8
"""Rows of one length whose letters agree with the commonest ones as often as this are mutants of one sequence."""
NO_ROWS = "no training row has an answer"


def run_majority(target: Target, train_rows: Sequence[Example], rows: Sequence[Example]) -> Baseline:
    """Return the shares of the labels in train for every row; free text: the commonest answer."""
    answer = majority_baseline(train_rows)
    if answer is None:
        return Baseline("majority", reason=NO_ROWS)
    if not target.labels:
        return Baseline("majority", answers=[answer] * len(rows), note=f"'{answer}'")
    if not target.rows:
        return Baseline("majority", reason=NO_ROWS)
    numbers = None if target.values is None else np.full(len(rows), target.values.mean())
    return Baseline("majority", scores=np.tile(prior(target), (len(rows), 1)), numbers=numbers)


def prior(target: Target) -> Floats:
    """Return the labels' shares, (K,); of equally frequent ones the first in the alphabet is a trifle ahead, as in `majority_baseline`."""
    shares = target.shares.copy()
    if not target.is_multi:
        most = min(range(len(shares)), key=lambda k: (-shares[k], target.labels[k]))
        shares[most] += 1e-9
    return shares


# --- GC content ------------------------------------------------------------------------------------------------------------------


def run_gc(target: Target, train_rows: Sequence[Example], rows: Sequence[Example], kinds: Sequence[str]) -> Baseline:
    """Return what GC content alone says."""
    places = [place for place, kind in enumerate(kinds) if kind in ("dna", "rna")]
    if not places:
        return Baseline("gc", reason="no sequence is DNA or RNA")
    train, test = (
        np.array([[gc_share(row["sequences"][place]) for place in places] for row in part])
        for part in ([train_rows[i] for i in target.rows], rows)
    )
    if len(places) == 2:  # a pair: how alike they are counts, too
        train, test = (np.column_stack([part, np.abs(part[:, 0] - part[:, 1])]) for part in (train, test))
    return from_features("gc", target, train, test)


def gc_share(sequence: str) -> float:
    """Return the share of G and C among the bases A, C, G, T and U, 0.5 where there is none.

    >>> gc_share("GCAN"), gc_share("NN")
    (0.6666666666666666, 0.5)
    """
    strong, weak = sum(map(sequence.count, "GCgc")), sum(map(sequence.count, "ATUatu"))
    return strong / (strong + weak) if strong + weak else 0.5


def from_features(name: str, target: Target, train: Floats, test: Floats, note: str = "") -> Baseline:
    """Return a baseline on one or a few numbers a row, (N, F): a threshold, linear discriminants or a straight line."""
    if not target.rows:
        return Baseline(name, reason=NO_ROWS)
    if target.values is not None:
        from sklearn.linear_model import LinearRegression

        numbers = LinearRegression().fit(train, target.values).predict(test)
        return Baseline(name, scores=target.bins_of(numbers), numbers=numbers, note=note or "a straight line")
    if len(target.labels) == 0:
        return Baseline(name, reason="the answers are free text")
    if target.is_multi:
        scores = np.column_stack([_discriminants(train, marks.astype(np.int64), test, 2)[:, 1] for marks in target.marks.T])
        return Baseline(name, scores=scores, note=note or "linear discriminants, a model a label")
    if train.shape[1] == 1 and len(target.labels) == 2 and len(set(target.classes.tolist())) == 2:
        scores, edge, is_above = threshold_scores(train[:, 0], target.classes, test[:, 0])
        side = "from" if is_above else "below"
        return Baseline(name, scores=scores, note=(note + ", " if note else "") + f"'{target.labels[1]}' {side} {edge:.3f}")
    return Baseline(name, scores=_discriminants(train, target.classes, test, len(target.labels)), note=note or "linear discriminants")


def threshold_scores(train: Floats, classes: Ints, test: Floats) -> tuple[Floats, float, bool]:
    """Return (N, 2) scores of class 0 and 1 by the threshold with the best accuracy on train, the threshold, and whether 1 is above it.

    The decision is the threshold's; how sure it is grows with the distance to it (logistic, in standard deviations), so that rows can be
    ranked.

    >>> scores, edge, is_above = threshold_scores(np.array([1.0, 2, 3, 4]), np.array([1, 1, 0, 0]), np.array([0.0, 9.0]))
    >>> scores.argmax(1).tolist(), edge, is_above
    ([1, 0], 2.5, False)
    """
    order = np.argsort(train, kind="stable")
    sorted_values, ones = train[order], np.concatenate([[0], np.cumsum(classes[order])])
    num, total = len(train), int(ones[-1])
    cuts = np.arange(num + 1)
    hits_above = (cuts - ones) + (total - ones)  # zeros below the cut, ones above
    is_cut = np.concatenate([[True], sorted_values[1:] > sorted_values[:-1], [True]])  # equal values stay on one side
    above, below = np.where(is_cut, hits_above, -1), np.where(is_cut, num - hits_above, -1)
    is_above = bool(above.max() >= below.max())
    cut = int((above if is_above else below).argmax())
    low = sorted_values[cut - 1] if cut else sorted_values[0] - 1
    high = sorted_values[cut] if cut < num else sorted_values[-1] + 1
    edge = float(low + high) / 2
    distance = (test - edge) / (float(train.std()) or 1.0) * (1 if is_above else -1)
    one = 1 / (1 + np.exp(-np.clip(distance, -30, 30)))
    return np.column_stack([1 - one, one]), edge, is_above


def _discriminants(train: Floats, classes: Ints, test: Floats, num_labels: int) -> Floats:
    """Return (N, K) probabilities of linear discriminants."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    scores = np.zeros((len(test), num_labels))
    if len(set(classes.tolist())) < 2 or float(train.std(0).max()) == 0.0:
        scores[:] = np.bincount(classes, minlength=num_labels) / len(classes)
        return scores
    model = LinearDiscriminantAnalysis().fit(train, classes)
    scores[:, model.classes_] = model.predict_proba(test)
    return scores


# --- k-mers and places -----------------------------------------------------------------------------------------------------------


def kmer_floor(
    train_rows: Sequence[Example], test_rows: Sequence[Example], kinds: Sequence[str], family: str, labels: Sequence[str], seed: int = 0
) -> Floats | None:
    """Return the k-mer model's probability of each label for each test row, shape (N, K), columns in the order of `labels`.

    A row is an instruction example: its "sequences" are read, its "output" is the class (regression: its bin). Returns None where no
    floor can be trained: no training rows, or free text with more than 50 different answers (pass the answers as `labels`).
    """
    if not train_rows or not test_rows or not labels:
        return None
    target = read_target(train_rows, labels, family)
    if not target.rows or too_many(target):
        return None
    strength = 1.0 if asks_middle(family, test_rows) else 10.0
    return logistic_scores(target, *kmer_features(_known(train_rows, target), test_rows, kinds, family), strength=strength, seed=seed)


def run_kmer(
    target: Target, train_rows: Sequence[Example], rows: Sequence[Example], kinds: Sequence[str], family: str, seed: int
) -> Baseline:
    """Return logistic regression on k-mer counts."""
    reason = too_many(target) or ("" if target.rows else NO_ROWS)
    if reason:
        return Baseline("kmer", reason=reason)
    scores = kmer_floor(train_rows, rows, kinds, family, target.labels, seed)
    assert scores is not None
    note = ""
    if family == "structure":
        place = f"middle and {NUM_BESIDE_MIDDLE} on each side" if asks_middle(family, rows) else f"last {NUM_LAST_RESIDUES}"
        note = f"k-mers, and letters by place: {place}"
    return Baseline("kmer", scores=scores, numbers=target.numbers_of(scores), note=note)


def run_positional(
    target: Target, train_rows: Sequence[Example], rows: Sequence[Example], kinds: Sequence[str], family: str, seed: int
) -> Baseline:
    """Return logistic regression on letters by place."""
    reason = too_many(target) or ("" if target.rows else NO_ROWS)
    if reason:
        return Baseline("positional", reason=reason)
    train, test, note = place_features(_known(train_rows, target), rows, len(kinds))
    scores = logistic_scores(target, train, test, strength=0.1, seed=seed)
    return Baseline("positional", scores=scores, numbers=target.numbers_of(scores), note=note)


def run_ridge(
    name: str, target: Target, train_rows: Sequence[Example], rows: Sequence[Example], kinds: Sequence[str], family: str, seed: int
) -> Baseline:
    """Return ridge regression on the value: `kmer_ridge` or `positional_ridge`."""
    if target.values is None:
        return Baseline(name, reason="the task is no regression")
    note = ""
    if name == "kmer_ridge":
        train, test = kmer_features(_known(train_rows, target), rows, kinds, family)
    else:
        train, test, note = place_features(_known(train_rows, target), rows, len(kinds))
    numbers, penalty = ridge(train, target.values, test, seed)
    return Baseline(name, scores=target.bins_of(numbers), numbers=numbers, note=(note + ", " if note else "") + f"penalty {penalty:g}")


def ridge(train: Any, values: Floats, test: Any, seed: int = 0) -> tuple[Floats, float]:
    """Return ridge regression's predictions and the penalty that was best (least squares) on a seeded tenth of train."""
    from sklearn.linear_model import Ridge

    order = np.random.default_rng(seed).permutation(len(values))
    held, rest = order[: len(order) // 10], order[len(order) // 10 :]
    best = 1.0
    if len(held) > 0:
        errors = {
            penalty: float(np.mean((Ridge(alpha=penalty).fit(train[rest], values[rest]).predict(train[held]) - values[held]) ** 2))
            for penalty in PENALTIES
        }
        best = min(errors, key=lambda penalty: errors[penalty])
    numbers: Floats = Ridge(alpha=best).fit(train, values).predict(test)
    return numbers, best


def _known(train_rows: Sequence[Example], target: Target) -> list[Example]:
    return [train_rows[i] for i in target.rows]


def too_many(target: Target) -> str:
    """Return why there are too many labels for a linear model of each, empty where there are not."""
    most = MAX_LABEL_SETS if target.is_multi else MAX_CLASSES
    if not target.labels:
        return "the answers are free text"
    return f"{len(target.labels)} labels are more than {most}" if len(target.labels) > most else ""


def logistic_scores(target: Target, train: Any, test: Any, strength: float, seed: int, max_iter: int = 300) -> Floats:
    """Return (N, K) probabilities; a label that all rows or none of them have gets its share in train."""
    from sklearn.linear_model import LogisticRegression

    def fit(classes: Ints, num_labels: int) -> Floats:
        scores = np.zeros((test.shape[0], num_labels))
        if len(set(classes.tolist())) < 2:
            scores[:, classes[:1]] = 1.0
            return scores
        model = LogisticRegression(C=strength, max_iter=max_iter, random_state=seed).fit(train, classes)
        scores[:, model.classes_] = model.predict_proba(test)
        return scores

    if target.is_multi:
        return np.column_stack([fit(marks.astype(np.int64), 2)[:, 1] for marks in target.marks.T])
    return fit(target.classes, len(target.labels))


def kmer_features(train_rows: Sequence[Example], rows: Sequence[Example], kinds: Sequence[str], family: str) -> tuple[Any, Any]:
    """Return the sparse k-mer features of train and test rows, (N, F) each; the k-mers are those of train."""
    from scipy.sparse import hstack

    blocks_train, blocks_test = [], []
    for number, kind in enumerate(kinds):
        for vectorizer in _vectorizers(kind, family, asks_middle(family, rows)):
            try:
                blocks_train.append(vectorizer.fit_transform([row["sequences"][number] for row in train_rows]))
            except ValueError:  # every sequence is shorter than the shortest k-mer
                continue
            blocks_test.append(vectorizer.transform([row["sequences"][number] for row in rows]))
    if not blocks_train:
        return np.zeros((len(train_rows), 1)), np.zeros((len(rows), 1))
    return hstack(blocks_train).tocsr(), hstack(blocks_test).tocsr()


def _vectorizers(kind: str, family: str, is_middle: bool) -> list[Any]:
    """Return what turns one sequence of a row into feature blocks."""
    from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
    from sklearn.pipeline import make_pipeline

    smallest, largest = (3, 5) if kind in ("dna", "rna") else (1, 2)
    kmers = CountVectorizer(analyzer="char", ngram_range=(smallest, largest), lowercase=False)
    blocks = [make_pipeline(kmers, TfidfTransformer(use_idf=False, sublinear_tf=True))]
    if family == "structure":
        blocks.append(CountVectorizer(analyzer=_middle_residues if is_middle else _last_residues, binary=True))
    return blocks


def asks_middle(family: str, rows: Sequence[Example]) -> bool:
    """Return whether rows ask about the middle of their windows (structure by residue): then it stands between blanks in their text.

    >>> asks_middle("structure", [{"sequences": ["MKQ"], "input": "M K Q"}]), asks_middle("structure", [{"sequences": ["MKQ"]}])
    (True, False)
    """
    if family != "structure" or not rows:
        return False
    texts = [(show_middle(row["sequences"][0]), f"{row.get('instruction', '')}\n{row.get('input', '')}") for row in rows]
    return all(window in text for window, text in texts)


def _middle_residues(window: str) -> list[str]:
    """Return the residues about the middle with their places, counted from it: "AMKQA" -> ["-2A", "-1M", "0K", "1Q", "2A"]."""
    middle = len(window) // 2
    first = max(0, middle - NUM_BESIDE_MIDDLE)
    return [f"{place - middle}{letter}" for place, letter in enumerate(window[first : middle + NUM_BESIDE_MIDDLE + 1], start=first)]


def _last_residues(window: str) -> list[str]:
    """Return the last residues with their places, counted from the end: "MKV" -> ["1V", "2K", "3M"]."""
    return [f"{place}{letter}" for place, letter in enumerate(reversed(window[-NUM_LAST_RESIDUES:]), start=1)]


def place_features(train_rows: Sequence[Example], rows: Sequence[Example], num_sequences: int) -> tuple[Any, Any, str]:
    """Return 0/1 features "letter x stands at place p" of train and test rows, sparse (N, F), and in words how places are counted.

    A sequence whose rows (all but one in 20 of train) have one length is read from its start; others from both ends.
    """
    from scipy.sparse import hstack

    parts: list[list[Any]] = [[], []]
    notes = []
    for number in range(num_sequences):
        texts = [[row["sequences"][number] for row in part] for part in (train_rows, rows)]
        lengths = np.array([len(text) for text in texts[0]])
        length = int(np.bincount(lengths).argmax())
        if float(np.mean(lengths == length)) >= 0.95:
            cut: list[list[list[str]]] = [texts]
            places = length
            notes.append(f"{length} places")
        else:
            places = NUM_END_LETTERS
            cut = [texts, [[text[::-1] for text in part] for part in texts]]
            notes.append(f"the first and last {NUM_END_LETTERS} letters")
        for train, test in cut:
            letters = sorted(set("".join(text[:places] for text in train)))
            for part, block in zip(parts, (train, test), strict=True):
                part.append(_one_hot(block, letters, places))
    return hstack(parts[0]).tocsr(), hstack(parts[1]).tocsr(), " and ".join(dict.fromkeys(notes))


def _one_hot(texts: Sequence[str], letters: Sequence[str], places: int) -> Any:
    """Return (N, places x letters) with 1 where a text has the letter at the place; letters that are none of these count nowhere."""
    from scipy.sparse import csr_matrix

    codes = letter_codes(texts, letters, places)
    rows, columns = np.nonzero(codes >= 0)
    features = columns * len(letters) + codes[rows, columns]
    return csr_matrix((np.ones(len(rows)), (rows, features)), shape=(len(texts), places * max(1, len(letters))))


def letter_codes(texts: Sequence[str], letters: Sequence[str], places: int) -> Ints:
    """Return the number of the letter at each place, (N, places), -1 beyond a text's end and for other letters."""
    table = np.full(65536, -1, np.int64)
    for k, letter in enumerate(letters):
        table[ord(letter) & 0xFFFF] = k
    codes = np.full((len(texts), places), -1, np.int64)
    for i, text in enumerate(texts):
        part = np.frombuffer(text[:places].encode("utf-16-le", "replace"), np.uint16)
        codes[i, : len(part)] = table[part]
    return codes


# --- libraries of mutants --------------------------------------------------------------------------------------------------------


def wild_type(sequences: Sequence[str]) -> str | None:
    """Return the commonest letter at each place where the sequences are mutants of one, else None.

    Mutants have one length (all but one in 100), and their letters agree with the commonest ones in at least 80 % of the places.

    >>> wild_type(["MKVLA", "MKVLG", "MKVLA", "AKVLA"]), wild_type(["MKV", "AGH", "WYF"])
    ('MKVLA', None)
    """
    lengths = np.array([len(text) for text in sequences])
    if len(sequences) < 3:
        return None
    length = int(np.bincount(lengths).argmax())
    if length == 0 or float(np.mean(lengths == length)) < 0.99:
        return None
    letters = sorted(set("".join(sequences)))
    codes = letter_codes([text for text in sequences if len(text) == length], letters, length)
    commonest = [int(np.bincount(column, minlength=len(letters)).argmax()) for column in codes.T]
    return "".join(letters[k] for k in commonest) if float(np.mean(codes == commonest)) >= LIBRARY_IDENTITY else None


def count_mutations(sequences: Sequence[str], wild: str) -> Ints:
    """Return how many letters of each sequence differ from the wild type's; missing and surplus letters count, too.

    >>> count_mutations(["MKV", "MRV", "MK"], "MKV").tolist()
    [0, 1, 1]
    """
    letters = sorted(set("".join(sequences)) | set(wild))
    codes, own = letter_codes(sequences, letters, len(wild)), letter_codes([wild], letters, len(wild))[0]
    surplus = np.array([max(0, len(text) - len(wild)) for text in sequences])
    counts: Ints = (codes != own).sum(1) + surplus
    return counts


def run_mutations(target: Target, train_rows: Sequence[Example], rows: Sequence[Example], kinds: Sequence[str]) -> Baseline:
    """Return the mutation-count baseline of a regression on mutants of one sequence."""
    if target.values is None:
        return Baseline("mutations", reason="the task is no regression")
    if len(kinds) != 1:
        return Baseline("mutations", reason="rows are pairs")
    texts = [train_rows[i]["sequences"][0] for i in target.rows]
    wild = wild_type(texts)
    if wild is None:
        return Baseline("mutations", reason="the rows are no library of mutants of one sequence")
    train, test = (count_mutations(part, wild).astype(float)[:, None] for part in (texts, [row["sequences"][0] for row in rows]))
    spans = [f"{part.min():.0f} to {part.max():.0f}" for part in (train, test)]
    note = f"letters other than the commonest of train: {spans[0]} there, {spans[1]} here"
    return from_features("mutations", target, train, test, note)
