"""What the answers of a task may be, and how many rows of each are kept: closed lists, bins of numbers, balance, caps.

A number becomes a class by edges that are fixed on the *train* rows alone: quantiles (ten bins unless said otherwise; two are the papers'
median, LLaMA-Gene 2.2.2.5), or one given threshold. A value on an edge is in the upper bin ("greater than or equal to: high").
"""

from __future__ import annotations

import random
import statistics
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from llama_gene.data.task_rows import SEVERAL, SPLITS, TaskRow, number_of
from llama_gene.errors import InputError

if TYPE_CHECKING:
    from llama_gene.data.tasks import Task

BIN_NAMES = {
    2: ["low", "high"],
    3: ["low", "medium", "high"],
    4: ["very low", "low", "high", "very high"],
    5: ["very low", "low", "medium", "high", "very high"],
}


def closed_labels(task: Task, splits: dict[str, list[TaskRow]]) -> list[str]:
    """Return the list of label names; empty for free text.

    Raises InputError for a label of test that train lacks, where there is only one label to answer, and for two that differ in case only.
    """
    if task.family == "structure":
        return list(dict.fromkeys(task.state_names().values()))
    known = {name for row in splits["train"] + splits["dev"] or splits["test"] for name in _names_of(row)}
    labels = list(dict.fromkeys(task.labels.values())) or sorted(known)
    unseen = {name for row in splits["test"] for name in _names_of(row)} - set(labels)
    if task.family == "function" and not task.labels and (len(known) > task.max_closed_labels or unseen):
        return []
    if unseen:
        raise InputError(
            f"task '{task.name}': label '{min(unseen)}' is in test but not in train",
            f"one of {', '.join(sorted(known))}",
            "Name the labels in the task's YAML, or check the label column",
        )
    trained = {name for row in splits["train"] for name in _names_of(row)}
    if len(labels) < 2 or len(trained) == 1:
        only = next(iter(trained or known), labels[0])
        raise InputError(f"task '{task.name}': every row has the label '{only}'", "two labels or more", "Check the label column")
    first: dict[str, str] = {}
    for label in labels:
        if first.setdefault(label.lower(), label) != label:  # a model's answer is matched without regard to case
            told = f"task '{task.name}': labels '{first[label.lower()]}' and '{label}' differ in case only"
            raise InputError(told, "labels that an answer tells apart", "Map them to one name, or to two, in the task's YAML")
    return labels


def order_answers(labels: Sequence[str], splits: dict[str, list[TaskRow]]) -> None:
    """Put the labels of rows with several into the order of the list (in place); without a list, into the alphabet's."""
    place = {label: number for number, label in enumerate(labels)}
    for row in (row for split in SPLITS for row in splits[split]):
        row["answers"] = sorted(row["answers"], key=lambda name: (place.get(name, 0), name))
        row["label"] = SEVERAL.join(row["answers"])
        if row["oracle"]:
            row["oracle"] = SEVERAL.join(sorted(row["oracle"].split(SEVERAL), key=lambda name: (place.get(name, 0), name)))


def _names_of(row: TaskRow) -> list[str]:
    return row.get("answers") or [row["label"]]


def bin_names(num_bins: int) -> list[str]:
    """Return the label names of a regression, lowest first.

    >>> bin_names(2), bin_names(6)[-1]
    (['low', 'high'], 'bin 6')
    """
    return BIN_NAMES.get(num_bins) or [f"bin {number}" for number in range(1, num_bins + 1)]


def bin_values(task: Task, splits: dict[str, list[TaskRow]]) -> dict[str, Any]:
    """Give every row the name of its value's bin (in place); return names, edges and the median train value of each bin.

    Raises InputError where the train values do not fill every bin.
    """
    values = sorted(cast("float", row["value"]) for row in splits["train"])
    if task.threshold is not None:
        edges = [task.threshold]
    else:
        edges = statistics.quantiles(values, n=task.bins, method="inclusive") if len(values) > 1 else []
    filled = {bisect_right(edges, value) for value in values}
    if len(edges) + 1 != task.bins or len(filled) != task.bins:
        raise InputError(
            f"task '{task.name}': {len(set(values))} different values in {len(values)} train rows do not make {task.bins} bins",
            "values spread enough for every bin",
            "Lower bins" if task.threshold is None else "Set another threshold",
        )
    names = bin_names(task.bins)

    def name_of(value: float) -> str:
        return names[bisect_right(edges, value)]  # a value on an edge is in the upper bin: "greater than or equal to: high"

    for row in (row for split in SPLITS for row in splits[split]):
        row["label"] = name_of(cast("float", row["value"]))
        oracle = number_of(row["oracle"]) if row["oracle"] else None
        row["oracle"] = None if oracle is None else name_of(oracle)
    medians = [statistics.median(value for value in values if name_of(value) == name) for name in names]
    return {"names": names, "edges": edges, "medians": medians}


def low_and_high(task: Task, splits: Mapping[str, Sequence[TaskRow]]) -> dict[str, Any]:
    """Return the papers' two classes of a regression: the value between low and high, and the share of each in every split.

    The edge is the threshold, else the train median. Where a class holds few of the test rows, accuracy of low against high means nothing.
    """
    by_split = {split: [cast("float", row["value"]) for row in splits[split]] for split in SPLITS}
    edge = task.threshold if task.threshold is not None else statistics.median(by_split["train"])
    high = {split: sum(value >= edge for value in values) / len(values) for split, values in by_split.items() if values}
    return {"edge": edge, "shares": {split: {"low": 1 - share, "high": share} for split, share in high.items()}}


def task_rng(seed: int, task: Task, *words: str) -> random.Random:
    """Return a generator that depends on the seed, the task and the purpose only, not on what was drawn before."""
    return random.Random("/".join([str(seed), task.name, *words]))


def balance(rows: list[TaskRow], rng: random.Random, left_out: dict[str, int], split: str) -> list[TaskRow]:
    """Keep equally many rows of each label that occurs."""
    by_label = _by_label(rows)
    smallest = min((len(members) for members in by_label.values()), default=0)
    return _keep(rows, {label: smallest for label in by_label}, rng, left_out, f"{split} balance")


def cap(rows: list[TaskRow], limit: int | None, rng: random.Random, left_out: dict[str, int], split: str) -> list[TaskRow]:
    """Keep at most `limit` rows with the labels' shares of the whole (free text with many answers: a plain draw)."""
    if limit is None or len(rows) <= limit:
        return rows
    by_label = _by_label(rows)
    if len(by_label) > limit:
        left_out[f"{split} cap"] = len(rows) - limit
        chosen = sorted(rng.sample(range(len(rows)), limit))
        return [rows[index] for index in chosen]
    return _keep(rows, _shares({label: len(members) for label, members in by_label.items()}, limit), rng, left_out, f"{split} cap")


def _by_label(rows: Sequence[TaskRow]) -> dict[str, list[int]]:
    by_label: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        by_label[row["label"]].append(index)
    return by_label


def _keep(rows: list[TaskRow], quotas: Mapping[str, int], rng: random.Random, left_out: dict[str, int], reason: str) -> list[TaskRow]:
    """Draw each label's quota; the rows stay in the order of the file."""
    by_label = _by_label(rows)
    chosen = sorted(index for label in sorted(by_label) for index in rng.sample(by_label[label], quotas[label]))
    if len(chosen) < len(rows):
        left_out[reason] = len(rows) - len(chosen)
    return [rows[index] for index in chosen]


def _shares(counts: Mapping[str, int], limit: int) -> dict[str, int]:
    """Divide `limit` in proportion to the counts by largest remainders.

    >>> _shares({"a": 70, "b": 30}, 9)
    {'a': 6, 'b': 3}
    """
    total = sum(counts.values())
    quotas = {label: limit * count // total for label, count in counts.items()}
    by_remainder: Callable[[str], tuple[int, str]] = lambda label: (-(limit * counts[label] % total), label)  # noqa: E731
    for label in sorted(counts, key=by_remainder)[: limit - sum(quotas.values())]:
        quotas[label] += 1
    return quotas
