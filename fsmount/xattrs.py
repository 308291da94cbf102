"""Which extended attributes a mount keeps.

* ``user.*``: everybody's, on files and directories (the kernel checks).
* ``trusted.*`` and ``security.*``: as ext4 does for root (the kernel checks), so that file capabilities and labels of a
  system tree come back from a restore.
* ``system.posix_acl_*`` and everything else: not supported, as on a file system mounted without ACLs; ``cp -a``,
  ``tar --acls`` and ``rsync -A`` know that answer.

The kernel asks for ``security.capability`` on the first write to a file; "no such attribute" must then be cheap, so the
files known to have none are remembered.
"""

from __future__ import annotations

import errno

from engine.errors import PosixError

CAPABILITY = b"security.capability"
KEPT = (b"user.", b"trusted.", b"security.")


def admit(name: bytes) -> None:
    """Raise the error for a name outside the namespaces a mount keeps."""
    if not name.startswith(KEPT):
        raise PosixError(errno.ENOTSUP, "extended attribute namespace")
    if name in KEPT:
        raise PosixError(errno.EINVAL, "extended attribute without a name")
