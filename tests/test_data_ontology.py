"""Gene Ontology: an obo file, propagation, the information of terms; every expected value is worked out by hand."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest

from llama_gene.data.ontology import Ontology, information_content, read_obo
from llama_gene.errors import InputError, MissingFileError


def stanza(identifier: str, name: str, space: str, *lines: str) -> str:
    return "\n".join([f"[Term]\nid: {identifier}\nname: {name}\nnamespace: {space}", *lines, ""])


P, F = "biological_process", "molecular_function"
OBO = "format-version: 1.2\nontology: go\n\n" + "\n".join(
    [
        stanza("GO:0", "biological_process", P),
        stanza("GO:A", "growth", P, "is_a: GO:0 ! biological_process"),
        stanza("GO:B", "signaling", P, 'is_a: GO:0 {source="x"} ! biological_process'),
        stanza(
            "GO:C",
            "growth by signal",
            P,
            "alt_id: GO:C2",
            "is_a: GO:A ! growth",
            "relationship: part_of GO:B ! signaling",
            "relationship: regulates GO:E ! what is regulated is not what it is",
        ),
        stanza("GO:D", "fast growth by signal", P, "is_a: GO:C"),
        stanza("GO:E", "death", P, "is_a: GO:0"),
        stanza("GO:OLD", "obsolete growth", P, "is_obsolete: true"),
        stanza("GO:1", "molecular_function", F),
        stanza("GO:X", "kinase activity", F, "is_a: GO:1", "relationship: part_of GO:A ! another ontology"),
        "[Typedef]\nid: part_of\nname: part of\nis_transitive: true\n",
    ]
)


@pytest.fixture
def ontology(tmp_path: Path) -> Ontology:
    (tmp_path / "go.obo").write_text(OBO)
    return read_obo(tmp_path / "go.obo")


def test_an_obo_file_is_read_without_obsolete_terms_and_other_stanzas(ontology: Ontology) -> None:
    assert set(ontology.terms) == {"GO:0", "GO:A", "GO:B", "GO:C", "GO:D", "GO:E", "GO:1", "GO:X"}
    assert ontology.terms["GO:C"].parents == ("GO:A", "GO:B") and ontology.terms["GO:C"].name == "growth by signal"
    assert ontology.terms["GO:X"].aspect == "F" and ontology.terms["GO:X"].parents == ("GO:1",)
    assert (ontology.resolve("GO:C2"), ontology.resolve("GO:OLD"), ontology.resolve("GO:9")) == ("GO:C", None, None)


def test_ancestors_go_by_is_a_and_part_of_only_and_stay_in_their_ontology(ontology: Ontology) -> None:
    assert ontology.ancestors("GO:D") == {"GO:D", "GO:C", "GO:A", "GO:B", "GO:0"}
    assert ontology.ancestors("GO:X") == {"GO:X", "GO:1"}
    with pytest.raises(InputError, match="'GO:OLD' is not a term"):
        ontology.ancestors("GO:OLD")


def test_annotations_are_propagated_by_ontology_without_roots_and_unknown_terms_are_counted(ontology: Ontology) -> None:
    unknown: Counter[str] = Counter()
    assert ontology.propagate(["GO:C2", "GO:X", "GO:OLD", "GO:0"], unknown) == {
        "P": {"GO:A", "GO:B", "GO:C"},
        "F": {"GO:X"},
        "C": frozenset(),
    }
    assert unknown == {"GO:OLD": 1}


def test_the_information_of_a_term_is_what_it_adds_to_its_parents(ontology: Ontology) -> None:
    proteins = [ontology.propagate(own)["P"] for own in (["GO:D"], ["GO:A"], ["GO:A", "GO:B"], ["GO:B"], [])]
    assert information_content(ontology, proteins) == {
        "GO:A": pytest.approx(math.log2(4 / 3)),  # three of the four proteins with any term
        "GO:B": pytest.approx(math.log2(4 / 3)),
        "GO:C": 1.0,  # one of two with A and B
        "GO:D": 0.0,  # whoever has C has D
    }


def test_annotations_that_are_not_propagated_are_refused(ontology: Ontology) -> None:
    with pytest.raises(InputError, match="has GO:D and lacks a parent"):
        information_content(ontology, [{"GO:D"}, {"GO:A"}])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing here\n", r"holds no \[Term\]"),
        ("[Term]\nid: X:1\nname: x\nnamespace: zoo\n", r"go.obo, line 1: term X:1 has namespace \['zoo'\]"),
        ("\n[Term]\nid: X:1\nnamespace: molecular_function\n", "go.obo, line 2: term X:1 has no name"),
        (stanza("GO:1", "a", F, "is_a: GO:9"), "GO:1 is below GO:9, which is no term"),
        (stanza("GO:1", "a", F, "is_a: GO:2") + stanza("GO:2", "b", F, "is_a: GO:1"), "GO:1 is above itself"),
    ],
)
def test_a_file_that_is_no_gene_ontology_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "go.obo").write_text(text)
    with pytest.raises(InputError, match=message):
        read_obo(tmp_path / "go.obo")


def test_without_a_go_obo_the_error_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"F-max and S-min need the ontology.*Give a go.obo.*slim terms by F1"):
        read_obo(None)
    with pytest.raises(MissingFileError, match="Give a go.obo"):
        read_obo(tmp_path / "go.obo")
