"""Texts in `token("…")`: the ids they become, and what is said where they become none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings

from interv.document.document import Document
from interv.document.selectors import atoms, holds, satisfiable, selector_text
from interv.document.spec import (
    And,
    Capture,
    Not,
    Or,
    Program,
    Selector,
    SiteRef,
    Spec,
    Steer,
    Token,
)
from interv.document.token_texts import could_match, find_encoder, resolve_texts, texts
from interv.errors import IntervError, each
from interv.load import load_data, load_text
from tests.strategies import runnable_selectors, selectors_with_texts
from tests.tiny_tokenizer import NEWLINE, NO, YES, save_tokenizer

quick = settings(deadline=None, max_examples=200)
AT = SiteRef(name="post_block", layers=(1,))
HEAD = 'interv 1 vector v = "v" sink s = memory() program p '


def length(text: str) -> list[int]:
    """Encode a text as its length, so that many texts share an id."""
    return [len(text)]


def selector_of(document: Document) -> Selector:
    statement = document.spec.programs[0].statements[0]
    return statement.tokens if isinstance(statement, Capture) else statement.when


def resolved(selector: Selector) -> Selector:
    steer = Steer(at=AT, vector="v", when=selector)
    spec = Spec(programs=(Program(name="p", statements=(steer,)),))
    return selector_of(resolve_texts(Document(spec, Path()), length))


def meant(selector: Selector, position: int, prompt_length: int, token_id: int) -> bool:
    """Evaluate a selector with texts, one token at a time."""
    place = (position, prompt_length, token_id)
    match selector:
        case Token(ids=ids):
            return any(token_id == (len(one) if isinstance(one, str) else one) for one in ids)
        case Not(term=term):
            return not meant(term, *place)
        case And(terms=terms):
            return all(meant(term, *place) for term in terms)
        case Or(terms=terms):
            return any(meant(term, *place) for term in terms)
        case _:
            return holds(selector, *place)


@quick
@given(selectors_with_texts)
def test_what_a_selector_means_stays(selector: Selector) -> None:
    after = resolved(selector)
    for position, token_id in ((p, t) for p in range(6) for t in range(5)):
        assert holds(after, position, 4, token_id) == meant(selector, position, 4, token_id)
    for leaf in atoms(after):
        if isinstance(leaf, Token):
            assert all(isinstance(one, int) for one in leaf.ids)
            assert len(set(leaf.ids)) == len(leaf.ids)


@quick
@given(selectors_with_texts)
def test_what_could_match_errs_towards_yes(selector: Selector) -> None:
    assert could_match(selector) >= satisfiable(resolved(selector))


@quick
@given(runnable_selectors)
def test_without_texts_it_is_exact(selector: Selector) -> None:
    assert could_match(selector) == satisfiable(selector)


def test_ids_keep_the_order_of_their_first_occurrence() -> None:
    after = resolved(Token(ids=("abc", 7, "a", 3, "xyz", 1, 9)))
    assert selector_text(after) == "token(3, 7, 1, 9)"


def test_texts_of_captures_too() -> None:
    document = load_text(f'{HEAD} {{ capture at post_block[1] tokens token("abc") to s }}')
    assert selector_text(selector_of(resolve_texts(document, length))) == "token(3)"
    assert document.span(*texts(document)["abc"]) == document.span(
        "programs", 0, "statements", 0, "tokens", "ids", 0
    )


def test_a_document_without_texts_needs_no_tokenizer() -> None:
    document = load_text(f"{HEAD} {{ steer v at post_block[1] when token(2, 1) or prompt }}")
    assert resolve_texts(document, None) == document


def test_whether_texts_exclude_each_other_is_known_later() -> None:
    said = 'steer v at post_block[1] when token("a") and token(1) and not token("abc")'
    assert load_text(f"{HEAD} {{ {said} }}").spec.programs[0].statements
    with pytest.raises(IntervError, match="no token can ever match"):
        load_text(f'{HEAD} {{ steer v at post_block[1] when token("a") and prompt[3:1] }}')
    with pytest.raises(IntervError, match="no token can ever match"):
        load_text(f'{HEAD} {{ steer v at post_block[1] when token("a") and not all }}')


def message(document: Document, folder: Path | None) -> str:
    encode = None if folder is None else find_encoder(str(folder))
    with pytest.raises(IntervError) as caught:
        resolve_texts(document, encode)
    return str(caught.value)


def test_a_text_of_several_tokens(tmp_path: Path) -> None:
    text = f'{HEAD} {{ steer v at post_block[1] when token("no", "yes") or not token("nono") }}'
    document, column = load_text(text, "a.interv"), text.index('"yes"') + 1
    second = text.index('"nono"') + 1
    assert message(document, save_tokenizer(tmp_path)) == (
        f"""\
error[E213]: token("yes") is 2 tokens of this model, not 1
 --> a.interv:1:{column}
  |
1 | {text}
  | {" " * (column - 1)}^^^^^ 2 tokens
  |
  = its tokens: 6, 2
  = did you mean token(" yes")? it is one token

error[E213]: token("nono") is 2 tokens of this model, not 1
 --> a.interv:1:{second}
  |
1 | {text}
  | {" " * (second - 1)}^^^^^^ 2 tokens
  |
  = its tokens: 9, 9
  = a selector sees one token at a time: name one of these by its id"""
    )


def test_a_space_too_many_no_text_and_a_long_one(tmp_path: Path) -> None:
    when = {"kind": "token", "ids": [" no", "", "no" * 9]}
    steer = {"op": "steer", "vector": "v", "at": {"name": "post_block", "layers": [1]}}
    data = {
        "interv": 1,
        "vectors": [{"name": "v", "path": "v"}],
        "programs": [{"name": "p", "statements": [{**steer, "when": when}]}],
    }
    place = "in a.json: programs.0.statements.0.when.ids"
    assert message(load_data(data, "a.json"), save_tokenizer(tmp_path)) == (
        'error[E213]: token(" no") is 2 tokens of this model, not 1\n'
        f"  = its tokens: 3, 9\n  = {place}.0\n"
        '  = did you mean token("no")? it is one token\n\n'
        f'error[E213]: token("") is 0 tokens of this model, not 1\n  = {place}.1\n\n'
        f'error[E213]: token("{"no" * 9}") is 9 tokens of this model, not 1\n'
        f"  = its tokens: 9, 9, 9, 9, 9, 9, 9, 9, …\n  = {place}.2\n"
        "  = a selector sees one token at a time: name one of these by its id"
    )


def test_no_tokenizer_is_known() -> None:
    text = f'{HEAD} {{ steer v at post_block[1] when token("yes") or token("yes") }}'
    column = text.index('"yes"') + 1
    assert message(load_text(text, "a.interv"), None) == (
        f"""\
error[E214]: token("yes") needs the model's tokenizer, and none is known
 --> a.interv:1:{column}
  |
1 | {text}
  | {" " * (column - 1)}^^^^^ no tokenizer
  |
  = give the ids of the tokens: token(2, 15)"""
    )


def encoded(model: str | Path, text: str) -> Sequence[int]:
    encode = find_encoder(str(model))
    assert encode is not None
    return encode(text)


def test_the_tokenizer_of_a_folder(tmp_path: Path) -> None:
    folder = save_tokenizer(tmp_path / "model")
    (folder / "config.json").touch()
    for model in (folder, folder / "config.json"):
        # Neither cut nor padded, whatever the file asks for.
        assert encoded(model, "\nno yes") == [NEWLINE, NO, YES]


def test_the_tokenizer_of_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    kept = tmp_path / "models--some--model"
    save_tokenizer(kept / "snapshots" / "abc")
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("abc")
    assert encoded("some/model", "no") == [NO]
    assert find_encoder("some/other") is None
    assert find_encoder("not a name") is None


def test_no_tokenizer_and_a_damaged_one(tmp_path: Path) -> None:
    assert find_encoder(str(tmp_path)) is None
    path = tmp_path / "tokenizer.json"
    path.write_text("{")
    with pytest.raises(IntervError) as caught:
        find_encoder(str(tmp_path))
    (error,) = each(caught.value)
    assert error.code == "E533"
    assert error.message.startswith(f"'{path}' is not a tokenizer: ")
