"""Find, read and show what captures have left in a folder."""

from interv.captures.query import Captures, load_captures

__all__ = ["Captures", "load_captures"]
