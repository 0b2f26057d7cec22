"""The language: text to `Document` and back, the formatter, and what a wrong program is told."""
