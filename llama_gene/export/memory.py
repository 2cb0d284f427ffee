"""Load a base with its adapters whole, and merge them with PEFT: the reference of the gate, and the way for what cannot be streamed.

Memory: the whole model in float32, and its copy when the folder is read back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from llama_gene.errors import LlamaGeneError, MismatchError
from llama_gene.export.folder import copy_tokenizer_files, generation_config
from llama_gene.export.gate import check_merge, logit_gap, probe_logits
from llama_gene.export.sources import Sources
from llama_gene.models.adapters import apply_adapter
from llama_gene.models.build import load_base
from llama_gene.models.settings import Precision, Quantize


def load_unmerged(sources: Sources, quantize: Quantize = "none") -> Any:
    """Return PEFT's model of the last adapter, the earlier ones merged into its base by PEFT; a whole model as it is. In float32.

    `quantize` packs the base as the adapter's training did.
    """
    model: Any = load_base(sources.base, "float32", quantize)
    tokenizer = sources.base_tokenizer
    for number, adapter in enumerate(sources.adapters):
        if number:
            model = model.merge_and_unload()
        model = apply_adapter(model, tokenizer, adapter.tokenizer, adapter.manifest, adapter.folder)
        tokenizer = adapter.tokenizer
    model.eval()
    return model


def quantized_gap(sources: Sources, expected: list[torch.Tensor]) -> tuple[float | None, str]:
    """Return (gap between the adapter on the full base and on the packed one that it was trained on, reason why there is none)."""
    quantize: Any = sources.manifest.get("quantize", "none") if sources.adapters else "none"
    if quantize == "none":
        return None, ""
    if len(sources.adapters) > 1:
        return None, f"the {quantize} model is not made again from several adapters"
    try:
        model = load_unmerged(sources, quantize)
    except (LlamaGeneError, ImportError, RuntimeError) as error:
        return None, f"the {quantize} model cannot be loaded here: {str(error).splitlines()[0]}"
    return logit_gap(expected, probe_logits(model, sources.tokenizer)), ""


def merge_adapter(model: Any, tokenizer: Any) -> tuple[PreTrainedModel, float, int, list[torch.Tensor]]:
    """Return (merged model, gap to the unmerged one, embedding rows cut off, the unmerged model's logits).

    `model` is a PeftModel, which is changed in place and must not be used again, or an ordinary model, which is returned as it is.
    Raises MismatchError when merged and unmerged logits differ by more than float32 rounding, or rows are missing.
    """
    rows = int(model.get_input_embeddings().weight.shape[0])
    if rows < len(tokenizer):
        raise MismatchError(f"the model has {rows} embedding rows for {len(tokenizer)} tokens", "a row for each token")
    expected = probe_logits(model, tokenizer)
    merged: PreTrainedModel = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
    if rows > len(tokenizer):
        merged.resize_token_embeddings(len(tokenizer))
    return merged, check_merge(expected, probe_logits(merged, tokenizer)), rows - len(tokenizer), expected


def write_model(
    merged: PreTrainedModel, tokenizer: Any, tokenizer_dir: Path, folder: Path, precision: Precision, max_shard_size: str = "4GB"
) -> None:
    """Write safetensors, config, generation config, and copy the tokenizer's files byte for byte from `tokenizer_dir`."""
    merged.config.bos_token_id, merged.config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    merged.generation_config = generation_config(tokenizer)
    merged.to(getattr(torch, precision))
    merged.save_pretrained(folder, max_shard_size=max_shard_size)
    copy_tokenizer_files(tokenizer_dir, folder)
