"""Which extended attributes a mount keeps.

* ``user.*``: everybody's, on files and directories (the kernel checks).
* ``trusted.*`` and ``security.*``: as ext4 does for root (the kernel checks), so that file capabilities and labels of a
  system tree come back from a restore.
* ``system.posix_acl_access`` and ``…_default``: access control lists. The kernel enforces them, the tree keeps them in
  line with modes and hands them down to new files.
* everything else: not supported.

The kernel asks for ``security.capability`` on the first write to a file; "no such attribute" must then be cheap, so the
files known to have none are remembered.
"""

from __future__ import annotations

import errno

from engine.errors import PosixError

CAPABILITY = b"security.capability"
KEPT = (b"user.", b"trusted.", b"security.")
ACCESS = b"system.posix_acl_access"
LISTS = (ACCESS, b"system.posix_acl_default")


def admit(name: bytes) -> None:
    """Raise the error for a name outside the namespaces a mount keeps."""
    if not name.startswith(KEPT) and name not in LISTS:
        raise PosixError(errno.ENOTSUP, "extended attribute namespace")
    if name in KEPT:
        raise PosixError(errno.EINVAL, "extended attribute without a name")
