"""The forms of the update: plain torch, C, Triton."""
