"""URLs of locations: what is allowed, what is shown, and that nothing secret is repeated."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import HoldfastError, InvalidRequest, NotFound
from engine.locations import open_location
from engine.locations.url import parse

LOCAL = "http://127.0.0.1:9000"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("file:///srv/copies", "file:///srv/copies"),
        ("file:///srv//copies/./here/", "file:///srv/copies/here"),
        ("file://localhost/srv/two%20words", "file:///srv/two%20words"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
        ("s3://bucket/a?region=eu-west-1", "s3://bucket/a?region=eu-west-1"),
        (f"s3://bucket?endpoint={LOCAL}&path_style=1", f"s3://bucket?endpoint={LOCAL}"),
        ("s3://bucket?endpoint=http://localhost:1/", "s3://bucket?endpoint=http://localhost:1"),
        ("s3://bucket?endpoint=http://[::1]:1", "s3://bucket?endpoint=http://%5B::1%5D:1"),
        (
            "s3://bucket?path_style=0&endpoint=https://s3.example&timeout=30",
            "s3://bucket?endpoint=https://s3.example&path_style=0&timeout=30",
        ),
        (
            "s3://bucket?endpoint=http://far.example&insecure=1",
            "s3://bucket?endpoint=http://far.example&insecure=1",
        ),
        ("gs://bucket/p", "gs://bucket/p"),
        ("az://account/container/p", "az://account/container/p"),
    ],
)
def test_allowed(url: str, shown: str) -> None:
    assert parse(url).shown == shown
    assert parse(parse(url).shown) == parse(url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("", "file:///PATH, s3://, gs:// or az://|file://, s3://"),
        ("/srv/copies", "file://, s3://, gs://, az://"),
        ("ftp://host/CANARY", "file://, s3://, gs://, az://"),
        ("file://host/CANARY", "file:///ABSOLUTE/PATH"),
        ("file:CANARY", "file:///ABSOLUTE/PATH"),
        ("file:///a/../CANARY", "without"),
        ("file:///", "a directory of its own"),
        ("file:///a?CANARY=1", "none"),
        ("s3:///CANARY", "s3://BUCKET/PREFIX"),
        ("s3://Bucket_CANARY!", "s3://BUCKET/PREFIX"),
        ("s3://key:CANARY@bucket", "no user, password"),
        ("s3://bucket#CANARY", "no user, password"),
        ("s3://bucket/CANARY b", "no user, password, fragment or space"),
        ("s3://bucket/a%20CANARY", "letters, digits"),
        ("s3://bucket/../CANARY", "letters, digits"),
        ("s3://bucket/.CANARY", "letters, digits"),
        ("s3://bucket?secret=CANARY", "endpoint, region, path_style"),
        ("s3://bucket?CANARY-CANARY=1", "endpoint, region, path_style"),
        ("s3://bucket?region=a&region=CANARY", "each once"),
        ("s3://bucket?region=CANARY!", "its name"),
        ("s3://bucket?path_style=CANARY", "0 or 1"),
        ("s3://bucket?timeout=CANARY", "seconds"),
        ("s3://bucket?timeout=0", "seconds"),
        ("s3://bucket?endpoint=http://10.0.0.1:1", "https"),
        ("s3://bucket?endpoint=http://127.0.0.1.CANARY.example", "https"),
        ("s3://bucket?endpoint=https://user:CANARY@host", "https://HOST:PORT"),
        ("s3://bucket?endpoint=https://host/?CANARY", "https://HOST:PORT"),
        ("s3://bucket?endpoint=https://host/path/CANARY", "https://HOST:PORT"),
        ("s3://bucket?endpoint=https://host:CANARY", "https://HOST:PORT"),
        ("s3://bucket?endpoint=file:///CANARY", "https://HOST:PORT"),
        ("s3://bucket?endpoint=http://[CANARY", "https://HOST:PORT"),
        ("gs://bucket?endpoint=CANARY", "timeout"),
        ("az://account", "az://ACCOUNT/CONTAINER"),
    ],
)
def test_refused(url: str, expected: str) -> None:
    with pytest.raises(InvalidRequest, match=expected) as caught:
        parse(url)
    text = str(caught.value)
    if "example" not in url:  # an endpoint's host is no secret
        assert "CANARY" not in text


@settings(max_examples=40)
@given(st.text(max_size=60) | st.builds("s3://{}".format, st.text(max_size=60)))
def test_nonsense(url: str) -> None:
    try:
        place = parse(url)
    except InvalidRequest:
        return
    assert parse(place.shown) == place


def test_a_directory_is_never_made(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="mount its disk, or make it"):
        open_location(f"file://{tmp_path}/not/there")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotFound):
        open_location(f"file://{tmp_path}/file")


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("s3://bucket", "AWS_ACCESS_KEY_ID"),
        ("gs://bucket", "GOOGLE_SERVICE_ACCOUNT_KEY"),
        ("az://account/container", "AZURE_STORAGE_ACCOUNT_KEY"),
    ],
)
def test_credentials_are_needed(url: str, key: str) -> None:
    with pytest.raises(InvalidRequest, match=f"{key}.*found none"):
        open_location(url, None)


def test_other_clouds_can_be_opened() -> None:
    """No server is asked: that the client library takes what it is given."""
    azure = open_location("az://account/container/p", {"AZURE_STORAGE_ACCOUNT_KEY": "Q0FOQVJZ"})
    assert azure.shown == "az://account/container/p" and "Q0FOQVJZ" not in repr(vars(azure))
    with pytest.raises(HoldfastError) as caught:
        open_location("gs://bucket", {"GOOGLE_SERVICE_ACCOUNT_KEY": '{"private_key": "CANARY"}'})
    assert "CANARY" not in str(caught.value) and caught.value.__context__ is None
