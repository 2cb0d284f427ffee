"""Stage 4, pretrain: base model + packed rows + shares -> adapter; or a model from scratch, trained whole.

With `base`: the vocabulary grows to the rows' tokenizer, LoRA is attached, embed_tokens and lm_head are trained and saved
(LLaMA-Gene 2.3.2). With `architecture`: new weights, all trained (the DNAHLM route, and the demo's English base).
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from llama_gene import runtime
from llama_gene.errors import ConfigError, InputError
from llama_gene.models.settings import Architecture, EmbeddingInit, LoraSettings
from llama_gene.training.settings import TrainSettings

HISTORY_NAME = "training.json"
STAMP_BYTES = 2**20  # of each end of a weights file


@dataclass
class Config:
    """Stage 4: continued pretraining, or pretraining from scratch."""

    rows: Path | None = None
    """Folder written by `llama-gene pack`."""
    base: str | None = None
    """Base model: a hub id or a local folder, with its own tokenizer."""
    architecture: Architecture | None = None
    """Shape of a model made from scratch instead of a base."""
    shares: dict[str, float] = field(default_factory=dict)
    """Share of each language in the training text, counted in share_unit; empty: in proportion to the rows."""
    share_unit: Literal["tokens", "bytes", "rows"] = "tokens"
    """What shares count: tokens, bytes of the text (DNAHLM mixes 1:1 by bytes), or rows. Changing shares packs nothing anew."""
    embedding_init: EmbeddingInit = "pieces"
    """How the rows of new ids start, used with a base: the mean of their base pieces' rows, the mean of all base rows, or random."""
    lora: LoraSettings = field(default_factory=LoraSettings)
    """Adapter settings, used with a base."""
    train: TrainSettings = field(default_factory=TrainSettings)
    """How to train."""
    output_dir: Path | None = None
    """Folder to write: an adapter (with a base) or a whole model (from scratch), tokenizer, manifest.json, loss.png."""


def run(config: Config) -> Path:
    """Train and save; return the folder. Under a launcher every process runs this."""
    if config.rows is None or config.output_dir is None:
        raise ConfigError("rows or output_dir is not given", "--rows FOLDER and --output_dir FOLDER")
    if (config.base is None) == (config.architecture is None):
        raise ConfigError("base and architecture are " + ("both unset" if config.base is None else "both given"), "exactly one of them")
    runtime.check_output(config.output_dir, "pretrain")
    from llama_gene.data.mixing import mixture_index, row_shares
    from llama_gene.data.prompts import prompt_fingerprint
    from llama_gene.data.rows import load_rows, mean_sizes
    from llama_gene.models.adapters import attach_lora
    from llama_gene.models.build import load_base, new_model
    from llama_gene.models.embeddings import grow_embeddings
    from llama_gene.tokenization.tokenizer import load_tokenizer, vocabulary_fingerprint

    manifest = runtime.read_manifest(config.rows, "pack")
    tokenizer = load_tokenizer(manifest["tokenizer"])
    row_sets = load_rows(config.rows, "train", tokenizer)
    if not row_sets:
        raise InputError(f"{config.rows} holds no training rows", "rows of at least one language", "Pack a corpus with training documents")
    num_rows = {language: len(rows) for language, rows in row_sets.items()}
    shares = {language: float(number) for language, number in num_rows.items()}
    if config.shares:
        shares = row_shares(config.shares, mean_sizes(config.rows, "train", config.share_unit))
    mixture_index(num_rows, shares, 0, config.train.seed)  # refuses wrong shares before the model is loaded
    facts: dict[str, Any] = {"vocabulary": vocabulary_fingerprint(tokenizer), "prompt": prompt_fingerprint()}
    facts |= {"shares": config.shares or shares, "share_unit": config.share_unit if config.shares else "rows"}
    if config.base is not None:
        base_tokenizer = load_tokenizer(config.base)
        model: Any = load_base(config.base)
        facts |= {"base": resolve_base(config.base), "base_vocabulary": vocabulary_fingerprint(base_tokenizer)}
        facts |= {"embedding_init": config.embedding_init, "embedding_seed": config.train.seed}
        new_rows = grow_embeddings(model, tokenizer, base_tokenizer, config.embedding_init, config.train.seed)
        runtime.get_logger().info("embeddings grown by %s rows (%s) to %s", f"{new_rows:,}", config.embedding_init, f"{len(tokenizer):,}")
        model = attach_lora(model, config.lora, config.train.seed)
    else:
        assert config.architecture is not None
        model = new_model(config.architecture, tokenizer, config.train.seed)
    limit = getattr(model.config, "max_position_embeddings", None) or manifest["row_length"]
    if manifest["row_length"] > limit:
        raise ConfigError(f"rows of {manifest['row_length']} tokens", f"at most {limit}, the model's longest input", "Pack shorter rows")
    return train_and_save("pretrain", config, model, tokenizer, Path(manifest["tokenizer"]), row_sets, shares, facts)


def train_and_save(
    stage: str,
    config: Any,
    model: Any,
    tokenizer: Any,
    tokenizer_folder: Path,
    row_sets: Mapping[str, Any],
    shares: Mapping[str, float],
    facts: dict[str, Any],
) -> Path:
    """Train, then write weights, tokenizer, manifest and loss figure whole; shared by `pretrain` and `sft`. `shares` count rows."""
    from llama_gene.models.adapters import trainable_share
    from llama_gene.training.trainer import train
    from llama_gene.web.figures import plot_loss

    log = runtime.get_logger()
    output_dir: Path = config.output_dir
    trainable, total = trainable_share(model)
    log.info("%s: %s of %s parameters train (%.1f %%)", stage, f"{trainable:,}", f"{total:,}", 100 * trainable / total)
    work_dir = output_dir.with_name(output_dir.name + ".work")
    settings = {key: value for key, value in vars(config).items() if key != "train"}
    sources = [weights_stamp(Path(settings[name])) for name in ("base", "model") if settings.get(name)]
    rows = {name: rows_stamp(row_sets[name]) for name in row_sets if shares.get(name)}
    identity = runtime.fingerprint([facts, settings, plan(config.train), runtime.world_size(), sources, rows])
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    result, saved = train(model, row_sets, shares, pad_id, config.train, work_dir, identity)
    if runtime.rank() == 0:
        with runtime.whole_dir(output_dir) as folder:
            for path in saved.iterdir():
                # PEFT's own model card says nothing that our manifest does not.
                if path.name not in ("training_args.bin", "README.md"):
                    shutil.move(str(path), folder / path.name)
            if (saved.parent / "runs").is_dir():  # TensorBoard's events
                shutil.move(str(saved.parent / "runs"), folder / "runs")
            copy_tokenizer(tokenizer, tokenizer_folder, folder, facts.get("template", "alpaca"))
            runtime.write_json(folder / HISTORY_NAME, result.history)
            plot_loss(result.history, folder / "loss.png")
            runtime.write_manifest(
                folder,
                stage,
                config,
                **facts,
                steps=result.steps,
                tokens=result.tokens,
                tokens_per_second=round(result.tokens_per_second, 1),
                processes=runtime.world_size(),
                trainable_parameters=trainable,
                parameters=total,
                final_loss=result.history[-1]["loss"] if result.history else None,
            )
        shutil.rmtree(work_dir)
        log.info("%s: %s tokens, %.0f tokens/s, written to %s", stage, f"{result.tokens:,}", result.tokens_per_second, output_dir)
    return output_dir


def plan(train: TrainSettings) -> dict[str, Any]:
    """Return the settings that decide the weights (not how often to log or save)."""
    silent = {"logging_steps", "save_steps", "keep_checkpoints", "tensorboard", "restart"}
    return {key: value for key, value in vars(train).items() if key not in silent}


def rows_stamp(rows: Any) -> list[Any]:
    """Return what tells one set of rows from another: their number and a thousand of them, evenly spaced."""
    places = range(0, len(rows), max(1, len(rows) // 1000))
    return [len(rows), runtime.fingerprint([rows[place] for place in places])]


def weights_stamp(folder: Path) -> list[Any]:
    """Return what tells the weights of a local folder from others at the same path: size and both ends of each file."""
    stamp: list[Any] = []
    for path in sorted(folder.glob("*.safetensors")):  # none, where it is a hub id
        size = path.stat().st_size
        with path.open("rb") as handle:
            ends = handle.read(STAMP_BYTES)
            handle.seek(max(0, size - STAMP_BYTES))
            ends += handle.read()
        stamp.append([path.name, size, hashlib.sha256(ends).hexdigest()])
    return stamp


def copy_tokenizer(tokenizer: Any, source: Path, folder: Path, template: str) -> None:
    """Copy the tokenizer's files byte for byte (a hub's or a bare `tokenizer.model` is written anew), with our chat template."""
    from llama_gene.data.prompts import chat_template
    from llama_gene.export.merge import TOKENIZER_FILES
    from llama_gene.tokenization.tokenizer import JSON_NAME, write_tokenizer

    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    if not (folder / JSON_NAME).is_file():
        write_tokenizer(tokenizer, folder)
    (folder / "chat_template.jinja").write_text(chat_template(template), encoding="utf-8")


def resolve_base(name: str) -> str:
    """Return a local base as an absolute path, so that the adapter finds it from anywhere; a hub id as it is."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name
