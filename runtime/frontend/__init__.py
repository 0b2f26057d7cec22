"""Processes that take requests: the command line, admission, HTTP, metrics."""
