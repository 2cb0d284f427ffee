"""Stage 8, export: base + adapter + tokenizer -> one Hugging Face folder, written only if its logits are the adapter's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
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
    adapter: list[Path] = field(default_factory=list)
    """In place of `model`: adapter folders in the order of their training, each trained on what the ones before it were merged into
    (pretraining, then instruction tuning); they are merged in one go, without the folder between them."""
    base: str | None = None
    """Where the base is now (a folder or a hub id), if not where the first adapter's manifest says; its weights are compared."""
    results: Path | None = None
    """Folder written by `llama-gene evaluate`, whose table goes into the model card."""
    dtype: Literal["base", "float32", "bfloat16", "float16"] = "base"
    """Precision of the written weights; base: the one that the base's own config names."""
    max_shard_size: str = "4GB"
    """Largest weights file."""
    tolerance: float | None = None
    """Largest allowed gap of logits, relative to the largest logit; unset: 1e-4 for float32, 1e-2 for float16, 5e-2 for bfloat16."""
    merge: Literal["auto", "streaming", "memory"] = "auto"
    """streaming: a few rows at a time; memory: by PEFT, the whole model in float32; auto: whichever can."""
    compare: Literal["auto", "whole", "layers"] = "auto"
    """How the models that are compared are read. whole: loaded, in float32; layers: each layer when it runs, which is slower;
    auto: whole where twice the model fits into the free memory."""
    fresh_process: bool = True
    """Read the written folder back in a process of its own, as a user will (a few seconds more); false: in this one."""
    verify: Path | None = None
    """Check this folder instead of writing one: an export of ours to the last byte, a model from elsewhere for structure and ids. With
    `model` or `adapter` its logits are compared as well."""
    output_dir: Path | None = None
    """Folder to write."""


def run(config: Config) -> Path:
    """Merge, compare, write and verify, or verify alone; return the folder."""
    if config.verify is not None:
        return _verify(config)
    if config.output_dir is None:
        raise ConfigError("output_dir is not given", "--model and --output_dir")
    _check_asked(config)
    results, simulated = _read_results(config.results)

    from llama_gene.export.manifest import seal, verify_export
    from llama_gene.export.merge import merge_sources
    from llama_gene.export.sources import open_sources

    log = runtime.get_logger()
    sources = open_sources(config.model, config.adapter, config.base)
    folders = [sources.base, *(adapter.folder for adapter in sources.adapters)]
    runtime.check_inputs_outside(config.output_dir, folders)
    runtime.check_output_outside(config.output_dir, folders)
    options = _options(config, sources.base)
    names = [adapter.folder.name for adapter in sources.adapters]
    log.info("export: merging %s into %s", ", then ".join(names) or sources.tokenizer_dir, sources.base_name)
    with runtime.whole_dir(config.output_dir) as folder:
        report, hashes = merge_sources(sources, folder, options)
        _describe(config, sources, folder, report, options.precision, results, simulated)
        seal(folder, hashes)
        verify_export(folder)
    quantized = "" if report.quantized_gap is None else f"; {report.quantized_gap:.2g} to the packed model that was trained"
    log.info(
        "export: %s written as %s (%s); gap of logits %.2g merged, %.2g as written (allowed %g)%s; %s padding rows cut",
        config.output_dir, options.precision, report.merge, report.merge_gap, report.written_gap, options.tolerance, quantized,
        f"{report.rows_cut:,}",
    )  # fmt: skip
    return config.output_dir


def _check_asked(config: Config) -> None:
    """Raise ConfigError unless exactly one of `model` and `adapter` is given, MissingFileError where it is not there."""
    if (config.model is None) == (not config.adapter):
        raise ConfigError("model and adapter are " + ("both unset" if config.model is None else "both given"), "exactly one of them")
    if config.model is not None and not config.model.is_dir():
        raise MissingFileError(config.model, "an adapter folder (written by `llama-gene pretrain` or `sft`)")
    if not re.fullmatch(r"\d+(\.\d+)?(TB|GB|MB|KB)", config.max_shard_size) or float(config.max_shard_size[:-2]) == 0:
        raise ConfigError(f"max_shard_size is '{config.max_shard_size}'", "a size such as 4GB or 500MB")
    if config.tolerance is not None and config.tolerance <= 0:
        raise ConfigError(f"tolerance is {config.tolerance:g}", "a gap above 0, such as 1e-4", "Leave it out")


def _options(config: Config, base: Path) -> Any:
    """Return how to merge and compare."""
    from llama_gene.export.gate import TOLERANCE
    from llama_gene.export.merge import Options

    precision = _precision(config, str(base))
    tolerance = TOLERANCE[precision] if config.tolerance is None else config.tolerance
    return Options(precision, tolerance, config.max_shard_size, config.merge, config.compare, config.fresh_process)


def _describe(config: Config, sources: Any, folder: Path, report: Any, precision: Precision, results: str, simulated: bool) -> None:
    """Write model card and manifest."""
    from llama_gene.data.prompts import prompt_fingerprint
    from llama_gene.export.card import model_card
    from llama_gene.tokenization.tokenizer import vocabulary_fingerprint

    assert config.output_dir is not None
    template = sources.manifest.get("template") or "alpaca"
    vocabulary = vocabulary_fingerprint(sources.tokenizer)
    folders = [adapter.folder for adapter in sources.adapters] or [sources.tokenizer_dir]
    stages = _stages(folders[0])
    for later in folders[1:]:
        stages += _stages(later)[-1:]
    first = _first_base(stages, sources.base_name)
    # The card and the manifest travel, paths of this machine do not.
    base_name = Path(first).name if Path(first).exists() or first.startswith("/") else first
    sizes = {"size": len(sources.tokenizer), "fingerprint": vocabulary}
    card = model_card(config.output_dir.resolve().name, base_name, sizes, stages, asdict(report), precision, template, results, simulated)
    runtime.write_text(folder / "README.md", card)
    adapters = [{"name": adapter.folder.name, "stage": adapter.manifest["stage"], "weights": adapter.stamp} for adapter in sources.adapters]
    runtime.write_manifest(
        folder,
        "export",
        {"dtype": precision, "max_shard_size": config.max_shard_size},
        base=base_name,
        base_weights=sources.base_stamp,
        adapters=adapters,
        stages=[{**stage, "base": base_name} if "base" in stage else stage for stage in stages],
        vocabulary=vocabulary,
        prompt=sources.manifest.get("prompt") or prompt_fingerprint(template),
        template=template,
        tuned_on=_tuned_on(sources.tokenizer_dir),
        simulated=simulated,
        **asdict(report),
    )


def _tuned_on(model: Path) -> dict[str, Any] | None:
    """Return the tasks that a model was tuned on, for chat and serve without --tasks; None where its instructions are not known or gone.

    An export that is exported again carries what it carried.
    """
    from llama_gene.data.askable import carry_tasks
    from llama_gene.recipes.chat import tuned_on

    carried: dict[str, Any] | None = runtime.read_manifest(model).get("tuned_on")
    folder = tuned_on(str(model))
    if carried is None and folder is not None:
        carried = carry_tasks(folder)
    if carried is None:
        runtime.get_logger().info("export: the instructions of %s are not here, so chat and serve will need --tasks", model)
    return carried


def _verify(config: Config) -> Path:
    """Check a folder, print what was checked, and return it."""
    folder = config.verify
    assert folder is not None
    if config.output_dir is not None or config.results is not None:
        raise ConfigError("verify is given and so is output_dir or results", "a folder to check, or one to write", "Leave one out")
    if config.base is not None and config.model is None and not config.adapter:
        raise ConfigError("base is given and no adapter is", "--base and --adapter", "Name the adapter that was merged")
    if not folder.is_dir():
        raise MissingFileError(folder, "a model folder")
    from llama_gene.export.manifest import is_export, verify_export
    from llama_gene.export.structure import check_structure

    ours = is_export(folder)
    manifest = verify_export(folder) if ours else {}
    structure = check_structure(folder)
    tied = "tied head" if structure.tied else "head of its own"
    print(
        f"{folder}: {structure.architecture}, {structure.tensors:,} tensors, {structure.tokens:,} tokens, "
        f"{structure.padding_rows:,} padding rows, {tied}: weights, config, tokenizer and special ids agree"
    )
    if ours:
        print(f"no file was changed since the export; its logits were then {manifest['written_gap']:.2g} from the adapter's")
    if config.model is None and not config.adapter:
        print("logits not compared" + (" now" if ours else "") + " (give --adapter, and --base where it was moved)")
        return folder
    gap, tolerance = _compare_folder(config, folder, structure.padding_rows)
    print(f"logits compared with the adapter's: gap {gap:.2g} (allowed {tolerance:g})")
    return folder


def _compare_folder(config: Config, folder: Path, padding_rows: int) -> tuple[float, float]:
    """Return (gap between a folder's logits and those of base and adapters, allowed gap)."""
    _check_asked(config)
    from llama_gene.export.merge import compare_folder
    from llama_gene.export.sources import open_sources

    sources = open_sources(config.model, config.adapter, config.base)
    options = _options(config, folder)  # the tolerance is that of the folder's own precision
    return compare_folder(sources, folder, options, padding_rows), options.tolerance


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
