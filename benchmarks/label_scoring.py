"""Label scoring beside the reference's test loop, on one model in one run: how much faster, and whether the answers are the same.

The reference's notebooks (LLaMA-Gene, llama_sft_test.ipynb) call transformers' `generate` with `max_new_tokens=8` on one prompt after
the other, in float32; greedy, as its `temperature` has no effect without `do_sample`. Every prompt is read whole, then eight tokens are
made one by one, with generate's cache. Here no token ends a loop early ("always its 8 tokens": a model that has learned to stop would
save some). The other arm is `score_labels`, which returns all labels' log-likelihoods. With `--generate_batch 64` (the default on a GPU)
a third arm stands between them: the same `generate` with 64 left-padded prompts at a time, what a user of transformers could do at best.

Prompts have 120 or 300 tokens, of which the first 66 are the same for all: BOS, template and instruction of the papers' core promoter
rows in their own tokenizer (66 to 76 in the four tasks of their committed rows); the rest is drawn. Labels have 3 tokens, EOS included
("prom", "oter", EOS), ten have ten first tokens. Weights are random. Shapes are counted whole, with their vocabulary:

    5m          width 192, 4 layers,  8,192 ids    the kind of model that the small real run trains, with its spliced vocabulary
    50m         width 256, 4 layers, 92,160 ids    the default splice behind LLaMA-2: embedding and head are 47 M of its 50.3 M
    50m_deep    width 512, 13 layers, 8,192 ids    its weights lie in its layers: the least favourable, because reading a prompt costs the
                                                   most there and both arms must read it
    1b          width 2048, 16 layers, 92,160 ids  Llama-3.2-1B's layers (8 key-value heads), embedding and head apart: 1.35 B
    7b          width 4096, 32 layers, 92,160 ids  LLaMA-2-7B with the default splice: 7.2 B
    tiny        width 64, 2 layers, 512 ids        only to see that this file runs

A round times the loop on a few prompts, the batched `generate` on one batch and scoring on many, in turns; a cell is the median over
rounds of the ratio of their times per prompt. On a CPU the ratio of CPU times beside it is less disturbed by other work on the machine;
with one thread it means the same. On a GPU every arm ends with a synchronisation, and the peak of its memory is printed (weights
included). Argmax is compared with plain passes of whole rows, one at a time, no cache, where the two best labels of the plain pass are
further apart than 1e-4 nats in float32, 0.05 in bfloat16, whose logits have 8 bits.

    python benchmarks/label_scoring.py [--rounds 5] [--num_prompts 64] [--shape 5m 50m 50m_deep]
    python benchmarks/label_scoring.py --device cuda --dtype bfloat16 --shape 1b 7b --num_prompts 256
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from llama_gene.inference.scoring import score_labels

NUM_SHARED, NUM_NEW, LABEL_TOKENS, EOS = 66, 8, 3, 2
LENGTHS, NUM_LABELS = (120, 300), (2, 10)
CLEAR = {torch.float32: 1e-4, torch.bfloat16: 0.05}
"""The gap in nats between the two best labels from which on the best one must be the same."""


@dataclass(frozen=True)
class Shape:
    """A LLaMA, embedding and head apart as in LLaMA-2."""

    width: int
    layers: int
    vocab_size: int
    heads: int = 0
    """0: heads of 64."""
    kv_heads: int = 0
    """0: as many as heads."""
    feed_forward: int = 0
    """0: 8/3 of the width."""

    def build(self, device: torch.device, dtype: torch.dtype) -> LlamaForCausalLM:
        """Return it with seeded random weights, made where and as they will be used; large enough that answers differ."""
        heads = self.heads or self.width // 64
        config = LlamaConfig(
            vocab_size=self.vocab_size, hidden_size=self.width, num_hidden_layers=self.layers, num_attention_heads=heads,
            intermediate_size=self.feed_forward or -(-self.width * 8 // 3 // 32) * 32, num_key_value_heads=self.kv_heads or heads,
            max_position_embeddings=512, initializer_range=min(0.06, 0.96 / self.width**0.5), bos_token_id=1, eos_token_id=EOS,
        )  # fmt: skip
        torch.manual_seed(0)
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            with device:
                return LlamaForCausalLM(config).eval()
        finally:
            torch.set_default_dtype(before)


SHAPES = {
    "5m": Shape(192, 4, 8192),
    "50m": Shape(256, 4, 92160),
    "50m_deep": Shape(512, 13, 8192),
    "1b": Shape(2048, 16, 92160, heads=32, kv_heads=8, feed_forward=8192),
    "7b": Shape(4096, 32, 92160, heads=32, feed_forward=11008),
    "tiny": Shape(64, 2, 512),
}
ASKED = ("5m", "50m")  # the shapes of the claim


@dataclass(frozen=True)
class Arm:
    """One way to answer prompts, with how many of them it is timed."""

    name: str
    answer: Callable[[list[list[int]]], object]
    num_prompts: int


@dataclass(frozen=True)
class Timing:
    """Seconds a prompt, and the most memory held, in bytes (0 on a CPU)."""

    wall: float
    cpu: float
    peak: int


def generate(model: LlamaForCausalLM, prompts: list[list[int]]) -> list[list[int]]:
    """Return what transformers' greedy `generate` makes of one batch of prompts, left-padded, 8 tokens each."""
    width = max(map(len, prompts))
    ids_BT = torch.tensor([[EOS] * (width - len(prompt)) + prompt for prompt in prompts], device=model.device)
    mask_BT = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device)
    made = model.generate(
        input_ids=ids_BT, attention_mask=mask_BT, max_new_tokens=NUM_NEW, eos_token_id=None, do_sample=False, pad_token_id=EOS
    )
    assert made.shape[1] == width + NUM_NEW
    return made[:, width:].tolist()


def reference_loop(model: LlamaForCausalLM, prompts: list[list[int]]) -> list[list[int]]:
    """Return what the reference's loop makes of each prompt, 8 tokens each."""
    answers = []
    for prompt in prompts:
        ids = torch.tensor([prompt], device=model.device)
        made = model.generate(input_ids=ids, max_new_tokens=NUM_NEW, eos_token_id=None, do_sample=False)
        assert made.shape[1] == len(prompt) + NUM_NEW
        answers.append(made[0, len(prompt) :].tolist())
    return answers


def plain_scores(model: LlamaForCausalLM, prompt: list[int], labels: list[list[int]]) -> list[float]:
    """Return each label's log-likelihood from one pass over the whole row, no cache, no padding."""
    scores = []
    for label in labels:
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([prompt + label], device=model.device), use_cache=False).logits[0]
            logs = logits[len(prompt) - 1 :].float().log_softmax(-1)
        scores.append(float(sum(logs[j, token] for j, token in enumerate(label))))
    return scores


def make_data(shape: Shape, length: int, num_labels: int, num_prompts: int) -> tuple[list[list[int]], list[list[int]]]:
    """Return prompts that begin alike and labels that do not."""
    rng = np.random.default_rng(length + num_labels)
    shared = [1, *rng.integers(3, shape.vocab_size, NUM_SHARED - 1).tolist()]
    prompts = [[*shared, *rng.integers(3, shape.vocab_size, length - NUM_SHARED).tolist()] for _ in range(num_prompts)]
    firsts = rng.permutation(np.arange(3, shape.vocab_size))[:num_labels].tolist()
    return prompts, [[first, *rng.integers(3, shape.vocab_size, LABEL_TOKENS - 2).tolist(), EOS] for first in firsts]


def time_arm(arm: Arm, prompts: list[list[int]], device: torch.device) -> Timing:
    """Return what one arm needs for prompts; a GPU has finished before the clock stops."""
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    started, cpu_started = time.perf_counter(), time.process_time()
    arm.answer(prompts)
    if on_gpu:
        torch.cuda.synchronize(device)
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu_started
    return Timing(wall / len(prompts), cpu / len(prompts), torch.cuda.max_memory_allocated(device) if on_gpu else 0)


def compare(
    model: LlamaForCausalLM, prompts: list[list[int]], labels: list[list[int]], scores: np.ndarray, gap: float
) -> tuple[int, int, float]:
    """Return of how many prompts the best label is as in plain passes, among how many with a clear one, and the largest difference."""
    clear = agree = 0
    furthest = 0.0
    for prompt, row in zip(prompts, scores, strict=True):
        plain = np.array(plain_scores(model, prompt, labels))
        furthest = max(furthest, float(np.abs(plain - row).max()))
        top = np.sort(plain)[-2:]
        if top[1] - top[0] > gap:
            clear += 1
            agree += int(plain.argmax() == row.argmax())
    return agree, clear, furthest


def measure(model: LlamaForCausalLM, name: str, length: int, num_labels: int, asked: argparse.Namespace) -> float:
    """Print a cell and return the ratio of the loop's time to ours."""
    prompts, labels = make_data(SHAPES[name], length, num_labels, asked.num_prompts)
    arms = [
        Arm("loop", lambda some: reference_loop(model, some), asked.num_loop),
        *([Arm("batch", lambda some: generate(model, some), asked.generate_batch)] if asked.generate_batch else []),
        Arm("ours", lambda some: score_labels(model, some, labels), len(prompts)),
    ]
    scores = score_labels(model, prompts, labels)
    for arm in arms[:-1]:  # as ours, once before the clock runs
        arm.answer(prompts[: min(arm.num_prompts, len(prompts))])
    times: dict[str, list[Timing]] = {arm.name: [] for arm in arms}
    for turn in range(asked.rounds):
        for arm in arms:
            mine = [prompts[(turn * arm.num_prompts + i) % len(prompts)] for i in range(arm.num_prompts)]
            times[arm.name].append(time_arm(arm, mine, model.device))
    some, gap = asked.num_checked, CLEAR[model.dtype]
    agree, clear, furthest = compare(model, prompts[:some], labels, scores[:some], gap)
    cells = [name, str(length), str(num_labels)]
    cells += [f"{1000 * statistics.median(one.wall for one in times[arm.name]):.2f}" for arm in arms]
    for arm in arms[:-1]:
        ratios = [one.wall / other.wall for one, other in zip(times[arm.name], times["ours"], strict=True)]
        cells += [f"**{statistics.median(ratios):.1f}x**", f"{min(ratios):.1f}-{max(ratios):.1f}"]
    if model.device.type == "cpu":
        cells.append(f"{statistics.median(one.cpu / other.cpu for one, other in zip(times['loop'], times['ours'], strict=True)):.1f}x")
    else:
        cells.append(" / ".join(f"{max(one.peak for one in times[arm.name]) / 1e9:.2f}" for arm in arms))
    print("| " + " | ".join([*cells, f"{agree}/{clear}", f"{furthest:.0e}"]) + " |", flush=True)
    return statistics.median(one.wall / other.wall for one, other in zip(times["loop"], times["ours"], strict=True))


def print_heading(asked: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> None:
    """Print the machine and the table's first lines."""
    if device.type == "cuda":
        machine = f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    else:
        machine = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} thread(s), load {os.getloadavg()[0]:.1f}"
    print(f"{machine}, {str(dtype).removeprefix('torch.')}; medians of {asked.rounds} rounds, {asked.num_prompts} prompts")
    print(f"argmax compared on {asked.num_checked} prompts where the plain pass's two best labels are over {CLEAR[dtype]:g} nats apart\n")
    batch = asked.generate_batch
    heading = ["shape", "prompt", "labels", "loop, ms a prompt", *([f"generate of {batch}, ms"] if batch else []), "ours, ms a prompt"]
    heading += ["loop / ours", "range", *([f"generate of {batch} / ours", "range"] if batch else [])]
    heading += ["of CPU time" if device.type == "cpu" else f"peak GB, loop{' / batch' if batch else ''} / ours"]
    print("| " + " | ".join([*heading, "same argmax", "furthest, nats"]) + " |")
    print("|---" + "|---:" * (len(heading) + 1) + "|", flush=True)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Return what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--num_prompts", type=int, default=64, help="prompts scored in a round")
    parser.add_argument("--num_loop", type=int, default=6, help="prompts that the loop answers in a round")
    parser.add_argument("--num_checked", type=int, default=24, help="prompts compared with plain passes")
    parser.add_argument("--shape", nargs="+", default=list(ASKED), choices=list(SHAPES))
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    parser.add_argument("--dtype", default="float32", choices=[str(dtype).removeprefix("torch.") for dtype in CLEAR])
    parser.add_argument(
        "--generate_batch", type=int, help="prompts in a batch of the third arm; 0 leaves it out (default: 64 on a GPU, else 0)"
    )
    asked = parser.parse_args(arguments)
    if asked.generate_batch is None:
        asked.generate_batch = 0 if asked.device == "cpu" else 64
    return asked


def main(arguments: list[str] | None = None) -> None:
    """Measure every cell and print the table."""
    asked = parse_arguments(arguments)
    logging.set_verbosity_error()
    device, dtype = torch.device(asked.device), getattr(torch, asked.dtype)
    print_heading(asked, device, dtype)
    ratios = {}
    for name in asked.shape:
        model = SHAPES[name].build(device, dtype)
        for length in LENGTHS:
            for num_labels in NUM_LABELS:
                ratios[name, length, num_labels] = measure(model, name, length, num_labels, asked)
        del model
        gc.collect()  # before the next one is built beside it
    claimed = {cell: ratio for cell, ratio in ratios.items() if cell[0] in ASKED}
    cells = list((claimed or ratios).values())
    mean = math.exp(statistics.fmean(map(math.log, cells)))
    print(f"\n{'5m and 50m' if claimed else 'all cells'}: geometric mean {mean:.1f}x, lowest {min(cells):.1f}x")
    if ("50m", 120, 2) in ratios:
        print(f"50m, 120 tokens, 2 labels: {ratios['50m', 120, 2]:.1f}x")


if __name__ == "__main__":
    main()
