"""Holdfast engine (facade grows here)."""
