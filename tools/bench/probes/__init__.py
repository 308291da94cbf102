"""Measurements beside the data sets: small overwrites, untar, snapshots, the index."""
