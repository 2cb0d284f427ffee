"""How a causal model remembers what it has read: keys and values, which can be cut back to a prompt, or a state, which cannot."""

from __future__ import annotations

import inspect
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel


def keeps_a_state(model: PreTrainedModel) -> bool:
    """Return whether a model has layers that remember by a state (Mamba, RWKV, RecurrentGemma, Jamba)."""
    return bool(getattr(model, "_is_stateful", False))


def takes_a_cache(model: PreTrainedModel) -> bool:
    """Return whether a model reads `past_key_values`. One that does not (Mamba, RWKV) takes the argument and forgets the prompt."""
    inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    return "past_key_values" in inspect.signature(inner.forward).parameters
