"""What can go wrong at a real server while points are sent, from end to end.

Each ends in a verified upload or in a state that says why, and until then nothing is given up here. Against moto; against
Ceph's gateway with ``make test-distributed``. ``proxy`` is between the store and the server.

| fault | proved by |
|---|---|
| server killed in the middle of a part | test_faults_servers.py, Ceph's gateway as well; tests/locations/test_ceph.py |
| whoever sends, frees or adopts killed at any request | test_killed_at_requests.py |
| server away for longer than anybody waits | ``STAYING`` gone |
| 500, 503, a conflict that nobody won | ``PASSING``; for longer than anybody waits: ``STAYING`` |
| connections cut in a request, an answer, before an answer | ``PASSING`` |
| timeouts | ``PASSING`` late; ``STAYING`` timeouts |
| the same while something is read, adopted or freed | ``test_reading_goes_on_through_what_passes`` |
| slow answers | ``PASSING`` slow |
| wrong credentials | ``test_wrong_credentials``; a right that is missing: ``STAYING`` denied |
| clock skew (RequestTimeTooSkewed) | ``test_what_does_not_pass_…``; judged by Ceph itself: ``test_a_clock_that_is_wrong`` |
| a full bucket (QuotaExceeded, 507) | ``STAYING`` quota, full; by a quota of Ceph's: ``test_a_bucket_that_is_full`` |
| object truncated, bit flipped, pack missing, before the look at it | ``test_a_pack_that_is_not_as_it_was_sent`` |
| the same, of what was verified | ``test_what_is_damaged_there_later``; tests/copies/test_adopt_hostile.py, test_rescue.py |
| a bit flipped, an answer cut short on the way | tests/locations/test_server.py |
| lists of more than 2,500 objects | tests/locations/test_server.py; test_faults_servers.py (of Ceph; of moto, whose pages are short there) |
| any change cut off, at any step | ``test_cut_off_at_any_change_it_goes_on`` and others in test_upload.py, test_keyring.py, test_adopt_killed.py |

| bad input | proved by |
|---|---|
| wrong passphrase, key, identity | test_adopt.py ``test_whatever_opens_it``; tests/keys/test_ring.py; tests/cli/test_adopt.py; of the rescue program, test_rescue.py |
| a bucket of a newer format | test_adopt_hostile.py ``test_what_is_newer_is_refused``; test_journal.py, tests/keys/test_ring.py |
| of another store | test_upload.py ``test_another_store_is_refused``; test_adopt_hostile.py ``test_another_stores_marker_is_refused`` |
| path traversal, symlink escape, duplicate names | test_adopt_hostile.py ``test_names_that_lead_away_are_refused``; tests/restore/test_force.py; test_rescue.py ``test_hostile_names_stay_outside`` |
| decompression bombs | test_adopt_hostile.py ``test_bombs_do_not_go_off``; test_sealed.py ``test_hostile_trailers``; tests/engine/test_codec.py |
| absurd sizes | test_adopt_hostile.py ``test_absurd_…``; test_journal.py ``test_hostile_entries`` |
| cyclic trees and deltas | test_adopt_hostile.py ``test_a_tree_that_contains_itself_is_refused``, ``test_deltas_of_each_other_end`` |
| any bytes at all | hypothesis in test_journal.py, test_sealed.py, tests/keys/test_ring.py, tests/nodes/, test_rescue.py |
"""  # noqa: E501 - tables

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine import Store
from engine.copies import connect, rows, sealed
from engine.copies.connect import Wanted, add
from engine.copies.sealed import path_of
from engine.errors import (
    HoldfastError,
    LocationDenied,
    LocationUnavailable,
)
from engine.index import Table
from engine.index.rows import U32, chunk_row
from engine.locations import Location, Retry
from tests.copies.test_adopt import content
from tests.copies.test_reach import grown
from tests.copies.test_upload import CHEAP, SECRET
from tests.locations.places import BUCKET, Server
from tests.locations.proxy import Call, CutAnswer, CutRequest, Delay, Fault, Proxy, Redate, Status
from tests.restore.support import Maker

__all__ = ["grown"]
SHORT = 0.3  # s that a location may be gone, instead of minutes


@dataclass
class Far:
    """A location with nothing in it, of a store with four points that are to go there."""

    engine: Store
    proxy: Proxy
    server: Server
    key: str
    tmp: Path
    wait_s: float = 20.0

    @property
    def url(self) -> str:
        """Not through the proxy."""
        return f"s3://{BUCKET}/{self.key}?endpoint={self.server.endpoint}"

    def states(self) -> set[str]:
        return {one.state for one in self.engine.copies.uploads("far")}

    def reasons(self) -> str:
        return " ".join(one.reason for one in self.engine.copies.uploads("far"))

    def send(self) -> str:
        """Send what waits; what was raised."""
        try:
            self.engine.copies.send("far")
        except HoldfastError as error:
            return f"{type(error).__name__} {error}"
        return ""

    def is_here(self) -> None:
        """All of it can be read with nothing of the location, and nothing is given up."""
        self.proxy.down()
        assert not self.engine.copies.drop_local().chunks
        assert self.engine.check(read_data=True).problems == []
        with self.engine._open.context.index.read() as txn:
            away = set(txn.keys(Table.AWAY))
            assert not away & {U32.pack(chunk_row(raw).pack) for _, raw in txn.scan(Table.CHUNKS)}
        self.proxy.up()

    def is_there(self) -> None:
        """All points are verified; who has the location and the passphrase alone has them; and it can go from here."""
        assert self.states() == {"verified"}
        assert Store.adopt(str(self.tmp / "new"), self.url, SECRET).points == 4
        with Store.open(str(self.tmp / "new")) as store:
            assert store.check(read_data=True).problems == []
            newest = self.engine.points()[-1].id
            assert content(store, newest, self.tmp / "n") == content(
                self.engine, newest, self.tmp / "o"
            )
        assert self.engine.copies.drop_local().chunks
        assert self.engine.check(read_data=True).problems == []


@pytest.fixture
def far(
    engine: Store, make: Maker, grown: list[str], server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Far]:  # fmt: skip
    make.tree.unlink(1, b"big")  # what only older points need can be given up here
    make.tree.forgotten(make.inodes.pop(b"big"))
    make.point(engine)
    for name, value in server.credentials.items():
        monkeypatch.setenv(name, value)
    far = Far(engine, Proxy(server.endpoint), server, "", tmp_path)

    def patient(inner: Location, clock: Callable[[], float]) -> Retry:
        return Retry(inner, far.wait_s, clock=clock, chance=lambda: 0)

    monkeypatch.setattr(connect, "Retry", patient)
    with far.proxy as proxy:
        url = server.url(endpoint=proxy.endpoint, options="&timeout=0.5")
        wanted = Wanted(url, [SECRET], verify=1.0, local="drop")
        add(engine._open.context, "far", wanted, cost=CHEAP).location.close()
        far.key = url.removeprefix(f"s3://{BUCKET}/").partition("?")[0]
        yield far


def error(status: int, code: str) -> Status:
    return Status(status, f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode())


PASSING = {
    "answers": [
        ("PUT", "/packs/", Status(500)), ("PUT", "/journal/", Status(500)), ("GET", "/packs/", Status(500)),
        ("PUT", "/packs/", error(503, "SlowDown")), ("HEAD", "/packs/", Status(503)),
        ("PUT", "/journal/", error(409, "ConditionalRequestConflict")),
    ],
    "cuts": [
        ("PUT", "/packs/", CutRequest(9000)), ("PUT", "/journal/", CutRequest(30)), ("GET", "/packs/", CutAnswer(9000)),
        ("GET", "/journal/", CutAnswer(20)), ("PUT", "/packs/", CutAnswer(-1)), ("PUT", "/journal/", CutAnswer(-1)),
    ],
    "slow": [("PUT", "/packs/", Delay(0.7)), ("GET", "/packs/", Delay(0.7)), *[("", "", Delay(0.05))] * 20],
}  # fmt: skip


@pytest.mark.parametrize("faults", PASSING.values(), ids=PASSING)
def test_what_passes_ends_verified(far: Far, faults: list[tuple[str, str, Fault]]) -> None:
    for method, path, fault in faults:
        far.proxy.next(fault, method=method, path=path)
    assert far.send() == ""
    assert far.proxy.left() == []
    far.is_there()


STAYING: list[tuple[str, Fault, str]] = [
    ("", Status(500), "500"), ("", Delay(0.8), "none in time"),
    ("/packs/", error(403, "QuotaExceeded"), "QuotaExceeded"), ("/journal/", Status(507), "507"),
    ("", CutRequest(0), ""),
]  # fmt: skip


def test_what_may_pass_is_queued_and_ends_verified_when_it_has(far: Far) -> None:
    far.wait_s = SHORT
    for path, fault, text in STAYING:
        far.proxy.next(fault, method="PUT", path=path, times=-1)
        raised = far.send()
        assert raised and text in raised and raised.partition(" ")[2] in far.reasons()
        assert far.states() == {"queued"}
        far.proxy.clear()
    far.proxy.next(Call(lambda path: far.proxy.down()), method="PUT")
    assert LocationUnavailable.__name__ in far.send() and far.states() == {"queued"}
    far.is_here()
    assert far.send() == ""
    far.is_there()


def test_what_does_not_pass_is_failed_until_somebody_mends_it(far: Far) -> None:
    for code, text in (
        ("AccessDenied", "look at credentials"),
        ("RequestTimeTooSkewed", "set the clock"),
    ):
        far.proxy.next(error(403, code), method="PUT", path="/packs/", times=-1)
        assert far.send() == "" and far.states() == {"failed"}
        assert code in far.reasons() and text in far.reasons()
        far.proxy.clear()
        assert far.send() == "" and far.states() == {"failed"}  # not by itself
        far.is_here()
        assert far.engine.copies.retry("far") == 4
    assert far.send() == ""
    far.is_there()


def test_wrong_credentials(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as wrong:
        wrong.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret-that-nobody-sees")
        raised = far.send()
    assert raised.startswith(LocationDenied.__name__) and "look at credentials" in raised
    assert "wrong-secret" not in raised and far.states() == {"queued"}
    far.is_here()
    assert far.send() == ""
    far.is_there()


def test_reading_goes_on_through_what_passes(far: Far) -> None:
    """Of whoever adopts, restores, borrows, fetches what was dropped, and frees."""
    assert far.send() == ""
    assert far.engine.copies.drop_local().chunks
    newest, oldest = far.engine.points()[-1].id, far.engine.points()[0].id
    url = far.url.replace(far.server.endpoint, far.proxy.endpoint) + "&timeout=0.5"

    def trouble() -> None:
        for path in ("/packs/", "/journal/", ""):
            for fault in (
                Status(500),
                error(503, "SlowDown"),
                CutAnswer(500),
                CutAnswer(-1),
                Delay(0.7),
            ):
                far.proxy.next(fault, method="GET", path=path)

    trouble()
    assert Store.adopt(str(far.tmp / "through"), url, SECRET).points == 4
    trouble()
    with Store.open(str(far.tmp / "through")) as store:
        expected = content(store, newest, far.tmp / "restored")
    trouble()
    with Store.borrow(url, SECRET, scratch=str(far.tmp)) as store:
        assert content(store, newest, far.tmp / "borrowed") == expected
    trouble()
    shutil.rmtree(Path(far.engine.path, "cache"), ignore_errors=True)
    content(far.engine, oldest, far.tmp / "fetched")
    trouble()
    far.engine.remove_points([one.id for one in far.engine.points()[:2]])
    assert far.engine.copies.reclaim("far").done
    far.proxy.clear()
    assert far.engine.check(read_data=True).problems == []


@pytest.mark.needs_ceph
@pytest.mark.parametrize("server", ["ceph"], indirect=True)
def test_a_clock_that_is_wrong(far: Far) -> None:
    """The server judges it, before anything else of a request."""
    far.proxy.next(Redate("20200101T000000Z"), times=-1)
    assert "RequestTimeTooSkewed" in far.send() + far.reasons()
    assert "set the clock" in far.send() + far.reasons() and "verified" not in far.states()
    far.is_here()
    far.proxy.clear()
    far.engine.copies.retry("far")
    assert far.send() == ""
    far.is_there()


@pytest.mark.needs_ceph
@pytest.mark.parametrize("server", ["ceph"], indirect=True)
def test_a_bucket_that_is_full(far: Far) -> None:
    """By a quota, which somebody makes larger."""
    far.wait_s = SHORT
    cluster = far.server.cluster
    assert cluster is not None
    cluster.fill(BUCKET)
    try:
        told = far.send() + far.reasons()
        assert "QuotaExceeded" in told and "free space" in told and far.states() == {"queued"}
        far.is_here()
    finally:
        cluster.free(BUCKET)
    assert far.send() == ""
    far.is_there()


DAMAGE = ("truncated", "flipped", "missing")


def test_a_pack_that_is_not_as_it_was_sent(far: Far) -> None:
    """Between the end of a put and the look at it."""
    for damage in DAMAGE:

        def hurt(path: str, damage: str = damage) -> None:
            _hurt(far, path.removeprefix(f"/{BUCKET}/"), damage)

        far.proxy.next(Call(hurt), method="HEAD", path="/packs/", times=-1)
        far.wait_s = SHORT
        told = far.send() + far.reasons()
        assert re.search(r"packs/|sealed pack", told), told
        assert "verified" not in far.states()
        far.is_here()
        far.proxy.clear()
        far.engine.copies.retry("far")
    assert far.send() == ""
    far.is_there()


def test_what_is_damaged_there_later(far: Far, expect_log: Callable[[str], None]) -> None:
    """It is told, nothing else is lost, and never are other bytes given back."""
    assert far.send() == ""
    assert far.engine.copies.drop_local().chunks
    with far.engine._open.context.index.read() as txn:
        numbers = {U32.pack(chunk_row(raw).pack) for _, raw in txn.scan(Table.CHUNKS)}
        packs = {key: rows.away_row(raw) for key, raw in txn.scan(Table.AWAY)}
    name = next(
        row.name.hex() for key, row in packs.items() if key in numbers and row.kind == sealed.DATA
    )
    oldest, newest = far.engine.points()[0].id, far.engine.points()[-1].id
    content(far.engine, oldest, far.tmp / "before")  # what is in the cache then hides nothing
    far.wait_s = SHORT
    far.proxy.down()
    (away,) = (one for one in far.engine.check(read_data=True).problems if one.code != "tree")
    assert (away.code, away.thing) == ("away", "location far")  # no chunk is damaged by it
    far.proxy.up()
    expect_log("suspect")
    key = f"{far.key}/{path_of(name)}"
    sent = far.server.admin.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    for damage in DAMAGE:
        _hurt(far, key, damage)
        assert far.engine.check(read_data=True).problems
        shutil.rmtree(Path(far.engine.path, "cache"), ignore_errors=True)
        report = far.engine.restore(oldest, b"", bytes(far.tmp / f"oldest-{damage}"))
        assert report.damaged, damage
        content(far.engine, newest, far.tmp / f"newest-{damage}")
        if damage == DAMAGE[-1]:
            Store.adopt(str(far.tmp / "new"), far.url, SECRET)
            with Store.open(str(far.tmp / "new")) as store:
                assert store.check(read_data=True).problems
        far.server.admin.put_object(Bucket=BUCKET, Key=key, Body=sent)
        assert far.engine.check(read_data=True).problems == []  # mended: nothing is held against it


def _hurt(far: Far, key: str, damage: str) -> None:
    """Change an object as an administrator or a disk can."""
    admin = far.server.admin
    data = bytearray(admin.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    if damage == "missing":
        admin.delete_object(Bucket=BUCKET, Key=key)
        return
    if damage == "truncated":
        del data[len(data) // 2 :]
    else:
        data[len(data) * 3 // 4] ^= 4
    admin.put_object(Bucket=BUCKET, Key=key, Body=bytes(data))
