"""Training: rows in order, documents apart in one row, the loss of the whole global batch, two processes as one."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from llama_gene.data.mixing import RowIndex
from llama_gene.data.packing import IGNORED, expand_row, pack_documents
from llama_gene.errors import ConfigError, LlamaGeneError, MachineError, MissingFileError
from llama_gene.models.adapters import attach_lora
from llama_gene.models.settings import LoraSettings
from llama_gene.recipes import pretrain
from llama_gene.training.settings import TrainSettings
from llama_gene.training.trainer import IndexedRows, RowCollator, plan_steps, rows_an_epoch, train
from tests import two_processes as jobs
from tests.conftest import TwoProcesses, tiny_training
from tests.tiny_models import nats_alone, tiny_gpt2, tiny_llama

FAMILIES = {"llama": tiny_llama, "gpt2": tiny_gpt2}
DOCUMENTS = [[0, *(3 + (7 * n + k) % 200 for k in range(length)), 1] for n, length in enumerate((20, 13, 1, 27, 40, 9, 18))]


def batch_of(documents: list[list[int]], row_length: int = 48) -> dict[str, torch.Tensor]:
    """Return the batch that the trainer makes of documents."""
    return RowCollator(pad_id=2)([expand_row(row) for row in pack_documents(documents, row_length)])


def without_dropout(model: Any) -> Any:
    """Switch dropout off in a model that stays in training mode."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model.train()


# --- batches ---------------------------------------------------------------------------------------------------------------------


def test_a_batch_has_positions_that_restart_and_no_mask() -> None:
    rows = [expand_row({"input_ids": [5, 6, 7, 8], "lengths": [3, 1]}), expand_row({"input_ids": [9, 9], "lengths": [2]})]
    batch = RowCollator(pad_id=2, multiple=1)(rows)
    assert {name: values.tolist() for name, values in batch.items()} == {
        "input_ids": [[5, 6, 7, 8], [9, 9, 2, 2]],
        "labels": [[IGNORED, 6, 7, IGNORED], [IGNORED, 9, IGNORED, IGNORED]],
        "position_ids": [[0, 1, 2, 0], [0, 1, 0, 1]],
    }
    assert RowCollator(pad_id=2)(rows)["input_ids"].shape == (2, 64)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", list(FAMILIES))
def test_law_08_a_document_changes_no_logit_of_its_row_neighbours(family: str, attention: str) -> None:
    model = without_dropout(FAMILIES[family]())
    model.set_attn_implementation(attention)

    def logits(documents: list[list[int]], **more: Any) -> torch.Tensor:
        batch = batch_of(documents)
        del batch["labels"]
        with torch.no_grad():
            return model(**batch, **more, use_cache=False).logits

    before, batch = logits(DOCUMENTS), batch_of(DOCUMENTS)
    changed = [*DOCUMENTS]
    changed[3] = [0, *reversed(DOCUMENTS[3][1:-1]), 1]
    after, other = logits(changed), batch_of(changed)
    touched = torch.zeros_like(batch["input_ids"], dtype=torch.bool)
    first = sum(len(document) for document in DOCUMENTS[:3])
    for place in range(first, first + len(DOCUMENTS[3])):
        touched[place // 48, place % 48] = True
    assert torch.equal(batch["input_ids"][~touched], other["input_ids"][~touched])
    assert torch.equal(before[~touched], after[~touched])
    assert (before[touched] - after[touched]).abs().max() > 0.1
    # The comparison sees contamination: with a mask of ones the neighbours that come later do change.
    ones = torch.ones_like(batch["input_ids"])
    gap = (logits(DOCUMENTS, attention_mask=ones) - logits(changed, attention_mask=ones))[~touched].abs().max()
    assert gap > 0.1


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", list(FAMILIES))
def test_law_08_the_loss_of_packed_rows_is_that_of_the_documents_alone(tmp_path: Path, family: str, attention: str) -> None:
    model = without_dropout(FAMILIES[family]())
    model.set_attn_implementation(attention)
    rows = list(pack_documents(DOCUMENTS, 48))
    assert [row["lengths"] for row in rows][:2] == [[22, 15, 3, 8], [21, 27]]
    total, predicted = nats_alone(model, rows)
    settings = tiny_training(1, batch_size=len(rows))
    result, _ = train(model, {"all": rows}, {"all": 1.0}, 2, settings, tmp_path / "work", "key")
    assert result.history[0]["loss"] == pytest.approx(total / len(predicted), abs=2e-5)
    assert result.tokens == sum(map(len, DOCUMENTS))


def test_rows_come_in_the_order_of_the_index_each_once(tmp_path: Path) -> None:
    read: list[int] = []

    class Watched(list):  # type: ignore[type-arg]
        def __getitem__(self, number: Any) -> Any:
            read.append(number)
            return super().__getitem__(number)

    rows = Watched(jobs.uneven_rows())
    model = attach_lora(tiny_llama(), LoraSettings(rank=4))
    train(model, {"all": rows}, {"all": 1.0}, 1, tiny_training(12, accumulation=2), tmp_path / "work", "key")
    assert read == jobs.row_order() and sorted(read) == list(range(96))


def test_tokens_are_those_of_the_rows_read() -> None:
    rows = [{"input_ids": [1] * length, "lengths": [length]} for length in (5, 7, 9)]
    places = RowIndex(("dna", "english"), np.array([0, 0, 1, 0], np.uint8), np.array([0, 2, 1, 0], np.int32))
    assert IndexedRows({"dna": rows, "english": rows}, places).tokens().tolist() == [5, 9, 7, 5]


@pytest.mark.parametrize(("epochs", "processes", "expected"), [(1.0, 1, (13, 8)), (2.5, 1, (32, 8)), (1.0, 4, (4, 32))])
def test_steps_cover_the_epochs(epochs: float, processes: int, expected: tuple[int, int]) -> None:
    assert plan_steps(100, TrainSettings(epochs=epochs, batch_size=4, accumulation=2), processes) == expected


def test_settings_that_leave_nothing_to_do_are_refused() -> None:
    with pytest.raises(ConfigError, match="leave nothing to do"):
        plan_steps(100, TrainSettings(epochs=0.0), 1)
    with pytest.raises(ConfigError, match="both at least 1"):
        plan_steps(100, TrainSettings(batch_size=0), 1)
    assert rows_an_epoch({"dna": 50, "english": 10}, {"dna": 0.5, "english": 0.5}) == 100


# --- one process -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [["embed_tokens", "lm_head"], []], ids=["paper", "lora_only"])
def test_gradient_checkpointing_changes_no_loss(tmp_path: Path, whole: list[str]) -> None:
    histories = []
    for on in (False, True):
        model = attach_lora(tiny_llama(), LoraSettings(rank=4, dropout=0.1, modules_to_save=whole))
        settings = tiny_training(3, batch_size=2, gradient_checkpointing=on)
        result, _ = train(model, {"all": jobs.uneven_rows()}, {"all": 1.0}, 1, settings, tmp_path / str(on), "key")
        histories.append([(entry["loss"], entry["grad_norm"]) for entry in result.history])
    assert histories[0] == histories[1] and all(norm > 0 for _, norm in histories[0])


def test_bf16_trains_on_the_cpu_and_keeps_float32_weights(tmp_path: Path) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        model = attach_lora(tiny_llama(), LoraSettings(rank=4))
        settings = tiny_training(8, precision=precision)
        result, folder = train(model, {"all": jobs.uneven_rows()}, {"all": 1.0}, 1, settings, tmp_path / precision, "key")
        losses[precision] = [entry["loss"] for entry in result.history]
        assert {weight.dtype for weight in load_file(folder / "adapter_model.safetensors").values()} == {torch.float32}
    assert losses["bf16"] != losses["fp32"] and losses["bf16"] == pytest.approx(losses["fp32"], abs=0.1)
    assert losses["bf16"][-1] < losses["bf16"][0] - 0.3


def test_a_step_takes_the_mean_over_all_targets_of_its_micro_batches(tmp_path: Path) -> None:
    histories = []
    for batch_size, accumulation in ((8, 1), (1, 8)):
        model = attach_lora(tiny_llama(), LoraSettings(rank=4, dropout=0.0))
        settings = tiny_training(4, batch_size=batch_size, accumulation=accumulation)
        result, _ = train(model, {"all": jobs.uneven_rows()}, {"all": 1.0}, 1, settings, tmp_path / str(batch_size), "key")
        histories.append([entry["loss"] for entry in result.history])
    assert histories[0] == pytest.approx(histories[1], abs=1e-5)


def test_the_models_own_cache_setting_is_put_back(tmp_path: Path) -> None:
    model = tiny_llama()
    assert model.config.use_cache
    _, folder = train(model, {"all": jobs.uneven_rows()}, {"all": 1.0}, 1, tiny_training(1), tmp_path / "work", "key")
    assert model.config.use_cache and json.loads((folder / "config.json").read_text())["use_cache"]


def test_what_the_machine_lacks_is_said_before_anything_is_made(tmp_path: Path) -> None:
    def start(**changes: Any) -> None:
        train(tiny_llama(), {"all": jobs.uneven_rows()}, {"all": 1.0}, 1, tiny_training(1, **changes), tmp_path / "work", "key")

    if not torch.cuda.is_available():
        with pytest.raises(MachineError, match="fp16 and there is no GPU"):
            start(precision="fp16")
    with pytest.raises(MissingFileError, match="a DeepSpeed JSON"):
        start(deepspeed=tmp_path / "zero9.json")
    assert not (tmp_path / "work").exists()


def test_a_loss_that_is_no_number_stops_the_run_before_a_checkpoint(tmp_path: Path) -> None:
    model = tiny_llama()
    order = jobs.row_order()

    class Poisoned(list):  # type: ignore[type-arg]
        def __getitem__(self, number: Any) -> Any:
            if order.index(number) >= 3 * 4:  # the fourth step
                with torch.no_grad():
                    model.lm_head.weight[41] = math.nan
            return super().__getitem__(number)

    settings = tiny_training(24, logging_steps=100, save_steps=2)
    with pytest.raises(LlamaGeneError, match="loss is nan at step 4; expected a finite number"):
        train(model, {"all": Poisoned(jobs.uneven_rows())}, {"all": 1.0}, 1, settings, tmp_path / "work", "key")
    assert [path.name for path in (tmp_path / "work").glob("checkpoint-*")] == ["checkpoint-2"]


# --- two processes ---------------------------------------------------------------------------------------------------------------


def read(folder: Path) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Return a job's losses and adapter."""
    return json.loads((folder / "losses.json").read_text()), load_file(folder / "final" / "adapter_model.safetensors")


def gaps(one: tuple[list[float], dict[str, torch.Tensor]], other: tuple[list[float], dict[str, torch.Tensor]]) -> tuple[float, float]:
    """Return the largest difference of the losses and of the weights."""
    assert len(one[0]) == len(other[0]) and one[1].keys() == other[1].keys()
    loss = max(abs(a - b) for a, b in zip(one[0], other[0], strict=True))
    return loss, max(float((one[1][name] - other[1][name]).abs().max()) for name in one[1])


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """What one process makes of the uneven rows, with an untied and a tied model."""
    folder = tmp_path_factory.mktemp("alone")
    for tied in (False, True):
        jobs.train_job(folder / str(tied), None, 1, jobs.uneven_rows(), tied=tied)
    return {tied: folder / str(tied) for tied in (False, True)}


@pytest.mark.parametrize("job", ["ddp", "zero1", "zero2", "zero3", "tied"])
def test_law_11_two_processes_equal_one(two_processes: TwoProcesses, alone: dict[bool, Path], job: str) -> None:
    one, two = read(alone[job == "tied"]), read(two_processes.jobs / job)
    loss, weight = gaps(one, two)
    assert len(one[0]) == 12 and one[0][0] - one[0][-1] > 0.3
    assert loss < 1e-4 and weight < 1e-4
    assert all(tensor.numel() > 0 for tensor in two[1].values())


def test_law_11_looks_of_two_processes_under_zero_3_are_those_of_one(two_processes: TwoProcesses, tmp_path: Path) -> None:
    jobs.train_job(tmp_path / "alone", None, 1, jobs.uneven_rows(), watched=True)
    one, two = (json.loads((folder / "looks.json").read_text()) for folder in (tmp_path / "alone", two_processes.jobs / "watched"))
    assert [look["step"] for look in one] == [look["step"] for look in two] == [0, 5, 10, 12]
    for ours, theirs in zip(one, two, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
    assert one[0]["held_out/dna"] - one[-1]["held_out/dna"] > 0.3
    unwatched = read(two_processes.jobs / "zero3")
    assert gaps(unwatched, read(two_processes.jobs / "watched")) == (0, 0)


def test_law_11_the_comparison_sees_other_rows_on_one_rank(two_processes: TwoProcesses, tmp_path: Path) -> None:
    rows = jobs.uneven_rows()
    second = jobs.row_order()[jobs.BATCH]  # the first row of the second process
    rows[second] = rows[jobs.row_order()[-1]]
    jobs.train_job(tmp_path / "other", None, 1, rows)
    loss, weight = gaps(read(tmp_path / "other"), read(two_processes.jobs / "zero2"))
    assert loss > 1e-3 and weight > 1e-3


def test_law_11_the_comparison_sees_a_mean_of_means() -> None:
    model = tiny_llama()
    sums, nums = [], []
    for number in jobs.row_order()[: jobs.ROWS_A_STEP]:
        ids, labels, positions = expand_row(jobs.uneven_rows()[number])
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids]), position_ids=torch.tensor([positions]), use_cache=False).logits[0, :-1]
        sums.append(float(cross_entropy(logits, torch.tensor(labels[1:]), ignore_index=IGNORED, reduction="sum")))
        nums.append(sum(label != IGNORED for label in labels))
    assert sorted(set(nums)) == [jobs.FEW, jobs.MANY]  # threefold
    halves = [(sums[k] + sums[k + 1], nums[k] + nums[k + 1]) for k in range(0, 8, 2)]
    assert abs(sum(sums) / sum(nums) - sum(total / num for total, num in halves) / 4) > 1e-2


def test_law_11_the_entry_script_equals_one_process(two_processes: TwoProcesses, tmp_path: Path) -> None:
    config: dict[str, Any] = {**two_processes.config, "output_dir": tmp_path / "alone"}
    config["lora"] = LoraSettings(**config["lora"])
    config["train"] = TrainSettings(**{**vars(config["train"]), "deepspeed": None, "accumulation": 4})
    pretrain.run(pretrain.Config(**config))
    one, two = (
        ([entry["loss"] for entry in json.loads((folder / "training.json").read_text())], load_file(folder / "adapter_model.safetensors"))
        for folder in (tmp_path / "alone", two_processes.pretrained)
    )
    loss, weight = gaps(one, two)
    assert len(one[0]) == 12 and one[0][1] - min(one[0]) > 0.3
    assert loss < 1e-4 and weight < 1e-4
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (tmp_path / "alone", two_processes.pretrained)]
    assert [manifest["processes"] for manifest in manifests] == [1, 2]
    assert manifests[0]["tokens"] == manifests[1]["tokens"]


@pytest.mark.parametrize("stage", [2, 3])
def test_law_07_two_processes_go_on_bitwise_where_they_stopped(two_processes: TwoProcesses, stage: int) -> None:
    # The second launch could read none of the rows before the checkpoint (tests/two_processes.py), so no row was seen twice.
    loss, weight = gaps(read(two_processes.jobs / f"whole{stage}"), read(two_processes.jobs / f"resumed{stage}"))
    assert loss == 0 and weight == 0
