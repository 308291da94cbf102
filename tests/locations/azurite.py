"""Azurite, Microsoft's own emulator of Azure's object storage, in a process of its own.

    with Azurite(directory) as azurite:
        azurite.url("prefix"), azurite.credentials

Needs the program ``azurite-blob`` (npm package ``azurite``). Keeps everything in memory; tells nobody that it runs.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import secrets
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from email.utils import formatdate
from pathlib import Path

PROGRAM = "azurite-blob"
CONTAINER = "holdfast-test"
START_LIMIT = 60.0  # s
_VERSION = "2021-12-02"


def missing() -> str:
    """The program when it is not there, else empty."""
    return "" if shutil.which(PROGRAM) else PROGRAM


class Azurite:
    """One server on loopback with one container, for as long as the context lasts."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.account = "holdfast" + secrets.token_hex(4)
        self.credentials = {
            "AZURE_STORAGE_ACCOUNT_KEY": base64.b64encode(secrets.token_bytes(64)).decode()
        }

    def url(self, prefix: str) -> str:
        """Of a place of its own in the container."""
        return f"az://{self.account}/{CONTAINER}/{prefix}?endpoint={self.endpoint}"

    def __enter__(self) -> Azurite:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{port}"
        key = self.credentials["AZURE_STORAGE_ACCOUNT_KEY"]
        self._process = subprocess.Popen(
            [
                PROGRAM, "--silent", "--disableTelemetry", "--inMemoryPersistence", "--skipApiVersionCheck",
                "--blobHost", "127.0.0.1", "--blobPort", str(port),
            ],
            cwd=self._directory, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "AZURITE_ACCOUNTS": f"{self.account}:{key}"},
        )  # fmt: skip
        try:
            self._wait(port)
            self._make_container()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _wait(self, port: int) -> None:
        end = time.monotonic() + START_LIMIT
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            if self._process.poll() is not None or time.monotonic() > end:
                raise AssertionError("azurite-blob did not start")
            time.sleep(0.05)

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _make_container(self) -> None:
        """What no client of objects does: one request, signed as Azure's "Shared Key" page has it."""
        date = formatdate(usegmt=True)
        headers = f"x-ms-date:{date}\nx-ms-version:{_VERSION}"
        path = f"/{self.account}/{CONTAINER}"
        text = "PUT" + "\n" * 12 + f"{headers}\n/{self.account}{path}\nrestype:container"
        key = base64.b64decode(self.credentials["AZURE_STORAGE_ACCOUNT_KEY"])
        signature = base64.b64encode(hmac.new(key, text.encode(), hashlib.sha256).digest()).decode()
        request = urllib.request.Request(
            f"{self.endpoint}{path}?restype=container", method="PUT",
            headers={
                "x-ms-date": date, "x-ms-version": _VERSION,
                "Authorization": f"SharedKey {self.account}:{signature}",
            },
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=START_LIMIT) as answer:
            assert answer.status == 201, answer.status
