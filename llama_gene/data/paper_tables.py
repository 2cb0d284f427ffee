"""The papers' result tables beside our own numbers: a YAML maps each row of a table to tasks, and says how far they are the same thing.

    rows:
      - row: classification, protein
        published: {llama-gene: 0.64, SOTA: 0.72}
        marks: [our choice]                  # the paper does not say which data
        tasks: {protein_localization_deeploc: [reduced], protein_membrane_tmbed: []}

`reduced` marks a task whose training file here is smaller than the published one. A row's own number is the plain mean over its
tasks; where some were not run it stands beside "mean of 1 of 2", and a row or task without a result reads "not run". Nothing is copied from
one column to another: what a paper leaves out is a dash.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_gene.errors import ConfigError, InputError, MissingFileError, did_you_mean

MARKS = ("our choice", "reduced")
"""our choice: the paper does not name the data of this row; reduced: the training file here is smaller than the published one."""
NOT_RUN = "not run"
_DASH = "-"


@dataclass(frozen=True)
class PaperRow:
    """One row: what the paper prints, and the tasks that stand for it."""

    name: str
    published: Mapping[str, float]
    """Column -> value; a column that is not here was left empty in the paper."""
    tasks: Mapping[str, tuple[str, ...]]
    """Our task -> its marks."""
    marks: tuple[str, ...] = ()
    note: str = ""
    not_run: str = ""
    """Why no task stands for this row."""


@dataclass(frozen=True)
class PaperTable:
    """A table of a paper."""

    name: str
    title: str
    metric: str
    columns: tuple[str, ...]
    rows: tuple[PaperRow, ...]

    @property
    def tasks(self) -> list[str]:
        """All tasks of the table, each once."""
        return list(dict.fromkeys(task for row in self.rows for task in row.tasks))


@dataclass(frozen=True)
class OurValue:
    """One of our results: a value with its 95 % interval, or None and the reason why the metric means nothing there."""

    value: float | None
    interval: tuple[float, float] | None = None
    note: str = ""


Results = Mapping[str, Mapping[str, OurValue]]
"""Task -> our column ("strict", "paper scorer", ...) -> value."""


def read_paper_table(path: Path) -> PaperTable:
    """Return the table of a YAML file.

    Raises MissingFileError, and ConfigError with the file and the row for an unknown or missing key, an unknown column or mark, a value
    that is no number, and a row with neither tasks nor a reason.
    """
    import yaml

    if not path.is_file():
        raise MissingFileError(path, "the YAML file of a paper's table")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())[:120]}", "YAML (key: value)") from error
    _check_keys(values, ("name", "title", "metric", "columns", "rows"), (), str(path))
    columns = tuple(map(str, values["columns"]))
    rows = tuple(_read_row(row, columns, f"{path}, row {number}") for number, row in enumerate(values["rows"], start=1))
    return PaperTable(str(values["name"]), str(values["title"]), str(values["metric"]), columns, rows)


def _read_row(values: Any, columns: tuple[str, ...], where: str) -> PaperRow:
    _check_keys(values, ("row", "published"), ("marks", "note", "not_run", "tasks"), where)
    name = str(values["row"])
    tasks = {str(task): _marks(marks, f"{where} ({name}), task '{task}'") for task, marks in (values.get("tasks") or {}).items()}
    not_run = str(values.get("not_run") or "")
    if bool(tasks) == bool(not_run):
        raise ConfigError(f"{where} ({name}) has {'both tasks and' if tasks else 'neither tasks nor'} not_run", "one of them")
    for column, value in values["published"].items():
        if column not in columns:
            raise ConfigError(f"{where} ({name}): column '{column}'", f"one of {', '.join(columns)}", did_you_mean(str(column), columns))
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"{where} ({name}), column '{column}': {value!r}", "a number; leave out what the paper leaves empty")
    published = {str(column): float(value) for column, value in values["published"].items()}
    return PaperRow(name, published, tasks, _marks(values.get("marks") or [], where), str(values.get("note") or ""), not_run)


def _check_keys(values: Any, needed: tuple[str, ...], optional: tuple[str, ...], where: str) -> None:
    """Raise ConfigError for what is no mapping, and for unknown and missing keys."""
    if not isinstance(values, dict):
        raise ConfigError(f"{where} is no mapping", f"keys {', '.join(needed + optional)}")
    for key in values:
        if key not in needed + optional:
            raise ConfigError(f"{where}: key '{key}' is not known", ", ".join(needed + optional), did_you_mean(str(key), needed + optional))
    for key in needed:
        if not values.get(key):
            raise ConfigError(f"{where} has no '{key}'", ", ".join(needed))


def _marks(values: Any, where: str) -> tuple[str, ...]:
    for mark in values:
        if mark not in MARKS:
            raise ConfigError(f"{where}: mark '{mark}'", f"one of {', '.join(MARKS)}", "not run is told by the results")
    return tuple(values)


def render_table(table: PaperTable, results: Results) -> str:
    """Return the table in Markdown: published columns, ours, marks; under a row of several tasks a line for each of them.

    Our columns are those that occur in `results`, in their order there; without any there is one, "ours", that says "not run".
    Raises InputError for a result that belongs to no task of the table.
    """
    if strangers := [task for task in results if task not in table.tasks]:
        raise InputError(f"table '{table.name}' has no task '{strangers[0]}'", f"one of {', '.join(table.tasks)}")
    ours = list(dict.fromkeys(column for values in results.values() for column in values)) or ["ours"]
    published = [f"{column} (published)" for column in table.columns]
    header = ["task", *published, *(f"{column} (ours)" if column != "ours" else column for column in ours), "data", "remarks"]
    lines = [f"## {table.title}: {table.metric}", "", _line(header), _line([":--", *["--:"] * (len(published) + len(ours)), ":--", ":--"])]
    for row in table.rows:
        lines += [_line(cells) for cells in _cells(row, table.columns, ours, results)]
    return "\n".join(lines) + "\n"


def _cells(row: PaperRow, columns: tuple[str, ...], ours: list[str], results: Results) -> list[list[str]]:
    """Return the lines of a row: its own, and one a task where it has several."""
    published = [f"{row.published[column]:.2f}" if column in row.published else _DASH for column in columns]
    if len(row.tasks) == 1:
        ((task, marks),) = row.tasks.items()
        values = results.get(task, {})
        remarks = [*row.marks, *marks, *_notes(values), row.note]
        return [[row.name, *published, *(_own(values.get(column), bool(values)) for column in ours), task, _joined(remarks)]]
    means = [_mean(row, column, results) for column in ours]
    remarks = [*row.marks, row.note, row.not_run and f"{NOT_RUN}: {row.not_run}"]
    lines = [[row.name, *published, *means, _DASH, _joined(remarks)]]
    for task, marks in row.tasks.items():
        values = results.get(task, {})
        cells = [_own(values.get(column), bool(values)) for column in ours]
        lines.append(["", *[""] * len(columns), *cells, task, _joined([*marks, *_notes(values)])])
    return lines


def _mean(row: PaperRow, column: str, results: Results) -> str:
    """Return the mean over the tasks of a row that have a value in a column, and how many they are where some have none."""
    found = [results[task][column].value for task in row.tasks if column in results.get(task, {})]
    known = [value for value in found if value is not None]
    if not known:
        return NOT_RUN
    part = "" if len(known) == len(row.tasks) else f" (mean of {len(known)} of {len(row.tasks)})"
    return f"{sum(known) / len(known):.3f}{part}"


def _own(value: OurValue | None, was_run: bool) -> str:
    """Return one of our values as the table shows it; a dash where the task was run and the column does not apply."""
    if value is None or value.value is None:
        return _DASH if was_run else NOT_RUN
    return f"{value.value:.3f}" + (f" ({value.interval[0]:.3f} to {value.interval[1]:.3f})" if value.interval else "")


def _notes(values: Mapping[str, OurValue]) -> list[str]:
    return list(dict.fromkeys(value.note for value in values.values() if value.note))


def _joined(remarks: list[str]) -> str:
    return "; ".join(dict.fromkeys(remark.rstrip(".") for remark in remarks if remark))


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
