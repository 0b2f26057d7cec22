"""Sinks: where captured rows go, one class a kind, and the thread that hands the rows over.

A third party derives from `interv.sinks.base.Sink` and names the class under the entry point
group `interv.sinks`. Nothing here knows vLLM; torch is imported where rows are touched.
"""
