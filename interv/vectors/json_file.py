"""Read directions from JSON: lists of numbers by layer or by name, as `.json` and `.svec`.

`.svec` is what IBM's activation-steering saves: `{"model_type", "directions": {"N": [H]}, …}`.
"""

from __future__ import annotations

from pathlib import Path

from interv.data import parse_json
from interv.errors import IntervError
from interv.files import MIB, check_regular, read_regular
from interv.vectors.interpret import contents
from interv.vectors.raw import BadFile, Contents

MOST_BYTES = 256 * MIB


def read(path: Path) -> Contents:
    """Return the lists of numbers of a JSON file, by their names.

    Raises BadFile for what is not JSON, and for what holds no directions.
    """
    data = read_regular(path, check_regular(path, MOST_BYTES))
    try:
        loaded = parse_json(data.decode("utf-8-sig"), path.name)
    except UnicodeDecodeError as error:
        raise BadFile(f"byte {error.start} is not UTF-8") from error
    except IntervError as error:
        place = f", line {error.span.line}" if error.span else ""
        raise BadFile(f"{error.message}{place}") from error
    # A number takes 8 bytes here, and may be one digit and a comma there.
    return contents(loaded, path.suffix.removeprefix("."), len(data) + 8)
