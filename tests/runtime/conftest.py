"""Fixtures of the runtime's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from interv.vectors import save_vectors
from tests.passes.small import vectors


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the vectors of the small model, one file a vector."""
    place = tmp_path_factory.mktemp("vectors")
    for name, vector in vectors().items():
        save_vectors(place / f"{name}.safetensors", vector.directions)
    return place
