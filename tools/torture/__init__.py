"""Rigs that try to make Holdfast lose, corrupt, lie or hang.

``python -m tools.torture`` runs them at full size (``make torture``), ``tests/torture`` at about a twentieth.  Words:

rig        a way to attack a store, and the oracle that judges what is left (``rig.Rig``; list in ``registry``)
job        one run of a rig: a seed, a size, a scratch directory, counters (``rig.Job``)
bug        a fault planted on purpose, to prove that a rig can fail (``bugs``); never a switch in shipped code
found      what a rig raises when the store broke a promise (``rig.Found``); it carries the line that replays it
"""
