"""What a user names may be a pipe, a device, endless or hostile: one error, and soon."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from interv.errors import IntervError
from interv.extract.pairs import read_pairs
from interv.files import open_regular, read_regular
from interv.importers import Options, import_file
from interv.load import load_document
from interv.vectors import is_adapter, read_adapter, read_vectors

PIPE = "it is a pipe, not a regular file"
DEVICE = "it is a device, not a regular file"
READERS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "interv": ("a.interv", load_document, "E200"),
    "json": ("a.json", load_document, "E200"),
    "yaml": ("a.yaml", load_document, "E200"),
    "pairs": ("a.jsonl", read_pairs, "E280"),
    "import": (
        "b.json",
        lambda path: import_file(path, path.with_suffix(".interv"), Options(path.parent)),
        "E200",
    ),
    "safetensors adapter": ("a.safetensors", read_adapter, "E220"),
    "pt adapter": ("a.pt", read_adapter, "E220"),
    "pkl adapter": ("a.pkl", read_adapter, "E220"),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_regular_file_is_not_opened(kind: str, name: str, tmp_path: Path) -> None:
    file, read, code = READERS[name]
    path = tmp_path / file
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(IntervError) as caught:
        read(path)
    shown = file if "adapter" not in name else str(path)
    said = PIPE if kind == "pipe" else DEVICE
    assert caught.value.code == code
    assert caught.value.message.endswith(f"{shown}' cannot be read: {said}")


@pytest.mark.parametrize("suffix", ["gguf", "pickle", "pkl", "pt", "safetensors"])
def test_no_vector_file_is_a_pipe(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    os.mkfifo(path)
    with pytest.raises(IntervError) as caught:
        read_vectors(path)
    assert (caught.value.code, caught.value.message) == ("E220", f"'{path}' is not a file")
    assert not is_adapter(path)


def test_a_memory_of_a_process_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.symlink_to("/proc/self/mem")
    with pytest.raises(IntervError) as caught:
        load_document(path)
    assert str(caught.value) == f"error[E200]: '{path}' cannot be read: input/output error"
    for suffix in ("safetensors", "pkl", "pt", "gguf"):
        link = tmp_path / f"b.{suffix}"
        link.symlink_to("/proc/self/mem")
        with pytest.raises(IntervError) as caught:
            read_vectors(link)
        assert caught.value.code in ("E220", "E222")


def test_a_file_that_says_it_is_empty_is_read_to_its_limit(tmp_path: Path) -> None:
    path = Path("/proc/self/status")
    assert path.stat().st_size == 0
    with pytest.raises(OSError, match="it is larger than 0 MiB"):
        read_regular(path, 10)
    with open_regular(path) as file:
        assert file.read(5) == b"Name:"


def test_holes_of_a_pickle_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    with path.open("wb") as file:
        file.truncate(3 << 30)
    # More than the limit on its memory, were it read whole.
    script = (
        "import sys; from pathlib import Path\n"
        "from interv.errors import IntervError; from interv.vectors import read_vectors\n"
        "try: read_vectors(Path(sys.argv[1]))\n"
        "except IntervError as error: print(error.code)\n"
        "said = Path('/proc/self/status').read_text().split()\n"
        "print(int(said[said.index('VmHWM:') + 1]) < 600 << 10)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=60
    )
    assert ran.stdout.split() == ["E222", "True"]


def test_a_larger_file_than_any_is_not_opened(tmp_path: Path) -> None:
    for name, most in (("a.pkl", 4096), ("a.pt", 4096)):
        path = tmp_path / name
        with path.open("wb") as file:
            file.truncate(5 << 30)
        with pytest.raises(IntervError) as caught:
            read_vectors(path)
        said = f"'{path}' cannot be read: it is larger than {most} MiB"
        assert (caught.value.code, caught.value.message) == ("E220", said)


def safetensors(path: Path, shape: list[int]) -> Path:
    header = f'{{"v":{{"dtype":"F32","shape":{shape},"data_offsets":[0,0]}}}}'.encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return path


@pytest.mark.parametrize("shape", [[2**62, 0], [0, 2**62], [0, 2**48]])
def test_a_shape_that_no_array_has(shape: list[int], tmp_path: Path) -> None:
    path = safetensors(tmp_path / "a.safetensors", shape)
    with pytest.raises(IntervError) as caught:
        read_vectors(path)
    assert caught.value.code == "E222"
    with pytest.raises(IntervError):
        read_adapter(path)


LONG = "9" * 5000
ALIASES = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)
)
MERGES = "a0: &a0 {x: 1, y: 2}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{','.join([f'*a{i - 1}'] * 9)}], z: 1}}\n" for i in range(1, 9)
)
DATA: dict[str, tuple[str, str, str]] = {
    "long number": ("json", f'{{"interv": {LONG}}}', "E110 holds a number of 5000 characters"),
    "long real": ("json", f'{{"interv": {LONG}.5}}', "E110 holds a number of 5002 characters"),
    "key twice": ("json", '{"interv": 1, "interv": 1}', "E111 gives 'interv' twice in an object"),
    "key twice inside": (
        "json",
        '{"interv": 1, "programs": [{"name": "p", "kv": true, "kv": false}]}',
        "E111 gives 'kv' twice in an object",
    ),
    "yaml number": ("yaml", f"interv: {LONG}", "E110 holds a number of 5000 characters"),
    "yaml sixties": (
        "yaml",
        "interv: 1" + ":59" * 400_000,
        "E110 holds a number of 1200001 characters",
    ),
    "yaml key twice": ("yaml", "interv: 1\ninterv: 1\n", "E111 gives 'interv' twice in an object"),
    "aliases": ("yaml", ALIASES, "E112 references"),
    "merges": ("yaml", MERGES, "E112 references"),
    "a list in itself": ("yaml", "a: &a [*a]", "E112 references"),
    "deep yaml": ("yaml", "[" * 900 + "]" * 900, "E110 nests too deep"),
    "deep json": ("json", "[" * 100_000, "E110 nests too deep"),
}


@pytest.mark.parametrize("name", DATA)
def test_hostile_data_is_one_error(name: str, tmp_path: Path) -> None:
    suffix, text, expected = DATA[name]
    path = tmp_path / f"a.{suffix}"
    path.write_text(text, encoding="utf-8")
    code, said = expected.split(" ", 1)
    wanted = f"the references in '{path}' repeat too much" if code == "E112" else f"'{path}' {said}"
    with pytest.raises(IntervError) as caught:
        load_document(path)
    assert (caught.value.code, caught.value.message) == (code, wanted)
    assert len(str(caught.value)) < 3000


def test_references_that_repeat_little_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    steer = "{op: steer, vector: v, at: *at, when: {kind: all}}"
    path.write_text(
        "interv: 1\nvectors: [{name: v, path: v.gguf}]\n"
        "programs:\n- name: p\n  statements:\n"
        "  - {op: steer, vector: v, at: &at {name: post_block, layers: [1]}}\n"
        f"  - {steer}\n"
    )
    first, second = load_document(path).spec.programs[0].statements
    assert first == second


@pytest.mark.parametrize("version", ["true", "1.0", '"1"'])
def test_a_version_is_a_whole_number(version: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(f'{{"interv": {version}}}')
    with pytest.raises(IntervError) as caught:
        load_document(path)
    shown = {"true": "True", "1.0": "1.0", '"1"': "1"}[version]
    assert caught.value.code == "E104"
    assert caught.value.message == f"version {shown} is not supported"


@pytest.mark.parametrize(
    ("field", "value"),
    [("scale", "true"), ("scale", '"1"'), ("keep_norm", "1"), ("keep_norm", '"yes"')],
)
def test_numbers_are_numbers_and_flags_are_flags(field: str, value: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    at = '{"name": "post_block", "layers": [1]}'
    steer = f'{{"op": "steer", "vector": "v", "at": {at}, "{field}": {value}}}'
    path.write_text(
        '{"interv": 1, "vectors": [{"name": "v", "path": "v.gguf"}],'
        f' "programs": [{{"name": "p", "statements": [{steer}]}}]}}'
    )
    with pytest.raises(IntervError) as caught:
        load_document(path)
    kind = "number" if field == "scale" else "boolean"
    assert caught.value.code == "E211"
    assert caught.value.message == f"{field}: input should be a valid {kind}"
