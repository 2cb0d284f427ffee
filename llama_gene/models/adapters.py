"""LoRA adapters: attach, save, load and check that an adapter meets the base and the tokenizer it was trained with.

An adapter folder holds PEFT's files, the tokenizer's files and a manifest with the base's name, how new embedding rows started, the
vocabulary fingerprint and the prompt fingerprint. Loading compares them and names both sides when they differ.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from llama_gene import runtime
from llama_gene.errors import ConfigError, InputError, MismatchError, MissingFileError
from llama_gene.models.build import load_base, refuse_pickled_weights
from llama_gene.models.embeddings import grow_embeddings
from llama_gene.models.settings import LoraSettings, Precision, Quantize
from llama_gene.tokenization.tokenizer import load_tokenizer, vocabulary_fingerprint

ADAPTER_CONFIG = "adapter_config.json"
STAMP_BYTES = 2**20  # of each end of a weights file


def attach_lora(model: PreTrainedModel, settings: LoraSettings, seed: int = 0, new_rows: range | None = None) -> peft.PeftModel:
    """Return the model with a fresh adapter drawn from the seed; no logit changes until it is trained (law 5).

    `new_rows` are the ids that a splice added: all that trains of embedding and head with `rows: new`. What trains is kept in float32.
    Raises ConfigError when a named module does not exist in this model, or only new rows shall train and there are none.
    """
    modules = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()}
    parameters = {name.rsplit(".", 1)[-1] for name, _ in model.named_parameters()}
    for wanted in (*settings.target_modules, *settings.modules_to_save, *settings.target_parameters):
        last = wanted.rsplit(".", 1)[-1]
        if last not in (parameters if wanted in settings.target_parameters else modules):
            kinds = (torch.nn.Linear, torch.nn.Embedding, Conv1D)  # Conv1D: GPT-2's linear layer
            linear = sorted({name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, kinds)})
            raise ConfigError(
                f"the model has no module '{wanted}'",
                f"modules such as {', '.join(linear)}",
                "Set lora.target_modules and lora.modules_to_save",
            )
    head = model.get_output_embeddings()  # None in a classifier, which has a score layer instead, tied to nothing
    whole = list(settings.modules_to_save)
    embeddings = [_leaf_name(model, layer) for layer in (model.get_input_embeddings(), head) if layer is not None]
    tied = head is not None and bool(model.config.tie_word_embeddings) and any(name in whole for name in embeddings)
    indices: dict[str, list[int]] | list[int] | None = None
    if settings.rows == "new":
        if not new_rows:
            raise ConfigError(
                "lora.rows is 'new' and the vocabulary has no new rows", "a base that the splice extends", "Set lora.rows all"
            )
        chosen = [name for name in embeddings if name in whole]
        if not chosen:
            raise ConfigError("lora.rows is 'new' and modules_to_save names no embedding", " and ".join(embeddings), "Name them")
        whole = [name for name in whole if name not in embeddings]
        indices = list(new_rows) if tied else {name: list(new_rows) for name in chosen}
    elif tied:  # PEFT trains the two as one matrix if it finds both among the names (of GPT-2 it knows the head's only)
        whole += [name for name in embeddings if name not in whole]
    config = peft.LoraConfig(
        task_type=peft.TaskType.CAUSAL_LM if head is not None else peft.TaskType.SEQ_CLS,
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # PEFT divides it by r: a float is as good
        lora_dropout=settings.dropout,
        target_modules=list(settings.target_modules),
        target_parameters=list(settings.target_parameters) or None,
        modules_to_save=whole or None,
        trainable_token_indices=indices or None,
        ensure_weight_tying=tied and settings.rows == "all",
        use_rslora=settings.rslora,
        use_dora=settings.dora,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        init_lora_weights=True if settings.init == "default" else settings.init,
    )
    torch.manual_seed(seed)  # else A would differ from run to run
    adapted = peft.get_peft_model(model, config)
    widen_trained(adapted)
    return adapted


def widen_trained(model: torch.nn.Module) -> None:
    """Keep in float32 what trains: steps of 1e-4 are lost in the 8 bits of a bfloat16 (PEFT leaves embeddings as the base has them)."""
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16):
            parameter.data = parameter.data.float()


def save_adapter(model: peft.PeftModel, folder: Path | str, state_dict: dict[str, Any] | None = None) -> None:
    """Write an adapter's weights and config, without the base's embeddings: those of new ids are made again by `grow_embeddings`.

    By default PEFT adds both matrices where the vocabulary has grown, trained or not, and asks the hub for the base's config.
    """
    config: Any = model.peft_config[model.active_adapter]
    if getattr(config, "ensure_weight_tying", False):  # PEFT took the head's name out, without which it would not tie GPT-2 again
        name = _leaf_name(model, model.get_output_embeddings())
        config.modules_to_save = [*(other for other in config.modules_to_save or [] if other != name), name]
    model.save_pretrained(str(folder), state_dict=state_dict, save_embedding_layers=False)


def _leaf_name(model: torch.nn.Module, layer: Any) -> str:
    """Return the last part of a layer's name in its model."""
    names = (name for name, module in model.named_modules() if module is layer)
    return str(next(names)).rsplit(".", 1)[-1]


def load_model(
    folder: str | Path, precision: Precision = "float32", trainable: bool = False, quantize: Quantize = "none", attention: str | None = None
) -> tuple[Any, Any]:
    """Return (model, tokenizer) from an adapter folder of ours, or from any Hugging Face model folder or hub id.

    The model is in eval mode, on the GPU if there is one; `trainable` keeps an adapter's weights trainable and the model where it is, and
    holds the frozen ones in as many bits as the adapter was trained with (a model without an adapter: as `quantize` says).
    Raises MismatchError when the adapter's vocabulary is not its tokenizer's, or the base is not the one it was trained on.
    """
    path = Path(folder).expanduser()
    model: Any
    if (path / ADAPTER_CONFIG).is_file():
        model, tokenizer = _load_adapter(path, precision, trainable, attention)
    else:
        if path.is_dir() and not (path / "config.json").is_file():
            raise InputError(f"{path} holds neither {ADAPTER_CONFIG} nor config.json", "an adapter or a model folder", "Check the path")
        model = load_base(folder, precision, quantize, attention)
        tokenizer = load_tokenizer(folder)
        rows = model.get_input_embeddings().weight.shape[0]
        if rows < len(tokenizer):
            raise MismatchError(
                f"{folder}: {rows:,} embedding rows for {len(tokenizer):,} ids", "at least a row an id", "Export the model again"
            )
        manifest = path / runtime.MANIFEST_NAME
        if manifest.is_file():
            check_vocabulary(runtime.read_json(manifest).get("vocabulary"), tokenizer, str(path))
    if not trainable:
        model.eval()
        if torch.cuda.is_available():
            model.to("cuda")
    return model, tokenizer


def _load_adapter(path: Path, precision: Precision, trainable: bool, attention: str | None) -> tuple[Any, Any]:
    manifest = runtime.read_manifest(path)
    tokenizer = load_tokenizer(path)
    check_vocabulary(manifest.get("vocabulary"), tokenizer, str(path))
    base_name = manifest.get("base")
    if base_name is None:
        raise InputError(
            f"{path}: the manifest names no base", "the output of `llama-gene pretrain` or `sft`", "Train the adapter with them"
        )
    if Path(base_name).is_absolute() and not Path(base_name).is_dir():
        raise MissingFileError(
            base_name, f"the base that the adapter {path} was trained on", "Put it back, or edit 'base' in the adapter's manifest.json"
        )
    base = load_base(base_name, precision, manifest.get("quantize", "none") if trainable else "none", attention)
    base_tokenizer = load_tokenizer(base_name)
    if manifest.get("base_vocabulary") != vocabulary_fingerprint(base_tokenizer):
        raise MismatchError(
            f"the base {base_name} has vocabulary {vocabulary_fingerprint(base_tokenizer)}",
            f"{manifest.get('base_vocabulary')}, on which the adapter {path} was trained",
            "Use the base that the adapter was trained on",
        )
    model = apply_adapter(base, base_tokenizer, tokenizer, manifest, path, trainable)
    check_base(manifest, path)
    if trainable:
        widen_trained(model)
    return model, tokenizer


def apply_adapter(
    base: PreTrainedModel, base_tokenizer: Any, tokenizer: Any, manifest: dict[str, Any], path: Path, trainable: bool = False
) -> Any:
    """Return PEFT's model of a loaded base and the adapter in `path`; the base's embeddings are grown in place to `tokenizer`.

    Raises MismatchError where the weights do not fit, InputError where they cannot be read or are a pickle.
    """
    refuse_pickled_weights(path, "adapter_model*.safetensors")
    # An adapter may leave new rows as they started (modules_to_save: []): they are made again as its training made them.
    grow_embeddings(base, tokenizer, base_tokenizer, manifest.get("embedding_init", "pieces"), manifest.get("embedding_seed", 0))
    try:
        return peft.PeftModel.from_pretrained(base, str(path), is_trainable=trainable)
    except RuntimeError as error:  # PEFT's size mismatch
        raise MismatchError(
            f"the adapter {path} does not fit {manifest.get('base')}: {str(error).strip().splitlines()[-1].strip()}",
            "weights of equal shape",
        ) from error
    except SafetensorError as error:
        raise InputError(f"the weights of the adapter {path} cannot be read: {error}", "a whole file", "Copy or train it again") from error


def check_base(manifest: dict[str, Any], path: Path) -> None:
    """Raise MismatchError where the base of an adapter is not, by content, the one that it was trained on: same names, other weights."""
    known, base = manifest.get("base_weights"), manifest["base"]
    found = base_weights(base)
    if known is not None and found is not None and known != found:
        raise MismatchError(
            f"the base {base} has weights {found}",
            f"{known}, on which the adapter {path} was trained",
            "Put the base's own weights back, or train the adapter again",
        )


def base_weights(name: str) -> str | None:
    """Return what names the weights of a base: the name, size and both ends of each file of a local folder; None for a hub id.

    The ends of a safetensors file hold the names, shapes and first weights, and the last ones; 14 GB are not read for it.
    """
    stamp: list[Any] = []
    for file in sorted(Path(name).glob("*.safetensors")):
        size = file.stat().st_size
        with file.open("rb") as handle:
            ends = handle.read(STAMP_BYTES)
            handle.seek(max(0, size - STAMP_BYTES))
            ends += handle.read()
        stamp.append([file.name, size, hashlib.sha256(ends).hexdigest()])
    return runtime.fingerprint(stamp) if stamp else None


def check_vocabulary(expected: str | None, tokenizer: Any, where: str) -> None:
    """Raise MismatchError when a folder's manifest names another vocabulary than its tokenizer files hold."""
    found = vocabulary_fingerprint(tokenizer)
    if expected is not None and expected != found:
        raise MismatchError(
            f"{where}: the tokenizer has vocabulary {found}",
            f"{expected}, with which the weights were trained",
            "Put the original tokenizer files back",
        )


def trainable_share(model: torch.nn.Module) -> tuple[int, int]:
    """Return (trainable parameters, all parameters)."""
    sizes = [(parameter.requires_grad, getattr(parameter, "ds_numel", parameter.numel())) for parameter in model.parameters()]
    return sum(size for trains, size in sizes if trains), sum(size for _, size in sizes)
