"""How large the tests are: HOLDFAST_NFS_SCALE=16 copies a gigabyte where they copy 64 MiB."""

from __future__ import annotations

import os

SCALE = int(os.environ.get("HOLDFAST_NFS_SCALE", "1"))
