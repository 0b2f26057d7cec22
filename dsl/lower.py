"""Lower a syntax tree to the plain data that `Spec` is made of, and remember where it stood."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from lark import Token, Tree

from interv.document.checks import scaled_concept
from interv.document.document import SpecPath
from interv.document.validation import named_twice
from interv.dsl.clauses import CLAUSES, REQUIRED, SHAPE
from interv.dsl.lower_selector import lower_selector
from interv.dsl.values import Values, short
from interv.errors import IntervError, Label, Span, suggest

Node: TypeAlias = Tree[Token]
Data: TypeAlias = dict[str, Any]


_QUALIFIERS = {
    "norm": "a scale in norms adds a share of the stream's own length: steer v … scale 0.1 norm",
    "over": "only what ablate takes away can be more than all of it: ablate v … strength 1.5 over",
}


@dataclass(slots=True)
class Lowering:
    """One run over one tree; `data`, `spans` and `errors` are its result."""

    values: Values
    spans: dict[SpecPath, Span] = field(default_factory=dict)
    renamed: set[str] = field(default_factory=set)  # what second namesakes are called instead

    @property
    def errors(self) -> list[IntervError]:
        """Return what was refused so far."""
        return self.values.errors

    def document(self, tree: Node) -> Data:
        """Lower a whole document."""
        data: Data = {"interv": self._version(tree)}
        self.spans[()] = self.values.span(tree.children[0])
        many: Mapping[str, tuple[str, Callable[[Node, SpecPath], Data]]] = {
            "vector": ("vectors", self._vector),
            "adapter": ("adapters", self._adapter),
            "program": ("programs", self._program),
            "sink": ("sinks", self._sink),
        }
        for item in tree.children[2:]:
            if item.data in many:
                name, lower = many[item.data]
                place = data.setdefault(name, [])
                path = (name, len(place))
                self._mark(path, item)
                self._mark((*path, "name"), item.children[1])
                place.append({"name": str(item.children[1]), **lower(item, path)})
            else:
                self._single(data, item)
        for name in ("vectors", "adapters", "programs", "sinks"):
            self._drop_twice(name, data.get(name, []))
        return data

    def _mark(self, path: SpecPath, node: Node | Token) -> None:
        self.spans[path] = self.values.span(node)

    def _version(self, tree: Node) -> int:
        number = tree.children[1]
        if str(number) != "1":
            message = f"version {short(number)} is not supported"
            span, notes = self.values.span(number), ("versions: 1",)
            self.errors.append(IntervError("E104", message, span, "unknown version", notes=notes))
        return 1

    def _drop_twice(self, name: str, items: list[Data]) -> None:
        paths: list[tuple[str, SpecPath]] = [
            (str(item["name"]), (name, i, "name")) for i, item in enumerate(items)
        ]
        self.errors.extend(named_twice(name.removesuffix("s"), paths, self.spans.get))
        seen: set[str] = set()
        for i, item in enumerate(items):
            if item["name"] in seen:
                # Renamed, not removed: the spans of later items stay true.
                item["name"] = f"__{name}_{i}"
                self.renamed.add(item["name"])
            seen.add(item["name"])

    def _single(self, data: Data, item: Node) -> None:
        word = str(item.data)
        if word in data:
            more = (Label(self.spans[(word,)], "first here"),)
            self._refuse("E106", f"'{word}' is given twice", item.children[0], "again", more=more)
            return
        self._mark((word,), item if word == "kv" else item.children[1])
        if word in ("conflict", "default"):
            data[word] = str(item.children[1])
            return
        self._mark(("kv", "policy"), item.children[1])
        options = self._options(item.children[2:], ("kv",))
        data[word] = {"policy": str(item.children[1]), "options": options}

    def _refuse(
        self, code: str, message: str, node: Node | Token, label: str, **facts: Any
    ) -> None:
        self.errors.append(IntervError(code, message, self.values.span(node), label, **facts))

    # Declarations

    def _vector(self, item: Node, path: SpecPath) -> Data:
        data: Data = {"path": self._text(item.children[2], (*path, "path"))}
        for option in item.children[3:]:
            word = str(option.children[0])
            if word in data:
                self._refuse("E106", f"'{word}' is given twice", option, "again")
            else:
                data[word] = self._vector_option(word, option.children[1:], (*path, word))
        return data

    def _vector_option(self, word: str, said: list[Node | Token], path: SpecPath) -> object:
        if word == "unit":
            return True
        token = said[0]
        assert isinstance(token, Token)
        if word == "key":
            return self._text(token, path)
        self._mark(path, token)
        return self.values.integer(token) if word == "row" else str(token)

    def _adapter(self, item: Node, path: SpecPath) -> Data:
        return {"path": self._text(item.children[2], (*path, "path"))}

    def _text(self, token: Token, path: SpecPath) -> str:
        self._mark(path, token)
        return self.values.text(token)

    def _sink(self, item: Node, path: SpecPath) -> Data:
        self._mark((*path, "kind"), item.children[2])
        inner = [argument.children[0] for argument in item.children[3:] if argument is not None]
        options = [one for one in inner if one.data == "option"]
        args = [one for one in inner if one.data == "value"]
        for one in args:
            if options and one.meta.start_pos > options[0].meta.start_pos:
                self._refuse("E101", "an argument follows an option", one, "move it to the front")
        return {
            "kind": str(item.children[2]),
            "args": [self.values.scalar(one.children[0]) for one in args],
            "options": self._options(options, path),
        }

    def _options(self, options: Iterable[Node], path: SpecPath) -> list[tuple[str, object]]:
        out: list[tuple[str, object]] = []
        for option in options:
            self._mark((*path, "options", len(out)), option)
            name, value = option.children
            out.append((str(name), self.values.scalar(value.children[0])))
        return out

    # Programs

    def _program(self, item: Node, path: SpecPath) -> Data:
        statements: list[Data] = []
        data: Data = {"statements": statements}
        for node in item.children[2:]:
            if node.data in ("conflict", "cache"):
                self._said_once(data, node, path)
                continue
            here = (*path, "statements", len(statements))
            self._mark(here, node)
            if (statement := self._statement(node, here)) is not None:
                statements.append(statement)
        return data

    def _said_once(self, data: Data, node: Node, path: SpecPath) -> None:
        """Lower `conflict POLICY` or `kv on`, which a program says once at most."""
        word, said = (str(token) for token in node.children)
        if word in data:
            more = (Label(self.spans[(*path, word)], "first here"),)
            self._refuse("E106", f"'{word}' is given twice", node, "again", more=more)
            return
        self._mark((*path, word), node.children[1])
        data[word] = said if word == "conflict" else self._switch(said, node.children[1])

    def _switch(self, said: str, word: Token) -> bool:
        if said not in ("on", "off"):
            helps = suggest(said, ("on", "off")) or ("a policy is declared outside of programs",)
            message = f"a program says 'kv on' or 'kv off', not 'kv {said}'"
            self._refuse("E211", message, word, "neither on nor off", helps=helps)
        return said == "on"

    def _statement(self, node: Node, path: SpecPath) -> Data | None:
        """Lower one statement; None where a clause it needs is missing."""
        op = str(node.children[0])
        data: Data = {"op": op}
        clauses = node.children[1:]
        if op != "capture":
            name = "adapter" if op == "apply" else "vector"
            self._mark((*path, name), clauses[0])
            data[name] = str(clauses[0])
            clauses = clauses[1:]
        found = self._by_name(op, clauses)
        if "by" in found and "scale" in found:
            scale = found.pop("scale").children[0]
            self.errors.append(scaled_concept(self.values.span(scale)))
        for word, clause in found.items():
            self._clause(data, word, clause, path)
        return data if self._has_all(op, clauses, node) else None

    def _by_name(self, op: str, clauses: Iterable[Node]) -> dict[str, Node]:
        """Return the clauses by name, without those that are twice or that `op` has not."""
        out: dict[str, Node] = {}
        for clause in clauses:
            word = str(clause.data)
            if word not in CLAUSES[op]:
                notes = (f"clauses of {op}: {', '.join(CLAUSES[op])}",)
                message = f"{op} has no clause '{word}'"
                token = clause.children[0]
                self._refuse("E107", message, token, f"not a clause of {op}", notes=notes)
            elif word in out:
                more = (Label(self.values.span(out[word]), "first here"),)
                self._refuse("E106", f"'{word}' is given twice", clause, "again", more=more)
            else:
                out[word] = clause
        return out

    def _has_all(self, op: str, clauses: list[Node], node: Node) -> bool:
        present = {str(clause.data) for clause in clauses}
        missing = [word for word in REQUIRED[op] if word not in present]
        in_gate = any(
            part.data == "at"
            for clause in clauses
            if clause.data == "gate"
            for part in clause.children[2:]
        )
        for word in missing:
            shape = SHAPE.get(f"{op} {word}", SHAPE.get(word, word))
            helps = [f"add '{shape}'"]
            if word == "at" and in_gate:
                helps = [f"the 'at' after 'gate' is the gate's own; put that of {op} before 'gate'"]
            head = node.children[0]
            self._refuse("E108", f"{op} needs '{shape}'", head, f"no '{word}'", helps=helps)
        return not missing

    def _clause(self, data: Data, word: str, clause: Node, path: SpecPath) -> None:
        parts = clause.children[1:]
        match word:
            case "at":
                data["at"] = self._place(parts[0], (*path, "at"))
            case "in":
                self._mark((*path, "in"), clause)
                for name, part in zip(("low", "high"), parts, strict=True):
                    if part is not None:
                        self._mark((*path, name), part)
                        data[name] = self.values.number(part)
            case "when" | "tokens":
                data[word] = self._selector(parts[0], (*path, word))
            case "gate":
                data["gate"] = self._gate(clause, (*path, "gate"))
            case "after":
                data["after"] = True
            case "keep" if data["op"] != "capture":
                self._keep_norm(data, parts[0], path)
            case "adaptive":
                data["adaptive"] = True
            case "to":
                self._to(data, parts[0], path)
            case "by" | "towards" | "keep":
                self._mark((*path, word), parts[0])
                data[word] = str(parts[0])
            case _:
                self._mark((*path, word), parts[0])
                read = self.values.integer if word == "rank" else self.values.number
                data[word] = read(parts[0])
                if len(parts) > 1:
                    self._qualified(data, parts[1], path)

    def _to(self, data: Data, word: Token, path: SpecPath) -> None:
        """Lower where a capture goes, a name, or to which angle a rotation turns."""
        self._mark((*path, "to"), word)
        turns, number = data["op"] == "rotate", word.type == "NUMBER"
        if turns != number:
            wanted = "an angle in degrees" if turns else "the name of a sink"
            message = f"expected {wanted} after 'to', found '{short(word)}'"
            self._refuse("E101", message, word, f"expected {wanted}")
            data["to"] = 0.0 if turns else "_"
        else:
            data["to"] = self.values.number(word) if number else str(word)

    def _keep_norm(self, data: Data, word: Token, path: SpecPath) -> None:
        self._mark((*path, "keep_norm"), word)
        if str(word) == "norm":
            data["keep_norm"] = True
            return
        op = data["op"]
        helps, notes = suggest(str(word), ("norm",)), (f"{op} keeps: norm",)
        message = f"'{word}' is not something that {op} keeps"
        self._refuse("E211", message, word, f"not kept by {op}", notes=notes, helps=helps)

    def _qualified(self, data: Data, word: Token, path: SpecPath) -> None:
        """Lower what stands behind an amount: `scale 0.1 norm`, `strength 1.5 over`."""
        field, owner = {"norm": ("by_norm", "steer"), "over": ("over", "ablate")}[str(word)]
        self._mark((*path, field), word)
        if data["op"] == owner:
            data[field] = True
            return
        message = f"'{word}' is for {owner}, not for {data['op']}"
        self._refuse("E860", message, word, f"not of {data['op']}", notes=(_QUALIFIERS[str(word)],))

    def _selector(self, node: Node, path: SpecPath) -> Data:
        before = len(self.errors)
        selector = lower_selector(node, self.values, self.spans, path)
        return selector if len(self.errors) == before else {"kind": "all"}

    def _gate(self, clause: Node, path: SpecPath) -> Data:
        self._mark(path, clause)
        self._mark((*path, "vector"), clause.children[1])
        data: Data = {"vector": str(clause.children[1])}
        for word, part in self._by_name("gate", clause.children[2:]).items():
            if word == "at":
                data["site"] = self._place(part.children[1], (*path, "site"))
            elif len(part.children) == 1:
                self._mark((*path, word), part)
                data[word] = True
            else:
                self._mark((*path, word), part.children[1])
                data[word] = self.values.number(part.children[1])
        return data

    def _place(self, place: Node, path: SpecPath) -> Data:
        name, *layers = place.children
        self._mark(path, place)
        self._mark((*path, "name"), name)
        for i, layer in enumerate(layers):
            self._mark((*path, "layers", i), layer)
        return {"name": str(name), "layers": [self._layer(layer) for layer in layers]}

    def _layer(self, layer: Node) -> object:
        if layer.children[0].type == "STAR":
            return "*"
        first, _, last = (*layer.children, None)[:3]
        if last is None:
            return self.values.integer(first)
        return {"first": self.values.integer(first), "last": self.values.integer(last)}
