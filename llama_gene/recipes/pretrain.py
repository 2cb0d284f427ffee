"""Stage 4, pretrain: base model + packed rows + shares -> adapter; or a model from scratch, trained whole.

With `base`: the vocabulary grows to the rows' tokenizer, LoRA is attached, embed_tokens and lm_head are trained and saved
(LLaMA-Gene 2.3.2). With `architecture`: new weights, all trained (the DNAHLM route, and the demo's English base).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from llama_gene import runtime
from llama_gene.errors import ConfigError, InputError
from llama_gene.models.settings import Architecture, EmbeddingInit, LoraSettings
from llama_gene.recipes.train_stage import check_launch, kernel, resolve_base, train_and_save
from llama_gene.training.settings import TrainSettings


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
    """How the rows of new ids start, used with a base: the mean of their base pieces' rows; quiet: in the head half-way to the mean of all
    base rows, so that they take less from English; mean: of all base rows; normal: random."""
    full: bool = False
    """Train all weights of the base instead of an adapter; the output is then a whole model."""
    lora: LoraSettings = field(default_factory=LoraSettings)
    """Adapter settings, used with a base."""
    train: TrainSettings = field(default_factory=TrainSettings)
    """How to train."""
    preview: int = 0
    """Print so many rows with the tokens that train marked, and end."""
    dry_run: bool = False
    """Build everything, take two steps, say what memory and time the whole run will take, and write nothing."""
    output_dir: Path | None = None
    """Folder to write: an adapter (with a base) or a whole model (from scratch), tokenizer, manifest.json, loss.png."""


def run(config: Config) -> Path:
    """Train and save; return the folder. Under a launcher every process runs this."""
    if config.rows is None or config.output_dir is None:
        raise ConfigError("rows or output_dir is not given", "--rows FOLDER and --output_dir FOLDER")
    if (config.base is None) == (config.architecture is None):
        raise ConfigError("base and architecture are " + ("both unset" if config.base is None else "both given"), "exactly one of them")
    runtime.check_output(config.output_dir, "pretrain")
    trains_adapter = config.base is not None and not config.full
    check_launch(config.train, config.lora if trains_adapter else None)
    from llama_gene.data.mixing import mixture_index, row_shares
    from llama_gene.data.prompts import prompt_fingerprint
    from llama_gene.data.rows import load_rows, mean_sizes
    from llama_gene.models.adapters import attach_lora
    from llama_gene.models.build import frozen_precision, load_base, new_model
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
    facts |= {"rows": manifest["key"], "data": manifest.get("data", {})}
    facts |= {"shares": config.shares or shares, "share_unit": config.share_unit if config.shares else "rows"}
    num_base_ids: int | None = None
    if config.base is not None:
        base_tokenizer = load_tokenizer(config.base)
        precision = frozen_precision(config.base, config.train.precision) if trains_adapter else "float32"
        model: Any = load_base(config.base, precision, config.lora.quantize if trains_adapter else "none", kernel(config.train))
        facts |= {"base": resolve_base(config.base), "base_vocabulary": vocabulary_fingerprint(base_tokenizer)}
        facts |= {"embedding_init": config.embedding_init, "embedding_seed": config.train.seed}
        num_base_ids = len(base_tokenizer)
        new_rows = grow_embeddings(model, tokenizer, base_tokenizer, config.embedding_init, config.train.seed)
        runtime.get_logger().info("embeddings grown by %s rows (%s) to %s", f"{new_rows:,}", config.embedding_init, f"{len(tokenizer):,}")
        if trains_adapter:
            model = attach_lora(model, config.lora, config.train.seed, range(len(tokenizer) - new_rows, len(tokenizer)))
            facts["quantize"] = config.lora.quantize
        else:
            del facts["base"], facts["base_vocabulary"]  # a whole model needs no base
    else:
        assert config.architecture is not None
        model = new_model(config.architecture, tokenizer, config.train.seed)
    limit = getattr(model.config, "max_position_embeddings", None) or manifest["row_length"]
    if manifest["row_length"] > limit:
        raise ConfigError(f"rows of {manifest['row_length']} tokens", f"at most {limit}, the model's longest input", "Pack shorter rows")
    held_out = load_rows(config.rows, "valid")  # of the vocabulary of the training rows
    units = {language: entry["unit"] for language, entry in facts["data"].items()}
    tokenizer_folder = Path(manifest["tokenizer"])
    return train_and_save(
        "pretrain",
        config,
        model,
        tokenizer,
        tokenizer_folder,
        row_sets,
        shares,
        facts,
        held_out,
        units,
        num_base_ids,
        config.base is not None,
    )
