"""classify: one task + any causal model -> a model with a classification head, and its score on the task's test rows (DNAHLM 2.3.3).

The head is trained on the task's train rows, the checkpoint is chosen by its dev rows, and the test rows are scored once, by the model
read back from the files that are kept. A row is [BOS] sequence EOS, a pair joined by a newline; the prompt has no part in it. Train rows
that are too long are shortened at the end of their sequences and counted; dev and test rows are rejected and counted unless `shorten`.
Heads for residues and numbers, and heads on encoders, are in `classify_heads`.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llama_gene import runtime
from llama_gene.errors import ConfigError, InputError
from llama_gene.models.settings import LoraSettings
from llama_gene.recipes.classify_report import ScoredRows, judge_test, write_report
from llama_gene.recipes.train_stage import HISTORY_NAME, check_launch, link_trained, plan, resolve_base
from llama_gene.training.settings import TrainSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerFast

    from llama_gene.data.instructions import Example
    from llama_gene.data.supervised import EncodedPrompt


@dataclass
class Config:
    """A head for classes, residues or numbers on a causal model or an encoder, trained and tested on one task."""

    model: str | None = None
    """Whole model to start from: a folder written by `llama-gene pretrain` (from scratch), `export` or `sft --full true`, or a hub id;
    also an encoder (BERT, ESM)."""
    head: Literal["sequence", "residue", "regression"] = "sequence"
    """sequence: one class a row; residue: one state a residue of a structure task; regression: the value of a regression task."""
    task: Path | None = None
    """YAML file of the task, as for `llama-gene instruct`; its answers must be a closed list."""
    data_dir: Path | None = None
    """Folder that the paths in the YAML file are relative to; by default the folder of the YAML file."""
    max_train: int | None = None
    """At most this many training rows, whatever the task's YAML says."""
    max_dev: int | None = None
    """The same for development rows."""
    max_test: int | None = None
    """The same for test rows."""
    max_length: int = 512
    """Longest row, in tokens."""
    shorten: bool = False
    """Shorten over-long dev and test rows too, instead of rejecting them; the share is written into the table."""
    full: bool = True
    """Train all weights, as the paper does at this size; false: LoRA and the head."""
    lora: LoraSettings = field(default_factory=lambda: LoraSettings(modules_to_save=["score"]))
    """Adapter settings, used without `full`; GPT-2's linear layers are c_attn, c_proj and c_fc. Encoders and other heads than sequence: the
    head trains whole whatever modules_to_save says, and target_modules [] updates every linear layer of the body."""
    train: TrainSettings = field(
        default_factory=lambda: TrainSettings(epochs=3.0, batch_size=32, learning_rate=5e-5, warmup_share=0.1, scheduler="linear")
    )
    """How to train; dev is measured every save_steps (0: once an epoch), and the best checkpoint is kept."""
    batch_tokens: int = 16384
    """Tokens of a batch when test rows are scored, padding included."""
    num_resamples: int = 2000
    """Bootstrap resamples of an interval."""
    seed: int = 0
    """Seed of splits, caps, the bootstrap and the floor; weights and row order follow train.seed."""
    output_dir: Path | None = None
    """Folder to write: model, tokenizer, results.json, .md and .html, predictions.jsonl, training.json, loss.png, manifest.json."""


def run(config: Config) -> Path:
    """Train, test and save; return the folder. Under a launcher every process runs this, and the first one tests and writes."""
    if config.model is None or config.task is None or config.output_dir is None:
        raise ConfigError("model, task or output_dir is not given", "--model, --task FILE and --output_dir")
    for name in ("max_length", "batch_tokens", "num_resamples"):
        if getattr(config, name) < 1:
            raise ConfigError(f"{name} is {getattr(config, name)}", "at least 1", f"Raise --{name}")
    from llama_gene.models.task_heads import is_encoder

    if config.head != "sequence" or is_encoder(config.model):
        from llama_gene.recipes.classify_heads import run_head

        return run_head(config)
    from llama_gene.data.instructions import build_examples
    from llama_gene.data.tasks import load_task, read_task, set_caps
    from llama_gene.models.adapters import attach_lora, base_weights, trainable_share
    from llama_gene.models.heads import new_classifier, refuse_adapter
    from llama_gene.tokenization.tokenizer import load_tokenizer, vocabulary_fingerprint
    from llama_gene.training.classifier import train_classifier

    log = runtime.get_logger()
    runtime.check_output(config.output_dir, "classify")
    refuse_adapter(Path(config.model).expanduser())
    task = read_task(config.task)
    set_caps(task, config)
    tokenizer = load_tokenizer(config.model)
    if tokenizer.eos_token_id is None:
        raise InputError(f"the tokenizer of {config.model} has no end-of-text token", "one, to end a row", "Set eos_token in its config")
    table = load_task(task, config.data_dir or config.task.parent, config.seed)
    examples = build_examples(table, tokenizer, config.seed)
    labels = examples["test"][0]["labels"] if examples["test"] else []
    if not examples["train"] or not labels:
        lacking = "train rows" if examples["test"] and labels else "closed list of answers" if examples["test"] else "test rows"
        raise ConfigError(f"task '{task.name}' has no {lacking}", "train and test rows whose answers are a closed list", "Use another task")
    if config.lora.quantize != "none":
        raise ConfigError(f"lora.quantize is {config.lora.quantize}", "none: a classifier's body is held in full", "Leave it out")
    check_launch(config.train, None if config.full else config.lora)
    model: Any = new_classifier(config.model, tokenizer, labels, config.train.seed)
    if config.train.attention != "auto":
        model.set_attn_implementation(config.train.attention)
    limit = getattr(model.config, "max_position_embeddings", None) or config.max_length
    if config.max_length > limit:
        raise ConfigError(f"max_length is {config.max_length}", f"at most {limit}, the model's longest input", "Lower --max_length")

    encoded = {split: _encode(tokenizer, rows, config.max_length, split == "train" or config.shorten) for split, rows in examples.items()}
    counts = {split: _count(rows) for split, rows in encoded.items()}
    for split, count in counts.items():
        log.info("classify %s: %s rows, %s shortened, %s too long and left out", split, *(f"{number:,}" for number in count.values()))
    for split in ("train", "test"):
        if not counts[split]["rows"]:
            advice = "Raise --max_length or set --shorten true" if split == "test" else "Raise --max_length"
            raise InputError(f"no {split} row of task '{task.name}' fits {config.max_length} tokens", "rows that fit", advice)
    if not config.full:
        model = attach_lora(model, config.lora, config.train.seed)
    trainable, total = trainable_share(model)
    log.info("classify: %s of %s parameters train (%.1f %%)", f"{trainable:,}", f"{total:,}", 100 * trainable / total)
    facts = {
        "task": task.name,
        "labels": labels,
        "base": resolve_base(config.model),
        "vocabulary": vocabulary_fingerprint(tokenizer),
        "rows": counts,
        "simulated": task.simulated,
    }
    rows = {split: _labelled(examples[split], encoded[split], labels) for split in ("train", "dev")}
    settings = {key: value for key, value in vars(config).items() if key != "train"}
    stamps = [base_weights(str(config.model)), [[row.input_ids, row.label] for split in rows.values() for row in split]]
    identity = runtime.fingerprint([facts, settings, plan(config.train), config.train.save_steps, stamps])
    work_dir = config.output_dir.with_name(config.output_dir.name + ".work")
    is_ranked = task.family == "regression" and len(labels) > 2
    outcome, saved = train_classifier(model, rows["train"], rows["dev"], _dev_metric(is_ranked), config.train, work_dir, identity)
    if runtime.rank() != 0:
        return config.output_dir
    del model
    gc.collect()  # the training model's memory, before the kept one is read
    facts |= {"steps": outcome.steps, "chosen_step": outcome.chosen_step, "processes": runtime.world_size()}
    facts |= {"trainable_parameters": trainable, "parameters": total, "tokens": outcome.tokens}
    with runtime.whole_dir(config.output_dir) as folder:
        link_trained(saved, folder)
        _write_training(folder, tokenizer, outcome)
        runtime.write_manifest(folder, "classify", config, **facts)  # the model is read back from here
        answers = _answers(folder, encoded["test"], config)
        result, lines = judge_test(examples, _rows_of(encoded["test"]), answers, labels, table, config)
        words = write_report(folder, task, result, lines, outcome, config)
        runtime.write_manifest(folder, "classify", config, **facts, score=result["score"], interval=result["interval"])
    shutil.rmtree(work_dir)
    log.info("classify: written to %s\n\n%s", config.output_dir, words)
    return config.output_dir


def _encode(
    tokenizer: PreTrainedTokenizerFast, examples: Sequence[Example], max_length: int, may_shorten: bool
) -> list[EncodedPrompt | None]:
    """Return each example's row, None where it is too long."""
    from llama_gene.data.supervised import encode_sequences

    rows = [encode_sequences(tokenizer, example, max_length) for example in examples]
    return [row if row is not None and (may_shorten or row.num_shortened == 0) else None for row in rows]


def _count(rows: Sequence[EncodedPrompt | None]) -> dict[str, int]:
    """Return how many rows are there, how many of them were shortened, and how many were left out."""
    kept = [row for row in rows if row is not None]
    return {"rows": len(kept), "shortened": sum(row.num_shortened > 0 for row in kept), "rejected": len(rows) - len(kept)}


def _labelled(examples: Sequence[Example], rows: Sequence[EncodedPrompt | None], labels: Sequence[str]) -> list[Any]:
    """Return the rows that fit, with the numbers of their labels."""
    from llama_gene.training.classifier import LabelledRow

    column = {label: k for k, label in enumerate(labels)}
    pairs = zip(examples, rows, strict=True)
    return [LabelledRow(row.input_ids, column[example["output"]]) for example, row in pairs if row is not None]


def _dev_metric(is_ranked: bool) -> Any:
    """Return what dev is measured by: the task's own metric, on (label numbers, logits)."""
    from llama_gene.inference import metrics

    if is_ranked:
        return lambda truth, logits: metrics.spearman(truth, metrics.bin_expectation(logits))
    return lambda truth, logits: metrics.accuracy(truth, logits.argmax(1))


def _write_training(folder: Path, tokenizer: PreTrainedTokenizerFast, outcome: Any) -> None:
    """Write the tokenizer, the log of the training and its figure."""
    from llama_gene.models.heads import write_row_tokenizer
    from llama_gene.web.figures import plot_loss

    write_row_tokenizer(tokenizer, folder)
    runtime.write_json(folder / HISTORY_NAME, outcome.history)
    plot_loss(outcome.history, folder / "loss.png")


def _rows_of(encoded: Sequence[EncodedPrompt | None]) -> ScoredRows:
    """Return which rows fit, and what was cut off."""
    kept = [(i, row.num_shortened) for i, row in enumerate(encoded) if row is not None]
    return ScoredRows([i for i, _ in kept], [cut for _, cut in kept], [i for i, row in enumerate(encoded) if row is None])


def _answers(folder: Path, encoded: Sequence[EncodedPrompt | None], config: Config) -> NDArray[np.float64]:
    """Return the logits (N, K) of the rows that fit, by the model in `folder`."""
    from llama_gene.models.heads import classify_rows, load_classifier

    model, _ = load_classifier(folder)
    return classify_rows(model, [row.input_ids for row in encoded if row is not None], config.batch_tokens)
