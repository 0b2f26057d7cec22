"""Pickles are read as data: the arrays that numpy and torch rebuild, and nothing that is called."""

from __future__ import annotations

import os
import pickle
import struct
import sys
import tempfile
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings, strategies as st
from hypothesis.extra import numpy as hnp

from interv.document.spec import AdapterDecl
from interv.errors import IntervError
from interv.vectors import Linear, is_adapter, load_adapter, read_adapter, read_vectors
from interv.vectors.pickle_values import Array, Record
from interv.vectors.pickles import loads
from interv.vectors.raw import BadFile
from tests.vectors.made import lines, refused

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
DTYPES = ("<f2", "<f4", "<f8", ">f4", ">f8", "i1", "<i2", ">i4", "<i8", "u1", "<u2", "?")


class Transport:
    """A fitted map with more attributes than the map, as transport libraries keep them."""


@pytest.mark.parametrize("protocol", PROTOCOLS)
@settings(deadline=None, max_examples=30)
@given(dtype=st.sampled_from(DTYPES), data=st.data())
def test_arrays_of_numpy(protocol: int, dtype: str, data: st.DataObject) -> None:
    shape = data.draw(hnp.array_shapes(max_dims=3, max_side=4))
    values = data.draw(hnp.arrays(np.int8, shape, elements=st.integers(0, 100))).astype(dtype)
    turned = np.moveaxis(values[None], 0, -1)
    for one in (values, values.T, turned, turned[..., ::-1], values.ravel()[0], values[:0]):
        got = loads(pickle.dumps({"x": one}, protocol))
        assert isinstance(got, dict)
        found = got["x"].values
        assert found.shape == one.shape
        assert found.dtype == one.dtype
        assert np.array_equal(found, one)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8]
)
def test_tensors_of_torch(protocol: int, dtype: torch.dtype) -> None:
    whole = torch.arange(1, 25).reshape(4, 6).to(dtype)
    tensors = OrderedDict(a=whole, b=whole.T, c=whole[1:3, ::2], d=whole[2, 3])
    if dtype.is_floating_point:
        tensors["e"] = torch.nn.Parameter(whole)
    with warnings.catch_warnings(action="ignore"):
        got = loads(pickle.dumps(tensors, protocol))
    assert isinstance(got, dict)
    for name, tensor in tensors.items():
        assert np.array_equal(got[name].values, tensor.detach().float().numpy())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_object_is_its_attributes(protocol: int) -> None:
    made = Transport()
    made.A_, made.fit, made.base = np.eye(3), os.system, Path  # type: ignore[attr-defined]
    got = loads(pickle.dumps(made, protocol))
    assert isinstance(got, Record)
    assert str(got.of) == "tests.vectors.test_pickles.Transport"
    assert np.array_equal(got.state["A_"].values, np.eye(3))
    assert str(got.state["fit"]) == "posix.system"


def named(what: str, protocol: int = 2) -> bytes:
    """Return a pickle that asks to call something with one word."""
    module, name = what.rsplit(".", 1)
    if protocol < 4:
        return f"c{module}\n{name}\n(Vtouch pickle-was-run\ntR.".encode()
    words = b"".join(b"\x8c" + bytes([len(word)]) + word.encode() for word in (module, name))
    return b"\x80\x04" + words + b"\x93(\x8c\x05touchtR."


HOSTILE = ("os.system", "builtins.eval", "builtins.exec", "subprocess.Popen", "numpy.load")


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("protocol", [0, 4])
def test_the_error_names_what_was_asked_for(tmp_path: Path, what: str, protocol: int) -> None:
    (tmp_path / "a.pkl").write_bytes(named(what, protocol))
    reason = f"its pickle asks to call '{what}'; nothing in a pickle is ever called"
    assert refused(tmp_path, "a.pkl") == lines("E222 'a.pkl' is not a valid pkl file", reason)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "its pickle is damaged"),
        (b"}", "its pickle is damaged"),
        (b"0.", "its pickle is damaged"),
        (b"(l0", "its pickle is damaged"),
        (b"h\x07.", "its pickle is damaged"),
        (
            b"(ios\nsystem\n.",
            "its pickle holds the opcode INST, which arrays do not need",
        ),
        (b"\x82\x01.", "its pickle holds the opcode EXT1, which arrays do not need"),
        (b"Pkey\n.", "its pickle holds the opcode PERSID, which arrays do not need"),
        (b"K\x01Q.", "its pickle refers to something outside it"),
        (b"}K\x01b.", "its pickle sets the state of a dict"),
        (b"})K\x01s.", "its pickle holds a tuple as a key"),
        (
            b"cos\nsystem\n(Vls\nt\x81.",
            "its pickle asks to call 'os.system'; nothing in a pickle is ever called",
        ),
        (
            b"cos\n\x1b[31mred\n)R.",
            "its pickle asks to call 'os.\\x1b[31mred'; nothing in a pickle is ever called",
        ),
        (
            b"ccopyreg\n_reconstructor\n(cos\nsystem\nVls\nNtR.",
            "its pickle asks to make a 'os.system'; nothing in a pickle is ever called",
        ),
        (
            b"cnumpy\ndtype\n(VO8\nI00\nI01\ntR.",
            "its pickle holds an array of something else than real numbers",
        ),
    ],
)
def test_damaged_and_hostile_pickles(data: bytes, reason: str) -> None:
    with pytest.raises(BadFile) as caught:
        loads(data)
    assert str(caught.value) == reason


def test_more_than_the_file_holds() -> None:
    """A text that is kept once and encoded again and again is no way to fill the memory."""
    text = b"X" + struct.pack("<I", 10_000) + b"a" * 10_000
    again = b"c_codecs\nencode\n(h\x00Vlatin1\ntR"
    with pytest.raises(BadFile) as caught:
        loads(text + b"q\x00" + again * 100 + b".")
    assert str(caught.value) == "its arrays are more than 4 times larger than the file"
    head = b"cnumpy._core.numeric\n_frombuffer\n(C\x08" + bytes(8) + b"cnumpy\ndtype\n(Vf4\ntR"
    with pytest.raises(BadFile) as caught:
        loads(head + b"(J\xff\xff\xff\x7ftVC\ntR.")
    assert str(caught.value) == "an array of shape [2147483647] does not fit its 8 bytes"


def test_containers_that_hold_themselves_over_and_over_end_at_once() -> None:
    """Fifty tuples of two of the one before: 2**50 if anybody walked through them."""
    nested = b")" + b"2\x86" * 50
    with pytest.raises(BadFile) as caught:
        loads(b"}" + nested + b"K\x01s.")
    assert str(caught.value) == "its pickle holds a tuple as a key"
    with pytest.raises(BadFile) as caught:
        loads(b"cnumpy._core.multiarray\n_reconstruct\n" + nested + b"\x85R.")
    assert "holds an array of class tuple, not 'numpy.ndarray'" in str(caught.value)


WATCHED = ("import", "exec", "compile", "open", "os.", "subprocess.", "pickle.", "socket.")


@contextmanager
def watched() -> Iterator[list[str]]:
    """Collect what the interpreter reports of imports, calls of code and of the system."""
    seen: list[str] = []
    on = True

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if on and event.startswith(WATCHED):
            seen.append(f"{event} {arguments}")

    sys.addaudithook(note)
    try:
        yield seen
    finally:
        on = False


WORDS = ("os", "system", "builtins", "eval", "posix", "numpy", "ndarray", "dtype", "f4", "<", "ls")
PAIRS = (
    *(tuple(what.rsplit(".", 1)) for what in HOSTILE),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.numeric", "_frombuffer"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch.storage", "_load_from_bytes"),
    ("collections", "OrderedDict"),
    ("copyreg", "_reconstructor"),
    ("_codecs", "encode"),
)
BARE = [
    bytes([code]) for code in b"()]}0123tluaesdobRQN\x81\x85\x86\x87\x88\x89\x93\x94\x90\x91\x92"
]
OPCODES = st.one_of(
    st.sampled_from(BARE),
    st.sampled_from(PAIRS).map(lambda pair: f"c{pair[0]}\n{pair[1]}\n".encode()),
    st.sampled_from(PAIRS).map(lambda pair: f"(i{pair[0]}\n{pair[1]}\n".encode()),
    st.sampled_from(WORDS).map(lambda word: f"V{word}\n".encode()),
    st.integers(0, 255).map(lambda value: b"K" + bytes([value])),
    st.integers(0, 3).map(lambda value: b"q" + bytes([value])),
    st.integers(0, 3).map(lambda value: b"h" + bytes([value])),
    st.binary(max_size=12).map(lambda value: b"C" + bytes([len(value)]) + value),
    st.binary(max_size=4),
)


def test_random_opcodes_never_run_anything() -> None:
    loads(pickle.dumps(np.eye(2), 0))  # what is imported at the first use is not the pickle's

    with watched() as seen:

        @settings(deadline=None, max_examples=800, database=None)
        @given(soup=st.lists(OPCODES, max_size=30).map(b"".join))
        @example(soup=named("os.system"))
        @example(soup=named("builtins.eval", 4))
        def no_event(soup: bytes) -> None:
            before = len(seen)
            # Any other exception than BadFile fails here.
            with suppress(BadFile):
                loads(soup + b".")
            assert seen[before:] == []

        no_event()
        compile("1", "a control: what is watched is seen", "eval")
        assert seen != []


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_changed_pickles_are_read_or_refused(data: st.DataObject) -> None:
    state = {"A_": np.eye(3, dtype=np.float32), "B_": torch.arange(1.0, 4.0)}
    broken = bytearray(pickle.dumps(state, data.draw(st.sampled_from([2, 4, 5]))))
    for _ in range(data.draw(st.integers(1, 5))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "a.pkl").write_bytes(broken)
        outcome = _outcome(Path(place))
    assert outcome in {"width 3", "E222", "E223", "E225", "E226", "E227", "E235"}


def _outcome(folder: Path) -> str:
    try:
        return f"width {load_adapter(AdapterDecl(name='a', path='a.pkl'), folder).width}"
    except IntervError as error:
        return error.code


@pytest.mark.parametrize("as_object", [False, True])
def test_linear_transport_of_easysteer(tmp_path: Path, as_object: bool) -> None:
    """Its map is `h A_ᵀ + B_` for every layer; a fit keeps B_ with a batch axis, [1, H]."""
    random = np.random.default_rng(3)
    weight, bias = random.standard_normal((4, 4)), random.standard_normal((1, 4))
    made: object = {"A_": weight, "B_": bias[0]}
    if as_object:
        made = Transport()
        made.A_, made.B_, made.reg = weight, bias, 1e-8  # type: ignore[attr-defined]
    (tmp_path / "edit.pkl").write_bytes(pickle.dumps(made))
    assert is_adapter(tmp_path / "edit.pkl")
    got = load_adapter(AdapterDecl(name="edit", path="edit.pkl"), tmp_path)
    assert (got.kind, got.layers, got.width, got.format) == ("linear", None, 4, "pkl")
    assert got.notes == (
        "EasySteer's scale s means s·(h A_ᵀ + B_), which is the same at scale 1 alone",
    )
    update = got.at(7)
    assert isinstance(update, Linear)
    h = random.standard_normal((5, 4))
    wanted = h @ weight.astype(np.float32).astype(float).T + bias.astype(np.float32)
    assert np.allclose(h @ update.weight.T + update.bias, wanted, rtol=1e-13)


def test_a_transport_without_a_bias_and_without_a_map(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"A_": np.eye(2), "B_": None}))
    update = load_adapter(AdapterDecl(name="a", path="a.pkl"), tmp_path).at(0)
    assert isinstance(update, Linear)
    assert not update.bias.any()
    (tmp_path / "b.pkl").write_bytes(pickle.dumps(Transport()))
    assert refused(tmp_path, "b.pkl") == lines(
        "E222 'b.pkl' is not a valid pkl file",
        "it holds an object of 'tests.vectors.test_pickles.Transport' without 'A_'",
    )
    (tmp_path / "c.pkl").write_bytes(pickle.dumps({"A_": os.system}))
    assert refused(tmp_path, "c.pkl") == lines(
        "E222 'c.pkl' is not a valid pkl file", "its entry 'A_' is a 'posix.system', not a tensor"
    )


def test_directions_in_pickles_and_arrays_in_archives(tmp_path: Path) -> None:
    bank = {3: np.arange(1, 5, dtype=np.float32), 5: np.ones(4, np.float32)}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(bank))
    torch.save(bank[3], tmp_path / "b.pt")
    torch.save({"layer.3": bank[3], 5: torch.ones(4)}, tmp_path / "c.pt")
    assert read_vectors(tmp_path / "a.pkl").layers == (3, 5)
    assert np.array_equal(read_vectors(tmp_path / "b.pt").at(9), bank[3])
    mixed = read_vectors(tmp_path / "c.pt")
    assert (mixed.layers, mixed.at(3).tolist(), mixed.at(5).tolist()) == (
        (3, 5),
        [1, 2, 3, 4],
        [1, 1, 1, 1],
    )
    assert mixed.digest == read_vectors(tmp_path / "a.pkl").digest


def test_an_array_whose_state_never_came() -> None:
    head = b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00VB\ntR."
    got = loads(head)
    assert isinstance(got, Array)
    assert got.values is None


@pytest.mark.parametrize(
    ("held", "said"),
    [
        (
            {"B_": torch.ones(1, 576)},
            "E223 'a.pt' holds no tensor 'A_'\n  = tensors there: B_",
        ),
        (
            {"A_": torch.ones(576, 4)},
            "E227 'A_' in 'a.pt' has shape [576, 4]\n  = wanted: [H, H]",
        ),
        (
            {"A_": torch.eye(576), "B_": torch.ones(4)},
            "E227 'B_' in 'a.pt' has shape [4]\n  = wanted: [H], here [576]",
        ),
    ],
)
def test_a_transport_is_told_what_it_lacks_by_its_own_names(
    held: dict[str, torch.Tensor], said: str, tmp_path: Path
) -> None:
    torch.save(held, tmp_path / "a.pt")
    with pytest.raises(IntervError) as caught:
        read_adapter(tmp_path / "a.pt")
    code, rest = said.split(" ", 1)
    assert str(caught.value).replace(str(tmp_path) + "/", "") == f"error[{code}]: {rest}"
