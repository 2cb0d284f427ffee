"""Errors: three parts, one line, and the built-in class that a caller would catch."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_gene.errors import ConfigError, InputError, LlamaGeneError, MachineError, MismatchError, MissingFileError, did_you_mean


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        (("7 rows",), "7 rows."),
        (("7 rows", "8"), "7 rows; expected 8."),
        (("7 rows", "8", "Add one"), "7 rows; expected 8. Add one."),
        (("no key 'sed'", "", "Did you mean 'seed'?"), "no key 'sed'. Did you mean 'seed'?"),
    ],
)
def test_message_says_found_expected_and_what_to_do(parts: tuple[str, ...], line: str) -> None:
    assert str(LlamaGeneError(*parts)) == line


def test_missing_file_names_the_path_and_what_it_should_be() -> None:
    assert str(MissingFileError("genome.fa", "a FASTA file")) == "genome.fa does not exist; expected a FASTA file. Check the path."


def test_a_file_where_a_folder_was_named_is_not_said_to_be_absent(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("")
    assert str(MissingFileError(tmp_path / "notes", "a folder")).endswith("notes is a file; expected a folder. Check the path.")
    assert "does not exist" in str(MissingFileError("x" * 5000, "a folder"))


@pytest.mark.parametrize(
    ("ours", "builtin"),
    [
        (InputError, ValueError),
        (ConfigError, ValueError),
        (MismatchError, ValueError),
        (MissingFileError, FileNotFoundError),
        (MachineError, RuntimeError),
    ],
)
def test_each_error_is_ours_and_the_built_in_one(ours: type[LlamaGeneError], builtin: type[Exception]) -> None:
    assert issubclass(ours, LlamaGeneError) and issubclass(ours, builtin)
    with pytest.raises(builtin, match="this"):
        raise ours("this", "that")


@pytest.mark.parametrize(
    ("word", "known", "answer"),
    [
        ("langauge", ["language", "kind"], "Did you mean 'language'?"),
        ("DNA", ["dna", "protein"], "Did you mean 'dna'?"),
        ("batch_siz", ["train.batch_size", "seed"], "Did you mean 'train.batch_size'?"),
        ("training.learning_rat", ["train.learning_rate", "lora.rank"], "Did you mean 'train.learning_rate'?"),
        ("zzz", ["language", "kind"], ""),
        ("seed", [], ""),
    ],
)
def test_did_you_mean_names_the_nearest_word_or_none(word: str, known: list[str], answer: str) -> None:
    assert did_you_mean(word, known) == answer
