"""Processes that die at any moment, and processes that meet at any moment: on one store, through mounts or without."""
