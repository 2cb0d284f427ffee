"""Continued pretraining on one GPU, this project's step beside the reference's recipe: tokens a second, MFU, peak memory.

Weights are random, rows are 512 drawn tokens in four documents; both arms train LoRA (r 8, alpha 32, dropout 0.05, seven projections) with
embedding and head saved, under DeepSpeed with ds_configs/zero2.json in one process, AdamW, the same rows a micro-batch.

    reference       transformers.Trainer + peft as the published scripts set them: fp16, gradient checkpointing, logits of all positions
    ours            `llama_gene.training.trainer.train` with the shipped settings: bf16, gradient checkpointing, loss at targets
    ours_stored     the same without recomputing activations (gradient_checkpointing: false), half the rows a micro-batch

An arm is a process of its own, so that neither memory nor a mixed-precision setting reaches the next; it loads its libraries while the
one before it runs, and starts when that has ended. A step's time is taken between log lines, which wait for the device; the median of
the steps behind the second one counts. MFU is of the maker's dense 16-bit rate; recomputation earns nothing (training/meter.py).

    python benchmarks/training_speed.py [--shapes 7b,8b,1b] [--arms reference,ours,ours_stored] [--steps 8]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LENGTH, ROWS = 512, 32
ARMS = ("reference", "ours", "ours_stored")
SHAPES = {  # ids, width, width between, layers, heads, heads of keys and values
    "7b": (92160, 4096, 11008, 32, 32, 32),
    "8b": (188416, 4096, 14336, 32, 32, 8),
    "1b": (188416, 2048, 8192, 16, 32, 8),
    "tiny": (512, 64, 128, 2, 4, 2),
}
NAMES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")


def random_model(shape: str, dtype: Any) -> Any:
    """Return a LLaMA of this shape, drawn on the device in its own precision."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            return LlamaForCausalLM(
                LlamaConfig(**dict(zip(NAMES, SHAPES[shape], strict=True)), max_position_embeddings=4096, attn_implementation="sdpa")
            )
    finally:
        torch.set_default_dtype(before)


def drawn_ids(shape: str, num_rows: int) -> Any:
    """Return (num_rows, LENGTH) token ids."""
    import numpy as np

    return np.random.default_rng(0).integers(3, SHAPES[shape][0], (num_rows, LENGTH))


def train_reference(shape: str, steps: int, folder: Path, rows: int) -> tuple[list[float], float, int]:
    """Train the published way; return (tokens a second of each step, loss at the end, FLOPs a token)."""
    import torch
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from llama_gene.training.meter import flops_per_token

    on_gpu = torch.cuda.is_available()
    launcher = str(ROOT / "ds_configs" / "zero2.json") if on_gpu else None
    model = random_model(shape, torch.float16 if on_gpu else torch.float32)
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM, r=8, lora_alpha=32, lora_dropout=0.05, modules_to_save=["embed_tokens", "lm_head"],
        target_modules=["q_proj", "v_proj", "k_proj", "o_proj", "gate_proj", "down_proj", "up_proj"],
    )  # fmt: skip
    peft_model = get_peft_model(model, config)
    peft_model.enable_input_require_grads()
    ids = drawn_ids(shape, steps * rows)

    class Clock(TrainerCallback):
        """Takes the time after each step."""

        def __init__(self) -> None:
            self.times: list[float] = []

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.times.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            if on_gpu:
                torch.cuda.synchronize()
            self.times.append(time.perf_counter())

    clock = Clock()
    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=steps, per_device_train_batch_size=rows, gradient_accumulation_steps=1, learning_rate=2e-4,
        fp16=on_gpu, use_cpu=not on_gpu, gradient_checkpointing=True, deepspeed=launcher, logging_steps=1,
        save_strategy="no", report_to=[], disable_tqdm=True,
    )  # fmt: skip
    examples = [{"input_ids": row, "labels": row} for row in ids]
    trainer = Trainer(
        model=peft_model, args=arguments, train_dataset=examples, callbacks=[clock],
        data_collator=lambda batch: {name: torch.tensor([row[name].tolist() for row in batch]) for name in ("input_ids", "labels")},
    )  # fmt: skip
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    speeds = [rows * LENGTH / (after - before) for before, after in zip(clock.times, clock.times[1:], strict=False)]
    return speeds, losses[-1], int(flops_per_token(peft_model, LENGTH))


def train_ours(shape: str, steps: int, folder: Path, rows: int, checkpointing: bool) -> tuple[list[float], float, int]:
    """Train this project's way; return the same."""
    import torch

    from llama_gene.models.adapters import attach_lora
    from llama_gene.models.settings import LoraSettings
    from llama_gene.training.meter import flops_per_token
    from llama_gene.training.settings import TrainSettings
    from llama_gene.training.trainer import train

    on_gpu = torch.cuda.is_available()
    launcher = ROOT / "ds_configs" / "zero2.json" if on_gpu else None
    model = attach_lora(random_model(shape, torch.bfloat16 if on_gpu else torch.float32), LoraSettings())
    settings = TrainSettings(
        steps=steps, batch_size=rows, precision="bf16" if on_gpu else "fp32", deepspeed=launcher,
        gradient_checkpointing=checkpointing, logging_steps=1, report_to=[],
    )  # fmt: skip
    lengths = [LENGTH // 4] * 4
    row_set = [{"input_ids": row.tolist(), "lengths": lengths} for row in drawn_ids(shape, steps * rows)]
    result, _ = train(model, {"dna": row_set}, {"dna": 1.0}, 0, settings, folder, "benchmark", save=False)
    return result.speeds, result.history[-1]["loss"], int(flops_per_token(model, LENGTH))


def run_arm(shape: str, arm: str, steps: int) -> None:
    """Load the libraries, wait for a line on standard input, train, print the facts as JSON."""
    import peft  # noqa: F401
    import torch
    import transformers  # noqa: F401

    from llama_gene import runtime

    runtime.set_library_switches()
    if torch.cuda.is_available():
        import deepspeed  # noqa: F401
    sys.stdin.readline()
    if torch.cuda.is_available():
        runtime.set_single_process_rendezvous()
    rows = ROWS // 2 if arm == "ours_stored" else ROWS
    with tempfile.TemporaryDirectory() as name:
        if arm == "reference":
            speeds, loss, flops = train_reference(shape, steps, Path(name), rows)
        else:
            speeds, loss, flops = train_ours(shape, steps, Path(name), rows, arm == "ours")
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    held = torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0
    print("FACTS " + json.dumps({"speeds": speeds, "loss": loss, "flops": flops, "peak": peak, "held": held, "rows": rows}), flush=True)


def gemm_ceiling() -> float:
    """Return the TFLOP/s of a product of two drawn matrices of 8192 x 8192 in bf16: what a step can hope for."""
    import torch

    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(20):
        a @ b
    torch.cuda.synchronize()
    return 20 * 2 * 8192**3 / (time.perf_counter() - started) / 1e12


def main() -> None:
    """Run each arm of each shape in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="7b,8b,1b")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--arm", choices=ARMS, help="run this one alone, in this process, for --shapes SHAPE")
    parser.add_argument("--timeout", type=float, default=100, help="seconds that an arm may take")
    asked = parser.parse_args()
    if asked.arm:
        run_arm(asked.shapes, asked.arm, asked.steps)
        return
    import torch

    from llama_gene.training.meter import device_peak

    print(f"torch {torch.__version__}, {torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU'}", flush=True)
    if torch.cuda.is_available():
        print(f"a product of 8192 x 8192 matrices in bf16: {gemm_ceiling():.0f} TFLOP/s")
        torch.cuda.empty_cache()
    peak_rate = device_peak() or 0.0
    print("\n| shape | arm | rows | tokens/s | of the reference | MFU | peak GB | reserved GB | loss at the end |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|", flush=True)
    cells = [(shape, arm) for shape in asked.shapes.split(",") for arm in asked.arms.split(",")]

    def begin(shape: str, arm: str) -> subprocess.Popen[str]:
        command = [sys.executable, __file__, "--arm", arm, "--shapes", shape, "--steps", str(asked.steps)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    waiting = begin(*cells[0])
    base: dict[str, float] = {}
    for place, (shape, arm) in enumerate(cells):
        child, waiting = waiting, begin(*cells[place + 1]) if place + 1 < len(cells) else waiting
        try:
            out, errors = child.communicate("go\n", timeout=asked.timeout)
        except subprocess.TimeoutExpired:
            child.kill()
            out, errors = child.communicate()
        line = next((line for line in out.splitlines() if line.startswith("FACTS ")), None)
        if line is None:
            print(f"| {shape} | {arm} | failed: {(errors.strip().splitlines() or ['no answer in time'])[-1][:300]} |", flush=True)
            continue
        facts = json.loads(line[6:])
        speed = statistics.median(facts["speeds"][2:])
        base.setdefault(shape, speed) if arm == "reference" else None
        ratio = f"{speed / base[shape]:.2f}x" if shape in base else ""
        mfu = f"{100 * speed * facts['flops'] / peak_rate:.1f} %" if peak_rate else ""
        print(
            f"| {shape} | {arm} | {facts['rows']} | {speed:,.0f} | {ratio} | {mfu} | {facts['peak'] / 1e9:.1f} | {facts['held'] / 1e9:.1f} "
            f"| {facts['loss']:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
