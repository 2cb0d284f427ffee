"""Settings of models and adapters; no torch, so that the command line reads them quickly."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Precision = Literal["float32", "bfloat16", "float16"]
EmbeddingInit = Literal["pieces", "quiet", "mean", "normal"]
Quantize = Literal["none", "nf4", "int8"]


@dataclass
class Architecture:
    """Shape of a model made from scratch."""

    family: Literal["llama", "gpt2"] = "llama"
    """llama: RMSNorm, rotary positions, gated feed-forward; gpt2: the DNAHLM paper's network."""
    width: int = 128
    """Size of a token's vector (hidden_size)."""
    layers: int = 4
    """Number of transformer blocks."""
    heads: int = 4
    """Number of attention heads; width must be divisible by it."""
    feed_forward: int = 0
    """Width of the feed-forward layer; 0: 8/3 of width for llama (rounded up to 32), 4 x width for gpt2."""
    max_length: int = 1024
    """Longest input, in tokens."""
    tie_embeddings: bool = False
    """Share one matrix between the input embedding and the output head."""


@dataclass
class LoraSettings:
    """Low-rank adaptation, the papers' way (LLaMA-Gene 2.3.2)."""

    rank: int = 8
    """Rank r of the update B A."""
    alpha: float = 32.0
    """Scale: the update is multiplied by alpha / rank."""
    dropout: float = 0.05
    """Dropout before A."""
    target_modules: list[str] = field(default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])
    """Linear layers that get an update; the default is the paper's."""
    target_parameters: list[str] = field(default_factory=list)
    """Names of weights that are no linear layer of their own and get an update, such as the stacked experts of a mixture of experts."""
    modules_to_save: list[str] = field(default_factory=lambda: ["embed_tokens", "lm_head"])
    """Layers trained and saved whole; the default is the paper's, and what a grown vocabulary needs."""
    rows: Literal["all", "new"] = "all"
    """Embedding rows that train, of the layers in modules_to_save: all of them (the paper's), or those of new ids only; then the rows of
    base ids keep their bits, and the adapter holds the new ones alone."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) instead (rsLoRA, Kalajdzievski 2023): for ranks of 32 and more."""
    dora: bool = False
    """Train the size of each output apart from its direction (DoRA, Liu et al. 2024); slower."""
    quantize: Quantize = "none"
    """QLoRA: the frozen weights in 4 or 8 bits (bitsandbytes), a quarter or half of the memory; what trains stays in full precision."""
    init: Literal["default", "gaussian", "pissa", "olora", "orthogonal"] = "default"
    """How A and B start; the randomised PiSSA variants are left out, since they do not reload exactly."""
