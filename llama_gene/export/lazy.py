"""Run a model whose weights are read when a layer needs them, and dropped behind it: in the memory of its largest layer.

An empty model (accelerate's meta device) gets, before each layer's forward pass, the tensors that a mapping gives for its names. The
unmerged model is PEFT's own, with PEFT's own arithmetic: W x + s B (A x), and DoRA, and the rows of trained tokens; only where its tensors
come from is ours. It is what the merge is compared with where two whole models do not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import peft
import torch
from accelerate import init_empty_weights
from accelerate.hooks import attach_align_device_hook
from transformers import PreTrainedModel

from llama_gene.export.plan import PREFIX, empty_model
from llama_gene.export.tensors import TensorFolder

WRAPPERS = ("base_layer", "original_module", "token_adapter")  # what PEFT puts between a module's name and its weight's
NAMED = ".default"  # PEFT's name of an adapter, absent in its file
AT_ONCE = ["Linear", "Conv1D", "Embedding", "TrainableTokensWrapper"]  # modules that reach into the weights of those inside them


class LazyTensors(Mapping[str, torch.Tensor]):
    """A mapping from names to tensors in float32 that are read anew each time."""

    def __init__(self, names: Sequence[str], read: Callable[[str], torch.Tensor]) -> None:
        self.names = names
        self.read = read

    def __getitem__(self, name: str) -> torch.Tensor:
        tensor = self.read(name)
        return tensor.float() if tensor.is_floating_point() else tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def lazy_model(config: Any, read: Callable[[str], torch.Tensor]) -> PreTrainedModel:
    """Return a model of a config whose tensors `read` gives by name."""
    model = empty_model(config)
    _attach(model, read)
    return model


def lazy_adapter(config: Any, read_base: Callable[[str], torch.Tensor], settings: peft.LoraConfig, tensors: TensorFolder, tied: str) -> Any:
    """Return PEFT's model of a base whose tensors `read_base` gives, and one adapter, not merged.

    `tied` is the embedding's name where the head of the base is the embedding, else empty: one of the two may be absent in the file.
    """
    with init_empty_weights(include_buffers=False):
        model: Any = peft.get_peft_model(empty_model(config), settings, low_cpu_mem_usage=True)
    for module in model.modules():  # what trained rows replace, kept by PEFT for taking them out again, which nobody asks for
        for name, buffer in list(module.named_buffers(recurse=False)):
            if buffer.is_meta:
                setattr(module, name, torch.empty(0)) if hasattr(module, name) else module.__setitem__(name, torch.empty(0))

    def read(name: str) -> torch.Tensor:
        name = name.removeprefix(PREFIX)
        if NAMED not in name:
            return read_base(_without_wrappers(name))
        stored = PREFIX + name.replace(NAMED, "").replace(".modules_to_save", "")
        for key in (stored, stored.removesuffix(".weight"), PREFIX + tied, _like_tied(stored, tied)):
            if key in tensors:
                return tensors.read(key)
        raise KeyError(name)

    _attach(model, read)
    return model.eval()


def _without_wrappers(name: str) -> str:
    """Return the name that a weight has in the base.

    >>> _without_wrappers("model.embed_tokens.token_adapter.base_layer.weight")
    'model.embed_tokens.weight'
    """
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _like_tied(stored: str, tied: str) -> str:
    """Return the key of the embedding's trained rows for that of a head that shares them."""
    module, _, part = stored.partition(".token_adapter.")
    return f"{PREFIX}{tied.removesuffix('.weight')}.token_adapter.{part}" if tied and part else module


def _attach(model: Any, read: Callable[[str], torch.Tensor]) -> None:
    """Let a model's layers read their tensors when they run."""
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    attach_align_device_hook(
        model, execution_device="cpu", offload=True, weights_map=LazyTensors(names, read), preload_module_classes=AT_ONCE
    )
