"""URLs of storage locations: what is allowed in one, and what of it is shown.

    file:///ABSOLUTE/PATH
    s3://BUCKET/PREFIX?endpoint=URL&region=NAME&path_style=1&insecure=1&timeout=SECONDS&versions=1
    gs://BUCKET/PREFIX?timeout=SECONDS
    az://ACCOUNT/CONTAINER/PREFIX?endpoint=URL&insecure=1&timeout=SECONDS

No URL holds credentials: a user, a password, an unknown option or a fragment is refused, and not repeated.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from engine import limits
from engine.errors import InvalidRequest

_OPTIONS = {
    "file": (),
    "s3": ("endpoint", "region", "path_style", "insecure", "timeout", "versions"),
    "gs": ("timeout",),
    "az": ("endpoint", "insecure", "timeout"),
}
_HOST = re.compile(r"[a-z0-9][a-z0-9._-]{1,221}\Z")
_PREFIX = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*)?\Z")
_REGION = re.compile(r"[a-z0-9-]{1,64}\Z")
PREFIX_MAX = 500


class Place(NamedTuple):
    """A URL taken apart. ``bucket`` is the bucket or container, ``path`` a prefix, or a directory; ``versions``: of
    each name its oldest version counts (``versioned``)."""

    scheme: str
    bucket: str
    path: str
    account: str = ""
    endpoint: str = ""
    region: str = ""
    path_style: bool = True
    insecure: bool = False
    timeout_s: float = limits.REQUEST_LIMIT
    versions: bool = False

    @property
    def shown(self) -> str:
        """The URL in one form, for people and logs."""
        if self.scheme == "file":
            return "file://" + quote(self.path)
        start = f"{self.scheme}://" + "/".join(filter(None, (self.account, self.bucket, self.path)))
        options = [("endpoint", self.endpoint), ("region", self.region)]
        options += [("path_style", "0")] if not self.path_style else []
        options += [("insecure", "1")] if self.insecure else []
        options += (
            [("timeout", f"{self.timeout_s:g}")] if self.timeout_s != limits.REQUEST_LIMIT else []
        )
        options += [("versions", "1")] if self.versions else []
        asked = "&".join(f"{key}={quote(value, safe=':/')}" for key, value in options if value)
        return start + ("?" + asked if asked else "")


def parse(url: str) -> Place:
    """Take a URL apart; raises InvalidRequest, which says what is allowed."""
    try:
        cut = urlsplit(url)
        host, login = cut.netloc, "@" in cut.netloc
        asked = parse_qsl(cut.query, keep_blank_values=True, strict_parsing=bool(cut.query))
    except ValueError:
        raise _refused(
            "URL of a storage location", "file:///PATH, s3://, gs:// or az://", "no URL"
        ) from None
    if cut.scheme not in _OPTIONS:
        known = ", ".join(f"{name}://" for name in _OPTIONS)
        raise _refused(
            "URL of a storage location", known, f"{cut.scheme}://" if cut.scheme else "no scheme"
        )
    if login or cut.fragment or any(ord(letter) < 33 or ord(letter) == 127 for letter in url):
        raise _refused(
            f"{cut.scheme}:// URL of a storage location",
            "no user, password, fragment or space in it",
            "one of these",
            "credentials come from the environment, a file or systemd",
        )
    options = _options(cut.scheme, asked)
    path = unquote(cut.path)
    if cut.scheme == "file":
        return _directory(host, path)
    return _bucket(cut.scheme, host, path.strip("/"), options)


def _options(scheme: str, asked: list[tuple[str, str]]) -> dict[str, str]:
    options: dict[str, str] = {}
    for key, value in asked:
        if key not in _OPTIONS[scheme] or key in options:
            known = ", ".join(_OPTIONS[scheme]) or "none"
            shown = repr(key) if re.fullmatch("[a-z_]{1,32}", key) else "something else"
            raise _refused(f"option of a {scheme}:// URL", f"{known}, each once", shown)
        options[key] = value
    return options


def _directory(host: str, path: str) -> Place:
    parts = path.split("/")
    if host not in ("", "localhost") or not path.startswith("/") or ".." in parts or "\0" in path:
        raise _refused(
            "file:// URL of a storage location",
            "file:///ABSOLUTE/PATH without '..'",
            "another form",
        )
    clean = "/" + "/".join(part for part in parts if part not in ("", "."))
    if clean == "/":
        raise _refused(
            "file:// URL of a storage location", "a directory of its own", "the root directory"
        )
    return Place("file", "", clean)


def _bucket(scheme: str, host: str, path: str, options: dict[str, str]) -> Place:
    account = ""
    if scheme == "az":
        account, (host, _, path) = host, path.partition("/")
    if not _HOST.match(host) or (account and not _HOST.match(account)):
        form = "az://ACCOUNT/CONTAINER/PREFIX" if scheme == "az" else f"{scheme}://BUCKET/PREFIX"
        raise _refused("URL of a storage location", form, "no name of a bucket that servers take")
    if len(path) > PREFIX_MAX or not _PREFIX.match(path):
        allowed = "letters, digits, '.', '_', '-' in parts between '/', none beginning with '.'"
        raise _refused("prefix in the URL of a storage location", allowed, "something else")
    insecure = _flag(options, "insecure", default=False)
    region = options.get("region", "")
    if region and not _REGION.match(region):
        raise _refused(
            "region in the URL of a storage location", "its name, as us-east-1", "something else"
        )
    return Place(
        scheme, host, path, account,
        endpoint=_endpoint(options["endpoint"], insecure=insecure) if "endpoint" in options else "",
        region=region,
        path_style=_flag(options, "path_style", default=True),
        insecure=insecure,
        timeout_s=_seconds(options.get("timeout")),
        versions=_flag(options, "versions", default=False),
    )  # fmt: skip


def _flag(options: dict[str, str], key: str, *, default: bool) -> bool:
    value = options.get(key)
    if value is None:
        return default
    if value.lower() not in ("0", "1", "true", "false"):
        raise _refused(f"option {key} of a storage location", "0 or 1", "something else")
    return value.lower() in ("1", "true")


def _seconds(value: str | None) -> float:
    if value is None:
        return limits.REQUEST_LIMIT
    if not re.fullmatch(r"[0-9]{1,5}(\.[0-9]{1,3})?", value) or float(value) <= 0:
        raise _refused(
            "option timeout of a storage location", "seconds, more than 0", "something else"
        )
    return float(value)


def _endpoint(value: str, *, insecure: bool) -> str:
    """``https://HOST:PORT``; plain http only where nobody can listen, or where that was asked for."""
    what = "endpoint of a storage location"
    try:
        cut = urlsplit(value)
        host, port = cut.hostname or "", cut.port
    except ValueError:
        raise _refused(what, "https://HOST:PORT", "no URL") from None
    rest = cut.path.strip("/") or cut.query or cut.fragment
    if cut.scheme not in ("https", "http") or not host or "@" in cut.netloc or rest:
        raise _refused(what, "https://HOST:PORT and no more", "another form")
    if cut.scheme == "http" and not insecure and not _loopback(host):
        raise _refused(
            what,
            "https (http only on this machine)",
            f"http://{host}",
            "insecure=1 in the URL allows it",
        )
    shown = f"[{host}]" if ":" in host else host
    return f"{cut.scheme}://{shown}" + (f":{port}" if port else "")


def has_no_name(endpoint: str) -> bool:
    """Is the host of an endpoint, as ``Place`` has it, an address?"""
    try:
        ipaddress.ip_address(urlsplit(endpoint).hostname or "")
    except ValueError:
        return False
    return True


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refused(what: str, expected: str, found: str, do: str = "") -> InvalidRequest:
    return InvalidRequest(what, expected=expected, found=found, do=do)
