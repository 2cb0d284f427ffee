"""Stage 8, export: base + adapter + tokenizer -> one Hugging Face folder, written only if its logits are the adapter's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llama_gene import runtime
from llama_gene.errors import ConfigError, MissingFileError

if TYPE_CHECKING:
    from llama_gene.models.settings import Precision


CARD_FACTS = ("stage", "base", "steps", "tokens", "trainable_parameters", "parameters", "shares", "final_loss", "data", "held_out")
"""What a stage's manifest tells the model card, and the manifest of a merge passes on."""


@dataclass
class Config:
    """Stage 8: one model folder."""

    model: Path | None = None
    """Adapter folder written by `llama-gene pretrain` or `sft` (a whole model folder is checked and written anew)."""
    results: Path | None = None
    """Folder written by `llama-gene evaluate`, whose table goes into the model card."""
    dtype: Literal["base", "float32", "bfloat16", "float16"] = "base"
    """Precision of the written weights; base: the one that the base's own config names."""
    max_shard_size: str = "4GB"
    """Largest weights file."""
    tolerance: float | None = None
    """Largest allowed gap of logits, relative to the largest logit; unset: 1e-4 for float32, 1e-2 for float16, 5e-2 for bfloat16."""
    output_dir: Path | None = None
    """Folder to write."""


def run(config: Config) -> Path:
    """Merge, compare, write and verify; return the folder."""
    if config.model is None or config.output_dir is None:
        raise ConfigError("model or output_dir is not given", "--model and --output_dir")
    if not config.model.is_dir():
        raise MissingFileError(config.model, "an adapter folder (written by `llama-gene pretrain` or `sft`)")
    facts = runtime.read_manifest(config.model)
    results, simulated = _read_results(config.results)

    from llama_gene.data.prompts import prompt_fingerprint
    from llama_gene.export.card import model_card
    from llama_gene.export.merge import TOLERANCE, MergeReport, compare_written, merge_adapter, seal, verify_export, write_model
    from llama_gene.models.adapters import ADAPTER_CONFIG, load_model
    from llama_gene.tokenization.tokenizer import vocabulary_fingerprint

    log = runtime.get_logger()
    template = facts.get("template") or "alpaca"
    base = str(facts.get("base") or config.model)
    is_adapter = (config.model / ADAPTER_CONFIG).is_file()
    precision = _precision(config, base if is_adapter else str(config.model))  # an export names its base, which may not be here
    tolerance = TOLERANCE[precision] if config.tolerance is None else config.tolerance
    log.info("export: merging %s into %s", config.model, base)
    model, tokenizer = load_model(config.model)
    merged, merge_gap, rows_cut, expected = merge_adapter(model, tokenizer)
    vocabulary = vocabulary_fingerprint(tokenizer)
    stages = _stages(config.model)
    first = _first_base(stages, base)
    base_name = (
        Path(first).name if Path(first).exists() or first.startswith("/") else first
    )  # the card and the manifest travel, paths of this machine do not
    with runtime.whole_dir(config.output_dir) as folder:
        write_model(merged, tokenizer, config.model, folder, precision, config.max_shard_size)
        del model, merged
        report = MergeReport(merge_gap, compare_written(folder, tokenizer, expected, tolerance), tolerance, rows_cut)
        card = model_card(
            config.output_dir.resolve().name,
            base_name,
            {"size": len(tokenizer), "fingerprint": vocabulary},
            stages,
            asdict(report),
            precision,
            template,
            results,
            simulated,
        )
        runtime.write_text(folder / "README.md", card)
        runtime.write_manifest(
            folder,
            "export",
            {"dtype": precision, "max_shard_size": config.max_shard_size},
            base=base_name,
            stages=[{**stage, "base": base_name} if "base" in stage else stage for stage in stages],
            vocabulary=vocabulary,
            prompt=facts.get("prompt") or prompt_fingerprint(template),
            template=template,
            simulated=simulated,
            **asdict(report),
        )
        seal(folder)
        verify_export(folder)
    log.info(
        "export: %s written as %s; gap of logits %.2g merged, %.2g as written (allowed %g); %s padding rows cut",
        config.output_dir, precision, report.merge_gap, report.written_gap, tolerance, f"{rows_cut:,}",
    )  # fmt: skip
    return config.output_dir


def _read_results(folder: Path | None) -> tuple[str, bool]:
    """Return (results.md, whether the data was simulated) of an `evaluate` folder; nothing where none is given."""
    if folder is None:
        return "", False
    runtime.read_manifest(folder, "evaluate")
    report = runtime.read_json(folder / "results.json")
    return (folder / "results.md").read_text(encoding="utf-8"), bool(report.get("simulated"))


def _precision(config: Config, base: str) -> Precision:
    """Return the precision to write: the one asked for, or the base's own where that is one of ours, else float32."""
    if config.dtype != "base":
        return config.dtype
    from transformers import AutoConfig

    named = str(getattr(AutoConfig.from_pretrained(base), "dtype", None)).removeprefix("torch.")
    return "bfloat16" if named == "bfloat16" else "float16" if named == "float16" else "float32"


def _stages(folder: Path) -> list[dict[str, Any]]:
    """Return the manifests of the training stages behind an adapter, first stage first, as far as their folders are still there."""
    stages: list[dict[str, Any]] = []
    here: Path | None = folder
    while here is not None and (here / runtime.MANIFEST_NAME).is_file() and len(stages) < 20:
        manifest = runtime.read_json(here / runtime.MANIFEST_NAME)
        if manifest["stage"] == "export":  # a merge between two stages carries what was before it
            return [*manifest.get("stages", []), *stages]
        stages.insert(0, {name: manifest[name] for name in CARD_FACTS if name in manifest})
        earlier = manifest.get("config", {}).get("model") or manifest.get("base")
        here = Path(earlier) if earlier else None
    return stages


def _first_base(stages: Sequence[Mapping[str, Any]], base: str) -> str:
    """Return the base that the first of the stages began with."""
    return str(next((stage["base"] for stage in stages if stage.get("base")), base))
