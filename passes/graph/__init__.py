"""The intermediate graph: its ops, how it is run, checked and printed."""
