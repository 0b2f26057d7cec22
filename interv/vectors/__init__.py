"""Vector files: directions of the residual stream, one for each layer or one for all.

Read as safetensors, GGUF control vectors and `.pt`, written as the first two.
"""

from interv.vectors.directions import Directions
from interv.vectors.load import load_vector, read_vectors
from interv.vectors.save import save_vectors

__all__ = ["Directions", "load_vector", "read_vectors", "save_vectors"]
