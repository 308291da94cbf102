"""File-system conformance: what programs may expect of a directory, asked of a mount, of ext4, and of a model.

mount      a real mount of a real store, served by a worker process of its own (``places.Mounted``)
control    the same operations on ext4: what the control answers otherwise is a wrong expectation, not a find
"""
