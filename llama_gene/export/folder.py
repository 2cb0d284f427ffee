"""What stands in an exported folder beside the weights: config, generation config, and the tokenizer's files byte for byte."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from llama_gene.models.settings import Precision

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)


def set_vocabulary(config: Any, num_ids: int, tied: bool, tokenizer: Any = None) -> Any:
    """Give a config the size of the vocabulary, whether the head is the embedding, and the tokenizer's special ids; return it."""
    config.get_text_config().vocab_size = num_ids
    config.tie_word_embeddings = tied
    if tokenizer is not None:
        config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    return config


def write_config(config: Any, architecture: str, precision: Precision, folder: Path) -> None:
    """Write config.json."""
    config.architectures = [architecture]
    config.dtype = getattr(torch, precision)
    config.save_pretrained(folder)


def generation_config(tokenizer: Any) -> GenerationConfig:
    """Return a new generation config: a hub base brings sampling (Llama 2: temperature 0.6), and label answers want greedy decoding."""
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return GenerationConfig(bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=pad, do_sample=False)


def copy_tokenizer_files(source: Path, folder: Path) -> None:
    """Copy the tokenizer's files byte for byte."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
