"""What the error codes E1xx to E3xx mean, with an example of a message."""

from __future__ import annotations

from collections.abc import Mapping

DOCUMENT_ERRORS: Mapping[str, tuple[str, str]] = {
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
    "E111": (
        "a key stands twice in one object of JSON or YAML",
        "'calm.json' gives 'scale' twice in an object",
    ),
    "E112": (
        "references of a YAML file repeat too much of it",
        "the references in 'calm.yaml' repeat too much",
    ),
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
    "E236": (
        "a bank has a layer that the model has not",
        "vector 'evil' has a direction for layer 30, 'smollm2-135m' has 30 blocks",
    ),
    "E237": (
        "a row is taken that a tensor has not",
        "'W_dec' in 'sae.npz' has no row 17: it has 16 rows",
    ),
    "E238": (
        "nothing says what rows are numbered by, or what is said numbers no rows",
        "'evil.pt' holds 31 rows, and does not say what they are",
    ),
    "E239": (
        "a file lists other layers than it holds directions",
        "'bank.npz' lists 3 layers under 'layers', and holds 4 rows",
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
    "E270": (
        "no such kind of sink, or none that can be used",
        "no kind of sink is called 'filesytem'",
    ),
    "E271": ("an option of a sink is unknown, missing or wrong", "memory has no option 'ttl'"),
    "E272": (
        "an option of a sink cannot be used on this machine",
        "option 'folder' of filesystem cannot be used here: 'out' does not exist",
    ),
    "E273": (
        "a file of captured rows is damaged",
        "'a.safetensors' is not a file of captured rows",
    ),
    "E274": (
        "a manifest of captured rows is not true",
        "'acts/a.safetensors' has 80 bytes, 4096 in the manifest",
    ),
    "E275": ("a folder has no captured rows, or cannot be read", "'acts' holds no captured rows"),
    "E276": ("no captured rows are of that kind", "no captured row has these labels"),
    "E277": (
        "more captured rows than memory is allowed",
        "these rows take 9000 MiB, 8192 are allowed",
    ),
    "E278": (
        "captured rows that do not go together, or not with a direction",
        "'joy.gguf' has no direction for layer 0",
    ),
    "E279": (
        "a manifest names a file outside of its folder",
        "the manifest of 'acts' names a file outside of it",
    ),
    "E280": ("a file of pairs cannot be read", "'joy.jsonl' cannot be read: No such file"),
    "E281": ("a line of a file of pairs is wrong", "line 7 is not JSON"),
    "E282": (
        "two files of texts do not go together",
        "the two files have different numbers of lines: 12 in 'a.txt' and 11 in 'b.txt'",
    ),
    "E283": (
        "too few pairs",
        "3 pairs are too few: 2 must be left to make the directions",
    ),
    "E284": (
        "a text stands in several pairs",
        "the positive of line 9 is the positive of line 3 again",
    ),
    "E285": (
        "options of an extraction that cannot be read, or do not go together",
        "'--system' says nothing with --no-chat",
    ),
    "E286": (
        "activations that make no direction",
        "positives and negatives are the same at layers 0",
    ),
    "E287": (
        "a GGUF control vector has no place for a site or a layer",
        "'joy.gguf': a GGUF control vector has no place for post_attn",
    ),
    "E288": (
        "a text is too long for the engine, or too short for the position",
        "a text of line 7 has 9000 tokens, 8191 fit into this engine",
    ),
    "E289": (
        "a chat template is missing, or changes a text",
        "the model's tokenizer has no chat template, which --chat needs",
    ),
    "E295": (
        "a program asks for a KV policy, and no document declares one",
        "program 'thinks' says 'kv on', and no document declares a KV policy",
    ),
    "E296": ("no such KV policy", "'r2kv' is not a KV policy"),
    "E297": (
        "an option of a KV policy is unknown or of another kind",
        "kv r1kv has no option 'bufer'",
    ),
    "E298": (
        "a size of a KV policy is out of range",
        "'budget' must be larger than 8, not 8",
    ),
    "E299": (
        "two documents of one engine declare a KV policy",
        "two documents declare a KV policy: a.interv:2 and b.interv:2",
    ),
    "E850": (
        "`token(…)` selects by a sequence of ids",
        "'token([5, 6])' selects one token at a time, not a sequence",
    ),
    "E851": (
        "a marker of `after`, `before` or `between` has no token, or too many",
        "this marker is 65 tokens",
    ),
    "E880": (
        "a list of positions is too long",
        "this list has 4097 runs of positions, 4096 are possible",
    ),
    "E881": (
        "selectors by steps that have no small common multiple",
        "the steps of these selectors meet too rarely to be compared",
    ),
    "E882": ("a step is too large", "a step of 70000 is too large"),
    "E301": (
        "a pass broke a rule of the graph",
        "the compiler made an invalid graph: %3 has 2 arguments",
    ),
    "E840": (
        "an intervention of pyreft rotates the whole stream",
        "'style/a.bin' rotates all 64 dimensions of the stream",
    ),
    "E841": (
        "a pyreft config has more or fewer types than interventions",
        "'style/config.json' names 3 intervention types for 2 interventions",
    ),
    "E842": (
        "a pyreft folder has no such unit",
        "'style' has no unit #2",
    ),
    "E843": (
        "the positions of a pyreft folder cannot be read",
        "'f0' names no positions",
    ),
    "E844": (
        "positions do not divide the interventions of a pyreft folder",
        "'style' has 3 interventions at a layer",
    ),
    "E860": (
        "a word behind an amount that is not of this statement",
        "'over' is for ablate, not for cap",
    ),
    "E861": (
        "a gate is both a curve and a step",
        "a gate with 'above' has no threshold",
    ),
    "E862": (
        "a step that never opens, or never shuts",
        "the gate on 'calm' never opens",
    ),
    "E870": (
        "the two directions of a rotation are parallel, or nearly so",
        "'calm' and 'calmer' span no plane to rotate in, at post_block[12]",
    ),
}
