"""Rigs of real programs: each does what people use it for, on a live mount, and what it made must come back.

``stage``   a store with one mount, served by a process that may be killed, and the programs that are run on it
``cases``   what a case is, and running a table of them
``inputs``  trees of files with everything in them that programs copy
``trees``, ``repositories``, ``disks``, ``sqlite``, ``postgres``, ``received``   the cases
``planted_programs``   the bugs they must catch
"""
