"""A classification head on a causal language model, the DNAHLM way (2.3.3). B rows, T tokens, K labels, N rows in all, D width.

The classes are transformers' own (LlamaForSequenceClassification, GPT2ForSequenceClassification, ...), so that
AutoModelForSequenceClassification and `pipeline("text-classification")` load what is written here. They project every position,
(B, T, D) -> (B, T, K), and keep the row's last token that is not `config.pad_token_id`. Rows are padded on the right: attention is
causal, so nothing that precedes the kept token sees padding, and a score does not depend on batch mates (law 8).

A row is [BOS] sequence EOS. Where the tokenizer has no pad token, its unknown token pads (a vocabulary that spells bytes never gives it for
a text). Where there is none either (LLaMA-3, GPT-2), EOS pads, the row's own EOS counts as padding and the last letters' token is kept.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
from numpy.typing import NDArray
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

from llama_gene import runtime
from llama_gene.errors import ConfigError, InputError, MismatchError
from llama_gene.models.adapters import ADAPTER_CONFIG, check_vocabulary
from llama_gene.models.build import load_base
from llama_gene.models.settings import Precision
from llama_gene.tokenization.tokenizer import load_tokenizer, write_tokenizer


def padding_id(tokenizer: PreTrainedTokenizerFast) -> int:
    """Return the id that pads rows: pad or unknown where the tokenizer has one of its own for it, else EOS."""
    taken = (None, tokenizer.bos_token_id, tokenizer.eos_token_id)
    return int(next((i for i in (tokenizer.pad_token_id, tokenizer.unk_token_id) if i not in taken), tokenizer.eos_token_id))


def new_classifier(name_or_path: str | Path, tokenizer: PreTrainedTokenizerFast, labels: Sequence[str], seed: int = 0) -> Any:
    """Return a causal model's body, in float32, under a fresh head drawn from the seed; `labels` go into its config.

    Raises InputError and MissingFileError as `load_base` does, ConfigError for an adapter folder or a family without such a class,
    MismatchError when the folder's tokenizer is not the one its weights were trained with.
    """
    path = Path(name_or_path).expanduser()
    refuse_adapter(path)
    causal: Any = load_base(name_or_path)
    rows = causal.get_input_embeddings().weight.shape[0]
    if rows < len(tokenizer):
        raise MismatchError(f"{name_or_path}: {rows:,} embedding rows for {len(tokenizer):,} ids", "at least a row an id")
    if (path / runtime.MANIFEST_NAME).is_file():
        check_vocabulary(runtime.read_json(path / runtime.MANIFEST_NAME).get("vocabulary"), tokenizer, str(path))
    config = causal.config
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: k for k, label in enumerate(labels)}
    config.pad_token_id = padding_id(tokenizer)
    config.problem_type = "single_label_classification"
    try:
        with torch.device("meta"):  # its body is replaced at once
            model: Any = AutoModelForSequenceClassification.from_config(config)
    except ValueError as error:
        raise ConfigError(
            f"{name_or_path} is a {config.model_type}", "a family with a sequence-classification class", "Use another base"
        ) from error
    setattr(model, model.base_model_prefix, causal.base_model)
    width = model.score.in_features
    weight = torch.randn(len(labels), width, generator=torch.Generator().manual_seed(seed)) * config.initializer_range
    model.score = torch.nn.Linear(width, len(labels), bias=False, device="meta")
    model.score.weight = torch.nn.Parameter(weight)
    return model


def refuse_adapter(path: Path) -> None:
    """Raise ConfigError, with the command to run, where a whole model is wanted and the folder holds an adapter."""
    if (path / ADAPTER_CONFIG).is_file():
        raise ConfigError(
            f"{path} is an adapter", "a whole model", f"Export it first: llama-gene export --model {path} --output_dir FOLDER"
        )


def load_classifier(folder: Path, precision: Precision = "float32") -> tuple[Any, PreTrainedTokenizerFast]:
    """Return (model, tokenizer) of a folder that `llama-gene classify` wrote, whole or LoRA: in eval mode, on the GPU if there is one."""
    manifest = runtime.read_manifest(folder, "classify")
    tokenizer = load_tokenizer(folder)
    check_vocabulary(manifest["vocabulary"], tokenizer, str(folder))
    if (folder / ADAPTER_CONFIG).is_file():
        base = manifest["base"]
        check_vocabulary(manifest["vocabulary"], load_tokenizer(base), base)
        body = new_classifier(base, tokenizer, manifest["labels"])
        model: Any = peft.PeftModel.from_pretrained(body, str(folder)).to(getattr(torch, precision))
    else:
        model = AutoModelForSequenceClassification.from_pretrained(str(folder), dtype=getattr(torch, precision))
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer


def write_row_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the tokenizer such that `tokenizer(sequence)` gives the rows that the head was trained on: [BOS] sequence EOS, padded right."""
    rows = copy.deepcopy(tokenizer)
    special: list[str] = [token for token in (rows.bos_token, rows.eos_token) if token is not None]
    backend: Any = rows.backend_tokenizer
    backend.post_processor = TemplateProcessing(
        single=[*special[:-1], "$A", special[-1]],
        special_tokens=[(token, rows.convert_tokens_to_ids(token)) for token in dict.fromkeys(special)],
    )
    rows.pad_token = rows.convert_ids_to_tokens(padding_id(tokenizer))
    write_tokenizer(rows, folder)


def pad_rows(rows: Sequence[Sequence[int]], pad_id: int) -> dict[str, torch.Tensor]:
    """Return input_ids and attention_mask, (B, T), of rows padded on the right."""
    longest = max(map(len, rows))
    return {
        "input_ids": torch.tensor([[*row, *[pad_id] * (longest - len(row))] for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows]),
    }


def classify_rows(model: Any, rows: Sequence[Sequence[int]], batch_tokens: int = 16384) -> NDArray[np.float64]:
    """Return the logits of rows of token ids, (N, K), in the order of `rows`; `batch_tokens` bounds a batch, padding included."""
    if any(not row for row in rows):
        raise InputError("a row has no token", "at least one", "Leave empty sequences out")
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    logits_NK = np.zeros((len(rows), model.config.num_labels))
    start = 0
    with torch.inference_mode():
        while start < len(order):
            batch = order[start : start + max(1, batch_tokens // len(rows[order[start]]))]
            inputs = pad_rows([rows[i] for i in batch], model.config.pad_token_id)
            inputs = {name: values.to(model.device) for name, values in inputs.items()}
            logits_NK[batch] = model(**inputs, use_cache=False).logits.double().cpu().numpy()
            start += len(batch)
    return logits_NK
