"""Label scoring beside the reference's test loop, on one model in one run: how much faster, and whether the answers are the same.

The reference's notebooks (LLaMA-Gene, llama_sft_test.ipynb) call transformers' `generate` with `max_new_tokens=8` on one prompt after
the other, in float32; greedy, as its `temperature` has no effect without `do_sample`. Every prompt is read whole, then eight tokens are
made one by one, with generate's cache. Here no token ends a loop early ("always its 8 tokens": a model that has learned to stop would
save some). The other arm is `score_labels`, which returns all labels' log-likelihoods.

Prompts have 120 or 300 tokens, of which the first 66 are the same for all: BOS, template and instruction of the papers' core promoter
rows in their own tokenizer (66 to 76 in the four tasks of their committed rows); the rest is drawn. Labels have 3 tokens, EOS included
("prom", "oter", EOS), ten have ten first tokens. Weights are random. Shapes are counted whole, with their vocabulary:

    5 M    width 192, 4 layers,  8,192 ids    the kind of model that the small real run trains, with its spliced vocabulary
    50 M   width 256, 4 layers, 92,160 ids    the default splice behind LLaMA-2: embedding and head are 47 M of its 50.3 M

and with --deep true also a 50 M shape whose weights lie in its layers (width 512, 13 layers, 8,192 ids): the least favourable, because
reading a prompt costs the most there and both arms must read it. A round times the loop on a few prompts and scoring on many, in turns;
a cell is the median over rounds of the ratio of their times per prompt. The ratio of CPU times beside it is less disturbed by other work
on the machine; with one thread it means the same. Argmax is compared with plain passes of whole rows, one at a time, no cache.

    OMP_NUM_THREADS=1 python benchmarks/label_scoring.py [--rounds 5] [--num_prompts 64] [--deep true]
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import statistics
import time
from dataclasses import dataclass

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from llama_gene.inference.scoring import score_labels

NUM_SHARED, NUM_NEW, LABEL_TOKENS, EOS = 66, 8, 3, 2
LENGTHS, NUM_LABELS = (120, 300), (2, 10)


@dataclass(frozen=True)
class Shape:
    """A LLaMA, embedding and head apart as in LLaMA-2."""

    name: str
    width: int
    layers: int
    vocab_size: int

    def build(self) -> LlamaForCausalLM:
        """Return it with seeded random weights, large enough that its answers differ."""
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=self.vocab_size, hidden_size=self.width, intermediate_size=-(-self.width * 8 // 3 // 32) * 32,
            num_hidden_layers=self.layers, num_attention_heads=self.width // 64, num_key_value_heads=self.width // 64,
            max_position_embeddings=512, initializer_range=0.06, bos_token_id=1, eos_token_id=EOS,
        )  # fmt: skip
        return LlamaForCausalLM(config).eval()


SHAPES = [Shape("5 M", 192, 4, 8192), Shape("50 M", 256, 4, 92160)]
DEEP = Shape("50 M, deep", 512, 13, 8192)


def reference_loop(model: LlamaForCausalLM, prompts: list[list[int]]) -> list[list[int]]:
    """Return what the reference's loop makes of each prompt, 8 tokens each."""
    answers = []
    for prompt in prompts:
        ids = model.generate(input_ids=torch.tensor([prompt]), max_new_tokens=NUM_NEW, eos_token_id=None, do_sample=False)
        assert ids.shape[1] == len(prompt) + NUM_NEW
        answers.append(ids[0, len(prompt) :].tolist())
    return answers


def plain_scores(model: LlamaForCausalLM, prompt: list[int], labels: list[list[int]]) -> list[float]:
    """Return each label's log-likelihood from one pass over the whole row, no cache, no padding."""
    scores = []
    for label in labels:
        with torch.inference_mode():
            logs = model(input_ids=torch.tensor([prompt + label]), use_cache=False).logits[0].log_softmax(-1)
        scores.append(float(sum(logs[len(prompt) - 1 + j, token] for j, token in enumerate(label))))
    return scores


def make_data(shape: Shape, length: int, num_labels: int, num_prompts: int) -> tuple[list[list[int]], list[list[int]]]:
    """Return prompts that begin alike and labels that do not."""
    rng = np.random.default_rng(length + num_labels)
    shared = [1, *rng.integers(3, shape.vocab_size, NUM_SHARED - 1).tolist()]
    prompts = [[*shared, *rng.integers(3, shape.vocab_size, length - NUM_SHARED).tolist()] for _ in range(num_prompts)]
    firsts = rng.permutation(np.arange(3, shape.vocab_size))[:num_labels].tolist()
    return prompts, [[first, *rng.integers(3, shape.vocab_size, LABEL_TOKENS - 2).tolist(), EOS] for first in firsts]


def measure(model: LlamaForCausalLM, shape: Shape, length: int, num_labels: int, asked: argparse.Namespace) -> float:
    """Print a cell and return its ratio."""
    prompts, labels = make_data(shape, length, num_labels, asked.num_prompts)
    reference_loop(model, prompts[:1])
    scores = score_labels(model, prompts, labels)
    loop, ours, cpu_ratios = [], [], []
    for turn in range(asked.rounds):
        some = [prompts[(turn * asked.num_loop + i) % len(prompts)] for i in range(asked.num_loop)]
        started, cpu_started = time.perf_counter(), time.process_time()
        reference_loop(model, some)
        middle, cpu_middle = time.perf_counter(), time.process_time()
        score_labels(model, prompts, labels)
        loop.append((middle - started) / len(some))
        ours.append((time.perf_counter() - middle) / len(prompts))
        cpu_ratios.append((cpu_middle - cpu_started) / len(some) * len(prompts) / (time.process_time() - cpu_middle))
    ratios = [one / other for one, other in zip(loop, ours, strict=True)]
    clear = agree = 0
    furthest = 0.0
    for prompt, row in list(zip(prompts, scores, strict=True))[: asked.num_checked]:
        plain = np.array(plain_scores(model, prompt, labels))
        furthest = max(furthest, float(np.abs(plain - row).max()))
        top = np.sort(plain)[-2:]
        if top[1] - top[0] > 1e-4:
            clear += 1
            agree += int(plain.argmax() == row.argmax())
    ratio = statistics.median(ratios)
    print(
        f"| {shape.name} | {length} | {num_labels} | {1000 * statistics.median(loop):.1f} | {1000 * statistics.median(ours):.2f} "
        f"| **{ratio:.1f}x** | {min(ratios):.1f}-{max(ratios):.1f} | {statistics.median(cpu_ratios):.1f}x "
        f"| {agree}/{clear} | {furthest:.0e} |",
        flush=True,
    )
    return ratio


def main() -> None:
    """Measure every cell and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--num_prompts", type=int, default=64, help="prompts scored in a round")
    parser.add_argument("--num_loop", type=int, default=6, help="prompts that the loop answers in a round")
    parser.add_argument("--num_checked", type=int, default=24, help="prompts compared with plain passes")
    parser.add_argument("--deep", default="false", choices=["true", "false"])
    asked = parser.parse_args()
    logging.set_verbosity_error()
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} thread(s), load {os.getloadavg()[0]:.1f}, float32\n")
    print(
        "| shape | prompt | labels | loop, ms a prompt | ours, ms a prompt | ratio | range | of CPU time | same argmax | furthest, nats |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    ratios = {}
    for shape in [*SHAPES, *([DEEP] if asked.deep == "true" else [])]:
        model = shape.build()
        for length in LENGTHS:
            for num_labels in NUM_LABELS:
                ratios[shape.name, length, num_labels] = measure(model, shape, length, num_labels, asked)
    asked_for = [ratio for (name, _, _), ratio in ratios.items() if name != DEEP.name]
    mean = math.exp(statistics.fmean(map(math.log, asked_for)))
    print(f"\nwithout the deep shape: geometric mean {mean:.1f}x, lowest {min(asked_for):.1f}x")
    print(f"50 M, 120 tokens, 2 labels: {ratios['50 M', 120, 2]:.1f}x")


if __name__ == "__main__":
    main()
