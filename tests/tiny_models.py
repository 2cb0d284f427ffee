"""Random two-layer models of width 32 and a byte-level tokenizer, built in memory: no download, milliseconds each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch.nn.functional import cross_entropy
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from llama_gene.data.prompts import chat_template, prompt_fingerprint
from llama_gene.runtime import write_manifest
from llama_gene.tokenization.tokenizer import vocabulary_fingerprint

PIECES = ("AC", "GT")
VOCAB_SIZE = 259  # <s>, </s>, <unk> and 256 bytes


def tiny_tokenizer(pieces: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token a byte, BOS and EOS, and two-letter `pieces` behind them; it decodes what it encodes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {piece: i for i, piece in enumerate(["<s>", "</s>", "<unk>", *alphabet, *pieces])}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[(piece[0], piece[1]) for piece in pieces], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def tiny_llama(vocab_size: int = VOCAB_SIZE, tied: bool = False, context: int = 1024, seed: int = 0, **changes: object) -> LlamaForCausalLM:
    """Return a random LLaMA with grouped-query attention; weights large enough for logits of a few units."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=context, tie_word_embeddings=tied, bos_token_id=0, eos_token_id=1, initializer_range=0.2, **changes,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def tiny_gpt2(vocab_size: int = VOCAB_SIZE, context: int = 256, seed: int = 0) -> GPT2LMHeadModel:
    """Return a random GPT-2: learned positions, tied head, dropout that `eval` must switch off."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=vocab_size, n_embd=32, n_layer=2, n_head=4, n_positions=context, bos_token_id=0, eos_token_id=1, initializer_range=0.2
    )
    return GPT2LMHeadModel(config).eval()


def tiny_mistral(vocab_size: int = VOCAB_SIZE, window: int = 8, seed: int = 0) -> MistralForCausalLM:
    """Return a random Mistral whose attention sees `window` tokens only."""
    torch.manual_seed(seed)
    config = MistralConfig(
        vocab_size=vocab_size, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        sliding_window=window, bos_token_id=0, eos_token_id=1, initializer_range=0.2,
    )  # fmt: skip
    return MistralForCausalLM(config).eval()


def nats_alone(model: PreTrainedModel, rows: Sequence[Mapping[str, list[int]]]) -> tuple[float, list[int]]:
    """Return the nats of the documents of packed rows, each read by itself, and the ids that were predicted."""
    nats, predicted = 0.0, []
    for row in rows:
        start = 0
        for length in row["lengths"]:
            ids = torch.tensor([row["input_ids"][start : start + length]])
            start += length
            if length > 1:
                with torch.no_grad():
                    nats += float(cross_entropy(model(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="sum"))
                predicted += ids[0, 1:].tolist()
    return nats, predicted


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    """Write a model folder as the Hub has them, with our chat template; return it."""
    model.save_pretrained(folder)
    tokenizer.chat_template = chat_template()
    tokenizer.save_pretrained(folder)
    return folder


def save_adapter(folder: Path, tied: bool = False, precision: torch.dtype = torch.float32) -> Path:
    """Write a base and, in folder/adapter, an adapter of random weights that grew its vocabulary by two pieces; return the latter."""
    base_tokenizer, tokenizer = tiny_tokenizer(), tiny_tokenizer(PIECES)
    base = save_model(tiny_llama(tied=tied).to(precision), base_tokenizer, folder / "base")
    model = tiny_llama(tied=tied)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    torch.manual_seed(7)
    config = LoraConfig(
        r=4, target_modules=["q_proj", "down_proj"], modules_to_save=["embed_tokens"] if tied else ["embed_tokens", "lm_head"],
        ensure_weight_tying=tied, init_lora_weights=False, task_type="CAUSAL_LM",
    )  # fmt: skip
    adapter = get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in adapter.named_parameters():
            if "modules_to_save" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    adapter.save_pretrained(folder / "adapter")
    tokenizer.chat_template = chat_template()
    tokenizer.save_pretrained(folder / "adapter")
    write_manifest(
        folder / "adapter", "sft", {}, base=str(base), base_vocabulary=vocabulary_fingerprint(base_tokenizer),
        vocabulary=vocabulary_fingerprint(tokenizer), prompt=prompt_fingerprint(), template="alpaca", steps=3, tokens=1200,
    )  # fmt: skip
    return folder / "adapter"
