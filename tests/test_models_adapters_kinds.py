"""Ways to train an adapter besides the papers': new rows only, packed frozen weights, rsLoRA, DoRA, LoRA+, experts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, MixtralConfig, MixtralForCausalLM

from llama_gene import runtime
from llama_gene.errors import ConfigError, MismatchError
from llama_gene.models.adapters import attach_lora, load_model
from llama_gene.models.settings import Architecture, LoraSettings
from llama_gene.recipes import export, pretrain, sft
from llama_gene.training.settings import WatchSettings
from llama_gene.training.trainer import train
from tests import two_processes as jobs
from tests.conftest import Route, make_base, tiny_training
from tests.tiny_models import tiny_llama


def adapter_of(route: Route, folder: Path, base: Path | None = None, steps: int = 6, **changes: Any) -> Path:
    """Train an adapter on the toy rows."""
    lora = LoraSettings(**{"rank": 4, "dropout": 0.0, **changes})
    config = pretrain.Config(rows=route.rows, base=str(base or route.base), lora=lora, train=tiny_training(steps), output_dir=folder)
    return pretrain.run(config)


def logits(model: Any) -> torch.Tensor:
    ids = torch.tensor([[1, *range(3, 590, 7)]])
    with torch.no_grad():
        result: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    return result


# --- new rows only ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_law_05_new_rows_train_alone_and_old_ones_keep_their_bits(route: Route, tmp_path: Path, tied: bool) -> None:
    base = make_base(route.corpus, route.corpus.parent, tied=True) if tied else route.base
    adapter = adapter_of(route, tmp_path / "adapter", base, rows="new")
    before = AutoModelForCausalLM.from_pretrained(base)
    num_old = before.get_input_embeddings().weight.shape[0]
    folder = export.run(export.Config(model=adapter, output_dir=tmp_path / "model", fresh_process=False))
    after = AutoModelForCausalLM.from_pretrained(folder)
    for old, new in ((m.get_input_embeddings().weight, m2.get_input_embeddings().weight) for m, m2 in ((before, after),)):
        assert torch.equal(old, new[:num_old])
    assert torch.equal(before.get_output_embeddings().weight, after.get_output_embeddings().weight[:num_old])
    assert after.config.tie_word_embeddings == tied
    started = load_file(adapter_of(route, tmp_path / "untrained", base, steps=1, rows="new", rank=2) / "adapter_model.safetensors")
    trained = load_file(adapter / "adapter_model.safetensors")
    rows = {name: tensor for name, tensor in trained.items() if "lora" not in name}
    assert {tuple(tensor.shape) for tensor in rows.values()} == {(592 - num_old, 32)} and len(rows) == (1 if tied else 2)
    assert all(not torch.equal(tensor, started[name]) for name, tensor in rows.items())
    adapted, _ = load_model(adapter)
    assert torch.allclose(logits(adapted), logits(after), atol=1e-5)


def test_law_05_old_rows_keep_their_bits_at_60000_new_rows(tmp_path: Path) -> None:
    model = tiny_llama(259)
    model.resize_token_embeddings(60_259, mean_resizing=False)
    old = [layer.weight[:259].detach().clone() for layer in (model.get_input_embeddings(), model.get_output_embeddings())]
    adapter = attach_lora(model, LoraSettings(rank=2, dropout=0.0, rows="new"), new_rows=range(259, 60_259))
    rows = [{"input_ids": [0, *range(300 + 64 * n, 330 + 64 * n), 5, 1], "lengths": [33]} for n in range(16)]
    result, saved = train(adapter, {"all": rows}, {"all": 1.0}, 1, tiny_training(4), tmp_path / "work", "key")
    weights = load_file(saved / "adapter_model.safetensors")
    assert sorted(tuple(tensor.shape) for name, tensor in weights.items() if "lora" not in name) == [(60_000, 32), (60_000, 32)]
    merged = adapter.merge_and_unload()
    layers = (merged.get_input_embeddings(), merged.get_output_embeddings())
    assert all(torch.equal(layer.weight[:259], kept) for layer, kept in zip(layers, old, strict=True))
    assert len(result.history) == 4 and not torch.equal(layers[0].weight[300], torch.zeros(32))


def test_new_rows_only_is_refused_where_there_are_none() -> None:
    with pytest.raises(ConfigError, match="lora.rows is 'new' and the vocabulary has no new rows"):
        attach_lora(tiny_llama(), LoraSettings(rows="new"))


# --- frozen weights in 4 or 8 bits ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quantize", ["nf4", "int8"])
def test_qlora_trains_tunes_and_merges_onto_the_full_base(route: Route, tmp_path: Path, quantize: Any) -> None:
    pytest.importorskip("bitsandbytes")
    shape = Architecture(width=64, layers=2, heads=4)  # blocks of 64: narrower layers cannot be packed
    rows = route.corpus.parent / "0_rows"
    base = pretrain.run(pretrain.Config(rows=rows, architecture=shape, train=tiny_training(20), output_dir=tmp_path / "base"))
    adapter = adapter_of(route, tmp_path / "adapter", base, steps=12, quantize=quantize)
    assert runtime.read_manifest(adapter)["quantize"] == quantize
    weights = load_file(adapter / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert {tuple(tensor.shape) for name, tensor in weights.items() if "lora" not in name} == {(592, 64)}
    held_out = runtime.read_manifest(adapter)["held_out"]
    assert held_out[-1]["held_out/dna"] < held_out[0]["held_out/dna"]
    model, _ = load_model(adapter, trainable=True)
    packed = {type(module).__name__ for module in model.modules()} & {"Linear4bit", "Linear8bitLt"}
    assert packed and not {type(module).__name__ for module in load_model(adapter)[0].modules()} & {"Linear4bit", "Linear8bitLt"}
    config = sft.Config(model=str(adapter), instructions=route.instructions, train=tiny_training(2), output_dir=tmp_path / "tuned")
    assert runtime.read_manifest(sft.run(config))["quantize"] == quantize
    folder = export.run(export.Config(model=tmp_path / "tuned", output_dir=tmp_path / "model", fresh_process=False))
    assert AutoModelForCausalLM.from_pretrained(folder).config.vocab_size == 592


def test_looks_at_held_out_rows_change_nothing_in_a_4_bit_run(route: Route, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    norms = []
    for tokens in (0, 2000):
        lora, settings = LoraSettings(rank=4, dropout=0.0, quantize="nf4"), tiny_training(2, watch=WatchSettings(tokens=tokens, every=1))
        config = pretrain.Config(rows=route.rows, base=str(route.base), lora=lora, train=settings, output_dir=tmp_path / str(tokens))
        norms.append([entry["grad_norm"] for entry in runtime.read_json(pretrain.run(config) / "training.json")])
    assert norms[0] == norms[1]


# --- variants that PEFT brings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{"rslora": True}, {"dora": True}, {"init": "pissa"}, {"init": "olora"}], ids=str)
def test_a_variant_trains_reloads_and_merges(route: Route, tmp_path: Path, change: dict[str, Any]) -> None:
    adapter = adapter_of(route, tmp_path / "adapter", **change)
    assert (
        runtime.read_manifest(export.run(export.Config(model=adapter, output_dir=tmp_path / "model", fresh_process=False)))["written_gap"]
        < 1e-4
    )
    plain = load_file(adapter_of(route, tmp_path / "plain") / "adapter_model.safetensors")
    other = load_file(adapter / "adapter_model.safetensors")
    assert plain.keys() != other.keys() or any(not torch.equal(plain[name], other[name]) for name in plain)


def test_lora_plus_gives_b_a_larger_step(tmp_path: Path) -> None:
    sizes = {}
    for ratio in (0.0, 16.0):
        model = attach_lora(tiny_llama(), LoraSettings(rank=4, dropout=0.0, modules_to_save=[]))
        settings = tiny_training(1, loraplus_ratio=ratio, learning_rate=1e-3, weight_decay=0.0, warmup_share=0.0)
        _, saved = train(model, {"all": jobs.uneven_rows()}, {"all": 1.0}, 1, settings, tmp_path / str(ratio), "key")
        weights = load_file(saved / "adapter_model.safetensors")
        sizes[ratio] = max(float(tensor.abs().max()) for name, tensor in weights.items() if "lora_B" in name)
    assert sizes[16.0] == pytest.approx(16 * sizes[0.0], rel=0.05)


@pytest.mark.parametrize("optimizer", ["adamw_8bit", "paged_adamw_8bit"])
def test_8_bit_optimizers_learn(tmp_path: Path, optimizer: Any) -> None:
    pytest.importorskip("bitsandbytes")
    model = attach_lora(tiny_llama(), LoraSettings(rank=4))
    result, _ = train(model, {"all": jobs.uneven_rows()}, {"all": 1.0}, 1, tiny_training(10, optimizer=optimizer), tmp_path / "work", "key")
    assert result.history[-1]["loss"] < result.history[0]["loss"] - 0.3


def test_experts_are_adapted_with_their_router_frozen(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=259, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=256, initializer_range=0.2,
    )  # fmt: skip
    base = MixtralForCausalLM(config)
    stacked = [name for name, parameter in base.named_parameters() if "experts" in name and parameter.ndim == 3]
    routers = {name: parameter.detach().clone() for name, parameter in base.named_parameters() if ".gate." in name or "router" in name}
    assert stacked and routers
    lora = LoraSettings(
        rank=4, dropout=0.0, target_modules=["q_proj", "v_proj"], target_parameters=["experts.gate_up_proj", "experts.down_proj"]
    )
    model = attach_lora(base, lora)
    trains = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any("experts" in name for name in trains) and not any("router" in name or ".gate.weight" in name for name in trains)
    result, _ = train(model, {"all": jobs.uneven_rows()}, {"all": 1.0}, 1, tiny_training(12), tmp_path / "work", "key")
    assert result.history[-1]["loss"] < result.history[0]["loss"] - 0.3
    merged = dict(model.merge_and_unload().named_parameters())
    assert all(torch.equal(merged[name], kept) for name, kept in routers.items())


def test_a_base_with_other_weights_of_the_same_shape_is_refused(route: Route, tmp_path: Path) -> None:
    import shutil

    base = Path(shutil.copytree(route.base, tmp_path / "base"))
    adapter = adapter_of(route, tmp_path / "adapter", base, steps=1)
    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight[0, 0] += 1
    model.save_pretrained(base)
    with pytest.raises(MismatchError, match=r"has weights \w{16}; expected \w{16}, on which the adapter .* was trained"):
        load_model(adapter)
