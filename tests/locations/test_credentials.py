"""Credentials come from three places, and are seen in none."""

from __future__ import annotations

import logging
import os
import pickle
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import HoldfastError, InvalidRequest, NotFound, PermissionDenied
from engine.locations import Credentials, Retry, Throttle, open_location
from tests.locations.places import LOCKED, Server
from tests.locations.proxy import CutAnswer, Proxy, Status

SECRET = "CANARY-7f3a/secret+key"
TOKEN = "CANARY-session-token"


def test_of_the_environment() -> None:
    usual = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": "t"}
    found = Credentials.load("environment", usual | {"PATH": "/bin"})
    assert dict(found) == usual and found["AWS_SECRET_ACCESS_KEY"] == SECRET
    ours = {"HOLDFAST_AWS_ACCESS_KEY_ID": "our", "HOLDFAST_AWS_SECRET_ACCESS_KEY": "own"}
    found = Credentials.load("environment", usual | ours)
    # Not our key with somebody else's token.
    assert dict(found) == {"AWS_ACCESS_KEY_ID": "our", "AWS_SECRET_ACCESS_KEY": "own"}
    assert not Credentials.load("environment", {})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(
        f"# a comment\n\nAWS_ACCESS_KEY_ID=id\nexport HOLDFAST_AWS_SECRET_ACCESS_KEY='{SECRET}'\n"
    )
    path.chmod(0o600)
    return path


def test_of_a_file(file: Path) -> None:
    found = Credentials.load(f"file:{file}")
    assert dict(found) == {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": SECRET}
    assert (
        repr(found)
        == str(found)
        == (f"Credentials(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY; from file:{file})")
    )
    assert SECRET not in repr([found.items(), found.values(), {"a": found}]) + f"{found!s:>5}"
    with pytest.raises(TypeError):
        pickle.dumps(found)


def test_of_systemd(file: Path) -> None:
    environment = {"CREDENTIALS_DIRECTORY": str(file.parent)}
    file.chmod(0o440)  # as systemd gives it: its directory keeps others out
    assert Credentials.load("credential:keys", environment)["AWS_SECRET_ACCESS_KEY"] == SECRET
    with pytest.raises(NotFound, match="LoadCredential=keys"):
        Credentials.load("credential:keys", {})
    with pytest.raises(NotFound):
        Credentials.load("credential:other", environment)
    with pytest.raises(InvalidRequest):
        Credentials.load("credential:../keys", environment)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_file_that_others_can_read(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(PermissionDenied, match=f"found mode {mode:04o}.*chmod 600") as caught:
        Credentials.load(f"file:{file}")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "CANARY", "AWS_ACCESS_KEY_ID CANARY", "OTHER=CANARY", "AWS_ACCESS_KEY_ID=", "=CANARY",
        "AWS_ACCESS_KEY_ID=CANARY\nAWS_ACCESS_KEY_ID=CANARY", "\0CANARY", "X" * 70_000,
    ],
)  # fmt: skip
def test_files_that_make_no_sense(file: Path, content: str) -> None:
    file.write_text(content)
    with pytest.raises(InvalidRequest) as caught:
        Credentials.load(f"file:{file}")
    assert "CANARY" not in told(caught.value)


@pytest.mark.parametrize("source", ["", "CANARY", "file:", "file:CANARY", "environment:CANARY"])
def test_sources_that_make_no_sense(source: str) -> None:
    with pytest.raises(
        InvalidRequest, match="environment, file:/PATH or credential:NAME"
    ) as caught:
        Credentials.load(source)
    assert "CANARY" not in told(caught.value)


def test_other_things_than_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("pipe", "."):
        with pytest.raises((InvalidRequest, PermissionDenied)):
            Credentials.load(f"file:{tmp_path}/{name}")


# --- the canary ------------------------------------------------------------------------------------


def told(error: BaseException | None) -> str:
    """All that can be learned from an error: its text, what led to it, whatever those hold."""
    text = ""
    while error is not None:
        text += "".join(traceback.format_exception_only(error)) + repr(error) + repr(vars(error))
        error = error.__cause__ or error.__context__
    return text


def test_no_error_and_no_log_tells_a_secret(
    moto: Server, proxy: Proxy, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = Credentials(
        {
            "AWS_ACCESS_KEY_ID": moto.credentials["AWS_ACCESS_KEY_ID"],
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_SESSION_TOKEN": TOKEN,
        },
        "test",
    )
    errors: list[HoldfastError] = []
    shown = ""
    for endpoint in (proxy.endpoint, "http://127.0.0.1:1"):
        bucket = open_location(moto.url(LOCKED, endpoint), wrong)
        location = Throttle(Retry(bucket, 0.0))
        shown += repr(
            [location, bucket, location.shown, vars(bucket), vars(location), location.counts()]
        )
        asked: list[Callable[[], object]] = [
            lambda at=location: at.put("a", b"1"),
            lambda at=location: at.put("a", bytes(9 << 20)),
            lambda at=location: at.create("a", b"1"),
            lambda at=location: at.read("a"),
            lambda at=location: at.ranges("a", [(0, 1), (9 << 20, 1)]),
            lambda at=location: at.stat("a"),
            lambda at=location: list(at.list("")),
            lambda at=location: at.remove(["a"]),
            lambda at=location: at.retain("a", 1),
            lambda at=location: at.tidy(1),
            lambda at=location: at.features(),
        ]
        for ask in asked if endpoint == proxy.endpoint else asked[:1] + asked[-3:]:
            if endpoint == proxy.endpoint:
                proxy.clear()
                proxy.next(Status(400, b"<Error><Code>Odd</Code></Error>"), method="HEAD")
                proxy.next(CutAnswer(), method="GET")
            with pytest.raises(HoldfastError) as caught:
                ask()
            errors.append(caught.value)
    output = capfd.readouterr()
    everything = shown + output.out + output.err + caplog.text + "".join(map(told, errors))
    assert "CANARY" not in everything
    assert len(errors) == 15 and all(error.__cause__ is None for error in errors)
