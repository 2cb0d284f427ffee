"""English is kept: tasks of EleutherAI's lm-evaluation-harness on the base and on the tuned model, with the difference and its error.

The harness (extra `harness`) brings the tasks, the prompts and the scoring; the model is loaded by us, so that an adapter is asked as it
stands, and handed over as an object. For each task and metric

    difference = value(after) - value(before),    se = sd over questions of (after - before) / sqrt(n)

because both models answer the same questions: the errors of the two values do not add, as they would in two independent samples. A metric
that is no mean over questions (perplexity, MCC) gets its error from a bootstrap over questions, drawn alike for both models. A group's
error comes from those of its tasks.

What a reader of the numbers should know, each pinned by a test:

- float32: the harness takes the log-softmax in the model's precision; we ask for float32 whatever that is.
- BOS is given where the tokenizer's own post-processor gives it (add_bos_token unset, the harness's default, so that published numbers can
  be compared). Two models of which only one gets a BOS are refused.
- Columns of the head behind the last token (padded vocabularies) share in the harness's softmax, in ours they do not.
- A question longer than the model is cut off at the left by the harness: counted here as `cut`.
- Requests that base and model tokenise differently are counted, too: a splice that touches English would show here.

Nothing is downloaded unless `download` is set. Tasks whose data set lies on the hub are named in the error; with HF_HUB_OFFLINE=1 (or
HF_DATASETS_OFFLINE=1) in the environment they are read from the local cache.
"""

from __future__ import annotations

import copy
import gc
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_gene import runtime
from llama_gene.errors import ConfigError, InputError, MachineError, MismatchError, did_you_mean

if TYPE_CHECKING:
    from llama_gene.models.settings import Precision

PACKAGE, OLDEST = "lm-eval", "0.4.12"
Z95 = 1.959963984540054
NUM_RESAMPLES = 1000  # of the bootstrap, for metrics that are no mean
_FILE_FORMATS = ("json", "csv", "text", "parquet", "arrow", "pandas", "xml")
"""Builders of `datasets` that read files; they need no hub when the files are local."""


@dataclass
class HarnessRun:
    """What one model answered."""

    values: dict[tuple[str, str, str], list[Any]] = field(default_factory=dict)
    """(task, metric, filter) -> what each question contributed, in the order of the questions."""
    scores: dict[tuple[str, str, str], float] = field(default_factory=dict)
    """(task or group, metric, filter) -> the harness's value."""
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """task -> {"version", "shots", "higher_is_better", "aggregate": {metric: function over questions}}."""
    groups: dict[str, list[str]] = field(default_factory=dict)
    """group -> its tasks, those of groups inside it included."""
    requests: list[int] = field(default_factory=list)
    """A number for the token ids of each likelihood request, in order: equal where two models read the same ids."""
    cut: int = 0
    """Likelihood requests that were longer than the model."""
    adds_bos: bool = False
    """Whether the tokenizer puts BOS in front of a text by itself."""


def english_results(
    base: Any,
    model: Any,
    tasks: Sequence[str],
    include_path: Path | str | None = None,
    limit: int | None = None,
    num_fewshot: int | None = None,
    batch_size: int = 8,
    max_length: int | None = None,
    download: bool = False,
    seed: int = 0,
    precision: Precision = "float32",
) -> dict[str, Any]:
    """Return what the tasks give before (`base`, None: not asked) and after (`model`); the two are never in memory together.

    A model is a folder or hub id, as `load_model` takes it, or a pair (model, tokenizer) that is already loaded. `tasks` are names of the
    harness's tasks, groups or tags, or of those under `include_path`; `limit` asks the first questions of each only; `num_fewshot` is the
    number of examples in front of a question where the task leaves it open.

    The result holds "tasks": a list of {"task", "metric", "filter", "n", "shots", "higher_is_better", "before", "after", "difference"},
    each value {"value", "se"} (the difference with its 95 % "interval"; "se" None where no error is known); and "requests", "changed"
    (tokenised differently), "cut" {"before", "after"}, "adds_bos", "lm_eval" (version), "limit", "seed".
    Raises MachineError without the harness, ConfigError for an unknown task, InputError for a task that needs a download or cannot be
    read, MismatchError when only one of the models gets a BOS.
    """
    check_installed()
    if not tasks:
        raise ConfigError("no English task is given", "names of lm-evaluation-harness tasks", "List them")
    if limit is not None and limit < 1:
        raise ConfigError(f"the limit is {limit} questions a task", "at least 1")
    manager = open_tasks(tasks, include_path)
    _check_once(tasks, manager.task_index)
    if not download:
        refuse_downloads(manager, tasks)  # before anything of the models' size is loaded
    runs: dict[str, HarnessRun] = {}
    for when, asked in (("before", base), ("after", model)):
        if asked is not None:
            runtime.get_logger().info("english: %s, %s", when, asked if isinstance(asked, (str, Path)) else "the loaded model")
            loaded, tokenizer = asked if isinstance(asked, tuple) else _load(asked, precision)
            runs[when] = run_harness(loaded, tokenizer, manager, tasks, limit, num_fewshot, batch_size, max_length, seed)
            del loaded
            _free()
    before, after = runs.get("before"), runs["after"]
    if before is not None and before.adds_bos != after.adds_bos:
        raise MismatchError(
            f"the tokenizer of the {'base' if before.adds_bos else 'model'} puts BOS in front of a text and the other does not",
            "the same for both, or the difference measures that",
            "Use the tokenizer that the base was spliced from",
        )
    return {
        "tasks": compare(before, after, seed),
        "requests": len(after.requests),
        "changed": None if before is None else sum(x != y for x, y in zip(before.requests, after.requests, strict=True)),
        "cut": {when: run.cut for when, run in runs.items()},
        "adds_bos": after.adds_bos,
        "lm_eval": runtime.package_version(PACKAGE),
        "limit": limit,
        "seed": seed,
    }


def render_english(results: Mapping[str, Any]) -> str:
    """Return the Markdown table of `english_results`, and a line for everything that a reader would have to ask about."""
    lines = [
        "| English task | metric | n | shots | before | after | difference (95 %) |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in results["tasks"]:
        metric = row["metric"] + {True: " ↑", False: " ↓", None: ""}[row["higher_is_better"]]
        metric += "" if row["filter"] == "none" else f" ({row['filter']})"
        difference = row["difference"]
        told = "-"
        if difference is not None:
            interval = difference["interval"]
            told = f"{difference['value']:+.3f}" + (f" ({interval[0]:+.3f} to {interval[1]:+.3f})" if interval else "")
        shots = "-" if row["shots"] is None else row["shots"]
        lines.append(f"| {row['task']} | {metric} | {row['n']:,} | {shots} | {_told(row['before'])} | {_told(row['after'])} | {told} |")
    notes = [f"lm-evaluation-harness {results['lm_eval']}; ± is the standard error, the difference is paired by question."]
    if results["limit"] is not None:
        notes.append(f"Only the first {results['limit']:,} questions of each task were asked.")
    if results["changed"]:
        notes.append(f"{results['changed']:,} of {results['requests']:,} requests have other token ids than in the base.")
    if any(results["cut"].values()):
        cut = ", ".join(f"{count:,} {when}" for when, count in results["cut"].items())
        notes.append(f"Requests longer than the model, cut off at the left: {cut}.")
    return "\n".join(lines) + "\n\n" + " ".join(notes) + "\n"


# --- one model -------------------------------------------------------------------------------------------------------------------


def run_harness(
    model: Any,
    tokenizer: Any,
    manager: Any,
    tasks: Sequence[str],
    limit: int | None = None,
    num_fewshot: int | None = None,
    batch_size: int = 8,
    max_length: int | None = None,
    seed: int = 0,
) -> HarnessRun:
    """Return what a loaded model answers to tasks of an index (`open_tasks`). The caller decides about downloads (`refuse_downloads`)."""
    from lm_eval.evaluator import evaluate

    loaded = _load_tasks(manager, tasks)
    facts = {name: _prepare(task, num_fewshot, seed) for name, task in loaded["tasks"].items()}
    lm = harness_model(model, tokenizer, batch_size, max_length)
    with _quiet():
        answered = evaluate(lm, loaded, limit=limit, bootstrap_iters=0, log_samples=True)
    run = HarnessRun(facts=facts, requests=lm.requests, cut=lm.num_cut, adds_bos=_adds_bos(tokenizer))
    for name, results in answered["results"].items():
        for key, value in results.items():
            metric, comma, filter_name = key.partition(",")
            if comma and not metric.endswith("_stderr") and isinstance(value, (int, float)):
                run.scores[name, metric, filter_name] = float(value)
    for name, samples in answered["samples"].items():
        for sample in sorted(samples, key=lambda sample: int(sample["doc_id"])):
            for metric in sample["metrics"]:
                run.values.setdefault((name, metric, sample["filter"]), []).append(sample[metric])
    for name, group in loaded.get("groups", {}).items():
        run.groups[name] = [task.task_name for task in group.get_all_tasks()]
    return run


def harness_model(model: Any, tokenizer: Any, batch_size: int = 8, max_length: int | None = None) -> Any:
    """Return the harness's wrapper around a loaded causal model (a PeftModel too): scores in float32, and what it cuts off counted.

    The tokenizer is copied, because the harness gives it a padding token; and the harness may not tie the model's weights (a loaded model
    has tied them), because it would tear a tied head from an adapter that trained it: it looks past PEFT's wrapper.
    """
    check_installed()
    from lm_eval.models.huggingface import HFLM

    class Counted(HFLM):  # type: ignore[misc]
        """HFLM, with the token ids of its requests numbered and the over-long ones counted."""

        def __init__(self, *arguments: Any, **keywords: Any) -> None:
            self.requests: list[int] = []
            self.num_cut = 0
            super().__init__(*arguments, **keywords)

        def _loglikelihood_tokens(self, requests: Any, *arguments: Any, **keywords: Any) -> Any:
            for _, context, continuation in requests:
                self.requests.append(hash((*context, -1, *continuation)))
                self.num_cut += len(context) + len(continuation) > self.max_length + 1
            return super()._loglikelihood_tokens(requests, *arguments, **keywords)

    with _quiet(), _tied_already(model):
        return Counted(
            pretrained=model, tokenizer=copy.deepcopy(tokenizer), backend="causal", batch_size=batch_size, max_length=max_length,
            softmax_dtype="float32",
        )  # fmt: skip


def check_installed() -> None:
    """Raise MachineError with the cause where the harness is not installed, too old, or does not load beside the libraries here."""
    version = runtime.package_version(PACKAGE)
    action = 'Install it: pip install "llama-gene[harness]"'
    if version == "not installed":
        raise MachineError("lm-evaluation-harness is not installed", f"{PACKAGE} {OLDEST} or newer", action)
    try:
        from lm_eval.models import huggingface  # noqa: F401
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        beside = ", ".join(f"{name} {runtime.package_version(name)}" for name in ("transformers", "datasets"))
        raise MachineError(f"{PACKAGE} {version} does not load beside {beside}: {error}", f"{PACKAGE} {OLDEST} or newer", action) from error
    if not hasattr(TaskManager, "load"):
        raise MachineError(f"{PACKAGE} is {version}", f"{OLDEST} or newer", action)


# --- tasks and their data --------------------------------------------------------------------------------------------------------


def open_tasks(tasks: Sequence[str], include_path: Path | str | None = None) -> Any:
    """Return the harness's index that holds the tasks: of `include_path` alone where they all stand there, else with its own ones.

    Reading its own 14,000 files takes seconds. Raises ConfigError for a name that it does not know, InputError for a folder without tasks.
    """
    check_installed()
    from lm_eval.tasks import TaskManager

    if include_path is not None:
        if not any(Path(include_path).glob("**/*.yaml")):
            raise InputError(f"{include_path} holds no task file of the harness (.yaml)", "a folder of them", "Check the path")
        with _quiet():
            manager = TaskManager(include_path=str(include_path), include_defaults=False)
        if all(name in manager.task_index for inner in tasks for name in _members(inner, manager.task_index)):
            return manager
    with _quiet():
        manager = TaskManager(include_path=None if include_path is None else str(include_path))
    for name in tasks:
        if name not in manager.task_index:
            raise ConfigError(
                f"lm-evaluation-harness has no task '{name}'",
                "a task, group or tag of its list, or of your own folder",
                did_you_mean(name, manager.all_tasks) or "List them: lm_eval ls tasks",
            )
    return manager


def _check_once(tasks: Sequence[str], index: Mapping[str, Any]) -> None:
    """Raise ConfigError where a task is asked for twice, by its name and by a group's: the harness refuses that."""
    first: dict[str, str] = {}
    for name in tasks:
        for task in _members(name, index):
            if first.setdefault(task, name) != name or tasks.count(name) > 1:
                raise ConfigError(f"task '{task}' is asked for by '{first[task]}' and by '{name}'", "each task once", "Leave one out")


def refuse_downloads(manager: Any, tasks: Sequence[str]) -> None:
    """Raise InputError naming the tasks whose data lies on the hub, unless the libraries are offline and read their cache."""
    from datasets import config

    if config.HF_HUB_OFFLINE:  # set from HF_HUB_OFFLINE or HF_DATASETS_OFFLINE
        return
    index = manager.task_index
    remote = {task: source for name in tasks for task in _members(name, index) if (source := _source_of(task, index))}
    if remote:
        shown = [f"{task} ({source})" for task, source in remote.items()]
        told = ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "")
        raise InputError(
            f"these tasks download their data: {told}",
            "tasks with local files",
            "Allow the download, set HF_HUB_OFFLINE=1 if their data is in the local cache, or give a folder of tasks of your own",
        )


def _members(name: str, index: Mapping[str, Any]) -> list[str]:
    """Return the tasks under a name: a task itself, those of a tag, those of a group and of the groups in it; a name may be unknown."""
    entry = index.get(name)
    kind = None if entry is None else entry.kind.name
    if entry is None or kind not in ("TAG", "GROUP"):
        return [name]
    inside = sorted(entry.tags) if kind == "TAG" else (entry.cfg or {}).get("task", [])
    names = [item if isinstance(item, str) else str(item.get("group") or item.get("task")) for item in inside]
    return [task for inner in names for task in (_members(inner, index) if inner != name else [inner])]


def _source_of(task: str, index: Mapping[str, Any]) -> str | None:
    """Return what a task would download: its data set, what its code reads, or a metric of the hub; None for local files alone."""
    if task not in index:
        return "defined inside its group"
    entry = index[task]
    config: Mapping[str, Any] = entry.cfg or _read_yaml(entry.yaml_path)
    for metric in config.get("metric_list") or []:
        if isinstance(metric, dict) and metric.get("hf_evaluate"):
            return f"the hub's metric {metric.get('metric')}"
    path = config.get("dataset_path")
    if "class" in config or "custom_dataset" in config or path is None:
        return "whatever its own code reads"
    if path in _FILE_FORMATS:
        return next((name for name in _texts((config.get("dataset_kwargs") or {}).get("data_files")) if "://" in name), None)
    return None if Path(path).expanduser().exists() else str(path)


def _read_yaml(path: Path) -> dict[str, Any]:
    """Return a task's config with its includes, its functions unread."""
    from lm_eval.tasks._yaml_loader import load_yaml

    config: dict[str, Any] = load_yaml(path, resolve_func=False)
    return config


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in nested lists and mappings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, Sequence):
        for inner in value:
            yield from _texts(inner)


def _load_tasks(manager: Any, tasks: Sequence[str]) -> dict[str, Any]:
    """Return the harness's task objects, their data read. Raises InputError for data that cannot be read."""
    try:
        with _quiet():
            loaded: dict[str, Any] = manager.load(list(tasks))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError) as error:  # datasets has an error for each mishap
        told = " ".join(str(error).split())[:300]
        raise InputError(
            f"the data of {', '.join(tasks)} cannot be read: {type(error).__name__}: {told}",
            "data sets in reach",
            "Check the task's files, the network, or the local cache",
        ) from error
    return loaded


def _prepare(task: Any, num_fewshot: int | None, seed: int) -> dict[str, Any]:
    """Set a task's number of examples (one that is zero by design stays so) and their seed; return its facts."""
    default = task.get_config("num_fewshot")
    shots = default if default == 0 or num_fewshot is None else num_fewshot
    task.set_config(key="num_fewshot", value=shots or 0)
    task.set_fewshot_seed(seed)
    return {"version": task.VERSION, "shots": shots or 0, "higher_is_better": task.higher_is_better(), "aggregate": task.aggregation()}


# --- two models ------------------------------------------------------------------------------------------------------------------


def compare(before: HarnessRun | None, after: HarnessRun, seed: int = 0) -> list[dict[str, Any]]:
    """Return a row for each task and metric, then for each group: value and error before and after, and the paired difference."""
    rows = []
    errors: dict[tuple[str, str, str], tuple[float | None, float | None, float | None]] = {}
    for key, values in after.values.items():
        if key not in after.scores:
            continue  # a value that the harness only logs
        name, metric, _ = key
        facts = after.facts[name]
        own = None if before is None else before.values[key]
        errors[key] = _errors(own, values, facts["aggregate"][metric], seed)
        rows.append(_row(key, len(values), facts["shots"], facts["higher_is_better"].get(metric), before, after, errors[key]))
    for key in after.scores:
        name, metric, filter_name = key
        if name not in after.groups:
            continue
        members = [(task, metric, filter_name) for task in after.groups[name] if (task, metric, filter_name) in errors]
        counts = [len(after.values[member]) for member in members]
        better = {after.facts[member[0]]["higher_is_better"].get(metric) for member in members}
        joined = _group_errors(key, members, counts, before, after, errors)
        rows.append(_row(key, sum(counts), None, better.pop() if len(better) == 1 else None, before, after, joined))
    return rows


def _row(
    key: tuple[str, str, str],
    num: int,
    shots: int | None,
    better: bool | None,
    before: HarnessRun | None,
    after: HarnessRun,
    errors: tuple[float | None, float | None, float | None],
) -> dict[str, Any]:
    """Return one line of the table."""
    row: dict[str, Any] = {"task": key[0], "metric": key[1], "filter": key[2], "n": num, "shots": shots, "higher_is_better": better}
    row["before"] = None if before is None else {"value": before.scores[key], "se": errors[0]}
    row["after"] = {"value": after.scores[key], "se": errors[1]}
    row["difference"] = None
    if before is not None:
        difference, error = after.scores[key] - before.scores[key], errors[2]
        interval = None if error is None else [difference - Z95 * error, difference + Z95 * error]
        row["difference"] = {"value": difference, "se": error, "interval": interval}
    return row


def _errors(
    before: Sequence[Any] | None, after: Sequence[Any], aggregate: Callable[[Any], float], seed: int
) -> tuple[float | None, float | None, float | None]:
    """Return the standard errors of the value before, of the value after and of their difference, over the same questions."""
    if len(after) < 2:
        return None, None, None
    sides = [list(after)] if before is None else [list(before), list(after)]
    if all(isinstance(value, (int, float, np.number)) for side in sides for value in side) and _is_mean(aggregate, sides):
        numbers = np.array(sides, dtype=float)
        parts = [float(np.std(row, ddof=1) / np.sqrt(len(after))) for row in (*numbers, numbers[-1] - numbers[0])]
    else:
        parts = _bootstrap_errors(sides, aggregate, seed)
    return (None, parts[0], None) if before is None else (parts[0], parts[1], parts[2])


def _is_mean(aggregate: Callable[[Any], float], sides: Sequence[Sequence[Any]]) -> bool:
    """Return whether a metric is the mean of what its questions contribute."""
    return all(abs(float(aggregate(list(side))) - float(np.mean(side))) < 1e-12 for side in sides)


def _bootstrap_errors(sides: Sequence[Sequence[Any]], aggregate: Callable[[Any], float], seed: int) -> list[float]:
    """Return the bootstrap's standard errors of each side and of the last minus the first, the same questions drawn for all sides."""
    rng = np.random.default_rng(seed)
    drawn = np.empty((NUM_RESAMPLES, len(sides) + 1))
    for number in range(NUM_RESAMPLES):
        chosen = rng.integers(0, len(sides[0]), len(sides[0]))
        values = [float(aggregate([side[i] for i in chosen])) for side in sides]
        drawn[number] = [*values, values[-1] - values[0]]
    return [float(error) for error in drawn.std(axis=0, ddof=1)]


def _group_errors(
    key: tuple[str, str, str],
    members: Sequence[tuple[str, str, str]],
    counts: Sequence[int],
    before: HarnessRun | None,
    after: HarnessRun,
    errors: Mapping[tuple[str, str, str], tuple[float | None, float | None, float | None]],
) -> tuple[float | None, float | None, float | None]:
    """Return a group's errors from its tasks': sqrt(sum of (weight x error)^2), with the weights that give the group's own value.

    Those are the numbers of questions or all equal; where neither gives the value, no error is stated.
    """
    runs = [run for run in (before, after) if run is not None]
    for weights in (np.array(counts, dtype=float), np.ones(len(members))):
        shares = weights / weights.sum() if len(members) else weights
        if members and all(abs(float(shares @ [run.scores[member] for member in members]) - run.scores[key]) < 1e-9 for run in runs):
            joined: list[float | None] = []
            for place in range(3):
                parts = [errors[member][place] for member in members]
                known = [part for part in parts if part is not None]
                joined.append(float(np.sqrt(((shares * known) ** 2).sum())) if len(known) == len(parts) else None)
            return joined[0], joined[1], joined[2]
    return None, None, None


# --- small things ----------------------------------------------------------------------------------------------------------------


def _load(name: str | Path, precision: Precision) -> tuple[Any, Any]:
    from llama_gene.models.adapters import load_model

    return load_model(name, precision)


def _free() -> None:
    """Give back the memory of a model that is no longer needed."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _adds_bos(tokenizer: Any) -> bool:
    """Return whether a tokenizer puts BOS in front of a text by itself, as the harness uses it."""
    ids = tokenizer.encode("The")
    return tokenizer.bos_token_id is not None and bool(ids) and ids[0] == tokenizer.bos_token_id


def _told(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return "-"
    return f"{value['value']:.3f}" + (f" ± {value['se']:.3f}" if value["se"] is not None else "")


@contextmanager
def _tied_already(model: Any) -> Iterator[None]:
    """Let a call of tie_weights on this object do nothing for a while."""
    model.tie_weights = lambda: None
    try:
        yield
    finally:
        del model.tie_weights


@contextmanager
def _quiet() -> Iterator[None]:
    """Let the harness say errors only: it warns of every model that is handed over as an object."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
