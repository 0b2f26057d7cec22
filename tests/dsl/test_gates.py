"""Where a gate may be read: what is refused without a model, against every model there could be."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from interv.document.sites import SITES, Site
from interv.document.spec import Gate, LayerRange, Program, SiteRef, Spec, Steer, VectorDecl
from interv.errors import IntervError, each
from interv.load import from_spec, load_data

LAYERS = st.integers(-6, 5)
RANGES = st.tuples(LAYERS, LAYERS).filter(lambda two: (two[0] < 0) == (two[1] < 0)).map(sorted)
ITEMS = st.one_of(
    st.just("*"), LAYERS, RANGES.map(lambda two: LayerRange(first=two[0], last=two[1]))
)
# The layers above are in all of these, and which of two is the later one differs among them.
SIZES = range(6, 14)


def faults(edit_at: SiteRef, gate_at: SiteRef) -> list[IntervError]:
    gate = Gate(vector="v", site=gate_at)
    program = Program(name="p", statements=(Steer(vector="v", at=edit_at, gate=gate),))
    spec = Spec(vectors=(VectorDecl(name="v", path="v"),), programs=(program,))
    try:
        from_spec(spec)
    except IntervError as error:
        return list(each(error))
    return []


def sites(place: SiteRef, size: int) -> list[Site]:
    layers: set[int] = set()
    for item in place.layers:
        if item == "*":
            layers |= set(range(size))
        elif isinstance(item, LayerRange):
            layers |= {one % size for one in range(item.first, item.last + 1)}
        else:
            layers.add(item % size)
    return [Site(place.name, layer) for layer in layers]


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(SITES),
    st.lists(ITEMS, min_size=1, max_size=3),
    st.sampled_from(SITES),
    LAYERS,
)
def test_a_late_gate_is_refused_where_it_is_late_in_every_model(
    edit: str, items: list[LayerRange | str | int], gate: str, layer: int
) -> None:
    edit_at = SiteRef(name=edit, layers=tuple(items))
    gate_at = SiteRef(name=gate, layers=(layer,))
    found = faults(edit_at, gate_at)
    assert {error.code for error in found} <= {"E218"}
    late = [
        any(one.order < sites(gate_at, size)[0].order for one in sites(edit_at, size))
        for size in SIZES
    ]
    firsts = [0 if one == "*" and layer >= 0 else one for one in map(_first, items)]
    if found:
        assert all(late)
    elif all(one != "*" and (one < 0) == (layer < 0) for one in firsts):
        assert not any(late)


def _first(item: LayerRange | str | int) -> str | int:
    return item.first if isinstance(item, LayerRange) else item


@pytest.mark.parametrize(
    ("layers", "count"),
    [
        ((1, 2, 5), "3 layers"),
        ((1, LayerRange(first=3, last=5)), "4 layers"),
        ((LayerRange(first=-5, last=-1),), "5 layers"),
        ((LayerRange(first=0, last=2**31 - 2),), "2147483647 layers"),
        ((LayerRange(first=0, last=-1),), "a range of layers"),
        ((LayerRange(first=3, last=3),), "a range of layers"),
        (("*",), "every layer"),
        ((1, "*"), "every layer"),
    ],
)
def test_a_gate_at_another_site_reads_one_layer(layers: tuple[object, ...], count: str) -> None:
    (found,) = faults(
        SiteRef(name="post_block", layers=(20,)), SiteRef(name="post_block", layers=layers)
    )
    assert (found.code, found.message) == (
        "E217",
        f"the gate of steer 'v' reads {count}, a gate at another site reads one",
    )


def test_data_without_a_text_names_its_fields() -> None:
    def place(name: str, *layers: object) -> dict[str, object]:
        return {"name": name, "layers": list(layers)}

    late = {"vector": "v", "site": place("post_block", 14)}
    many = {"vector": "v", "site": place("post_block", "*")}
    statements = [
        {"op": "steer", "vector": "v", "at": place("post_attn", 12), "gate": late},
        {"op": "ablate", "vector": "v", "at": place("post_attn", 12), "gate": many},
    ]
    data = {
        "interv": 1,
        "vectors": [{"name": "v", "path": "v"}],
        "programs": [{"name": "p", "statements": statements}],
    }
    with pytest.raises(IntervError) as caught:
        load_data(data, "a.json")
    assert str(caught.value) == (
        "error[E218]: the gate at post_block[14] comes after the edit at post_attn[12]\n"
        "  = in a.json: programs.0.statements.0.gate.site\n"
        "  = a gate is read before what it scales: at post_attn[12] or earlier\n\n"
        "error[E217]: the gate of ablate 'v' reads every layer, a gate at another site reads one\n"
        "  = in a.json: programs.0.statements.1.gate.site\n"
        "  = name one layer; without its own 'at' a gate is read at every site of its edit"
    )
