"""The library that is preloaded into NFS-Ganesha (``ganesha_shim.c`` says what for), compiled when it is needed."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from engine.errors import HoldfastError, Unsupported

SOURCE = Path(__file__).with_name("ganesha_shim.c")
COMPILE_LIMIT = 60.0  # s
_FLAGS = ("-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")


def built(folder: str) -> str:
    """The library's path. Its name is made from the source: another version is another file.

    ``folder`` is writable by us alone. Raises Unsupported where there is no compiler.
    """
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    path = os.path.join(folder, f"ganesha-{digest}.so")
    if os.path.exists(path):
        return path
    compiler = shutil.which("cc")
    if compiler is None:
        raise Unsupported(
            "exporting through NFS-Ganesha", expected="a C compiler", found="no cc", do="install gcc and libc6-dev"
        )  # fmt: skip
    new = f"{path}.{os.getpid()}"
    done = subprocess.run(
        [compiler, *_FLAGS, "-o", new, str(SOURCE), "-ldl"],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=COMPILE_LIMIT, check=False,
    )  # fmt: skip
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise HoldfastError(f"compiling {SOURCE.name}", found=" ".join(said) or "no reason given")
    os.replace(new, path)
    return path
