"""Copies by a real daemon: points go to a location by themselves, and who asks for it waits until they are there."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from daemon.contract import LocationSpec, MountSpec
from engine.errors import Busy, InvalidRequest
from engine.keys import Identity
from tests.daemon.supervise.daemons import Daemon, until
from tests.locations.places import Place

CANARY = "canary-passphrase-7Q"


def test_points_leave_the_machine(make: Callable[..., Daemon], place: Place) -> None:
    daemon = make('[uploads]\nwait_s = "20s"\n')
    daemon.start()
    with daemon.remote() as api:
        api.create_mount(MountSpec("m"))
        early = api.snapshot("m").point
        with pytest.raises(InvalidRequest, match="storage location"):
            api.snapshot("m", durability="remote")
        key = Identity.new().recipient.printed()
        api.add_location(LocationSpec("there", place.url, CANARY, [key]))
        until(lambda: api.point(early.id).copies == {"there": "verified"})
        session = api.begin("m")
        api.attach_log(session.id, "log", [os.urandom(1000)])
        done = api.commit(session.id, durability="remote")
        assert done.detail.copies == {"there": "verified"}
        assert api.snapshot("m", durability="remote").copies == {"there": "verified"}
        assert api.mount("m").pending == 0
        place.gone()  # a location that is away holds up nobody else
        late = api.snapshot("m").point
        assert api.mount("m").pending == 1
        until(lambda: api.jobs(kind="upload").items[0].state == "failed")
        place.back()
        assert api.retry_uploads("there") == 0  # it waits, and is sent now
        until(lambda: api.point(late.id).copies == {"there": "verified"})
        assert [one.verified for one in api.locations()] == [4]
        audited = repr(api.audit())
        jobs = repr(api.jobs().items)
        numbers = api._link.stream("/metrics")[1]
        text = b"".join(numbers).decode()
    assert 'holdfast_uploads{location="there",state="verified"} 4.0' in text
    assert 'holdfast_pending_points{mount="m"} 0.0' in text
    assert "holdfast_uploaded_bytes_total{" in text
    assert "holdfast_location_requests_total{" in text
    assert "holdfast_location_bytes_total{" in text
    assert "add location" in audited
    daemon.stop()
    kept = place.everything()
    for secret in (CANARY, key, *place.credentials.values()):
        assert secret not in audited + jobs + daemon.log()
        for folder, _, names in os.walk(daemon.store):
            for name in names:
                with open(os.path.join(folder, name), "rb") as file:
                    assert secret.encode() not in file.read(), name
        assert not [name for name, data in kept.items() if secret.encode() in data]


def test_a_wait_that_ends_before_the_copy_is_there(
    make: Callable[..., Daemon], place: Place
) -> None:
    daemon = make('[uploads]\nwait_s = "0.2s"\n')
    daemon.start()
    with daemon.remote() as api:
        api.create_mount(MountSpec("m"))
        key = Identity.new().recipient.printed()
        api.add_location(LocationSpec("there", place.url, keys=[key]))
        place.gone()
        session = api.begin("m")
        with pytest.raises(Busy, match="the point itself exists"):
            api.commit(session.id, durability="remote")
        made = api.session(session.id)
        assert made.state == "committed"
        assert api.commit(session.id).detail.point.id == made.point
