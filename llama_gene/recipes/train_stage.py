"""What the two training stages share: train, then write weights, tokenizer, manifest and figure whole; or look first, and write nothing.

A resumed run must be the same run: its identity is made of the config, the rows by content, and the base's weights.
Which number of processes may go on is `claim_folder`'s to say.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_gene import runtime
from llama_gene.models.settings import LoraSettings
from llama_gene.training.settings import TrainSettings

if TYPE_CHECKING:
    from llama_gene.training.watch import HeldOut

HISTORY_NAME = "training.json"
DRY_STEPS = 2


def train_and_save(
    stage: str,
    config: Any,
    model: Any,
    tokenizer: Any,
    tokenizer_folder: Path,
    row_sets: Mapping[str, Any],
    shares: Mapping[str, float],
    facts: dict[str, Any],
    held_out: Mapping[str, Any] | None = None,
    units: Mapping[str, str] | None = None,
    num_base_ids: int | None = None,
    was_trained: bool = True,
) -> Path:
    """Train, then write weights, tokenizer, manifest and loss figure whole; shared by `pretrain` and `sft`. `shares` count rows.

    `held_out` are the row sets that the looks read, `units` what a byte of their languages is, `num_base_ids` the ids before a vocabulary
    grew; a model that `was_trained` has languages to forget. With `config.preview` rows are printed and
    with `config.dry_run` two steps are taken, and nothing is written. Under a launcher every process runs this.
    """
    from llama_gene.models.adapters import base_weights, trainable_share
    from llama_gene.training.trainer import train

    log = runtime.get_logger()
    output_dir: Path = config.output_dir
    if config.preview:
        _print_rows(tokenizer, row_sets, shares, config)
        return output_dir
    trainable, total = trainable_share(model)
    log.info("%s: %s of %s parameters train (%.1f %%)", stage, f"{trainable:,}", f"{total:,}", 100 * trainable / total)
    settings = {key: value for key, value in vars(config).items() if key not in ("train", "preview", "dry_run")}
    weights = [base_weights(str(settings[name])) for name in ("base", "model") if settings.get(name)]
    rows = {name: rows_stamp(row_sets[name]) for name in row_sets if shares.get(name)}
    launcher = runtime.read_json(config.train.deepspeed) if config.train.deepspeed is not None else None
    identity = runtime.fingerprint([facts, settings, plan(config.train), launcher, weights, rows])
    if "base" in facts:
        facts["base_weights"] = base_weights(facts["base"])
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    if config.dry_run:
        _dry_run(model, row_sets, shares, pad_id, config.train)
        return output_dir
    watched = _held_out(config, tokenizer, held_out or {}, units or {}, num_base_ids, was_trained)
    work_dir = output_dir.with_name(output_dir.name + ".work")
    with runtime.sole_writer(output_dir) if runtime.rank() == 0 else nullcontext():
        result, saved = train(model, row_sets, shares, pad_id, config.train, work_dir, identity, watched)
        if runtime.rank() == 0:
            with runtime.whole_dir(output_dir) as folder:
                _write(folder, stage, config, tokenizer, tokenizer_folder, facts, result, saved, (trainable, total))
            shutil.rmtree(work_dir)
            log.info("%s: %s tokens, %.0f tokens/s, written to %s", stage, f"{result.tokens:,}", result.tokens_per_second, output_dir)
    return output_dir


def _write(
    folder: Path,
    stage: str,
    config: Any,
    tokenizer: Any,
    tokenizer_folder: Path,
    facts: Mapping[str, Any],
    result: Any,
    saved: Path,
    sizes: tuple[int, int],
) -> None:
    """Write what a training stage leaves."""
    from llama_gene.web.figures import plot_loss

    link_trained(saved, folder)
    copy_tokenizer(tokenizer, tokenizer_folder, folder, facts.get("template", "alpaca"))
    runtime.write_json(folder / HISTORY_NAME, result.history)
    plot_loss(result.history, folder / "loss.png", result.looks)
    runtime.write_manifest(
        folder,
        stage,
        config,
        **facts,
        steps=result.steps,
        tokens=result.tokens,
        tokens_per_second=round(result.tokens_per_second, 1),
        peak_memory_gb=round(result.peak_memory / 1e9, 2),
        processes=runtime.world_size(),
        trainable_parameters=sizes[0],
        parameters=sizes[1],
        final_loss=result.history[-1]["loss"] if result.history else None,
        held_out=result.looks,
    )


def link_trained(saved: Path, folder: Path) -> None:
    """Put what was trained, and TensorBoard's events, into an output; both stay in the working folder until all is written."""
    for path in saved.iterdir():
        if path.name not in ("training_args.bin", "README.md"):  # PEFT's own model card says nothing that our manifest does not
            link_file(path, folder / path.name)
    if (saved.parent / "runs").is_dir():
        shutil.copytree(saved.parent / "runs", folder / "runs")


def link_file(path: Path, place: Path) -> None:
    """Put a file at another place as well, without a second copy of its bytes where the file system can."""
    try:
        os.link(path, place)
    except OSError:
        shutil.copyfile(path, place)


def check_launch(train: TrainSettings, lora: LoraSettings | None) -> None:
    """Raise, before anything is loaded, what cannot run here, or not together. `lora` None: whole weights are trained."""
    from llama_gene.training.machine import check_adapter, check_machine

    check_machine(train)
    check_adapter(train, lora)


def kernel(train: TrainSettings) -> str | None:
    """Return the attention kernel's name for transformers, None where it shall choose."""
    return None if train.attention == "auto" else train.attention


def _held_out(
    config: Any, tokenizer: Any, row_sets: Mapping[str, Any], units: Mapping[str, str], num_base_ids: int | None, was_trained: bool
) -> HeldOut | None:
    """Return what the looks read, None where there is nothing to read; a model from scratch has nothing to forget."""
    from llama_gene.data.rows import held_out_rows
    from llama_gene.tokenization.tokenizer import token_bytes
    from llama_gene.training.watch import HeldOut

    watch = config.train.watch
    rows = held_out_rows(row_sets, watch.tokens) if watch.tokens else {}
    guarded = [language for language in watch.guard if language in rows] if was_trained else []
    if was_trained and watch.tokens and not guarded and watch.guard:
        runtime.get_logger().info("no held-out rows of %s: nothing guards against forgetting", ", ".join(watch.guard))
    if not rows:
        return None
    return HeldOut(rows, token_bytes(tokenizer), {language: units.get(language, "byte") for language in rows}, guarded, num_base_ids)


def _dry_run(model: Any, row_sets: Mapping[str, Any], shares: Mapping[str, float], pad_id: int, settings: TrainSettings) -> None:
    """Take two steps in a folder that is thrown away; print what the whole run will need."""
    from llama_gene.data.rows import row_tokens
    from llama_gene.training.memory import consumers
    from llama_gene.training.trainer import plan_run, train

    steps, rows_a_step, _ = plan_run(row_sets, shares, settings)
    calculated = consumers(model, settings, max(int(row_tokens(rows).max()) for name, rows in row_sets.items() if shares.get(name)))
    once = replace(settings, steps=DRY_STEPS, save_steps=0, report_to=[], logging_steps=1)
    with tempfile.TemporaryDirectory() as folder:
        result, _ = train(model, row_sets, shares, pad_id, once, Path(folder), "dry run", save=False)
    seconds = result.tokens / DRY_STEPS / result.speeds[-1]  # of the second step: the first one also pays for what is made once
    if runtime.rank() == 0:
        print(f"dry run: {DRY_STEPS} steps of {rows_a_step} rows, {runtime.world_size()} processes; nothing was written")
        print(f"  memory of a process at most {result.peak_memory / 1e9:.2f} GB; calculated: " + _sizes(calculated))
        print(f"  {seconds:.2f} s a step, {result.speeds[-1]:,.0f} tokens a second")
        print(f"  the whole run: {steps:,} steps, about {_duration(steps * seconds)}, without looks at held-out rows and checkpoints")


def _sizes(calculated: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {size / 1e9:.2f} GB" for name, size in calculated.items())


def _duration(seconds: float) -> str:
    """Return a time as people say it.

    >>> _duration(90), _duration(7200), _duration(604800)
    ('2 minutes', '2.0 hours', '7.0 days')
    """
    if seconds < 5400:
        return f"{max(1, round(seconds / 60))} minutes"
    return f"{seconds / 3600:.1f} hours" if seconds < 172800 else f"{seconds / 86400:.1f} days"


def _print_rows(tokenizer: Any, row_sets: Mapping[str, Any], shares: Mapping[str, float], config: Any) -> None:
    """Print the first rows that the run will read."""
    from llama_gene.data.preview import show_row
    from llama_gene.training.trainer import plan_run

    _, _, index = plan_run(row_sets, shares, config.train)
    for place, (name, number) in enumerate(index[: config.preview]):
        if runtime.rank() == 0:
            print(f"== row {place}: {name}, number {number}\n{show_row(tokenizer, row_sets[name][number])}")


def plan(train: TrainSettings) -> dict[str, Any]:
    """Return the settings that decide the weights (not how often to log, look or save, nor who takes which rows of a step)."""
    silent = {"batch_size", "accumulation"}  # claim_folder compares the rows a step
    silent |= {"logging_steps", "save_steps", "keep_checkpoints", "report_to", "restart", "stuck_steps", "watch"}
    return {key: value for key, value in vars(train).items() if key not in silent}


def rows_stamp(rows: Any) -> list[Any]:
    """Return what tells one set of rows from another: their number and, where no `pack` has named their content, the rows themselves."""
    return [len(rows), runtime.fingerprint(rows) if isinstance(rows, list) else None]


def copy_tokenizer(tokenizer: Any, source: Path, folder: Path, template: str) -> None:
    """Copy the tokenizer's files byte for byte (a hub's or a bare `tokenizer.model` is written anew), with our chat template."""
    from llama_gene.data.prompts import chat_template
    from llama_gene.export.folder import TOKENIZER_FILES
    from llama_gene.tokenization.tokenizer import JSON_NAME, write_tokenizer

    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    if not (folder / JSON_NAME).is_file():
        write_tokenizer(tokenizer, folder)
    (folder / "chat_template.jinja").write_text(chat_template(template), encoding="utf-8")


def resolve_base(name: str) -> str:
    """Return a local base as an absolute path, so that the adapter finds it from anywhere; a hub id as it is."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name
