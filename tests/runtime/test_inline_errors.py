"""What an inline program may not do, in the words that its client reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from interv.errors import IntervError
from interv.request.inline import compile_inline
from tests.passes.small import MODEL
from tests.runtime.documents import CALM, carried, encode

SITES = "  = sites that it has: post_block[1], pre_attn[2]"
HELP = "  = use this site in a document that the engine is started with"


def program(*statements: str) -> str:
    lines = "".join(f"  {one}\n" for one in statements)
    return f"interv 1\nprogram p {{\n{lines}}}\n"


def data(**fields: object) -> dict[str, Any]:
    at = {"name": "post_block", "layers": [1]}
    one = {"op": "steer", "vector": "v", "at": at, **fields}
    return {"interv": 1, "programs": [{"name": "p", "statements": [one]}]}


def nested(depth: int) -> dict[str, Any]:
    when: dict[str, Any] = {"kind": "all"}
    for _ in range(depth):
        when = {"kind": "not", "term": when}
    return data(when=when)


def refusal(folder: Path, asked: Any, text: str = CALM, tokenizer: Any = encode) -> str:
    made = carried(folder, text, inline=True)
    assert made.model is not None
    with pytest.raises(IntervError) as caught:
        compile_inline(asked, made.bundle, made.vectors, made.model, tokenizer)
    return str(caught.value)


WRONG: dict[str, tuple[Any, str]] = {
    "E109 characters": (
        "interv 1\n" + " " * (64 * 1024),
        "error[E109]: an inline program has at most 65536 characters, this one 65545",
    ),
    "E109 data": (
        data(vector="v" * (64 * 1024)),
        "error[E109]: an inline program has at most 65536 characters, this one 65670",
    ),
    "E109 statements": (
        program(*["steer v at post_block[1]"] * 257),
        "error[E109]: an inline program has at most 256 statements, this one 257",
    ),
    "E109 parts": (
        program(*(f"steer v at post_block[1] when token({i}) or prompt[{i}]" for i in range(33))),
        "error[E109]: the selectors of an inline program have at most 64 parts together,"
        " these have 66\n\n"
        "error[E411]: this program has 33 edits at post_block[1], 16 are possible",
    ),
    "E109 markers": (
        program(*(f"steer v at post_block[1] when after token({i})" for i in range(9))),
        "error[E109]: an inline program follows markers in at most 8 different ways, this one in 9",
    ),
    "E109 layers": (
        program("steer v at post_block[*, *, *, *, *]"),
        "error[E109]: a site lists at most the 4 layers of the model, one here lists 5",
    ),
    "E109 depth": (
        nested(40),
        "error[E109]: this selector is too large\n"
        "  = a selector has at most 64 parts, nested 32 levels deep\n"
        "  = in <request>: programs.0.statements.0.when",
    ),
    "E110 text": (
        '{"interv": 1,}',
        "error[E110]: '<request>' is not JSON\n --> <request>:1:14\n  |\n1 | {\"interv\": 1,}\n"
        "  |              ^ expecting property name enclosed in double quotes",
    ),
    "E109 words": (
        program(*["steer v at post_block[1]"] * 600),
        "error[E109]: '<request>' has more than 4096 words and signs",
    ),
    "E109 values": (
        data(at={"name": "post_block", "layers": [1] * 20_000}),
        "error[E109]: an inline program has at most 4096 values",
    ),
    "E109 parts in turn": (
        program(
            "conflict priority", *(f"steer v at post_block[1] when prompt[{i}]" for i in range(25))
        ),
        "error[E109]: the selectors of an inline program have at most 24 parts together,"
        " these have 25\n\n"
        "error[E411]: this program has 25 edits at post_block[1], 16 are possible",
    ),
    "E111": (
        '{"interv": 1, "interv": 1}',
        "error[E111]: '<request>' gives 'interv' twice in an object\n --> <request>:1:15\n  |\n"
        '1 | {"interv": 1, "interv": 1}\n  |               ^^^^^^^^ again\n  |\n'
        "  = keys there: interv",
    ),
    "E110 data": (
        data(scale={1, 2}),
        "error[E110]: '<request>' cannot be written as JSON:"
        " Object of type set is not JSON serializable",
    ),
    "E104 version": (
        {"interv": 2},
        "error[E104]: version 2 is not supported\n  = in <request>: interv\n  = versions: 1",
    ),
    "E202": (
        program("steer u at post_block[1]"),
        """\
error[E202]: no vector is called 'u'
 --> <request>:3:9
  |
3 |   steer u at post_block[1]
  |         ^ unknown vector
  |
  = vectors here: v, w""",
    ),
    "E202 data": (
        data(vector="u"),
        "error[E202]: no vector is called 'u'\n"
        "  = vectors here: v, w\n"
        "  = in <request>: programs.0.statements.0.vector",
    ),
    "E213": (
        program('steer v at post_block[1] when token("maybe")'),
        """\
error[E213]: token("maybe") is 2 tokens of this model, not 1
 --> <request>:3:39
  |
3 |   steer v at post_block[1] when token("maybe")
  |                                       ^^^^^^^ 2 tokens
  |
  = its tokens: 1, 2
  = a selector sees one token at a time: name one of these by its id""",
    ),
    "E215": (
        'interv 1\nvector z = "../z.gguf"\nconflict sum\n' + program().removeprefix("interv 1\n"),
        """\
error[E215]: a request may not declare vector 'z'
 --> <request>:2:1
  |
2 | vector z = "../z.gguf"
  | ^^^^^^^^^^^^^^^^^^^^^^ reads a file
  |
  = declare it in a document that the engine is started with

error[E215]: a request may not state the policy for several programs
 --> <request>:3:10
  |
3 | conflict sum
  |          ^^^ not here
  |
  = state 'conflict' inside the program""",
    ),
    "E215 kv": (
        program("kv on") + "kv r1kv { budget = 64 }\n",
        """\
error[E215]: a request may not declare a KV policy
 --> <request>:5:1
  |
5 | kv r1kv { budget = 64 }
  | ^^^^^^^^^^^^^^^^^^^^^^^ not here
  |
  = ask for the engine's, inside the program: kv on""",
    ),
    "E216 none": (
        "interv 1\n",
        "error[E216]: an inline document has one program, this one has 0",
    ),
    "E216 two": (
        program() + "program q {\n}\n",
        "error[E216]: an inline document has one program, this one has 2\n"
        "  = programs here: p, q\n"
        "  = say which one applies: default p",
    ),
    "E240": (
        program("steer v at post_block[0..2000000000]"),
        """\
error[E240]: 'small' has no layer 2000000000: it has 4 blocks
 --> <request>:3:14
  |
3 |   steer v at post_block[0..2000000000]
  |              ^^^^^^^^^^^^^^^^^^^^^^^^^
  |
  = layers here: 0..3, or -4..-1 from the end""",
    ),
    "E215 files": (
        'adapter warm = "warm"\nsink acts = memory()\n'.join(
            ["interv 1\n", program("capture at post_block[1] to acts").removeprefix("interv 1\n")]
        ),
        """\
error[E215]: a request may not declare adapter 'warm'
 --> <request>:2:1
  |
2 | adapter warm = "warm"
  | ^^^^^^^^^^^^^^^^^^^^^ reads a file
  |
  = declare it in a document that the engine is started with

error[E215]: a request may not declare sink 'acts'
 --> <request>:3:1
  |
3 | sink acts = memory()
  | ^^^^^^^^^^^^^^^^^^^^ writes files
  |
  = declare it in a document that the engine is started with""",
    ),
    "E409": (
        program("replace v by w at post_block[1]"),
        """\
error[E409]: this needs a direction that the engine does not hold: v[1]/‖v[1]‖²
 --> <request>:3:3
  |
3 |   replace v by w at post_block[1]
  |   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ computed from several vectors
  |
  = put the program into a document that the engine is started with""",
    ),
    "E401": (
        program("conflict error", "steer v at post_block[1]", "ablate w at post_block[*]"),
        """\
error[E401]: two edits of program 'p' meet at post_block[1]: steer (<request>:4) and ablate\
 (<request>:5)
 --> <request>:5:3
  |
5 |   ablate w at post_block[*]
  |   ^^^^^^^^^^^^^^^^^^^^^^^^^ can apply to a token that the earlier one edits
 --> <request>:4:3
  |
4 |   steer v at post_block[1]
  |   ^^^^^^^^^^^^^^^^^^^^^^^^ listed first
  |
  = their selectors: all  ·  all
  = policies: error, priority, sequential, sum, joint
  = say 'conflict sequential' to let the later one read what the earlier wrote""",
    ),
    "E408": (
        program("cap v at post_block[1, 3] in [, 1]"),
        f"""\
error[E408]: this engine has not spliced post_block[3]
 --> <request>:3:3
  |
3 |   cap v at post_block[1, 3] in [, 1]
  |   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ its graph is compiled already
  |
{SITES}
{HELP}""",
    ),
    "E408 data": (
        data(at={"name": "pre_attn", "layers": [0]}),
        f"error[E408]: this engine has not spliced pre_attn[0]\n{SITES}\n{HELP}",
    ),
    "E411": (
        program(*(f"cap v at post_block[*] in [{i}, 100]" for i in range(17))),
        "error[E411]: this program has 17 edits at post_block[0], 16 are possible",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_program_is_refused(folder: Path, case: str) -> None:
    asked, expected = WRONG[case]
    assert refusal(folder, asked) == expected


@pytest.mark.parametrize("depth", [100, 250, 400])
def test_data_that_nests_deep_is_refused(folder: Path, depth: int) -> None:
    assert refusal(folder, nested(depth)).startswith(("error[E109]", "error[E110]", "error[E211]"))


def test_json_that_nests_too_deep_to_read_is_refused(folder: Path) -> None:
    assert refusal(folder, '{"a":' * 10_000) == "error[E110]: '<request>' nests too deep"


NINES = "9" * 5000


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ('{"interv": ' + NINES + "}", "E110]: '<request>' holds a number of 5000 characters\n"),
        (
            program("steer v at post_block[" + NINES + "]"),
            "E105]: 99999999999999999999… is too large\n",
        ),
        (
            program("steer v at post_block[1] when prompt[" + NINES + "]"),
            "E105]: 99999999999999999999… is too large\n",
        ),
        (
            program("steer v at post_block[1] when token(99999999999999999999)"),
            "E105]: 99999999999999999999 is too large\n",
        ),
        ("interv " + NINES, "E104]: version 99999999999999999999… is not supported\n"),
    ],
)
def test_numbers_of_thousands_of_digits(folder: Path, asked: str, said: str) -> None:
    message = refusal(folder, asked)
    assert message.startswith(f"error[{said}")
    assert len(message) < 2000
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    message = "error[E110]: '<request>' cannot be written as JSON: Circular reference detected"
    assert refusal(folder, loop) == message
    mixed = {1: 2, "interv": 1}
    assert refusal(folder, mixed).startswith("error[E110]: '<request>' cannot be written as JSON")


def test_a_text_needs_a_tokenizer(folder: Path) -> None:
    asked = data(when={"kind": "token", "ids": ["no"]})
    assert refusal(folder, asked, tokenizer=None) == (
        'error[E214]: token("no") needs the model\'s tokenizer, and none is known\n'
        "  = in <request>: programs.0.statements.0.when.ids.0\n"
        "  = give the ids of the tokens: token(2, 15)"
    )


def test_only_some_sites_of_many_are_named(folder: Path) -> None:
    text = CALM.replace("post_block[1] scale", "post_block[*] scale").replace(
        "pre_attn[2]", "pre_attn[*]"
    )
    text = text.replace("cap w at post_block[1]", "cap w at post_attn[0]")
    named = "post_attn[0], post_block[0], pre_attn[1], post_block[1], pre_attn[2], post_block[2]"
    assert refusal(folder, data(at={"name": "post_attn", "layers": [1]}), text) == (
        "error[E408]: this engine has not spliced post_attn[1]\n"
        f"  = sites that it has: pre_attn[0], {named}, pre_attn[3] and 1 more\n{HELP}"
    )


def with_selectors(count: int) -> str:
    """Return a document with this many different selectors."""
    lines = "".join(f"  ablate w at pre_attn[2] when token({i})\n" for i in range(count - 2))
    return f"{CALM}program many {{\n{lines}}}\n"


def test_more_selectors_than_are_left_are_refused(folder: Path) -> None:
    said = "error[E410]: {} different selectors are used, {} are possible"
    new = [f"steer v at post_block[1] when prompt[{i}]" for i in range(4)]
    known = ["cap w at post_block[1] in [, 1]", "ablate v at post_block[1] when token(5)"]
    full = with_selectors(61)
    assert refusal(folder, program(*known, *new), full) == said.format(4, 3)
    made = carried(folder, full, inline=True)
    found = compile_inline(program(*known, *new[:3]), made.bundle, made.vectors, MODEL, None)
    assert len(found.selectors) == 5
    # Giving way makes a selector that nobody wrote: generated and not generated[0].
    ways = ["conflict priority", "steer v at post_block[1] when generated[0]"]
    ways.append("ablate v at post_block[1] when generated")
    assert refusal(folder, program(*ways), with_selectors(63)) == said.format(2, 1)


def test_wide_documents_leave_room_for_as_many_edits(folder: Path) -> None:
    lines = "".join(f"  cap v at post_block[1] in [{i}, 100]\n" for i in range(40))
    wide = f"{CALM}program many {{\n{lines}}}\n"
    edits = [f"cap v at post_block[1] in [{i}, 100]" for i in range(43)]
    assert refusal(folder, program(*edits), wide) == (
        "error[E411]: this program has 43 edits at post_block[1], 42 are possible"
    )
    made = carried(folder, wide, inline=True)
    text = json.dumps(data())
    assert compile_inline(text, made.bundle, made.vectors, MODEL, None).columns
    found = compile_inline(program(*edits[:42]), made.bundle, made.vectors, MODEL, None)
    assert len(found.columns) == 42
