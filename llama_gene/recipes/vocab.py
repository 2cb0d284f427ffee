"""Stage 2, vocab: documents -> gene pieces -> a tokenizer spliced behind the base's -> report.

`vocab --config` trains, splices and measures in one go; `vocab train`, `vocab splice` and `vocab report` are the same three by themselves,
and their flags are the keys here. Three uses, one config: `base` with `steps` splices (DNA first, then protein, each step learned behind
the one before); no base with `base_inputs` trains a new base tokenizer, with or without steps behind it; `method: unified` trains
DNAHLM's one dictionary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from llama_gene import runtime
from llama_gene.errors import ConfigError
from llama_gene.recipes import vocab_report, vocab_splice, vocab_train
from llama_gene.recipes.vocab_train import Step as Step

if TYPE_CHECKING:
    from llama_gene.tokenization.bpe import Vocabulary

BASE_NAME = "base.model"  # a SentencePiece base trained here stays beside what was spliced behind it


@dataclass
class Config:
    """Stage 2: the tokenizer. Also by parts: vocab train, vocab splice, vocab report (each with its own --help)."""

    base: str | None = None
    """Base to splice behind: a tokenizer.model (SentencePiece or tiktoken), a tokenizer or model folder, or a hub id; unset: train one."""
    method: Literal["continued", "unified"] = "continued"
    """continued: learn pieces on the base's own segmentation; unified: DNAHLM's one byte-level dictionary of base_inputs, no steps."""
    base_size: int = 2000
    """Ids of a base that is trained here."""
    base_inputs: list[str] = field(default_factory=list)
    """Text (.txt, .jsonl, .json) that a new base is trained on; for unified also FASTA and FASTQ of DNA."""
    steps: list[Step] = field(default_factory=list)
    """What to train and splice, in this order."""
    isolate: bool = False
    """Cut gene runs out of their surroundings first, so that a gene is encoded the same wherever it stands (not for SentencePiece)."""
    dna: list[str] = field(default_factory=list)
    """Held-out DNA that the reports measure."""
    protein: list[str] = field(default_factory=list)
    """Held-out proteins that the reports measure."""
    english: list[str] = field(default_factory=list)
    """Held-out English in which the reports count changed lines and tokens."""
    code: list[str] = field(default_factory=list)
    """Held-out program code, counted like English."""
    alphabets: Path | None = None
    """YAML file of further alphabets (name, letters, and for letters with ids of their own a namespace)."""
    template: str = "alpaca"
    """Prompt template that becomes the tokenizer's chat template."""
    data_dir: Path | None = None
    """Folder in which inputs that are not in the current folder are looked up (LLAMA_GENE_DATA if unset)."""
    seed: int = 0
    """Seed of the max_letters samples."""
    out: Path | None = None
    """Folder to write: tokenizer.json, tokenizer_config.json, tokenizer.model, chat_template.jinja, the reports, manifest.json."""


def run(config: Config) -> Path:
    """Write the tokenizer folder; return it. Nothing is written unless every step succeeds."""
    vocab_train.load(config.alphabets)
    _check(config)
    _check_files(config)
    assert config.out is not None
    from llama_gene.tokenization.inputs import file_hashes, find_base, find_paths
    from llama_gene.tokenization.report import report
    from llama_gene.tokenization.tokenizer import open_vocabulary

    texts = vocab_report.held_out(config)
    with runtime.whole_dir(config.out) as folder:
        source = find_base(config.base, config.data_dir) if config.base is not None else None
        base = open_vocabulary(source) if source is not None else _train_base(config, folder)
        vocabulary, steps = (base.isolated() if config.isolate else base), vocab_train.earlier_steps(source)
        for number, step in enumerate(config.steps, start=1):
            before = vocabulary
            pieces, _, facts = vocab_train.learn(vocabulary, step, [done["kind"] for done in steps], config.data_dir, config.seed)
            vocabulary, facts = vocab_splice.append_step(vocabulary, pieces, facts)
            steps.append(facts)
            vocab_splice.log_report(vocab_splice.report_step(folder, number, step.kind, before, vocabulary, steps, **texts))
        facts = {
            "base_path": config.base,
            "isolate": config.isolate,
            "base_inputs": file_hashes(find_paths(config.base_inputs, config.data_dir)),
        }
        vocab_splice.write_folder(folder, config, base, vocabulary, steps, config.template, **facts)
        if config.steps:
            numbers = report(folder, source or folder / BASE_NAME, **texts)
            vocab_splice.write_lasting(numbers, folder / "report.json")
            vocab_splice.log_report(numbers)
    runtime.get_logger().info("vocab: %s %s ids in %s", f"{vocabulary.num_ids:,}", vocabulary.kind, config.out)
    return config.out


def _check(config: Config) -> None:
    """Raise ConfigError for values that are missing or contradict each other, before any work."""
    if config.out is None:
        raise ConfigError("no out is given", "--out FOLDER")
    if config.base is None and not config.base_inputs:
        raise ConfigError("neither base nor base_inputs is given", "--base TOKENIZER, or --base_inputs FILES to train one")
    if config.base is not None and config.base_inputs:
        raise ConfigError("base and base_inputs are both given", "one of them", "Leave base_inputs out to splice behind the base")
    if config.base is not None and (config.method == "unified" or not config.steps):
        raise ConfigError("base is given with nothing to splice", "steps, and method: continued", "Add a step with kind, input and size")
    if config.method == "unified" and config.steps:
        raise ConfigError("method: unified has steps", "base_inputs alone: its one dictionary holds DNA and English", "Leave steps out")
    for number, step in enumerate(config.steps, start=1):
        vocab_train.check_step(step, f"step {number}")


def _check_files(config: Config) -> None:
    """Raise MissingFileError or InputError for inputs that are not there, are of the wrong kind, or would be replaced by the output."""
    from llama_gene.data.prompts import chat_template
    from llama_gene.tokenization.inputs import find_base, find_paths

    chat_template(config.template)
    read = [path for step in config.steps for path in vocab_train.input_paths(step, config.data_dir)]
    read += find_paths([*config.base_inputs, *config.dna, *config.protein, *config.english, *config.code], config.data_dir)
    assert config.out is not None
    runtime.check_inputs_outside(config.out, [find_base(config.base, config.data_dir) if config.base else None, *read])


def _train_base(config: Config, folder: Path) -> Vocabulary:
    """Train the base of `base_inputs`: a SentencePiece BPE, or the unified dictionary."""
    from llama_gene.tokenization.inputs import find_paths
    from llama_gene.tokenization.json_splice import JsonVocabulary
    from llama_gene.tokenization.standalone import train_sentencepiece_base, train_unified
    from llama_gene.tokenization.tokenizer import NATIVE_NAME, open_vocabulary

    texts = _texts(find_paths(config.base_inputs, config.data_dir))
    if config.method == "unified":
        return JsonVocabulary(train_unified(texts, config.base_size), "the dictionary")
    model = folder / (BASE_NAME if config.steps else NATIVE_NAME)
    train_sentencepiece_base(texts, config.base_size, model)
    return open_vocabulary(model)


def _texts(paths: Sequence[Path]) -> Iterator[str]:
    """Yield the documents of files, with a bar."""
    from llama_gene.tokenization.inputs import read_texts

    with runtime.progress("read text", "file", len(paths)) as bar:
        for path in paths:
            yield from read_texts(path)
            bar.update()
