"""The first message of a FUSE connection, INIT, answered better than the library can.

libfuse 3.14 does not know FUSE_HANDLE_KILLPRIV_V2; without it the kernel asks for
``security.capability`` before every single write(2): 4.6 of 16 requests per untarred file, one per
4 KiB overwrite.  So the library is first given a socket instead of the connection: INIT is passed
through it, the reply is taken back, its flags are adjusted within what the kernel offered, and the
reply goes to the kernel.  Then the real connection takes the socket's descriptor number, and this
module is out of the way.  Measured with a do-nothing tree, beside the reader's gain: untar of small
files 1,881 -> 2,542 a second.

With HANDLE_KILLPRIV_V2 this side promises to drop set-uid, set-gid and file capabilities on write, truncate and
chown; ``fsmount.killpriv`` keeps that promise.
"""

from __future__ import annotations

import os
import socket
import struct

from engine.errors import HoldfastError

IN_HEADER = 40
OUT_HEADER = struct.Struct("<IiQ")  # length, error, unique
INIT = 26
# struct fuse_init_out: major, minor, max_readahead, flags, max_background, congestion_threshold, max_write,
# time_gran, max_pages, map_alignment, flags2 (the rest is unused here)
INIT_OUT = struct.Struct("<IIIIHHIIHHI")
OPCODE_AT = 4
IN_FLAGS_AT = IN_HEADER + 12
READ_SIZE = (1 << 20) + (1 << 16)

ATOMIC_O_TRUNC = 1 << 3
DONT_MASK = 1 << 6
AUTO_INVAL_DATA = 1 << 12
PARALLEL_DIROPS = 1 << 18
CACHE_SYMLINKS = 1 << 23
EXPLICIT_INVAL_DATA = 1 << 25
HANDLE_KILLPRIV_V2 = 1 << 28

WANTED = HANDLE_KILLPRIV_V2 | CACHE_SYMLINKS | PARALLEL_DIROPS | EXPLICIT_INVAL_DATA | DONT_MASK
"""Nobody but this worker changes the tree: the kernel may keep what it read, and need not suspect its pages. The
umask is left to the tree: in a directory with a default access list it has no say."""
NEVER = ATOMIC_O_TRUNC
"""What is left out whatever was offered: a file that OPEN has emptied is emptied once more by the kernel for itself
after it let go of the file's lock, and what another process wrote in between is then in the tree but not in the
kernel's size (one round in 40 of four processes writing, cutting and emptying three files). Without it the kernel
sends the new size and its times, with the lock held."""
UNWANTED = AUTO_INVAL_DATA

MAX_BACKGROUND = (
    32  # readahead and writeback requests in flight (12 by default); 1 MiB each at most
)


def amend(request: bytes, reply: bytes) -> bytes:
    """The reply to INIT with our flags in it, as far as the request offered them."""
    length, error, unique = OUT_HEADER.unpack_from(reply)
    if error or length != len(reply) or len(reply) < OUT_HEADER.size + INIT_OUT.size:
        return reply  # a refusal, or an older layout: not ours to touch
    (offered,) = struct.unpack_from("<I", request, IN_FLAGS_AT)
    fields = list(INIT_OUT.unpack_from(reply, OUT_HEADER.size))
    fields[3] = (fields[3] | (WANTED & offered)) & ~(UNWANTED if offered & WANTED else 0) & ~NEVER
    fields[4], fields[5] = MAX_BACKGROUND, MAX_BACKGROUND * 3 // 4
    body = INIT_OUT.pack(*fields) + reply[OUT_HEADER.size + INIT_OUT.size :]
    return OUT_HEADER.pack(length, error, unique) + body


class Handshake:
    """Holds the real connection until INIT is answered.

    ``library_fd`` is the number to give to the library.  Call ``begin`` before its loop runs and ``finish`` after
    it has processed its first message; from then on ``library_fd`` *is* the connection.
    """

    def __init__(self, connection: int) -> None:
        self._connection = connection
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.library_fd = theirs.detach()
        self._request = b""

    def begin(self) -> None:
        """Take INIT from the kernel (it is there as soon as the mount is) and pass it on."""
        self._request = os.read(self._connection, READ_SIZE)
        (opcode,) = struct.unpack_from("<I", self._request, OPCODE_AT)
        if opcode != INIT:
            raise HoldfastError("FUSE handshake", expected="INIT", found=f"operation {opcode}")
        self._ours.send(self._request)

    def finish(self) -> bool:
        """Answer the kernel; False when it has gone away meanwhile."""
        self._ours.setblocking(False)
        try:
            reply = self._ours.recv(1 << 16)
        except BlockingIOError:
            raise HoldfastError("FUSE handshake", expected="a reply", found="none") from None
        try:
            os.write(self._connection, amend(self._request, reply))
        except OSError:
            return False
        finally:
            os.dup2(self._connection, self.library_fd, inheritable=False)
            self.close()
        return True

    def close(self) -> None:
        """Release what is not the library's. Harmless when called twice."""
        self._ours.close()
        if self._connection >= 0:
            os.close(self._connection)
            self._connection = -1
