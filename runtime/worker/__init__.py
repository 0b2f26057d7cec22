"""Beside the model: the splice, the op, slots, the tokens of a step."""
