"""pieces: a folder of pieces, and fitting them behind a vocabulary that they were not trained behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_gene import runtime
from llama_gene.errors import InputError, MissingFileError
from llama_gene.tokenization.bpe import reference_encode
from llama_gene.tokenization.pieces import STAGE, Pieces, fit_pieces, read_pieces, write_pieces
from tests.fixtures.letters import LettersVocabulary


def write(folder: Path, pieces: list[str], reserve: list[str] | None = None) -> Path:
    folder.mkdir()
    write_pieces(folder, pieces, reserve or [])
    runtime.write_manifest(folder, STAGE, {}, kind="dna", method="continued", size=len(pieces), pieces=runtime.fingerprint(pieces))
    return folder


def test_a_folder_comes_back(tmp_path: Path) -> None:
    given = read_pieces(write(tmp_path / "dna", ["AC", "ACG"], ["GT"]))
    assert (given.pieces, given.reserve, given.kind, given.scores) == (["AC", "ACG"], ["GT"], "dna", None)


def test_a_list_of_pieces_is_of_no_kind(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("AC\nACG\n")
    assert read_pieces(tmp_path / "mine.txt") == Pieces(["AC", "ACG"])
    assert read_pieces(tmp_path / "mine.txt").kind == "gene"


def test_bad_folders_are_one_clear_line(tmp_path: Path) -> None:
    changed = write(tmp_path / "changed", ["AC", "ACG"])
    (changed / "pieces.txt").write_text("AC\nGT\n")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "broken.model").write_bytes(b"\x0a\xff\xff\xff\xff\xff")
    for source, message in (
        (changed, "was changed after training"),
        (tmp_path / "empty.txt", "is empty"),
        (tmp_path / "binary.txt", "is not text"),
        (tmp_path / "broken.model", "not a whole SentencePiece model"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            read_pieces(source)
        assert "\n" not in str(caught.value)
    with pytest.raises(MissingFileError):
        read_pieces(tmp_path / "nowhere")


def test_law_03_pieces_trained_behind_another_base_are_replaced_from_the_reserve_until_all_are_reachable() -> None:
    given = Pieces(["GI", "TT", "GITT"], ["GG", "GGI"])
    alone = fit_pieces(LettersVocabulary("GIT"), given)
    assert alone.pieces == given.pieces and alone.num_refilled == 0
    behind = LettersVocabulary("GIT").append(["IT"])  # now IT merges first, and GITT is cut G, IT, T
    fitted = fit_pieces(behind, given)
    assert fitted.pieces == ["GI", "TT", "GG"] and (fitted.num_unreachable, fitted.num_refilled) == (1, 1)
    full = behind.append(fitted.pieces)
    assert all(reference_encode(piece, full.rank) == [piece] for piece in fitted.pieces)


def test_a_guard_and_pieces_that_are_there_already_are_counted() -> None:
    base = LettersVocabulary("ACGT").append(["AC"])
    fitted = fit_pieces(base, Pieces(["AC", "GT", "CG"], ["TT", "ACG"]), guard=lambda piece: piece == "CG")
    assert fitted.pieces == ["GT", "TT", "ACG"] and (fitted.num_taken, fitted.num_guarded, fitted.num_refilled) == (1, 1, 2)


def test_too_few_that_work_are_refused() -> None:
    with pytest.raises(InputError, match="1 of 1 gene pieces do not work behind this vocabulary"):
        fit_pieces(LettersVocabulary("ACGT"), Pieces(["ACG"]))
