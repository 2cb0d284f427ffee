"""classify, beyond a class a row: heads for residues and numbers, and every head on an encoder; and the LoRA baseline of `evaluate`.

    --head sequence     one class a row (an encoder; a causal model's is `classify` itself)
    --head residue      one state a residue: whole proteins of a structure task, in windows where they are long; Q of the resolved residues
    --head regression   the value itself, scaled by train's mean and deviation; Spearman, beside the bins that the value falls into

Trained on train, the checkpoint chosen by dev (accuracy, Q, Spearman), test scored once by the model read back from the kept files.
Residues of one protein are one group of the bootstrap. Caps count rows, of a residue head whole proteins.
"""

from __future__ import annotations

import gc
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_gene import runtime
from llama_gene.errors import ConfigError, InputError
from llama_gene.recipes.classify_report import ScoredRows, judge_test, write_report
from llama_gene.recipes.train_stage import HISTORY_NAME, check_launch, link_trained, plan, resolve_base

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llama_gene.data.tasks import TaskTable
    from llama_gene.inference.baselines.rows import Baseline
    from llama_gene.models.settings import LoraSettings
    from llama_gene.models.task_heads import Head, Reader
    from llama_gene.recipes.classify import Config
    from llama_gene.training.settings import TrainSettings

    Floats = NDArray[np.float64]


@dataclass(frozen=True)
class HeadRows:
    """The rows of a split as a head reads them: ids with what is to be said of them, the example of each, and what was lost."""

    rows: list[Any]  # LabelledRow
    sources: list[int]  # number of the example (residue: protein) of each row
    windows: list[Any]  # residue: LetterWindow
    letters_cut: list[int]  # letters that each row lost
    rejected: list[int]  # numbers of the examples that are too long

    @property
    def shortened(self) -> int:
        """How many rows lost letters."""
        return sum(cut > 0 for cut in self.letters_cut)


@dataclass(frozen=True)
class Scale:
    """How values are scaled for a regression head: mean and deviation of train."""

    mean: float = 0.0
    deviation: float = 1.0


def run_head(config: Config) -> Path:
    """Train, test and save as `classify.run` does; its config says which head."""
    from llama_gene.data.tasks import SPLITS, load_task, read_task, set_caps
    from llama_gene.models.adapters import trainable_share
    from llama_gene.models.task_heads import open_reader

    if config.model is None or config.task is None or config.output_dir is None:
        raise ConfigError("model, task or output_dir is not given", "--model, --task FILE and --output_dir")
    runtime.check_output(config.output_dir, "classify")
    task = read_task(config.task)
    set_caps(task, config)
    _check_family(task.name, task.family, config.head)
    table = load_task(task, config.data_dir or config.task.parent, config.seed)
    reader = open_reader(config.model, [sequence for row in table.splits["train"][:50] for sequence in row["sequences"]])
    examples = _residue_examples(table, config.seed) if config.head == "residue" else _examples(table, reader, config.seed)
    for split in ("train", "test"):
        if not examples[split]:
            raise ConfigError(f"task '{task.name}' has no {split} rows", "train and test rows", "Use another task")
    labels = _labels(table, examples["train"], config.head)
    check_launch(config.train, None if config.full else config.lora)
    model = _new_model(config.model, reader, config.head, labels, config.full, config.lora, config.train)
    limit = _limit(model, reader, config)
    scale = _scale(examples["train"]) if config.head == "regression" else Scale()
    encoded = {split: _encode(reader, config, examples[split], labels, scale, limit, split) for split in SPLITS}
    counts = {split: _count(encoded[split]) for split in SPLITS}
    for split, count in counts.items():
        runtime.get_logger().info("classify %s: %s rows, %s shortened, %s too long and left out", split, *count.values())
        if split != "dev" and not encoded[split].rows:
            raise InputError(f"no {split} row of task '{task.name}' fits {limit} tokens", "rows that fit", "Raise --max_length")
    trainable, total = trainable_share(model)
    facts = {
        "task": task.name,
        "head": config.head,
        "labels": labels,
        "base": resolve_base(config.model),
        "spelling": reader.spelling,
        "vocabulary": reader.fingerprint,
        "value_mean": scale.mean,
        "value_deviation": scale.deviation,
        "rows": counts,
        "simulated": task.simulated,
        "trainable_parameters": trainable,
        "parameters": total,
    }
    work_dir = config.output_dir.with_name(config.output_dir.name + ".work")
    settings = {key: value for key, value in vars(config).items() if key != "train"}
    identity = runtime.fingerprint([facts, settings, plan(config.train), config.train.save_steps, _stamp(config.model, encoded)])
    outcome, saved = _train(model, config.head, encoded["train"], encoded["dev"], labels, config.train, work_dir, identity)
    if runtime.rank() != 0:
        return config.output_dir
    del model
    gc.collect()  # the training model's memory, before the kept one is read
    with runtime.whole_dir(config.output_dir) as folder:
        link_trained(saved, folder)
        reader.write(folder)
        runtime.write_json(folder / HISTORY_NAME, outcome.history)
        facts |= {"steps": outcome.steps, "chosen_step": outcome.chosen_step, "tokens": outcome.tokens}
        runtime.write_manifest(folder, "classify", config, **facts)  # the model is read back from here
        kept, _, _ = load_head(folder)
        answers = predict(kept, config.head, encoded["test"], scale, config.batch_tokens)
        if config.head == "residue":
            result, lines = _judge_residues(examples, encoded["test"], answers, labels, table.task.name, config)
        else:
            asked = ScoredRows(encoded["test"].sources, encoded["test"].letters_cut, encoded["test"].rejected)
            known = table.labels if config.head == "regression" else labels
            result, lines = judge_test(examples, asked, answers, known, table, config)
        words = write_report(folder, task, result, lines, outcome, config)
        runtime.write_manifest(folder, "classify", config, **facts, score=result["score"], interval=result["interval"])
    shutil.rmtree(work_dir)
    runtime.get_logger().info("classify: written to %s\n\n%s", config.output_dir, words)
    return config.output_dir


def load_head(folder: Path) -> tuple[Any, Reader, dict[str, Any]]:
    """Return (model, reader, manifest) of a folder with a head: in eval mode, on the GPU if there is one."""
    import peft
    import torch
    from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

    from llama_gene.errors import MismatchError
    from llama_gene.models.adapters import ADAPTER_CONFIG
    from llama_gene.models.encoders import load_any_tokenizer
    from llama_gene.models.task_heads import Reader, new_head
    from llama_gene.tokenization.tokenizer import load_tokenizer

    manifest = runtime.read_manifest(folder, "classify")
    spelling = manifest["spelling"]
    reader = Reader(load_tokenizer(folder) if spelling is None else load_any_tokenizer(str(folder), is_ours=False), spelling)
    if reader.fingerprint != manifest["vocabulary"]:
        raise MismatchError(f"{folder}: the tokenizer has vocabulary {reader.fingerprint}", manifest["vocabulary"], "Put its files back")
    model: Any
    if (folder / ADAPTER_CONFIG).is_file():
        base = manifest["base"]
        own = Reader(load_tokenizer(base) if spelling is None else load_any_tokenizer(base), spelling)
        model = peft.PeftModel.from_pretrained(new_head(base, own, manifest["head"], manifest["labels"]), str(folder))
    else:
        kind: Any = AutoModelForTokenClassification if manifest["head"] == "residue" else AutoModelForSequenceClassification
        model = kind.from_pretrained(str(folder), dtype=torch.float32)
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu"), reader, manifest


def lora_baseline(
    model: str,
    train_rows: Sequence[Mapping[str, Any]],
    dev_rows: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    family: str,
    labels: Sequence[str],
    train: TrainSettings,
    lora: LoraSettings,
    work_dir: Path,
    max_length: int = 512,
    batch_tokens: int = 16384,
) -> Baseline:
    """Return what a pretrained encoder or causal model says when it is tuned by LoRA under a head, on the splits of `evaluate`.

    Regression rows with values get a regression head; other rows a class each. With `lora.target_modules` empty every linear layer of the
    body is updated. Train rows that are too long are shortened, and so are the rows asked, since a baseline has to answer all (the note
    counts them). Raises what `load_encoder` raises.
    """
    from llama_gene.inference import metrics
    from llama_gene.inference.baselines.rows import Baseline, read_target
    from llama_gene.inference.baselines.simple import NO_ROWS
    from llama_gene.models.encoders import longest_input
    from llama_gene.models.task_heads import open_reader

    name = f"LoRA {model}"
    target = read_target(train_rows, labels, family)
    reason = "several labels a row" if target.is_multi else "the answers are free text" if not labels else "" if target.rows else NO_ROWS
    if reason:
        return Baseline(name, reason=reason)
    head: Head = "sequence" if target.values is None else "regression"
    known = [train_rows[i] for i in target.rows]
    held = [row for row in dev_rows if row["output"] in labels]
    reader = open_reader(model, [sequence for row in known[:50] for sequence in row["sequences"]])
    body = _new_model(model, reader, head, list(labels), False, lora, train)
    limit = longest_input(body, reader.tokenizer, max_length)
    scale = _scale(known) if head == "regression" else Scale()
    parts = [_rows(reader, part, list(labels), head, scale, limit, True) for part in (known, held, rows)]
    if parts[2].rejected or not parts[0].rows:
        return Baseline(name, reason=f"rows do not fit {limit} tokens even when they are shortened")
    identity = runtime.fingerprint([model, head, list(labels), plan(train), vars(lora), _stamp(model, {"all": parts[0]})])
    outcome, _ = _train(body, head, parts[0], parts[1], list(labels), train, work_dir, identity)
    answers = predict(body.eval(), head, parts[2], scale, batch_tokens)
    shutil.rmtree(work_dir, ignore_errors=True)
    note = f"{head} head, step {outcome.chosen_step} of {outcome.steps}" + (" by dev" if held else "")
    if parts[2].shortened:
        note += f", {parts[2].shortened:,} rows shortened"
    if head == "regression":
        return Baseline(name, scores=target.bins_of(answers), numbers=answers, note=note)
    return Baseline(name, scores=metrics.probabilities(answers), note=note)


# --- rows ------------------------------------------------------------------------------------------------------------------------


def _check_family(name: str, family: str, head: str) -> None:
    """Raise ConfigError where a head does not fit a task."""
    wanted = {"residue": "structure", "regression": "regression"}.get(head)
    if wanted is not None and family != wanted:
        raise ConfigError(f"--head {head} and task '{name}' of the family {family}", f"a {wanted} task", "Use --head sequence")


def _examples(table: TaskTable, reader: Reader, seed: int) -> dict[str, list[Any]]:
    """Return the instruction examples of each split, whose sequences and answers are what counts here."""
    from llama_gene.data.instructions import build_examples

    if table.task.family == "structure" and reader.spelling is not None:
        raise ConfigError(f"task '{table.task.name}' asks about tokens, and an encoder has its own", "--head residue", "Set --head residue")
    examples: dict[str, list[Any]] = {**build_examples(table, reader.tokenizer if reader.spelling is None else None, seed)}
    if any(row.get("answers") for row in examples["train"]):
        raise ConfigError(f"rows of task '{table.task.name}' carry several labels", "one label a row", "Use another task")
    return examples


def _residue_examples(table: TaskTable, seed: int) -> dict[str, list[Any]]:
    """Return the whole proteins of each split, at most max_SPLIT of them drawn with the seed."""
    from llama_gene.data.tasks import SPLITS, max_rows

    chosen: dict[str, list[Any]] = {}
    for split in SPLITS:
        rows, limit = table.splits[split], max_rows(table.task, split)
        numbers = range(len(rows))
        if limit is not None and limit < len(rows):
            numbers = sorted(random.Random(f"{seed}/{table.task.name}/{split}/residues").sample(numbers, limit))  # type: ignore[assignment]
        chosen[split] = [
            {**rows[i], "task": table.task.name, "family": "structure", "group": rows[i]["group"] or f"{split}-{i}"} for i in numbers
        ]
    return chosen


def _labels(table: TaskTable, train_rows: Sequence[Any], head: str) -> list[str]:
    """Return the labels of a head: a residue head's are the letters of the states that train holds."""
    from llama_gene.data.structure import UNKNOWN

    if head == "residue":
        return sorted({state for row in train_rows for state in row["label"]} - {UNKNOWN})
    if not table.labels:
        raise ConfigError(
            f"task '{table.task.name}' has no closed list of answers", "rows whose answers are a closed list", "Use another task"
        )
    return list(table.labels)


def _scale(rows: Sequence[Mapping[str, Any]]) -> Scale:
    """Return mean and deviation of the values."""
    import numpy as np

    values = np.array([float(row["value"]) for row in rows])
    return Scale(float(values.mean()), float(values.std()) or 1.0)


def _limit(model: Any, reader: Reader, config: Config) -> int:
    """Return the longest row in tokens. Raises ConfigError where more is asked for than the model can read."""
    from llama_gene.models.encoders import longest_input

    limit = longest_input(model, reader.tokenizer, 10**9)
    if config.max_length > limit:
        raise ConfigError(f"max_length is {config.max_length}", f"at most {limit}, the model's longest input", "Lower --max_length")
    return config.max_length


def _encode(reader: Reader, config: Config, examples: Sequence[Any], labels: list[str], scale: Scale, limit: int, split: str) -> HeadRows:
    """Return the rows of a split."""
    if config.head == "residue":
        return _letter_rows(reader, examples, labels, limit)
    return _rows(reader, examples, labels, config.head, scale, limit, split == "train" or config.shorten)


def _rows(reader: Reader, examples: Sequence[Any], labels: list[str], head: str, scale: Scale, limit: int, may_shorten: bool) -> HeadRows:
    """Return a row for each example that fits (or may be shortened)."""
    from llama_gene.training.classifier import LabelledRow

    column = {label: k for k, label in enumerate(labels)}
    rows, sources, letters_cut, rejected = [], [], [], []
    for number, example in enumerate(examples):
        encoded = reader.encode(example, limit)
        if encoded is None or (encoded.num_shortened and not may_shorten):
            rejected.append(number)
            continue
        letters_cut.append(encoded.num_shortened)
        if head == "regression":
            answer: int | float = (float(example.get("value") or 0.0) - scale.mean) / scale.deviation
        else:
            answer = column.get(example.get("output"), 0)  # rows that are only asked may have no answer
        rows.append(LabelledRow(encoded.input_ids, answer))
        sources.append(number)
    return HeadRows(rows, sources, [], letters_cut, rejected)


def _letter_rows(reader: Reader, examples: Sequence[Any], labels: list[str], limit: int) -> HeadRows:
    """Return the windows of whole proteins, each token with the number of its residue's state."""
    from llama_gene.models.task_heads import IGNORED
    from llama_gene.training.classifier import LabelledRow

    column = {label: k for k, label in enumerate(labels)}
    rows, sources, windows = [], [], []
    for number, example in enumerate(examples):
        for window in reader.windows(example["sequences"][0], limit):
            states = example["label"][window.start : window.start + window.size]
            answers = [column.get(state, IGNORED) for state in states]
            behind = len(window.input_ids) - window.first - window.size
            rows.append(LabelledRow(window.input_ids, [*[IGNORED] * window.first, *answers, *[IGNORED] * behind]))
            sources.append(number)
            windows.append(window)
    return HeadRows(rows, sources, windows, [0] * len(rows), [])


def _count(rows: HeadRows) -> dict[str, int]:
    return {"rows": len(rows.rows), "shortened": rows.shortened, "rejected": len(rows.rejected)}


def _stamp(model: str, encoded: Mapping[str, HeadRows]) -> list[Any]:
    """Return what names weights and rows."""
    from llama_gene.models.adapters import base_weights

    return [base_weights(model), [[row.input_ids, row.label] for rows in encoded.values() for row in rows.rows]]


# --- training and answers --------------------------------------------------------------------------------------------------------


def _new_model(name: str, reader: Reader, head: Head, labels: list[str], full: bool, lora: LoraSettings, train: TrainSettings) -> Any:
    """Return the model with a fresh head, and with an adapter unless all its weights shall train."""
    from llama_gene.models.adapters import attach_lora
    from llama_gene.models.task_heads import head_layers, linear_layers, new_head

    if lora.quantize != "none":
        raise ConfigError(f"lora.quantize is {lora.quantize}", "none: the body is held in full", "Leave it out")
    model = new_head(name, reader, head, labels, train.seed)
    if train.attention != "auto":
        model.set_attn_implementation(train.attention)
    if full:
        return model
    settings = replace(lora, modules_to_save=head_layers(model), target_modules=lora.target_modules or linear_layers(model))
    return attach_lora(model, settings, train.seed)


def _train(
    model: Any, head: Head, rows: HeadRows, dev: HeadRows, labels: list[str], train: TrainSettings, work_dir: Path, identity: str
) -> tuple[Any, Path]:
    """Train a head; return what `train_classifier` does."""
    from llama_gene.training.classifier import mean_squared_error, train_classifier

    loss = mean_squared_error if head == "regression" else None
    return train_classifier(model, rows.rows, dev.rows, _dev_metric(head), train, work_dir, identity, loss)


def _dev_metric(head: Head) -> Callable[[Any, Any], float]:
    """Return what dev is measured by: accuracy of rows or of resolved residues, Spearman of numbers."""
    from llama_gene.inference import metrics
    from llama_gene.models.task_heads import IGNORED

    if head == "regression":
        return lambda truth, logits: metrics.spearman(truth, logits.reshape(len(truth)))
    if head == "residue":
        return lambda truth, logits: metrics.accuracy(truth[truth != IGNORED], logits.argmax(-1)[truth != IGNORED])
    return lambda truth, logits: metrics.accuracy(truth, logits.argmax(1))


def predict(model: Any, head: Head, rows: HeadRows, scale: Scale, batch_tokens: int) -> Floats:
    """Return logits (N, K) of rows, (residues of all rows, K) of a residue head in their order, or values (N,) of a regression head."""
    import numpy as np

    from llama_gene.models.heads import classify_rows
    from llama_gene.models.task_heads import letter_logits

    if head == "residue":
        found = dict(letter_logits(model, rows.windows, batch_tokens))
        return np.concatenate([found[i] for i in range(len(rows.windows))])
    logits = classify_rows(model, [row.input_ids for row in rows.rows], batch_tokens)
    return logits[:, 0] * scale.deviation + scale.mean if head == "regression" else logits


def _judge_residues(
    examples: Mapping[str, Sequence[Any]], rows: HeadRows, logits: Floats, labels: list[str], name: str, config: Config
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return Q of the resolved residues, with an interval that draws whole proteins, and a line for each protein."""
    from collections import Counter

    import numpy as np

    from llama_gene.data.structure import UNKNOWN
    from llama_gene.inference.judging import TaskFacts, judge

    answers = "".join(labels[k] for k in logits.argmax(1))
    joined: dict[int, str] = {}
    at = 0
    for source, window in zip(rows.sources, rows.windows, strict=True):
        joined[source] = joined.get(source, "") + answers[at : at + window.size]
        at += window.size
    truth, said = [], []
    for source, states in joined.items():
        row = examples["test"][source]
        for state, answer in zip(row["label"], states, strict=True):
            if state != UNKNOWN:
                truth.append({"task": row["task"], "family": "structure", "output": state, "group": row["group"], "oracle": None})
                said.append(labels.index(answer))
    known = [*labels, *sorted({row["output"] for row in truth} - set(labels))]  # a state that train does not hold is never answered
    commonest = Counter(state for row in examples["train"] for state in row["label"] if state != UNKNOWN).most_common(1)[0][0]
    result = judge(
        truth, known, np.array(said), [{"output": commonest}], {}, TaskFacts(is_residues=True), None, config.seed, config.num_resamples
    )
    counts = {"n": len(truth), "rejected": 0, "shortened": 0, "proteins": len(joined)}
    result = {"task": name, "family": "structure", **counts, **result}
    return result, [{"task": name, "row": i, "states": examples["test"][i]["label"], "answer": joined[i]} for i in sorted(joined)]
