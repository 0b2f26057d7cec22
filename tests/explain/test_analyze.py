"""`--analyze` without an engine: what is refused, and how measurements print."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import typer
from safetensors.numpy import save_file
from typer.testing import CliRunner, Result

from interv.commands.compile import compile_
from interv.compile import Compilation, compile_documents
from interv.errors import IntervError
from interv.explain import explain
from interv.load import load_text
from interv.measuring.analyze import PROMPTS, Load, analyze
from interv.measuring.engine_process import run, run_module
from interv.measuring.measurement import Measurement, Run, load
from interv.model import ModelFacts

ROOT = Path(__file__).parents[2]
MODEL = "examples/models/smollm2-135m"
SMALL = ModelFacts("small", "SmallForCausalLM", 16, 4)
TEXT = """interv 1
vector v = "v.safetensors"
program up { steer v at post_block[1..2] when generated }
program down { cap v at post_block[1..2] in [, 0]  steer v at post_block[3] scale -1 }
"""
PLAIN = ((100.0, 200.0, 300.0), (110.0, 220.0, 330.0), (90.0, 180.0, 270.0))
FOUND = Measurement(
    machine="2 cores of a processor",
    engine="vLLM 0.32.0",
    dtype="bfloat16",
    element_bytes=2,
    requests=2,
    prompt_tokens=9,
    new_tokens=4,
    runs=(
        Run("off", {}, PLAIN),
        Run(
            "up",
            {"up": {"post_block[1]": 6, "post_block[2]": 6}},
            tuple(tuple(1.5 * us for us in steps) for steps in PLAIN),
        ),
        Run("down", {"down": {"post_block[1]": 15, "post_block[3]": 15}}, PLAIN),
    ),
)


def compiled(folder: Path, text: str = TEXT) -> Compilation:
    save_file({"v": np.ones(16, np.float32)}, folder / "v.safetensors")
    return compile_documents([load_text(text, "t.interv", folder)], SMALL)


def command(*args: str) -> Result:
    app = typer.Typer()
    app.command()(compile_)
    return CliRunner().invoke(app, list(args))


def refused(*args: str) -> str:
    result = command(*args)
    assert (result.exit_code, result.stdout) == (1, "")
    return result.stderr


def test_measured_columns_stand_in_the_plan(tmp_path: Path) -> None:
    found = compiled(tmp_path)
    plain, shown = explain(found, "plan"), explain(found, "plan", measured=FOUND)
    added = [line for line in shown.splitlines() if line not in plain.splitlines()]
    assert [line for line in shown.splitlines() if line not in added] == plain.splitlines()
    # 3·H elements of two bytes a row: hidden and residual read, hidden written.
    assert added == [
        "    measured                                      up: 6 of 15 rows a site, 1152 B moved",
        "    measured                                      down: 0 to 15 of 15 rows a site,"
        " 1440 B moved",
        "    measured                                      down: 15 of 15 rows a site,"
        " 1440 B moved",
        "  measured on 2 cores of a processor: vLLM 0.32.0, bfloat16,",
        "  2 prompts of 9 tokens together, 4 new tokens each, 3 rounds, T = 2 a step",
        "    unedited      0.20 ms a step, quartiles 0.11 … 0.27",
        "    up            0.30 ms a step, quartiles 0.17 … 0.41   1.500 × unedited",
        "              12 rows edited, 1152 B of stream in a round",
        "    down          0.20 ms a step, quartiles 0.11 … 0.27   1.000 × unedited",
        "              30 rows edited, 2880 B of stream in a round",
    ]
    assert all(len(line) <= 100 for line in shown.splitlines())


def test_json_has_the_same_numbers(tmp_path: Path) -> None:
    plan = json.loads(explain(compiled(tmp_path), form="json", measured=FOUND))["plan"]
    first, second = plan["sites"]
    assert first["measured"][0] == {
        "program": "up",
        "rows": 12,
        "least": 6,
        "most": 6,
        "fed": 15,
        "stream_bytes": 12 * 3 * 16 * 2,
    }
    assert [one["program"] for one in second["measured"]] == ["down"]
    assert [one["ratio"] for one in plan["measured"]["steps"]] == [1.0, 1.5, 1.0]
    assert plan["measured"]["steps"][1]["median_us"] == 300.0
    assert plan["measured"]["fed"] == 15
    unmeasured = json.loads(explain(compiled(tmp_path), form="json"))["plan"]
    assert unmeasured["measured"] is None
    assert [one["measured"] for one in unmeasured["sites"]] == [[], []]


def test_a_measurement_travels_as_json() -> None:
    assert load(json.loads(FOUND.dump())) == FOUND


def test_a_ratio_pairs_the_rounds() -> None:
    """A round that was slow for both says nothing about the edit."""
    slow = Measurement(
        **{name: getattr(FOUND, name) for name in ("machine", "engine", "dtype", "element_bytes")},
        requests=1,
        prompt_tokens=1,
        new_tokens=2,
        runs=(
            Run("off", {}, ((100.0,), (1000.0,), (100.0,))),
            Run("p", {}, ((101.0,), (1020.0,), (150.0,))),
        ),
    )
    assert slow.ratio(slow.runs[1]) == 1.02
    assert (slow.rounds, slow.fed_tokens) == (3, 2)


@pytest.mark.usefixtures("at_root")
def test_options_that_do_not_go_together() -> None:
    joy = "examples/joy.interv"
    assert refused(joy, "--analyze") == (
        "error[E251]: '--analyze' needs a model\n"
        "  = add --model with a folder that has a config.json and weights\n"
    )
    assert refused(joy, "-m", MODEL, "--analyze", "--stage", "graph") == (
        "error[E252]: '--stage graph' shows nothing that --analyze measures\n"
        "  = leave it out, or use --stage plan\n"
    )
    assert "'--pass place' shows nothing" in refused(
        joy, "-m", MODEL, "--analyze", "--pass", "place"
    )
    assert refused(joy, "-m", MODEL, "--prompt", "Hi") == (
        "error[E252]: '--prompt' says nothing without --analyze\n"
    )
    assert refused(joy, "-m", MODEL, "--tokens", "8") == (
        "error[E252]: '--tokens' says nothing without --analyze\n"
    )
    assert command(joy, "-m", MODEL, "--analyze", "--tokens", "1").exit_code == 2


@pytest.mark.usefixtures("at_root")
def test_a_model_without_weights() -> None:
    for model in (MODEL, f"{MODEL}/config.json"):
        said = refused("examples/joy.interv", "-m", model, "--analyze")
        assert said.startswith(
            f"error[E546]: the model in '{MODEL}' has no weights, so nothing can be measured on"
            " it\n"
            "  = files there: "
        )
        assert said.endswith("  = give a folder with weights, or leave out --analyze\n")


def message(found: Compilation, model: Path, prompts: tuple[str, ...] = PROMPTS) -> str:
    with pytest.raises(IntervError) as caught:
        analyze(found, [Path("t.interv")], str(model), Load(prompts))
    return str(caught.value)


def test_what_cannot_be_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = compiled(tmp_path)
    many = ("Hi",) * 65
    assert message(found, tmp_path, many) == (
        "error[E253]: 65 prompts are given, 64 can be measured at once"
    )
    assert message(found, tmp_path, ("Hi", "")) == "error[E253]: a prompt is empty"
    empty = compiled(tmp_path, 'interv 1\nvector v = "v.safetensors"\n')
    assert message(empty, tmp_path) == (
        "error[E504]: the documents have no program, so there is nothing to measure"
    )
    monkeypatch.setattr("interv.runtime.compat.version._DISTRIBUTIONS", ())
    assert message(found, tmp_path).splitlines()[0] == "error[E500]: vLLM is not installed"


@pytest.fixture
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture
def module(tmp_path: Path) -> str:
    """Write a module in place of an engine; its job says what it shall do."""
    text = """
        import json, sys
        from pathlib import Path
        job = json.loads(Path(sys.argv[1]).read_text())
        for line in job["tells"]:
            print(line, file=open(sys.argv[3], "a"))
        if "result" in job:
            import time
            time.sleep(0.5)
            Path(sys.argv[2]).write_text(json.dumps(job["result"]))
        else:
            sys.exit("it broke")
    """
    (tmp_path / "toy_engine.py").write_text(textwrap.dedent(text))
    return "toy_engine"


def test_an_engine_tells_its_steps_and_answers(module: str, tmp_path: Path) -> None:
    env, told = {**os.environ, "PYTHONPATH": str(tmp_path)}, list[str]()
    job = json.dumps({"tells": ["one", "two"], "result": {"n": 3}})
    assert run_module(module, job, env, told.append) == {"n": 3}
    assert told == ["one", "two"]
    assert run_module(module, job, env) == {"n": 3}


def test_an_engine_that_fails_says_why(module: str, tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with pytest.raises(IntervError) as broken:
        run_module(module, json.dumps({"tells": []}), env)
    assert str(broken.value) == (
        "error[E545]: the engine ended with code 1 and no answer\n"
        "  = it broke\n"
        "  = `interv doctor` shows what is missing here"
    )
    with pytest.raises(IntervError) as wrong:
        run_module(module, json.dumps({"tells": [], "result": {"error": ["error[E521]: …"]}}), env)
    assert str(wrong.value) == ("error[E545]: the engine refused the document\n  = error[E521]: …")


def test_an_interrupt_while_it_is_looked_at_ends_the_engine(tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    pid = tmp_path / "pid"
    script = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)"

    def look() -> None:
        if pid.is_file() and pid.read_text():
            interrupt()

    with pytest.raises(KeyboardInterrupt):
        run([sys.executable, "-c", script], tmp_path / "log", os.environ, look)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
