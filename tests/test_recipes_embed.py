"""The embed stage: what it writes, that it goes on where it was stopped, and what it refuses."""

from __future__ import annotations

import gzip
import io
import random
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest

from llama_gene import cli, runtime
from llama_gene.errors import ConfigError, InputError
from llama_gene.inference import embeddings
from llama_gene.inference.embeddings import embed, load_reader
from llama_gene.recipes.embed import Config, run
from tests.fixtures.tiny_tokenizers import sentencepiece_like
from tests.tiny_models import save_adapter, save_model, tiny_llama, tiny_tokenizer

RNG = random.Random(0)
GENES = {f"g{i}": "".join(RNG.choices("ACGT", k=k)) for i, k in enumerate((12, 90, 3, 40, 7, 66, 30))}


@pytest.fixture(scope="module")
def w(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and sequences."""
    folder = tmp_path_factory.mktemp("embed")
    save_model(tiny_llama(), tiny_tokenizer(), folder / "model")
    (folder / "genes.fa").write_text("".join(f">{name} a gene\n{text}\n" for name, text in GENES.items()))
    (folder / "empty.fa").write_text("")
    (folder / "protein.fa").write_text(">p1\nMKTAYIAK\nQRQISF\n")
    whole = gzip.compress((folder / "genes.fa").read_bytes() * 50)
    (folder / "cut.fa.gz").write_bytes(whole[: len(whole) // 2])
    return folder


def settings(w: Path, out: Path, **changes: Any) -> Config:
    """Return a config of small parts and windows."""
    values = {"model": str(w / "model"), "inputs": [str(w / "genes.fa")], "max_length": 32, "part_size": 3, "output_dir": out}
    return Config(**{**values, **changes})


def table(folder: Path) -> dict[str, list[Any]]:
    """Return all parts of an output."""
    found: dict[str, list[Any]] = parquet.read_table(folder / "embeddings").to_pydict()
    return found


def test_a_row_a_sequence_in_the_order_of_the_file(w: Path, tmp_path: Path) -> None:
    rows = table(run(settings(w, tmp_path / "out")))
    assert list(rows) == ["id", "length", "tokens", "windows", "embedding"]
    assert rows["id"] == list(GENES) and rows["length"] == rows["tokens"] == [len(text) for text in GENES.values()]
    assert rows["windows"] == [1, 5, 1, 2, 1, 4, 1]  # 31 places for letters, 15 a further window
    expected = [item.vectors[0] for item in embed(load_reader(w / "model"), GENES.values(), max_length=32)]
    np.testing.assert_allclose(np.array(rows["embedding"]), expected, atol=1e-5)


def test_the_manifest_and_the_schema_say_what_the_vectors_are(w: Path, tmp_path: Path) -> None:
    folder = run(settings(w, tmp_path / "out", layers=[0, -1], kind="dna"))
    manifest = runtime.read_manifest(folder, "embed")
    assert {name: manifest[name] for name in ("sequences", "rows", "windowed", "parts", "width", "layers", "causal", "window_tokens")} == {
        "sequences": 7, "rows": 7, "windowed": 3, "parts": 3, "width": 64, "layers": [0, 2], "causal": True, "window_tokens": 31,
    }  # fmt: skip
    assert manifest["letters"] == manifest["tokens"] == sum(map(len, GENES.values())) == manifest["letter_counts"]["letters_kept"]
    assert len(manifest["vocabulary"]) == len(manifest["weights"]) == 16
    schema = parquet.read_schema(folder / "embeddings" / "00000.parquet")
    assert str(schema.field("embedding").type) == "fixed_size_list<element: float>[64]"
    assert schema.metadata[b"llama_gene.pooling"] == b"mean" and schema.metadata[b"llama_gene.layers"] == b"0 -1"
    assert not (tmp_path / ".out.work").exists()


def test_residue_rows_are_tokens_with_their_letters(tmp_path: Path) -> None:
    """A SentencePiece vocabulary with pieces of several letters: residues that share a token share a row."""
    (tmp_path / "p.fa").write_text(f">p\n{'MKTAYIAKQRQISFVKSHFSRQ' * 6}\n>q\nMKV\n")
    tokenizer = sentencepiece_like()
    inputs, model = [str(tmp_path / "p.fa")], str(save_model(tiny_llama(len(tokenizer)), tokenizer, tmp_path / "model"))
    folder = run(Config(model, inputs, kind="protein", pooling="residue", max_length=24, output_dir=tmp_path / "out"))
    rows = table(folder)
    assert list(rows) == ["id", "token", "start", "end", "letters", "embedding"]
    for name, text in (("p", "MKTAYIAKQRQISFVKSHFSRQ" * 6), ("q", "MKV")):
        own = [i for i, identifier in enumerate(rows["id"]) if identifier == name]
        assert "".join(rows["letters"][i] for i in own) == text
        assert [rows["token"][i] for i in own] == list(range(len(own)))
        assert all(text[rows["start"][i] : rows["end"][i]] == rows["letters"][i] for i in own)
    assert max(len(letters) for letters in rows["letters"]) > 1
    assert runtime.read_manifest(folder, "embed")["windowed"] == 1


def test_a_stopped_run_goes_on_from_its_last_whole_part(w: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = table(run(settings(w, tmp_path / "whole")))
    read: list[str] = []
    plain_embed = embeddings.embed

    def watched(reader: Any, texts: Any, *arguments: Any) -> Any:
        def noted() -> Any:
            for text in texts:
                read.append(text)
                if len(read) == 5:
                    raise KeyboardInterrupt
                yield text

        return plain_embed(reader, noted(), *arguments)

    monkeypatch.setattr(embeddings, "embed", watched)
    with pytest.raises(KeyboardInterrupt):
        run(settings(w, tmp_path / "out"))
    assert not (tmp_path / "out").exists() and (tmp_path / ".out.work" / "00000.parquet").is_file()
    read[:] = [""] * 10
    folder = run(settings(w, tmp_path / "out"))
    assert read[10:] == list(GENES.values())[3:]  # the first part of three was not read again
    assert table(folder) == whole and runtime.read_manifest(folder)["letters"] == sum(map(len, GENES.values()))


def test_parts_of_other_settings_are_not_taken(w: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    run(settings(w, tmp_path / "last", pooling="last"))
    with monkeypatch.context() as patch:
        patch.setattr(runtime, "write_manifest", stop)
        with pytest.raises(KeyboardInterrupt):
            run(settings(w, tmp_path / "out"))
    assert len(list((tmp_path / ".out.work").glob("*.parquet"))) == 3
    assert table(run(settings(w, tmp_path / "out", pooling="last"))) == table(tmp_path / "last")


def test_standard_input_and_tables_are_read(w: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.csv").write_text("id,sequence,label\nx,acgtn,1\ny,GG-G,0\nz,,0\n")
    folder = run(settings(w, tmp_path / "out", inputs=[str(tmp_path / "rows.csv")]))
    rows = table(folder)
    assert (rows["id"], rows["length"]) == (["x", "y"], [5, 3])
    counts = runtime.read_manifest(folder)["letter_counts"]
    assert counts["letters_rejected"] == {"gap": 1} and counts["records_rejected"] == {"empty": 1}
    assert counts["letters_changed"] == {"to_upper": 5}
    with (w / "genes.fa").open("rb") as handle:
        monkeypatch.setattr("sys.stdin", SimpleNamespace(fileno=handle.fileno, buffer=io.BytesIO()))
        rows = table(run(settings(w, tmp_path / "piped", inputs=["-"])))
    assert rows["id"] == list(GENES)


def test_adapters_and_structure_letters_are_read(tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter")
    (tmp_path / "s.fa").write_text(">s\nDVLVVC\n")
    folder = run(Config(str(adapter), [str(tmp_path / "s.fa")], kind="3di", pooling="residue", output_dir=tmp_path / "out"))
    rows = table(folder)
    assert rows["letters"][0] == "D" and rows["end"][-1] == 6 and len(rows["id"]) == 6 * len("<3di:d>")  # no piece for them: bytes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--inputs {w}/empty.fa", "empty.fa holds no record"),
        ("--inputs {w}/gone.fa", "gone.fa does not exist"),
        ("--inputs {w}/protein.fa", "protein.fa, line 2: '.' is not a DNA letter; .* set kind: protein"),
        ("--inputs {w}/cut.fa.gz", "cut.fa.gz cannot be decompressed"),
        ("--inputs {w}/genes.fa --layers [7]", "layer 7; expected 0 to 2"),
        ("--inputs {w}/genes.fa --pooling max", "pooling is 'max'; expected one of mean, last, residue"),
        ("--inputs {w}/genes.fa --part_size 0", "part_size is 0"),
        ("--inputs {w}/genes.fa --max_length 0", "max_length is 0; expected at least 1 token"),
        ("--inputs {w}/genes.fa --batch_tokens -5", "batch_tokens is -5; expected at least 1 token"),
        ("--inputs {w}/genes.fa --max_length 1", "has no room for a sequence"),
        ("--inputs {w}/genes.fa --model {w}/gone", "gone does not exist"),
        ("", "model, inputs or output_dir is not given"),
    ],
)
def test_bad_input_is_one_line(
    w: Path, tmp_path: Path, arguments: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LLAMA_GENE_DATA", raising=False)
    words = f"embed --model {w}/model --output_dir {tmp_path}/out {arguments}".replace("{w}", str(w)).split()
    assert cli.main(words) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("llama-gene embed: ")]
    assert len(lines) == 1 and re.search(message, lines[0]), lines
    assert not list(tmp_path.iterdir())


def test_an_output_folder_with_the_input_in_it_is_refused(w: Path, tmp_path: Path) -> None:
    with pytest.raises((InputError, ConfigError), match="holds files and is not an earlier output|lies in the output folder"):
        run(settings(w, w))
