"""Wrong files, and what is said of each."""

from __future__ import annotations

V = [1.0, 2.0, 0.0, 0.0, 0.0, 0.0]
V0 = {"local_path": "v.safetensors", "generate_trigger_tokens": [-1]}
V2 = {"source": "v.safetensors", "apply": {"prompt": "all"}}
ADD = {"type": "add", "vector": V, "scale": 1}


def v2(**fields: object) -> dict[str, object]:
    return {"vectors": [V2 | fields]}


def spec(*operations: object) -> dict[str, object]:
    return {"layers": {"14": {"operations": list(operations)}}}


def module(tier: str, entry: object, hook: str = "post_block") -> dict[str, object]:
    return {tier: {hook: {"2": entry}}}


CASES: dict[str, tuple[object, str]] = {
    "not JSON": (
        '{"vectors": [}',
        """\
error[E110]: 'DIR/source.json' is not JSON
 --> DIR/source.json:1:14
  |
1 | {"vectors": [}
  |              ^ expecting value""",
    ),
    "no number": (
        '{"scale": NaN}',
        "error[E110]: 'DIR/source.json' is not JSON\n  = NaN is not a number of JSON",
    ),
    "given twice": (
        '{"scale": 1, "scale": 2}',
        "error[E110]: 'DIR/source.json' is not JSON\n"
        "  = the field 'scale' is given twice in one object",
    ),
    "nested": ("[" * 100_000, "error[E110]: 'DIR/source.json' nests too deep"),
    "a list": (
        [1],
        "error[E211]: source.json: an object is wanted here\n  = found: a list of 1",
    ),
    "no format": (
        {"kind": "?"},
        "error[E260]: 'DIR/source.json' is of no format that can be imported\n"
        "  = fields there: kind\n"
        "  = --format says which it is: easysteer-v0, easysteer-v2, chatspace, chatspace-bundle, "
        "rhizonymph, pyreft, vectors",
    ),
    "an unknown algorithm": (
        v2(algorithm="earse"),
        "error[E211]: 'earse' is not an algorithm\n"
        "  = in vectors[0]\n"
        "  = algorithms: direct, linear, lm_steer, loreft, erase, replace, concept_replace\n"
        "  = did you mean 'erase'?",
    ),
    "an algorithm of version 2 alone": (
        V0 | {"algorithm": "erase"},
        "error[E211]: 'erase' is not an algorithm\n"
        "  = in the request\n"
        "  = algorithms: direct, linear, lm_steer, loreft",
    ),
    "an unknown field": (
        v2(scael=2),
        "error[E211]: 'scael' is not a field\n"
        "  = in vectors[0]\n"
        "  = fields here: source, data, algorithm, scale, layers, normalize, params, apply, name\n"
        "  = did you mean 'scale'?",
    ),
    "a missing file": (
        V0 | {"local_path": "w.safetensors"},
        "error[E220]: vector 'w': 'w.safetensors' does not exist\n"
        "  = vector files in its folder: v.safetensors\n"
        "  = did you mean 'v.safetensors'?",
    ),
    "a path out of the folder": (
        v2(source="../v.safetensors"),
        "error[E262]: '../v.safetensors' leads out of 'DIR'\n"
        "  = in vectors[0]\n"
        "  = files that a file names are read under its own folder\n"
        "  = --root FOLDER allows another folder",
    ),
    "a scale that is no number": (
        V0 | {"scale": "2"},
        "error[E211]: scale: a number is wanted here\n  = in the request\n  = found: '2'",
    ),
    "a scale beyond float32": (
        V0 | {"scale": 1e39},
        "error[E105]: 1e+39 is too large\n"
        "  = in the request.scale\n"
        "  = a number is at most 3.4e38 (float32)",
    ),
    "a negative layer": (
        V0 | {"target_layers": [-1]},
        "error[E207]: target_layers -1 is out of range\n  = 0 to 99999\n  = in the request",
    ),
    "no trigger": (
        {"local_path": "v.safetensors"},
        "error[E264]: nothing is left that would change anything\n"
        "  = the request: no trigger selects a token, so it is not applied; left out",
    ),
    "a request beside several": (
        {"vector_configs": [V0], "scale": 2},
        "error[E211]: 'scale' has no meaning beside 'vector_configs'\n"
        "  = each vector has fields of its own there",
    ),
    "vectors that meet under error": (
        {
            "vectors": [V2 | {"source": "v.safetensors"}, V2 | {"apply": {"prompt_tokens": [3]}}],
            "conflict": "error",
        },
        "error[E261]: an overlap of vectors[0] and vectors[1] has no exact equal here\n"
        "  = in vectors[1]\n"
        "  = they fail the request there, under 'error'\n"
        "  = --allow-inexact goes on, and notes that vectors[1] loses the tokens they share",
    ),
    "an empty window": (
        v2(apply={"prompt_window": [4, 2]}),
        "error[E208]: [4, 2] is an empty window\n"
        "  = in vectors[0].apply.prompt_window\n"
        "  = a window ends behind its start",
    ),
    "a negative step": (
        v2(apply={"generation_positions": [-1]}),
        "error[E207]: generation_positions -1 is out of range\n"
        "  = 0 to 2147483647\n"
        "  = in vectors[0].apply",
    ),
    "a router": (
        v2(algorithm="moe_router"),
        "error[E261]: 'moe_router' has no exact equal here\n"
        "  = in vectors[0]\n"
        "  = a router's logits are no site of the stream\n"
        "  = --allow-inexact goes on, and notes that the vector is left out",
    ),
    "two vectors in one file": (
        v2(algorithm="concept_replace"),
        "error[E263]: 'v.safetensors' is one vector file, which does not fit\n"
        "  = in vectors[0]\n"
        "  = 'concept_replace' takes two: give them as 'data'",
    ),
    "a payload of another kind": (
        {"vectors": [{"data": {"version": 1, "kind": "linear"}, "apply": {"prompt": "all"}}]},
        "error[E211]: 'direct' takes no payload of kind 'linear'\n"
        "  = in vectors[0].data\n"
        "  = it takes: direction",
    ),
    "a payload cut short": (
        {
            "vectors": [
                {
                    "data": {
                        "version": 1,
                        "kind": "direction",
                        "tensors": {"layer.1": {"shape": [2], "data": "AAAA"}},
                    },
                    "apply": {"prompt": "all"},
                }
            ]
        },
        "error[E263]: data that is not base64 of float32, which does not fit\n"
        "  = in vectors[0].data.tensors.layer.1.data\n"
        "  = buffer size must be a multiple of element size",
    ),
    "an ablation or an addition": (
        spec({"vector": V, "scale": 2}),
        "error[E211]: 'type' is missing\n"
        "  = in layers.14.operations[0]\n"
        "  = an addition and an ablation have the same fields\n"
        "  = operations: add, projection_cap, ablation",
    ),
    "an ablation of unknown strength": (
        spec({"type": "ablation", "vector": V}),
        "error[E211]: 'scale' is missing\n"
        "  = in layers.14.operations[0]\n"
        "  = what is kept without it differs from one version to another",
    ),
    "a cap without bounds": (
        spec({"type": "cap", "vector": V}),
        "error[E211]: 'min' or 'max' is missing\n"
        "  = in layers.14.operations[0]\n"
        "  = a cap has a bound",
    ),
    "directions of two widths": (
        spec(ADD, ADD | {"vector": [1, 2]}),
        "error[E263]: operation 1 at layer 14, layer 14 is 2 wide, which does not fit\n"
        "  = in operation 1 at layer 14, layer 14\n"
        "  = operation 0 at layer 14, layer 14 is 6 wide",
    ),
    "a zero direction": (
        spec(ADD | {"vector": [0, 0]}),
        "error[E263]: the direction of layer 14 is zero, which does not fit\n"
        "  = in operation 0 at layer 14",
    ),
    "an element that is no number": (
        spec(ADD | {"vector": [1, "2"]}),
        "error[E263]: the element '2', which does not fit\n"
        "  = in layers.14.operations[0].vector\n"
        "  = a direction is a list of numbers",
    ),
    "a layer that is none": (
        {"layers": {"-1": [ADD]}},
        "error[E211]: '-1' is not a layer\n"
        "  = in layers\n"
        "  = a layer is written as a number from 0",
    ),
    "an unknown vector of a bundle": (
        {
            "vectors": {"calm": {"vector": V, "layer": 1}},
            "experiments": [{"id": "a", "interventions": [{"vector": "clam", "cap": 1}]}],
        },
        "error[E211]: 'clam' is not a vector of the bundle\n"
        "  = in experiments[0].interventions[0]\n"
        "  = vectors there: calm\n"
        "  = did you mean 'calm'?",
    ),
    "a cap of a bundle without a bound": (
        {
            "vectors": {"calm": {"vector": V, "layer": 1}},
            "experiments": [{"id": "a", "interventions": [{"vector": "calm"}]}],
        },
        "error[E211]: 'cap' is missing\n  = in experiments[0].interventions[0]",
    ),
    "a hook that is none": (
        module("vectors", V, "post_atn"),
        "error[E211]: 'post_atn' is not a hook\n"
        "  = in vectors.post_atn\n"
        "  = hooks: pre_attn, post_attn, post_block, mlp_in, mlp_out\n"
        "  = did you mean 'post_attn'?",
    ),
    "a hook that depends on the family": (
        module("vectors", V, "post_attn"),
        "error[E261]: 'post_attn' has no exact equal here\n"
        "  = in vectors.post_attn\n"
        "  = what it edits depends on how the model is built\n"
        "  = families: llama, qwen3, gemma3, stablelm, opt, gpt_neox, gpt_neox_sequential, phi, "
        "falcon, commandr\n"
        "  = --family llama says that it is built like Llama, Mistral or Qwen2",
    ),
    "a value and a bound": (
        module("clamps", [{"vector": V, "value": 1, "max": 2}]),
        "error[E211]: 'value' stands beside 'min' or 'max'\n"
        "  = in clamps.post_block.2[0]\n"
        "  = a value pins the component, and leaves no bounds",
    ),
    "bounds the wrong way round": (
        module("clamps", [{"vector": V, "min": 2, "max": 1}]),
        "error[E208]: the lower bound 2 is above the upper bound 1\n  = in clamps.post_block.2[0]",
    ),
    "a strength out of range": (
        module("clamps", [{"vector": V, "max": 1, "strength": 1.5}]),
        "error[E207]: strength 1.5 is out of range\n  = in clamps.post_block.2[0]\n  = 0 to 1",
    ),
    "a field of a module that is none": (
        module("patch", V),
        "error[E260]: 'DIR/source.json' is of no format that can be imported\n"
        "  = fields there: patch\n"
        "  = --format says which it is: easysteer-v0, easysteer-v2, chatspace, chatspace-bundle, "
        "rhizonymph, pyreft, vectors",
    ),
}
