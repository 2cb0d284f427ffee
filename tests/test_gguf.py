"""The GGUF file: its tensors are the folder's, its metadata the network's, and what llama.cpp would run otherwise is refused."""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

from llama_gene import cli
from llama_gene.errors import ConfigError, InputError, MachineError, MismatchError, MissingFileError
from llama_gene.export.gguf_tensors import check_architecture, interleave_heads, plan_tensors, read_tensor, rope_factors
from llama_gene.recipes import export
from llama_gene.recipes.export_gguf import Config, run
from llama_gene.runtime import read_json
from tests.gguf_folders import LLAMA3_ROPE, exported, small_llama
from tests.tiny_models import save_adapter, tiny_gpt2, tiny_mistral

try:
    import gguf
except ImportError:
    gguf = None  # type: ignore[assignment]

needs_gguf = pytest.mark.skipif(gguf is None, reason="the package gguf is not installed (extra gguf)")


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the metadata and the tensors, as numbers, of the one GGUF file of a folder."""
    [path] = folder.glob("*.gguf")
    reader = gguf.GGUFReader(path)
    tensors = {tensor.name: torch.tensor(gguf.quants.dequantize(tensor.data, tensor.tensor_type)) for tensor in reader.tensors}
    return {key: field.contents() for key, field in reader.fields.items()}, tensors


def write(kind: str, dtype: str, folder: Path) -> Path:
    return run(Config(model=exported(kind).folder, dtype=dtype, output_dir=folder / dtype))  # type: ignore[arg-type]


@needs_gguf
def test_an_f32_file_holds_every_weight_bit_for_bit(tmp_path: Path) -> None:
    metadata, tensors = read(write("sentencepiece", "f32", tmp_path))
    state = exported("sentencepiece").model.state_dict()
    assert len(tensors) == len(state) == 21 and metadata["general.file_type"] == 0
    assert torch.equal(tensors["token_embd.weight"], state["model.embed_tokens.weight"])
    assert torch.equal(tensors["output.weight"], state["lm_head.weight"])
    assert torch.equal(tensors["blk.1.ffn_down.weight"], state["model.layers.1.mlp.down_proj.weight"])
    assert torch.equal(tensors["blk.1.attn_norm.weight"], state["model.layers.1.input_layernorm.weight"])
    assert torch.equal(tensors["blk.0.attn_v.weight"], state["model.layers.0.self_attn.v_proj.weight"])
    query = state["model.layers.0.self_attn.q_proj.weight"]
    assert torch.equal(tensors["blk.0.attn_q.weight"][16 + 1], query[16 + 8])  # head 1 of 16 rows: its row 8 comes second
    assert not torch.equal(tensors["blk.0.attn_q.weight"], query)


@needs_gguf
def test_the_metadata_is_the_networks_shape_and_where_it_comes_from(tmp_path: Path) -> None:
    output = write("tiktoken", "f32", tmp_path)
    metadata, tensors = read(output)
    shape = {
        "general.architecture": "llama", "llama.vocab_size": 933, "llama.block_count": 2, "llama.context_length": 1024,
        "llama.embedding_length": 64, "llama.feed_forward_length": 96, "llama.attention.head_count": 4, "llama.attention.head_count_kv": 2,
        "llama.rope.dimension_count": 16, "llama.rope.freq_base": 500000.0, "general.license": "other",
        "general.license.name": "the licence of the base, tiny/base", "general.base_model.0.name": "tiny/base",
        "llama_gene.template": "alpaca",
    }  # fmt: skip
    assert {key: metadata.get(key) for key in shape} == shape
    manifest = read_json(exported("tiktoken").folder / "manifest.json")
    assert [metadata[f"llama_gene.{key}"] for key in ("vocabulary", "prompt", "seal")] == [
        manifest[k] for k in ("vocabulary", "prompt", "seal")
    ]
    assert "raise_exception" in metadata["tokenizer.chat_template"]
    assert "output.weight" not in tensors and tensors["rope_freqs.weight"].shape == (8,)  # tied; 16 / 2 frequencies
    ours = read_json(output / "manifest.json")
    assert ours["types"] == {"f32": 21} and ours["tensors"] == 21 and ours["stage"] == "export gguf" and ours["template"] == "alpaca"
    assert str(tmp_path) not in (output / "manifest.json").read_text() + (output / "Modelfile").read_text()


@needs_gguf
@pytest.mark.parametrize(("dtype", "bound", "file_type"), [("f16", 2.0**-11, 1), ("bf16", 2.0**-8, 32), ("q8_0", 1 / 254 + 1e-3, 7)])
def test_a_smaller_type_rounds_matrices_and_leaves_vectors(dtype: str, bound: float, file_type: int, tmp_path: Path) -> None:
    metadata, tensors = read(write("sentencepiece", dtype, tmp_path))
    state = exported("sentencepiece").model.state_dict()
    assert metadata["general.file_type"] == file_type
    assert torch.equal(tensors["output_norm.weight"], state["model.norm.weight"])
    weight = state["model.layers.0.mlp.down_proj.weight"]
    largest = weight.reshape(-1, 32).abs().amax(1).repeat_interleave(32).reshape(weight.shape)  # of its block
    scale = largest if dtype == "q8_0" else weight.abs()
    error = (tensors["blk.0.ffn_down.weight"] - weight).abs()
    assert error.max() > 0 and (error <= bound * scale + 1e-7).all()


@needs_gguf
def test_rows_that_q8_0_cannot_hold_are_f16_and_counted() -> None:
    from llama_gene.export.gguf_tensors import _type_of

    assert _type_of("blk.0.ffn_down.weight", (64, 96), "q8_0") == "q8_0" and _type_of("blk.0.ffn_down.weight", (64, 80), "q8_0") == "f16"
    assert _type_of("position_embd.weight", (256, 64), "q8_0") == _type_of("blk.0.attn_norm.weight", (64,), "q8_0") == "f32"


@needs_gguf
def test_rows_of_padding_are_cut_and_a_token_without_a_row_is_refused(tmp_path: Path) -> None:
    model = small_llama(128)
    model.save_pretrained(tmp_path)
    plan, rows_cut = plan_tensors(model.config, tmp_path, "f32", 100)
    assert rows_cut == 2 * 28 and {tensor.shape for tensor in plan if tensor.name in ("token_embd.weight", "output.weight")} == {(100, 64)}
    [head] = [tensor for tensor in plan if tensor.name == "output.weight"]
    assert torch.equal(torch.tensor(read_tensor(head)), model.lm_head.weight[:100])
    with pytest.raises(MismatchError, match="one for each of 129 tokens"):
        plan_tensors(model.config, tmp_path, "f32", 129)


@needs_gguf
def test_a_weight_beyond_f16_is_refused(tmp_path: Path) -> None:
    model = small_llama(128)
    with torch.no_grad():
        model.lm_head.weight[3, 3] = 70000.0
    model.save_pretrained(tmp_path)
    [head] = [tensor for tensor in plan_tensors(model.config, tmp_path, "f16", 128)[0] if tensor.name == "output.weight"]
    with pytest.raises(InputError, match=r"holds 70000; expected weights below 65,504 for f16\. Write bf16"):
        read_tensor(head)


@needs_gguf
def test_a_model_that_lacks_a_tensor_or_has_a_strange_one_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model = small_llama(128)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file({name: tensor for name, tensor in state.items() if "k_proj" not in name}, tmp_path / "model.safetensors")
    with pytest.raises(MismatchError, match=r"no tensor for 'blk\.0\.attn_k'"):
        plan_tensors(model.config, tmp_path, "f32", 128)
    save_file(state | {"model.layers.0.mystery.weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"has no place for 'model\.layers\.0\.mystery\.weight'"):
        plan_tensors(model.config, tmp_path, "f32", 128)
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:3000])
    with pytest.raises(InputError, match="cannot be read"):
        plan_tensors(model.config, tmp_path, "f32", 128)


@needs_gguf
def test_gpt2s_projections_are_turned(tmp_path: Path) -> None:
    model = tiny_gpt2()
    model.save_pretrained(tmp_path)
    check_architecture(model.config, tmp_path)
    plan, _ = plan_tensors(model.config, tmp_path, "f32", 259)
    arrays = {tensor.name: torch.tensor(read_tensor(tensor)) for tensor in plan}
    assert torch.equal(arrays["blk.1.attn_qkv.weight"], model.transformer.h[1].attn.c_attn.weight.T)
    assert torch.equal(arrays["blk.1.ffn_down.weight"], model.transformer.h[1].mlp.c_proj.weight.T)
    assert torch.equal(arrays["position_embd.weight"], model.transformer.wpe.weight) and "output.weight" not in arrays


def test_neighbours_turned_in_the_new_order_are_halves_turned_in_the_old() -> None:
    torch.manual_seed(0)
    heads, size, angle = 3, 8, torch.rand(4)
    projection, x = torch.randn(heads * size, 5), torch.randn(5)
    old = (projection @ x).reshape(heads, size)
    first, second = old[:, : size // 2], old[:, size // 2 :]
    expected = torch.stack([first * angle.cos() - second * angle.sin(), first * angle.sin() + second * angle.cos()], dim=-1)
    new = (interleave_heads(projection, heads) @ x).reshape(heads, size // 2, 2)
    found = torch.stack(
        [new[..., 0] * angle.cos() - new[..., 1] * angle.sin(), new[..., 0] * angle.sin() + new[..., 1] * angle.cos()], dim=-1
    )
    assert torch.allclose(found, expected, atol=1e-6)


def test_scaled_frequencies_are_llama3s() -> None:
    factors = rope_factors(small_llama(8, rope_parameters=LLAMA3_ROPE).config)
    assert factors is not None
    for place, factor in enumerate(factors):
        wave = 2 * math.pi * 500000.0 ** (2 * place / 16)
        smooth = (64 / wave - 1) / (4 - 1)  # original length 64, low 1, high 4
        expected = 1.0 if wave < 16 else 8.0 if wave > 64 else 1 / ((1 - smooth) / 8 + smooth)
        assert factor == pytest.approx(expected, rel=1e-5)
    assert 1.0 in factors.round(4) and 8.0 in factors.round(4)
    assert rope_factors(LlamaConfig()) is None


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (tiny_mistral().config, "is a 'mistral'"),
        (LlamaConfig(attention_bias=True), "has biases"),
        (LlamaConfig(hidden_act="gelu"), "has the activation 'gelu'"),
        (LlamaConfig(rope_parameters={"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}), "scales its positions by 'yarn'"),
    ],
)
def test_a_network_that_llama_cpp_would_compute_otherwise_is_refused(config: Any, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        check_architecture(config, Path("model"))


def test_bad_input_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    good = exported("sentencepiece").folder
    with pytest.raises(ConfigError, match="--model and --output_dir"):
        run(Config(model=good))
    with pytest.raises(MissingFileError, match=r"nowhere does not exist; expected a folder written by `llama-gene export`"):
        run(Config(model=tmp_path / "nowhere", output_dir=out))
    adapter = save_adapter(tmp_path)
    with pytest.raises(
        InputError, match=r"is an adapter, and GGUF needs the merged model.*Run `llama-gene export --model .*adapter` first"
    ):
        run(Config(model=adapter, output_dir=out))
    assert cli.main(["export", "gguf", "--model", str(good), "--output_dir", str(out), "--dtype", "q4_0"]) == 2
    assert "q8_0" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"the output folder .* lies in .*, which is read; expected one beside it"):
        run(Config(model=good, output_dir=good / "gguf"))
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MachineError, match=r"the package gguf is not installed.*pip install 'llama-gene\[gguf\]'"):
        run(Config(model=good, output_dir=out))
    assert not out.exists()


@needs_gguf
def test_a_folder_that_is_not_an_untouched_export_is_refused(tmp_path: Path) -> None:
    out, folder = tmp_path / "out", tmp_path / "copy"
    shutil.copytree(exported("sentencepiece").folder, folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(MismatchError, match=r"lacks model\.safetensors"):
        run(Config(model=folder, output_dir=out))
    (folder / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"has no manifest\.json; expected the output of `llama-gene export`"):
        run(Config(model=folder, output_dir=out))
    assert not out.exists()


@needs_gguf
def test_a_sharded_export_in_bfloat16_becomes_the_same_file_whole(tmp_path: Path) -> None:
    sharded = export.run(
        export.Config(model=exported("tiktoken").folder, dtype="bfloat16", max_shard_size="50KB", output_dir=tmp_path / "s")
    )
    assert len(list(sharded.glob("*.safetensors"))) > 1
    whole = export.run(export.Config(model=exported("tiktoken").folder, dtype="bfloat16", output_dir=tmp_path / "w"))
    (one, first), (other, second) = (
        read(run(Config(model=folder, output_dir=tmp_path / f"{folder.name}_out"))) for folder in (sharded, whole)
    )
    assert one["general.file_type"] == other["general.file_type"] == 32  # base: bfloat16 as the folder
    assert set(first) == set(second) and all(torch.equal(first[name], second[name]) for name in first)
