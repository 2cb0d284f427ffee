"""The pretrain stage: what it writes, what it leaves alone, what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from llama_gene import runtime
from llama_gene.data.prompts import chat_template, prompt_fingerprint
from llama_gene.errors import ConfigError, InputError, MismatchError
from llama_gene.models import embeddings
from llama_gene.models.adapters import load_model
from llama_gene.models.build import load_base
from llama_gene.models.settings import Architecture, EmbeddingInit, LoraSettings
from llama_gene.recipes import export
from llama_gene.recipes.pretrain import Config, run
from llama_gene.tokenization.tokenizer import load_tokenizer, vocabulary_fingerprint
from llama_gene.training import trainer
from tests.conftest import Route, make_base, tiny_training
from tests.fixtures.tiny_vocabularies import spliced
from tests.tiny_models import save_model, tiny_gpt2, tiny_llama

ROOT = Path(__file__).resolve().parents[1]


def losses(folder: Path) -> list[float]:
    """Return the logged losses."""
    return [entry["loss"] for entry in json.loads((folder / "training.json").read_text())]


def hashes(folder: Path) -> dict[str, str]:
    """Return every file of a folder with its hash."""
    return {path.name: runtime.file_hash(path) for path in folder.iterdir()}


def test_an_adapter_folder_says_where_it_comes_from(route: Route) -> None:
    names = {path.name for path in route.adapter.iterdir()}
    assert names == {
        "adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "tokenizer_config.json", "tokenizer.model",
        "chat_template.jinja", "training.json", "loss.png", "manifest.json",
    }  # fmt: skip
    manifest = runtime.read_manifest(route.adapter, "pretrain")
    assert manifest["base"] == str(route.base.resolve())
    assert manifest["base_vocabulary"] == vocabulary_fingerprint(load_tokenizer(route.base))
    assert manifest["vocabulary"] == vocabulary_fingerprint(load_tokenizer(route.tokenizer))
    assert (manifest["embedding_init"], manifest["embedding_seed"]) == ("pieces", 0)
    assert manifest["prompt"] == prompt_fingerprint() and manifest["processes"] == 1 and manifest["steps"] == 20
    assert (route.adapter / "tokenizer.json").read_bytes() == (route.tokenizer / "tokenizer.json").read_bytes()
    assert len(losses(route.adapter)) == 20 and min(losses(route.adapter)) < losses(route.adapter)[1] - 0.3
    assert manifest["final_loss"] == losses(route.adapter)[-1]
    assert not route.adapter.with_name(route.adapter.name + ".work").exists()
    # The paper's layers: LoRA on all linear layers, embedding and head whole.
    weights = load_file(route.adapter / "adapter_model.safetensors")
    assert {tuple(tensor.shape) for name, tensor in weights.items() if "lora" not in name} == {(592, 32)} and len(weights) == 2 + 2 * 14


def test_training_leaves_the_base_as_it_was_and_the_same_seed_gives_the_same_bytes(route: Route, tmp_path: Path) -> None:
    before = hashes(route.base)
    lora = LoraSettings(rank=4, dropout=0.1)
    for name, seed in (("one", 3), ("two", 3), ("other", 4)):
        torch.rand(5)
        run(Config(rows=route.rows, base=str(route.base), lora=lora, train=tiny_training(3, seed=seed), output_dir=tmp_path / name))
    assert hashes(route.base) == before
    one, two, other = (hashes(tmp_path / name) for name in ("one", "two", "other"))
    assert one["adapter_model.safetensors"] == two["adapter_model.safetensors"] != other["adapter_model.safetensors"]
    assert one["training.json"] == two["training.json"]


def test_a_grown_untrained_model_starts_near_the_base(route: Route, tmp_path: Path) -> None:
    # New rows are means of old ones: before training, held-out text costs less than with new rows drawn at random.
    drawn = run(
        Config(rows=route.rows, base=str(route.base), embedding_init="normal", train=tiny_training(1), output_dir=tmp_path / "normal")
    )
    ours, theirs = (runtime.read_manifest(folder)["held_out"][0] for folder in (route.adapter, drawn))
    assert ours["step"] == theirs["step"] == 0
    assert ours["held_out/english"] < theirs["held_out/english"] and ours["held_out/dna"] < theirs["held_out/dna"]


def test_new_rows_start_as_the_config_says_and_are_made_again_from_the_manifest(
    route: Route, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, grow = [], embeddings.grow_embeddings

    def grow_and_keep(model: Any, *rest: Any) -> int:
        new_rows = grow(model, *rest)
        started.append(model.get_input_embeddings().weight.detach().clone())
        return new_rows

    monkeypatch.setattr(embeddings, "grow_embeddings", grow_and_keep)
    for init in get_args(EmbeddingInit):
        config = Config(
            rows=route.rows, base=str(route.base), embedding_init=init, lora=LoraSettings(rank=4, modules_to_save=[]),
            train=tiny_training(2, seed=3), output_dir=tmp_path / init,
        )  # fmt: skip
        manifest = runtime.read_manifest(run(config), "pretrain")
        assert (manifest["embedding_init"], manifest["embedding_seed"], manifest["config"]["embedding_init"]) == (init, 3, init)
        assert torch.equal(load_model(tmp_path / init)[0].get_input_embeddings().weight, started[-1])
    pieces, quiet, mean, normal = (rows[len(load_tokenizer(route.base)) :] for rows in started)
    assert torch.equal(pieces, quiet) and not torch.equal(pieces, mean) and torch.equal(mean, mean[:1].expand_as(mean))
    assert float(normal.std()) == pytest.approx(0.02, rel=0.1)  # LlamaConfig's initializer_range


@pytest.fixture(scope="module")
def tied_base(route: Route, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base whose embedding and head are one matrix; its tokenizer is that of the other base."""
    return make_base(route.corpus, route.corpus.parent, tied=True)


def test_a_tied_base_stays_tied_through_training_and_export(route: Route, tied_base: Path, tmp_path: Path) -> None:
    assert load_base(tied_base).config.tie_word_embeddings
    config = Config(
        rows=route.rows, base=str(tied_base), lora=LoraSettings(rank=4), train=tiny_training(12), output_dir=tmp_path / "adapter"
    )
    adapter = run(config)
    first, last = runtime.read_manifest(adapter)["held_out"]
    assert all(last[language] < first[language] for language in ("held_out/dna", "held_out/protein"))
    weights = load_file(adapter / "adapter_model.safetensors")
    whole = {name: tensor for name, tensor in weights.items() if "lora" not in name}
    assert all(torch.equal(tensor, next(iter(whole.values()))) for tensor in whole.values())
    folder = export.run(export.Config(model=adapter, output_dir=tmp_path / "model", fresh_process=False))
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.tie_word_embeddings and model.lm_head.weight is model.model.embed_tokens.weight
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    assert runtime.read_manifest(folder)["written_gap"] < 1e-5


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_gpt2_from_scratch_learns_and_loads_as_any_model(route: Route, tmp_path: Path, tied: bool) -> None:
    shape = Architecture(family="gpt2", width=32, layers=2, heads=4, max_length=64, tie_embeddings=tied)
    folder = run(Config(rows=route.rows, architecture=shape, train=tiny_training(25), output_dir=tmp_path / "gpt2"))
    assert losses(folder)[0] == pytest.approx(6.38, abs=0.3) and losses(folder)[-1] < losses(folder)[0] - 0.3
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert type(model).__name__ == "GPT2LMHeadModel" and model.config.n_positions == 64 and model.config.use_cache
    assert model.config.tie_word_embeddings == tied
    assert (model.config.vocab_size, model.config.eos_token_id) == (len(tokenizer), tokenizer.eos_token_id) == (592, 2)
    assert tokenizer.chat_template == chat_template()
    assert load_model(folder)[0].config.vocab_size == 592
    assert "base" not in runtime.read_manifest(folder, "pretrain")


def test_gpt2_takes_an_adapter_on_its_own_layers(route: Route, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(route.base)
    save_model(tiny_gpt2(len(tokenizer)), tokenizer, tmp_path / "base")
    lora = LoraSettings(rank=4, target_modules=["c_attn", "c_fc", "c_proj"], modules_to_save=["wte", "lm_head"])
    config = Config(rows=route.rows, base=str(tmp_path / "base"), lora=lora, train=tiny_training(8), output_dir=tmp_path / "adapter")
    adapter = run(config)
    model, _ = load_model(adapter)
    assert model.get_output_embeddings().weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    folder = export.run(export.Config(model=adapter, output_dir=tmp_path / "model", fresh_process=False))
    assert AutoModelForCausalLM.from_pretrained(folder).config.tie_word_embeddings


def test_bf16_and_shares_are_recorded(route: Route, tmp_path: Path) -> None:
    config = Config(
        rows=route.rows, base=str(route.base), shares={"dna": 3.0, "english": 1.0}, lora=LoraSettings(rank=4),
        train=tiny_training(6, precision="bf16"), output_dir=tmp_path / "adapter",
    )  # fmt: skip
    manifest = runtime.read_manifest(run(config))
    assert manifest["shares"] == {"dna": 3.0, "english": 1.0} and manifest["config"]["train"]["precision"] == "bf16"


def test_tensorboard_events_are_kept(route: Route, tmp_path: Path) -> None:
    train = tiny_training(2, report_to=["tensorboard"])
    folder = run(Config(rows=route.rows, base=str(route.base), lora=LoraSettings(rank=2), train=train, output_dir=tmp_path / "adapter"))
    assert list(folder.glob("runs/*/events*"))


def test_a_model_of_the_hubs_own_prompt_gets_ours(route: Route, tmp_path: Path) -> None:
    # Chat models bring a template of their own, in the tokenizer's config: what is trained here is asked with the Alpaca prompt.
    tokenizer = AutoTokenizer.from_pretrained(route.base)
    tokenizer.chat_template = None
    folder = tmp_path / "hub"
    tiny_llama(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config = runtime.read_json(folder / "tokenizer_config.json")
    runtime.write_json(folder / "tokenizer_config.json", {**config, "chat_template": "{{ 'another prompt' }}"})
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    rows = Path(shutil.copytree(route.corpus.parent / "0_rows", tmp_path / "rows"))
    change_manifest(rows, tokenizer=str(folder), vocabulary=vocabulary_fingerprint(load_tokenizer(folder)))
    adapter = run(Config(rows=rows, base=str(folder), lora=LoraSettings(rank=2), train=tiny_training(1), output_dir=tmp_path / "adapter"))
    assert AutoTokenizer.from_pretrained(adapter).chat_template == chat_template()


# --- refusals --------------------------------------------------------------------------------------------------------------------


def change_manifest(folder: Path, **changes: Any) -> None:
    """Rewrite a manifest's facts."""
    runtime.write_json(folder / runtime.MANIFEST_NAME, {**runtime.read_json(folder / runtime.MANIFEST_NAME), **changes})


def test_what_is_missing_or_contradicts_itself_is_named(route: Route, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--rows FOLDER and --output_dir FOLDER"):
        run(Config(base="x"))
    with pytest.raises(ConfigError, match="base and architecture are both unset"):
        run(Config(rows=route.rows, output_dir=tmp_path / "out"))
    with pytest.raises(ConfigError, match="base and architecture are both given"):
        run(Config(rows=route.rows, base=str(route.base), architecture=Architecture(), output_dir=tmp_path / "out"))
    with pytest.raises(InputError, match="was written by `corpus`"):
        run(Config(rows=route.corpus, base=str(route.base), output_dir=tmp_path / "out"))
    with pytest.raises(ConfigError, match="shares names 'dan'"):
        run(Config(rows=route.rows, base=str(route.base), shares={"dan": 1.0}, output_dir=tmp_path / "out"))
    with pytest.raises(ConfigError, match="rows of 64 tokens; expected at most 32, the model's longest input"):
        shape = Architecture(width=32, layers=1, heads=4, max_length=32)
        run(Config(rows=route.rows, architecture=shape, train=tiny_training(1), output_dir=tmp_path / "out"))
    assert not list(tmp_path.iterdir())


def test_rows_that_another_tokenizer_made_are_refused(route: Route, tmp_path: Path) -> None:
    rows = Path(shutil.copytree(route.rows, tmp_path / "rows"))
    change_manifest(rows, tokenizer=str(route.base))
    with pytest.raises(MismatchError, match=r"were packed with vocabulary \w{16}; expected the tokenizer's \w{16}"):
        run(Config(rows=rows, base=str(route.base), output_dir=tmp_path / "out"))


def test_rows_whose_tokenizer_does_not_extend_the_base_are_refused(route: Route, tmp_path: Path) -> None:
    other = spliced("tiktoken").base.tokenizer()
    base = save_model(tiny_llama(len(other)), other, tmp_path / "base")
    with pytest.raises(MismatchError, match="does not extend the base's"):
        run(Config(rows=route.rows, base=str(base), output_dir=tmp_path / "out"))
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.work").exists()


def test_a_users_folder_is_refused_before_the_work(route: Route, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    monkeypatch.setattr(trainer, "train", lambda *args: pytest.fail("training began"))
    with pytest.raises(InputError, match="is not an earlier output"):
        run(Config(rows=route.rows, base=str(route.base), train=tiny_training(1), output_dir=tmp_path))


@pytest.mark.parametrize("change", ["learning_rate", "rows", "base", "processes"])
def test_a_checkpoint_of_another_run_is_not_gone_on_from(
    route: Route, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    rows, base = (Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in (route.rows, route.base))
    config = Config(rows=rows, base=str(base), lora=LoraSettings(rank=2), train=tiny_training(4), output_dir=tmp_path / "out")

    def stop(*args: Any) -> None:
        raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "last_whole_checkpoint", stop)
        with pytest.raises(InterruptedError):
            run(config)
        with pytest.raises(InterruptedError):
            run(config)  # the same run may go on
    if change == "learning_rate":
        config.train.learning_rate = 1e-3
    elif change == "rows":  # other text under the same path and tokenizer
        manifest = runtime.read_json(rows / "manifest.json")
        manifest["languages"]["english"]["train"] = manifest["languages"]["dna"]["train"]
        runtime.write_json(rows / "manifest.json", manifest)
    elif change == "base":
        model = load_base(base)
        with torch.no_grad():
            model.lm_head.weight.add_(0.1)
        model.save_pretrained(base)
    else:
        monkeypatch.setattr(runtime, "world_size", lambda: 2)
    another = "of 4 rows a step .*, this launch takes 8" if change == "processes" else "of another config or of other rows"
    with pytest.raises(ConfigError, match=f"holds checkpoints {another}"):
        run(config)
    config.train.logging_steps, config.train.save_steps = 2, 3  # what changes no weight


def test_a_changed_deepspeed_json_is_another_run(route: Route, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = []

    def stop(*args: Any) -> None:
        keys.append(args[6])
        raise InterruptedError

    monkeypatch.setattr(trainer, "train", stop)
    values = runtime.read_json(ROOT / "ds_configs" / "zero2.json")
    for size in (200_000_000, 200_000_000, 1000):  # another bucket: sums are rounded in another order
        values["zero_optimization"]["reduce_bucket_size"] = size
        runtime.write_json(tmp_path / "zero2.json", values)
        train = tiny_training(4, deepspeed=tmp_path / "zero2.json")
        with pytest.raises(InterruptedError):
            run(Config(rows=route.rows, base=str(route.base), lora=LoraSettings(rank=2), train=train, output_dir=tmp_path / "out"))
    assert keys[0] == keys[1] != keys[2]


# --- a look before the run, and all weights of a base ------------------------------------------------------------------------------


def test_a_preview_marks_what_trains_and_writes_nothing(route: Route, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(Config(rows=route.rows, base=str(route.base), preview=2, train=tiny_training(5), output_dir=tmp_path / "out"))
    shown = capsys.readouterr().out
    assert shown.count("== row") == 2 and "[[" in shown and " train\n<s>[[" in shown
    assert not list(tmp_path.iterdir())


def test_a_dry_run_says_what_the_run_will_need_and_writes_nothing(route: Route, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(Config(rows=route.rows, base=str(route.base), dry_run=True, train=tiny_training(700), output_dir=tmp_path / "out"))
    shown = capsys.readouterr().out
    assert "dry run: 2 steps of 4 rows, 1 processes; nothing was written" in shown
    assert "trained weights" in shown and "tokens a second" in shown and "the whole run: 700 steps, about" in shown
    assert not list(tmp_path.iterdir())


def test_all_weights_of_a_base_can_train(route: Route, tmp_path: Path) -> None:
    folder = run(Config(rows=route.rows, base=str(route.base), full=True, train=tiny_training(8), output_dir=tmp_path / "whole"))
    manifest = runtime.read_manifest(folder)
    assert manifest["trainable_parameters"] == manifest["parameters"] and "base" not in manifest
    model, tokenizer = load_model(folder)
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer) == 592
    assert manifest["held_out"][-1]["held_out/dna"] < manifest["held_out"][0]["held_out/dna"]
    before = load_base(route.base)
    assert not torch.equal(before.model.layers[0].mlp.up_proj.weight, model.model.layers[0].mlp.up_proj.weight)


def test_the_manifest_carries_what_the_corpus_counted(route: Route) -> None:
    data = runtime.read_manifest(route.adapter)["data"]
    assert {language: facts["unit"] for language, facts in data.items()} == {"dna": "base", "protein": "residue", "english": "byte"}
    assert all({"documents", "letters", "documents_rejected", "evaluation_hits"} <= facts.keys() for facts in data.values())
