"""An S3 server in a process of its own, that really checks signatures: ``python -m tests.locations.moto_server``.

Prints one line of JSON (endpoint, the one key that is let in), serves until its input ends.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ALLOWED = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}],
}


MANY = "holdfast-many"
NAMES = sorted(f"packs/{number % 7:02}/{number:05}" for number in range(2_500))
"""What lies in the bucket ``MANY`` from the start: more than two pages of a list."""


class MotoServer:
    """One server on loopback, its port chosen by the kernel; a context manager.

    ``keep``: a directory in which it keeps what it has, before it answers: it can be killed and started again, and lets
    everybody in. ``page``: names in one answer to a list.
    """

    def __init__(self, keep: Path | None = None, page: int = 1000) -> None:
        self._keep = keep
        self._page = page
        self._port = 0

    def __enter__(self) -> MotoServer:
        self.start()
        return self

    def start(self) -> None:
        """Again after ``kill``: on the same port, with what it had."""
        words = [str(self._keep), str(self._port)] if self._keep else []
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.locations.moto_server", *words],
            cwd=ROOT,
            env=os.environ | {"MOTO_S3_DEFAULT_MAX_KEYS": str(self._page)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout
        told = json.loads(self._process.stdout.readline())
        self.endpoint: str = told["endpoint"]
        self.credentials: dict[str, str] = told["credentials"]
        self._port = int(self.endpoint.rpartition(":")[2])

    def kill(self) -> None:
        """Gone from one moment to the next."""
        self._process.kill()
        self._process.wait()
        self._let_go()

    def _let_go(self) -> None:
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.stdout.close()  # type: ignore[union-attr]

    def __exit__(self, *_: object) -> None:
        self._let_go()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def client(self) -> Any:
        """boto3, as an administrator would use it."""
        return client(self.endpoint, self.credentials)


def client(endpoint: str, credentials: dict[str, str], service: str = "s3") -> Any:
    """A boto3 client for a server on loopback."""
    import boto3

    return boto3.session.Session().client(
        service,
        endpoint_url=endpoint,
        aws_access_key_id=credentials["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=credentials["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
    )


def main() -> None:
    """Serve until nobody listens any more."""
    from moto.s3.models import s3_backends
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    iam = client(endpoint, {"AWS_ACCESS_KEY_ID": "first", "AWS_SECRET_ACCESS_KEY": "first"}, "iam")
    iam.create_user(UserName="holdfast")
    key = iam.create_access_key(UserName="holdfast")["AccessKey"]
    iam.put_user_policy(UserName="holdfast", PolicyName="s3", PolicyDocument=json.dumps(ALLOWED))
    several = s3_backends["123456789012"]["aws"]
    several.create_bucket(MANY, "us-east-1")
    for name in NAMES:
        several.put_object(MANY, name, b"1")
    # From now on signatures are checked. A form's content type would have its body taken for fields.
    urllib.request.urlopen(
        urllib.request.Request(
            f"{endpoint}/moto-api/reset-auth",
            data=b"0",
            method="POST",
            headers={"Content-Type": "text/plain"},
        )
    ).close()
    credentials = {
        "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
    }
    sys.stdout.write(json.dumps({"endpoint": endpoint, "credentials": credentials}) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.stop()


class _Kept:
    """The application in front of which it is; what changes something is on disk before it is answered."""

    def __init__(self, inner: Any, path: Path) -> None:
        from moto.s3.models import s3_backends

        self._inner = inner
        self._path = path
        self._lock = threading.Lock()
        self._buckets = s3_backends["123456789012"]["aws"].buckets
        if path.exists():
            self._buckets.update(pickle.loads(path.read_bytes()))

    def __call__(self, environ: dict[str, Any], start: Any) -> Any:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return self._inner(environ, start)
        with self._lock:
            answer = list(self._inner(environ, start))
            temporary = self._path.with_suffix(".new")
            temporary.write_bytes(pickle.dumps(dict(self._buckets)))
            temporary.rename(self._path)
        return answer


def keeping(folder: Path, port: int) -> None:
    """Serve what is kept in a directory, until the input ends."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    app = _Kept(DomainDispatcherApplication(create_backend_app), folder / "buckets")
    server = make_server("127.0.0.1", port, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    anybody = {"AWS_ACCESS_KEY_ID": "anybody", "AWS_SECRET_ACCESS_KEY": "anything"}
    told = {"endpoint": f"http://127.0.0.1:{server.port}", "credentials": anybody}
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    if sys.argv[1:]:
        keeping(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        main()
