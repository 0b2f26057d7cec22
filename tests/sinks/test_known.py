"""Kinds of sinks, built in and of other packages, and what a wrong declaration says."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import pytest

from interv.document.spec import SinkDecl
from interv.errors import IntervError
from interv.load import load_text
from interv.sinks import known
from interv.sinks.base import Detail, Sink, SinkOptions
from interv.sinks.filesystem import Filesystem
from interv.sinks.known import check_sink, kinds, make_sink
from interv.sinks.memory import Memory
from interv.sinks.record import Captured
from tests.repo.files import PROJECT
from tests.sinks.made import captured

ALL = (
    "overflow, queue_mib, spill_mib, folder, layout, on_collision, shard_mib, shard_s, quantize, "
    "fsync"
)


class Counter(Sink):
    """A sink of another package, with one option of its own."""

    class Options(SinkOptions):
        """How much a row counts."""

        weight: int = 1

    positional: ClassVar[tuple[str, ...]] = ("weight",)

    def put(self, captured: Captured) -> Detail:
        return {"rows": self.options.weight * sum(len(part.rows) for part in captured.parts)}


NOT_A_SINK = object()


def offer(monkeypatch: pytest.MonkeyPatch, **homes: str) -> None:
    """Let packages offer these kinds, as their installed metadata would."""
    entries = [
        EntryPoint(name, home, known.GROUP)
        for name, listed in homes.items()
        for home in listed.split()
    ]
    monkeypatch.setattr(known, "entry_points", lambda *, group: entries)


def faults(text: str, root: Path) -> list[str]:
    document = load_text(f"interv 1\nsink acts = {text}\n", "a.interv", root)
    return [str(error) for error in check_sink(document.spec.sinks[0], document, ("sinks", 0))]


def marked(at: int, length: int, text: str, under: str) -> str:
    """Return the excerpt of an error in the declaration `sink acts = text`."""
    line = f"sink acts = {text}"
    return f" --> a.interv:2:{at + 1}\n  |\n2 | {line}\n  | {' ' * at}{'^' * length} {under}"


def test_the_built_in_kinds() -> None:
    assert set(kinds()) >= {"filesystem", "memory"}
    offered = PROJECT["project"]["entry-points"][known.GROUP]
    assert offered == known.BUILT_IN


@pytest.mark.parametrize(
    "text",
    [
        'filesystem("acts/")',
        'filesystem(folder = "acts/", layout = per_file, fsync = false)',
        'filesystem("acts", layout = sharded, shard_mib = 64, shard_s = 2.5)',
        'filesystem("acts", quantize = int8, on_collision = error, overflow = spill)',
        "memory()",
        "memory(ttl_s = 5, mib = 16, overflow = drop, queue_mib = 1)",
    ],
)
def test_declarations_without_a_fault(text: str, tmp_path: Path) -> None:
    assert faults(text, tmp_path) == []


def test_an_unknown_kind(tmp_path: Path) -> None:
    text = 'filesytem("acts/")'
    assert faults(text, tmp_path) == [
        "error[E270]: no kind of sink is called 'filesytem'\n"
        f"{marked(12, 9, text, 'unknown kind')}\n  |\n"
        f"  = kinds: {', '.join(sorted(kinds()))}\n"
        "  = did you mean 'filesystem'?"
    ]


def test_an_unknown_option(tmp_path: Path) -> None:
    text = 'filesystem("acts/", layuot = packed)'
    assert faults(text, tmp_path) == [
        "error[E271]: filesystem has no option 'layuot'\n"
        f"{marked(32, 15, text, 'unknown option')}\n  |\n"
        f"  = options: {ALL}\n"
        "  = did you mean 'layout'?"
    ]


def test_every_wrong_option_is_told(tmp_path: Path) -> None:
    text = (
        'filesystem("a", layout = flat, shard_mib = 0, fsync = 1, shard_s = "x", queue_mib = 1.5)'
    )
    found = faults(text, tmp_path)
    assert [one.splitlines()[0] for one in found] == [
        "error[E271]: option 'queue_mib' of filesystem: input should be a valid integer",
        "error[E271]: option 'layout' of filesystem: "
        "input should be 'packed', 'per_file' or 'sharded'",
        "error[E271]: option 'shard_mib' of filesystem: input should be greater than or equal to 1",
        "error[E271]: option 'shard_s' of filesystem: input should be a valid number",
        "error[E271]: option 'fsync' of filesystem: input should be a valid boolean",
    ]
    assert marked(28, 13, text, "cannot be this") in found[1]


def test_a_missing_folder(tmp_path: Path) -> None:
    text = "filesystem(layout = packed)"
    assert faults(text, tmp_path) == [
        "error[E271]: filesystem needs the option 'folder'\n"
        f"{marked(0, 39, text, 'missing')}\n  |\n  = options: {ALL}"
    ]
    text = 'filesystem("none/acts")'
    (found,) = faults(text, tmp_path)
    assert found.splitlines()[0] == (
        "error[E272]: option 'folder' of filesystem cannot be used here: "
        f"'{tmp_path}/none' does not exist"
    )
    (tmp_path / "file").write_text("")
    (found,) = faults('filesystem("file")', tmp_path)
    assert found.splitlines()[0].endswith(f"'{tmp_path}/file' is not a folder")


def test_options_without_a_name(tmp_path: Path) -> None:
    (found,) = faults('filesystem("a", "b")', tmp_path)
    assert found.splitlines()[0] == (
        "error[E271]: filesystem(…) has one option without a name, not 2"
    )
    (found,) = faults("memory(600)", tmp_path)
    assert found.splitlines()[0] == "error[E271]: memory(…) has no option without a name, not 1"
    (found,) = faults('filesystem("a", folder = "b")', tmp_path)
    assert found.splitlines()[0] == "error[E271]: option 'folder' is given twice"


def test_a_declaration_made_in_python_is_named_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(IntervError) as error:
        make_sink(SinkDecl(name="acts", kind="memory", options=(("ttl", 1),)), tmp_path)
    assert str(error.value) == (
        "error[E271]: memory has no option 'ttl'\n"
        "  = options: overflow, queue_mib, spill_mib, ttl_s, mib\n"
        "  = in <spec>: sinks.0.options.0\n"
        "  = did you mean 'ttl_s'?"
    )


def test_sinks_are_made_with_their_options(tmp_path: Path) -> None:
    made = make_sink(
        SinkDecl(name="a", kind="filesystem", args=("acts/",), options=(("layout", "per_file"),)),
        tmp_path,
    )
    assert isinstance(made, Filesystem)
    assert (made.folder, made.options.layout) == (tmp_path / "acts", "per_file")
    kept = make_sink(SinkDecl(name="m", kind="memory"), tmp_path, folder=tmp_path / "rows")
    assert isinstance(kept, Memory)
    assert kept.spool.folder == tmp_path / "rows"


def test_a_kind_of_another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, counter=f"{__name__}:Counter", memory="elsewhere:Memory")
    assert faults("counter(3, overflow = drop)", tmp_path) == []
    sink = make_sink(SinkDecl(name="c", kind="counter", args=(3,)), tmp_path)
    assert sink.put(captured()) == {"rows": 30}
    # What is built in cannot be taken over.
    assert kinds()["memory"][0].value == known.BUILT_IN["memory"]


PACKAGE = """
from interv.sinks.base import Sink, SinkOptions


class Count(Sink):
    class Options(SinkOptions):
        path: str

    positional = ("path",)

    def put(self, captured):
        return {"rows": sum(len(part.rows) for part in captured.parts)}
"""


def test_a_package_that_is_installed_is_found(tmp_path: Path) -> None:
    info = tmp_path / "counting-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: counting\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[interv.sinks]\ncount = counting:Count\n")
    (tmp_path / "counting.py").write_text(PACKAGE)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from interv.sinks.known import make_sink\n"
        "from interv.document.spec import SinkDecl\n"
        "from tests.sinks.made import captured\n"
        "decl = SinkDecl(name='c', kind='count', args=('a',), options=(('overflow', 'drop'),))\n"
        "sink = make_sink(decl, Path('.'))\n"
        "print(sink.put(captured()), sink.options)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    expected = "{'rows': 10} overflow='drop' queue_mib=256 spill_mib=4096 path='a'\n"
    assert (done.stdout, done.stderr) == (expected, "")


def test_kinds_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(
        monkeypatch,
        gone="no.such.module:Sink",
        thing=f"{__name__}:NOT_A_SINK",
        two=f"{__name__}:Counter elsewhere:Counter",
    )
    (gone,), (thing,), (two,) = (faults(f"{kind}()", tmp_path) for kind in ("gone", "thing", "two"))
    assert gone.splitlines()[0] == "error[E270]: the kind of sink 'gone' cannot be loaded"
    assert "= no.such.module:Sink: ModuleNotFoundError: No module named 'no'" in gone
    assert thing.splitlines()[0] == (
        f"error[E270]: what '{__name__}:NOT_A_SINK' offers as 'thing' is not a kind of sink"
    )
    assert two.splitlines()[0] == (
        "error[E270]: several packages offer a kind of sink called 'two'"
    )
    assert f"= offered by: elsewhere:Counter, {__name__}:Counter" in two


def test_a_sink_without_put_says_so() -> None:
    class Bare(Sink):
        """Nothing."""

    with pytest.raises(TypeError, match="Bare has no method 'put'"):
        Bare(SinkOptions(), Path("/")).put(captured())


def test_a_check_loads_neither_torch_nor_vllm(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from interv.load import load_text\n"
        "from interv.sinks.known import check_sink\n"
        "text = 'interv 1 sink a = filesystem(\"a\") sink b = memory(ttl = 1)'\n"
        "document = load_text(text, root=Path(sys.argv[1]))\n"
        "for i, sink in enumerate(document.spec.sinks):\n"
        "    print(len(check_sink(sink, document, ('sinks', i))))\n"
        "assert not {'torch', 'vllm', 'safetensors'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("0\n1\n", "")


def test_options_are_frozen() -> None:
    options: Any = SinkOptions()
    assert (options.overflow, options.queue_mib, options.spill_mib) == ("block", 256, 4096)
    with pytest.raises(ValueError, match="frozen"):
        options.overflow = "drop"
