"""Lowering of the canonical update: tables, kernels, and the reference they must equal."""
