"""Engines that are run for a command, in processes of their own."""
