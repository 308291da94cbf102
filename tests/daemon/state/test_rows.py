"""The rows of the state: sessions step by step, tokens, jobs, keys, attachments, and what else is kept."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.contract import ExportInfo, SessionInfo
from daemon.state import Note, Plan, State, pruning
from daemon.state.attachments import PART
from daemon.state.jobs import Restored
from engine import PlannedPoint
from engine.errors import Busy, Corrupt, InvalidRequest, NotFound, PermissionDenied, StoreFull
from tests.daemon.service.support import DAY, HOUR, MINUTE, Clock, new_store


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("state") / "store")
    new_store(path)
    return path


@pytest.fixture
def state(store: str, clock: Clock) -> Iterator[State]:
    with State.open(store, clock) as one:
        with one.database.write() as txn:
            for table in txn.execute(
                "SELECT name FROM sqlite_schema WHERE type = 'table'"
            ).fetchall():
                if not table["name"].startswith("sqlite_"):
                    txn.execute(f"DELETE FROM {table['name']}")
        yield one


PLAN = Plan(PlannedPoint("p" * 26, 5), Note("p" * 26, "s", "crash-consistent", ["a\udcff"]))
STEPS = {
    "commit": (("open",), "committing", lambda state: state.sessions.commit("s", PLAN)),
    "reopen": (("committing",), "open", lambda state: state.sessions.reopen("s")),
    "committed": (("committing",), "committed", lambda state: state.sessions.committed("s")),
    "abandon": (("open",), "abandoned", lambda state: state.sessions.abandon("s")),
    "renew": (("open", "committing"), None, lambda state: state.sessions.renew("s", 9)),
}


@settings(max_examples=40)
@given(steps=st.lists(st.sampled_from(sorted(STEPS)), max_size=8))
def test_sessions_step_only_where_the_table_says(store: str, steps: list[str]) -> None:
    with State.open(store, Clock()) as state:
        with state.database.write() as txn:
            txn.execute("DELETE FROM sessions")
        state.sessions.begin(SessionInfo("s", "m", "open", 1, 2**60))
        now = "open"
        for name in steps:
            before, after, step = STEPS[name]
            if now in before:
                now = after or now
                assert step(state).state == now
            else:
                with pytest.raises(InvalidRequest, match=f"found it {now}"):
                    step(state)
            found = state.sessions.get("s")
            assert found.state == now
            assert bool(found.point) == (now == "committed") and bool(found.ended_ns) == (
                now in ("committed", "abandoned")
            )
            assert (state.sessions.open_of("m") is None) == bool(found.ended_ns)
            if now == "committed":
                assert state.notes.get(PLAN.point.id) == PLAN.note
            if now == "committing":
                assert state.sessions.plan("s") == PLAN
        with state.database.write() as txn:
            txn.execute("DELETE FROM notes")


def test_a_token_is_good_on_a_full_disk(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who frees it must be let in; only when it was used last is not written."""
    token, text = state.tokens.create("operator", [])

    def full() -> None:
        raise StoreFull("state")

    monkeypatch.setattr(state.database, "write", full)

    assert state.tokens.verify(text) == token


def test_tokens(state: State, clock: Clock) -> None:
    token, text = state.tokens.create("writer", ["b", "a", "b"], label="rman", lifetime_s=3600)
    assert token.mounts == ["a", "b"] and token.used_ns == 0
    assert len(text) == 3 + 12 + 1 + 64
    with state.database.read() as db:
        row = dict(db.execute("SELECT * FROM tokens").fetchone())
    assert text.rpartition("_")[2] not in repr(row) and len(row["digest"]) == 32
    assert state.tokens.verify(text) == token
    used = state.tokens.every()[0].used_ns
    assert used == clock.now
    clock.now += MINUTE - 1
    state.tokens.verify(text)
    assert state.tokens.every()[0].used_ns == used
    clock.now += 1
    state.tokens.verify(text)
    assert state.tokens.every()[0].used_ns == clock.now
    other = state.tokens.create("admin", [])[1]
    mixed = text[:16] + other[16:]
    for wrong in (
        "",
        "hf_",
        text[:-1],
        text + "0",
        text.upper(),
        mixed,
        " " + text,
        "\udcff",
        text[:-1] + "é",
    ):
        with pytest.raises(PermissionDenied) as refused:
            state.tokens.verify(wrong)
        assert text.rpartition("_")[2] not in str(refused.value)
    clock.now += HOUR
    with pytest.raises(PermissionDenied, match="expired"):
        state.tokens.verify(text)
    state.tokens.revoke(token.id)
    first = state.tokens.revoke(token.id).revoked_ns
    clock.now += 1
    assert state.tokens.revoke(token.id).revoked_ns == first
    with pytest.raises(PermissionDenied, match="revoked"):
        state.tokens.verify(text)
    assert state.tokens.verify(other).role == "admin"


def test_keys(state: State, clock: Clock) -> None:
    keys = state.keys
    assert keys.claim("me", "k", "POST /x") is None
    with pytest.raises(Busy):
        keys.claim("me", "k", "POST /x")
    with pytest.raises(InvalidRequest, match="another"):
        keys.claim("me", "k", "POST /y")
    assert keys.claim("you", "k", "POST /y") is None
    keys.done("me", "k", {"status": 201})
    assert keys.claim("me", "k", "POST /x") == {"status": 201}
    keys.forget("you", "k")
    assert keys.claim("you", "k", "other") is None
    keys.forget_running()
    assert keys.claim("you", "k", "third") is None
    assert keys.claim("me", "k", "POST /x") == {"status": 201}
    clock.now += DAY
    assert keys.claim("me", "k", "POST /z") is None
    for name in ("", "x" * 300, "a\nb", "\udcff"):
        with pytest.raises(InvalidRequest):
            keys.claim("me", name, "f")


def test_jobs(state: State, clock: Clock) -> None:
    job = state.jobs.create("scrub", {"rate": 5})
    assert (job.state, job.options, job.created_ns) == ("queued", {"rate": 5}, clock.now)
    state.jobs.progress(job.id, {"done": 1})
    assert state.jobs.get(job.id).progress == {}
    assert state.jobs.started(job.id).started_ns == clock.now
    state.jobs.progress(job.id, {"done": 1})
    assert [one.progress for one in state.jobs.unended()] == [{"done": 1}]
    done = state.jobs.ended(job.id, "failed", error={"kind": "busy", "message": "x"})
    assert done.error["kind"] == "busy" and state.jobs.unended() == []
    for step in (lambda: state.jobs.started(job.id), lambda: state.jobs.ended(job.id, "done")):
        with pytest.raises(InvalidRequest, match="failed"):
            step()
    state.jobs.restored(Restored(job.id, "m", "p", "d\udcff"))
    assert state.jobs.restores("m") == [Restored(job.id, "m", "p", "d\udcff")]
    state.jobs.unrestored(job.id)
    assert state.jobs.restores() == []
    with state.database.write() as txn:
        txn.execute("DELETE FROM jobs")
    assert state.jobs.create("check", {}).id > job.id, "an id is never used again"


@settings(max_examples=20)
@given(sizes=st.lists(st.integers(0, 3 * PART // 2), max_size=5))
def test_attachments_come_back_as_they_were_sent(store: str, sizes: list[int]) -> None:
    content = [bytes([number]) * size for number, size in enumerate(sizes)]
    with State.open(store) as state:
        kept = state.attachments.add("log", "a", "s", content, most=1 << 30)
        parts = list(state.attachments.content(kept.id))
        assert b"".join(parts) == b"".join(content) and all(len(part) <= PART for part in parts)
        assert state.attachments.get(kept.id) == kept
        state.attachments.remove(kept.id)
        with pytest.raises(NotFound):
            state.attachments.content(kept.id)


def test_attachments_over_the_limit_or_cut_short_leave_nothing(state: State, clock: Clock) -> None:
    with pytest.raises(InvalidRequest, match="at most 10"):
        state.attachments.add("log", "a", "s", [b"x" * 11], most=10)

    def broken() -> Iterator[bytes]:
        yield b"x" * 2 * PART
        raise ConnectionError

    with pytest.raises(ConnectionError):
        state.attachments.add("log", "a", "s", broken(), most=1 << 30)
    with state.database.read() as db:
        assert db.execute("SELECT count(*) FROM attachment_parts").fetchone()[0] == 0
    number = state.attachments._begin("log", "killed", "s", "")
    assert state.attachments.of(session="s") == []
    assert state.attachments.sweep() == 0
    clock.now += DAY + 1
    assert state.attachments.sweep() == 1
    with pytest.raises(NotFound):
        state.attachments.get(number)


def test_a_part_that_is_missing_is_noticed(state: State) -> None:
    kept = state.attachments.add("log", "a", "s", [b"x" * 3 * PART], most=1 << 30)
    with state.database.write() as txn:
        txn.execute("DELETE FROM attachment_parts WHERE number = 1")
    with pytest.raises(Corrupt, match=f"attachment {kept.id}"):
        list(state.attachments.content(kept.id))


def test_what_goes_with_a_point(state: State) -> None:
    state.notes.put(PLAN.note)
    state.notes.keep(PLAN.point.id, kept=True)
    state.notes.keep("q", kept=True)
    assert state.notes.kept() == {PLAN.point.id, "q"}
    assert (
        state.notes.get("q").consistency
        == state.notes.get("nobody").consistency
        == "crash-consistent"
    )
    kept = state.attachments.add("hook", "h", "", [b"x"], most=9, point="q")
    state.notes.remove(["q", "r"])
    with pytest.raises(NotFound):
        state.attachments.get(kept.id)
    assert state.notes.kept() == {PLAN.point.id}


def test_what_is_old_is_forgotten_unless_its_point_is_there(
    state: State, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(name: str, point: str) -> None:
        state.sessions.begin(SessionInfo(name, "m", "open", clock.now, 2**62))
        state.attachments.add("log", "log", name, [b"text"], most=9)
        if point:
            state.sessions.commit(name, Plan(PlannedPoint(point, 5), Note(point, name)))
            state.sessions.committed(name)
        else:
            state.sessions.abandon(name)

    def left() -> list[str]:
        return sorted(one.id for one in state.sessions.of())

    def logs() -> int:
        with state.database.read() as db:
            counts = [
                db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                for table in ("attachments", "attachment_parts")
            ]
        assert counts[0] == counts[1]
        return int(counts[0])

    ended("abandoned", "")
    ended("there", "p1")
    ended("deleted", "p2")
    ended("lost", "p3")  # the index lacks it: it may come back
    ended("noteless", "p4")
    state.notes.remove(["p2"])
    with state.database.write() as txn:
        txn.execute("DELETE FROM notes WHERE point = 'p4'")
    state.attachments.add("hook", "before_begin", "never begun", [b"no"], most=9)
    jobs = [state.jobs.create("collect", {}).id for _ in range(3)]
    for job in jobs[:2]:
        state.jobs.ended(job, "failed")
    state.jobs.restored(Restored(jobs[0], "m", "p1", ""))
    state.keys.claim("t", "k", "f")
    living = {"p1"}
    clock.now += 30 * DAY
    assert state.pruning.prune(living) == {"sessions": 0, "jobs": 0, "keys": 1}
    clock.now += 1
    assert state.pruning.prune(living)["jobs"] == 1
    assert [one.id for one in state.jobs.page()] == [jobs[2], jobs[0]]
    clock.now += 60 * DAY
    ended("young", "")
    assert state.pruning.prune(living)["sessions"] == 2
    assert left() == ["lost", "noteless", "there", "young"] and logs() == 4
    monkeypatch.setattr(pruning, "ROWS_MAX", 2)
    monkeypatch.setattr(pruning, "BATCH", 2)
    for number in range(5):
        clock.now += 1
        ended(f"loop {number}", "")
    assert state.pruning.prune(living)["sessions"] == 4
    assert left() == ["loop 3", "loop 4", "lost", "noteless", "there"] and logs() == 5
    assert state.pruning.prune(living) == {"sessions": 0, "jobs": 0, "keys": 0}


def test_the_rest(state: State) -> None:
    state.exports.put(ExportInfo("m", "10.0.0.0/8", read_only=True, squash="all"))
    state.exports.put(ExportInfo("m", "10.0.0.0/8"))
    assert state.exports.of("m") == [ExportInfo("m", "10.0.0.0/8")] and state.exports.of("n") == []
    with pytest.raises(NotFound):
        state.exports.remove("m", "10.0.0.1/32")
    state.wanted.delete("m")
    assert state.wanted.get("m").deleting and state.wanted.get("m").running is None
    state.wanted.forget("m")
    assert state.exports.of() == [] and state.wanted.deleting() == set()
    for hour in range(5):
        state.history.add(hour * HOUR, {"points": hour})
    assert [row["points"] for row in state.history.since(2 * HOUR, 2)] == [2, 3]
    state.marks.put("a b", "1")
    state.marks.put("a b", "2")
    assert state.marks.get("a b") == "2" and state.marks.get("c") == ""
    state.marks.forget("a ")
    assert state.marks.get("a b") == ""
