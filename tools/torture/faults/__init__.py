"""Faults: disks that are full, fail, lie or stand still; what runs out, what dies.

layer      a storage seam that fails at one call of one kind (``layer``)
workload   what a store is put through while something fails, and the model of what was acknowledged (``workload``)
verdict    what must hold when the fault is over: the store goes on, and opened anew it has all of it (``verdict``)
child      the process a rig's cases run in, with the planted bug if there is one (``child``)
"""
