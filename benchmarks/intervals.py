"""Do 95 % intervals hold the truth 95 times in 100? Ours beside the percentile bootstrap and BCa, on simulated test sets.

1. Independent rows: two balanced labels, each answer right with probability p (so MCC is 2p - 1); n = 200 and 1,000, p = 0.5, 0.8, 0.95.
   Accuracy by Wilson's interval, MCC by the bootstrap's standard error on Fisher's scale.
2. 60 groups of 20 rows; a group's rows are right with its own probability, drawn from a beta distribution of mean p and intraclass
   correlation 0.2. Beside ours: Wilson's interval as if rows were independent.
3. Metrics of ranks, a quarter of the test sets: AUROC and AUPR of two normal distributions, Spearman of two correlated normals.
4. Paired tests where both models are equally good: how often p <= 0.05.

    nice python benchmarks/intervals.py           # 2,000 test sets a cell, some minutes of one core; --sets 200 for a look
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from llama_gene.inference import intervals, metrics

SIZES, SHARES = (200, 1000), (0.5, 0.8, 0.95)
NUM_GROUPS, PER_GROUP, CORRELATION = 60, 20, 0.2
METRICS = ("accuracy", "mcc")
STATISTICS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {"accuracy": metrics.accuracy_of, "mcc": metrics.mcc_of}


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=2000, help="simulated test sets of a cell")
    parser.add_argument("--resamples", type=int, default=2000, help="resamples of an interval")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    start = time.monotonic()
    noise = 100 * np.sqrt(0.95 * 0.05 / args.sets)
    print(
        f"Coverage of 95 % intervals, {args.sets:,} test sets a cell (standard error {noise:.1f} points), {args.resamples:,} resamples.\n"
    )
    print("| rows | p | metric | ours | percentile | BCa | by rows |\n|---|---:|---|---:|---:|---:|---:|")
    for n in SIZES:
        for share in SHARES:
            print_cell(f"{n:,} independent", share, coverage(share, args, num_rows=n), by_rows=False)
    for share in SHARES:
        print_cell(f"{NUM_GROUPS} groups of {PER_GROUP}", share, coverage(share, args), by_rows=True)
    print_ranks(args)
    print("\n| two equal models | p <= 0.05 |\n|---|---:|")
    for label, grouped, metric in (
        ("200 independent rows, accuracy: McNemar", False, "accuracy"),
        ("200 independent rows, MCC: permutation", False, "mcc"),
        (f"{NUM_GROUPS} groups of {PER_GROUP}, accuracy: permutation of groups", True, "accuracy"),
    ):
        print(f"| {label} | {100 * false_alarms(grouped, metric, args):.1f} % |", flush=True)
    print(f"\n{time.monotonic() - start:.0f} s.")


def print_ranks(args: argparse.Namespace) -> None:
    """Print the lines of the metrics of ranks."""
    print(f"\n| metric, {args.sets // 4:,} sets | rows | truth | mean | ours |\n|---|---:|---:|---:|---:|")
    cells = [("AUROC", 1.2), ("AUROC", 2.3), ("AUPR", 1.2), ("AUPR at prior 0.1", 1.2), ("Spearman", 0.3), ("Spearman", 0.8)]
    for name, setting, num_rows in [*((*cell, 200) for cell in cells), ("AUPR at prior 0.1", 1.2, 1000)]:
        truth, mean, held = rank_coverage(name, setting, num_rows, args)
        print(f"| {name} | {num_rows:,} | {truth:.3f} | {mean:.3f} | {100 * held:.1f} % |", flush=True)


def print_cell(label: str, share: float, held: dict[tuple[str, str], float], by_rows: bool) -> None:
    """Print the lines of one cell."""
    for metric in METRICS:
        methods = ("ours", "percentile", "BCa", *(["by rows"] if by_rows else []))
        cells = [f"{100 * held[metric, method]:.1f} %" for method in methods] + ([] if by_rows else [""])
        print(f"| {label} | {share} | {metric} | {' | '.join(cells)} |", flush=True)


def coverage(share: float, args: argparse.Namespace, num_rows: int | None = None) -> dict[tuple[str, str], float]:
    """Return {(metric, method): the share of test sets whose interval holds the truth}; without num_rows, in groups."""
    rng = np.random.default_rng([args.seed, num_rows or 0, int(100 * share)])
    held: dict[tuple[str, str], list[bool]] = {}
    for number in range(args.sets):
        truth, predicted, groups = draw(rng, share, num_rows)
        features = metrics.class_counts(truth, predicted, 2)
        for metric in METRICS:
            true = share if metric == "accuracy" else 2 * share - 1
            measure = intervals.share(truth == predicted) if metric == "accuracy" else intervals.of_classes("mcc", truth, predicted, 2)
            found = {"ours": intervals.interval(measure, groups, number, args.resamples)}
            found |= alternatives(features, STATISTICS[metric], groups, number, args.resamples)
            if groups is not None:
                found["by rows"] = intervals.interval(measure, None, number, args.resamples)
            for method, edges in found.items():
                held.setdefault((metric, method), []).append(edges is not None and edges[0] <= true <= edges[1])
    return {key: float(np.mean(values)) for key, values in held.items()}


def draw(rng: np.random.Generator, share: float, num_rows: int | None) -> tuple[NDArray[Any], NDArray[Any], list[int] | None]:
    """Return truth, answers and groups of one test set."""
    if num_rows is not None:
        truth = rng.integers(0, 2, num_rows)
        return truth, np.where(rng.random(num_rows) < share, truth, 1 - truth), None
    weight = 1 / CORRELATION - 1
    chances = np.repeat(rng.beta(share * weight, (1 - share) * weight, NUM_GROUPS), PER_GROUP)
    truth = rng.integers(0, 2, len(chances))
    groups = np.repeat(np.arange(NUM_GROUPS), PER_GROUP)
    return truth, np.where(rng.random(len(chances)) < chances, truth, 1 - truth), groups.tolist()


def alternatives(
    features: NDArray[Any], statistic: Callable[[NDArray[Any]], NDArray[Any]], groups: list[int] | None, seed: int, num: int
) -> dict[str, tuple[float, float] | None]:
    """Return the percentile bootstrap's and BCa's intervals (Efron 1987; acceleration from the jackknife)."""
    group = intervals.group_numbers(groups, len(features))
    table, sizes = np.unique(intervals.group_sums(features, group), axis=0, return_counts=True)
    shape = (-1, *features.shape[1:])
    drawn = np.random.default_rng(seed).multinomial(sizes.sum(), sizes / sizes.sum(), size=num)
    values = statistic((drawn @ table).reshape(shape))
    whole = features.sum(0)
    estimate = float(statistic(whole))
    left_out = statistic(whole - table.reshape(shape))
    away = np.average(left_out, weights=sizes) - left_out
    squares = float((sizes * away**2).sum())
    speed = float((sizes * away**3).sum()) / (6 * squares**1.5) if squares > 0 else 0.0
    below = (np.mean(values < estimate) + np.mean(values <= estimate)) / 2
    bias = norm.ppf(np.clip(below, 1 / num, 1 - 1 / num))
    edges = [norm.cdf(bias + (bias + z) / (1 - speed * (bias + z))) for z in norm.ppf([0.025, 0.975])]
    low, high, bca_low, bca_high = np.quantile(values, [0.025, 0.975, *edges])
    return {"percentile": (low, high), "BCa": (bca_low, bca_high)}


def rank_coverage(name: str, setting: float, num_rows: int, args: argparse.Namespace) -> tuple[float, float, float]:
    """Return the truth (of a million rows), the mean over test sets, and the share of them whose interval holds the truth."""
    rng = np.random.default_rng([args.seed, int(100 * setting), len(name), num_rows])

    def measure(n: int) -> intervals.Measure:
        if name == "Spearman":
            x = rng.normal(size=n)
            return intervals.of_numbers("spearman", x, setting * x + np.sqrt(1 - setting**2) * rng.normal(size=n))
        positive = rng.integers(0, 2, n)
        scores = rng.normal(size=n) + setting * positive
        return intervals.of_areas("auroc" if name == "AUROC" else "aupr", positive, scores, 0.1 if "prior" in name else None)

    truth = measure(1_000_000).value()
    values, held = [], []
    for number in range(args.sets // 4):
        drawn = measure(num_rows)
        edges = intervals.interval(drawn, None, number, args.resamples)
        values.append(drawn.value())
        held.append(edges is not None and edges[0] <= truth <= edges[1])
    return truth, float(np.mean(values)), float(np.mean(held))


def false_alarms(grouped: bool, metric: str, args: argparse.Namespace) -> float:
    """Return how often two models of the same quality, 0.8, are told apart at 5 %."""
    rng = np.random.default_rng([args.seed, int(grouped), len(metric)])
    alarms = []
    for number in range(args.sets):
        truth, ours, groups = draw(rng, 0.8, None if grouped else 200)
        theirs = draw_again(rng, truth, groups)
        if metric == "accuracy":
            sides = [intervals.share(truth == answers) for answers in (ours, theirs)]
        else:
            sides = [intervals.of_classes("mcc", truth, answers, 2) for answers in (ours, theirs)]
        alarms.append(intervals.paired_difference([sides[0]], [sides[1]], groups, number, args.resamples)["p"] <= 0.05)
    return float(np.mean(alarms))


def draw_again(rng: np.random.Generator, truth: NDArray[Any], groups: list[int] | None) -> NDArray[Any]:
    """Return the answers of another model of quality 0.8 to the same rows."""
    if groups is None:
        return np.where(rng.random(len(truth)) < 0.8, truth, 1 - truth)
    weight = 1 / CORRELATION - 1
    chances = np.repeat(rng.beta(0.8 * weight, 0.2 * weight, NUM_GROUPS), PER_GROUP)
    return np.where(rng.random(len(truth)) < chances, truth, 1 - truth)


if __name__ == "__main__":
    main()
