"""The loss, with logits at target positions only. B rows, T tokens, N targets, V vocabulary, D width.

With loss on the response alone, about one token in twenty is a target. The hidden states of the others are dropped *before* the output
head (a pre-hook on it), so the head and the cross-entropy cost N x V instead of B x T x V; the loss and every gradient are the same.
The forward pass still goes through the model as the launcher wrapped it, so DDP and ZeRO work as before. The sum of the losses is divided
by the targets of the whole global batch (all ranks, all micro-batches), which the Trainer counts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy

from llama_gene.data.packing import IGNORED


class TargetLoss:
    """Mean cross-entropy over the target tokens of the global batch."""

    def __init__(self, model: Any) -> None:
        self.targets: torch.Tensor | None = None  # (B, T) bool: position t predicts a target at t + 1
        self.hook = model.get_output_embeddings().register_forward_pre_hook(self._keep_targets)

    def see(self, labels: torch.Tensor) -> None:
        """Note which positions of the coming forward pass predict a target; `labels` (B, T), IGNORED where there is none."""
        self.targets = torch.zeros_like(labels, dtype=torch.bool)
        self.targets[:, :-1] = labels[:, 1:] != IGNORED

    def _keep_targets(self, module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self.targets is None:
            return None
        return (inputs[0][self.targets], *inputs[1:])  # (B, T, D) -> (N, D)

    def __call__(self, outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None) -> torch.Tensor:
        """Return the loss of this rank's micro-batch: its sum over the targets of the global batch."""
        wanted = labels[:, 1:][labels[:, 1:] != IGNORED]
        total = cross_entropy(outputs.logits.float(), wanted, reduction="sum")
        self.forget()
        if num_items_in_batch is None:
            return total / max(wanted.numel(), 1)
        return total / torch.clamp(torch.as_tensor(num_items_in_batch), min=1)  # a batch of rows of one token has no target

    def forget(self) -> None:
        """Let the next forward pass return the logits of all positions, unless `see` is called again."""
        self.targets = None

    def remove(self) -> None:
        """Take the hook off the head."""
        self.hook.remove()
