"""A bucket on a real server, and everything that can go wrong on the way to it."""

from __future__ import annotations

import secrets
import threading
import time

import pytest

from engine import limits
from engine.errors import (
    Away,
    Corrupt,
    LocationDenied,
    LocationUnavailable,
    NotFound,
    StoreFull,
)
from engine.locations import Location, Retry, open_location
from tests.locations.moto_server import MANY, NAMES
from tests.locations.places import LOCKED, Server
from tests.locations.proxy import CutAnswer, CutRequest, Delay, Flip, Proxy, Status, Truncate


@pytest.fixture
def direct(moto: Server) -> Location:
    return moto.location()


@pytest.fixture
def far(moto: Server, proxy: Proxy) -> Location:
    """Through the proxy, for a place of its own."""
    return moto.location(endpoint=proxy.endpoint)


def test_a_list_of_many_pages(moto: Server) -> None:
    location = open_location(f"s3://{MANY}?endpoint={moto.endpoint}", moto.credentials)
    assert [one.name for one in location.list("")] == NAMES
    assert [one.name for one in location.list("packs/", NAMES[1_234])] == NAMES[1_235:]
    seen = location.list("")
    assert next(seen).name == NAMES[0]  # nobody has to wait for the last page


def test_removing_more_than_one_request_takes(direct: Location) -> None:
    names = [f"n/{number:04}" for number in range(1_500)]
    for name in (names[0], names[999], names[1_000], names[1_499], "kept"):
        direct.put(name, b"1")
    direct.remove(names)
    assert [one.name for one in direct.list("")] == ["kept"]


def test_wrong_credentials(moto: Server) -> None:
    for wrong in ({"AWS_SECRET_ACCESS_KEY": "wrong"}, {"AWS_ACCESS_KEY_ID": "AKIAWRONG"}):
        location = Retry(open_location(moto.url(), moto.credentials | wrong))
        begun = time.monotonic()
        for ask in (
            lambda at=location: at.put("a", b"1"),
            lambda at=location: at.create("a", b"1"),
            lambda at=location: at.read("a"),
            lambda at=location: at.stat("a"),
            lambda at=location: next(at.list("")),
            lambda at=location: at.remove(["a"]),
            lambda at=location: at.features(),
        ):
            with pytest.raises(LocationDenied, match="look at credentials"):
                ask()
        assert time.monotonic() - begun < 10


def test_a_refusal_without_a_body_is_asked_for_its_reason(far: Location, proxy: Proxy) -> None:
    """As an answer to HEAD is, which comes first where an upload begins."""
    far.put("a", b"1")
    skewed = Status(403, b"<Error><Code>RequestTimeTooSkewed</Code></Error>")
    proxy.next(skewed, times=-1)
    with pytest.raises(LocationDenied, match="set the clock"):
        far.stat("a")
    proxy.clear()
    proxy.next(Status(403), method="HEAD")
    with pytest.raises(LocationDenied, match="look at credentials"):
        far.stat("a")


def test_variables_of_the_client_library_lead_nowhere_else(
    moto: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "another")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    location = moto.location(LOCKED)
    location.put("a", b"1")
    assert location.features().lock and location.read("a") == b"1"


def test_a_bucket_that_is_not_there(moto: Server) -> None:
    location = moto.location("no-such-bucket")
    for ask in (
        lambda: location.put("a", b"1"),
        lambda: location.create("a", b"1"),
        lambda: location.read("a"),
        lambda: next(location.list("")),
        lambda: location.remove(["a"]),
    ):
        with pytest.raises(Away, match=r"bucket of .*NoSuchBucket"):
            ask()


def test_retention(moto: Server) -> None:
    location = moto.location(LOCKED)
    assert location.features() == (True, True)
    location.put("a", b"1")
    now = int(time.time())
    key = location.shown.removeprefix(f"s3://{LOCKED}/").partition("?")[0] + "/a"

    def until() -> float:
        head = moto.admin.head_object(Bucket=LOCKED, Key=key)
        assert head["ObjectLockMode"] == "COMPLIANCE"
        return float(head["ObjectLockRetainUntilDate"].timestamp())

    location.retain("a", now + 1000)
    assert until() == now + 1000
    location.retain("a", now + 500)
    assert until() == now + 1000
    location.retain("a", now + 2000)
    assert until() == now + 2000
    with pytest.raises(NotFound):
        location.retain("nothing", now + 1000)


def test_what_an_upload_left_half_done(moto: Server) -> None:
    location = moto.location()
    bucket, _, prefix = location.shown.removeprefix("s3://").partition("?")[0].partition("/")
    for name in ("x", "y"):
        moto.admin.create_multipart_upload(Bucket=bucket, Key=f"{prefix}/{name}")
    moto.admin.create_multipart_upload(Bucket=bucket, Key=f"{prefix}-other/z")
    # This server says of every upload that it was begun in 2010.
    assert location.tidy(100 * 365 * 86_400) == 0
    assert location.tidy(limits.LEFTOVER_AGE) == 2
    assert location.tidy(limits.LEFTOVER_AGE) == 0


# --- on the way ------------------------------------------------------------------------------------


def test_errors_that_pass_are_mended_inside(far: Location, proxy: Proxy) -> None:
    proxy.next(Status(503), times=2)
    far.put("a", b"data")
    proxy.next(Status(500), times=2)
    assert far.read("a") == b"data"
    proxy.next(CutAnswer(-1), method="GET")
    assert far.read("a", 1, 2) == b"at"


def test_errors_that_stay_are_told(far: Location, proxy: Proxy) -> None:
    proxy.next(Status(500), times=-1)
    begun = time.monotonic()
    for ask in (lambda: far.put("a", b"1"), lambda: far.stat("a"), lambda: next(far.list(""))):
        with pytest.raises(LocationUnavailable, match="found 500"):
            ask()
    assert time.monotonic() - begun < 3 * limits.REQUEST_RETRY_TIME


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (400, "RequestTimeout", LocationUnavailable), (400, "BadDigest", LocationUnavailable),
        (403, "QuotaExceeded", StoreFull), (507, "", StoreFull), (403, "AccessDenied", LocationDenied),
        (403, "RequestTimeTooSkewed", LocationDenied), (301, "PermanentRedirect", LocationDenied),
        (429, "", LocationUnavailable),
    ],
)  # fmt: skip
def test_what_servers_say(
    far: Location, proxy: Proxy, status: int, code: str, error: type[Exception]
) -> None:
    proxy.next(Status(status, f"<Error><Code>{code}</Code></Error>".encode()), times=-1)
    with pytest.raises(error, match=code or str(status)) as caught:
        far.put("a", b"1")
    if code == "RequestTimeTooSkewed":
        assert "set the clock" in str(caught.value)


def test_an_answer_cut_off_is_fetched_to_its_end(far: Location, proxy: Proxy) -> None:
    data = secrets.token_bytes(3 << 20)
    far.put("a", data)
    proxy.next(CutAnswer(1 << 20), method="GET")
    assert far.read("a") == data
    proxy.next(CutAnswer(1 << 19), method="GET", times=2)
    assert far.read("a", 5, 2 << 20) == data[5 : 5 + (2 << 20)]


def test_a_body_cut_short_is_never_taken_for_all(far: Location, proxy: Proxy) -> None:
    far.put("a", bytes(5_000))
    for ask in (
        lambda: far.read("a", 0, 5_000),
        lambda: far.read("a", 100, 4_000),
        lambda: far.ranges("a", [(0, 100), (4_000, 1_000)]),
    ):
        proxy.clear()
        proxy.next(Truncate(70), method="GET", times=-1)
        with pytest.raises((Corrupt, LocationUnavailable)):
            ask()


def test_a_changed_bit_on_the_way_is_for_the_caller(far: Location, proxy: Proxy) -> None:
    """Answers carry no digest that a client could check; what is fetched is verified by whoever knows what it is."""
    far.put("a", bytes(100))
    proxy.next(Flip(bit=17), method="GET")
    assert sum(far.read("a", 0, 100)) == 2


def test_an_upload_cut_off_in_the_middle(far: Location, proxy: Proxy) -> None:
    data = secrets.token_bytes(3 * limits.PUT_PART)
    proxy.next(CutRequest(1 << 20), method="PUT", times=2)
    far.put("large", data)
    assert far.read("large") == data
    proxy.clear()
    proxy.next(CutRequest(1 << 20), method="PUT", path="/other", times=-1)
    with pytest.raises(LocationUnavailable):
        far.put("other", data)
    proxy.next(CutRequest(10), method="PUT", times=-1)
    with pytest.raises(LocationUnavailable):
        far.put("small", data[:100])
    proxy.clear()
    assert [one.name for one in far.list("")] == ["large"]  # nothing torn is ever seen


def test_a_create_whose_answer_is_lost(far: Location, proxy: Proxy) -> None:
    proxy.next(CutAnswer(-1), method="PUT")
    with pytest.raises(LocationUnavailable):
        far.create("j/1", b"mine")  # alone it does not know, and does not guess
    again = Retry(far, sleep=lambda _: None)
    proxy.next(CutAnswer(-1), method="PUT")
    assert again.create("j/2", b"mine") is True
    assert far.create("j/2", b"mine") is False
    proxy.next(Status(500), method="PUT")
    assert again.create("j/1", b"theirs") is False


def test_a_conflict_that_nobody_won(far: Location, proxy: Proxy) -> None:
    proxy.next(Status(409, b"<Error><Code>ConditionalRequestConflict</Code></Error>"), method="PUT")
    with pytest.raises(LocationUnavailable, match="neither"):
        far.create("j/1", b"mine")
    proxy.next(Status(409, b"<Error><Code>ConditionalRequestConflict</Code></Error>"), method="PUT")
    assert Retry(far, sleep=lambda _: None).create("j/1", b"mine") is True


def test_an_answer_too_late(moto: Server, proxy: Proxy) -> None:
    location = moto.location(endpoint=proxy.endpoint, options="&timeout=0.3")
    location.put("a", b"data")
    proxy.next(Delay(1.0), method="GET")
    assert location.read("a") == b"data"  # asked again
    proxy.next(Delay(1.0), method="PUT", times=-1)
    with pytest.raises(LocationUnavailable, match="none in time"):
        location.put("a", b"data")


def test_a_server_that_goes_in_the_middle_and_comes_back(far: Location, proxy: Proxy) -> None:
    data = secrets.token_bytes(limits.PUT_PART + 1)
    again = Retry(far, 60.0, chance=lambda: 0.0)
    stop = threading.Event()
    done: list[str] = []

    def work() -> None:
        number = 0
        while not stop.is_set():
            again.put(f"p/{number}", data)
            assert again.create(f"j/{number}", b"%d" % number)
            done.append(str(number))
            number += 1

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.3)
    proxy.down()
    time.sleep(0.7)
    before = len(done)
    proxy.up()
    end = time.monotonic() + 30
    while len(done) < before + 2 and time.monotonic() < end:
        time.sleep(0.05)
    stop.set()
    thread.join(60)
    assert len(done) >= before + 2
    assert {again.read(f"p/{number}") == data for number in done} == {True}
    assert {again.read(f"j/{number}").decode() == number for number in done} == {True}


def test_a_list_cut_off_between_its_pages(moto: Server, proxy: Proxy) -> None:
    far = open_location(f"s3://{MANY}?endpoint={proxy.endpoint}", moto.credentials)
    stream = Retry(far, sleep=lambda _: None).list("")
    found = [next(stream).name for _ in range(10)]
    proxy.next(Status(500), method="GET", times=5)
    found += [one.name for one in stream]
    assert found == NAMES
