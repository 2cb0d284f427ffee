"""Readers: FASTA, FASTQ, English, tables."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import dnaio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_gene.errors import InputError, MissingFileError
from llama_gene.sequences.records import Record, read_documents, read_records, read_table

BLOCKS = (8_192, 1 << 17, 1 << 20)  # bytes that Python's text layer, dnaio's FASTQ parser and our own buffer read at once
FASTA = b">chr1 first one\nACGT\nacgn\n>chr2\r\nTT\r\n"


def write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_fasta_records_have_id_description_and_upper_case_letters(tmp_path: Path) -> None:
    path = write(tmp_path / "g.fa", FASTA)
    assert list(read_records(path)) == [Record("chr1", "first one", "ACGTACGN"), Record("chr2", "", "TT")]
    assert next(read_records(path, uppercase=False)).sequence == "ACGTacgn"


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)])
def test_compressed_fasta_reads_as_plain(tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]) -> None:
    assert [record.id for record in read_records(write(tmp_path / f"g.fa{suffix}", compress(FASTA)))] == ["chr1", "chr2"]


@pytest.mark.skipif(shutil.which("zstd") is None, reason="needs the program zstd")
def test_zstd_fasta_reads_as_plain(tmp_path: Path) -> None:
    subprocess.run(["zstd", "-q", str(write(tmp_path / "g.fa", FASTA))], check=True)
    assert [record.id for record in read_records(tmp_path / "g.fa.zst")] == ["chr1", "chr2"]


def test_fastq_reads(tmp_path: Path) -> None:
    assert list(read_records(write(tmp_path / "r.fq", "@r1 x\nACGT\n+\nIIII\n"))) == [Record("r1", "x", "ACGT")]


def test_a_wrong_letter_names_file_line_and_remedy(tmp_path: Path) -> None:
    path = write(tmp_path / "genome.fa", ">a\nACGT\n>b\nACGT\nACGA*\n")
    with pytest.raises(InputError, match=r"genome.fa, line 5: '\*' is not a DNA letter; .*kind: protein"):
        list(read_records(path))
    with pytest.raises(InputError, match=r"r.fq, line 6: '\!'"):
        list(read_records(write(tmp_path / "r.fq", "@a\nAC\n+\nII\n@b\nA!\n+\nII\n")))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.fa", b"", "holds no record"),
        ("x.gbk", b"LOCUS       NC_000913\n", "neither '>' nor '@'; expected FASTA or FASTQ"),
        ("cut.fq", b"@r\nACGT\n", "Premature end of file"),
        ("cut.fa.gz", gzip.compress(FASTA * 100)[:-9], "cannot be decompressed"),
        ("not.fa.gz", b"ACGT", "cannot be decompressed"),
        ("not.fa.xz", b"ACGT", "cannot be decompressed"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        list(read_records(write(tmp_path / name, content)))
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"none.fa does not exist"):
        list(read_records(tmp_path / "none.fa"))
    with pytest.raises(InputError, match="is a folder"):
        list(read_records(tmp_path))


def test_plain_text_documents_close_at_blank_lines(tmp_path: Path) -> None:
    paragraph = "word " * 500 + "\n\n"  # 2,502 characters
    path = write(tmp_path / "book.txt.gz", gzip.compress((paragraph * 5).encode()))
    documents = list(read_documents(path))
    assert [identifier for identifier, _ in documents] == ["book:1", "book:2", "book:3"]
    assert [text.count("\n\n") for _, text in documents] == [1, 1, 0]


def test_text_without_blank_lines_still_gives_documents(tmp_path: Path) -> None:
    path = write(tmp_path / "wiki.raw", ("x" * 4_999 + "\n") * 5)
    assert [len(text) for _, text in read_documents(path)] == [4 * 5_000 - 1, 4_999]


def test_json_documents_in_three_shapes(tmp_path: Path) -> None:
    rows = [{"id": "a", "text": "one"}, {"text": "two"}, {"id": "c", "text": " "}]
    lines = write(tmp_path / "d.jsonl", "\n".join(map(json.dumps, rows)))
    assert list(read_documents(lines)) == [("a", "one"), ("d:2", "two")]
    assert list(read_documents(write(tmp_path / "d.json", json.dumps(rows)))) == [("a", "one"), ("d:2", "two")]
    assert list(read_documents(write(tmp_path / "e.json", json.dumps({"k": {"text": "one"}})))) == [("k", "one")]


def test_json_faults_name_the_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"d.jsonl, line 2: no field `text` \(found body\)"):
        list(read_documents(write(tmp_path / "d.jsonl", '{"text": "a"}\n{"body": "b"}\n')))
    with pytest.raises(InputError, match=r"e.jsonl, line 1: "):
        list(read_documents(write(tmp_path / "e.jsonl", '{"text": ')))
    with pytest.raises(InputError, match="is not UTF-8"):
        list(read_documents(write(tmp_path / "f.txt", b"\xff\xfe")))
    with pytest.raises(InputError, match="holds no text"):
        list(read_documents(write(tmp_path / "g.txt", "\n\n")))


def test_tables_with_commas_or_tabs(tmp_path: Path) -> None:
    rows = [{"sequence": "ACGT", "label": "1", "x": "a,b"}]
    assert read_table(write(tmp_path / "t.csv", 'sequence,label,x\nACGT,1,"a,b"\n\n'), ["sequence"]) == rows
    assert read_table(write(tmp_path / "t.tsv.gz", gzip.compress(b"\xef\xbb\xbfsequence\tlabel\tx\nACGT\t1\ta,b\n")), ["label"]) == rows


def test_a_table_holds_sequences_of_any_length(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "sequence\n" + "A" * 200_000 + "\n")
    assert len(read_table(path, ["sequence"])[0]["sequence"]) == 200_000


def test_table_faults_say_what_to_do(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "sequence,label\nACGT,1\nACGT\n")
    with pytest.raises(InputError, match=r"no column 'sequences'.*Did you mean 'sequence'"):
        read_table(path, ["sequences"])
    with pytest.raises(InputError, match=r"t.csv, line 3: 1 columns; expected 2"):
        read_table(path, ["label"])
    with pytest.raises(InputError, match="holds no row"):
        read_table(write(tmp_path / "u.csv", "label\n"), ["label"])
    with pytest.raises(InputError, match="v.csv has no header; expected a header line and at least one row"):
        read_table(write(tmp_path / "v.csv", ""), ["label"])


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_standard_input_reads_as_a_file_whatever_its_compression(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compress: Callable[[bytes], bytes]
) -> None:
    path = write(tmp_path / "no_suffix", compress(FASTA))
    with path.open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert list(read_records("-")) == [Record("chr1", "first one", "ACGTACGN"), Record("chr2", "", "TT")]
        stdin.seek(0)  # would fail had the reader closed it
        assert len(list(read_records(Path("-")))) == 2


@pytest.mark.skipif(shutil.which("zstd") is None, reason="needs the program zstd")
def test_zstd_on_standard_input_reads_through_a_pipe(tmp_path: Path) -> None:
    packed = subprocess.run(["zstd", "-q", "-c", str(write(tmp_path / "g.fa", FASTA))], check=True, capture_output=True).stdout
    code = "from llama_gene.sequences.records import read_records; print([record.sequence for record in read_records('-')])"
    done = subprocess.run([sys.executable, "-c", code], input=packed, capture_output=True, check=True)
    assert done.stdout.decode().strip() == "['ACGTACGN', 'TT']"


def test_a_fault_on_standard_input_names_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with write(tmp_path / "p", ">a x\nACGT\n>b y\nACE\n").open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        with pytest.raises(InputError, match="standard input, record 'b': 'E' is not a DNA letter"):
            list(read_records("-", "dna"))
    with write(tmp_path / "q", gzip.compress(FASTA * 100)[:-9]).open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        with pytest.raises(InputError, match="standard input cannot be decompressed"):
            list(read_records("-"))


def test_a_record_over_the_limit_is_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "g.fa", ">a\nACGT\n>b long\nACG\nTAC\n")
    assert len(list(read_records(path, max_record_length=6))) == 2
    with pytest.raises(InputError, match="g.fa, record 'b' has 6 letters; expected at most 5"):
        list(read_records(path, max_record_length=5))


def test_an_overlong_record_is_refused_before_it_is_held_whole(tmp_path: Path) -> None:
    lines_of_a_megabyte = ("A" * 60 + "\n") * 17_000
    path = tmp_path / "g.fa.gz"
    with gzip.open(path, "wt", compresslevel=1) as handle:
        handle.write(">a\nACGT\n>endless one\n")
        for _ in range(40):
            handle.write(lines_of_a_megabyte)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="g.fa.gz, record 'endless' has more than 1,000,000 letters"):
            list(read_records(path, max_record_length=1_000_000))
        assert tracemalloc.get_traced_memory()[1] < 20_000_000  # 40 MB had the record been read to its end
    finally:
        tracemalloc.stop()


def test_a_long_fastq_is_no_long_record(tmp_path: Path) -> None:
    path = write(tmp_path / "r.fq", "@r\nACGT\n+\n>III\n" * 200_000)
    assert sum(1 for _ in read_records(path, max_record_length=4)) == 200_000


def test_a_comment_may_stand_before_the_records_but_not_hide_letters_among_them(tmp_path: Path) -> None:
    assert next(read_records(write(tmp_path / "g.fa", "# a comment\n>a\nACGT\n"))).sequence == "ACGT"
    with pytest.raises(InputError, match="h.fa, line 4: '#' is not a DNA letter"):
        list(read_records(write(tmp_path / "h.fa", "# a comment\n>a\nACGT\n #CGT\n")))
    with pytest.raises(InputError, match="i.fa, line 2: 'Call me'; expected a FASTA header, which begins with '>'"):
        list(read_records(write(tmp_path / "i.fa", "# a comment\nCall me\n>a\nACGT\n")))


@pytest.mark.parametrize("block", BLOCKS)
def test_headers_and_letters_may_lie_across_blocks(tmp_path: Path, block: int) -> None:
    for length in range(block - 12, block):  # the block ends before ">", in the header, before its line end, behind it ...
        path = write(tmp_path / "g.fa", f">a\n{'A' * (length - 3)}\n>bc d\n\n>e\nGG\n")
        assert [(record.id, record.description, len(record.sequence)) for record in read_records(path)] == [
            ("a", "", length - 3),
            ("bc", "d", 0),
            ("e", "", 2),
        ]


def test_headers_may_hold_any_sign_and_letters_blanks(tmp_path: Path) -> None:
    path = write(tmp_path / "g.fa", ">  é\tMüller > x # y \nACGT ACGT\t\n  AC\n>\n")
    assert list(read_records(path)) == [Record("é", "Müller > x # y", "ACGTACGTAC"), Record("", "", "")]
    with pytest.raises(InputError, match="i.fa, line 3: '!' is not a DNA letter"):
        list(read_records(write(tmp_path / "i.fa", ">a\nACGT ACGT\nAC !\n")))
    with pytest.raises(InputError, match="h.fa, line 2: '�' is not a DNA letter"):
        list(read_records(write(tmp_path / "h.fa", b">a\nAC\xff\n")))


def test_a_header_without_end_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="g.fa has a header of more than 1,048,576 bytes"):
        list(read_records(write(tmp_path / "g.fa", ">" + "a" * (3 << 20))))


NAMES = st.from_regex(r"[!-~]{1,9}( [!-~]{1,9})?", fullmatch=True)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(NAMES, st.text("ACGTNacgtn-", max_size=90)), min_size=1, max_size=5),
    st.integers(1, 70),
    st.sampled_from(["\n", "\r\n"]),
)
def test_fasta_reads_as_dnaio_reads_it(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], width: int, end: str) -> None:
    lines = [line for name, text in rows for line in [f">{name}", *(text[at : at + width] for at in range(0, len(text), width))]]
    path = write(tmp_path_factory.getbasetemp() / "parity.fa", end.join(lines) + end)
    with dnaio.open(path) as reader:
        expected = [(*record.name.partition(" ")[::2], record.sequence) for record in reader]
    assert [(record.id, record.description, record.sequence) for record in read_records(path, uppercase=False)] == expected


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_may_end_in_any_way(tmp_path: Path, end: str) -> None:
    text = end.join([">a x", "ACGT", "", "AC", ">b", "GG"])
    assert list(read_records(write(tmp_path / "g.fa", text))) == [Record("a", "x", "ACGTAC"), Record("b", "", "GG")]
    assert list(read_records(write(tmp_path / "r.fq", end.join(["@r", "AC", "+", "II", "@s", "G", "+", "I", ""])))) == [
        Record("r", "", "AC"),
        Record("s", "", "G"),
    ]


@pytest.mark.parametrize("block", BLOCKS)
def test_line_ends_may_be_mixed_and_lie_between_blocks(tmp_path: Path, block: int) -> None:
    letters = "A" * (block - len(">a\n") - 1)  # the first block ends between \\r and \\n
    path = write(tmp_path / "g.fa", f">a\n{letters}\r\nCC\r>b\r\nG\n>c\rTT")
    assert [(record.id, len(record.sequence)) for record in read_records(path)] == [("a", len(letters) + 2), ("b", 1), ("c", 2)]
    reads = write(tmp_path / "r.fq", "@r\n" + letters + "\r\n+\r\n" + "I" * len(letters) + "\r\n")
    assert [len(record.sequence) for record in read_records(reads)] == [len(letters)]


def test_a_fault_behind_mixed_line_ends_has_its_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="g.fa, line 4: 'E' is not a DNA letter"):
        list(read_records(write(tmp_path / "g.fa", ">a\r\nAC\r>b\nAE\n")))


def test_headers_say_which_records_are_circles(tmp_path: Path) -> None:
    text = ">a [topology=circular] [x=y]\nA\n>b length=3 circular=true\nC\n>c [topology=linear] uncircular=true\nG\n>circular\nT\n"
    assert [record.circular for record in read_records(write(tmp_path / "g.fa", text))] == [True, True, False, False]
