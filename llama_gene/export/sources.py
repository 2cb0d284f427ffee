"""What an export is made of: a base, adapters in the order of their training, and the tokenizer of the last one; checked before any work.

The order counts: an adapter is a change to one base, named by its content in the adapter's manifest. Merging an instruction-tuned adapter
that went on from a pretrained one (and holds all of its training) behind that one would apply the pretraining twice: refused.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import peft

from llama_gene import runtime
from llama_gene.errors import InputError, MismatchError, MissingFileError
from llama_gene.export.tensors import TensorFolder
from llama_gene.models.adapters import ADAPTER_CONFIG, base_weights, check_vocabulary
from llama_gene.models.build import hub_error
from llama_gene.tokenization.tokenizer import load_tokenizer, vocabulary_fingerprint

HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model", "*.txt"]


@dataclass(frozen=True)
class Adapter:
    """One adapter folder, opened and checked."""

    folder: Path
    manifest: dict[str, Any]
    settings: peft.LoraConfig
    tensors: TensorFolder
    tokenizer: Any

    @property
    def stamp(self) -> str | None:
        """What names its weights."""
        return base_weights(str(self.folder))


@dataclass(frozen=True)
class Sources:
    """Base folder, adapters in order, and the tokenizer that the merged model has."""

    base: Path
    base_name: str
    base_tensors: TensorFolder
    base_tokenizer: Any
    base_stamp: str | None
    adapters: tuple[Adapter, ...]
    tokenizer: Any
    tokenizer_dir: Path
    manifest: dict[str, Any]
    """Of the last adapter, or of the whole model."""
    not_compared: tuple[str, ...]
    """What could not be compared, in words."""


def open_sources(model: Path | None, adapters: Sequence[Path], base: str | None) -> Sources:
    """Return what to merge: `adapters` in order, or `model` (one adapter, or a whole model without any).

    Raises MissingFileError, InputError (pickles, missing shards, cut files, no chat template), MismatchError (another base or vocabulary).
    """
    folders = list(adapters) or ([model] if model is not None and (model / ADAPTER_CONFIG).is_file() else [])
    if not folders:
        assert model is not None
        return _whole_model(model)
    opened = tuple(_open_adapter(folder) for folder in folders)
    first, last = opened[0], opened[-1]
    name = base or first.manifest.get("base")
    if name is None:
        raise InputError(f"{first.folder}: the manifest names no base", "the output of `llama-gene pretrain` or `sft`", "Give --base")
    base_dir = _base_dir(str(name), first.folder)
    tensors = TensorFolder(base_dir)  # a missing shard, a cut file or a pickle ends here, however it is merged
    base_tokenizer = load_tokenizer(base_dir)
    not_compared = _check_first(first, base_dir, str(name), vocabulary_fingerprint(base_tokenizer))
    for before, after in pairwise(opened):
        not_compared += _check_next(before, after)
    _check_template(last.folder)
    stamp = base_weights(str(base_dir))
    own = (last.tokenizer, last.folder, last.manifest)
    return Sources(base_dir, str(name), tensors, base_tokenizer, stamp, opened, *own, tuple(not_compared))


def _whole_model(model: Path) -> Sources:
    """Return a whole model as its own base."""
    manifest = runtime.read_manifest(model)
    if not (model / "config.json").is_file():
        raise InputError(f"{model} holds neither {ADAPTER_CONFIG} nor config.json", "an adapter or a model folder", "Check the path")
    tokenizer = load_tokenizer(model)
    check_vocabulary(manifest.get("vocabulary"), tokenizer, str(model))
    _check_template(model)
    name, tensors, stamp = str(manifest.get("base") or model), TensorFolder(model), base_weights(str(model))
    return Sources(model, name, tensors, tokenizer, stamp, (), tokenizer, model, manifest, ())


def _open_adapter(folder: Path) -> Adapter:
    """Return one adapter folder, opened and checked by itself."""
    if not folder.is_dir():
        raise MissingFileError(folder, "an adapter folder (written by `llama-gene pretrain` or `sft`)")
    manifest = runtime.read_manifest(folder)
    if not (folder / ADAPTER_CONFIG).is_file():
        raise InputError(f"{folder} has no {ADAPTER_CONFIG}", "an adapter folder", "Check the path")
    tensors = TensorFolder(folder, "adapter_model*.safetensors")
    tokenizer = load_tokenizer(folder)
    check_vocabulary(manifest.get("vocabulary"), tokenizer, str(folder))
    try:
        settings: Any = peft.PeftConfig.from_pretrained(str(folder))
    except (ValueError, TypeError, KeyError, OSError) as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise InputError(f"{folder / ADAPTER_CONFIG}: {reason}", "PEFT's config of an adapter", "Copy or train it again") from error
    settings.inference_mode = True
    return Adapter(folder, manifest, settings, tensors, tokenizer)


def _base_dir(name: str, adapter: Path) -> Path:
    """Return the folder of a base: a local one, or a hub model's files, downloaded where they are not here yet."""
    local = Path(name).expanduser()
    if local.is_dir():
        if (local / ADAPTER_CONFIG).is_file():
            raise InputError(f"the base {local} is an adapter itself", "a whole model", "Give both: --adapter FIRST SECOND")
        return local
    if local.is_file() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        action = "Put it back, or say where it is: --base FOLDER"
        raise MissingFileError(name, f"the base that the adapter {adapter} was trained on", action)
    from huggingface_hub import snapshot_download

    try:
        offline = bool(os.environ.get("HF_HUB_OFFLINE"))
        return Path(snapshot_download(name, allow_patterns=HUB_FILES, local_files_only=offline))
    except (OSError, ValueError) as error:
        raise hub_error(name, error) from error


def _check_first(adapter: Adapter, base: Path, name: str, vocabulary: str) -> list[str]:
    """Compare the base with the one that the first adapter was trained on, by vocabulary and by weights."""
    manifest = adapter.manifest
    action = "Use the base that the adapter was trained on"
    if manifest.get("base_vocabulary") != vocabulary:
        raise MismatchError(
            f"the base {name} has vocabulary {vocabulary}",
            f"{manifest.get('base_vocabulary')}, on which the adapter {adapter.folder} was trained",
            action,
        )
    known, found = manifest.get("base_weights"), base_weights(str(base))
    if known is None or found is None:
        return [f"weights of the base: {adapter.folder.name} names its base by vocabulary only"]
    if known != found:
        fault = f"the base {name} has weights {found}"
        raise MismatchError(fault, f"{known}, on which the adapter {adapter.folder} was trained", action)
    return []


def _check_next(before: Adapter, after: Adapter) -> list[str]:
    """Check that an adapter follows another: it was trained on what that one was merged into."""
    fault = f"the adapter {after.folder}"
    vocabulary = before.manifest.get("vocabulary")
    if after.manifest.get("base_vocabulary") != vocabulary:
        raise MismatchError(
            f"{fault} was trained on vocabulary {after.manifest.get('base_vocabulary')}",
            f"{vocabulary}, that of {before.folder}",
            "Check their order",
        )
    known = after.manifest.get("base_weights")
    if after.manifest.get("base") == before.manifest.get("base") or (known is not None and known == before.manifest.get("base_weights")):
        raise MismatchError(
            f"{fault} was trained on the same base as {before.folder}",
            "one that was trained on the merged model",
            f"It holds that training, or knows nothing of it: export it alone (--model {after.folder})",
        )
    merged = Path(str(after.manifest.get("base")))
    if known is None or not (merged / runtime.MANIFEST_NAME).is_file():
        return [f"{after.folder.name}: the merged model that it was trained on is not here; compared by vocabulary only"]
    if base_weights(str(merged)) != known:
        raise MismatchError(f"{merged} has weights {base_weights(str(merged))}", f"{known}, on which {after.folder} was trained")
    made_of = runtime.read_json(merged / runtime.MANIFEST_NAME).get("adapters")
    if made_of and made_of[-1]["weights"] != before.stamp:
        raise MismatchError(
            f"{fault} was trained on {merged}, made of adapter {made_of[-1]['name']}", f"{before.folder}", "Check their order"
        )
    return []


def _check_template(folder: Path) -> None:
    """Raise InputError when a tokenizer folder has no chat template: a server could not render the prompt that the model knows."""
    if not (folder / "chat_template.jinja").is_file():
        raise InputError(f"{folder} has no chat_template.jinja", "the prompt as a chat template", "Copy it from the tokenizer's folder")


def check_config(config: Any, base: Path) -> None:
    """Raise InputError for a base whose weights are packed in few bits: there is nothing exact to merge into."""
    packed = getattr(config, "quantization_config", None)
    if packed is not None:
        kind = packed.get("quant_method") if isinstance(packed, dict) else getattr(packed, "quant_method", "packed")
        raise InputError(f"the weights of {base} are packed ({kind})", "the base in full precision", "Give it with --base")
