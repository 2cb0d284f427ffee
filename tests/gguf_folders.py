"""Exported folders of tiny models with spliced tokenizers, for the tests of GGUF: made by the export recipe itself."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from llama_gene import runtime
from llama_gene.data.prompts import chat_template, prompt_fingerprint
from llama_gene.recipes import export
from llama_gene.tokenization.bpe import Vocabulary
from llama_gene.tokenization.tokenizer import vocabulary_fingerprint, write_tokenizer
from tests.fixtures.tiny_vocabularies import spliced


@dataclass(frozen=True)
class Exported:
    """An exported folder and the model in it."""

    folder: Path
    model: PreTrainedModel


LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip


def small_llama(vocab_size: int, tied: bool = False, kv_heads: int = 4, seed: int = 0, **changes: object) -> LlamaForCausalLM:
    """Return a random LLaMA of width 64: rows that q8_0 can hold, and weights large enough for logits of a few units."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=kv_heads, max_position_embeddings=1024, tie_word_embeddings=tied, initializer_range=0.2, **changes,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def export_folder(model: PreTrainedModel, vocabulary: Vocabulary, folder: Path, dtype: str = "float32", **settings: str) -> Path:
    """Write a model with a vocabulary as a training stage would, export it, return the exported folder: folder/exported."""
    trained = folder / "trained"
    model.save_pretrained(trained)
    tokenizer = vocabulary.tokenizer()
    write_tokenizer(tokenizer, trained, chat_template())
    vocabulary.write_native(trained)
    facts = {"base": "tiny/base", "vocabulary": vocabulary_fingerprint(tokenizer), "prompt": prompt_fingerprint(), "template": "alpaca"}
    runtime.write_manifest(trained, "pretrain", {}, **facts)
    return export.run(export.Config(model=trained, dtype=dtype, output_dir=folder / "exported", **settings))  # type: ignore[arg-type]


@cache
def exported(kind: str) -> Exported:
    """Return an export of each shape, made once for all tests: `sentencepiece` as LLaMA-2, `tiktoken` as Llama-3.2 (GQA, scaled, tied)."""
    scratch = Path(tempfile.mkdtemp(prefix="gguf_"))
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    vocabulary = spliced(kind).full
    if kind == "sentencepiece":
        model = small_llama(vocabulary.num_ids)
    else:
        model = small_llama(vocabulary.num_ids, tied=True, kv_heads=2, rope_parameters=LLAMA3_ROPE)
    return Exported(export_folder(model, vocabulary, scratch), model)
