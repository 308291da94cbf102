"""What a store that is adopted gets beside the engine's own: settings of its mounts, as the configuration had them.

They live in a file that root owns, so they are not put there: they are written into one beside the store's state, as
tables to be read and copied.  The state has them as well, so that points made before that carry them on; nothing of
them is followed, for hooks are programs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from daemon.service.copies import ADOPTED
from daemon.state import State
from daemon.state.database import FOLDER, give_to_owner
from engine.errors import from_os

FILE = os.path.join(FOLDER, "adopted.toml")  # in the store
_HEAD = """\
# Mounts of this store as their configuration was when their newest point was sent. Read it before you copy what you
# want of it into the configuration: hooks are programs that the service runs, and exports let others in.
"""


def furnish(path: str, settings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Give a store its state and the file, where there is anything for it; what could not be taken, a sentence each."""
    tables = {}
    left_out = []
    for mount, found in sorted(settings.items()):
        said = found.get("configuration")
        if said:
            table, wrong = _table(mount, said)
            if wrong:
                left_out.append(f"mount {mount}: its configuration is left out: {wrong}")
            else:
                tables[mount] = table
    if tables:
        _write(path, _HEAD + "\n" + "\n".join(tables.values()))
        with State.open(path) as state:
            for mount in tables:
                state.marks.put(ADOPTED + mount, json.dumps(settings[mount]["configuration"]))
    return left_out


def _table(mount: str, said: object) -> tuple[str, str]:
    """(the table, what is wrong with it): one of the two."""
    from pydantic import ValidationError

    from daemon.config import Mount
    from daemon.config.writing import mount_table

    try:
        table = mount_table(mount, Mount.model_validate(said))
        table.encode()
    except (ValidationError, UnicodeEncodeError, RecursionError) as error:
        return "", " ".join(str(error).split())[:300]
    return table, ""


def _write(path: str, text: str) -> None:
    place = os.path.join(path, FILE)
    try:
        os.mkdir(os.path.dirname(place), 0o700)
        give_to_owner(os.path.dirname(place), path)
        fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(fd)
        give_to_owner(place, path)
    except OSError as error:
        raise from_os(error, place) from None
