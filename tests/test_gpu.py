"""What a GPU does, beside what the CPU does: training, kernels, DeepSpeed, 4 and 8 bits, scores, merging. Skipped where there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from llama_gene import runtime
from llama_gene.data.packing import IGNORED, pack_documents
from llama_gene.export.gate import probe_logits
from llama_gene.export.memory import merge_adapter
from llama_gene.inference.scoring import score_labels
from llama_gene.models.adapters import attach_lora, load_model
from llama_gene.models.settings import LoraSettings
from llama_gene.recipes import pretrain
from tests import two_processes as jobs
from tests.conftest import tiny_training
from tests.test_training_trainer import DOCUMENTS, batch_of
from tests.tiny_models import nats_alone, tiny_llama

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]
ROOT = Path(__file__).resolve().parents[1]


def wide_llama(attention: str) -> LlamaForCausalLM:
    """Return a random LLaMA with heads of 32, which every kernel takes (flex attention: at least 16)."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=259, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        bos_token_id=0, eos_token_id=1, initializer_range=0.1, attn_implementation=attention,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def run_python(arguments: list[str], **environment: str) -> None:
    """Run Python in a process of its own: DeepSpeed leaves a process group behind, and CUDA cannot be hidden from a process that has it."""
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, **environment}
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]


def losses_of_a_process(folder: Path, deepspeed: Path | None, **environment: str) -> list[float]:
    """Train the tiny adapter for twelve steps in a process of its own; return the losses."""
    code = (
        "import sys; from pathlib import Path; from llama_gene import runtime; from tests.two_processes import train_job, uneven_rows\n"
        "runtime.set_library_switches()\n"
        "train_job(Path(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2] else None, 1, uneven_rows())"
    )
    run_python(["-c", code, str(folder), str(deepspeed or "")], **environment)
    found: list[float] = json.loads((folder / "losses.json").read_text())
    assert found[0] - found[-1] > 0.3
    return found


@pytest.fixture(scope="module")
def cpu_losses(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The losses of a process that sees no GPU."""
    return losses_of_a_process(tmp_path_factory.mktemp("cpu"), None, CUDA_VISIBLE_DEVICES="")


@pytest.mark.parametrize("attention", ["eager", "sdpa", "flex_attention"])
def test_law_08_packed_documents_are_apart_under_every_kernel(attention: str) -> None:
    rows = list(pack_documents(DOCUMENTS, 48))
    nats, predicted = nats_alone(wide_llama("eager"), rows)
    batch = {name: values.cuda() for name, values in batch_of(DOCUMENTS).items()}
    labels = batch.pop("labels")[:, 1:]
    with torch.no_grad():
        logits = wide_llama(attention).cuda()(**batch, use_cache=False).logits[:, :-1]
    assert int((labels != IGNORED).sum()) == len(predicted)
    assert float(cross_entropy(logits[labels != IGNORED], labels[labels != IGNORED], reduction="sum")) == pytest.approx(nats, rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [({}, 2e-3), ({"gradient_checkpointing": True}, 2e-3), ({"precision": "bf16"}, 0.1), ({"precision": "fp16"}, 0.1)],
    ids=["fp32", "checkpointing", "bf16", "fp16"],
)
def test_the_gpu_learns_what_the_cpu_learns(tmp_path: Path, cpu_losses: list[float], changes: dict[str, Any], tolerance: float) -> None:
    model = attach_lora(tiny_llama(), LoraSettings(rank=4, dropout=0.0))
    settings = tiny_training(jobs.STEPS, batch_size=jobs.ROWS_A_STEP, **changes)
    result, _ = jobs.train(model, {"all": jobs.uneven_rows()}, {"all": 1.0}, 1, settings, tmp_path, "key")
    assert {parameter.device.type for parameter in model.parameters()} == {"cuda"}
    assert result.peak_memory == torch.cuda.max_memory_allocated()
    assert [entry["loss"] for entry in result.history] == pytest.approx(cpu_losses, abs=tolerance)


@pytest.mark.parametrize("optimizer", ["adamw_8bit", "paged_adamw_8bit"])
def test_optimizers_of_8_bits_learn(tmp_path: Path, cpu_losses: list[float], optimizer: str) -> None:
    pytest.importorskip("bitsandbytes")
    model = attach_lora(tiny_llama(), LoraSettings(rank=4, dropout=0.0))
    settings = tiny_training(jobs.STEPS, batch_size=jobs.ROWS_A_STEP, optimizer=optimizer)
    result, _ = jobs.train(model, {"all": jobs.uneven_rows()}, {"all": 1.0}, 1, settings, tmp_path, "key")
    assert [entry["loss"] for entry in result.history] == pytest.approx(cpu_losses, abs=0.1)


@pytest.mark.parametrize("name", ["zero1", "zero2", "zero3", "zero2_offload", "zero3_offload"])
def test_deepspeed_on_the_gpu_learns_what_one_process_learns(tmp_path: Path, cpu_losses: list[float], name: str) -> None:
    pytest.importorskip("deepspeed")
    found = losses_of_a_process(tmp_path, ROOT / "ds_configs" / f"{name}.json")
    assert found == pytest.approx(cpu_losses, abs=2e-3)


@pytest.mark.parametrize("quantize", ["nf4", "int8"])
def test_a_quantized_base_is_trained_and_loaded_again(tmp_path: Path, base: Path, rows: Path, quantize: Any) -> None:
    pytest.importorskip("bitsandbytes")
    losses = {}
    for kind in ("none", quantize):
        lora = LoraSettings(rank=4, dropout=0.0, quantize=kind)
        train = tiny_training(20, learning_rate=2e-3, precision="bf16")
        folder = pretrain.run(pretrain.Config(rows=rows, base=str(base), lora=lora, train=train, output_dir=tmp_path / kind))
        losses[kind] = [entry["loss"] for entry in json.loads((folder / "training.json").read_text())]
    assert losses[quantize] == pytest.approx(losses["none"], abs=0.2)
    assert losses[quantize] != losses["none"]
    model, tokenizer = load_model(folder)
    assert all(torch.isfinite(one).all() for one in probe_logits(model, tokenizer))


def test_labels_are_scored_as_on_the_cpu() -> None:
    prompts = [[0, *(3 + (5 * n + k) % 200 for k in range(10 + 7 * n))] for n in range(9)]
    labels = [[40, 41, 1], [40, 42, 1], [90, 1]]
    expected = score_labels(tiny_llama(), prompts, labels)
    for precision, tolerance in ((torch.float32, 1e-3), (torch.bfloat16, 0.3)):
        found = score_labels(tiny_llama().to("cuda", precision), prompts, labels)
        assert np.abs(found - expected).max() < tolerance
        alone = np.array([score_labels(tiny_llama().to("cuda", precision), [prompt], labels)[0] for prompt in prompts])
        assert np.abs(found - alone).max() < tolerance


def test_law_06_the_adapter_and_the_merged_model_agree(adapter: Path) -> None:
    model, tokenizer = load_model(adapter)
    model = model.to("cuda")
    merged, gap, _, _ = merge_adapter(model, tokenizer)
    assert next(merged.parameters()).is_cuda
    assert gap < 1e-3


def test_the_launcher_and_the_command_line_use_the_gpu(tmp_path: Path, base: Path, rows: Path) -> None:
    pytest.importorskip("deepspeed")
    train = {"steps": 10, "batch_size": 4, "learning_rate": 1e-2, "precision": "bf16", "deepspeed": str(ROOT / "ds_configs" / "zero2.json")}
    config = {"rows": str(rows), "base": str(base), "lora": {"rank": 4}, "train": train, "output_dir": str(tmp_path / "out")}
    (tmp_path / "pretrain.yaml").write_text(yaml.safe_dump(config))
    launcher = ["-m", "deepspeed.launcher.runner", "--num_gpus", "1", "--master_port", str(runtime.free_port())]
    run_python([*launcher, str(ROOT / "launch" / "pretrain.py"), "--config", str(tmp_path / "pretrain.yaml")])
    assert runtime.read_json(tmp_path / "out" / "manifest.json")["steps"] == 10
