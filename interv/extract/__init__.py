"""Contrastive pairs of texts, and the activations of a model on them, to one direction a layer."""

from interv.extract.extraction import Extraction, LayerResult, extract_directions
from interv.extract.methods import METHODS, direction_of
from interv.extract.pairs import Pair, pairs_digest, read_pairs, read_sides
from interv.extract.split import Split, split_pairs

__all__ = [
    "METHODS",
    "Extraction",
    "LayerResult",
    "Pair",
    "Split",
    "direction_of",
    "extract_directions",
    "pairs_digest",
    "read_pairs",
    "read_sides",
    "split_pairs",
]
