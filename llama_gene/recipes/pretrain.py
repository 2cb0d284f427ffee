"""Stage 4, pretrain: base model + packed rows + shares -> adapter; or a model from scratch, trained whole.

With `base`: the vocabulary grows to the rows' tokenizer, LoRA is attached, embed_tokens and lm_head are trained and saved
(LLaMA-Gene 2.3.2). With `architecture`: new weights, all trained (the DNAHLM route, and the demo's English base).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama_gene import runtime
from llama_gene.errors import ConfigError
from llama_gene.models.settings import Architecture, LoraSettings
from llama_gene.training.settings import TrainSettings

HISTORY_NAME = "training.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "chat_template.jinja")


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
    """Share of each language in the training tokens; empty: in proportion to the rows."""
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
    from llama_gene.data.prompts import prompt_fingerprint
    from llama_gene.data.rows import load_rows
    from llama_gene.models.adapters import attach_lora
    from llama_gene.models.build import load_base, new_model
    from llama_gene.models.embeddings import grow_embeddings
    from llama_gene.tokenization.tokenizer import load_tokenizer, vocabulary_fingerprint

    manifest = runtime.read_manifest(config.rows, "pack")
    tokenizer = load_tokenizer(manifest["tokenizer"])
    row_sets = load_rows(config.rows, "train", tokenizer)
    shares = config.shares or {language: float(len(rows)) for language, rows in row_sets.items()}
    facts: dict[str, Any] = {"vocabulary": vocabulary_fingerprint(tokenizer), "prompt": prompt_fingerprint(), "shares": shares}
    if config.base is not None:
        base_tokenizer = load_tokenizer(config.base)
        model: Any = load_base(config.base)
        facts |= {"base": resolve_base(config.base), "base_vocabulary": vocabulary_fingerprint(base_tokenizer)}
        new_rows = grow_embeddings(model, tokenizer, base_tokenizer)
        runtime.get_logger().info("embeddings grown by %s rows to %s", f"{new_rows:,}", f"{len(tokenizer):,}")
        model = attach_lora(model, config.lora)
    else:
        assert config.architecture is not None
        model = new_model(config.architecture, tokenizer, config.train.seed)
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
    """Train, then write weights, tokenizer, manifest and loss figure whole; shared by `pretrain` and `sft`."""
    from llama_gene.models.adapters import trainable_share
    from llama_gene.training.trainer import train
    from llama_gene.web.figures import plot_loss

    log = runtime.get_logger()
    output_dir: Path = config.output_dir
    trainable, total = trainable_share(model)
    log.info("%s: %s of %s parameters train (%.1f %%)", stage, f"{trainable:,}", f"{total:,}", 100 * trainable / total)
    work_dir = output_dir.with_name(output_dir.name + ".work")
    identity = runtime.fingerprint([facts, {key: value for key, value in vars(config).items() if key != "train"}, _plan(config.train)])
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    result, saved = train(model, row_sets, shares, pad_id, config.train, work_dir, identity)
    if runtime.rank() == 0:
        with runtime.whole_dir(output_dir) as folder:
            for path in saved.iterdir():
                # PEFT's own model card says nothing that our manifest does not.
                if path.name not in ("training_args.bin", "README.md"):
                    shutil.move(str(path), folder / path.name)
            copy_tokenizer(tokenizer, tokenizer_folder, folder)
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


def _plan(train: TrainSettings) -> dict[str, Any]:
    """Return the settings that decide the weights (not how often to log or save)."""
    silent = {"logging_steps", "save_steps", "keep_checkpoints", "tensorboard", "restart"}
    return {key: value for key, value in vars(train).items() if key not in silent}


def copy_tokenizer(tokenizer: Any, source: Path, folder: Path) -> None:
    """Copy the tokenizer's files byte for byte, or save them when they came from a hub."""
    if not source.is_dir():
        tokenizer.save_pretrained(str(folder))
        return
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def resolve_base(name: str) -> str:
    """Return a local base as an absolute path, so that the adapter finds it from anywhere; a hub id as it is."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name
