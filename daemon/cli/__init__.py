"""The command line ``holdfast``."""
