"""Files: found, opened, decompressed, their byte-order mark skipped."""

from __future__ import annotations

import gzip
import os
import threading
from pathlib import Path

import pytest

from llama_gene.errors import InputError, MissingFileError
from llama_gene.sequences.files import bare_name, expand_paths, open_bytes, open_text


def write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_paths_are_sorted_and_unique_and_manifests_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    for name in ("b.fa", "a.fa", "sub/c.fa", "manifest.json", ".hidden"):
        write(folder / name, "x")
    names = [path.relative_to(folder).as_posix() for path in expand_paths([folder, folder / "a.fa", str(folder / "*.fa")])]
    assert names == ["a.fa", "b.fa", "sub/c.fa"]
    with pytest.raises(MissingFileError):
        expand_paths([folder / "*.gz"])


def test_a_compression_is_no_part_of_a_name() -> None:
    assert [bare_name(name).name for name in ("a/b.fa.gz", "b.fa.XZ", "b.fa", "b.gz.fa")] == ["b.fa", "b.fa", "b.fa", "b.gz.fa"]


def test_a_byte_order_mark_is_skipped_once(tmp_path: Path) -> None:
    for path in (write(tmp_path / "a", "\ufeff>x\ufeff"), write(tmp_path / "a.gz", gzip.compress("\ufeff>x\ufeff".encode()))):
        with open_bytes(path) as handle:
            assert handle.peek(1)[:1] == b">" and handle.read() == ">x\ufeff".encode()
        with open_text(path) as text:
            assert text.read() == ">x\ufeff"


def test_the_beginning_of_a_slow_pipe_is_seen_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()

    def write_slowly() -> None:
        for byte in b">a\nACGT\n":
            os.write(writing, bytes([byte]))
        os.close(writing)

    thread = threading.Thread(target=write_slowly)
    thread.start()
    with os.fdopen(reading) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        with open_bytes("-") as handle:
            assert handle.peek(1) == b">a\nACGT\n"
    thread.join()


def test_what_is_no_file_and_what_is_cut_short_is_said(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="none does not exist"), open_bytes(tmp_path / "none"):
        pass
    with pytest.raises(InputError, match="is a folder; expected a file"), open_bytes(tmp_path):
        pass
    path = write(tmp_path / "a.gz", gzip.compress(os.urandom(3 << 20))[:-9])
    with pytest.raises(InputError, match="a.gz cannot be decompressed: .*; expected a whole file"), open_bytes(path) as handle:
        while handle.read(1 << 20):
            pass
    with pytest.raises(InputError, match="is not UTF-8"), open_text(write(tmp_path / "b", b"a\xff")) as text:
        text.read()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in this system's folders")
def test_a_pipe_is_not_said_to_be_missing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "genome.fa")
    with pytest.raises(InputError, match=r"genome.fa is a pipe or a device.*Give -"):
        expand_paths([tmp_path / "genome.fa"])
