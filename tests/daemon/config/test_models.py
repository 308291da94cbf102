"""What a file says is what the models hold; the example; what a reload takes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from daemon.config import (
    Bind,
    Config,
    Export,
    Hook,
    Keep,
    Mount,
    bind,
    example,
    load,
    read,
    reloadable,
)
from daemon.config.lines import lines, nearest
from daemon.config.models import Prices
from engine.errors import InvalidRequest

STORE = "/srv/holdfast"
FULL = """
store = "/srv//s/"
[api]
listen = ["127.0.0.1:0", "[::1]:0"]
max_body = "1.5K"
max_upload = "2GiB"
request_limit_s = 1.5
[phoenix]
listen = ["0.0.0.0:9090"]
allow = ["10.0.0.0/8"]
[nfs]
server = "kernel"
[restore_targets]
scratch = "/var/tmp/r"
[mounts.a]
path = "/data/a"
quota = "10G"
root_squash = true
squash_to = "7:8"
snapshots = "30 2 * * 1-5"
keep = {last = 3, within_s = "7d"}
[mounts.a.hooks]
before_commit = {command = ["/bin/true", ""], timeout_s = "2m"}
[[mounts.a.exports]]
client = "10.1.0.0/16"
[[mounts.a.exports]]
client = "::1"
squash = "none"
read_only = true
[mounts.b]
"""


def test_a_full_file() -> None:
    config = read(FULL.encode(), "h.toml")
    assert config.store == "/srv/s"
    assert (config.api.max_body, config.api.max_upload) == (1536, 2 << 30)
    assert config.api.request_limit_s == 1.5
    assert config.api.binds() == [Bind("127.0.0.1", 0), Bind("::1", 0)]
    assert config.restore_targets == {"scratch": "/var/tmp/r"}
    assert config.mounts["a"] == Mount(
        path="/data/a", quota=10 << 30, root_squash=True, squash_to="7:8", snapshots="30 2 * * 1-5",
        keep=Keep(last=3, within_s=7 * 86400.0),
        hooks={"before_commit": Hook(command=["/bin/true", ""], timeout_s=120.0)},
        exports=[
            Export(client="10.1.0.0/16"),
            Export(client="::1/128", squash="none", read_only=True),
        ],
    )  # fmt: skip
    assert config.mounts["a"].squash_ids() == (7, 8)
    json.dumps(config.model_dump())


def test_mounts_that_are_not_named() -> None:
    config = read(FULL.encode(), "h.toml")
    assert config.mount("c") == config.mount("b") == Mount()
    assert config.mount_path("a") == "/data/a"
    assert config.mount_path("c") == "/mnt/holdfast/c"
    assert config.api_socket() == "/run/holdfast/api.sock"
    for name in ("", "..", "a/b", "A" * 65, "a\n", "\udcff"):
        with pytest.raises(InvalidRequest):
            config.mount_path(name)


def test_no_mount_may_hide_the_store() -> None:
    config = Config(store="/mnt/holdfast/disk/store")
    with pytest.raises(InvalidRequest, match="hide the store"):
        config.mount_path("disk")


def test_a_model_cannot_be_changed() -> None:
    config = Config(store=STORE)
    with pytest.raises(ValidationError):
        config.store = "/x"  # type: ignore[misc]


def test_several_defects_of_a_port_are_none() -> None:
    text = 'store = "/s"\n[api]\nlisten = ["127.0.0.1:9000", "127.0.0.2:9000", "[::1]:9000"]\n'
    assert len(read(text.encode(), "h").api.binds()) == 3
    text = 'store = "/s"\n[api]\nlisten = ["127.0.0.1:9090"]\n[phoenix]\nenabled = false\n'
    assert read(text.encode(), "h").phoenix.binds() == []


def test_the_example_is_the_defaults(tmp_path: Path) -> None:
    place = tmp_path / "example.toml"
    place.write_text(example())
    assert load(str(place)) == Config(store=STORE)


def test_the_example_names_every_key() -> None:
    config = read(uncommented().encode(), "example")
    assert config.uploads.prices == {"offsite": Prices()}
    assert config.restore_targets == {"scratch": "/var/lib/holdfast/restored"}
    mount = config.mounts["oracle"]
    assert mount.hooks["before_commit"].command == ["/usr/local/bin/quiesce", "oracle"]
    assert mount.exports == [Export(client="10.1.0.0/16")]
    assert mount.model_copy(update={"hooks": {}, "exports": []}) == Mount()
    said = set(lines(uncommented()))
    for table in ("api", "phoenix", "sessions", "maintenance", "uploads", "log", "nfs"):
        fields = set(type(getattr(config, table)).model_fields) - {"prices"}  # a table of its own
        assert {(table, key) for key in fields} <= said
    assert {("mounts", "oracle", key) for key in Mount.model_fields} <= said
    assert {(key,) for key in Config.model_fields} <= said


def uncommented() -> str:
    """The example with what is commented out in force; its prose stays, as ``# # prose`` does."""
    text = re.sub(r"^# ((?:[a-z_]+ = |\[).*)$", r"\1", example(), flags=re.MULTILINE)
    return text.replace('server = "off"', 'server = "kernel"')


# --- lines ---------------------------------------------------------------------------------------


def test_lines_of_every_way_to_write_a_key() -> None:
    text = (
        'a.b = 1\n\n\'c d\' = [\n  1, {e = 2},\n  """\n]""",\n]\n[ t . \'u\' ] # ]\n'
        "v = {w = {x = 1}}\n[[l]]\n[[l.m]]\n[[l]]\nk = 1\n[l.n]\no = '''\n[p]\n'''\n[t]\nz = 1"
    )
    found = lines(text)
    assert {
        ("a", "b"): 1, ("c d",): 3, ("c d", 0): 4, ("c d", 1, "e"): 4, ("c d", 2): 6, ("t", "u"): 8,
        ("t", "u", "v", "w", "x"): 9, ("l", 0): 10, ("l", 0, "m", 0): 11, ("l", 1): 12,
        ("l", 1, "k"): 13, ("l", 1, "n", "o"): 15, ("t", "z"): 19,
    }.items() <= found.items()  # fmt: skip
    assert ("p",) not in found
    assert nearest(found, ("l", 1, "missing", "x")) == 12
    assert nearest(found, ("missing",)) == 1


KEYS = st.sampled_from(["store", "api", "listen", "mounts", "m", "exports", "client", "a.b", "x y"])
VALUES = st.recursive(
    st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from(["", "/s", "10G", "6h", "every 6h", "127.0.0.1:1", "::1", "..", "# ]", "\0"])
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


def written(value: object, gap: str = "") -> str:
    """A value as TOML; the gap stands where a list may have line ends."""
    if isinstance(value, dict):
        inner = ", ".join(f"{json.dumps(key)} = {written(one)}" for key, one in value.items())
        return f"{{{inner}}}"
    if isinstance(value, list):
        return f"[{gap}" + f",{gap}".join(written(one, gap) for one in value) + f"{gap}]"
    if isinstance(value, float):
        return repr(value)
    return (
        json.dumps(value).replace("\x7f", "\\u007f")
        if not isinstance(value, str)
        else quoted(value)
    )


def quoted(text: str) -> str:
    return '"' + "".join(f"\\U{ord(char):08x}" for char in text) + '"'


@given(st.dictionaries(KEYS, VALUES, max_size=4), st.sampled_from(["", "\n"]))
def test_every_value_has_its_line(document: dict[str, object], gap: str) -> None:
    text = "".join(f"{json.dumps(key)} = {written(one, gap)}\n" for key, one in document.items())
    found = lines(text)
    rows = text.split("\n")
    for key in document:
        assert rows[found[(key,)] - 1].startswith(json.dumps(key))
    assert all(1 <= line <= len(rows) for line in found.values())


# --- nothing but our errors ----------------------------------------------------------------------


def tried(raw: bytes) -> None:
    said = ""
    try:
        read(raw, "h.toml")
    except InvalidRequest as error:
        said = str(error)
    assert not said or re.match(r"h\.toml:\d+: ", said)
    assert said.isprintable()


@given(st.binary(max_size=200))
def test_any_bytes(raw: bytes) -> None:
    tried(raw)
    tried(b'store = "/s"\n' + raw)


@given(st.text(st.sampled_from("[]{}\"'=.,#\n\\ ax1_-:"), max_size=60))
def test_anything_like_toml(text: str) -> None:
    tried(text.encode())


@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_any_values(document: dict[str, object]) -> None:
    tried(
        "".join(f"{json.dumps(key)} = {written(one)}\n" for key, one in document.items()).encode()
    )


LEAVES = [
    ("user",), ("mount_root",), ("api", "listen"), ("api", "max_body"), ("api", "tls_cert"),
    ("phoenix", "allow"), ("sessions", "lease_s"), ("maintenance", "collect"), ("log", "level"),
    ("nfs", "port"), ("nfs", "bind"), ("restore_targets",), ("restore_targets", "t"), ("mounts",),
    ("mounts", "m", "path"), ("mounts", "m", "squash_to"), ("mounts", "m", "snapshots"),
    ("mounts", "m", "keep"), ("mounts", "m", "hooks"), ("mounts", "m", "exports"),
    ("mounts", "m", "hooks", "before_begin", "command"),
]  # fmt: skip


@given(st.sampled_from(LEAVES), VALUES)
def test_any_value_of_a_known_key(key: tuple[str, ...], value: object) -> None:
    tried(f'store = "/s"\n{".".join(key)} = {written(value)}\n'.encode())


# --- reload --------------------------------------------------------------------------------------


def changed(**tables: object) -> tuple[list[str], list[str]]:
    old = Config.model_validate({"store": STORE, "mounts": {"m": {}, "gone": {"quota": 5}}})
    return reloadable(old, Config.model_validate({"store": STORE, "mounts": {"m": {}}} | tables))


def test_what_a_reload_takes() -> None:
    assert reloadable(Config(store=STORE), Config(store=STORE)) == ([], [])
    assert changed() == (["mounts.gone.quota"], [])
    assert changed(
        api={"max_body": 9, "listen": ["127.0.0.1:1"]},
        phoenix={"max_pending": 9, "enabled": False},
        restore_targets={"t": "/t"},
        log={"level": "debug", "format": "plain"},
        mounts={
            "m": {"snapshots": "every 1h", "path": "/m", "root_squash": True},
            "new": {"max_files": 9},
        },
    ) == (
        [
            "api.max_body", "log.level", "mounts.gone.quota", "mounts.m.snapshots",
            "mounts.new.max_files", "phoenix.max_pending", "restore_targets",
        ],
        [
            "api.listen", "log.format", "mounts.m.path", "mounts.m.root_squash",
            "phoenix.enabled",
        ],
    )  # fmt: skip


def test_what_is_settled_when_a_mount_is_made() -> None:
    assert changed(mounts={"m": {"chunking": "cdc"}, "gone": {"quota": 5}}) == (
        ["mounts.m.chunking (of mounts made from now on)"], [],
    )  # fmt: skip


def test_limits_that_the_file_says() -> None:
    text = 'store = "/s"\n[mounts.a]\nquota = 0\n[mounts.b]\nmax_files = 7\n'
    config = read(text.encode(), "h")
    assert config.limits("a") == (0, None)
    assert config.limits("b") == (None, 7)
    assert config.limits("c") == (None, None)


def test_certificates_are_taken_tls_itself_is_not() -> None:
    def tls(cert: str) -> Config:
        return Config.model_validate({"store": STORE, "api": {"tls_cert": cert, "tls_key": cert}})

    assert reloadable(tls("/a"), tls("/b")) == (["api.tls_cert", "api.tls_key"], [])
    assert reloadable(tls(""), tls("/b")) == ([], ["api.tls_cert", "api.tls_key"])


def test_an_address_is_taken_apart() -> None:
    assert bind("[::ffff:0:0]:1") == Bind("::ffff:0:0", 1)
    assert bind("127.9.9.9:5").loopback and not bind("0.0.0.0:5").loopback
