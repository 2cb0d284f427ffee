"""LLaMA-Gene: a language model learns to read genes without forgetting how to read people.

The public names are imported when they are first used: `import llama_gene` loads no torch.

>>> import llama_gene
>>> llama_gene.reverse_complement("ATGC")
'GCAT'
"""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "reverse_complement": "llama_gene.sequences.alphabet",
    "translate": "llama_gene.sequences.alphabet",
    "read_records": "llama_gene.sequences.records",
    "load_tokenizer": "llama_gene.tokenization.tokenizer",
    "vocabulary_fingerprint": "llama_gene.tokenization.tokenizer",
    "encode_prompt": "llama_gene.data.prompts",
    "load_model": "llama_gene.models.adapters",
    "score_labels": "llama_gene.inference.scoring",
    "LlamaGeneError": "llama_gene.errors",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'llama_gene' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
