"""What documents say together: the policy for requests, and texts that become ids."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from safetensors.numpy import save_file
from typer.testing import CliRunner, Result

from interv.commands.compile import compile_
from interv.compile import Compilation, compile_documents
from interv.document.selectors import selector_text
from interv.errors import IntervError
from interv.explain import explain, explain_spec
from interv.load import load_text
from interv.model import ModelFacts
from tests.tiny_tokenizer import NO, YES, save_tokenizer, tiny_tokenizer

SMALL = ModelFacts("small", "SmallForCausalLM", 16, 4)
PROGRAM = 'vector v = "v.safetensors"\nprogram {} {{ steer v at post_block[1] {} }}\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file({"v": np.ones(16, np.float32)}, tmp_path / "v.safetensors")
    return tmp_path


def encode(text: str) -> list[int]:
    tokenizer = tiny_tokenizer()
    tokenizer.no_truncation()
    tokenizer.no_padding()
    found: list[int] = tokenizer.encode(text).ids
    return found


def compiled(folder: Path, *texts: str) -> Compilation:
    documents = [
        load_text(f"interv 1\n{text}", f"{name}.interv", folder)
        for name, text in zip("abcd", texts, strict=False)
    ]
    return compile_documents(documents, SMALL, encode)


def message(folder: Path, *texts: str) -> str:
    with pytest.raises(IntervError) as caught:
        compiled(folder, *texts)
    return str(caught.value)


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        (["", ""], "sequential"),
        (["", "conflict sum"], "sum"),
        (["conflict error", ""], "error"),
        (["conflict sequential", "conflict sequential"], "sequential"),
    ],
)
def test_the_policy_of_requests(folder: Path, policies: list[str], expected: str) -> None:
    texts = [PROGRAM.format(f"p{i}", "") + policy for i, policy in enumerate(policies)]
    found = compiled(folder, *texts)
    assert found.conflict == found.bundle.conflict == expected
    # A program's own policy is about its own edits.
    assert {one.conflict for one in found.programs} == {"sequential"}


def test_two_policies(folder: Path) -> None:
    assert message(folder, "conflict sum", "conflict sum", "conflict priority") == (
        """\
error[E404]: two documents state different conflict policies: a.interv:2 and c.interv:2
 --> c.interv:2:10
  |
2 | conflict priority
  |          ^^^^^^^^ priority here
 --> a.interv:2:10
  |
2 | conflict sum
  |          ^^^ sum here
  |
  = one policy applies wherever programs of one request meet"""
    )


def test_the_explain_states_the_policy_where_a_document_does(folder: Path) -> None:
    said = explain(compiled(folder, PROGRAM.format("p", "") + "conflict sum")).splitlines()
    line = "  conflict sum, where programs of one request meet"
    assert line + "a.interv:4".rjust(100 - len(line)) in said
    assert "where programs of one request meet" not in explain(
        compiled(folder, PROGRAM.format("p", ""))
    )


def test_texts_are_their_ids(folder: Path) -> None:
    texts = compiled(folder, PROGRAM.format("p", 'when token(" yes", "no") and prompt'))
    ids = compiled(folder, PROGRAM.format("p", f"when token({YES}, {NO}) and prompt"))
    assert texts.bundle.contents == ids.bundle.contents
    assert [selector_text(one) for one in texts.bundle.selectors] == [
        f"token({YES}, {NO}) and prompt"
    ]
    assert (texts.token_ids, ids.token_ids) == ({" yes": (YES,), "no": (NO,)}, {})


def test_the_explain_shows_both(folder: Path) -> None:
    found = compiled(folder, PROGRAM.format("p", 'when token(" yes", "no", " yes") and prompt'))
    text = explain(found, "plan")
    rows = [line for line in text.splitlines() if line.startswith("  token(")]
    written = [f'  token(" yes")  = {YES}', f'  token("no")    = {NO}']
    assert rows == [row + "a.interv:3".rjust(100 - len(row)) for row in written]
    assert 'when token(" yes", "no", " yes") and prompt' in text
    assert f"select token({YES}, {NO}) and prompt" in text
    assert 'token("no") ' not in explain_spec(found.documents)


def test_texts_of_one_id_meet(folder: Path) -> None:
    two = (
        'vector v = "v.safetensors"\nprogram p {{\n'
        '  steer v at post_block[1] when token("no")\n'
        "  steer v at post_block[1] when {}\n  conflict error\n}}\n"
    )
    assert "error[E401]" in message(folder, two.format(f"token({NO})"))
    assert compiled(folder, two.format('token(" yes")')).bundle.programs == ("p",)


def test_a_selector_that_its_ids_make_empty(folder: Path) -> None:
    assert message(folder, PROGRAM.format("p", f'when token("no") and not token({NO})')) == (
        f"""\
error[E209]: no token can ever match 'token({NO}) and not token({NO})'
 --> a.interv:3:43
  |
3 | program p {{ steer v at post_block[1] when token("no") and not token({NO}) }}
  |                                           {"^" * 28} never matches"""
    )


def run(*args: object) -> Result:
    app = typer.Typer()
    app.command()(compile_)
    return CliRunner().invoke(app, [str(one) for one in args])


def test_the_command_finds_the_tokenizer(folder: Path) -> None:
    file, model = folder / "a.interv", folder / "model"
    file.write_text("interv 1\n" + PROGRAM.format("p", 'when token("no")'))
    model.mkdir()
    config = {"hidden_size": 16, "num_hidden_layers": 4, "architectures": ["Small"]}
    (model / "config.json").write_text(json.dumps(config))
    without = run(file, "--model", model)
    assert (without.exit_code, without.stderr.splitlines()[0]) == (
        1,
        'error[E214]: token("no") needs the model\'s tokenizer, and none is known',
    )
    save_tokenizer(model)
    found = run(file, "--model", model, "--explain")
    assert (found.exit_code, f'  token("no")  = {NO} ' in found.stdout) == (0, True)
