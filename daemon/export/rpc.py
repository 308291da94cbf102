"""Whether a program answers at a port: ONC RPC's procedure 0 over TCP, as short as it can be."""

from __future__ import annotations

import os
import socket
import struct

NFS, MOUNT = 100003, 100005
_CALL = struct.Struct(
    ">IIIIIIIQQ"
)  # mark, id, call, RPC version, program, version, procedure, credentials, verifier
_REPLY = struct.Struct(">IIIIQI")  # mark, id, reply, accepted, verifier, state
_LAST = 1 << 31


def answers(host: str, port: int, program: int, version: int, timeout: float) -> bool:
    """One call that does nothing. ``timeout``: s."""
    number = int.from_bytes(os.urandom(4))
    call = _CALL.pack(_LAST | _CALL.size - 4, number, 0, 2, program, version, 0, 0, 0)
    reply = b""
    try:
        with socket.create_connection((host, port), timeout) as connection:
            connection.sendall(call)
            while len(reply) < _REPLY.size:
                more = connection.recv(_REPLY.size - len(reply))
                if not more:
                    return False
                reply += more
    except OSError:
        return False
    _, echoed, kind, accepted, _, state = _REPLY.unpack(reply)
    return (echoed, kind, accepted, state) == (number, 1, 0, 0)


def listens(host: str, port: int, timeout: float) -> bool:
    """Whether somebody takes connections there. ``timeout``: s."""
    try:
        with socket.create_connection((host, port), timeout):
            return True
    except OSError:
        return False
