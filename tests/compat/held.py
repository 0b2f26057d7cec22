"""What a table of vLLM's names says against the seams: each function lists what is wrong."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from inspect import Parameter

from name_table import Table
from python_names import Found
from vllm_uses import Use

from interv.runtime.compat.seams import Name, Seam

# What a look at the class, or at the module, finds.
SHOWN = {"class", "def", "static", "classmethod", "property", "value", "lazy", "module"}


def ways(table: Table, seam: Seam, version: str) -> list[int]:
    """Return the numbers of the ways that a version has, in the order of the seam."""
    return [
        number
        for number, way in enumerate(seam.candidates)
        if all(table.find(name.path, version) for name in way)
    ]


def without_a_way(table: Table, seams: Sequence[Seam]) -> list[tuple[str, str]]:
    """Return the seams that a version has no way for, with the version."""
    return [
        (seam.title, version)
        for seam in seams
        for version in table.versions
        if not ways(table, seam, version)
    ]


def wrongly_looked_for(table: Table, names: Sequence[Name]) -> list[tuple[str, str]]:
    """Return names that are not said to be attributes, where the class does not show them."""
    return [
        (name.path, version)
        for name in names
        for version in table.versions
        if not name.attribute
        if (found := table.find(name.path, version)) and found.kind not in SHOWN
    ]


def lost(table: Table, uses: Sequence[Use], declared: Sequence[str]) -> list[tuple[str, str]]:
    """Return what the runtime imports, or reads of that, and a version does not have.

    Names of a seam are the seam's matter. What an object has that is no class and no module, like
    the platform, cannot be read from its file.
    """
    return [
        (use.name, version)
        for use in uses
        if not use.optional and dotted(use.name) not in map(dotted, declared)
        for version in table.versions
        if table.find(use.name, version) is None and _is_known(table, use.name, version)
    ]


def undeclared(table: Table, uses: Iterable[Use], declared: Sequence[str]) -> set[str]:
    """Return what the runtime imports, or reads of that, and no seam declares.

    Who declares a method declares its class; a name may be declared where it is defined. What is
    read of an object that is no class and no module is not looked for.
    """
    known = {name for path in declared for name in _places(table, path)}
    parts = {whole for one in known for whole in _wholes(one)}
    looked = (u for u in uses if not u.optional and _is_known(table, u.name, table.versions[-1]))
    return {use.name for use in looked if not parts & set(_places(table, use.name))}


def _places(table: Table, name: str) -> Iterator[str]:
    """Yield a name as it is written and, for each file that has it, as it is called there."""
    yield dotted(name)
    member = name.partition(":")[2]
    for span in table.names.get(name, ()):
        yield dotted(f"{span.file.removesuffix('.py').replace('/', '.')}:{member}")


def _wholes(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def _is_known(table: Table, name: str, version: str) -> bool:
    owner = table.find(name.rpartition(".")[0], version)
    return owner is None or owner.kind in ("class", "module")


def dotted(name: str) -> str:
    """Return a name without the mark between module and member, which may be a module itself."""
    return name.replace(":", ".")


def parameters(form: str) -> inspect.Signature:
    """Return the signature that is written down, with `...` for every default."""
    (function,) = ast.parse(f"def f{form.removeprefix('async ')}: ...").body
    assert isinstance(function, ast.FunctionDef)
    args = function.args
    plain = [*args.posonlyargs, *args.args]
    required = len(plain) - len(args.defaults)
    found = []
    for index, one in enumerate(plain):
        first = index < len(args.posonlyargs)
        how = Parameter.POSITIONAL_ONLY if first else Parameter.POSITIONAL_OR_KEYWORD
        default = ... if index >= required else Parameter.empty
        found.append(Parameter(one.arg, how, default=default))
    if args.vararg:
        found.append(Parameter(args.vararg.arg, Parameter.VAR_POSITIONAL))
    for one, value in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        default = Parameter.empty if value is None else ...
        found.append(Parameter(one.arg, Parameter.KEYWORD_ONLY, default=default))
    if args.kwarg:
        found.append(Parameter(args.kwarg.arg, Parameter.VAR_KEYWORD))
    return inspect.Signature(found)


def calls(signature: inspect.Signature, bound: int) -> Iterator[tuple[list[str], dict[str, str]]]:
    """Yield the forms in which a function may be called, the first `bound` arguments given.

    By place and by name, with what has a default and without.
    """
    known = list(signature.parameters.values())
    least = [one for one in known if one.default is Parameter.empty]
    for some in (least, known):
        by_place = [one for one in some if one.kind in _BY_PLACE]
        rest = {one.name: one.name for one in some if one.kind is Parameter.KEYWORD_ONLY}
        yield [one.name for one in by_place], rest
        given = [one for i, one in enumerate(by_place) if i < bound or one.kind is _BY_PLACE[0]]
        named = {one.name: one.name for one in by_place if one not in given}
        yield [one.name for one in given], named | rest


_BY_PLACE = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
# Arguments that come with the object or the class.
_BOUND = {"def": 1, "property": 1, "classmethod": 1}


def refused(found: Found, ours: inspect.Signature, bound: int, how: str = "both") -> list[str]:
    """Return the calls of vLLM's function that ours does not take, as written.

    `how` vLLM gives its arguments: "by place", "by name", or who knows, "both".
    """
    wrong = []
    for args, kwargs in calls(parameters(found.form), bound):
        if how == ("by name" if len(args) > bound else "by place"):
            continue
        # A static method that became a plain one, called of an object.
        given = ["self", *args] if found.kind == "static" and "self" in ours.parameters else args
        try:
            ours.bind(*given, **kwargs)
        except TypeError as error:
            said = ", ".join([*given, *(f"{name}=…" for name in kwargs)])
            wrong.append(f"({said}): {error}")
    return list(dict.fromkeys(wrong))


def bound_of(name: str, found: Found) -> int:
    """Return how many arguments come with the object or the class of a method."""
    return _BOUND.get(found.kind, 0) if "." in name.partition(":")[2] else 0


def unbound(
    table: Table, ours: Mapping[str, inspect.Signature], hows: Mapping[str, str]
) -> list[tuple[str, str, str]]:
    """Return the calls that a function of ours does not take, which stands for one of vLLM's.

    `hows` says of some how vLLM gives their arguments.
    """
    return [
        (name, version, call)
        for name, signature in ours.items()
        for version in table.versions
        if (found := table.find(name, version)) is not None
        for call in refused(found, signature, bound_of(name, found), hows.get(name, "both"))
    ]


def without(signature: inspect.Signature, *names: str) -> inspect.Signature:
    """Return a function's signature as its caller sees it: the first arguments are given."""
    rest = list(signature.parameters.values())
    assert [one.name for one in rest[: len(names)]] == list(names)
    return inspect.Signature(rest[len(names) :])
