"""Wrong programs and their exact diagnostics: `wrong/NAME.interv` beside `wrong/NAME.txt`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from interv.errors import IntervError, each
from interv.load import load_text, refuse_unsupported

WRONG = sorted((Path(__file__).parent / "wrong").glob("*.interv"))


def diagnostics(path: Path) -> IntervError:
    with pytest.raises(IntervError) as caught:
        refuse_unsupported(load_text(path.read_text(), path.name))
    return caught.value


@pytest.mark.parametrize("path", WRONG, ids=lambda path: path.stem)
def test_diagnostics(path: Path, golden: Callable[[Path, str], None]) -> None:
    golden(path.with_suffix(".txt"), f"{diagnostics(path)}\n")


@pytest.mark.parametrize("path", WRONG, ids=lambda path: path.stem)
def test_errors_are_in_source_order_and_carry_spans(path: Path) -> None:
    errors = each(diagnostics(path))
    starts = [error.span.start for error in errors if error.span is not None]
    assert len(starts) == len(errors)
    assert starts == sorted(starts)
