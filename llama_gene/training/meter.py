"""How fast a run is and what memory it takes: tokens per second, model FLOPs utilization, peak memory.

FLOPs a token: 2 for each weight of a matrix in the forward pass, 2 for its input's gradient, and 2 for its own gradient where it trains
(LoRA leaves that out for the frozen ones), and 12 x layers x width x row length / 2 for attention. Recomputing activations earns nothing,
so MFU is what the hardware did for the model, whatever way was taken. 7B with 91,598 rows of 512 tokens: 28.7 GFLOPs a token.
"""

from __future__ import annotations

import resource
import sys
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from llama_gene import runtime

# dense 16-bit tensor throughput of one device, TFLOP/s, as its maker gives it
PEAK_TFLOPS = {
    "B200": 2250, "H200": 989, "H100 NVL": 835, "H100 PCIe": 756, "H100": 989, "H20": 148, "A100": 312, "A800": 312, "A6000": 155,
    "A40": 150, "A10": 125, "L40S": 362, "L40": 181, "L20": 119.5, "L4": 121, "RTX 4090": 165, "RTX 3090": 71, "V100": 125, "T4": 65,
}  # fmt: skip


class Meter:
    """Measures from one log line to the next; `tokens` holds the running sum of trained tokens after each step, all processes together."""

    def __init__(self, model: Any, tokens: NDArray[np.int64], row_length: int) -> None:
        self.flops = flops_per_token(model, row_length)
        self.tokens = tokens
        self.clock, self.step = time.monotonic(), 0

    def start(self, step: int) -> None:
        """Begin to measure at a step."""
        self.clock, self.step = time.monotonic(), step

    def read(self, step: int) -> dict[str, float]:
        """Return tokens_per_second, memory_gb and, on a device that PEAK_TFLOPS knows, mfu, since the last one; {} without a step."""
        now = time.monotonic()
        if step <= self.step or now <= self.clock:
            return {}
        before = int(self.tokens[self.step - 1]) if self.step else 0
        speed = (int(self.tokens[step - 1]) - before) / (now - self.clock)
        self.clock, self.step = now, step
        found = {"tokens_per_second": round(speed, 1), "memory_gb": round(peak_memory() / 1e9, 2)}
        peak = device_peak()
        if peak:
            found["mfu"] = round(speed * self.flops / (peak * runtime.world_size()), 4)
        return found


def flops_per_token(model: Any, row_length: int) -> float:
    """Return the floating-point operations of forward and backward pass for a token of a row of `row_length` tokens."""
    config = model.config.get_text_config()
    embedding = model.get_input_embeddings()
    head = model.get_output_embeddings()
    tables = {id(parameter) for parameter in embedding.parameters()} - {id(parameter) for parameter in (head.parameters() if head else ())}
    total = 0.0
    packed = ("Params4bit",)  # two weights in a byte
    unused = {name for name, _ in model.named_parameters() if ".original_module." in name}  # PEFT's frozen copies of what it trains whole
    for name, parameter in model.named_parameters():
        size = int(getattr(parameter, "ds_numel", parameter.numel())) * (2 if type(parameter).__name__ in packed else 1)
        if getattr(parameter, "ndim", 1) < 2 and not hasattr(parameter, "ds_numel"):
            continue
        if id(parameter) in tables or name in unused:
            continue
        total += (6.0 if parameter.requires_grad else 4.0) * size
    return float(total + 6.0 * config.num_hidden_layers * config.hidden_size * row_length)


def device_peak() -> float:
    """Return the FLOP/s that this process's device can do in 16 bits, 0 where it is not known."""
    if not torch.cuda.is_available():
        return 0.0
    name = torch.cuda.get_device_name()
    return next((1e12 * value for key, value in PEAK_TFLOPS.items() if key in name), 0.0)


def peak_memory() -> int:
    """Return the most bytes that this process has held: of the GPU where there is one, else of the host."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
