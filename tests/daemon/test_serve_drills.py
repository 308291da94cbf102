"""Drills and retention by a real daemon: by themselves, and what is told of them."""

from __future__ import annotations

import os
from collections.abc import Callable

from daemon.contract import DrillSpec, MountSpec
from tests.daemon.service.support import fill
from tests.daemon.supervise.daemons import Daemon, ended, until

TABLES = """
[mounts.a]
start = false
drill = "every 1s"
[mounts.a.hooks.verify]
command = ["/bin/sh", "-c", "test -s $HOLDFAST_PATH/f && echo $HOLDFAST_POINT"]
[mounts.b]
start = false
[mounts.b.hooks.verify]
command = ["/bin/sh", "-c", "exec sleep 300"]
timeout_s = 300
"""


def test_drills_by_schedule_and_by_hand(make: Callable[..., Daemon]) -> None:
    daemon = make(TABLES)
    daemon.start()
    with daemon.remote() as api:
        if not {"a", "b"} <= {one.name for one in api.mounts()}:
            for name in ("a", "b"):
                api.create_mount(MountSpec(name))
        fill(str(daemon.store), "a", {"f": b"x" * 1000})
        points = {name: api.snapshot(name).point.id for name in ("a", "b")}
        until(lambda: bool(api.drills("a")))
        found = api.drills("a")[-1]
        assert (found.point, found.error, found.source) == (points["a"], "", "local")
        assert b"".join(api.attachment(found.output)[1]).decode().strip() == points["a"]
        job = api.drill(DrillSpec("b", into="out"))
        until(lambda: [one[:-9] for one in os.listdir(daemon.root / "out")] == [f"drill-{job.id}"])
        until(lambda: api.job(job.id).progress.get("stage") == "verify")
        api.cancel_job(job.id)
        assert ended(api, job).state == "cancelled" and os.listdir(daemon.root / "out") == []
        assert api.drills("b") == [] and api.incidents() == []
        text = b"".join(api._link.stream("/metrics")[1]).decode()
        audited = [(one.act, one.origin) for one in api.audit()]
    assert 'holdfast_drill_recovery_seconds{mount="a"}' in text
    assert 'holdfast_drill_last_success_timestamp_seconds{mount="b"} 0.0' in text
    assert 'holdfast_retention_frozen{mount="a"} 0.0' in text
    assert ("start drill", "schedule") in audited and ("start drill", "api") not in audited
    daemon.stop()
    assert os.listdir(daemon.store / "daemon" / "drills") == []
