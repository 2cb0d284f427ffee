"""export gguf: an exported model folder -> one GGUF file and an Ollama Modelfile, its token ids compared with llama.cpp's own."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llama_gene import runtime
from llama_gene.errors import ConfigError, InputError, MismatchError, MissingFileError

if TYPE_CHECKING:
    from llama_gene.export.gguf_tensors import GGUFType

STAGE = "export gguf"
MODELFILE = "Modelfile"
KEPT_FACTS = ("vocabulary", "prompt", "template", "base", "simulated")
"""What the manifest of the exported folder tells the GGUF file."""
NOT_COMPARED = "llama-cpp-python is not installed"


@dataclass
class Config:
    """export gguf: one file for llama.cpp, Ollama and LM Studio."""

    model: Path | None = None
    """Folder written by `llama-gene export` (LLaMA or GPT-2; SentencePiece, or BPE with LLaMA-3's or GPT-2's pattern, not isolated)."""
    dtype: Literal["base", "f32", "f16", "bf16", "q8_0"] = "base"
    """Type of the written matrices; base: that of the folder's own weights; q8_0: 8 bits, and a scale for each 32 weights."""
    output_dir: Path | None = None
    """Folder to write: NAME-TYPE.gguf (NAME is that of the model's folder), Modelfile, manifest.json."""


def run(config: Config) -> Path:
    """Check the folder, write the file, compare token ids; return the output folder. Nothing is left unless every step succeeds."""
    if config.model is None or config.output_dir is None:
        raise ConfigError("model or output_dir is not given", "--model and --output_dir")
    if not config.model.is_dir():
        raise MissingFileError(config.model, "a folder written by `llama-gene export`")
    if (config.model / "adapter_config.json").is_file():
        action = f"Run `llama-gene export --model {config.model}` first"
        raise InputError(
            f"{config.model} is an adapter, and GGUF needs the merged model", "a folder written by `llama-gene export`", action
        )
    runtime.check_inputs_outside(config.output_dir, [config.model])
    runtime.check_output_outside(config.output_dir, [config.model])

    from llama_gene.export.gguf_tensors import require_gguf

    require_gguf()
    from llama_gene.data.prompts import get_template
    from llama_gene.export.gguf import write_gguf
    from llama_gene.export.gguf_tokens import read_tokens
    from llama_gene.export.manifest import verify_export
    from llama_gene.export.ollama import modelfile

    manifest = verify_export(config.model)
    tokens = read_tokens(config.model)
    if "eos" not in tokens.special_ids:
        raise InputError(f"{config.model}: the tokenizer has no end-of-sequence token", "an eos_token", "Set it, and export again")
    shape = runtime.read_json(config.model / "config.json")
    kind = _kind(config, shape)
    name = config.model.resolve().name
    file_name = f"{name}-{kind}.gguf"
    facts = {key: manifest[key] for key in KEPT_FACTS if manifest.get(key) is not None}
    facts["seal"] = runtime.read_manifest(config.model)["seal"]
    with runtime.whole_dir(config.output_dir) as folder:
        written = write_gguf(config.model, folder / file_name, kind, tokens, {**facts, **_general(config.model, name, manifest)})
        num_compared = _compare_ids(config.model, folder / file_name)
        longest = int(shape.get("max_position_embeddings") or shape.get("n_positions") or 1024)
        eos = tokens.tokens[tokens.special_ids["eos"]]
        title = f"{name}, vocabulary {manifest.get('vocabulary')}, prompt {manifest.get('template')} {manifest.get('prompt')}"
        template = get_template(str(manifest.get("template") or "alpaca"))
        runtime.write_text(folder / MODELFILE, modelfile(file_name, template, eos, longest, title))
        runtime.write_manifest(
            folder, STAGE, {"model": name, "dtype": kind}, **facts, **asdict(written), tokens=len(tokens.tokens),
            tokenizer={"model": tokens.model, "pre": tokens.pre},
            ids_compared=num_compared if num_compared else NOT_COMPARED,
            libraries={package: runtime.package_version(package) for package in ("gguf", "llama-cpp-python")},
            files={path.name: runtime.file_hash(path) for path in sorted(folder.iterdir())},
        )  # fmt: skip
    log = runtime.get_logger()
    log.info(
        "export gguf: %s (%s tensors: %s; %s tokens, %s padding rows cut)", config.output_dir / file_name, written.tensors,
        ", ".join(f"{number} {what}" for what, number in written.types.items()), f"{len(tokens.tokens):,}", f"{written.rows_cut:,}",
    )  # fmt: skip
    if num_compared:
        log.info("export gguf: llama.cpp gives the same ids to all of %s texts", num_compared)
    else:
        log.warning("export gguf: token ids were not compared with llama.cpp's: %s (pip install llama-cpp-python)", NOT_COMPARED)
    return config.output_dir


def _kind(config: Config, shape: dict[str, Any]) -> GGUFType:
    """Return the type to write: the one asked for, or that of the folder's weights."""
    if config.dtype != "base":
        return config.dtype
    own = str(shape.get("dtype") or shape.get("torch_dtype"))
    kinds: dict[str, GGUFType] = {"bfloat16": "bf16", "float16": "f16"}
    return kinds.get(own, "f32")


def _general(folder: Path, name: str, manifest: dict[str, Any]) -> dict[str, Any]:
    """Return GGUF's general metadata: name, base, licence. The licence is that of the model card, else the base's own, by name."""
    import yaml

    card = (folder / "README.md").read_text(encoding="utf-8") if (folder / "README.md").is_file() else ""
    front = yaml.safe_load(card.split("---")[1]) if card.startswith("---\n") and card.count("---") > 1 else {}
    licence = front.get("license") if isinstance(front, dict) else None
    base = str(manifest.get("base") or "unknown")
    facts: dict[str, Any] = {"general.name": name, "general.base_model.count": 1, "general.base_model.0.name": base}
    facts["general.license"] = str(licence) if licence else "other"
    if not licence:
        facts["general.license.name"] = f"the licence of the base, {base}"
    return {**facts, "version": runtime.package_version()}


def _compare_ids(folder: Path, path: Path) -> int:
    """Return how many texts llama.cpp gives the ids that we give, 0 where it is not installed. Raises MismatchError for other ids."""
    from llama_gene.export.gate import PROBES
    from llama_gene.export.gguf_check import ids_by_llama_cpp, ids_by_us

    theirs = ids_by_llama_cpp(path, PROBES)
    if theirs is None:
        return 0
    for text, found, expected in zip(PROBES, theirs, ids_by_us(folder, PROBES), strict=True):
        if found != expected:
            raise MismatchError(
                f"llama.cpp gives other ids to {text[:40]!r} ({found[:8]} ...)", f"{expected[:8]} ...",
                "Please report this tokenizer; nothing was written",
            )  # fmt: skip
    return len(PROBES)
