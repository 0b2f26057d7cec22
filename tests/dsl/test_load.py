"""Documents from files and data, and the errors of JSON and YAML, which have no spans."""

from __future__ import annotations

from pathlib import Path

import pytest

from interv.document.spec import RequestExpression, RequestTerm
from interv.dsl.expression import parse_expression
from interv.errors import IntervError
from interv.load import dump_json, dump_yaml, load_data, load_document, load_text

TEXT = (
    'interv 1\nvector v = "v.gguf"\n'
    "program p { steer v at post_block[1..2] when prompt or token(3) }\ndefault p\n"
)


def error_of(call: object, *args: object) -> str:
    with pytest.raises(IntervError) as caught:
        call(*args)
    return str(caught.value)


def test_every_suffix_loads_the_same(tmp_path: Path) -> None:
    spec = load_text(TEXT).spec
    for suffix, text in (
        (".interv", TEXT),
        (".json", dump_json(spec)),
        (".yaml", dump_yaml(spec)),
        (".yml", dump_yaml(spec)),
    ):
        path = tmp_path / f"a{suffix}"
        path.write_text(text)
        document = load_document(path)
        assert document.spec == spec
        assert document.root == tmp_path
        assert document.name == str(path)


def test_yaml_is_what_people_write() -> None:
    assert dump_yaml(load_text(TEXT).spec) == (
        "interv: 1\nvectors:\n- name: v\n  path: v.gguf\nprograms:\n- name: p\n  statements:\n"
        "  - at:\n      name: post_block\n      layers:\n      - first: 1\n        last: 2\n"
        "    when:\n      kind: or\n      terms:\n      - kind: phase\n        phase: prompt\n"
        "      - kind: token\n        ids:\n        - 3\n    op: steer\n    vector: v\n"
        "default: p\n"
    )


def statement(**fields: object) -> dict[str, object]:
    at = {"name": "post_block", "layers": [1]}
    return {
        "interv": 1,
        "vectors": [{"name": "v", "path": "v.gguf"}],
        "programs": [
            {"name": "p", "statements": [{"op": "steer", "vector": "v", "at": at} | fields]}
        ],
    }


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ([], "error[E110]: 'a.yaml' is not a document\n  = found: list"),
        (
            {},
            "error[E104]: 'a.yaml' does not say its version\n"
            "  = add the field 'interv' with the value 1",
        ),
        (
            {"interv": 2},
            "error[E104]: version 2 is not supported\n  = in a.yaml: interv\n  = versions: 1",
        ),
        (
            {"interv": 1, "vektors": []},
            "error[E211]: 'vektors' is not a field\n  = in a.yaml: vektors\n"
            "  = fields here: interv, vectors, adapters, programs, sinks, kv, conflict, default\n"
            "  = did you mean 'vectors'?",
        ),
        (
            statement(at={"name": "post_atn", "layers": [1]}),
            "error[E201]: 'post_atn' is not a site\n"
            "  = in a.yaml: programs.0.statements.0.at.name\n"
            "  = sites here: pre_attn, post_attn, post_block\n  = did you mean 'post_attn'?",
        ),
        (
            statement(op="stear"),
            "error[E211]: 'stear' is not a statement\n"
            "  = in a.yaml: programs.0.statements.0.op\n"
            "  = statements: steer, cap, ablate, replace, rotate, apply, capture\n"
            "  = did you mean 'steer'?",
        ),
        (
            statement(strength=1.0),
            "error[E211]: 'strength' is not a field\n"
            "  = in a.yaml: programs.0.statements.0.strength\n"
            "  = fields here: at, when, gate, decay, op, vector, scale, by_norm, keep_norm",
        ),
        (
            statement(op="replace", keep_norm=True),
            "error[E211]: 'keep_norm' is not a field\n"
            "  = in a.yaml: programs.0.statements.0.keep_norm\n"
            "  = fields here: at, when, gate, decay, op, vector, by, scale, strength",
        ),
        (
            statement(op="cap", high=1, over=True),
            "error[E211]: 'over' is not a field\n"
            "  = in a.yaml: programs.0.statements.0.over\n"
            "  = fields here: at, when, gate, decay, op, vector, low, high, strength\n"
            "  = did you mean 'vector'?",
        ),
        (
            statement(op="ablate", strength=2),
            "error[E207]: strength 2 is out of range\n"
            "  = in a.yaml: programs.0.statements.0.strength\n"
            "  = say that it is meant to take away more than all: strength 2 over",
        ),
        (
            statement(gate={"vector": "v", "above": 1, "threshold": 2}),
            "error[E861]: a gate with 'above' has no threshold\n"
            "  = in a.yaml: programs.0.statements.0.gate.threshold\n"
            "  = leave out 'threshold', or 'above': a gate is a curve or a step",
        ),
        (
            statement(gate={"vector": "v", "below": 0, "absolute": True}),
            "error[E862]: the gate on 'v' never opens\n"
            "  = in a.yaml: programs.0.statements.0.gate.below\n"
            "  = an absolute value is never below 0",
        ),
        (
            statement(keep_norm="norm"),
            "error[E211]: keep_norm: input should be a valid boolean\n"
            "  = in a.yaml: programs.0.statements.0.keep_norm\n  = found: 'norm'",
        ),
        (
            statement(op="replace", by="w"),
            "error[E202]: no vector is called 'w'\n  = vectors here: v\n"
            "  = in a.yaml: programs.0.statements.0.by",
        ),
        (
            statement(op="replace", by="v", scale=2, strength=-1),
            "error[E207]: strength -1 is out of range\n"
            "  = in a.yaml: programs.0.statements.0.strength",
        ),
        (
            statement(op="replace", by="v", scale=2),
            "error[E206]: vector 'v' is replaced by itself\n"
            "  = in a.yaml: programs.0.statements.0.by\n\n"
            "error[E107]: replace … by has no scale\n"
            "  = in a.yaml: programs.0.statements.0.scale\n"
            "  = leave it out; 'strength' says how much of the first vector is replaced",
        ),
        (
            statement(scale=float("nan")),
            "error[E105]: scale is not a finite number\n"
            "  = in a.yaml: programs.0.statements.0.scale",
        ),
        (
            statement(vector="w"),
            "error[E202]: no vector is called 'w'\n  = vectors here: v\n"
            "  = in a.yaml: programs.0.statements.0.vector",
        ),
        (
            statement(when={"kind": "and", "terms": [{"kind": "phase", "phase": "promt"}] * 2}),
            "error[E211]: 'promt' is not a phase\n"
            "  = in a.yaml: programs.0.statements.0.when.terms.0.phase\n"
            "  = phases: prompt, generated\n  = did you mean 'prompt'?\n\n"
            "error[E211]: 'promt' is not a phase\n"
            "  = in a.yaml: programs.0.statements.0.when.terms.1.phase\n"
            "  = phases: prompt, generated\n  = did you mean 'prompt'?",
        ),
        (
            {"interv": 1, "programs": [{"name": "p"}, {"name": "p"}]},
            "error[E206]: programs named twice: p\n  = in a.yaml",
        ),
        (
            {"interv": 1, "programs": [{"name": "p-q"}]},
            "error[E211]: 'p-q' is not a name\n  = in a.yaml: programs.0.name\n"
            "  = a name is made of letters, digits and '_', and does not start with a digit",
        ),
    ],
)
def test_wrong_data(data: object, expected: str) -> None:
    assert error_of(load_data, data, "a.yaml") == expected


def test_missing_field() -> None:
    data = statement()
    del data["programs"][0]["statements"][0]["at"]
    assert error_of(load_data, data, "a.json") == (
        "error[E211]: 'at' is missing\n  = in a.json: programs.0.statements.0.at"
    )


def test_unreadable_files(tmp_path: Path) -> None:
    assert error_of(load_document, "no.interv") == (
        "error[E200]: 'no.interv' cannot be read: no such file or directory"
    )
    assert error_of(load_document, "a.txt") == (
        "error[E200]: 'a.txt' is not a document by its suffix\n"
        "  = suffixes: .interv, .json, .yaml, .yml"
    )
    binary = tmp_path / "a.interv"
    binary.write_bytes(b"interv 1\n\xff")
    assert error_of(load_document, binary) == (
        f"error[E110]: '{binary}' is not UTF-8 text\n  = byte 9 is not part of a character"
    )


def test_broken_json_and_yaml(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"interv": 1,\n "kv" 2}')
    assert error_of(load_document, path) == (
        f"error[E110]: '{path}' is not JSON\n --> {path}:2:7\n  |\n2 |  \"kv\" 2}}\n"
        "  |       ^ expecting ':' delimiter"
    )
    path = tmp_path / "a.yaml"
    path.write_text("interv: 1\nkv: [1\n")
    assert error_of(load_document, path).startswith(f"error[E110]: '{path}' is not YAML")


def test_a_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.interv"
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode())
    assert load_document(path).spec == load_text(TEXT).spec


def test_expressions() -> None:
    terms = (RequestTerm(program="calm", multiplier=1.5), RequestTerm(program="formal"))
    assert parse_expression("calm*1.5 + formal") == RequestExpression(terms=terms)
    assert parse_expression(" off ") == RequestExpression()
    negative = RequestTerm(program="a", multiplier=-1.0)
    assert parse_expression("a * -1").terms == (negative,)


@pytest.mark.parametrize(
    ("text", "message", "fact"),
    [
        (
            "",
            "the text ends where a name should stand",
            "a request is NAME [* NUMBER] {+ NAME [* NUMBER]} or off",
        ),
        ("calm*", "the text ends where a number should stand", ""),
        (
            "calm - formal",
            "expected '*', '+' or the end of the text, found '-'",
            "multiply by a negative number to subtract: a + b*-1",
        ),
        ("2*calm", "expected a name, found '2'", "the name comes first: calm*1.5"),
        ("calm*1e999", "1e999 is too large", ""),
        ("clam", "no program is called 'clam'", "did you mean 'calm'?"),
        ("calm + calm", "program 'calm' is named twice", ""),
        ("calm + off", "'off' stands alone: it cannot be multiplied or added", ""),
        ("off*2", "'off' stands alone: it cannot be multiplied or added", ""),
        ("a+" * 3000, "an expression has at most 4096 characters, this one 6000", ""),
    ],
)
def test_wrong_expressions(text: str, message: str, fact: str) -> None:
    with pytest.raises(IntervError) as caught:
        parse_expression(text, ["calm", "formal"])
    assert caught.value.message == message
    assert (fact in (*caught.value.notes, *caught.value.helps)) == bool(fact)


def test_lists_of_positions_have_an_end() -> None:
    where = "  = in <data>: programs.0.statements.0.when\n"
    beside = "  = positions beside each other are one run: write them as 4..8"

    def listed(*items: object) -> dict[str, object]:
        return statement(when={"kind": "positions", "phase": "prompt", "items": list(items)})

    assert load_data(listed(*range(0, 8192, 2)), "<data>").spec.programs
    assert load_data(listed({"first": 0, "last": 100_000}, -1), "<data>").spec.programs
    assert error_of(load_data, listed(*range(0, 8194, 2)), "<data>") == (
        f"error[E880]: this list has 4097 runs of positions, 4096 are possible\n{where}{beside}"
    )
    between = [{"first": i, "last": -1 - i} for i in range(17)]
    assert error_of(load_data, listed(*between), "<data>") == (
        f"error[E880]: this list has 17 ranges between both ends, 16 are possible\n{where}{beside}"
    )
    terms = [{"kind": "at", "phase": "prompt", "index": i} for i in range(0, 8194, 2)]
    assert error_of(load_data, statement(when={"kind": "or", "terms": terms}), "<data>") == (
        f"error[E880]: this list has 4097 runs of positions, 4096 are possible\n{where}{beside}"
    )
