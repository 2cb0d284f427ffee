"""Any encoder or causal model gives vectors that do not depend on batch mates; what needs code of its own is refused."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import DistilBertConfig, DistilBertModel, T5Config, T5EncoderModel

from llama_gene.errors import ConfigError, InputError, MissingFileError
from llama_gene.models.encoders import letter_vectors, load_encoder, row_vectors
from llama_gene.models.task_heads import head_layers, new_head, open_reader
from tests.tiny_encoders import RESIDUES, save_bert, save_esm, word_tokenizer
from tests.tiny_models import PIECES, save_adapter, save_model, tiny_gpt2, tiny_llama, tiny_tokenizer

RNG = random.Random(0)
PROTEINS = ["".join(RNG.choices(RESIDUES[:20], k=length)) for length in (1, 5, 20, 33, 60)]
GENES = ["".join(RNG.choices("ACGT", k=length)) for length in (3, 8, 20, 41, 60)]
THREES = ["".join(word) for word in itertools.product("ACGT", repeat=3)]


def make(kind: str, folder: Path) -> tuple[Path, list[str], str]:
    """Return a model folder, sequences and the spelling that its tokenizer needs."""
    if kind == "esm":
        return save_esm(folder), PROTEINS, "plain"
    if kind == "bert spaced":
        return save_bert(folder, list(RESIDUES)), PROTEINS, "spaced"
    if kind == "bert 3-mers":
        return save_bert(folder, THREES), GENES, "3-mers"
    if kind == "gpt2":
        return save_model(tiny_gpt2(), tiny_tokenizer(), folder), GENES, "plain"
    return save_model(tiny_llama(len(tiny_tokenizer(PIECES))), tiny_tokenizer(PIECES), folder), GENES, "plain"


@pytest.mark.parametrize("kind", ["esm", "bert spaced", "bert 3-mers", "gpt2", "llama"])
def test_law_08_a_vector_does_not_depend_on_batch_mates_or_padding(kind: str, tmp_path: Path) -> None:
    folder, texts, spelling = make(kind, tmp_path)
    encoder = load_encoder(folder, texts)
    assert encoder.spelling == spelling
    alone = np.concatenate([row_vectors(encoder, [text])[0] for text in texts])
    assert alone.shape == (5, 32) and np.abs(alone - alone.mean(0)).max() > 0.05
    for batch_tokens in (64, 16384):
        together, windowed = row_vectors(encoder, texts, batch_tokens)
        assert np.abs(together - alone).max() < 1e-5 and windowed == 0
    assert np.abs(row_vectors(encoder, texts[::-1])[0][::-1] - alone).max() < 1e-5


def test_a_vector_is_the_mean_of_the_letters_hidden_states_without_the_specials(tmp_path: Path) -> None:
    encoder = load_encoder(save_esm(tmp_path), ["MKVLA"])
    ids = encoder.tokenizer("MKVLA", return_tensors="pt")["input_ids"].to(encoder.model.device)
    assert ids.shape == (1, 7)  # <cls>, five residues, <eos>
    with torch.no_grad():
        hidden = encoder.model(input_ids=ids).last_hidden_state[0].double().cpu().numpy()
    np.testing.assert_allclose(row_vectors(encoder, ["MKVLA"])[0][0], hidden[1:6].mean(0), atol=1e-6)
    np.testing.assert_allclose(letter_vectors(encoder, ["MKVLA"])[0], hidden[1:6], atol=1e-6)


def test_a_tokens_vector_stands_for_each_letter_that_it_covers(tmp_path: Path) -> None:
    folder, _, _ = make("llama", tmp_path)
    encoder = load_encoder(folder, GENES)
    vectors = letter_vectors(encoder, ["AACGTT"])[0]  # A AC GT T
    assert vectors.shape == (6, 32)
    assert (vectors[1] == vectors[2]).all() and (vectors[3] == vectors[4]).all() and (vectors[0] != vectors[1]).any()


def test_kmers_stand_for_the_letter_in_their_middle(tmp_path: Path) -> None:
    encoder = load_encoder(save_bert(tmp_path, THREES), GENES)
    vectors = letter_vectors(encoder, ["ACGTA"])[0]  # ACG CGT GTA
    assert vectors.shape == (5, 32)
    assert (vectors[0] == vectors[1]).all() and (vectors[3] == vectors[4]).all() and (vectors[1] != vectors[2]).any()


def test_what_is_longer_than_the_model_is_read_in_windows_and_counted(tmp_path: Path) -> None:
    encoder = load_encoder(save_esm(tmp_path, context=32), PROTEINS)
    assert encoder.limit == 32
    long = PROTEINS[-1]
    vectors, windowed = row_vectors(encoder, [long, PROTEINS[2]])
    assert windowed == 1
    halves, none = row_vectors(encoder, [long[:30], long[30:]])
    assert none == 0
    np.testing.assert_allclose(vectors[0], halves.mean(0), atol=1e-6)
    assert letter_vectors(encoder, [long])[0].shape == (60, 32)


def test_how_a_sequence_is_spelled_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder, texts, _ = make("bert 3-mers", tmp_path)
    with caplog.at_level("INFO"):
        load_encoder(folder, texts)
    assert "sequences are spelled as overlapping 3-mers; 0.0 % unknown tokens" in caplog.text


def test_a_tokenizer_that_knows_no_letter_is_refused(tmp_path: Path) -> None:
    folder = save_bert(tmp_path, ["the", "cat", "sat"])
    with pytest.raises(InputError, match="turns 100 % of these sequences' tokens into the unknown one"):
        load_encoder(folder, PROTEINS)


def test_a_type_that_transformers_does_not_know_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = save_bert(tmp_path, list(RESIDUES))
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own_bert", "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text("raise SystemExit('code of the repository was run')\n")
    with pytest.raises(
        InputError, match=r"needs code of its own to be loaded; expected a model that transformers holds itself.*This package runs no"
    ):
        load_encoder(folder, PROTEINS)


def test_a_known_type_with_the_weights_of_another_network_is_refused(tmp_path: Path) -> None:
    """DNABERT-2 names BERT's type, and its weights fill only some of BERT's tensors: the others would be random."""
    folder = save_bert(tmp_path, list(RESIDUES))
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "attention.self" not in name and "pooler" not in name}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="12 tensors of BertModel are not in the weights"):
        load_encoder(folder, PROTEINS)


def test_a_fresh_head_may_stand_on_a_whole_body_and_not_on_a_hollow_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 64}
    tokenizer = word_tokenizer(list(RESIDUES))
    DistilBertModel(DistilBertConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    reader = open_reader(tmp_path, PROTEINS)
    model = new_head(tmp_path, reader, "sequence", ["no", "yes"])
    assert head_layers(model) == ["pre_classifier", "classifier"] and model.config.num_labels == 2
    weights = load_file(tmp_path / "model.safetensors")
    save_file({name: value for name, value in weights.items() if "ffn" not in name}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="8 tensors of DistilBertForSequenceClassification are not in the weights"):
        new_head(tmp_path, reader, "sequence", ["no", "yes"])


def test_of_an_encoder_decoder_the_encoder_is_read(tmp_path: Path) -> None:
    tokenizer = word_tokenizer(list(RESIDUES))
    torch.manual_seed(0)
    config = T5Config(vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, pad_token_id=0, eos_token_id=3)
    T5EncoderModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path, PROTEINS)
    alone = np.concatenate([row_vectors(encoder, [text])[0] for text in PROTEINS])
    assert np.abs(row_vectors(encoder, PROTEINS)[0] - alone).max() < 1e-5 and alone.shape == (5, 32)


def test_what_is_no_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="does not exist"):
        load_encoder(tmp_path / "nowhere", PROTEINS)
    with pytest.raises(InputError, match=r"has no config\.json"):
        load_encoder(tmp_path, PROTEINS)
    with pytest.raises(ConfigError, match="is an adapter; expected a whole model"):
        load_encoder(save_adapter(tmp_path), PROTEINS)
    with pytest.raises(InputError, match="a sequence is empty"):
        row_vectors(load_encoder(save_esm(tmp_path / "esm"), PROTEINS), [""])
