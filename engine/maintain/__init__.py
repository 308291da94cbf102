"""Maintenance: collection, check, repair, statistics. None of it stops writers."""
