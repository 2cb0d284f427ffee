"""Stage 6, sft: adapter or whole model + instructions -> tuned adapter (or model), loss on the response only.

An adapter goes on training; a whole model gets a fresh adapter (`lora`), or is trained whole with `--full true` (the DNAHLM route).
Examples are packed into rows without waste; attention does not cross from one example into its neighbour.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from llama_gene import runtime
from llama_gene.data.instructions import read_examples
from llama_gene.errors import ConfigError, InputError, MismatchError
from llama_gene.models.settings import LoraSettings, Precision
from llama_gene.recipes.train_stage import check_launch, kernel, resolve_base, train_and_save
from llama_gene.training.settings import TrainSettings

INSTRUCTIONS = "instructions"  # the row set that the examples are


@dataclass
class Config:
    """Stage 6: instruction tuning."""

    model: str | None = None
    """Adapter folder written by `llama-gene pretrain` or `sft`, a whole model folder, or a hub id."""
    instructions: Path | None = None
    """Folder written by `llama-gene instruct`."""
    template: str = "alpaca"
    """Name of the prompt template; it is recorded and compared wherever the model is used."""
    loss: Literal["response", "full"] = "response"
    """Which tokens carry loss: the answer's only, or the prompt's too."""
    max_length: int = 512
    """Longest example, in tokens; longer training examples are shortened inside the sequence, never in the answer."""
    replay: Path | None = None
    """Folder written by `llama-gene pack`; some of its rows are mixed in, so that the languages are not forgotten."""
    replay_shares: dict[str, float] = field(default_factory=dict)
    """Share of each replayed language in the training tokens, for example {english: 0.1}; the instructions have the rest."""
    full: bool = False
    """Train all weights of a whole model instead of a fresh adapter."""
    lora: LoraSettings = field(default_factory=LoraSettings)
    """Adapter settings, used when `model` is a whole model."""
    train: TrainSettings = field(default_factory=lambda: TrainSettings(learning_rate=1e-4, epochs=2.0))
    """How to train."""
    preview: int = 0
    """Print so many rows with the tokens that train marked, and end."""
    dry_run: bool = False
    """Build everything, take two steps, say what memory and time the whole run will take, and write nothing."""
    output_dir: Path | None = None
    """Folder to write."""


def run(config: Config) -> Path:
    """Tune and save; return the folder. Under a launcher every process runs this."""
    if config.model is None or config.instructions is None or config.output_dir is None:
        raise ConfigError("model, instructions or output_dir is not given", "--model, --instructions and --output_dir")
    runtime.check_output(config.output_dir, "sft")
    from llama_gene.data.mixing import row_shares
    from llama_gene.data.packing import pack_examples
    from llama_gene.data.prompts import prompt_fingerprint
    from llama_gene.data.rows import load_rows, mean_sizes
    from llama_gene.data.supervised import encode_examples
    from llama_gene.models.adapters import ADAPTER_CONFIG, attach_lora, load_model
    from llama_gene.tokenization.tokenizer import vocabulary_fingerprint

    asked_about = runtime.read_manifest(config.instructions, "instruct").get("vocabulary")
    is_adapter = (Path(config.model) / ADAPTER_CONFIG).is_file()
    if is_adapter and config.full:
        raise ConfigError("full is set and the model is an adapter", "a whole model", "Export the adapter first (llama-gene export)")
    lora = config.lora
    if is_adapter:  # its own settings count; it may go on under ZeRO-3 with new rows only, which are there already
        lora = replace(lora, quantize=runtime.read_manifest(Path(config.model)).get("quantize", "none"), rows="all")
    check_launch(config.train, None if config.full else lora)
    precision = "float32" if config.full else _frozen_precision(config, is_adapter)
    quantize = "none" if config.full else config.lora.quantize
    model, tokenizer = load_model(config.model, precision, trainable=True, quantize=quantize, attention=kernel(config.train))
    limit = getattr(model.config, "max_position_embeddings", config.max_length)
    if config.max_length > limit:
        raise ConfigError(f"max_length is {config.max_length}", f"at most {limit}, the model's longest input", "Lower --max_length")
    vocabulary = vocabulary_fingerprint(tokenizer)
    if asked_about not in (None, vocabulary):
        raise MismatchError(
            f"{config.instructions} asks about the tokens of vocabulary {asked_about}",
            f"{vocabulary}, that of {config.model}",
            "Write the instructions again with this model's tokenizer (llama-gene instruct --tokenizer)",
        )
    facts: dict[str, Any] = {"vocabulary": vocabulary, "prompt": prompt_fingerprint(config.template), "template": config.template}
    if is_adapter:
        earlier = runtime.read_manifest(Path(config.model))
        kept = (
            "base",
            "base_vocabulary",
            "embedding_init",
            "embedding_seed",
            "quantize",
        )  # what load_model makes the grown base again from
        facts |= {name: earlier[name] for name in kept if name in earlier}
    elif not config.full:
        facts |= {"base": resolve_base(config.model), "base_vocabulary": vocabulary, "quantize": quantize}
        model = attach_lora(model, config.lora, config.train.seed)

    examples = read_examples(config.instructions / "train.jsonl")
    if not examples:
        raise InputError(f"{config.instructions} has no training example", "at least one", "Check the tasks' train files")
    random.Random(config.train.seed).shuffle(examples)  # so that a row holds neighbours of many tasks
    encoded = encode_examples(tokenizer, examples, config.max_length, config.template, config.loss)
    rows = pack_examples(((row.input_ids, row.labels) for row in encoded.rows), config.max_length)
    mean_tokens = {INSTRUCTIONS: sum(len(row["input_ids"]) for row in rows) / len(rows)}
    filled = mean_tokens[INSTRUCTIONS] / config.max_length
    counts = {"examples": len(encoded.rows), "shortened": encoded.num_shortened, "rejected": encoded.num_rejected}
    runtime.get_logger().info(
        "sft: %s examples (%s shortened, %s too long and left out) in %s rows of %s tokens, %.0f %% filled",
        *(f"{counts[name]:,}" for name in counts), f"{len(rows):,}", config.max_length, 100 * filled,
    )  # fmt: skip
    facts["examples"] = counts
    row_sets: dict[str, Any] = {INSTRUCTIONS: rows}
    held_out: dict[str, Any] = {}
    units: dict[str, str] = {}
    if config.replay is not None:
        row_sets |= load_rows(config.replay, "train", tokenizer)
        mean_tokens |= mean_sizes(config.replay, "train", "tokens")
        replayed = runtime.read_manifest(config.replay, "pack")
        facts["rows"] = replayed["key"]
        held_out = load_rows(config.replay, "valid")
        units = {language: entry["unit"] for language, entry in replayed.get("data", {}).items()}
    shares = {**config.replay_shares, INSTRUCTIONS: 1 - sum(config.replay_shares.values())}
    if shares[INSTRUCTIONS] <= 0:
        raise ConfigError(f"replay_shares add up to {sum(config.replay_shares.values())}", "less than 1", "Leave the instructions a share")
    facts["shares"] = shares
    in_rows = row_shares(shares, mean_tokens)
    return train_and_save("sft", config, model, tokenizer, Path(config.model), row_sets, in_rows, facts, held_out, units)


def _frozen_precision(config: Config, is_adapter: bool) -> Precision:
    """Return the precision of the weights that do not train: those of the model, or of an adapter's base."""
    from llama_gene.models.build import frozen_precision

    assert config.model is not None
    base = runtime.read_manifest(Path(config.model)).get("base", config.model) if is_adapter else config.model
    return frozen_precision(base, config.train.precision)
