"""Looks at held-out rows: what they say, that they change nothing, and the guard against forgetting."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from llama_gene.data.packing import pack_documents
from llama_gene.errors import LlamaGeneError
from llama_gene.models.adapters import attach_lora
from llama_gene.models.settings import LoraSettings
from llama_gene.tokenization.tokenizer import encode_text, token_bytes
from llama_gene.training.settings import WatchSettings
from llama_gene.training.trainer import TrainResult, train
from llama_gene.training.watch import HeldOut
from tests import two_processes as jobs
from tests.conftest import Route, tiny_training
from tests.fixtures.tiny_vocabularies import ENGLISH, genes
from tests.tiny_models import nats_alone, tiny_llama, tiny_tokenizer

DOCUMENTS = [[0, *(3 + (7 * n + k) % 200 for k in range(length)), 1] for n, length in enumerate((20, 13, 1, 27, 40, 9, 18))]
ROWS = list(pack_documents(DOCUMENTS, 48))


def held_out(guarded: tuple[str, ...] = ()) -> HeldOut:
    sizes = token_bytes(tiny_tokenizer())
    return HeldOut({"dna": ROWS, "english": ROWS[:1]}, sizes, {"dna": "base", "english": "byte"}, guarded)


def trained(folder: Path, steps: int = 3, held: HeldOut | None = None, watch: WatchSettings | None = None, **changes: Any) -> TrainResult:
    model = attach_lora(tiny_llama(), LoraSettings(rank=4, dropout=0.1))
    settings = tiny_training(steps, batch_size=2, watch=watch or WatchSettings(), **changes)
    result, _ = train(model, {"all": jobs.uneven_rows()}, {"all": 1.0}, 1, settings, folder, "key", held)
    return result


def test_a_look_is_the_bits_of_the_documents_alone_for_each_byte_of_their_text(tmp_path: Path) -> None:
    first = trained(tmp_path, held=held_out()).looks[0]
    model = attach_lora(tiny_llama(), LoraSettings(rank=4)).eval()
    nats, predicted = nats_alone(model, ROWS)
    size = sum(number >= 3 for number in predicted)  # a byte a token, but for the end of a document
    assert first["held_out/dna"] == pytest.approx(nats / math.log(2) / size, rel=1e-5)
    assert first["step"] == 0 and first["held_out/english"] != first["held_out/dna"]


def test_a_watched_run_ends_in_the_same_weights_and_logs_the_same_losses(tmp_path: Path) -> None:
    watch = WatchSettings(every=1)
    plain, watched = trained(tmp_path / "plain"), trained(tmp_path / "watched", held=held_out(("english",)), watch=watch)
    assert plain.history == watched.history and len(plain.history) == 3
    one, two = (load_file(tmp_path / name / "final" / "adapter_model.safetensors") for name in ("plain", "watched"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert [look["step"] for look in watched.looks] == [0, 1, 2, 3] and not plain.looks


def test_the_guard_warns_and_then_stops_where_a_language_is_forgotten(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("llama_gene").propagate = True
    try:
        watch = WatchSettings(every=1, warn=0.0001, stop=0)
        result = trained(tmp_path / "warned", steps=8, held=held_out(("dna",)), watch=watch, learning_rate=0.1)
    finally:
        logging.getLogger("llama_gene").propagate = False
    assert len(result.history) == 8 and "more than the" in caplog.text and "Raise the share of dna" in caplog.text
    with pytest.raises(LlamaGeneError, match=r"dna needs [\d.]+ bits per base at step \d+, [\d.]+ % more .* expected at most 1 %"):
        trained(
            tmp_path / "stopped", steps=8, held=held_out(("dna",)), watch=WatchSettings(every=1, warn=0.0, stop=0.01), learning_rate=0.1
        )
    # what is not guarded may be forgotten
    trained(tmp_path / "free", steps=8, held=held_out(), watch=WatchSettings(every=1, stop=0.01), learning_rate=0.1)


def test_the_guard_compares_with_the_base_before_its_vocabulary_grew(tmp_path: Path) -> None:
    model = tiny_llama()
    base = train(model, {"all": jobs.uneven_rows()}, {"all": 1.0}, 1, tiny_training(1), tmp_path / "base", "key", held_out(("dna",)))[
        0
    ].looks[0]
    assert base["base/dna"] == base["held_out/dna"]
    grown = tiny_llama()
    grown.resize_token_embeddings(300, mean_resizing=False)
    with torch.no_grad():
        grown.lm_head.weight[259:] = grown.lm_head.weight[:41]  # ids that take probability from those that the base knew
    held = replace(held_out(("dna",)), num_base_ids=259)
    look = train(grown, {"all": jobs.uneven_rows()}, {"all": 1.0}, 1, tiny_training(1), tmp_path / "grown", "key", held)[0].looks[0]
    assert look["base/dna"] == pytest.approx(base["held_out/dna"], rel=1e-6)
    assert look["held_out/dna"] > base["held_out/dna"] + 0.01


def test_a_resumed_run_compares_with_the_look_before_training(tmp_path: Path) -> None:
    rows, order = jobs.uneven_rows(), jobs.row_order()

    def start(broken: bool) -> TrainResult:
        model = attach_lora(tiny_llama(), LoraSettings(rank=4))
        own = jobs.BrokenRows(rows, set(order[5 * 8 :]) if broken else set(order[: 4 * 8]))
        settings = tiny_training(12, batch_size=8, save_steps=4, watch=WatchSettings(every=2))
        result, _ = train(model, {"all": own}, {"all": 1.0}, 1, settings, tmp_path / "work", "key", held_out())
        return result

    with pytest.raises(InterruptedError):
        start(broken=True)
    assert [look["step"] for look in start(broken=False).looks] == [0, 2, 4, 6, 8, 10, 12]


def test_token_bytes_add_up_to_the_text(route: Route) -> None:
    from llama_gene.tokenization.tokenizer import load_tokenizer

    for tokenizer, prefix in ((tiny_tokenizer(("AC",)), 0), (load_tokenizer(route.tokenizer), 1)):
        sizes = token_bytes(tokenizer)
        for text in (*ENGLISH[:3], *genes(2, 300), "naïve λ 漢字  two spaces", "x"):
            assert int(sizes[np.array(encode_text(tokenizer, text))].sum()) == len(text.encode()) + prefix
        assert sizes[tokenizer.eos_token_id] == 0


def test_a_resume_with_other_looks_does_not_compare_what_cannot_be_compared(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows, order = jobs.uneven_rows(), jobs.row_order()

    def start(broken: bool, tokens: int) -> TrainResult:
        model = attach_lora(tiny_llama(), LoraSettings(rank=4))
        own = jobs.BrokenRows(rows, set(order[5 * 8 :]) if broken else set(order[: 4 * 8]))
        settings = tiny_training(12, batch_size=8, save_steps=4, watch=WatchSettings(tokens=tokens, every=2, stop=0.0001))
        guarded = held_out(("dna",))
        result, _ = train(model, {"all": own}, {"all": 1.0}, 1, settings, tmp_path / "work", "key", guarded if tokens else None)
        return result

    with pytest.raises(InterruptedError):
        start(broken=True, tokens=0)
    logging.getLogger("llama_gene").propagate = True
    try:
        assert start(broken=False, tokens=64).looks[0]["step"] == 4
    finally:
        logging.getLogger("llama_gene").propagate = False
    assert "did not read dna as this one does: nothing guards it" in caplog.text
