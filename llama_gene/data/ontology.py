"""Gene Ontology: read a go.obo, propagate annotations to ancestors, weigh terms by how rare they are.

A protein annotated with a term has, by the true-path rule, every term above it along `is_a` and `part_of`. The three ontologies (biological
process P, molecular function F, cellular component C) are kept apart: paths from one to another are not followed, and each is scored
alone. The information of a term is what the label adds once its parents are known, counted in the training annotations:
    information(t) = -log2 P(t | parents of t) = -log2 (proteins with t / proteins with all parents of t)
(Clark and Radivojac 2013; the CAFA challenges). `llama_gene.inference.go_metrics` makes F-max and S-min of it.

The project ships no go.obo: give the one of the time of your annotations (https://geneontology.org/docs/download-ontology).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from llama_gene.errors import InputError, MissingFileError
from llama_gene.sequences.files import open_text

ASPECTS = {"biological_process": "P", "molecular_function": "F", "cellular_component": "C"}
"""Namespace of the obo file -> the letter that annotation files use."""
RELATIONS = ("part_of",)
"""Relations beside is_a that annotations are propagated along."""

_NEEDED = "Give a go.obo (https://geneontology.org/docs/download-ontology); without one, score the slim terms by F1"


@dataclass(frozen=True)
class Term:
    """A term; `parents` are its direct ones by is_a and part_of within its own ontology."""

    id: str
    name: str
    aspect: str
    parents: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ontology:
    """The terms that are not obsolete, by id, and alternative ids -> the id that took their place."""

    terms: Mapping[str, Term]
    alternatives: Mapping[str, str] = field(default_factory=dict)

    def resolve(self, term: str) -> str | None:
        """Return the current id of a term, None for an unknown or an obsolete one."""
        known = self.alternatives.get(term, term)
        return known if known in self.terms else None

    def ancestors(self, term: str) -> frozenset[str]:
        """Return a term and all above it, up to the root of its ontology.

        Raises InputError for an unknown term.
        """
        found: set[str] = set()
        waiting = [self._known(term)]
        while waiting:
            current = waiting.pop()
            if current not in found:
                found.add(current)
                waiting.extend(self.terms[current].parents)
        return frozenset(found)

    def propagate(self, terms: Iterable[str], unknown: Counter[str] | None = None) -> dict[str, frozenset[str]]:
        """Return the terms with all their ancestors, without the roots, for each aspect P, F and C apart.

        A root says nothing: every annotated protein has it. Unknown and obsolete terms are counted in `unknown`.
        """
        above: dict[str, set[str]] = {aspect: set() for aspect in ASPECTS.values()}
        for term in terms:
            known = self.resolve(term)
            if known is None:
                if unknown is not None:
                    unknown[term] += 1
                continue
            above[self.terms[known].aspect] |= {own for own in self.ancestors(known) if self.terms[own].parents}
        return {aspect: frozenset(found) for aspect, found in above.items()}

    def _known(self, term: str) -> str:
        known = self.resolve(term)
        if known is None:
            raise InputError(f"'{term}' is not a term of the ontology, or an obsolete one", "a current GO id such as GO:0005829")
        return known


def read_obo(path: Path | None) -> Ontology:
    """Return the ontology of an obo file, plain or compressed.

    Raises MissingFileError, and InputError where none is named, for a file that is none, a term without a name or with an unknown
    namespace (with the line), a parent that is no term, and for a circle.
    """
    if path is None:
        raise InputError("F-max and S-min need the ontology, and none is named", "a go.obo file", _NEEDED)
    if not path.is_file():
        raise MissingFileError(path, "a go.obo file", _NEEDED)
    terms: dict[str, Term] = {}
    alternatives: dict[str, str] = {}
    links: dict[str, list[str]] = {}
    for number, stanza in _stanzas(path):
        identifier = next(iter(stanza.get("id", ())), "")
        if not identifier or stanza.get("is_obsolete", ["false"])[0] == "true":
            continue
        names, spaces = stanza.get("name", []), stanza.get("namespace", [])
        if not names or not spaces or spaces[0] not in ASPECTS:
            raise InputError(
                f"{path}, line {number}: term {identifier} has {'no name' if not names else f'namespace {spaces or None}'}",
                f"a name, and one of {', '.join(ASPECTS)}",
                "Is this file the Gene Ontology?",
            )
        links[identifier] = stanza.get("is_a", []) + [
            target for text in stanza.get("relationship", []) for kind, _, target in [text.partition(" ")] if kind in RELATIONS
        ]
        terms[identifier] = Term(identifier, names[0], ASPECTS[spaces[0]])
        alternatives.update(dict.fromkeys(stanza.get("alt_id", []), identifier))
    if not terms:
        raise InputError(f"{path} holds no [Term]", "an obo file of the Gene Ontology", _NEEDED)
    for identifier, targets in links.items():
        if stranger := next((target for target in targets if target not in terms), None):
            raise InputError(f"{path}: {identifier} is below {stranger}, which is no term of the file", "the whole go.obo")
        own = [target for target in targets if terms[target].aspect == terms[identifier].aspect]
        terms[identifier] = Term(identifier, terms[identifier].name, terms[identifier].aspect, tuple(dict.fromkeys(own)))
    ontology = Ontology(terms, alternatives)
    _check_no_circle(ontology, path)
    return ontology


def _stanzas(path: Path) -> Iterator[tuple[int, dict[str, list[str]]]]:
    """Yield (line, tag -> values) of each [Term]; comments and the targets' names behind '!' are cut off."""
    stanza: dict[str, list[str]] | None = None
    place = 0
    with open_text(path) as handle:
        for number, raw in enumerate(handle, start=1):
            line = raw.strip()
            if line.startswith("["):
                if stanza is not None:
                    yield place, stanza
                stanza, place = ({}, number) if line == "[Term]" else (None, number)
            elif stanza is not None and ": " in line:
                tag, _, value = line.partition(": ")
                stanza.setdefault(tag, []).append(re.split(r"\s+[!{]", value, maxsplit=1)[0] if tag in _REFERENCES else value)
    if stanza is not None:
        yield place, stanza


_REFERENCES = ("is_a", "relationship", "alt_id")


def _check_no_circle(ontology: Ontology, path: Path) -> None:
    """Raise InputError where a term is above itself: repeatedly take away terms whose parents are all gone."""
    waiting = {term.id: len(term.parents) for term in ontology.terms.values()}
    children: dict[str, list[str]] = {}
    for term in ontology.terms.values():
        for parent in term.parents:
            children.setdefault(parent, []).append(term.id)
    free = [identifier for identifier, count in waiting.items() if count == 0]
    num_done = 0
    while free:
        num_done += 1
        for child in children.get(free.pop(), []):
            waiting[child] -= 1
            if waiting[child] == 0:
                free.append(child)
    if num_done < len(waiting):
        circle = min(identifier for identifier, count in waiting.items() if count > 0)
        raise InputError(f"{path}: {circle} is above itself, or below a circle", "an ontology without circles")


def information_content(ontology: Ontology, annotations: Sequence[Iterable[str]]) -> dict[str, float]:
    """Return the bits of each term seen in train: -log2 of the share of proteins with the term among those with all its parents.

    `annotations` are the terms of each training protein, of one aspect, propagated (`Ontology.propagate`); roots count as had by every
    protein that has any term. A term that no training protein has is not in the answer: its information is unknown.
    """
    have = [frozenset(terms) for terms in annotations]
    having: dict[str, set[int]] = {}
    for number, terms in enumerate(have):
        for term in terms:
            having.setdefault(term, set()).add(number)
    any_term = {number for number, terms in enumerate(have) if terms}
    bits = {}
    for term, own in having.items():
        with_parents = set(any_term)
        for parent in ontology.terms[term].parents:
            if ontology.terms[parent].parents:  # a root is had by all
                with_parents &= having.get(parent, set())
        if not own <= with_parents:
            raise InputError(f"a protein has {term} and lacks a parent of it", "propagated annotations", "Use Ontology.propagate")
        bits[term] = math.log2(len(with_parents) / len(own))
    return bits
