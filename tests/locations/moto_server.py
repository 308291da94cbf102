"""An S3 server in a process of its own, that really checks signatures: ``python -m tests.locations.moto_server``.

Prints one line of JSON (endpoint, the one key that is let in), serves until its input ends.
"""

from __future__ import annotations

import json
import subprocess
import sys
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
    """One server on loopback, its port chosen by the kernel; a context manager."""

    def __enter__(self) -> MotoServer:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.locations.moto_server"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout
        told = json.loads(self._process.stdout.readline())
        self.endpoint: str = told["endpoint"]
        self.credentials: dict[str, str] = told["credentials"]
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.stdout.close()  # type: ignore[union-attr]
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


if __name__ == "__main__":
    main()
