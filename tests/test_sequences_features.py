"""Features: exon states."""

from __future__ import annotations

from llama_gene.sequences.features import AnnotatedRecord, Feature, exon_states


def test_exon_states_name_each_base() -> None:
    features = (
        Feature("gene", ((0, 12),), 1, {}),
        Feature("mRNA", ((1, 3), (6, 8)), 1, {}),
        Feature("CDS", ((15, 16), (10, 12)), -1, {}),
        Feature("CDS", ((16, 18), (19, 20)), 1, {}),  # a slip of the ribosome, no intron
        Feature("CDS", ((0, 1), (21, 22)), 1, {"pseudo": ("",)}),
    )
    states = exon_states(AnnotatedRecord("r", "", "", "A" * 22, False, 1, features))
    assert states == "OEEIIIEEOOEEIIIEEEOEOO"
