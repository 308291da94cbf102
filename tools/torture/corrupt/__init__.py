"""Corruption: bytes and files of a store changed at random, damage healed, the index made anew, decoders fuzzed."""
