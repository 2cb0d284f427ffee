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
from typing import TYPE_CHECKING, Any, Literal

from llama_gene import runtime
from llama_gene.errors import ConfigError, InputError
from llama_gene.models.settings import LoraSettings
from llama_gene.recipes.chat import prompt_template
from llama_gene.recipes.evaluate_checks import check_baselines, check_config, check_rows
from llama_gene.training.settings import TrainSettings

if TYPE_CHECKING:
    from llama_gene.data.ontology import Ontology
    from llama_gene.inference.endpoint import Endpoint

RESULTS_NAME, TABLE_NAME, FIGURE_NAME, PREDICTIONS_NAME = "results.json", "results.md", "results.png", "predictions.jsonl"
PAGE_NAME = "results.html"
BUILT_IN = ("gc", "kmer", "positional", "neighbour", "identity", "translation", "kmer_ridge", "positional_ridge", "mutations")


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
    """likelihood: the label with the highest log-likelihood; generate: a greedy answer matched to a label (free text, and several labels
    a row, always)."""
    label_score: Literal["sum", "mean"] = "sum"
    """A label's log-likelihood, or its mean over the label's tokens, which does not punish long labels."""
    calibrate: int = 0
    """Subtract from each label's score what the model gives it whatever is asked, measured on so many dev rows (batch calibration, Zhou et
    al. 2024) against the shares of the training rows; 0: do not. Test rows have no part in it."""
    both_strands: bool = False
    """Score DNA rows of tasks with `strand: either` on both strands and average; the share of rows whose answer agrees is reported."""
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
    baseline: list[str] = field(default_factory=lambda: list(BUILT_IN))
    """What is trained on the same training rows, beside the majority: built-in names, and folders or hub ids of Hugging Face encoders or
    causal models, which are probed frozen. What does not apply to a task says why. Empty: the majority alone."""
    lora_baseline: list[str] = field(default_factory=list)
    """Folders or hub ids of Hugging Face encoders or causal models that are tuned by LoRA under a head on the same training rows, dev
    choosing the checkpoint; each with baseline_seeds seeds, of which the table gives mean and deviation."""
    baseline_seeds: int = 3
    """Trainings of each lora_baseline, 3 or more: seeds baseline_train.seed, the next, and so on."""
    baseline_train: TrainSettings = field(
        default_factory=lambda: TrainSettings(
            epochs=3.0, batch_size=32, learning_rate=5e-4, warmup_share=0.1, scheduler="linear", report_to=[]
        )
    )
    """How each lora_baseline is trained."""
    baseline_lora: LoraSettings = field(default_factory=lambda: LoraSettings(target_modules=[], modules_to_save=[]))
    """Adapter of each lora_baseline; target_modules []: every linear layer of the body. The head trains whole."""
    control: bool = False
    """Train the built-in baselines (without those of one threshold) on labels shuffled three times, too: they must sit at the majority, or
    the evaluation leaks."""
    go_obo: Path | None = None
    """The Gene Ontology (go.obo, https://geneontology.org/docs/download-ontology): tasks of GO terms then get F-max and S-min for each
    ontology, terms propagated to those above, beside the frequency of a term and every baseline."""
    num_resamples: int = 2000
    """Bootstrap resamples of an interval."""
    seed: int = 0
    """Seed of the bootstrap, of the floor and of the choice of documents."""
    evidence: Path | None = None
    """Folder written by `llama-gene index`: the nearest annotated sequences of each row stand in its prompt, as many as fit."""
    evidence_max_identity: float = 1.0
    """Records with an alignment above this share of equal letters are passed over, so that no row is answered by its own copy."""
    evidence_hits: int = 3
    """At most so many neighbours a sequence."""
    table: str | None = None
    """Print a paper's table with our column beside the published ones: llama_gene, dnahlm, or a YAML file (see launch/configs/tables). With
    scorer generate, answers are judged strictly and as the authors' script did."""
    endpoint: str | None = None
    """Address of an OpenAI-compatible server (http://127.0.0.1:8000/v1) to ask instead of loading a model; `model` is its name there."""
    endpoint_key: str | None = None
    """Environment variable that holds the server's key."""
    english: list[str] = field(default_factory=list)
    """Tasks of lm-evaluation-harness (extra `harness`), asked of base and model: is English kept? Names of tasks, groups or tags."""
    english_include: Path | None = None
    """Folder with task files of your own, for `english`."""
    english_limit: int | None = None
    """Ask only the first questions of each English task."""
    english_shots: int | None = None
    """Examples in front of each English question, where the task leaves it open; unset: the task's own number."""
    english_batch: int = 8
    """English questions of a batch."""
    english_download: bool = False
    """Let English tasks download their data; without it only local files and, with HF_HUB_OFFLINE=1, the local cache are read."""
    output_dir: Path | None = None
    """Folder to write: results.json, results.md, results.html, results.png, predictions.jsonl, manifest.json."""


def run(config: Config) -> dict[str, Any]:
    """Evaluate, write the folder and return what results.json holds."""
    check_config(config)
    assert config.model is not None and config.output_dir is not None
    paper_table = _paper_table(config)
    endpoint = _endpoint(config)
    english = _measure_english(config)
    examples = _read_instructions(config)
    if config.both_strands and not any(splits[config.split][0].get("strand") == "either" for splits in examples.values()):
        raise ConfigError("both_strands: no task has strand either", "tasks whose answer no strand changes", "Leave --both_strands out")
    ontology = _read_ontology(config, examples)
    documents = _read_documents(config)
    check_baselines(config)
    template = prompt_template(str(config.model), config.template)

    from llama_gene.models.adapters import load_model
    from llama_gene.recipes.evaluate_evidence import add_evidence
    from llama_gene.recipes.evaluate_tasks import Asked, evaluate_task
    from llama_gene.web.figures import plot_results
    from llama_gene.web.results_page import results_page

    log = runtime.get_logger()
    start = time.monotonic()
    languages: dict[str, dict[str, Any]] = {name: {"kind": kind, "documents": len(texts)} for name, (kind, texts) in documents.items()}
    if config.base is not None and documents:
        log.info("evaluate: bits per letter before, %s", config.base)
        _measure_languages(languages, documents, "before", *load_model(config.base), config)
    model, tokenizer = (None, None) if endpoint is not None else load_model(config.model)
    asked = Asked(config, template, model, tokenizer, endpoint, ontology)
    evidence = add_evidence(examples, config.evidence, config.evidence_max_identity, config.evidence_hits, asked)
    results, predictions = [], []
    for name, splits in examples.items():
        log.info("evaluate: %s, %s rows", name, f"{len(splits[config.split]):,}")
        result, rows = evaluate_task(name, splits, asked)
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
        "endpoint": endpoint.describe() if endpoint is not None else None,
        "split": config.split,
        "seed": config.seed,
        "simulated": _is_simulated(config),
        "evidence": evidence,
        "tasks": results,
        "languages": languages,
        "english": english,
        "paper_table": None if paper_table is None else _render_paper_table(paper_table, results, config.scorer),
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
    from llama_gene.web import results_table as tables

    parts = [f"Model `{report['model']}`, template `{report['template']}`, scorer `{report['scorer']}`, split `{report['split']}`."]
    if report["simulated"]:
        parts.append("**The data is simulated**: scores say that the route works, nothing about real genes.")
    if report.get("evidence"):
        from llama_gene.recipes.evaluate_evidence import render_evidence

        parts.append(render_evidence(report["evidence"]))
    if report["tasks"]:
        of_tasks = (
            tables.results_table,
            tables.baselines_table,
            tables.not_run_table,
            tables.subsets_table,
            tables.ontologies_table,
            tables.controls_table,
        )
        parts += [text.rstrip("\n") for make in of_tasks if (text := make(report["tasks"]))]
        parts += tables.remarks(report["tasks"])
    if report["paper_table"]:
        parts.append(report["paper_table"].rstrip("\n"))
    if report["languages"]:
        lines = ["| language | unit | held-out letters | bits before | bits after |", "| --- | --- | ---: | ---: | ---: |"]
        for name, facts in report["languages"].items():
            before = f"{facts['before']['bits_per_letter']:.3f}" if "before" in facts else "-"
            lines.append(
                f"| {name} | {facts['unit']} | {facts['after']['letters']:,} | {before} | {facts['after']['bits_per_letter']:.3f} |"
            )
        parts.append("\n".join(lines))
    if report["english"]:
        from llama_gene.inference.harness import render_english

        parts.append(render_english(report["english"]).rstrip("\n"))
    return "\n\n".join(parts) + "\n"


# --- reading ---------------------------------------------------------------------------------------------------------------------


def _read_instructions(config: Config) -> dict[str, dict[str, Any]]:
    """Return {task: {"facts": of the manifest, "train": rows, config.split: rows}} of the tasks asked for."""
    if config.instructions is None:
        return {}
    from llama_gene.data.instructions import read_examples

    known: dict[str, Any] = runtime.read_manifest(config.instructions, "instruct")["tasks"]
    for name in config.tasks:
        if name not in known:
            raise ConfigError(f"there is no task '{name}' in {config.instructions}", f"one of {', '.join(known)}", "Check --tasks")
    wanted: list[str] = [config.split]
    wanted += ["train"] if config.baseline or config.lora_baseline or config.calibrate or config.control or config.go_obo else []
    wanted += ["dev"] if config.split != "dev" else []  # thresholds, calibration, what a probe chooses
    chosen: dict[str, dict[str, Any]] = {
        name: {"facts": known[name], "train": [], "dev": [], config.split: []} for name in config.tasks or known
    }
    for split in wanted:
        for example in read_examples(config.instructions / f"{split}.jsonl"):
            if example["task"] in chosen:
                chosen[example["task"]][split].append(example)
    for name, splits in chosen.items():
        if not splits[config.split]:
            raise InputError(
                f"task '{name}' has no {config.split} row in {config.instructions}", "held-out rows", "Leave it out with --tasks"
            )
        check_rows(name, splits, bool(config.baseline or config.lora_baseline))
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


def _read_ontology(config: Config, examples: Mapping[str, Mapping[str, Any]]) -> Ontology | None:
    """Return the ontology that is named, None where none is. Raises ConfigError where no task is one of GO terms."""
    if config.go_obo is None:
        return None
    from llama_gene.data.ontology import read_obo
    from llama_gene.inference.go_judging import go_ids

    ontology = read_obo(config.go_obo)
    if not any(go_ids(splits[config.split]) for splits in examples.values()):
        raise ConfigError(
            "go_obo: no task has rows with several labels that name GO ids", "a task such as yeast_go_slim", "Leave --go_obo out"
        )
    return ontology


def _is_simulated(config: Config) -> bool:
    """Return whether a folder that the numbers come from says that its data is simulated."""
    manifests = [runtime.read_manifest(folder) for folder in (config.instructions, config.corpus) if folder is not None]
    return any(facts.get("simulated") for manifest in manifests for facts in (manifest, *manifest.get("tasks", {}).values()))


# --- other ways to ask, and the papers' tables -------------------------------------------------------------------------------------


def _endpoint(config: Config) -> Endpoint | None:
    """Return the server that is asked instead of a model here. Raises ConfigError for what only a model here can do."""
    if config.endpoint is None:
        if config.endpoint_key is not None:
            raise ConfigError("endpoint_key without an endpoint", "--endpoint URL", "Add it, or leave the key out")
        return None
    from llama_gene.inference.endpoint import Endpoint

    for flag, is_set in (("corpus", config.corpus is not None), ("english", bool(config.english)), ("both_strands", config.both_strands)):
        if is_set:
            raise ConfigError(f"{flag} with an endpoint", "a model that is loaded here", f"Leave --{flag} out")
    return Endpoint(config.endpoint, str(config.model), config.endpoint_key)


def _paper_table(config: Config) -> Any:
    """Return the paper's table that is asked for, by its name or file; None where none is."""
    if config.table is None:
        return None
    from llama_gene.data.paper_tables import read_paper_table

    shipped = Path(__file__).resolve().parents[2] / "launch" / "configs" / "tables" / f"{config.table}.yaml"
    return read_paper_table(shipped if shipped.is_file() else Path(config.table))


def _render_paper_table(table: Any, results: Sequence[Mapping[str, Any]], scorer: str) -> str:
    """Return the paper's table in Markdown, accuracy of ours beside the published one."""
    from llama_gene.data.paper_tables import OurValue, render_table

    ours: dict[str, dict[str, OurValue]] = {}
    column = "ours, strict" if scorer == "generate" else "ours, label likelihood"
    for result in results:
        halves = result.get("low_high")
        if halves is not None:  # the papers' regressions are low or high
            value = OurValue(None, note=halves["reason"]) if halves["reason"] else _our_value(halves["accuracy"], halves["interval"])
        else:
            key = next(key for key in ("accuracy", "micro_f1", "exact_match") if result.get(key) is not None)
            value = _our_value(result[key], (result.get("intervals") or {}).get(key))
        ours[result["task"]] = {column: value}
        if paper := result.get("paper_scorer"):
            ours[result["task"]]["ours, paper scorer"] = _our_value(paper["score"], paper["interval"])
    return render_table(table, ours)


def _our_value(value: float, edges: Sequence[float] | None) -> Any:
    from llama_gene.data.paper_tables import OurValue

    return OurValue(value, None if edges is None else (edges[0], edges[1]))


# --- English ---------------------------------------------------------------------------------------------------------------------


def _measure_english(config: Config) -> dict[str, Any] | None:
    """Return the harness's results on base (if one is given) and model; None where no English task is asked for."""
    if not config.english:
        return None
    from llama_gene.inference.harness import english_results

    return english_results(
        config.base,
        config.model,
        config.english,
        config.english_include,
        config.english_limit,
        config.english_shots,
        config.english_batch,
        download=config.english_download,
        seed=config.seed,
    )


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
