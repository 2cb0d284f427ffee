"""Stage 7, evaluate: model + held-out instructions -> a table with intervals, beside what it must beat.

For each task: predictions (by label likelihood, or by generation and a semantic match), its metrics with 95 % intervals, beside the
baselines that were trained on the task's training rows, and the simulator's ceiling where there is one. For each language of a
corpus: bits per letter of held-out documents, before (the base, with its own tokenizer) and after.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from llama_gene import runtime
from llama_gene.errors import ConfigError, InputError, MismatchError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llama_gene.data.instructions import Example

RESULTS_NAME, TABLE_NAME, FIGURE_NAME, PREDICTIONS_NAME = "results.json", "results.md", "results.png", "predictions.jsonl"
PAGE_NAME = "results.html"
FLOOR_NAME = "k-mer floor"


@dataclass
class Config:
    """Stage 7: evaluation."""

    model: str | None = None
    """Adapter folder of ours, any Hugging Face causal model folder, or a hub id."""
    instructions: Path | None = None
    """Folder written by `llama-gene instruct`; unset: no tasks, only bits per letter."""
    corpus: Path | None = None
    """Folder written by `llama-gene corpus`, for bits per letter of its held-out documents; unset: none."""
    base: str | None = None
    """Model to measure bits per letter "before" with, by its own tokenizer; unset: only "after"."""
    tasks: list[str] = field(default_factory=list)
    """Names of the tasks to evaluate; empty: all."""
    split: Literal["test", "dev"] = "test"
    """Rows to evaluate on; choose settings on dev only."""
    scorer: Literal["likelihood", "generate"] = "likelihood"
    """likelihood: the label with the highest log-likelihood; generate: a greedy answer matched to a label (free text always)."""
    template: str | None = None
    """Prompt template; unset: the one that the model was tuned with (alpaca if it says nothing)."""
    shorten: bool = False
    """Shorten the sequences of over-long prompts instead of rejecting the row; the share is written into the table."""
    max_length: int = 1024
    """Longest prompt with its answer, in tokens (at most the model's context)."""
    max_new_tokens: int = 32
    """Longest generated answer, in tokens."""
    batch_tokens: int = 16384
    """Tokens of a batch, padding included."""
    max_documents: int = 100
    """At most this many held-out documents of a language, drawn with the seed."""
    baselines: bool = True
    """Train the k-mer floor and count the majority on the training rows."""
    control: bool = False
    """Train the k-mer floor on shuffled labels, too: it must sit at the majority, or the evaluation leaks."""
    num_resamples: int = 2000
    """Bootstrap resamples of an interval."""
    seed: int = 0
    """Seed of the bootstrap, of the floor and of the choice of documents."""
    output_dir: Path | None = None
    """Folder to write: results.json, results.md, results.html, results.png, predictions.jsonl, manifest.json."""


def run(config: Config) -> dict[str, Any]:
    """Evaluate, write the folder and return what results.json holds."""
    if config.model is None or config.output_dir is None:
        raise ConfigError("model or output_dir is not given", "--model and --output_dir")
    if config.instructions is None and config.corpus is None:
        raise ConfigError("neither instructions nor corpus is given", "--instructions FOLDER, --corpus FOLDER or both")
    examples = _read_instructions(config)
    documents = _read_documents(config)

    from llama_gene.models.adapters import load_model
    from llama_gene.web.figures import plot_results
    from llama_gene.web.results_page import results_page

    log = runtime.get_logger()
    start = time.monotonic()
    languages: dict[str, dict[str, Any]] = {name: {"kind": kind, "documents": len(texts)} for name, (kind, texts) in documents.items()}
    if config.base is not None and documents:
        log.info("evaluate: bits per letter before, %s", config.base)
        _measure_languages(languages, documents, "before", *load_model(config.base), config)
    model, tokenizer = load_model(config.model)
    template = _template(config)
    results, predictions = [], []
    for name, splits in examples.items():
        log.info("evaluate: %s, %s rows", name, f"{len(splits[config.split]):,}")
        result, rows = _evaluate_task(name, splits, model, tokenizer, template, config)
        results.append(result)
        predictions += rows
    if documents:
        log.info("evaluate: bits per letter, %s", config.model)
        _measure_languages(languages, documents, "after", model, tokenizer, config)
    report = {
        "model": config.model,
        "base": config.base,
        "template": template,
        "scorer": config.scorer,
        "split": config.split,
        "seed": config.seed,
        "simulated": _is_simulated(config),
        "tasks": results,
        "languages": languages,
        "seconds": round(time.monotonic() - start, 1),
    }
    with runtime.whole_dir(config.output_dir) as folder:
        runtime.write_json(folder / RESULTS_NAME, report)
        runtime.write_text(folder / TABLE_NAME, render_report(report))
        runtime.write_text(folder / PAGE_NAME, results_page(report))
        if results:
            plot_results(results, folder / FIGURE_NAME, "simulated data" if report["simulated"] else "")
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in predictions)
            runtime.write_text(folder / PREDICTIONS_NAME, lines)
        runtime.write_manifest(folder, "evaluate", config, template=template, tasks=len(results), predictions=len(predictions))
    log.info("evaluate: written to %s\n\n%s", config.output_dir, render_report(report))
    return report


def render_report(report: Mapping[str, Any]) -> str:
    """Return results.md: what was evaluated and how, the tables of tasks, of baselines and subsets, the table of languages."""
    from llama_gene.web.results_table import baselines_table, remarks, results_table, subsets_table

    parts = [f"Model `{report['model']}`, template `{report['template']}`, scorer `{report['scorer']}`, split `{report['split']}`."]
    if report["simulated"]:
        parts.append("**The data is simulated**: scores say that the route works, nothing about real genes.")
    if report["tasks"]:
        tables = [make(report["tasks"]) for make in (results_table, baselines_table, subsets_table)]
        parts += [table.rstrip("\n") for table in tables if table]
        parts += remarks(report["tasks"])
    if report["languages"]:
        lines = ["| language | unit | held-out letters | bits before | bits after |", "| --- | --- | ---: | ---: | ---: |"]
        for name, facts in report["languages"].items():
            before = f"{facts['before']['bits_per_letter']:.3f}" if "before" in facts else "-"
            lines.append(
                f"| {name} | {facts['unit']} | {facts['after']['letters']:,} | {before} | {facts['after']['bits_per_letter']:.3f} |"
            )
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


# --- reading ---------------------------------------------------------------------------------------------------------------------


def _read_instructions(config: Config) -> dict[str, dict[str, Any]]:
    """Return {task: {"facts": of the manifest, "train": rows, "dev": rows, config.split: rows}} of the tasks asked for."""
    if config.instructions is None:
        return {}
    from llama_gene.data.instructions import read_examples

    known: dict[str, Any] = runtime.read_manifest(config.instructions, "instruct")["tasks"]
    for name in config.tasks:
        if name not in known:
            raise ConfigError(f"there is no task '{name}' in {config.instructions}", f"one of {', '.join(known)}", "Check --tasks")
    chosen: dict[str, dict[str, Any]] = {
        name: {"facts": known[name], "train": [], "dev": [], config.split: []} for name in config.tasks or known
    }
    for split in dict.fromkeys(["train"] * config.baselines + ["dev", config.split]):  # dev fixes thresholds of tasks with several labels
        path = config.instructions / f"{split}.jsonl"
        if split == "dev" != config.split and not path.is_file():
            continue
        for example in read_examples(path):
            if example["task"] in chosen:
                chosen[example["task"]][split].append(example)
    for name, splits in chosen.items():
        if not splits[config.split]:
            raise InputError(
                f"task '{name}' has no {config.split} row in {config.instructions}", "held-out rows", "Leave it out with --tasks"
            )
    return chosen


def _read_documents(config: Config) -> dict[str, tuple[str, list[str]]]:
    """Return {language: (kind, held-out documents)}, a seeded choice of at most max_documents; languages without any are left out."""
    if config.corpus is None:
        return {}
    import random

    from llama_gene.data.corpus import read_corpus

    documents = {}
    for language, facts in runtime.read_manifest(config.corpus, "corpus")["languages"].items():
        if not facts["documents"].get("valid"):
            runtime.get_logger().warning("evaluate: no held-out document of %s, no bits per letter", language)
            continue
        texts = [text for _, text in read_corpus(config.corpus, language, "valid")]
        if len(texts) > config.max_documents:
            chosen = random.Random(f"{config.seed}/{language}").sample(range(len(texts)), config.max_documents)
            texts = [texts[i] for i in sorted(chosen)]
        documents[language] = (facts["kind"], texts)
    return documents


def _template(config: Config) -> str:
    """Return the name of the prompt template: as asked for, else the model's own. Another than the model's own is said aloud.

    Raises MismatchError when the model was tuned with another text under that name and no template is asked for.
    """
    from llama_gene.data.prompts import prompt_fingerprint

    manifest = Path(str(config.model)) / runtime.MANIFEST_NAME
    facts = runtime.read_json(manifest) if manifest.is_file() else {}
    name: str = config.template or facts.get("template") or "alpaca"
    if facts.get("prompt") not in (None, prompt_fingerprint(name)):
        if config.template is None:
            raise MismatchError(
                f"{config.model} was tuned with prompt {facts['prompt']}",
                f"{prompt_fingerprint(name)}, template '{name}' of this version",
                "Evaluate with the version that tuned it, or name a template to ask it with another prompt",
            )
        runtime.get_logger().warning("evaluate: template '%s' is not the prompt that %s was tuned with", name, config.model)
    return name


def _is_simulated(config: Config) -> bool:
    """Return whether a folder that the numbers come from says that its data is simulated."""
    manifests = [runtime.read_manifest(folder) for folder in (config.instructions, config.corpus) if folder is not None]
    return any(facts.get("simulated") for manifest in manifests for facts in (manifest, *manifest.get("tasks", {}).values()))


# --- languages -------------------------------------------------------------------------------------------------------------------


def _measure_languages(
    languages: dict[str, dict[str, Any]],
    documents: Mapping[str, tuple[str, list[str]]],
    when: str,
    model: Any,
    tokenizer: Any,
    config: Config,
) -> None:
    """Add bits per letter of each language under the name `when`."""
    from llama_gene.inference.perplexity import bits_per_letter
    from llama_gene.inference.scoring import context_length
    from llama_gene.sequences.sources import ENGLISH

    limit = min(config.max_length, context_length(model) or config.max_length)
    names = {"dna": "base", "rna": "base", "protein": "residue"}
    for name, (kind, texts) in documents.items():
        unit: Literal["letter", "byte"] = "byte" if kind == ENGLISH else "letter"
        languages[name]["unit"] = "byte" if unit == "byte" else names.get(kind, "letter")
        languages[name][when] = bits_per_letter(model, tokenizer, texts, limit, config.batch_tokens, unit, progress=runtime.rank() == 0)


# --- tasks -----------------------------------------------------------------------------------------------------------------------


def _evaluate_task(
    name: str, splits: Mapping[str, Any], model: Any, tokenizer: Any, template: str, config: Config
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the result of one task and a line for predictions.jsonl for each of its rows, rejected ones included."""
    rows: list[Any] = splits[config.split]
    labels: list[str] = rows[0]["labels"]
    if any(row["labels"] != labels for row in rows):
        raise InputError(f"rows of task '{name}' have different lists of labels", "one list a task", "Write the instructions again")
    facts: dict[str, Any] = splits["facts"]
    common = {"task": name, "family": rows[0]["family"], "title": facts.get("title", name), "published": facts.get("published") or None}
    prompts, shortened = _encode_rows(rows, labels, model, tokenizer, template, config)
    kept = [i for i, prompt in enumerate(prompts) if prompt is not None]
    counts = {"n": len(kept), "rejected": len(rows) - len(kept), "shortened": sum(shortened[i] > 0 for i in kept)}
    if not kept:
        raise InputError(
            f"all {len(rows)} {config.split} prompts of task '{name}' are too long for {config.max_length} tokens or the model",
            "prompts that fit",
            "Raise --max_length or set --shorten true",
        )
    kept_rows, kept_prompts = [rows[i] for i in kept], [prompts[i] for i in kept]
    if labels:
        measured, answers = _closed_task(kept_rows, kept_prompts, labels, splits, model, tokenizer, template, config)
    else:
        measured, answers = _free_text_task(kept_rows, kept_prompts, splits["train"], model, tokenizer, config)
    lines: list[dict[str, Any]] = [
        {"task": name, "row": i, "output": row["output"], "rejected": "prompt too long"} for i, row in enumerate(rows) if prompts[i] is None
    ]
    lines += [
        {"task": name, "row": i, **truth_of(rows[i]), **answer, "letters_cut": shortened[i]}
        for i, answer in zip(kept, answers, strict=True)
    ]
    return {**common, **counts, **measured}, sorted(lines, key=lambda line: int(line["row"]))


def truth_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what predictions.jsonl says of a row's truth: `compare` needs no more; shared with `classify`."""
    optional = {key: row[key] for key in ("group", "value", "answers") if row.get(key) not in (None, "", [])}
    return {"output": row["output"], **optional}


def _encode_rows(
    rows: Sequence[Any], labels: Sequence[str], model: Any, tokenizer: Any, template: str, config: Config
) -> tuple[list[list[int] | None], list[int]]:
    """Return each row's prompt ids, None where it is too long, and how many letters were cut off its sequences.

    The room kept for the answer is the same for all rows of a task: it must not depend on the right answer.
    """
    from llama_gene.data.prompts import encode_answer
    from llama_gene.data.supervised import encode_for_evaluation
    from llama_gene.inference.scoring import context_length

    limit = min(config.max_length, context_length(model) or config.max_length)
    by_likelihood = bool(labels) and config.scorer == "likelihood"
    room = max(len(encode_answer(tokenizer, label, template)) for label in labels) if by_likelihood else config.max_new_tokens
    prompts: list[list[int] | None] = []
    num_cut = []
    for row in rows:
        # An empty answer is one token, EOS; limit - room + 1 keeps exactly `room` tokens free.
        question = cast("Example", {**row, "output": "", "labels": []})
        encoded = encode_for_evaluation(tokenizer, question, limit - room + 1, template, config.shorten)
        prompts.append(None if encoded is None else encoded.input_ids)
        num_cut.append(0 if encoded is None else encoded.num_shortened)
    return prompts, num_cut


def _closed_task(
    rows: Sequence[Any],
    prompts: Sequence[Any],
    labels: list[str],
    splits: Mapping[str, Any],
    model: Any,
    tokenizer: Any,
    template: str,
    config: Config,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Evaluate a task with a closed list of labels, one a row or several."""
    from llama_gene.inference.judging import TaskFacts, chosen_labels, judge

    has_several = any(row.get("answers") for row in rows)
    answers, lines = _answer_closed(prompts, labels, has_several, model, tokenizer, template, config)
    dev = None
    if has_several and config.scorer == "likelihood" and config.split != "dev" and splits["dev"]:
        dev_prompts, _ = _encode_rows(splits["dev"], labels, model, tokenizer, template, config)
        kept = [i for i, prompt in enumerate(dev_prompts) if prompt is not None]
        scores, _ = _answer_closed([dev_prompts[i] for i in kept], labels, has_several, model, tokenizer, template, config)
        dev = ([splits["dev"][i] for i in kept], scores) if kept else None
    facts, train_rows = TaskFacts.of(splits["facts"]), splits["train"]
    baselines = closed_baselines(rows, labels, train_rows, config.seed)
    result = judge(rows, labels, answers, train_rows, baselines, facts, dev, *_bootstrap(config))
    if has_several:
        for line, given in zip(lines, chosen_labels(answers, labels, result["thresholds"]), strict=True):
            line |= {"answer": ", ".join(given), "chosen": given}
        result["off_list"] = sum(line.get("unknown", 0) > 0 for line in lines)
    if config.scorer == "generate":
        result["paper_scorer"] = _paper_scorer(rows, [line["text"] for line in lines], config)
    if config.control and train_rows:
        result["control"] = _control(rows, labels, train_rows, facts, config)
    return result, lines


def closed_baselines(rows: Sequence[Any], labels: list[str], train_rows: Sequence[Any], seed: int) -> dict[str, NDArray[np.float64]]:
    """Return the answers of each baseline that can be trained on the training rows; shared with `classify`.

    The floor knows one label a row, so a task with several has none.
    """
    from llama_gene.inference.benchmark import kmer_floor

    if any(row.get("answers") for row in rows):
        return {}
    floor = kmer_floor(train_rows, rows, rows[0]["kinds"], rows[0]["family"], labels, seed)
    return {} if floor is None else {FLOOR_NAME: floor}


def _control(rows: Sequence[Any], labels: list[str], train_rows: Sequence[Any], facts: Any, config: Config) -> dict[str, Any] | None:
    """Return how the k-mer floor does when its training labels are shuffled: it must sit at the majority."""
    from llama_gene.inference.judging import judge_control, shuffled_labels

    floor = closed_baselines(rows, labels, shuffled_labels(train_rows, config.seed), config.seed).get(FLOOR_NAME)
    if floor is None:
        return None
    control = judge_control(rows, labels, floor, train_rows, facts, *_bootstrap(config))
    if not control["sits"]:
        runtime.get_logger().warning("evaluate: task '%s', trained on shuffled labels: %s", rows[0]["task"], control["reason"])
    return control


def _paper_scorer(rows: Sequence[Any], texts: Sequence[str], config: Config) -> dict[str, Any]:
    """Return the share of answers that the authors' scorer counts as right, with its interval."""
    from llama_gene.inference import intervals
    from llama_gene.inference.metrics import paper_match

    right = intervals.share([paper_match(text, row["output"]) for row, text in zip(rows, texts, strict=True)])
    edges = intervals.interval(right, [row["group"] or f"row {i}" for i, row in enumerate(rows)], *_bootstrap(config))
    return {"score": right.value(), "interval": None if edges is None else list(edges)}


def _bootstrap(config: Config) -> tuple[int, int]:
    return config.seed, config.num_resamples


def _answer_closed(
    prompts: Sequence[Any], labels: list[str], has_several: bool, model: Any, tokenizer: Any, template: str, config: Config
) -> tuple[NDArray[Any], list[dict[str, Any]]]:
    """Return the answers to the prompts of one task (scores of labels, label numbers, yes and no of labels) and a record of each."""
    import numpy as np

    from llama_gene.data.prompts import encode_answer
    from llama_gene.inference import metrics
    from llama_gene.inference.generate import generate_answers
    from llama_gene.inference.scoring import score_labels

    show = runtime.rank() == 0
    if config.scorer == "likelihood":
        label_ids = [encode_answer(tokenizer, label, template) for label in labels]
        scores = score_labels(model, prompts, label_ids, config.batch_tokens, vocab_size=len(tokenizer), progress=show)
        answers: list[dict[str, Any]] = [
            {"answer": labels[k], "log_likelihood": {label: round(float(value), 6) for label, value in zip(labels, values, strict=True)}}
            for k, values in zip(scores.argmax(1), scores, strict=True)
        ]
        return scores, answers
    texts = generate_answers(model, tokenizer, prompts, config.max_new_tokens, config.batch_tokens, progress=show)
    if has_several:
        lists = [metrics.semantic_matches(text, labels) for text in texts]
        given = np.array([[label in found for label in labels] for found, _ in lists])
        return given, [{"answer": "", "text": text, "unknown": unknown} for text, (_, unknown) in zip(texts, lists, strict=True)]
    matches = [metrics.semantic_match(text, labels) for text in texts]
    predicted = np.array([metrics.OFF_LIST if match is None else labels.index(match) for match in matches])
    return predicted, [{"answer": match, "text": text} for match, text in zip(matches, texts, strict=True)]


def _free_text_task(
    rows: Sequence[Any], prompts: Sequence[Any], train_rows: Sequence[Any], model: Any, tokenizer: Any, config: Config
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Evaluate a task whose answer is free text."""
    from llama_gene.inference.generate import generate_answers
    from llama_gene.inference.judging import judge_text

    texts = generate_answers(model, tokenizer, prompts, config.max_new_tokens, config.batch_tokens, progress=runtime.rank() == 0)
    classes = sorted({row["output"] for row in train_rows})
    found = closed_baselines(rows, classes, train_rows, config.seed) if classes else {}
    baselines = {name: [classes[k] for k in chances.argmax(1)] for name, chances in found.items()}
    result = judge_text(rows, texts, train_rows, baselines, *_bootstrap(config))
    return result, [{"answer": text, "text": text} for text in texts]
