"""Deterministic, seeded generators of the benchmark data sets (dbimg, dbset, vm, tree)."""
