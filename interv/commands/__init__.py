"""The commands of `interv`, one a file; `interv.cli` imports the one that is asked for."""
