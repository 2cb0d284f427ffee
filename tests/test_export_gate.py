"""Adapter == merged == reloaded in a fresh process for three shapes of LLaMA; what is broken or does not belong together is one line."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from llama_gene import cli, runtime
from llama_gene.data.prompts import chat_template, prompt_fingerprint, render_prompt, render_user
from llama_gene.export.gate import PROBES, logit_gap, probe_logits, read_back
from llama_gene.export.manifest import verify_export
from llama_gene.export.structure import check_structure
from llama_gene.models.adapters import attach_lora, base_weights, load_model, save_adapter
from llama_gene.models.settings import LoraSettings
from llama_gene.recipes.export import Config, run
from llama_gene.tokenization.tokenizer import encode_text, vocabulary_fingerprint
from tests.tiny_models import PIECES, save_model, tiny_llama, tiny_tokenizer

SHAPES: dict[str, dict[str, Any]] = {
    "llama-2": {"num_key_value_heads": 4},
    "llama-3": {"num_key_value_heads": 2, "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}},
    "llama-3.2": {
        "num_key_value_heads": 1,
        "tie_word_embeddings": True,
        "rope_parameters": {
            "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 128,
        },
    },
}  # fmt: skip


def shaped(name: str) -> LlamaForCausalLM:
    """Return a random model of a shape, two layers of width 32."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=259, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=1024,
        bos_token_id=0, eos_token_id=1, initializer_range=0.2, **SHAPES[name],
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@dataclass(frozen=True)
class Trained:
    """A base that has read something, and an adapter that went on from it with a grown vocabulary."""

    base: Path
    adapter: Path


def prompts(count: int, seed: int = 5) -> list[str]:
    """Return DNA, protein, English and prompts, in turn."""
    rng = random.Random(seed)
    kinds = [
        lambda: "".join(rng.choices("ACGT", k=rng.randint(20, 90))),
        lambda: "".join(rng.choices("ACDEFGHIKLMNPQRSTVWY", k=rng.randint(20, 60))),
        lambda: " ".join(rng.choices(["the", "gene", "codes", "for", "a", "protein", "binds", "DNA"], k=12)),
        lambda: render_prompt(render_user("Is there a promoter?", "".join(rng.choices("ACGT", k=40)))),
    ]
    return [kinds[number % len(kinds)]() for number in range(count)]


def learn(model: Any, tokenizer: Any, steps: int, seed: int) -> None:
    """Take a few steps on texts, and require that they helped."""
    looks = [torch.tensor([[0, *encode_text(tokenizer, text)]]) for text in prompts(8, seed + 10)]

    def mean_loss() -> float:
        with torch.no_grad():
            losses = [cross_entropy(model(input_ids=ids, use_cache=False).logits[0, :-1], ids[0, 1:]) for ids in looks]
        return float(torch.stack(losses).mean())

    before = mean_loss()
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-2)
    torch.manual_seed(seed)
    model.train()
    for text in prompts(steps, seed):
        ids = torch.tensor([[0, *encode_text(tokenizer, text)]])
        loss = cross_entropy(model(input_ids=ids, use_cache=False).logits[0, :-1], ids[0, 1:])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    assert mean_loss() < before


def write_trained(folder: Path, model: Any, tokenizer: Any, base: Path, base_tokenizer: Any, **facts: Any) -> Path:
    """Write an adapter as a training stage does."""
    save_adapter(model, folder)
    tokenizer.chat_template = chat_template()
    tokenizer.save_pretrained(folder)
    runtime.write_manifest(
        folder, "sft", {}, base=str(base), base_vocabulary=vocabulary_fingerprint(base_tokenizer), base_weights=base_weights(str(base)),
        vocabulary=vocabulary_fingerprint(tokenizer), prompt=prompt_fingerprint(), template="alpaca", steps=24, **facts,
    )  # fmt: skip
    return folder


def make(folder: Path, name: str, **lora: Any) -> Trained:
    """Train a base of a shape, and an adapter on it, a little."""
    old, new = tiny_tokenizer(), tiny_tokenizer(PIECES)
    model: Any = shaped(name)
    learn(model, old, 12, 1)
    base = save_model(model, old, folder / "base")
    model.resize_token_embeddings(len(new), mean_resizing=False)
    adapted = attach_lora(model, LoraSettings(**{"rank": 4, "dropout": 0.0, **lora}), new_rows=range(len(old), len(new)))
    learn(adapted, new, 24, 2)
    return Trained(base, write_trained(folder / "adapter", adapted, new, base, old))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A LLaMA-3 that no test may change."""
    return make(tmp_path_factory.mktemp("trained"), "llama-3")


@pytest.fixture(scope="module")
def exported(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its export, which no test may change."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    return run(Config(model=trained.adapter, output_dir=folder, fresh_process=False))


@pytest.mark.parametrize("name", SHAPES)
def test_law_06_adapter_is_merged_is_reloaded_in_a_fresh_process_on_50_prompts(tmp_path: Path, name: str) -> None:
    made = make(tmp_path, name)
    output = run(Config(model=made.adapter, output_dir=tmp_path / "model", max_shard_size="60KB", fresh_process=False))
    manifest = verify_export(output)
    assert manifest["merge"] == "streaming" and manifest["merge_gap"] < 1e-5 and "not_compared" not in manifest["compared"]
    texts = prompts(50)
    adapter, tokenizer = load_model(made.adapter)
    expected = probe_logits(adapter, tokenizer, texts)
    merged = probe_logits(AutoModelForCausalLM.from_pretrained(output), tokenizer, texts)
    facts, reloaded = read_back(output, texts, fresh=True)
    assert logit_gap(expected, merged) < 1e-5 and logit_gap(expected, reloaded) < 1e-5
    assert all(torch.equal(a.argmax(-1), b.argmax(-1)) for a, b in zip(expected, reloaded, strict=True))
    assert facts["ids"] == [[0, *encode_text(tokenizer, text)] for text in texts] and facts["rows"] == facts["tokens"] == 261
    if name == "llama-3.2":  # layer by layer, tied head included, in a process of its own
        by_layer = read_back(output, texts[:8], fresh=True, lazy=True)[1]
        assert logit_gap(expected[:8], by_layer) < 1e-5
    head_written = any("lm_head.weight" in load_file(path) for path in output.glob("*.safetensors"))
    assert head_written == (name != "llama-3.2") and json.loads((output / "config.json").read_text())["tie_word_embeddings"] != head_written


@pytest.mark.parametrize("lora", [{"rows": "new"}, {"dora": True}, {"init": "pissa"}, {"modules_to_save": []}], ids=str)
def test_the_ways_of_training_pass_the_gate_whole_and_layer_by_layer(tmp_path: Path, lora: dict[str, Any]) -> None:
    made = make(tmp_path, "llama-3", **lora)
    streamed = "init" not in lora and "modules_to_save" not in lora
    output = run(Config(model=made.adapter, output_dir=tmp_path / "model", fresh_process=False))
    manifest = verify_export(output)
    assert manifest["merge"] == ("streaming" if streamed else "memory") and manifest["written_gap"] < 1e-5
    if streamed:
        again = run(Config(model=made.adapter, output_dir=tmp_path / "again", compare="layers", fresh_process=False))
        assert (again / "model.safetensors").read_bytes() == (output / "model.safetensors").read_bytes()


def test_two_adapters_in_order_are_the_second_on_the_merged_first(trained: Trained, exported: Path, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(PIECES)
    model = attach_lora(load_model(exported)[0], LoraSettings(rank=2, dropout=0.0, target_modules=["v_proj"], modules_to_save=["norm"]), 3)
    learn(model, tokenizer, 24, 4)
    second = write_trained(tmp_path / "second", model, tokenizer, exported, tokenizer)
    expected = probe_logits(load_model(second)[0], tokenizer)
    for compare in ("whole", "layers"):
        both = [trained.adapter, second]
        output = run(Config(adapter=both, output_dir=tmp_path / compare, compare=compare, fresh_process=False))  # type: ignore[arg-type]
        assert logit_gap(expected, read_back(output, PROBES, fresh=False)[1]) < 1e-5
        manifest = verify_export(output)
        assert [entry["name"] for entry in manifest["adapters"]] == ["adapter", "second"] and "not_compared" not in manifest["compared"]
        assert len(manifest["stages"]) == 2
    refuse(
        ["export", "--adapter", second, trained.adapter, "--output_dir", tmp_path / "no"],
        r"adapter was trained on vocabulary \w{16}; expected \w{16}, that of .*second\. Check their order",
    )
    sibling = write_trained(tmp_path / "sibling", model, tokenizer, trained.base, tiny_tokenizer())
    manifest = runtime.read_json(sibling / "manifest.json")
    runtime.write_json(sibling / "manifest.json", {**manifest, "base_vocabulary": manifest["vocabulary"]})
    refuse(["export", "--adapter", trained.adapter, sibling, "--output_dir", tmp_path / "no"], "was trained on the same base as .*adapter")


def test_a_packed_base_is_merged_onto_the_full_one_and_the_gap_is_reported(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    old = tiny_tokenizer()
    model: Any = tiny_llama()
    base = save_model(model, old, tmp_path / "base")
    adapted = attach_lora(model, LoraSettings(rank=4, dropout=0.0))
    learn(adapted, old, 24, 2)
    adapter = write_trained(tmp_path / "adapter", adapted, old, base, old, quantize="int8")
    manifest = verify_export(run(Config(model=adapter, output_dir=tmp_path / "model", fresh_process=False)))
    assert manifest["merge_gap"] < 1e-5 and manifest["written_gap"] < 1e-5 and 1e-4 < manifest["quantized_gap"] < 0.5
    assert "its base in few bits, differs by" in (tmp_path / "model" / "README.md").read_text()


# --- bad input: one line, exit code 2, nothing written ---------------------------------------------------------------------------


def refuse(command: list[Any], message: str) -> None:
    """Run a command that must end with exit code 2 and one line."""
    import contextlib
    import io
    import re

    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        code = cli.main([str(word) for word in command])
    lines = [line for line in errors.getvalue().splitlines() if line.startswith("llama-gene ")]
    assert code == 2 and len(lines) == 1 and "Traceback" not in errors.getvalue(), errors.getvalue()
    assert re.search(message, lines[0]), lines[0]


def cut(path: Path) -> None:
    """Take the last bytes off a file."""
    path.write_bytes(path.read_bytes()[:-100])


def to_pickle(path: Path) -> None:
    """Put a pickle in place of a safetensors file."""
    torch.save({}, path.with_name("pytorch_model.bin" if path.name == "model.safetensors" else "adapter_model.bin"))
    path.unlink()


def change_weight(path: Path) -> None:
    """Change one weight."""
    tensors = load_file(path)
    tensors["model.norm.weight"][0] += 1
    save_file(tensors, path, metadata={"format": "pt"})


def drop_tensor(path: Path) -> None:
    """Take a tensor out."""
    save_file({name: tensor for name, tensor in load_file(path).items() if name != "model.norm.weight"}, path, metadata={"format": "pt"})


def test_what_is_broken_or_foreign_is_one_line(trained: Trained, tmp_path: Path) -> None:
    table = [
        ("base", "model.safetensors", change_weight, r"has weights \w{16}; expected \w{16}, on which the adapter .* was trained"),
        ("base", "model.safetensors", cut, r"model\.safetensors cannot be read: .*; expected a whole safetensors file"),
        ("base", "model.safetensors", to_pickle, r"holds its weights as a pickle \(pytorch_model\.bin\), which can run code"),
        ("base", "model.safetensors", Path.unlink, r"base holds no \*\.safetensors"),
        ("base", "config.json", lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": {
            "quant_method": "bitsandbytes", "load_in_4bit": True}})), r"are packed \(bitsandbytes\); expected the base in full precision"),
        ("adapter", "adapter_model.safetensors", cut, r"adapter_model\.safetensors cannot be read"),
        ("adapter", "adapter_model.safetensors", to_pickle, r"as a pickle \(adapter_model\.bin\)"),
        ("adapter", "chat_template.jinja", Path.unlink, r"has no chat_template\.jinja; expected the prompt as a chat template"),
    ]  # fmt: skip
    for number, (which, name, harm, message) in enumerate(table):
        folder = tmp_path / str(number)
        base, adapter = shutil.copytree(trained.base, folder / "base"), shutil.copytree(trained.adapter, folder / "adapter")
        harm((base if which == "base" else adapter) / name)  # type: ignore[operator]
        refuse(["export", "--model", adapter, "--base", base, "--output_dir", folder / "out"], message)
        assert not (folder / "out").exists()
    base = Path(shutil.copytree(trained.base, tmp_path / "sharded"))
    AutoModelForCausalLM.from_pretrained(trained.base).save_pretrained(base, max_shard_size="40KB")
    (base / "model.safetensors").unlink(missing_ok=True)
    next(iter(sorted(base.glob("model-*.safetensors")))).unlink()
    asked = ["export", "--model", trained.adapter, "--output_dir", tmp_path / "out"]
    adapter = Path(shutil.copytree(trained.adapter, tmp_path / "adapter"))
    facts = runtime.read_json(adapter / "manifest.json")
    runtime.write_json(adapter / "manifest.json", {**facts, "base_weights": None})  # the weights' stamp would be refused before
    refuse(
        ["export", "--model", adapter, "--base", base, "--output_dir", tmp_path / "out"], r"lacks model-00001-of-\d+\.safetensors \(1 of \d"
    )
    lacking = Path(shutil.copytree(trained.base, tmp_path / "lacking"))
    drop_tensor(lacking / "model.safetensors")
    refuse(
        ["export", "--model", adapter, "--base", lacking, "--output_dir", tmp_path / "out"], r"lacks model\.norm\.weight; expected every"
    )
    refuse([*asked, "--adapter", trained.adapter], "model and adapter are both given; expected exactly one")
    refuse([*asked, "--max_shard_size", "big"], "max_shard_size is 'big'; expected a size such as 4GB")
    refuse([*asked, "--max_shard_size", "0GB"], "max_shard_size is '0GB'; expected a size such as 4GB")
    refuse([*asked, "--tolerance", "-1"], "tolerance is -1; expected a gap above 0")
    inside = trained.adapter / "model"
    refuse(
        ["export", "--model", trained.adapter, "--output_dir", inside], "output folder .* lies in .*, which is read; expected one beside"
    )
    assert not inside.exists()
    refuse([*asked, "--base", tmp_path / "gone"], "gone does not exist; expected the base that the adapter")
    refuse(["export", "--verify", trained.base, "--base", trained.base], "base is given and no adapter is")
    refuse(["export", "--verify", tmp_path / "gone"], "gone does not exist; expected a model folder")


def test_a_model_whose_files_keep_its_experts_apart_has_a_structure(tmp_path: Path) -> None:
    config = MixtralConfig(
        vocab_size=259, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
        num_local_experts=2, num_experts_per_tok=1, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    save_model(MixtralForCausalLM(config), tiny_tokenizer(), tmp_path)
    found = check_structure(tmp_path)
    assert (found.architecture, found.tokens, found.padding_rows, found.tied) == ("MixtralForCausalLM", 259, 0, False)


def test_a_hub_base_is_taken_from_the_cache_or_the_line_says_what_to_set(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    cached = tmp_path / "hub" / "models--gene--base"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    shutil.copytree(trained.base, cached / "snapshots" / ("0" * 40))
    output = run(Config(model=trained.adapter, base="gene/base", output_dir=tmp_path / "model", fresh_process=False))
    assert verify_export(output)["written_gap"] < 1e-5
    asked = ["export", "--model", trained.adapter, "--output_dir", tmp_path / "out"]
    refuse([*asked, "--base", "gene/absent"], "the base 'gene/absent' is no folder here .*HF_TOKEN")


def test_a_folder_from_elsewhere_is_checked_for_structure_and_its_logits_where_it_can_be(
    trained: Trained, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = Path(shutil.copytree(exported, tmp_path / "foreign"))
    (foreign / "manifest.json").unlink()
    (foreign / "README.md").unlink()
    assert cli.main(["export", "--verify", str(foreign)]) == 0
    said = capsys.readouterr().out
    assert "LlamaForCausalLM, 21 tensors, 261 tokens, 0 padding rows, head of its own" in said and "logits not compared (give" in said
    same = ["--adapter", str(trained.adapter), "--base", str(trained.base), "--fresh_process", "false"]
    assert cli.main(["export", "--verify", str(foreign), *same]) == 0
    assert "logits compared with the adapter's: gap" in capsys.readouterr().out
    assert cli.main(["export", "--verify", str(exported)]) == 0
    assert "no file was changed since the export" in capsys.readouterr().out
    for name, harm, message in [
        ("model.safetensors", cut, "cannot be read"),
        ("model.safetensors", drop_tensor, r"lacks model\.norm\.weight"),
        ("chat_template.jinja", Path.unlink, "has no chat template"),
        (
            "config.json",
            lambda path: path.write_text(path.read_text().replace('"hidden_size": 32', '"hidden_size": 64')),
            "has shape .* as config",
        ),
        ("config.json", lambda path: path.write_text(path.read_text().replace('"vocab_size": 261', '"vocab_size": 270')), "has shape"),
        ("config.json", lambda path: path.write_text(path.read_text().replace('"eos_token_id": 1', '"eos_token_id": 2')), "eos_token_id 2"),
        ("config.json", lambda path: path.write_text(path.read_text().replace("{", '{"auto_map": {},', 1)), "needs code of its own"),
        ("model.bin", lambda path: path.write_bytes(b"\x80"), "is a pickle"),
    ]:
        folder = Path(shutil.copytree(foreign, tmp_path / "harmed"))
        harm(folder / name)  # type: ignore[operator]
        refuse(["export", "--verify", folder], message)
        shutil.rmtree(folder)
    change_weight(foreign / "model.safetensors")
    assert cli.main(["export", "--verify", str(foreign)]) == 0  # nobody can know
    refuse(["export", "--verify", foreign, *same], "logits of the written folder differ from the adapter's")
    tampered = Path(shutil.copytree(exported, tmp_path / "tampered"))
    change_weight(tampered / "model.safetensors")
    refuse(["export", "--verify", tampered], r"model\.safetensors was changed after the export")


def test_a_link_too_many_and_a_manifest_that_was_taken_away_are_refused(exported: Path, tmp_path: Path) -> None:
    for number, target in enumerate((tmp_path / "nowhere", tmp_path)):
        folder = Path(shutil.copytree(exported, tmp_path / f"link{number}"))
        (folder / "more").symlink_to(target)
        refuse(["export", "--verify", folder], "holds more; expected only the files of the export")
    for number, harm in enumerate((Path.unlink, lambda path: path.write_text(path.read_text().replace('"export"', '"xxport"')))):
        folder = Path(shutil.copytree(exported, tmp_path / f"manifest{number}"))
        harm(folder / "manifest.json")  # type: ignore[operator]
        refuse(["export", "--verify", folder], r"lacks its manifest\.json, of which README\.md tells, or it was changed")
