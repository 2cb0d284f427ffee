"""Options of derivations: text of a YAML, typed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from llama_gene.data.derived.options import option_files, parse_options, under
from llama_gene.errors import ConfigError


@dataclass(frozen=True)
class Some:
    table: Path
    length: int = 5
    share: float = 0.5
    whole: bool = False
    words: tuple[str, ...] = ()
    names: dict[str, str] = field(default_factory=dict)


def test_text_becomes_the_type_of_the_field() -> None:
    texts = {"table": "a/b.tsv", "length": "1_000", "share": "0.25", "whole": "Yes", "words": "x y", "names": "a=b c=d=e"}
    assert parse_options(Some, texts, "task") == Some(Path("a/b.tsv"), 1000, 0.25, True, ("x", "y"), {"a": "b", "c": "d=e"})


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"table": "t", "lenght": "5"}, "task: option 'lenght' is not known.*Did you mean 'length'"),
        ({"length": "5"}, "task has no option 'table'"),
        ({"table": "t", "length": "five"}, "task: option 'length': 'five'; expected int"),
        ({"table": "t", "whole": "maybe"}, "option 'whole': 'maybe'"),
        ({"table": "t", "names": "a"}, "option 'names': 'a'"),
    ],
)
def test_wrong_options_name_themselves(texts: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_options(Some, texts, "task")


def test_files_are_relative_to_the_data_folder() -> None:
    options = Some(Path("a/b.tsv"))
    assert option_files(options) == ["a/b.tsv"]
    assert under(options, Path("/data")).table == Path("/data/a/b.tsv")
