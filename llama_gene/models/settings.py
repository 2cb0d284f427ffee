"""Settings of models and adapters; no torch, so that the command line reads them quickly."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Precision = Literal["float32", "bfloat16", "float16"]
EmbeddingInit = Literal["pieces", "mean", "normal"]


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
    modules_to_save: list[str] = field(default_factory=lambda: ["embed_tokens", "lm_head"])
    """Layers trained and saved whole; the default is the paper's, and what a grown vocabulary needs."""
    init: Literal["default", "gaussian", "pissa", "olora", "orthogonal"] = "default"
    """How A and B start; the randomised PiSSA variants are left out, since they do not reload exactly."""
