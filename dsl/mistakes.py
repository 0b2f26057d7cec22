"""Wrong programs and the sentence that helps, as data.

Each example is parsed once; the place where it fails (the state of the LALR tables and the kind
of token found) is the key under which its sentence is shown for other programs. The first
sentence of a key wins.
"""

from __future__ import annotations

LAYERS = "layers stand in brackets: post_block[12], post_block[10..20] or post_block[*]"
RANGE = "a range of layers is written 10..20; both ends are included"
SLICE = "a slice is written prompt[2:8]; its end is not included"
LISTED = "positions are listed as prompt[0, 4..8, -1]; a range includes both ends"
BOUNDS = "bounds are written in [low, high]; leave one out for an open end: in [, 2.5]"
LOGIC = "selectors are combined with 'and', 'or' and 'not'"
NO_COMMAS = "clauses and statements are separated by spaces, not by commas"
IDS = 'tokens are listed in parentheses: token(2, 15) or token("\\n")'
MARKER = 'a marker stands behind it: after token("</think>"), between token(5) and token(6)'
SEQUENCE = "a marker of several tokens is written in brackets: after token([5, 6], 7)"
GATED = "'sharpness' and 'threshold' are parts of a gate: gate NAME sharpness 8"
STEP = "'above' and 'below', 'cosine' and 'absolute' are parts of a gate: gate NAME above 0.5"
NORM = "'norm' stands behind the amount: scale 0.1 norm; or behind 'keep'"
OVER = "'over' stands behind the amount: strength 1.5 over"
BY = "what is replaced and by what stand together: replace a by b at post_block[12]"
QUOTES = 'paths stand in double quotes: "vectors/calm.gguf"'

POLICY = "a policy stands outside of programs; in one, 'kv on' or 'kv off' asks for it"
SWITCH = "a program says 'kv on' or 'kv off'"

EXPRESSION = "expression: "  # starts the examples that are requests

_STEER = "interv 1 program p { steer a "
_WHEN = f"{_STEER} at post_block[1] when "
_REPLACE = "interv 1 program p { replace a "
_KV = "interv 1 program p { kv\n"
_CAP = "interv 1 program p { cap a at post_block[1] "

MISTAKES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (LAYERS, (f"{_STEER} at post_block scale 1", f"{_STEER} at post_block", f"{_STEER} at x }}")),
    (LAYERS, (f"{_STEER} at post_block(1)", f"{_STEER} at post_block 1", f"{_STEER} at x.y")),
    (LAYERS, (f"{_STEER} at post_block[]", f"{_STEER} at post_block[x]")),
    (RANGE, (f"{_STEER} at post_block[1:2]", f"{_STEER} at post_block[1-2]")),
    (RANGE, (f"{_STEER} at post_block[1..]", f"{_STEER} at post_block[1 to 2]")),
    (SLICE, (f"{_WHEN} prompt[]", f"{_WHEN} prompt[1 2]")),
    (LISTED, (f"{_WHEN} prompt[1, 2:3]", f"{_WHEN} prompt[1..2:", f"{_WHEN} prompt[1, ]")),
    (LISTED, (f"{_WHEN} prompt[1:2, 3]", f"{_WHEN} prompt[:2, 3]")),
    (IDS, (f"{_WHEN} token 5", f"{_WHEN} token[5]", f'{_WHEN} token "x"', f"{_WHEN} token(x)")),
    (MARKER, (f"{_WHEN} after 5", f'{_WHEN} after "x"', f"{_WHEN} after prompt")),
    (MARKER, (f"{_WHEN} before 5", f'{_WHEN} before "x"', f"{_WHEN} before prompt")),
    (MARKER, (f"{_WHEN} between 5", f'{_WHEN} between "x"', f"{_WHEN} between prompt")),
    (MARKER, (f"{_WHEN} between token(1), x", f"{_WHEN} between token(1) or x")),
    (MARKER, (f"{_WHEN} between token(1) and 5", f"{_WHEN} between token(1) and prompt")),
    (SEQUENCE, (f"{_WHEN} after token([])", f'{_WHEN} after token(["a"])')),
    (LOGIC, (f"{_WHEN} prompt, generated", f"{_WHEN} prompt & x", f"{_WHEN} !prompt")),
    (BOUNDS, (f"{_CAP} in 1, 2", f"{_CAP} in (1, 2)", f"{_CAP} in [1]", f"{_CAP} in 1..2")),
    (BOUNDS, (f"{_CAP} in [1..2]", f"{_CAP} in [1 2]", f"{_CAP} in [x, 2]", f"{_CAP} in x")),
    (NO_COMMAS, (f"{_STEER}, at", f"{_STEER} at x[1], scale", f"{_STEER} scale 1, at")),
    (NO_COMMAS, (f"{_STEER} scale 1; steer",)),
    (GATED, (f"{_STEER} at x[1] sharpness 1", f"{_STEER} at x[1] scale 1 threshold 1")),
    (GATED, (f"{_WHEN} prompt sharpness 1", f"{_WHEN} prompt[1] threshold 1")),
    (STEP, (f"{_STEER} at x[1] above 1", f"{_STEER} at x[1] scale 1 below 1")),
    (STEP, (f"{_STEER} at x[1] cosine", f"{_STEER} at x[1] scale 1 absolute")),
    (STEP, (f"{_WHEN} prompt above 1", f"{_WHEN} prompt[1] below 1")),
    (NORM, (f"{_STEER} at x[1] norm", f"{_STEER} norm scale 1", f"{_STEER} gate g norm")),
    (OVER, (f"{_STEER} at x[1] over", f"{_STEER} over 1", f"{_STEER} gate g over")),
    (BY, (f"{_STEER} at x[1] by b", f"{_STEER} scale 1 by b", f"{_WHEN} prompt by b")),
    (BY, (f"{_STEER} gate g by b", f"{_REPLACE} with b", f"{_REPLACE} , b", f"{_REPLACE} = b")),
    ("the amount is a clause: scale 4", (f"{_STEER} 4",)),
    ("a clause takes its value without '='", (f"{_STEER} scale = 4", f"{_CAP} in = [1, 2]")),
    ("an option takes its value without '='", ('interv 1 vector a = "b" rows = blocks',)),
    ("an option takes its value without '='", ('interv 1 vector a = "b" row = 1',)),
    ("an option takes its value without '='", ('interv 1 vector a = "b" key = "c"',)),
    (QUOTES, ("interv 1 vector a = b", "interv 1 vector a = 'b'", "interv 1 vector a = /b")),
    (QUOTES, ("interv 1 adapter a = b", "interv 1 adapter a = 'b'")),
    ('a vector is declared as NAME = "path"', ('interv 1 vector a "b"', 'interv 1 vector "b"')),
    ("a program's statements stand in braces: program NAME { … }", ("interv 1 program p steer",)),
    ("a sink is declared as NAME = kind(…)", ("interv 1 sink a = b", 'interv 1 sink a = "b"')),
    (POLICY, ("interv 1 program p { kv r1kv {", "interv 1 program p { kv {")),
    (SWITCH, ("interv 1 program p { kv }", "interv 1 program p { kv = on", f"{_KV} steer")),
    ("options are separated by spaces", ("interv 1 kv r1kv { a = 1, b",)),
    ("a request is NAME [* NUMBER] {+ NAME [* NUMBER]} or off", (EXPRESSION,)),
    ("multiply by a negative number to subtract: a + b*-1", (f"{EXPRESSION}a - b",)),
    ("the name comes first: calm*1.5", (f"{EXPRESSION}2*a", f"{EXPRESSION}a + 2*b")),
    ("the multiplier follows '*': calm*1.5", (f"{EXPRESSION}a 2", f"{EXPRESSION}a(2)")),
)
