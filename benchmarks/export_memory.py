"""Merge a 7B model in bfloat16 row by row, beside PEFT's `merge_and_unload`, each in a process of its own under one memory limit.

A random-weight base of LLaMA-2's 7B shape (32,000 ids) is written shard by shard, a tensor in memory at a time; an adapter (rank 8 on all
seven linear layers, embedding and head whole, with 92,160 rows) beside it. Then

- ours:  `export.streaming.write_merged` (weights and their SHA-256);
- peft:  load the base in bfloat16, grow it, load the adapter, `merge_and_unload`, `save_pretrained`; hashes are not in its time;
- gate:  `export.merge._layer_gaps`, what `export` compares before it writes (unmerged and merged logits, every weight read layer by layer).

A process may allocate, or map as its own, at most --memory GB (RLIMIT_DATA); running out is a result. Peak RSS is the kernel's VmHWM, pages
of mapped files included; the anonymous part of it is sampled ten times a second. Outputs and inputs are deleted at the end.

    python benchmarks/export_memory.py --shape small --work FOLDER                 # seconds: two layers of width 256
    python benchmarks/export_memory.py --shape 7b --work FOLDER                    # 30 GB of disk, about 5 minutes on 2 cores
    python benchmarks/export_memory.py --shape 8b --only ours gate --work FOLDER   # LLaMA-3's 8B shape, 188,416 ids
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SHAPES: dict[str, dict[str, Any]] = {
    "small": {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 8,
              "vocab_size": 2000, "new_ids": 5760},
    "7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
           "vocab_size": 32000, "new_ids": 92160},
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
           "vocab_size": 128256, "new_ids": 188416},
}  # fmt: skip
CONTESTANTS = ("ours", "peft", "gate")
RANK = 8
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
DISK = 45e9


def main() -> None:
    """Write base and adapter, run each contestant, print the table, delete everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=[*SHAPES], default="small")
    parser.add_argument("--layers", type=int, help="fewer layers than the shape has, for a look")
    parser.add_argument("--work", type=Path, help="folder for a temporary one (default: the system's)")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=[*CONTESTANTS])
    parser.add_argument("--memory", type=float, default=20.0, help="GB that a contestant may allocate; 0: no limit")
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.contestant:
        print(json.dumps(contest(asked.contestant, asked.work)))
        return
    shape = {**SHAPES[asked.shape], **({"num_hidden_layers": asked.layers} if asked.layers else {})}
    need = needed(shape)
    free = shutil.disk_usage(asked.work or tempfile.gettempdir()).free
    if need > min(free * 0.95, DISK):
        sys.exit(f"{need / 1e9:.1f} GB of disk are needed; {free / 1e9:.1f} GB are free, at most {DISK / 1e9:.0f} GB are taken")
    with tempfile.TemporaryDirectory(dir=asked.work) as name:
        work = Path(name)
        clock = time.monotonic()
        write_base(work / "base", shape)
        write_adapter(work / "adapter", shape)
        size = sum(path.stat().st_size for path in work.rglob("*.safetensors"))
        print(
            f"{asked.shape}: base and adapter of {size / 1e9:.2f} GB written in {time.monotonic() - clock:.0f} s; limit {asked.memory:g} GB"
        )
        print(f"{'':8}{'peak RSS':>10}{'allocated':>11}{'wall':>9}{'CPU':>9}{'written':>10}")
        for contestant in asked.only:
            print(line(contestant, run_limited(contestant, work, asked.memory)), flush=True)
            shutil.rmtree(work / "out", ignore_errors=True)


def needed(shape: dict[str, Any]) -> float:
    """Return the bytes of base, adapter and one merged model, all in bfloat16."""
    width, layers, inner = shape["hidden_size"], shape["num_hidden_layers"], shape["intermediate_size"]
    key_values = width * shape["num_key_value_heads"] // shape["num_attention_heads"]
    body = layers * (2 * width * width + 2 * width * key_values + 3 * width * inner)
    return 2.0 * (2 * body + 2 * width * (shape["vocab_size"] + 2 * shape["new_ids"])) * 1.02


def config_of(shape: dict[str, Any], num_ids: int) -> Any:
    """Return the config of a shape."""
    import torch
    from transformers import LlamaConfig

    sizes = {key: value for key, value in shape.items() if key not in ("new_ids", "vocab_size")}
    return LlamaConfig(vocab_size=num_ids, max_position_embeddings=4096, dtype=torch.bfloat16, architectures=["LlamaForCausalLM"], **sizes)


def write_base(folder: Path, shape: dict[str, Any]) -> None:
    """Write a random base in bfloat16, in shards, a block of rows in memory at a time."""
    import torch

    from llama_gene.export.plan import empty_model
    from llama_gene.export.shards import write_shards

    folder.mkdir()
    config = config_of(shape, shape["vocab_size"])
    config.save_pretrained(folder)
    layout = {name: (tuple(tensor.shape), torch.bfloat16) for name, tensor in empty_model(config).state_dict().items()}
    block = (
        torch.randn(2**22, generator=torch.Generator().manual_seed(0)).mul_(0.02).bfloat16()
    )  # 8 MB, again and again: time counts, not luck

    def pieces(name: str) -> Iterator[Any]:
        shape_of = layout[name][0]
        if len(shape_of) == 1:
            yield torch.ones(shape_of, dtype=torch.bfloat16)
            return
        rows = max(1, len(block) // shape_of[1])
        for start in range(0, shape_of[0], rows):
            number = min(rows, shape_of[0] - start)
            yield block[: number * shape_of[1]].view(number, shape_of[1])

    write_shards(folder, layout, pieces, "5GB")


def write_adapter(folder: Path, shape: dict[str, Any]) -> None:
    """Write an adapter in bfloat16: rank 8 on the linear layers, embedding and head whole with the rows of new ids."""
    import peft
    import torch
    from safetensors.torch import save_file

    from llama_gene.export.plan import PREFIX, empty_model

    folder.mkdir()
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for name, tensor in empty_model(config_of(shape, shape["new_ids"])).state_dict().items():
        module = name.removesuffix(".weight")
        if module.rsplit(".", 1)[-1] in LINEAR:
            for part, size in (("A", (RANK, tensor.shape[1])), ("B", (tensor.shape[0], RANK))):
                tensors[f"{PREFIX}{module}.lora_{part}.weight"] = torch.randn(size, generator=generator).mul_(0.01).bfloat16()
        elif module.rsplit(".", 1)[-1] in ("embed_tokens", "lm_head"):
            tensors[PREFIX + name] = (
                torch.randn(1, tensor.shape[1], generator=generator).bfloat16().mul(0.02).expand(tensor.shape).contiguous()
            )
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = peft.LoraConfig(
        r=RANK, lora_alpha=32, target_modules=LINEAR, modules_to_save=["embed_tokens", "lm_head"], task_type="CAUSAL_LM"
    )
    config.save_pretrained(str(folder))


def run_limited(contestant: str, work: Path, memory: float) -> dict[str, Any]:
    """Run one contestant in a process that may allocate so many GB; return what it measured, or how it ended."""

    def limit() -> None:
        if memory:
            resource.setrlimit(resource.RLIMIT_DATA, (int(memory * 1e9), int(memory * 1e9)))

    command = [sys.executable, __file__, "--contestant", contestant, "--work", str(work)]
    clock = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limit)
    if done.returncode == 0:
        return dict(json.loads(done.stdout.splitlines()[-1]))
    last = next((text for text in reversed(done.stderr.splitlines()) if text.strip()), "")
    out_of_memory = done.returncode == -9 or "memory" in last.lower() or "bad_alloc" in last
    return {
        "failed": ("out of memory" if out_of_memory else f"exit {done.returncode}")
        + f" after {time.monotonic() - clock:.0f} s: {last[:90]}"
    }


def contest(contestant: str, work: Path) -> dict[str, Any]:
    """Merge once; return seconds, memory and bytes. Imports and opening are in the memory, not in the time."""
    import peft
    import torch
    import transformers

    from llama_gene.export import merge

    torch.set_num_threads(os.cpu_count() or 1)
    _ = (peft.PeftModel, transformers.LlamaForCausalLM, merge)
    watch = Watch()
    before = (time.monotonic(), time.process_time())
    facts = {"ours": ours, "peft": with_peft, "gate": gate}[contestant](work)
    seconds = {"wall": time.monotonic() - before[0], "cpu": time.process_time() - before[1]}
    written = sum(path.stat().st_size for path in work.glob("out/*.safetensors"))
    return {**seconds, "rss": watch.peak_rss(), "allocated": watch.stop(), "written": written, **facts}


def ours(work: Path) -> dict[str, Any]:
    """Merge and write row by row."""
    from llama_gene.export.streaming import MergedTensors, write_merged

    base, config, settings, adapter = parts(work)
    (work / "out").mkdir()
    hashes = write_merged(MergedTensors(planned(base, config, settings, adapter)), work / "out", "bfloat16", "4GB")
    return {"note": f"{len(hashes)} files hashed"}


def with_peft(work: Path) -> dict[str, Any]:
    """Merge as PEFT's page says, the whole model in bfloat16."""
    import torch
    from peft import PeftModel
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(work / "base", dtype=torch.bfloat16)
    with safe_open(work / "adapter" / "adapter_model.safetensors", framework="pt") as file:
        rows = file.get_slice("base_model.model.lm_head.weight").get_shape()[0]
    model.resize_token_embeddings(rows, mean_resizing=False)
    merged = PeftModel.from_pretrained(model, str(work / "adapter")).merge_and_unload()
    merged.save_pretrained(work / "out", max_shard_size="4GB")
    return {}


def gate(work: Path) -> dict[str, Any]:
    """Compare unmerged and merged logits of 4 x 64 ids, every weight read layer by layer."""
    import torch

    from llama_gene.export.folder import set_vocabulary
    from llama_gene.export.gate import logit_gap
    from llama_gene.export.lazy import lazy_adapter, lazy_model
    from llama_gene.export.streaming import MergedTensors

    base, config, settings, adapter = parts(work)
    merged = MergedTensors(planned(base, config, settings, adapter))
    ids = torch.randint(0, merged.plan.num_ids, (4, 64), generator=torch.Generator().manual_seed(2))
    config = set_vocabulary(config, merged.plan.num_ids, False)
    with torch.inference_mode():
        unmerged = lazy_adapter(config, base.read, settings, adapter, "")(input_ids=ids, use_cache=False).logits
        found = lazy_model(config, merged.read)(input_ids=ids, use_cache=False).logits
    return {"note": f"gap {logit_gap(list(unmerged), list(found)):.2g}"}


def parts(work: Path) -> tuple[Any, Any, Any, Any]:
    """Return (tensors of the base, its config, settings of the adapter, tensors of the adapter)."""
    import peft
    from transformers import AutoConfig

    from llama_gene.export.tensors import TensorFolder

    settings: Any = peft.PeftConfig.from_pretrained(str(work / "adapter"))
    settings.inference_mode = True
    adapter = TensorFolder(work / "adapter", "adapter_model*.safetensors")
    return TensorFolder(work / "base"), AutoConfig.from_pretrained(work / "base"), settings, adapter


def planned(base: Any, config: Any, settings: Any, adapter: Any) -> Any:
    """Return the plan of the merge."""
    from llama_gene.export.plan import empty_model, plan_merge

    num_ids = adapter.shape("base_model.model.lm_head.weight")[0]
    return plan_merge(base, empty_model(config), [(settings, adapter)], num_ids, [config.vocab_size])


class Watch:
    """What a process takes: the kernel's highest resident set, and the highest anonymous part seen ten times a second."""

    def __init__(self) -> None:
        self.anonymous = 0
        self.going = True
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()

    def _look(self) -> None:
        while self.going:
            self.anonymous = max(self.anonymous, self._field("RssAnon"))
            time.sleep(0.1)

    @staticmethod
    def _field(name: str) -> int:
        for text in Path("/proc/self/status").read_text().splitlines():
            if text.startswith(name + ":"):
                return int(text.split()[1]) * 1024
        return 0

    def peak_rss(self) -> int:
        """Return the kernel's VmHWM, in bytes: mapped files included."""
        return self._field("VmHWM")

    def stop(self) -> int:
        """Return the highest anonymous memory seen, in bytes."""
        self.going = False
        self.thread.join()
        return self.anonymous


def line(contestant: str, found: dict[str, Any]) -> str:
    """Return a contestant's line of the table."""
    if "failed" in found:
        return f"{contestant:8}{found['failed']}"
    sizes = [f"{found[name] / 1e9:.2f} GB" for name in ("rss", "allocated")]
    times = [f"{found[name]:.1f} s" for name in ("wall", "cpu")]
    return f"{contestant:8}{sizes[0]:>10}{sizes[1]:>11}{times[0]:>9}{times[1]:>9}{found['written'] / 1e9:>7.2f} GB  {found.get('note', '')}"


if __name__ == "__main__":
    main()
