"""Text, JSON, YAML and builder calls carry a spec without loss; formatting is idempotent."""

from __future__ import annotations

import json

import yaml
from hypothesis import given, settings

from interv.document.as_python import to_python
from interv.document.spec import Program, RequestExpression, Spec
from interv.dsl.expression import parse_expression
from interv.dsl.formatter import format_text
from interv.dsl.printer import print_expression, print_spec, print_statement
from interv.dsl.read import read_spec
from interv.errors import Source
from interv.load import dump_json, dump_yaml
from tests.strategies import expressions, specs, statements

quick = settings(deadline=None, max_examples=150)


def parsed(text: str) -> Spec:
    return read_spec(Source("<test>", text))


@quick
@given(specs)
def test_text(spec: Spec) -> None:
    assert parsed(print_spec(spec)) == spec


@quick
@given(specs)
def test_canonical_text_is_what_fmt_makes(spec: Spec) -> None:
    text = print_spec(spec)
    assert format_text(text) == text


@quick
@given(statements)
def test_statement(statement: object) -> None:
    text = f"interv 1 program p {{ {print_statement(statement)} }}"
    assert parsed(text).programs == (Program(name="p", statements=(statement,)),)


@quick
@given(specs)
def test_json_and_yaml(spec: Spec) -> None:
    assert Spec.model_validate(json.loads(dump_json(spec))) == spec
    assert Spec.model_validate(yaml.safe_load(dump_yaml(spec))) == spec


@quick
@given(specs)
def test_builder(spec: Spec) -> None:
    names: dict[str, object] = {}
    exec(to_python(spec), names)
    assert names["doc"].spec() == spec


@quick
@given(expressions)
def test_expression(expression: RequestExpression) -> None:
    assert parse_expression(print_expression(expression)) == expression
