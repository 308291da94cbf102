"""Copies at storage locations: what lies there, what must still go there, and how it comes back.

FORMAT-copies.md says what every byte at a location is, and what a crash leaves. Pure are ``sealed`` (packs),
``journal`` (entries that say what is whole), ``chain`` (their order, what they add up to) and ``marker``.
Every store has an outbox, so nothing is imported here: most commands need none of the rest.
"""
