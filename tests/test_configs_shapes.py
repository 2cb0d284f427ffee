"""The shipped 7B and 8B configs on the real shapes, without weights: what grows, what trains, and how much of it.

Built on torch's meta device by benchmarks/shapes.py, which prints the same as tables.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.shapes import BASES, ROOT, Counts, adapt, count, fixed_bytes, moving_bytes, pretrain_config, rows_after_growth, run_config
from benchmarks.shapes import trained_modules as trained

SERVERS = {"Llama-2-7B": "llama2_7b", "Llama-3-8B": "llama3_8b"}
ROWS = {"Llama-2-7B": 92_160, "Llama-3-8B": 188_416, "Llama-3.2-1B": 188_416}
WIDTHS = {  # of q, k, v, o, gate, up, down: inputs, outputs
    "Llama-2-7B": [(4096, 4096)] * 4 + [(4096, 11008), (4096, 11008), (11008, 4096)],
    "Llama-3-8B": [(4096, 4096), (4096, 1024), (4096, 1024), (4096, 4096), (4096, 14336), (4096, 14336), (14336, 4096)],
}
PARTS = [f"self_attn.{part}_proj" for part in "qkvo"] + [f"mlp.{part}_proj" for part in ("gate", "up", "down")]
COUNTS = {  # trained, as PEFT holds them, PEFT's frozen copies of embedding and head
    "Llama-2-7B": Counts(774_963_200, 8_006_209_536, 754_974_720),
    "Llama-3-8B": Counts(1_564_475_392, 10_087_567_360, 1_543_503_872),
    "Llama-3.2-1B": Counts(391_512_064, 1_750_534_144, 385_875_968),
}
CONFIGS: dict[str, Callable[[str], Any]] = {"pretrain.yaml": pretrain_config, "run.yaml": lambda folder: run_config(folder).pretrain}


def adapted(name: str, config: str = "pretrain.yaml") -> Any:
    """Return a base grown by its run.yaml, with the LoRA of one of its configs."""
    base = BASES[name]
    return adapt(base.shape, rows_after_growth(base), CONFIGS[config](base.folder).lora)


@pytest.mark.parametrize("config", list(CONFIGS))
@pytest.mark.parametrize("name", list(SERVERS))
def test_seven_layers_of_32_blocks_embedding_and_head_train_and_nothing_else(name: str, config: str) -> None:
    wanted: dict[str, list[tuple[int, ...]]] = {
        f"model.layers.{block}.{part}": sorted([(8, inputs), (outputs, 8)])
        for block in range(32)
        for part, (inputs, outputs) in zip(PARTS, WIDTHS[name], strict=True)
    }
    wanted |= {whole: [(ROWS[name], 4096)] for whole in ("model.embed_tokens", "lm_head")}
    assert trained(adapted(name, config)) == wanted


@pytest.mark.parametrize("name", list(BASES))
def test_embedding_and_head_have_a_row_an_id_trained_and_frozen(name: str) -> None:
    model, width = adapted(name), BASES[name].shape["hidden_size"]
    rows = rows_after_growth(BASES[name])
    assert rows == ROWS[name] == model.config.vocab_size and rows % 128 == 0
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        assert tuple(layer.weight.shape) == tuple(layer.original_module.weight.shape) == (rows, width)


@pytest.mark.parametrize(("name", "held", "needed"), [("Llama-2-7B", 9.7, 10.7), ("Llama-3-8B", 15.5, 18.3), ("Llama-3.2-1B", 22.4, 28.7)])
def test_the_trained_share_with_and_without_the_frozen_copies(name: str, held: float, needed: float) -> None:
    counts = count(adapted(name))  # 775 M of 8.01 B for LLaMA-2; the paper says about 10 %
    assert counts == COUNTS[name]
    assert (round(100 * counts.trained / counts.held, 1), round(100 * counts.trained / counts.needed, 1)) == (held, needed)


def test_a_tied_base_stays_tied_when_it_grows_and_gets_an_adapter() -> None:
    model = adapted("Llama-3.2-1B")
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert model.config.tie_word_embeddings
    assert embedding.weight is head.weight and embedding.weight.requires_grad
    assert embedding.original_module.weight is head.original_module.weight and not embedding.original_module.weight.requires_grad
    modules = trained(model)
    assert len(modules) == 16 * 7 + 2 and modules["model.embed_tokens"] == modules["lm_head"] == [(188_416, 2048)]


@pytest.mark.parametrize("name", list(SERVERS))
def test_the_shipped_micro_batch_fits_48_gb_as_calculated(name: str) -> None:
    base, settings = BASES[name], pretrain_config(SERVERS[name])
    counts, rows = COUNTS[name], ROWS[name]
    tokens = settings.train.batch_size * run_config(base.folder).pack.row_length

    def gigabytes(zero_json: Path, tokens: int) -> float:
        fixed = fixed_bytes(counts, base.shape, rows, ROOT / zero_json, gpus=8)
        return sum([*fixed.values(), *moving_bytes(base.shape, rows, tokens).values()]) / 1e9

    shipped = gigabytes(settings.train.deepspeed, tokens)
    assert shipped <= 48
    assert gigabytes(settings.train.deepspeed, 4 * tokens) > 48  # the calculation tells one from the other
    assert gigabytes(Path("ds_configs/zero3.json"), tokens) < shipped < gigabytes(Path("ds_configs/zero1.json"), tokens)
