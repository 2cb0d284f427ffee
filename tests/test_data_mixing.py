"""Mixing: shares that hold everywhere, an index that depends on the seed alone."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_gene.data.mixing import WINDOW, mixture_index, row_shares
from llama_gene.errors import ConfigError

ROWS = {"dna": 700, "protein": 90, "english": 40}
SHARES = {"dna": 0.5, "protein": 0.3, "english": 0.2}


def shares_of(places: list[tuple[str, int]]) -> dict[str, float]:
    counts = Counter(language for language, _ in places)
    return {language: counts[language] / len(places) for language in SHARES}


def test_shares_of_the_whole_are_exact() -> None:
    counts = Counter(language for language, _ in mixture_index(ROWS, SHARES, 1000, seed=0))
    assert counts == {"dna": 500, "protein": 300, "english": 200}


def test_shares_need_not_add_up_to_one() -> None:
    places = mixture_index(ROWS, {"dna": 5, "protein": 3, "english": 2}, 1000, seed=0)
    assert places == mixture_index(ROWS, SHARES, 1000, seed=0)


@pytest.mark.parametrize("start", range(0, 20_000, 1_711))
def test_shares_hold_within_one_percent_in_any_stretch(start: int) -> None:
    """A stretch of 2,000 places may cut a window of 64 at each end, no more."""
    stretch = mixture_index(ROWS, SHARES, 25_000, seed=3)[start : start + 2_000]
    for language, share in shares_of(stretch).items():
        assert abs(share - SHARES[language]) <= 0.01


def test_every_window_holds_every_language_in_its_share() -> None:
    places = mixture_index(ROWS, SHARES, 6_400, seed=1)
    for start in range(0, 6_400, WINDOW):
        counts = Counter(language for language, _ in places[start : start + WINDOW])
        assert all(abs(counts[language] - WINDOW * share) <= 2 for language, share in SHARES.items())


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from("abcde"), st.floats(0.01, 9), min_size=1), st.integers(1, 700), st.integers(0, 5))
def test_counts_differ_from_the_exact_share_by_less_than_one_row(shares: dict[str, float], length: int, seed: int) -> None:
    places = mixture_index(dict.fromkeys("abcde", 7), shares, length, seed)
    counts = Counter(language for language, _ in places)
    assert len(places) == length
    for language, share in shares.items():
        assert abs(counts[language] - length * share / sum(shares.values())) < 1


def test_each_pass_over_a_language_reads_every_row_once_in_a_new_order() -> None:
    rows = [number for language, number in mixture_index(ROWS, SHARES, 1000, seed=0) if language == "english"]
    passes = [rows[start : start + 40] for start in range(0, 200, 40)]
    assert all(sorted(one) == list(range(40)) for one in passes)
    assert passes[0] != passes[1] and passes[0] != list(range(40))


def test_law_15_the_index_depends_on_the_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    one = mixture_index(ROWS, SHARES, 2_000, seed=0)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "3")
    assert mixture_index(ROWS, SHARES, 2_000, seed=0) == one
    assert mixture_index(ROWS, SHARES, 2_000, seed=1) != one


def test_law_15_a_known_index() -> None:
    """Written down once (by eye: 4 dna and 2 english, each pass a permutation): a change reorders every run."""
    assert mixture_index({"dna": 3, "english": 2}, {"dna": 2, "english": 1}, 6, seed=0) == [
        ("dna", 1), ("dna", 2), ("english", 1), ("dna", 0), ("english", 0), ("dna", 1),
    ]  # fmt: skip


def test_a_language_with_share_zero_is_left_out_even_if_it_has_no_rows() -> None:
    places = mixture_index({"dna": 3, "english": 0}, {"dna": 1, "english": 0}, 10, seed=0)
    assert {language for language, _ in places} == {"dna"}


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"dna": 0.0, "english": 0.0}, "all shares are zero; expected at least one share above 0"),
        ({}, "all shares are zero"),
        ({"dna": -1.0}, "the share of 'dna' is -1.0; expected a number that is not negative"),
        ({"dna": float("nan")}, "the share of 'dna' is nan"),
        ({"dna": float("inf")}, "the share of 'dna' is inf"),
        ({"protien": 1.0}, "shares names 'protien'; expected one of the packed languages: dna, protein, english. Did you mean 'protein'"),
    ],
)
def test_shares_that_say_nothing_are_refused(shares: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        mixture_index(ROWS, shares, 10, seed=0)


def test_a_share_of_an_empty_language_is_refused() -> None:
    with pytest.raises(ConfigError, match="the row set 'dna' is empty"):
        mixture_index({"dna": 0}, {"dna": 1}, 10, seed=0)


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
@pytest.mark.parametrize("unit", ["tokens", "bytes"])
def test_the_share_of_tokens_or_bytes_is_within_one_percent_for_any_number_of_processes(unit: str, processes: int) -> None:
    """Rows of unequal fill, as best_fit leaves them; a step has 4 rows a process."""
    rng = random.Random(1)
    fills = {"dna": (400, 512), "protein": (150, 512), "english": (505, 512)}
    letters = {"dna": 5.8, "protein": 1.9, "english": 4.1}
    tokens = {language: [rng.randint(*fills[language]) for _ in range(number)] for language, number in ROWS.items()}
    sizes = {
        language: [count * letters[language] * rng.uniform(0.95, 1.05) if unit == "bytes" else count for count in rows]
        for language, rows in tokens.items()
    }
    means = {language: sum(rows) / len(rows) for language, rows in sizes.items()}
    shares = row_shares({"dna": 45, "protein": 45, "english": 10}, means)
    places = mixture_index(ROWS, shares, 700 * 4 * processes, seed=5)
    seen: Counter[str] = Counter()
    for language, number in places:
        seen[language] += sizes[language][number]
    for language, share in {"dna": 0.45, "protein": 0.45, "english": 0.1}.items():
        assert abs(seen[language] / seen.total() - share) < 0.01


def test_equal_shares_of_bytes_give_the_language_with_shorter_text_more_rows() -> None:
    """DNAHLM mixes DNA and English 1:1 by bytes; a row of 512 tokens holds 2,970 bytes of one, 2,100 of the other."""
    shares = row_shares({"dna": 1, "english": 1}, {"dna": 2970.0, "english": 2100.0})
    counts = Counter(language for language, _ in mixture_index({"dna": 9, "english": 9}, shares, 5070, seed=0))
    assert counts == {"dna": 2100, "english": 2970}


def test_shares_in_rows_of_equal_size_are_the_shares() -> None:
    assert row_shares({"dna": 3, "english": 1}, {"dna": 512.0, "english": 512.0}) == {"dna": 0.75, "english": 0.25}


def test_wrong_shares_are_left_for_the_index_to_name() -> None:
    for wrong in ({"dna": -1.0}, {"protien": 1.0}, {"dna": 0.0}, {"dna": float("inf")}, {"dna": float("nan")}, {}):
        with pytest.raises(ConfigError):
            mixture_index(ROWS, row_shares(wrong, {"dna": 512.0, "protein": 512.0}), 10, seed=0)
