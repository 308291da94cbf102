"""The same commands say the same beside the store, through the daemon's socket, and from another machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.cli import restoring
from tests.cli.support import good, holdfast, packs, refused
from tests.daemon.cli.support import Served, asked, command, said


def told(done: Any) -> Any:
    return json.loads(good(done))


@pytest.fixture(scope="module")
def beside(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the store as it was, that no daemon serves."""
    ignored = shutil.ignore_patterns("*.sock", "daemon")
    return shutil.copytree(
        served.store, tmp_path_factory.mktemp("beside") / "store", ignore=ignored
    )


@pytest.mark.parametrize(
    "words",
    [
        ["points"], ["points", "m", "--json"], ["points", "nope"], ["show", "m@latest"], ["ls", "m@latest"],
        ["ls", "m@latest", "--json"], ["manifest", "m@latest"], ["cat", "m@latest", "added"],
        ["cat", "m@latest", "added", "--offset", "2", "--length", "2"], ["cat", "m@latest", "nope"],
        ["rm", "--dry-run", "m@latest"], ["rm", "--dry-run", "--json", "m@latest"],
        ["sessions"], ["restores", "--json"], ["incidents"], ["check"], ["snapshot", "nope"], ["commit", "nope"],
        ["attachment", "99"], ["job", "99"], ["databases", "m@latest"], ["databases", "m@latest", "x"],
        ["keep", "m@latest"], ["keep", "m@latest", "--no"], ["keep", "nope"],
    ],
)  # fmt: skip
def test_the_answer_is_the_same(served: Served, beside: Path, words: list[str]) -> None:
    here = said("--store", beside, *words)
    assert here == said("--store", served.store, *words)
    assert here == said("--api", served.api, "--token-file", served.token, *words)
    assert here[0] in (0, 2, 10) and "\x1b" not in here[1]


def test_differences_and_tar_are_the_same(served: Served, beside: Path) -> None:
    old, new = (one["id"] for one in told(asked(served, "points", "m", "--json"))[:2])
    assert good(asked(served, "diff", old, new)) == good(holdfast(beside, "diff", old, new))
    assert "content, size 200000 to 250000" in good(asked(served, "diff", old, new))
    found = subprocess.run(
        ["tar", "-t"], input=_raw(served, "tar", old), capture_output=True, check=True
    )
    assert found.stdout.splitlines()[0] == b"./" and len(found.stdout.splitlines()) == 4


def _raw(served: Served, *words: str) -> bytes:
    done = subprocess.run(
        [shutil.which("python3") or "python3", "-c", "from daemon.cli.main import main; main()", "--api", served.api,
         "--token-file", served.token, *words],
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    return done.stdout


def test_a_session_from_afar(served: Served, tmp_path: Path) -> None:
    session = good(asked(served, "begin", "m", "--holder", "me", "--label", "x")).split()[-1]
    refused(asked(served, "begin", "m"), 12)
    assert told(asked(served, "sessions", "--state", "open", "--json"))[0]["id"] == session
    assert "1 open session\n" in good(asked(served, "status"))
    good(asked(served, "renew", session, "--lease", "2h"))
    log = tmp_path / "a log"
    log.write_bytes(b"line\n\x1b[2J\n")
    kept = told(asked(served, "log", session, log, "--json"))
    assert (kept["name"], kept["size"]) == ("a_log", 10)
    point = good(asked(served, "commit", session)).split()[-1]
    assert good(asked(served, "commit", session)).split()[-1] == point  # asked again, the same
    assert f"{kept['id']}  log" in good(asked(served, "show", point))
    assert (
        good(asked(served, "attachment", str(kept["id"]))) == "line\n\x1b[2J\n"
    )  # no terminal: as it is
    refused(asked(served, "abandon", session), 2, "committed")


def test_a_collection_does_not_wait_for_a_daemon_that_has_made_points(served: Served) -> None:
    point = good(asked(served, "snapshot", "m")).split()[-1]
    good(asked(served, "rm", point))
    assert "freed" in good(asked(served, "gc"))  # a minute later it would have given up
    assert told(asked(served, "jobs", "--kind", "collect", "--json"))[0]["state"] == "done"


def test_restored_from_afar_it_is_the_same_and_new(served: Served, tmp_path: Path) -> None:
    target = tmp_path / "target"
    refused(asked(served, "restore", "nope", target), 10)
    assert list(tmp_path.iterdir()) == []
    good(asked(served, "restore", "m@latest", target))
    good(holdfast(served.store, "restore", "m@latest", str(tmp_path / "here")))
    assert subprocess.run(["diff", "-r", target, tmp_path / "here"], check=False).returncode == 0
    assert (target.stat().st_mode & 0o7777) == ((tmp_path / "here").stat().st_mode & 0o7777)
    refused(asked(served, "restore", "m@latest", target), 11)
    good(asked(served, "restore", "m@latest", "added", tmp_path / "one"))
    assert (tmp_path / "one").read_bytes() == b"added"
    assert {path.name for path in tmp_path.iterdir()} == {"target", "here", "one"}


def test_a_restore_by_the_service(served: Served) -> None:
    job = told(asked(served, "restore", "m@latest", "--place", "out", "--json"))
    assert (served.base / "out" / str(job["id"]) / "added").read_bytes() == b"added"
    assert told(asked(served, "restores", "--json"))[0]["id"] == job["id"]
    assert good(asked(served, "job", str(job["id"]), "--follow"))
    good(asked(served, "restores", "--remove", str(job["id"])))
    assert not (served.base / "out" / str(job["id"])).exists()
    refused(asked(served, "restore", "m@latest", "--place", "nowhere"), 2, "out")


class Broken:
    """A service whose stream ends before its end."""

    def __init__(self, content: bytes, error: BaseException | None) -> None:
        self._content = content
        self._error = error

    def tar(self, _point: str, _path: str) -> Iterator[bytes]:
        yield self._content
        if self._error:
            raise self._error


@pytest.mark.parametrize("cut", [100, 512, 3000])
def test_a_stream_that_breaks_leaves_nothing(tmp_path: Path, cut: int) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "file").write_bytes(bytes(5000))
    whole = subprocess.run(
        ["tar", "-c", "-C", tmp_path / "from", "."], capture_output=True, check=True
    ).stdout
    folder = tmp_path / "to"
    folder.mkdir()
    with pytest.raises(ConnectionError):
        restoring._unpack(Broken(whole[:cut], ConnectionError()), "p", "", str(folder))  # type: ignore[arg-type]
    with restoring._beside(str(tmp_path / "target")) as inner:
        assert restoring._unpack(Broken(whole, None), "p", "", inner) == len(whole)  # type: ignore[arg-type]
    assert {path.name for path in tmp_path.iterdir()} == {"from", "to"}


def test_what_leads_out_of_the_target_stays_in_it(tmp_path: Path) -> None:
    (tmp_path / "evil").write_bytes(b"evil")
    words = ["tar", "-c", "-P", "-C", tmp_path, "--transform", "s,evil,../out/evil,", "evil"]
    made = subprocess.run(words, capture_output=True, check=True).stdout
    (tmp_path / "out").mkdir()
    folder = tmp_path / "to"
    folder.mkdir()
    with pytest.raises(Exception, match="tar"):
        restoring._unpack(Broken(made, None), "p", "", str(folder))  # type: ignore[arg-type]
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [["init"], ["repair"], ["mount", "m", "x"], ["umount", "x"]],
    ids=lambda words: words[0],
)
def test_what_needs_the_files_says_so(served: Served, words: list[str]) -> None:
    refused(asked(served, *words), 17, "beside the store's files", served.api)


def test_what_is_named_goes_before_the_environment(served: Served, beside: Path) -> None:
    environment = {"HOLDFAST_API": "http://127.0.0.1:1", "HOLDFAST_TOKEN_FILE": str(served.token)}
    good(command("--store", beside, "points", **environment))
    refused(command("points", **environment), 22)
    refused(command("points"), 2, "--store DIR or HOLDFAST_STORE, or --api URL")


def test_a_daemon_that_has_ended_is_no_help(beside: Path) -> None:
    (beside / "daemon").mkdir(exist_ok=True)
    (beside / "daemon" / "endpoint").write_text("/nonexistent/api.sock\n")
    assert good(holdfast(beside, "mounts"))
    (beside / "daemon" / "endpoint").write_bytes(b"\xff\0")
    assert good(holdfast(beside, "mounts"))


def test_a_token_must_be_a_secret(served: Served, tmp_path: Path) -> None:
    token = tmp_path / "token"
    refused(command("--api", served.api, "--token-file", token, "points"), 10)
    token.write_text("two words\n")
    token.chmod(0o600)
    refused(command("--api", served.api, "--token-file", token, "points"), 2, "one token")
    token.write_text(served.token.read_text())
    token.chmod(0o604)
    refused(command("--api", served.api, "--token-file", token, "points"), 14, "chmod 600")
    token.chmod(0o600)
    token.write_text("hf_000000000000_00\n")
    refused(command("--api", served.api, "--token-file", token, "points"), 14)


def test_tokens_and_what_was_done(served: Served) -> None:
    made = told(
        asked(
            served,
            "token",
            "create",
            "--role",
            "writer",
            "--mount",
            "m",
            "--expires",
            "1d",
            "--json",
        )
    )
    number, secret = made["token"]["id"], made["secret"]
    listed = asked(served, "token", "list")
    assert number in good(listed) and secret not in listed.stdout
    assert "revoked" in good(asked(served, "token", "revoke", number))
    lines = told(asked(served, "audit", "--json"))
    assert [one["act"] for one in lines[-2:]] == ["create token", "revoke token"]
    assert "none changed, taken out or put in" in good(asked(served, "audit", "--verify"))


def test_a_mount_is_made_and_deleted_from_afar(served: Served) -> None:
    good(asked(served, "create", "scratch", "--quota", "1G"))
    assert "1.0 GiB" in good(asked(served, "mounts"))
    done = asked(served, "delete", "scratch")  # nobody is there to say yes
    assert done.returncode == 130 and "scratch" in done.stderr
    assert "deleted" in good(asked(served, "delete", "scratch", "--yes"))
    refused(asked(served, "delete", "scratch", "--yes"), 10)


def test_the_configuration(served: Served) -> None:
    assert f'store = "{served.store}"\n' in good(asked(served, "config", "show"))
    assert good(asked(served, "config", "reload")) == "nothing changed\n"
    assert os.path.samefile(told(asked(served, "config", "show", "--json"))["store"], served.store)


def test_a_check_from_afar_tells_all_that_is_damaged(
    served: Served, tmp_path: Path, expect_log: Callable[[str], None]
) -> None:
    expect_log("is suspect")
    ignored = shutil.ignore_patterns("*.sock", "daemon")  # as it is now: tests before made points
    copy = shutil.copytree(served.store, tmp_path / "store", ignore=ignored)
    names = [path.relative_to(copy) for path in packs(copy)]
    for name in names:
        (copy / name).unlink()
        (served.store / name).rename(served.store / f"{name}.away")
    try:
        code, here = said("--store", copy, "check")
        assert code == 20 and here.count("\n") > 2
        afar = said("--api", served.api, "--token-file", served.token, "check")
        assert afar == (code, here.replace(str(copy), str(served.store)))
        code, text = said("--api", served.api, "--token-file", served.token, "check", "--json")
        assert code == 20 and len(json.loads(text)["problems"]) == here.count("\n") - 1
    finally:
        for name in names:
            (served.store / f"{name}.away").rename(served.store / name)
