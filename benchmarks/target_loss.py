"""How much instruction tuning gains from computing logits at target positions only, beside transformers' own loss, in one run.

Both arms train the same model on the same packed rows (about one token in twenty is a target), in turns A B B A, so that a noisy
machine disturbs both alike. Prints the ratio of the medians; a lone time means nothing here.

    python benchmarks/target_loss.py [--width 96] [--layers 4] [--vocab_size 2560] [--rounds 8]
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from llama_gene.training.loss import TargetLoss

ROWS, TOKENS, SEGMENT, TARGETS = 2, 384, 128, 6  # rows a step, tokens a row, tokens an example, target tokens an example


def build(width: int, layers: int, vocab_size: int) -> LlamaForCausalLM:
    """Return a random model of the demo's kind."""
    torch.manual_seed(0)
    feed_forward = -(-width * 8 // 3 // 32) * 32
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size, hidden_size=width, intermediate_size=feed_forward, num_hidden_layers=layers,
            num_attention_heads=4, num_key_value_heads=4,
        )
    )  # fmt: skip


def step(model: LlamaForCausalLM, batch: dict[str, torch.Tensor], loss_function: TargetLoss | None) -> float:
    """Return the seconds of one forward and backward pass."""
    started = time.perf_counter()
    if loss_function is None:
        loss = model(**batch, use_cache=False).loss
    else:
        loss_function.see(batch["labels"])
        outputs = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False)
        loss = loss_function(outputs, batch["labels"])
    loss.backward()
    model.zero_grad()
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--vocab_size", type=int, default=2560)
    parser.add_argument("--rounds", type=int, default=8)
    asked = parser.parse_args()
    input_ids = torch.randint(0, asked.vocab_size, (ROWS, TOKENS), generator=torch.Generator().manual_seed(1))
    positions = (torch.arange(TOKENS) % SEGMENT).expand(ROWS, TOKENS)
    labels = torch.where(positions >= SEGMENT - TARGETS, input_ids, -100)
    batch = {"input_ids": input_ids, "position_ids": positions, "labels": labels}
    plain, ours = build(asked.width, asked.layers, asked.vocab_size), build(asked.width, asked.layers, asked.vocab_size)
    target_loss = TargetLoss(ours)
    seconds: dict[str, list[float]] = {"transformers": [], "targets only": []}
    for turn in range(asked.rounds + 2):
        order = [("transformers", plain, None), ("targets only", ours, target_loss)]
        for name, model, loss_function in order + order[::-1]:
            taken = step(model, batch, loss_function)
            if turn >= 2:  # the first rounds warm up
                seconds[name].append(taken)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, values in seconds.items():
        print(f"{name:<13} median {1000 * medians[name]:.1f} ms a step (min {1000 * min(values):.1f}, max {1000 * max(values):.1f})")
    print(f"ratio {medians['transformers'] / medians['targets only']:.2f}x")


if __name__ == "__main__":
    main()
