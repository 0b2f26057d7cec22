"""Vector files and adapters: directions and learned updates of the residual stream.

Directions are one for each layer or one for all, read as safetensors, GGUF control vectors, `.pt`
and pickles, written as the first three. Adapters are read as pyreft folders, LM-Steer checkpoints,
linear transports and plain tensors. Nothing in a file is ever run.
"""

from interv.vectors.adapters import is_adapter, load_adapter, read_adapter
from interv.vectors.directions import Directions
from interv.vectors.load import load_vector, read_vectors
from interv.vectors.save import save_vectors
from interv.vectors.updates import Adapter, Linear, LowRank

__all__ = [
    "Adapter",
    "Directions",
    "Linear",
    "LowRank",
    "is_adapter",
    "load_adapter",
    "load_vector",
    "read_adapter",
    "read_vectors",
    "save_vectors",
]
