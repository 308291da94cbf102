"""Benchmark of Holdfast beside its peers: deterministic data sets, adapters, probes and reports.

Run as ``python -m tools.bench``; see ``tools/bench/README.md``.
"""
