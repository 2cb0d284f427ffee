"""A frozen probe: a linear model on the vectors of a pretrained model that is not trained any further, on everyone's splits.

A row is its sequence's mean vector; a pair the vectors a and b of its members with |a - b| and a * b; a structure window its mean, its
middle letter and its last one. Numbers are scaled to mean 0 and deviation 1 of train. Classes: logistic regression, each label of a
multi-label task by itself; regression: ridge on the value. How strongly it is held back is chosen on dev by log-loss (squared error);
without dev rows on a seeded tenth of train, and the note says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from llama_gene import runtime
from llama_gene.inference.baselines.rows import Baseline, Example, Floats, Ints, Target, read_target
from llama_gene.inference.baselines.simple import NO_ROWS, logistic_scores, too_many
from llama_gene.models.encoders import Encoder, letter_vectors, load_encoder, row_vectors

STRENGTHS = (0.001, 0.01, 0.1, 1.0)
"""C of logistic regression; ridge on N rows gets the penalty N / (1000 C)."""


def run_probe(
    model: str | Path,
    train_rows: Sequence[Example],
    dev_rows: Sequence[Example],
    rows: Sequence[Example],
    kinds: Sequence[str],
    family: str,
    labels: Sequence[str],
    seed: int = 0,
    max_length: int = 1024,
    batch_tokens: int = 16384,
) -> Baseline:
    """Return what a frozen encoder or causal model with a linear model on top says. Raises what `load_encoder` raises."""
    name = f"probe {model}"
    target = read_target(train_rows, labels, family)
    reason = too_many(target) or ("" if target.rows else NO_ROWS)
    if reason:
        return Baseline(name, reason=reason)
    known = [train_rows[i] for i in target.rows]
    encoder = load_encoder(model, [sequence for row in known[:50] for sequence in row["sequences"]], max_length)
    train, windowed = _features(encoder, known, family, batch_tokens)
    test, more = _features(encoder, rows, family, batch_tokens)
    mean, deviation = train.mean(0), train.std(0)
    deviation[deviation == 0] = 1.0
    train, test = (train - mean) / deviation, (test - mean) / deviation
    dev_target = read_target(dev_rows, labels, family)
    if dev_target.rows:
        dev, _ = _features(encoder, [dev_rows[i] for i in dev_target.rows], family, batch_tokens)
        held, held_target, fitted, fitted_target, where = (dev - mean) / deviation, dev_target, train, target, "dev"
    else:
        order = np.random.default_rng(seed).permutation(len(train))
        first, rest = order[: max(1, len(order) // 10)], order[max(1, len(order) // 10) :]
        held, held_target, fitted, fitted_target = train[first], _part(target, first), train[rest], _part(target, rest)
        where = "a tenth of train"
    losses = {strength: _loss(fitted_target, fitted, held_target, held, strength, seed) for strength in STRENGTHS}
    best = min(STRENGTHS, key=lambda strength: (losses[strength], strength))
    scores, numbers = _fit(target, train, test, best, seed)
    note = f"frozen, {train.shape[1]} numbers a row, spelled {encoder.spelling}, C {best:g} by {where}"
    if windowed + more:
        note += f", {windowed + more:,} sequences read in windows"
    runtime.get_logger().info("%s: %s", name, note)
    return Baseline(name, scores=scores, numbers=numbers, note=note)


def _part(target: Target, places: Ints) -> Target:
    """Return some rows of a target."""
    values = None if target.values is None else target.values[places]
    return Target(target.labels, [target.rows[i] for i in places.tolist()], target.marks[places], target.is_multi, values)


def _features(encoder: Encoder, rows: Sequence[Example], family: str, batch_tokens: int) -> tuple[Floats, int]:
    """Return the vectors of rows, (N, F), and how many different sequences were read in windows."""
    texts = list(dict.fromkeys(sequence for row in rows for sequence in row["sequences"]))
    place = {text: i for i, text in enumerate(texts)}
    if family == "structure":
        letters = letter_vectors(encoder, texts, batch_tokens)
        vectors = np.array([np.concatenate([part.mean(0), part[len(part) // 2], part[-1]]) for part in letters])
        return vectors[[place[row["sequences"][0]] for row in rows]], 0
    vectors, windowed = row_vectors(encoder, texts, batch_tokens)
    members = [vectors[[place[row["sequences"][i]] for row in rows]] for i in range(len(rows[0]["sequences"]))]
    if len(members) == 2:
        one, two = members
        members += [np.abs(one - two), one * two]
    return np.concatenate(members, axis=1), windowed


def _fit(target: Target, train: Floats, test: Floats, strength: float, seed: int) -> tuple[Floats | None, Floats | None]:
    """Return (scores, numbers) of test rows."""
    if target.values is not None:
        from sklearn.linear_model import Ridge

        numbers = Ridge(alpha=len(train) / (1000 * strength)).fit(train, target.values).predict(test)
        return target.bins_of(numbers), numbers
    return logistic_scores(target, train, test, strength, seed, max_iter=1000), None


def _loss(target: Target, train: Floats, held_target: Target, held: Floats, strength: float, seed: int) -> float:
    """Return log-loss (regression: squared error) on the held-out rows."""
    scores, numbers = _fit(target, train, held, strength, seed)
    if numbers is not None and held_target.values is not None:
        return float(np.mean((numbers - held_target.values) ** 2))
    assert scores is not None
    chances = np.clip(scores, 1e-6, 1 - 1e-6)
    if target.is_multi:
        return float(-np.mean(held_target.marks * np.log(chances) + (1 - held_target.marks) * np.log(1 - chances)))
    return float(-np.mean(np.log(chances[np.arange(len(chances)), held_target.classes])))
