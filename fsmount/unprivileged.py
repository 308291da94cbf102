"""Becoming a user without any privilege, for good: what a worker does before it opens anything of the store.

Nothing can be won back afterwards: no capability in any set, none left in the bounding set, and programs that are
started gain none either.  The kernel marks a process that changed its user as one that must not be looked into, and
``/proc/self/fd`` is then root's: that mark is taken off, for sockets are reached through it, and processes of the same
user could read the store anyway.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from engine.errors import HoldfastError, InvalidRequest, PermissionDenied

_PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 4, 24, 38, 47
_CLEAR_ALL = 4
_CAP_VERSION_3 = 0x20080522
_CAPS = 64  # the sets hold no more
_libc = ctypes.CDLL(None, use_errno=True)


def become(uid: int, gid: int) -> None:
    """Be this user from now on, with this group alone. Needs root, unless it is that user already; must come first.

    A user that is not root gives up what it has; its bounding set can then only be emptied by who started it.
    Raises InvalidRequest (for root), PermissionDenied.
    """
    if uid <= 0 or gid <= 0:
        raise InvalidRequest(
            "user of a worker", expected="one without privilege", found=f"{uid}:{gid}",
            do="name a user and a group other than root's",
        )  # fmt: skip
    try:
        if os.geteuid() == 0:
            os.setgroups([])
            _empty_bounding()
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
    except OSError as error:
        raise PermissionDenied(f"becoming user {uid}:{gid}", found=str(error)) from None
    _no_capabilities()
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 1)
    if os.getresuid() != (uid,) * 3 or os.getresgid() != (gid,) * 3:
        raise PermissionDenied(
            "user of a worker", expected=f"{uid}:{gid}", found=f"{os.geteuid()}:{os.getegid()}",
            do="start it as root, or as that user",
        )  # fmt: skip


def _empty_bounding() -> None:
    for capability in range(_CAPS):
        try:
            _prctl(_PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno != errno.EINVAL:  # past the last one that this kernel knows
                raise
            return


def _no_capabilities() -> None:
    """Effective, permitted, inheritable and ambient sets empty.

    Where they are it is not asked for: a service that may do nothing privileged may not call ``capset`` either.
    """
    _prctl(_PR_CAP_AMBIENT, _CLEAR_ALL)
    header = struct.pack("Ii", _CAP_VERSION_3, 0)
    sets = ctypes.create_string_buffer(24)
    if (_libc.capget(header, sets) or any(sets.raw)) and _libc.capset(header, bytes(24)):
        raise HoldfastError("giving up capabilities", found=os.strerror(ctypes.get_errno()))


def _prctl(option: int, value: int) -> None:
    arguments = [ctypes.c_ulong(one) for one in (value, 0, 0, 0)]
    if _libc.prctl(option, *arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), f"prctl {option}")
