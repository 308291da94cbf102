"""Ingest: plaintext runs become extents of chunks."""
