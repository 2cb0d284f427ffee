"""Does a stretch of DNA code for a protein? The rule that needs no training: translate every reading frame and compare.

The protein is laid along each translation at every place, also hanging over an end, without gaps; what counts is the share of *its*
residues that agree. A pair that conforms gets 1.0; among 792 pairs of 180 bp and 50 residues of E. coli, other genes got 0.12 to 0.24, and
frameshifts in the middle third 0.52 to 0.74. The rule looks at both strands unless told otherwise, so it cannot tell a gene from
its reverse complement.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from llama_gene.errors import InputError
from llama_gene.sequences.alphabet import reverse_complement, translate

_NO_RESIDUES = "X*-"  # never equal to anything, not even to themselves


def six_frame_match(dna: str, protein: str, genetic_code: int = 11, both_strands: bool = True) -> float:
    """Return the share of the protein's residues that the best of the six reading frames matches, from 0 to 1.

    `genetic_code` is an NCBI number (11: bacteria). With `both_strands=False` only the three frames of the strand as given are read.
    Raises InputError for an empty protein, and ConfigError for a genetic code that does not exist.

    >>> six_frame_match("ATGGCTAAATGG", "MAKW"), six_frame_match("CCATTTAGCCAT", "MAKW"), six_frame_match("ATGGCTAAATGG", "MAKV")
    (1.0, 1.0, 0.75)
    """
    if not protein:
        raise InputError("an empty protein", "at least one residue")
    strands = (dna, reverse_complement(dna)) if both_strands else (dna,)
    frames = [translate(strand[shift:], genetic_code) for strand in strands for shift in range(3)]
    return max(_best_overlay(frame, protein.upper()) for frame in frames) / len(protein)


def _best_overlay(translation: str, protein: str) -> int:
    """Return the largest number of equal residues over all ungapped placements of the protein along a translation."""
    if not translation:
        return 0
    edge = "-" * (len(protein) - 1)
    residues = np.frombuffer(protein.encode("ascii"), dtype=np.uint8)
    comparable = ~np.isin(residues, np.frombuffer(_NO_RESIDUES.encode("ascii"), dtype=np.uint8))
    padded = np.frombuffer(f"{edge}{translation}{edge}".encode("ascii"), dtype=np.uint8)
    equal = (sliding_window_view(padded, len(protein)) == residues) & comparable
    return int(equal.sum(axis=1).max())
