"""Rows of the stream on their way from the worker to a sink."""
