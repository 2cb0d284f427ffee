"""The export stage from outside: its folder, its card, its refusals."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from llama_gene import runtime
from llama_gene.data.askable import TASK_FACTS, read_askable_tasks
from llama_gene.errors import ConfigError, InputError, MissingFileError
from llama_gene.export.manifest import verify_export
from llama_gene.recipes import chat, serve
from llama_gene.recipes.chat import own_tasks
from llama_gene.recipes.export import Config, run
from tests.tiny_models import save_adapter


def test_the_folder_holds_weights_tokenizer_card_and_manifest(tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / "results.md").write_text("| task | ours |\n| --- | --- |\n| promoter | 0.9 |\n")
    runtime.write_json(results / "results.json", {"simulated": True})
    runtime.write_manifest(results, "evaluate", {})
    output = run(Config(model=save_adapter(tmp_path), results=results, output_dir=tmp_path / "my-model", fresh_process=False))
    names = {path.name for path in output.iterdir()}
    assert names >= {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja", "README.md"}
    manifest = verify_export(output)
    assert manifest["template"] == "alpaca" and manifest["rows_cut"] == 0 and manifest["written_gap"] <= manifest["tolerance"]
    assert set(manifest["files"]) == names - {"manifest.json"}
    assert str(tmp_path) not in (output / "manifest.json").read_text() + (output / "README.md").read_text()
    card = (output / "README.md").read_text()
    assert card.startswith("---\n") and "# my-model" in card and "| promoter | 0.9 |" in card
    assert "simulated data" in card and "`sft`: 3 steps, 1,200 tokens" in card and "base_model" not in card
    generation = GenerationConfig.from_pretrained(output)
    assert (generation.bos_token_id, generation.eos_token_id, generation.pad_token_id) == (0, 1, 1)


def test_the_bases_precision_is_kept_unless_another_is_asked_for(tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path, precision=torch.bfloat16)
    kept = run(Config(model=adapter, output_dir=tmp_path / "kept", fresh_process=False))
    assert AutoModelForCausalLM.from_pretrained(kept).dtype == torch.bfloat16
    asked = run(Config(model=adapter, output_dir=tmp_path / "asked", dtype="float32", fresh_process=False))
    assert AutoModelForCausalLM.from_pretrained(asked).dtype == torch.float32


def test_weights_are_sharded(tmp_path: Path) -> None:
    output = run(Config(model=save_adapter(tmp_path), output_dir=tmp_path / "model", max_shard_size="50KB", fresh_process=False))
    assert (output / "model.safetensors.index.json").is_file() and len(list(output.glob("*.safetensors"))) > 1
    verify_export(output)


def test_an_exported_folder_can_be_exported_again_with_another_precision(tmp_path: Path) -> None:
    first = run(Config(model=save_adapter(tmp_path), output_dir=tmp_path / "first", fresh_process=False))
    second = run(Config(model=first, output_dir=tmp_path / "second", dtype="bfloat16", fresh_process=False))
    assert verify_export(second)["vocabulary"] == json.loads((first / "manifest.json").read_text())["vocabulary"]


def test_the_folder_loads_in_a_fresh_process_without_this_package(tmp_path: Path) -> None:
    output = run(Config(model=save_adapter(tmp_path), output_dir=tmp_path / "model", fresh_process=False))
    script = (
        "import sys; from transformers import AutoModelForCausalLM as M, AutoTokenizer as T\n"
        "m, t = M.from_pretrained(sys.argv[1]), T.from_pretrained(sys.argv[1])\n"
        "c = [{'role': 'user', 'content': 'ACGT'}]\n"
        "i = t.apply_chat_template(c, add_generation_prompt=True, return_tensors='pt', return_dict=True)\n"
        "print(m.generate(**i, max_new_tokens=2).shape[1] - i['input_ids'].shape[1], 'llama_gene' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(output)], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split()[1] == "False" and 1 <= int(done.stdout.split()[0]) <= 2


def test_an_export_carries_the_tasks_of_its_instructions_and_no_path(tmp_path: Path, instructions: Path) -> None:
    adapter = save_adapter(tmp_path)
    assert own_tasks(str(adapter)).by_name == {}
    facts = runtime.read_json(adapter / "manifest.json")
    there = shutil.copytree(instructions, tmp_path / "instructions")
    runtime.write_json(adapter / "manifest.json", {**facts, "config": {"instructions": str(there)}})
    wanted = read_askable_tasks([instructions])
    first = run(Config(model=adapter, output_dir=tmp_path / "first", fresh_process=False))
    shutil.rmtree(there)
    again = run(Config(model=first, output_dir=tmp_path / "again", fresh_process=False))
    for folder in (first, again):
        assert own_tasks(str(folder)) == wanted and list(wanted.by_name) == ["tata"]
        assert set(verify_export(folder)["tuned_on"]["by_name"]["tata"]) == set(TASK_FACTS)
        assert str(tmp_path) not in (folder / "manifest.json").read_text()
    gone = run(Config(model=adapter, output_dir=tmp_path / "gone", fresh_process=False))
    assert verify_export(gone)["tuned_on"] is None and own_tasks(str(gone)).by_name == {}
    with pytest.raises(ConfigError, match="names tasks of its own"):
        serve.run(serve.Config(model=str(gone), port=0))


def test_carried_tasks_that_are_none_of_ours_are_refused_and_chat_goes_on_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for carried in (["core"], {"words": "default"}, {"words": "default", "by_name": {"core": {"title": "x"}}}):
        runtime.write_manifest(tmp_path, "export", {}, tuned_on=carried)
        with pytest.raises(InputError, match="the tasks of the model's manifest cannot be read"):
            own_tasks(str(tmp_path))
        assert chat._tasks(chat.Config(model=str(tmp_path))).by_name == {}
        assert "cannot be read" in capsys.readouterr().err


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--model and --output_dir"):
        run(Config(model=tmp_path))
    with pytest.raises(MissingFileError, match="does not exist"):
        run(Config(model=tmp_path / "nowhere", output_dir=tmp_path / "out", fresh_process=False))
    with pytest.raises(InputError, match=r"manifest\.json"):
        run(Config(model=tmp_path, output_dir=tmp_path / "out", fresh_process=False))
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_not_ours_is_never_overwritten(tmp_path: Path) -> None:
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="is not an earlier output"):
        run(Config(model=save_adapter(tmp_path), output_dir=precious, fresh_process=False))
    assert (precious / "thesis.tex").read_text() == "years of work"


def test_the_card_says_what_was_read_and_what_evaluation_holds() -> None:
    from llama_gene.export.card import model_card

    data = {
        "dna": {
            "letters": {"train": 51_000_000}, "documents": {"train": 78_000},
            "documents_rejected": {"holds an evaluation sequence": 408, "repeat of an earlier document": 0},
            "evaluation_hits": {"gue_test.csv": 408},
        }
    }  # fmt: skip
    looks = [{"step": 0, "held_out/dna": 2.5}, {"step": 9, "held_out/dna": 1.93}]
    stages = [{"stage": "pretrain", "data": data, "held_out": looks}, {"stage": "sft"}]
    text = model_card(
        "m", "b", {"size": 10, "fingerprint": "f"}, stages, {"merge_gap": 0, "written_gap": 0, "tolerance": 1}, "float32", "alpaca"
    )
    assert (
        "- dna: 51,000,000 letters in 78,000 documents; left out: 408 documents (holds an evaluation sequence); documents that hold" in text
    )
    assert "evaluation sequences: gue_test.csv 408" in text and "held-out bits per letter dna 2.500 to 1.930" in text
