"""Config: YAML and command line to a dataclass, and one line for everything that is wrong with them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from llama_gene.config import field_names, parse
from llama_gene.errors import ConfigError, InputError, LlamaGeneError, MissingFileError


@dataclass
class Part:
    """One of a list."""

    name: str = ""
    """What it is called."""
    size: int = 1
    """Letters."""


@dataclass
class Inner:
    """A group of keys."""

    rate: float = 0.5
    """Speed."""
    mode: Literal["fast", "slow"] = "fast"
    """How."""
    parts: list[Part] = field(default_factory=list)
    """A list inside a group."""


@dataclass
class Config:
    """All kinds of keys."""

    seed: int = 0
    """Seed."""
    whole: bool = False
    """A switch."""
    inputs: list[str] = field(default_factory=list)
    """Files."""
    shares: dict[str, float] = field(default_factory=dict)
    """Shares."""
    inner: Inner = field(default_factory=Inner)
    """A group."""
    extra: Inner | None = None
    """A group that may be absent."""
    parts: list[Part] = field(default_factory=list)
    """A list of groups."""
    data_dir: Path | None = None
    """Data."""
    output_dir: Path | None = None
    """Output."""


@pytest.fixture(autouse=True)
def no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLAMA_GENE_DATA", raising=False)


def from_yaml(tmp_path: Path, text: str, *arguments: str) -> Config:
    (tmp_path / "c.yaml").write_text(text)
    return parse("stage", Config, ["--config", str(tmp_path / "c.yaml"), *arguments])


def test_no_argument_gives_the_defaults() -> None:
    assert parse("stage", Config, []) == Config()


def test_yaml_fills_groups_and_lists(tmp_path: Path) -> None:
    text = """
seed: 3
whole: true
inputs: [a.fa, b.fa]
shares: {dna: 2, english: 0.5}
inner: {rate: 1e-3, parts: [{name: x}]}
extra:
  mode: slow
parts:
- name: y
  size: 4
output_dir: runs/a
"""
    assert from_yaml(tmp_path, text) == Config(
        seed=3,
        whole=True,
        inputs=["a.fa", "b.fa"],
        shares={"dna": 2.0, "english": 0.5},
        inner=Inner(rate=0.001, parts=[Part("x")]),
        extra=Inner(mode="slow"),
        parts=[Part("y", 4)],
        output_dir=Path("runs/a"),
    )


def test_the_command_line_wins_over_yaml_and_the_later_key_over_the_earlier(tmp_path: Path) -> None:
    config = from_yaml(tmp_path, "seed: 3\ninner: {rate: 2, mode: slow}\n", "--inner.rate", "4", "--seed=5", "--seed", "6")
    assert config == Config(seed=6, inner=Inner(rate=4.0, mode="slow"))


def test_anchors_and_dotted_keys_of_yaml_are_understood(tmp_path: Path) -> None:
    assert from_yaml(tmp_path, "inner: &a {rate: 2}\nextra:\n  <<: *a\n  mode: slow\n").extra == Inner(rate=2.0, mode="slow")
    assert from_yaml(tmp_path, "inner.rate: 2\n").inner == Inner(rate=2.0)


def test_the_data_folder_comes_from_the_environment_unless_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_GENE_DATA", "/data")
    assert parse("stage", Config, []).data_dir == Path("/data")
    assert parse("stage", Config, ["--data_dir", "mine"]).data_dir == Path("mine")


def test_a_switch_without_a_value_is_true() -> None:
    assert parse("stage", Config, ["--whole", "--seed", "3"]) == parse("stage", Config, ["--seed", "3", "--whole"]) == Config(3, True)
    assert parse("stage", Config, ["--whole", "false"]) == Config()


def test_field_names_reach_into_groups_and_lists() -> None:
    assert list(field_names(Part, "parts.")) == ["parts.name", "parts.size"]
    assert [name for name in field_names(Config) if name.startswith("inner")] == [
        "inner", "inner.rate", "inner.mode", "inner.parts", "inner.parts.name", "inner.parts.size",
    ]  # fmt: skip


UNKNOWN = [
    ("sed: 1\n", "line 1: unknown key 'sed'; expected a key of the config. Did you mean 'seed'?"),
    ("seed: 1\ninner:\n  rat: 2\n", "line 3: unknown key 'inner.rat'; expected a key of inner. Did you mean 'rate'?"),
    ("extra:\n  rat: 2\n", "line 2: unknown key 'extra.rat'; expected a key of extra. Did you mean 'rate'?"),
    ("parts:\n- name: x\n- nme: y\n", "line 3: unknown key 'parts[1].nme'; expected a key of parts[1]. Did you mean 'name'?"),
    ("inner:\n  parts:\n  - siz: 2\n", "line 3: unknown key 'inner.parts[0].siz'; expected a key of inner.parts[0]. Did you mean 'size'?"),
    ("parts:\n- class_path: os.system\n", "line 2: unknown key 'parts[0].class_path'; expected a key of parts[0]. Keys here: name, size."),
    ("rate: 2\n", "line 1: unknown key 'rate'; expected a key of the config. Did you mean 'inner.rate'?"),
    ("inner: {qqq: 2}\n", "line 1: unknown key 'inner.qqq'; expected a key of inner. Keys here: rate, mode, parts."),
    ("inner.rat: 2\n", "unknown key 'inner.rat'; expected a key of stage. Did you mean 'inner.rate'?"),
    ("seed: 1\nseed: 2\n", "line 2: 'seed' stands in line 1, too; expected each key once. Delete one."),
]


@pytest.mark.parametrize(("text", "message"), UNKNOWN)
def test_an_unknown_key_is_refused_with_its_line_and_the_nearest_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        from_yaml(tmp_path, text)


WRONG_VALUES = [
    ("seed: x\n", "seed is 'x'; expected a whole number."),
    ("seed: 1.5\n", "seed is '1.5'; expected a whole number."),
    ("seed:\n", "line 1: seed has no value; expected one."),
    ("parts:\n- name:\n", "line 2: parts[0].name has no value; expected one."),
    ("whole: perhaps\n", "whole is 'perhaps'; expected true or false."),
    ("inputs: a.fa\n", "inputs is 'a.fa'; expected a list."),
    ("shares: {dna: much}\n", "shares is 'much'; expected a number."),
    ("inner: {mode: quick}\n", "inner.mode is 'quick'; expected one of fast, slow."),
    ("parts: [{size: big}]\n", "parts.size is 'big'; expected a whole number."),
    ("inner: 3\n", "line 1: inner is '3'; expected keys and values."),
    ("inner:\n", "line 1: inner is empty; expected keys and values."),
    ("inner: [1]\n", "line 1: inner is a list; expected keys and values."),
    ("parts: {name: x}\n", "line 1: parts is a mapping; expected a list."),
    ("parts:\n- name: x\n- {}\n", "line 3: parts[1] is empty; expected keys and values."),
    ("parts:\n- 3\n", "line 2: parts[0] is '3'; expected keys and values."),
    ("data_dir: [1]\n", "data_dir is '[1]'; expected a path or nothing."),
]


@pytest.mark.parametrize(("text", "message"), WRONG_VALUES)
def test_a_value_of_the_wrong_type_says_the_key_the_value_and_the_type(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        from_yaml(tmp_path, text)


NO_CONFIG = [
    (b"- seed: 1\n", "line 1: the file is a list; expected keys and values."),
    (b"just text\n", "line 1: the file is 'just text'; expected keys and values."),
    (b"", "c.yaml is empty; expected a YAML config (key: value)."),
    (b"# seed: 1\n", "c.yaml is empty; expected a YAML config (key: value)."),
    (b"seed: [1\n", "c.yaml, line 2: expected ',' or ']', but got '<stream end>'; expected YAML (key: value)."),
    (b"seed: 1\n\tx: 2\n", "c.yaml, line 2: found character '\\t' that cannot start any token; expected YAML (key: value)."),
    ("seed: 1 # größer\n".encode("latin-1"), "c.yaml is not text; expected a YAML config in UTF-8."),
    (b"\x00\x01\x02", "c.yaml is not text; expected a YAML config in UTF-8."),
]


@pytest.mark.parametrize(("content", "message"), NO_CONFIG)
def test_a_file_that_is_no_config_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "c.yaml").write_bytes(content)
    with pytest.raises(LlamaGeneError, match=re.escape(message)):
        parse("stage", Config, ["--config", str(tmp_path / "c.yaml")])


def test_a_config_that_is_missing_or_a_folder_is_one_line(tmp_path: Path) -> None:
    for argument in (["--config", "no.yaml"], ["--config=no.yaml"]):
        with pytest.raises(MissingFileError, match=r"no\.yaml does not exist; expected a YAML config"):
            parse("stage", Config, argument)
    with pytest.raises(InputError, match="is a folder; expected a YAML config"):
        parse("stage", Config, ["--config", str(tmp_path)])


COMMAND_LINES = [
    (["--sed", "1"], "unknown key 'sed'; expected a key of stage. Did you mean 'seed'?"),
    (["--inner.rat=1"], "unknown key 'inner.rat'; expected a key of stage. Did you mean 'inner.rate'?"),
    (["--extra.rat", "1"], "unknown key 'extra.rat'; expected a key of stage. Did you mean 'extra.rate'?"),
    (["--parts", "[{nme: x}]"], "unknown key 'parts.nme'; expected a key of stage. Did you mean 'parts.name'?"),
    (["--qqq", "1"], "unknown key 'qqq'; expected a key of stage. See llama-gene stage --help."),
    (["stray"], "'stray' belongs to no key; expected --key value."),
    (["--seed"], "--seed has no value; expected --key value."),
    (["--seed", "x"], "seed is 'x'; expected a whole number."),
    (["--seed", "null"], "seed is 'None'; expected a whole number."),
    (["--inner.mode", "quick"], "inner.mode is 'quick'; expected one of fast, slow."),
]


@pytest.mark.parametrize(("arguments", "message"), COMMAND_LINES)
def test_a_faulty_command_line_is_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        parse("stage", Config, arguments)
    assert "\n" not in str(caught.value)
