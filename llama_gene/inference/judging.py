"""From a task's rows and answers to its result: the metrics that its family asks for, each with a 95 % interval, beside what it must beat.

    family            score (first)                           beside it
    classification    accuracy                                balanced accuracy, MCC, macro-F1, recall of each label; AUROC and AUPR of
                                                              probabilities (one against the rest for more than two labels)
    structure         accuracy; Q3 where rows are residues    as above
    pair              AUPR where a prior is stated, accuracy  as above; AUPR at the prior; each subset (C1, C2, C3, sorts of negatives)
    regression        Spearman, of the expected value         Pearson; accuracy of the bins; low against high where both are common
    several labels    micro-F1                                macro-F1, share of rows with all labels right
    free text         exact match                             mean F1 of words

Answers come in one form for ours and every baseline, an array: (N, K) log-likelihoods or probabilities of the labels (or, with several
labels a row, a probability or a yes or no each); (N,) whole numbers of labels, OFF_LIST (-1) among them; (N,) floats, predicted values
of a regression. The expected value of a regression is that of its bins' probabilities over the bins' median train values, and it is held
against the rows' own numbers, not against bins.

Everything here is a pure function: rows in, a JSON-like dict out.

Shapes: N rows, K labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from llama_gene.errors import InputError
from llama_gene.inference import intervals, metrics
from llama_gene.inference.intervals import Measure
from llama_gene.inference.metrics import OFF_LIST, Classes, Floats

Example = Mapping[str, Any]
Answers = NDArray[Any]
MAJORITY = "majority"
SMALLEST_CLASS = 0.2
"""Low against high means something only where each holds this share of the test rows: the majority alone has 0.8 beyond it."""
_CONTROL_LEVEL = 0.9999  # sixty true controls (tasks and baselines), two looks at each: one false alarm in a hundred evaluations


@dataclass(frozen=True)
class TaskFacts:
    """What a result depends on besides its rows: from the task's entry in the manifest of `instruct`."""

    medians: Sequence[float] | None = None
    """Median train value of each bin, in the order of the labels; unset: bins are numbered."""
    edges: Sequence[float] | None = None
    """Values between the bins."""
    positive: str | None = None
    """Label that AUROC and AUPR look for; unset: the one that the other denies ("Not X", "Non-X"), else the last."""
    prior: float | None = None
    """Share of positives where the task is used; AUPR is then the first metric, at that share."""
    is_residues: bool = False
    """Whether each row of a structure task is one residue (base): accuracy is then Q3."""

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> TaskFacts:
        """Return them from a task's entry in the manifest."""
        bins = facts.get("bins") or {}
        return cls(bins.get("medians"), bins.get("edges"), facts.get("positive"), facts.get("prior"), facts.get("unit") == "residue")


@dataclass(frozen=True)
class _Read:
    """Answers as every metric wants them; what a form does not tell is None."""

    predicted: Classes | None = None
    chances: Floats | None = None
    expected: Floats | None = None
    sets: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class _Task:
    """The rows in numbers."""

    family: str
    labels: Sequence[str]
    facts: TaskFacts
    truth: Classes
    values: Floats
    sets: NDArray[np.bool_] | None
    groups: list[str] | None
    subsets: list[list[str]]

    @property
    def positive(self) -> int | None:
        """Number of the positive label of a task with two."""
        if len(self.labels) != 2 or self.sets is not None:
            return None
        if self.facts.positive is not None:
            if self.facts.positive not in self.labels:
                raise InputError(f"positive is '{self.facts.positive}'", f"one of {', '.join(self.labels)}", "Mend the task's YAML")
            return list(self.labels).index(self.facts.positive)
        first, second = (label.lower() for label in self.labels)
        return 0 if second in (f"not {first}", f"non-{first}", f"non {first}", f"no {first}") else 1

    @property
    def first(self) -> str:
        """Key of the first metric."""
        if self.sets is not None:
            return "micro_f1"
        if self.family == "regression":
            return "spearman"
        return "aupr" if self.family == "pair" and self.facts.prior is not None and self.positive is not None else "accuracy"

    def name(self, key: str) -> str:
        """Return a metric's name for readers."""
        if key == "accuracy" and self.family == "structure" and self.facts.is_residues:
            return f"Q{len(self.labels)}"
        if key == "aupr" and self.facts.prior is not None:
            return f"AUPR at prior {self.facts.prior:g}"
        return {"spearman": "Spearman", "micro_f1": "micro-F1", "aupr": "AUPR"}.get(key, key)


def judge(
    rows: Sequence[Example],
    labels: Sequence[str],
    answers: Answers,
    train_rows: Sequence[Example] = (),
    baselines: Mapping[str, Answers | Sequence[Answers]] | None = None,
    facts: TaskFacts | None = None,
    dev: tuple[Sequence[Example], Answers] | None = None,
    seed: int = 0,
    num_resamples: int = 2000,
) -> dict[str, Any]:
    """Return the result of a task with a closed list of labels.

    `score` and `interval` are the first metric's, `metric` its name, `first` its key; every metric stands under its own key, and its
    interval in `intervals`. `baselines` holds for each name score, interval, and ours less theirs with p of a paired test; the majority
    of the training rows is always among them; answers of several seeds (a list of arrays) give their mean, and `scores` and `sd` besides.
    `dev`, rows with answers, fixes the thresholds of a task with several labels (else 0.5).
    `notes` says what was not measured and why.

    Raises InputError for answers of another shape, or a row whose answer is not in the list.
    """
    task = _read_task(rows, labels, facts or TaskFacts())
    thresholds = _thresholds(task, dev)
    ours = _read_answers(answers, task, thresholds)
    notes: list[str] = []
    measures = _measures(task, ours)
    if task.first not in measures:
        notes.append(f"{task.name(task.first)} needs probabilities, and the answers are labels")
    notes += _at_which_prior(task, measures) + _one_answer(rows, task)
    first = task.first if task.first in measures else "accuracy"
    result: dict[str, Any] = {
        "metric": task.name(first),
        "first": first,
        "labels": list(labels),
        "off_list": int((ours.predicted == OFF_LIST).sum()) if ours.predicted is not None else 0,
        "score": None,
        "interval": None,
        **{key: _number(measure.value()) for key, measure in measures.items()},
    }
    result["intervals"] = {key: _interval(measure, task.groups, seed, num_resamples) for key, measure in measures.items()}
    result |= {"score": result[first], "interval": result["intervals"][first]}
    if ours.predicted is not None and task.sets is None:
        result |= {"per_label": _per_label(task, ours.predicted), "confusion": _confusion(task, ours.predicted)}
    if ours.chances is not None and task.sets is None:
        result["calibration"] = metrics.calibration(task.truth, ours.chances)
    if task.positive is not None:
        result["positive"] = task.labels[task.positive]
    elif ours.chances is not None and task.sets is None and task.family != "regression":
        result |= _one_against_rest(task, ours.chances)
    if task.family == "regression":
        result["low_high"] = _low_high(task, ours, seed, num_resamples)
    if thresholds is not None:
        result["thresholds"] = dict(zip(labels, thresholds.tolist(), strict=True))
    # Without training rows the evaluated rows give their own majority: the best that any constant answer can reach.
    result["majority_answer"], constant = _majority(train_rows or rows, task)
    others = {MAJORITY: [constant]}
    for name, given in (baselines or {}).items():
        others[name] = [_read_answers(array, task, None) for array in ([given] if isinstance(given, np.ndarray) else given)]
    result["baselines"] = {}
    for name, other in others.items():
        theirs = [measure for read in other if (measure := _measures(task, read).get(first)) is not None]
        result["baselines"][name] = _beside(measures[first], theirs, task, seed, num_resamples)
        if not theirs:
            notes.append(f"baseline '{name}' gives labels, and {task.name(first)} needs probabilities")
    result["subsets"] = _subsets(task, ours, others, first, seed, num_resamples)
    result["ceiling"] = _ceiling(rows, task, first)
    result["notes"] = notes
    result["facts"] = asdict(task.facts)
    return result


def judge_text(
    rows: Sequence[Example],
    texts: Sequence[str],
    train_rows: Sequence[Example] = (),
    baselines: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
    num_resamples: int = 2000,
) -> dict[str, Any]:
    """Return the result of free text: exact matches (case and outer blanks ignored), and the mean F1 of words beside them."""
    groups = _groups(rows)

    def measure(answers: Sequence[str]) -> Measure:
        return intervals.share([_same(row["output"], answer) for row, answer in zip(rows, answers, strict=True)])

    ours = measure(texts)
    words = intervals.mean([metrics.word_f1(row["output"], text) for row, text in zip(rows, texts, strict=True)])
    found = {"exact_match": ours, "word_f1": words}
    result: dict[str, Any] = {"metric": "exact match", "first": "exact_match", "labels": [], "off_list": 0, "score": ours.value()}
    result["intervals"] = {key: _interval(value, groups, seed, num_resamples) for key, value in found.items()}
    result |= {"interval": result["intervals"]["exact_match"], **{key: value.value() for key, value in found.items()}}
    answer = Counter(str(row["output"]) for row in train_rows or rows)
    result["majority_answer"] = min(answer, key=lambda text: (-answer[text], text))
    others = {MAJORITY: [result["majority_answer"]] * len(rows), **(baselines or {})}
    result["baselines"] = {name: _beside_one(ours, [measure(other)], groups, seed, num_resamples) for name, other in others.items()}
    known = [str(row["oracle"]) for row in rows if row.get("oracle")]
    result["ceiling"] = measure(known).value() if len(known) == len(rows) else None
    result["notes"] = []
    return result


def chosen_labels(answers: Answers, labels: Sequence[str], thresholds: Mapping[str, float] | None = None) -> list[list[str]]:
    """Return the labels that each row of a task with several labels is given, by the thresholds that `judge` found."""
    edges = None if thresholds is None else np.array([thresholds[label] for label in labels])
    return [[label for label, chosen in zip(labels, row, strict=True) if chosen] for row in _decide(np.asarray(answers), edges)]


def compare(
    rows: Sequence[Example],
    labels: Sequence[str],
    ours: Sequence[Answers],
    theirs: Sequence[Answers],
    facts: TaskFacts | None = None,
    seed: int = 0,
    num_resamples: int = 2000,
) -> list[dict[str, Any]]:
    """Return how two models differ on the same rows, by the task's first metric and by MCC, an entry a metric.

    A side is a list: the answers of the same model trained with other seeds. An entry has metric; ours and theirs, each {"scores",
    "mean", "sd"} (sd over seeds, None for one); difference, interval, p and test (`paired_difference`).
    """
    task = _read_task(rows, labels, facts or TaskFacts())
    sides = [[_measures(task, _read_answers(answers, task, _thresholds(task, None))) for answers in side] for side in (ours, theirs)]
    keys = [task.first] if all(task.first in measures for side in sides for measures in side) else ["accuracy"]
    if task.sets is None and task.family != "regression" and "mcc" not in keys:
        keys.append("mcc")
    return [
        _entry(task.name(key), [[measures[key] for measures in side] for side in sides], task.groups, seed, num_resamples) for key in keys
    ]


def compare_text(
    rows: Sequence[Example], ours: Sequence[Sequence[str]], theirs: Sequence[Sequence[str]], seed: int = 0, num_resamples: int = 2000
) -> list[dict[str, Any]]:
    """Return how two models' free texts differ in exact matches, as `compare` does."""
    sides: list[list[Measure]] = [
        [intervals.share([_same(row["output"], text) for row, text in zip(rows, texts, strict=True)]) for texts in side]
        for side in (ours, theirs)
    ]
    return [_entry("exact match", sides, _groups(rows), seed, num_resamples)]


def _entry(name: str, sides: Sequence[Sequence[Measure]], groups: list[str] | None, seed: int, num_resamples: int) -> dict[str, Any]:
    found: dict[str, Any] = {"metric": name}
    for side, measures in zip(("ours", "theirs"), sides, strict=True):
        scores = [measure.value() for measure in measures]
        spread = float(np.std(scores, ddof=1)) if len(scores) > 1 else None
        found[side] = {"scores": scores, "mean": float(np.mean(scores)), "sd": spread}
    return found | intervals.paired_difference(sides[0], sides[1], groups, seed, num_resamples)


# --- the label-shuffled control --------------------------------------------------------------------------------------------------


def judge_control(
    rows: Sequence[Example],
    labels: Sequence[str],
    answers: Sequence[Answers],
    train_rows: Sequence[Example] = (),
    facts: TaskFacts | None = None,
    seed: int = 0,
    num_resamples: int = 2000,
) -> dict[str, Any]:
    """Return how a baseline does that was trained on shuffled labels; `answers` holds those of each shuffle.

    The result has metric, scores (one a shuffle), score (their mean), sd, interval (95 %), majority, chance, sits and reason. It sits at
    the majority if it does not beat it, and if what has no majority (MCC; Spearman for a regression) is 0, both at a level of 99.99 %.
    Where it does not sit, the evaluation leaks or its numbers are wrong, and `reason` says by how much. Shuffled labels may happen to lie
    along what the true ones lie along, so the error is that of the rows and that of the shuffles (t by Welch and Satterthwaite).
    """
    task = _read_task(rows, labels, facts or TaskFacts())
    of_shuffles = [_measures(task, _read_answers(array, task, _thresholds(task, None))) for array in answers]
    first = task.first if all(task.first in measures for measures in of_shuffles) else "accuracy"
    _, constant = _majority(train_rows or rows, task)
    floor = _measures(task, constant)[first]
    own = [measures[first] for measures in of_shuffles]
    scores = [measure.value() for measure in own]
    result: dict[str, Any] = {
        "metric": task.name(first),
        "scores": scores,
        "score": float(np.mean(scores)),
        "sd": float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
        "interval": _over_trainings(own, None, task, seed, num_resamples, 0.95),
        "majority": floor.value(),
        "chance": None,
        "reason": None,
    }
    beside = _over_trainings(own, floor, task, seed, num_resamples, _CONTROL_LEVEL)
    level = f"{100 * _CONTROL_LEVEL:g} %"
    if task.sets is None and (chance := "spearman" if task.family == "regression" else "mcc") in of_shuffles[0]:
        lot = [measures[chance] for measures in of_shuffles]
        value, edges = (
            float(np.mean([measure.value() for measure in lot])),
            _over_trainings(lot, None, task, seed, num_resamples, _CONTROL_LEVEL),
        )
        result["chance"] = {"metric": "MCC" if chance == "mcc" else task.name(chance), "score": value, "interval": edges}
        if edges and not edges[0] <= 0 <= edges[1]:
            result["reason"] = f"{result['chance']['metric']} is {value:.3f}, and 0 is outside its {level} interval"
    if beside and beside[0] > 0:
        result["reason"] = f"{task.name(first)} is {result['score']:.3f} and beats the majority's {result['majority']:.3f} at {level}"
    return result | {"sits": result["reason"] is None}


def _over_trainings(
    own: Sequence[Measure], floor: Measure | None, task: _Task, seed: int, num_resamples: int, level: float
) -> list[float] | None:
    """Return the interval of the mean over shuffles (less a floor), for other rows and other shuffles; None for one group of rows."""
    from scipy.stats import t

    group = intervals.group_numbers(task.groups, len(task.truth))
    num_groups = int(group.max()) + 1
    values = [measure.value() for measure in own]
    middle = float(np.mean(values)) - (floor.value() if floor is not None else 0.0)
    if num_groups < 2 or np.isnan(middle):
        return None
    of_rows = intervals.standard_error(own, group, seed, num_resamples, [] if floor is None else [floor]) ** 2
    of_shuffles = float(np.var(values, ddof=1)) / len(values) if len(values) > 1 else 0.0
    whole = of_rows + of_shuffles
    if whole == 0:
        return [middle, middle]
    freedom = whole**2 / (of_rows**2 / (num_groups - 1) + of_shuffles**2 / max(len(values) - 1, 1))
    reach = float(t.ppf(0.5 + level / 2, freedom)) * float(np.sqrt(whole))
    return [middle - reach, middle + reach]


# --- reading ---------------------------------------------------------------------------------------------------------------------


def _read_task(rows: Sequence[Example], labels: Sequence[str], facts: TaskFacts) -> _Task:
    column = {label: k for k, label in enumerate(labels)}
    sets = None
    if any(row.get("answers") for row in rows):
        sets = np.zeros((len(rows), len(labels)), bool)
        for i, row in enumerate(rows):
            sets[i, [_column_of(answer, column, row) for answer in row.get("answers") or []]] = True
    truth = np.array([_column_of(row["output"], column, row) if sets is None else 0 for row in rows], np.int64)
    numbers = [row.get("value") for row in rows]
    is_known = all(number is not None for number in numbers)
    values = np.array(numbers, float) if is_known else _values_of_bins(truth, len(labels), facts)
    family = str(rows[0]["family"])
    return _Task(family, labels, facts, truth, values, sets, _groups(rows), [list(row.get("subsets") or []) for row in rows])


def _column_of(output: str, column: Mapping[str, int], row: Example) -> int:
    """Return the number of a row's right answer. Raises InputError when it is not in its own list of labels."""
    if output not in column:
        raise InputError(
            f"a row of task '{row['task']}' has the answer '{output}'", f"one of {', '.join(column)}", "Write the instructions again"
        )
    return column[output]


def _groups(rows: Sequence[Example]) -> list[str] | None:
    """Return each row's group, None where all rows are independent."""
    groups = [str(row.get("group") or f"row {i}") for i, row in enumerate(rows)]
    return groups if len(set(groups)) < len(groups) else None


def _values_of_bins(numbers: Classes, num_labels: int, facts: TaskFacts) -> Floats:
    """Return the value that stands for each bin number. An off-list answer says nothing about a value: it stands in the middle."""
    values = np.arange(num_labels, dtype=float) if facts.medians is None else np.asarray(facts.medians, float)
    return np.where(numbers == OFF_LIST, np.median(values), values[numbers])


def _read_answers(answers: Answers, task: _Task, thresholds: Floats | None) -> _Read:
    """Return answers in every form that they tell. Raises InputError for a shape that does not fit the task."""
    array, num_rows, num_labels = np.asarray(answers), len(task.truth), len(task.labels)
    is_matrix = array.ndim == 2
    if array.shape != ((num_rows, num_labels) if is_matrix else (num_rows,)):
        raise InputError(f"answers of shape {array.shape}", f"({num_rows}, {num_labels}) scores or ({num_rows},) answers")
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        raise InputError(f"{int((~np.isfinite(array)).sum())} answers are not finite numbers", "finite scores", "Check the model's output")
    if task.sets is not None:
        if not is_matrix:
            raise InputError("one answer a row for a task with several labels a row", f"({num_rows}, {num_labels}) scores or yes and no")
        return _Read(sets=_decide(array, thresholds))
    if is_matrix:
        is_chances = bool((array >= 0).all()) and np.allclose(array.sum(1), 1, atol=1e-4)
        chances = array.astype(float) if is_chances else metrics.probabilities(array)
        middle = chances @ _values_of_bins(np.arange(num_labels), num_labels, task.facts)
        return _Read(predicted=array.argmax(1), chances=chances, expected=middle)
    if np.issubdtype(array.dtype, np.floating):
        return _Read(expected=array.astype(float), predicted=_bins_of_values(array, task))
    return _Read(predicted=array.astype(np.int64), expected=_values_of_bins(array, num_labels, task.facts))


def _bins_of_values(values: Floats, task: _Task) -> Classes | None:
    """Return the bins that predicted values fall into (a value at an edge belongs above it), None where no edges are known."""
    return None if task.facts.edges is None else np.searchsorted(np.asarray(task.facts.edges, float), values, side="right")


def _chances_of_sets(array: Answers) -> Floats:
    """Return scores of several labels a row as numbers between 0 and 1; log-likelihoods are raised."""
    scores = array.astype(float)
    return np.exp(scores) if (scores < 0).any() and (scores <= 0).all() else scores


def _decide(array: Answers, thresholds: Floats | None) -> NDArray[np.bool_]:
    return np.asarray(_chances_of_sets(array) >= (0.5 if thresholds is None else thresholds))


def _thresholds(task: _Task, dev: tuple[Sequence[Example], Answers] | None) -> Floats | None:
    """Return each label's threshold with the highest F1 on dev (the highest such), 0.5 for a label that dev does not hold."""
    if task.sets is None:
        return None
    thresholds = np.full(len(task.labels), 0.5)
    if dev is None:
        return thresholds
    wanted = cast("NDArray[np.bool_]", _read_task(dev[0], task.labels, task.facts).sets)
    scores = _chances_of_sets(np.asarray(dev[1]))
    for k in range(len(task.labels) if wanted is not None else 0):
        choices = np.unique(scores[:, k])[::-1]
        given = scores[:, k] >= choices[:, None]
        f1 = 2 * (given & wanted[:, k]).sum(1) / (given.sum(1) + wanted[:, k].sum())
        if wanted[:, k].any():
            thresholds[k] = choices[int(np.argmax(f1))]
    return thresholds


# --- measuring -------------------------------------------------------------------------------------------------------------------


def _measures(task: _Task, read: _Read, rows: NDArray[np.intp] | None = None) -> dict[str, Measure]:
    """Return the metrics that these answers allow, by key, on all rows or on some."""
    kept = np.arange(len(task.truth)) if rows is None else rows
    if task.sets is not None:
        assert read.sets is not None
        wanted, given = task.sets[kept], read.sets[kept]
        right = (wanted == given).all(1)
        return {
            "micro_f1": intervals.of_sets("micro_f1", wanted, given),
            "macro_f1": intervals.of_sets("macro_f1", wanted, given),
            "exact_match": intervals.share(right),
        }
    found: dict[str, Measure] = {}
    truth = task.truth[kept]
    if task.family == "regression" and read.expected is not None:
        found["spearman"] = intervals.of_numbers("spearman", task.values[kept], read.expected[kept])
        found["pearson"] = intervals.of_numbers("pearson", task.values[kept], read.expected[kept])
    if read.predicted is not None:
        answers = read.predicted[kept]
        found["accuracy"] = intervals.share(truth == answers)
        found["balanced_accuracy"] = intervals.of_classes("balanced_accuracy", truth, answers, len(task.labels))
        found["mcc"] = intervals.of_classes("mcc", truth, answers, len(task.labels))
        found["macro_f1"] = intervals.of_classes("macro_f1", truth, answers, len(task.labels))
    if task.positive is not None and read.chances is not None:
        positive = truth == task.positive
        if 0 < positive.sum() < len(positive):
            scores = read.chances[kept, task.positive]
            found["auroc"] = intervals.of_areas("auroc", positive, scores)
            found["aupr"] = intervals.of_areas("aupr", positive, scores, task.facts.prior)
    return found


def _beside(ours: Measure, theirs: Sequence[Measure], task: _Task, seed: int, num_resamples: int) -> dict[str, Any]:
    """Return a baseline's score (of several seeds their mean, with each score and the deviation) and interval, and how ours differs."""
    several = _several(theirs, task, seed, num_resamples) if len(theirs) > 1 else {}
    return _beside_one(ours, theirs, task.groups, seed, num_resamples) | several


def _several(theirs: Sequence[Measure], task: _Task, seed: int, num_resamples: int) -> dict[str, Any]:
    """Return what several seeds of one baseline reach; the interval holds the error of the rows and that of the trainings."""
    scores = [measure.value() for measure in theirs]
    return {
        "score": _number(float(np.mean(scores))),
        "interval": _over_trainings(theirs, None, task, seed, num_resamples, 0.95),
        "scores": [_number(score) for score in scores],
        "sd": _number(float(np.std(scores, ddof=1))),
    }


def _beside_one(ours: Measure, theirs: Sequence[Measure], groups: list[str] | None, seed: int, num_resamples: int) -> dict[str, Any]:
    """Return a baseline's score and interval, and how ours differs."""
    if not theirs:
        return {"score": None, "interval": None, "difference": None, "difference_interval": None, "p": None, "test": None}
    paired = intervals.paired_difference([ours], theirs, groups, seed, num_resamples)
    return {
        "score": _number(theirs[0].value()),
        "interval": _interval(theirs[0], groups, seed, num_resamples) if len(theirs) == 1 else None,
        "difference": paired["difference"],
        "difference_interval": paired["interval"],
        "p": paired["p"],
        "test": paired["test"],
    }


def _majority(rows: Sequence[Example], task: _Task) -> tuple[str, _Read]:
    """Return the commonest answer (the first in the alphabet among equals) and what it is as an answer to every row."""
    counts = Counter(str(row["output"]) for row in rows)
    answer = min(counts, key=lambda text: (-counts[text], text))
    num = len(task.truth)
    if task.sets is not None:
        known = next(row.get("answers") or [] for row in rows if str(row["output"]) == answer)
        return answer, _Read(sets=np.tile(np.isin(np.asarray(task.labels), known), (num, 1)))
    column = list(task.labels).index(answer) if answer in task.labels else OFF_LIST
    chances = np.tile(np.eye(len(task.labels))[column], (num, 1)) if column != OFF_LIST else None
    return answer, _Read(predicted=np.full(num, column), chances=chances, expected=np.zeros(num))


def _per_label(task: _Task, predicted: Classes) -> dict[str, Any]:
    """Return how many rows each label has and what share of them is right (the accuracy of the class)."""
    found = {}
    for k, label in enumerate(task.labels):
        rows = task.truth == k
        found[label] = {"n": int(rows.sum()), "recall": float((predicted[rows] == k).mean()) if rows.any() else None}
    return found


def _confusion(task: _Task, predicted: Classes) -> list[dict[str, Any]]:
    """Return counts of (right answer, given answer); the answer None is off the list."""
    pairs = Counter(zip(task.truth.tolist(), predicted.tolist(), strict=True))
    return [
        {"output": task.labels[true], "answer": None if given == OFF_LIST else task.labels[given], "n": count}
        for (true, given), count in sorted(pairs.items())
    ]


def _one_against_rest(task: _Task, chances: Floats) -> dict[str, Any]:
    """Return the mean AUROC and AUPR of the labels that hold some rows and not all of them."""
    areas: dict[str, list[float]] = {"auroc": [], "aupr": []}
    for k in range(len(task.labels)):
        positive = task.truth == k
        if 0 < positive.sum() < len(positive):
            areas["auroc"].append(metrics.auroc(positive, chances[:, k]))
            areas["aupr"].append(metrics.aupr(positive, chances[:, k]))
    return {name: float(np.mean(values)) if values else None for name, values in areas.items()}


def _low_high(task: _Task, read: _Read, seed: int, num_resamples: int) -> dict[str, Any]:
    """Return the accuracy of low against high, the papers' form of a regression, or why it means nothing here."""
    num = len(task.labels)
    nothing = {"accuracy": None, "interval": None}
    if num % 2:
        return nothing | {"reason": f"{num} bins have no middle"}
    high = task.truth >= num // 2
    share = float(high.mean())
    if min(share, 1 - share) < SMALLEST_CLASS:
        return nothing | {"reason": f"{100 * share:.1f} % of the test rows are high: both classes must hold {100 * SMALLEST_CLASS:.0f} %"}
    if read.predicted is None:
        return nothing | {"reason": "the answers are values and the task names no edges of its bins"}
    chosen = read.predicted >= num // 2 if read.chances is None else read.chances[:, num // 2 :].sum(1) > 0.5
    right = intervals.share((chosen == high) & (read.predicted != OFF_LIST))
    return {"accuracy": right.value(), "interval": _interval(right, task.groups, seed, num_resamples), "reason": None}


def _one_answer(rows: Sequence[Example], task: _Task) -> list[str]:
    """Return a note where all rows have one answer: whoever always says it has all right, and MCC and areas say nothing."""
    if len(rows) < 2 or task.sets is not None or len(set(task.truth.tolist())) > 1:
        return []
    return [f"all {len(rows):,} rows have the answer '{rows[0]['output']}': nothing is told apart"]


def _at_which_prior(task: _Task, measures: Mapping[str, Measure]) -> list[str]:
    """Return what a reader of AUPR must know: whose share of positives it is at, and whether it rests on few negatives."""
    if "aupr" not in measures:
        return []
    if task.facts.prior is not None:
        return _thin_negatives(task)
    if task.family != "pair":
        return []
    share = float((task.truth == task.positive).mean())
    value = measures["aupr"].value()
    return [f"AUPR is {value:.3f} at the {100 * share:.0f} % of positives of these rows; the task states no prior (`prior` in its YAML)"]


def _thin_negatives(task: _Task) -> list[str]:
    """Return a note where AUPR at the prior rests on few negatives, each counted many times.

    The precision of the highest scores is then seen too high: 0.40 for 0.36 with 100 negatives counted 9 times, 0.37 with 500
    (benchmarks/intervals.py).
    """
    assert task.facts.prior is not None
    positives = int((task.truth == task.positive).sum())
    negatives = len(task.truth) - positives
    times = positives * (1 - task.facts.prior) / (task.facts.prior * negatives)
    if times <= 2 or negatives >= 1000:
        return []
    return [f"{task.name('aupr')} counts each of {negatives:,} negatives {times:.1f} times, and reads too high with so few of them"]


def _subsets(task: _Task, read: _Read, others: Mapping[str, Sequence[_Read]], first: str, seed: int, num_resamples: int) -> dict[str, Any]:
    """Return n, score, interval and the baselines' scores of each population that is reported apart.

    A population without both labels has no area under a curve: its accuracy stands there, and for a sort of negatives the AUROC of all
    positives against it.
    """
    names = sorted({name for subsets in task.subsets for name in subsets})
    found = {}
    for name in names:
        rows = np.flatnonzero([name in subsets for subsets in task.subsets])
        measures = _measures(task, read, rows)
        key = first if first in measures else "accuracy"
        groups = None if task.groups is None else [task.groups[i] for i in rows]
        measure = measures[key]
        edges = _interval(measure, groups, seed, num_resamples)
        found[name] = {"n": len(rows), "metric": task.name(key), "score": _number(measure.value()), "interval": edges}
        beside = {other: [_measures(task, one, rows).get(key) for one in theirs] for other, theirs in others.items()}
        found[name]["baselines"] = {other: _mean_of(theirs) for other, theirs in beside.items()}
        if task.positive is not None and read.chances is not None and not (task.truth[rows] == task.positive).any():
            everyone = np.concatenate([np.flatnonzero(task.truth == task.positive), rows])
            against = _measures(task, read, everyone)
            found[name]["auroc"] = _number(against["auroc"].value()) if "auroc" in against else None
    return found


def _mean_of(measures: Sequence[Measure | None]) -> float | None:
    """Return the mean over seeds, None where a seed has no such metric."""
    values = [measure.value() for measure in measures if measure is not None]
    return _number(float(np.mean(values))) if values and len(values) == len(measures) else None


def _ceiling(rows: Sequence[Example], task: _Task, first: str) -> float | None:
    """Return what the simulator's noise-free answers reach, None where there are none."""
    column = {label: k for k, label in enumerate(task.labels)}
    if task.sets is not None or not all(row.get("oracle") in column for row in rows):
        return None
    answers = np.array([column[row["oracle"]] for row in rows], np.int64)
    read = _Read(predicted=answers, chances=np.eye(len(column))[answers], expected=_values_of_bins(answers, len(column), task.facts))
    return _number(_measures(task, read)[first].value())


def _interval(measure: Measure, groups: list[str] | None, seed: int, num_resamples: int) -> list[float] | None:
    edges = intervals.interval(measure, groups, seed, num_resamples)
    return None if edges is None else list(edges)


def _number(value: float) -> float | None:
    """Return a metric for JSON: undefined is None."""
    return None if np.isnan(value) else value


def _same(output: str, answer: str) -> bool:
    return output.strip().lower() == answer.strip().lower()
