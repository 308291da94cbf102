"""Copies of recovery points at storage locations: what lies there, what must still go there, and how it comes back.

FORMAT-copies.md says what every byte at a location is, and what a crash leaves.
"""
