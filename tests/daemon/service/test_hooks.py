"""Hooks: what they are given, what is kept of them, what their failure does."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from daemon.config import Hook
from daemon.contract import MountSpec, PointQuery, RestoreSpec
from daemon.service import Service, hooks
from engine import Store
from engine.errors import Busy
from tests.daemon.service.support import new_store, served, settings


def sh(text: str, timeout_s: float = 20.0) -> Hook:
    return Hook(command=["/bin/sh", "-c", text], timeout_s=timeout_s)


def test_what_a_hook_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "canary")
    ran = hooks.run("before_begin", Hook(command=["/usr/bin/env"]), {"MOUNT": "m", "POINT": ""})
    lines = ran.output.decode().splitlines()
    assert not ran.why and "HOLDFAST_MOUNT=m" in lines and "HOLDFAST_EVENT=before_begin" in lines
    assert b"canary" not in ran.output and "HOLDFAST_POINT=" in lines
    words = hooks.run("before_begin", Hook(command=["/bin/echo", "$HOME", "a b;c"]), {}).output
    assert words == b"$HOME a b;c\n"


def test_how_hooks_end() -> None:
    assert (
        hooks.run("after_begin", sh("echo out; echo err >&2; exit 3"), {}).told
        == "exit code 3: err"
    )
    assert hooks.run("after_begin", sh("kill -9 $$"), {}).why == "ended by signal 9"
    assert hooks.run("after_begin", Hook(command=["/no/such/program"]), {}).why.startswith(
        "cannot be started"
    )
    assert (
        hooks.run(
            "after_begin", Hook(command=["/bin/sh", "-c", "printf 'a\\033[31mb'; exit 1"]), {}
        ).last_line
        == "a?[31mb"
    )
    assert hooks.run("after_begin", sh("exec >&- 2>&-; sleep 0.2; exit 4"), {}).why == "exit code 4"


def test_a_hook_that_takes_too_long_is_ended_with_all_its_children(tmp_path: Path) -> None:
    began = time.monotonic()
    ran = hooks.run(
        "before_commit",
        sh(f"(sleep 60; touch {tmp_path}/late) & echo $! > {tmp_path}/pid; echo begun; wait", 1.0),
        {},
    )
    assert time.monotonic() - began < 15
    assert ran.why == "took longer than 1 s and was ended" and ran.output == b"begun\n"
    child = int((tmp_path / "pid").read_text())
    end = time.monotonic() + 10
    while (
        os.path.exists(f"/proc/{child}")
        and "Z" not in Path(f"/proc/{child}/stat").read_text().split()[2]
    ):
        assert time.monotonic() < end, "its child lives"
        time.sleep(0.01)


def test_a_child_that_keeps_the_output_open_holds_nothing_up() -> None:
    began = time.monotonic()
    ran = hooks.run("before_commit", sh("sleep 30 & echo done"), {})
    assert not ran.why and ran.output == b"done\n" and time.monotonic() - began < 15


def test_output_is_bounded() -> None:
    ran = hooks.run(
        "before_commit", sh("head -c 3000000 /dev/zero | tr '\\0' x; echo last; exit 1"), {}
    )
    assert len(ran.output) <= hooks.OUTPUT_MAX and b"bytes were left out" in ran.output[-100:]
    assert ran.why == "exit code 1"


@contextmanager
def hooked(tmp_path: Path, **events: Hook) -> Iterator[Service]:
    path = str(tmp_path / "store")
    new_store(path)
    table: dict[str, Any] = {"hooks": {event: hook.model_dump() for event, hook in events.items()}}
    with served(path, settings(path, {"m": table})) as service:
        service.create_mount(MountSpec("m"))
        yield service


def test_hooks_run_in_order_and_what_they_print_is_kept(tmp_path: Path) -> None:
    told = tmp_path / "told"
    say = f'echo "$HOLDFAST_EVENT $HOLDFAST_MOUNT $HOLDFAST_PATH $HOLDFAST_SESSION $HOLDFAST_POINT" | tee -a {told}'
    events = ("before_begin", "after_begin", "before_commit", "after_commit", "after_restore")
    with hooked(tmp_path, **{event: sh(say) for event in events}) as service:
        session = service.begin("m")
        done = service.commit(session.id)
        lines = told.read_text().splitlines()
        place = service.mount("m").path
        assert lines == [
            f"before_begin m {place} {session.id} ", f"after_begin m {place} {session.id} ",
            f"before_commit m {place} {session.id} ",
            f"after_commit m {place} {session.id} {done.session.point}",
        ]  # fmt: skip
        kept = [
            b"".join(service.attachment(one.id)[1]).decode().rstrip("\n")
            for one in service.point(done.session.point).attachments
        ]
        assert kept == lines
        made = service.snapshot("m")
        assert [one.name for one in made.attachments] == ["before_commit", "after_commit"]
        service.restore(RestoreSpec(made.point.id))
        [*_, kept_last] = service.point(made.point.id).attachments
        assert kept_last.name == "after_restore"
        assert b"".join(service.attachment(kept_last.id)[1]) == (
            f"after_restore m {place}  {made.point.id}\n".encode()
        )


def test_a_hook_before_refuses(tmp_path: Path) -> None:
    with hooked(
        tmp_path, before_begin=sh(f"test -e {tmp_path}/yes || {{ echo not yet; exit 1; }}")
    ) as service:
        with pytest.raises(Busy, match="before_begin to agree, found exit code 1: not yet"):
            service.begin("m")
        assert service.sessions() == []
        (tmp_path / "yes").touch()
        assert service.begin("m").state == "open"


def test_a_commit_that_a_hook_refuses_leaves_the_session_open(
    tmp_path: Path, expect_log: Callable[[str], None]
) -> None:
    fail = sh("echo database is busy; exit 7")
    with hooked(tmp_path, before_commit=fail, after_begin=fail) as service:
        expect_log("hook after_begin exit code 7: database is busy")
        session = service.begin("m")
        [incident] = service.incidents()
        assert (incident["kind"], incident["thing"]) == ("hook_failed", "mount m")
        with pytest.raises(Busy, match="database is busy"):
            service.commit(session.id)
        assert service.session(session.id).state == "open"
        assert service.points(PointQuery()).items == []
        kept = service.state.attachments.of(session=session.id)
        assert [one.name for one in kept] == ["after_begin", "before_commit"]


def test_what_was_quiesced_is_resumed_when_the_commit_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "told"
    say = sh(f'echo "$HOLDFAST_EVENT [$HOLDFAST_POINT]" >> {told}')
    with hooked(tmp_path, before_commit=say, after_commit=say) as service:
        session = service.begin("m")

        def full(*_: object, **__: object) -> None:
            raise Busy("disk")

        with monkeypatch.context() as patch:
            patch.setattr(Store, "snapshot", full)
            with pytest.raises(Busy, match="disk"):
                service.commit(session.id)
        assert told.read_text().splitlines() == ["before_commit []", "after_commit []"]
        assert service.session(session.id).state == "open"
        service.commit(session.id)
