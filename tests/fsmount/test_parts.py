"""The worker's parts that need no mount: spinning, lookup counts, the handshake, options, the table of mounts."""

from __future__ import annotations

import errno
import os
import stat
import struct
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import TABLE, HoldfastError, InvalidRequest, PosixError, the_cause
from fsmount import killpriv, mountpoint, remote, xattrs
from fsmount.channel import handshake
from fsmount.channel.errors import errno_of
from fsmount.contract import Ctx
from fsmount.gate import Gate
from fsmount.live import NAMES_WAITING_MAX, LiveFiles
from fsmount.lookups import Lookups
from fsmount.options import Options, may_allow_other, mount_options
from fsmount.pointfs import PLACES, PointFiles
from fsmount.spin import SPIN_FIRST, Spin
from tests.fsmount.mempoint import MemView
from tests.fsmount.memtree import MemTree

CALLER = Ctx(0, 0, 1, 0)

# --- spinning -----------------------------------------------------------------------------------------


def test_an_idle_loop_stops_spinning() -> None:
    spin = Spin(100e-6)
    for _ in range(10):
        spin.slept(1.0)
    assert spin.window == 0.0


def test_requests_in_quick_succession_bring_spinning_back() -> None:
    spin = Spin(100e-6)
    spin.window = 0.0
    spin.slept(80e-6)
    assert spin.window == SPIN_FIRST
    for _ in range(5):
        spin.slept(80e-6)
    assert spin.window == 100e-6
    spin.met()
    assert spin.window == 100e-6


def test_spinning_can_be_switched_off() -> None:
    spin = Spin(0.0)
    spin.slept(1e-6)
    assert spin.window == 0.0
    with pytest.raises(ValueError):
        Spin(-1.0)


# --- lookup counts ------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 300), st.integers(1, 4))))
def test_lookup_counts_are_those_of_a_plain_dictionary(
    steps: list[tuple[bool, int, int]],
) -> None:
    lookups, plain = Lookups(), dict[int, int]()
    for add, ino, count in steps:
        if add:
            lookups.add(ino)
            plain[ino] = plain.get(ino, 0) + 1
        else:
            gone = lookups.drop(ino, count)
            assert gone == (0 < plain.get(ino, 0) <= count)
            plain[ino] = max(0, plain.get(ino, 0) - count)
        assert lookups.count(ino) == plain[ino]
    assert sorted(lookups.all()) == sorted(ino for ino, count in plain.items() if count)


# --- the handshake ------------------------------------------------------------------------------------


def init_messages(offered: int) -> tuple[bytes, bytes]:
    request = struct.pack("<IIQQIIII", 104, 26, 7, 0, 0, 0, 1, 0) + struct.pack(
        "<IIII", 7, 45, 131072, offered
    )
    request += bytes(104 - len(request))
    body = handshake.INIT_OUT.pack(7, 38, 131072, 0x1029, 12, 9, 1 << 20, 1, 256, 0, 0)
    body += bytes(64 - len(body))
    return request, handshake.OUT_HEADER.pack(80, 0, 7) + body


def test_only_what_the_kernel_offers_is_taken() -> None:
    request, reply = init_messages(0xFFFFFFFF)
    fields = handshake.INIT_OUT.unpack_from(handshake.amend(request, reply), 16)
    assert fields[3] & handshake.WANTED == handshake.WANTED
    assert not fields[3] & handshake.AUTO_INVAL_DATA and fields[3] & 0x21 == 0x21
    assert not fields[3] & handshake.ATOMIC_O_TRUNC
    assert fields[4] == handshake.MAX_BACKGROUND and fields[6] == 1 << 20
    request, reply = init_messages(handshake.AUTO_INVAL_DATA | 0x21)
    fields = handshake.INIT_OUT.unpack_from(handshake.amend(request, reply), 16)
    assert fields[3] == 0x1021


@given(st.binary(max_size=100))
def test_replies_of_another_shape_are_left_alone(reply: bytes) -> None:
    request, _ = init_messages(0xFFFFFFFF)
    padded = reply.ljust(16, b"\0")
    assert len(handshake.amend(request, padded)) == len(padded)


def test_a_refusal_stays_a_refusal() -> None:
    request, _ = init_messages(0xFFFFFFFF)
    refusal = handshake.OUT_HEADER.pack(80, -71, 7) + bytes(64)
    assert handshake.amend(request, refusal) == refusal


# --- errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TABLE)
def test_every_kind_of_the_table_has_its_errno(kind: type[HoldfastError]) -> None:
    assert errno_of(f"test {kind.__name__}", kind("thing")) == kind.kind.errno


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (PosixError(errno.ENOTEMPTY), errno.ENOTEMPTY),
        (MemoryError(), errno.ENOMEM),
        (OSError(errno.ENOSPC, "no room"), errno.ENOSPC),
        (OSError(errno.ENOENT, "one of our own files"), errno.EIO),
        (KeyError("a bug"), errno.EIO),
    ],
)
def test_other_exceptions(error: Exception, number: int) -> None:
    assert errno_of(f"test {error!r}", error) == number


@pytest.fixture(autouse=True)
def _troubles_are_told(expect_log, request: pytest.FixtureRequest) -> None:  # type: ignore[no-untyped-def]
    name = request.node.name
    if name.startswith(("test_every_kind", "test_other_exceptions")):
        quiet = (
            "NotFound", "AlreadyExists", "InvalidRequest", "ReadOnly", "Unsupported", "error0-"
        )  # fmt: skip
        if not any(f"[{word}" in name for word in quiet):
            expect_log("test ")


def test_the_cause_is_the_engines_word() -> None:
    known = HoldfastError("known")
    group = BaseExceptionGroup("", [ValueError("x"), BaseExceptionGroup("", [known])])
    assert the_cause(group) is known
    only = ValueError("only")
    assert the_cause(BaseExceptionGroup("", [only])) is only


def test_errors_travel_between_processes() -> None:
    for kind in TABLE:
        again = remote.revived(kind.kind.slug, str(kind("a thing", found="b")))
        assert type(again) is kind and str(again) == "a thing: found b"
    assert type(remote.revived("unheard of", "x")) is HoldfastError


# --- privileges and attributes --------------------------------------------------------------------------


def test_which_modes_a_write_drops() -> None:
    regular = stat.S_IFREG
    assert killpriv.dropped(regular | 0o6755) == regular | 0o755
    assert killpriv.dropped(regular | 0o2644) == regular | 0o2644
    assert killpriv.dropped(regular | 0o4644) == regular | 0o644
    assert killpriv.dropped(stat.S_IFDIR | 0o6755) == stat.S_IFDIR | 0o6755
    assert not killpriv.drops(regular | 0o777)


def test_namespaces_of_attributes() -> None:
    for name in (b"user.a", b"trusted.b", b"security.selinux", b"system.posix_acl_access"):
        xattrs.admit(name)
    for name in (b"system.nfs4_acl", b"com.apple", b"user", b"user.", b""):
        with pytest.raises(PosixError):
            xattrs.admit(name)


# --- options and mount points -----------------------------------------------------------------------------


def test_options_travel() -> None:
    options = Options(spin=0.0, allow_other=False)
    assert Options.from_json(options.to_json()) == options
    for bad in ('{"spin_": 1}', "[]", "x"):
        with pytest.raises(InvalidRequest):
            Options.from_json(bad)


def test_option_list(tmp_path: Path) -> None:
    words = mount_options(Options(allow_other=True), "/a,b\\c#d", read_only=True)
    assert "fsname=/a\\,b\\\\c#d" in words and {"ro", "allow_other", "nosuid", "nodev"} < set(words)
    assert "allow_other" not in mount_options(Options(allow_other=False), "s", read_only=False)
    conf = tmp_path / "fuse.conf"
    conf.write_text("#user_allow_other\n")
    assert may_allow_other(str(conf)) == (os.geteuid() == 0)


def test_table_of_mounts(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_bytes(
        b"36 35 0:52 / /a\\040b\\011c\xc3\xa9 rw,nosuid shared:1 - fuse.holdfast /s\\040t#m rw,user_id=0\n"
        b"37 35 8:1 / / rw - ext4 /dev/sda rw\n"
    )
    first, second = mountpoint.table(str(table))
    assert first == ((0, 52), "/a b\tcé", "fuse.holdfast", "/s t#m")
    assert second.path == "/" and second.type == "ext4"


# --- the gate, the live tree, a point, without a kernel --------------------------------------------------------


async def test_the_gate_holds_changes_only() -> None:
    tree = MemTree()
    live = LiveFiles(tree, lambda ino: None, lambda ino: None)
    live.freeze()
    made: list[int] = []

    async def make() -> None:
        made.append((await live.mkdir(1, b"d", 0o755, CALLER)).ino)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(make)
        await trio.testing.wait_all_tasks_blocked()
        assert made == [] and live.gate.waiting == 1 and tree.frozen
        assert (await live.getattr(1)).ino == 1
        live.thaw()
    assert made == [2] and not tree.frozen


async def test_names_are_held_up_while_content_still_arrives() -> None:
    """Between the capture of dirty pages and the freeze no name may come that is newer than the pages."""
    tree = MemTree()
    live = LiveFiles(tree, lambda ino: None, lambda ino: None)
    file = await live.create(1, b"f", 0o600, True, CALLER)
    live.hold_names()
    renamed: list[bytes] = []

    async def rename(new: bytes) -> None:
        await live.rename(1, b"f", 1, new, 0)
        renamed.append(new)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(rename, b"g")
        await trio.testing.wait_all_tasks_blocked()
        assert await live.write(file.ino, 0, b"x") == 1
        await live.setattr(file.ino, {"size": 5})
        live.freeze()
        assert not renamed
        live.thaw()
    assert renamed == [b"g"]


async def test_names_held_up_never_take_all_tasks_of_the_channel() -> None:
    live = LiveFiles(MemTree(), lambda ino: None, lambda ino: None)
    live.hold_names()
    async with trio.open_nursery() as nursery:
        for number in range(NAMES_WAITING_MAX):
            nursery.start_soon(live.mkdir, 1, b"%d" % number, 0o755, CALLER)
        await trio.testing.wait_all_tasks_blocked()
        assert live.names.waiting == NAMES_WAITING_MAX
        await live.mkdir(1, b"one more", 0o755, CALLER)
        live.thaw()


@pytest.mark.parametrize("late", [True, False])
async def test_a_write_after_a_time_was_set_moves_it_where_the_kernel_does_not(late: bool) -> None:
    live = LiveFiles(MemTree(), lambda ino: None, lambda ino: None, late_writes=late)
    file = await live.create(1, b"f", 0o600, True, CALLER)
    await live.setattr(file.ino, {"mtime_ns": 5})
    await live.write(file.ino, 0, b"x")
    assert ((await live.getattr(file.ino)).mtime_ns == 5) == late


@pytest.mark.parametrize("late", [True, False])
async def test_truncating_to_the_same_size_moves_times_where_the_kernel_does_not(
    late: bool,
) -> None:
    live = LiveFiles(MemTree(), lambda ino: None, lambda ino: None, late_writes=late)
    file = await live.create(1, b"f", 0o600, True, CALLER)
    await live.setattr(file.ino, {"mtime_ns": 5, "ctime_ns": 6})
    attr = await live.setattr(file.ino, {"size": 0})
    assert ((attr.mtime_ns, attr.ctime_ns) == (5, 6)) == late
    attr = await live.setattr(file.ino, {"size": 0, "mtime_ns": 7, "ctime_ns": 8})
    assert (attr.mtime_ns, attr.ctime_ns) == (7, 8)


async def test_times_of_the_cache_that_were_overtaken_change_nothing() -> None:
    """The kernel sends them without the file's lock: what was set under it meanwhile may arrive first."""
    live = LiveFiles(MemTree(), lambda ino: None, lambda ino: None)
    file = await live.create(1, b"f", 0o600, True, CALLER)
    now = 1_700_000_000 * 10**9
    await live.setattr(file.ino, {"size": 0, "mtime_ns": now, "ctime_ns": now})
    attr = await live.setattr(file.ino, {"mtime_ns": now - 4, "ctime_ns": now - 4})
    assert (attr.mtime_ns, attr.ctime_ns) == (now, now)
    attr = await live.setattr(file.ino, {"mtime_ns": 5, "ctime_ns": now + 4})
    assert (attr.mtime_ns, attr.ctime_ns) == (5, now + 4)
    hour = 3600 * 10**9  # the clock was set back
    attr = await live.setattr(file.ino, {"mtime_ns": now - hour, "ctime_ns": now - hour})
    assert (attr.mtime_ns, attr.ctime_ns) == (now - hour, now - hour)


async def test_an_open_gate_costs_no_wait() -> None:
    gate = Gate()
    gate.open()
    gate.close()
    gate.close()
    assert gate.closed
    gate.open()
    await gate.passed()


async def test_listing_a_point_goes_on_from_any_place() -> None:
    tree = MemTree()
    for number in range(PLACES + 500):
        tree._make(1, b"%05d" % number, stat.S_IFREG | 0o644, CALLER)
    files = PointFiles(MemView.of(tree))
    everything = [entry async for entry in files.readdir(1, 0)]
    assert [name for name, _, _ in everything] == [b"%05d" % n for n in range(PLACES + 500)]
    for start in (1, 499, PLACES, PLACES + 499, PLACES + 500):
        rest = [entry[0] async for entry in files.readdir(1, everything[start - 1][2])]
        assert rest == [name for name, _, _ in everything[start:]]
