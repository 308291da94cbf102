"""One bad file for each rule: the line it names, the key, what was found, and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.config import InvalidConfig, load
from engine.errors import HoldfastError, InvalidRequest, NotFound

STORE = 'store = "/srv/s"\n'  # line 1 of most

# What stands in the file, the line that is wrong, and what the error says of it.
BAD = {
    "no store": ("[api]\n", 1, ["store", "expected a value"]),
    "no value": ("store =\n", 1, ["no TOML at column 8"]),
    "no end": (STORE + 'user = "x', 2, ["no TOML at the end of the file"]),
    "key twice": (STORE + "\n" + STORE, 3, ["no TOML at column", "Cannot overwrite a value"]),
    "not UTF-8": (STORE.encode() + b'\nuser = "\xff"\n', 3, ["UTF-8", "0xff"]),
    "a NUL": (STORE + "\0\n", 2, ["no TOML"]),
    "too deep": (STORE + "x = " + "[" * 5000 + "]" * 5000, 1, ["too deep"]),
    "many digits": (STORE + "x = " + "9" * 5000, 1, ["no TOML"]),
    "too long": (STORE + "#" * (1 << 20), 1, ["1048576 bytes", "found more"]),
    "unknown key": (STORE + "[api]\nlistn = []\n", 3, ["api.listn", "did you mean listen?"]),
    "unknown table": (STORE + "[maintainance]\n", 2, ["did you mean maintenance?"]),
    "nothing near": (STORE + "[log]\nqqq = 1\n", 3, ["log.qqq", "one of level, format"]),
    "unknown in list": (
        STORE + '[[mounts.m.exports]]\nclient = "::1"\n[[mounts.m.exports]]\nclient = "::2"\nread_onli = true\n',
        6,
        ["mounts.m.exports[1].read_onli", "did you mean read_only?"],
    ),
    "no table": (STORE + "log = 3\n", 2, ["log", "a table", "found 3"]),
    "no text": (STORE + "user = 3\n", 2, ["user", "text in quotes", "found 3"]),
    "no number": (STORE + '[phoenix]\nmax_pending = "5"\n', 3, ["a whole number", 'found "5"']),
    "no truth": (STORE + "[phoenix]\nenabled = 1\n", 3, ["true or false", "found 1"]),
    "no list": (STORE + '[api]\nlisten = "x"\n', 3, ["api.listen", "a list in brackets"]),
    "no choice": (STORE + '[log]\nlevel = "inf"\n', 3, ["'debug', 'info'", "did you mean info?"]),
    "no choice of a number": (STORE + "[log]\nlevel = 3\n", 3, ["'debug', 'info'", "found 3"]),
    "size": (STORE + '[api]\nmax_body = "1 X"\n', 3, ["as '10G'", 'found "1 X"']),
    "size below 0": (STORE + "[api]\nmax_body = -1\n", 3, ["as '10G'", "found -1"]),
    "size of half": (STORE + "[api]\nmax_body = 1.5\n", 3, ["as '10G'", "found 1.5"]),
    "size of truth": (STORE + "[api]\nmax_body = true\n", 3, ["as '10G'", "found true"]),
    "duration": (STORE + '[sessions]\nlease_s = "1y"\n', 3, ["as '6h'", 'found "1y"']),
    "no duration": (STORE + "[sessions]\nlease_s = 0\n", 3, ["more than 0"]),
    "duration nan": (STORE + "[sessions]\nlease_s = nan\n", 3, ["as '6h'"]),
    "duration inf": (STORE + "[sessions]\nlease_s = inf\n", 3, ["as '6h'"]),
    "range": (STORE + "[phoenix]\nmax_pending = 0\n", 3, ["from 1 to", "found 0"]),
    "port": (STORE + "[nfs]\nport = 65536\n", 3, ["from 1 to 65535", "found 65536"]),
    "relative": ('store = "s"\n', 1, ["an absolute path", 'found "s"']),
    "upwards": ('store = "/srv/../etc"\n', 1, ["without '..'"]),
    "control characters": ('store = "/srv/\\u001b[1m"\n', 1, ["an absolute path"]),
    "long path": (f'store = "/{"x" * 4096}"\n', 1, ["an absolute path", "…"]),
    "user": (STORE + 'user = "a b"\n', 2, ["the name of a user", 'found "a b"']),
    "listen name": (STORE + '[api]\nlisten = ["localhost:1"]\n', 3, ["api.listen[0]", "[::1]:9091"]),
    "listen port": (STORE + '[api]\nlisten = ["127.0.0.1:70000"]\n', 3, ["api.listen[0]"]),
    "listen address": (STORE + '[api]\nlisten = ["127.0.0.256:1"]\n', 3, ["api.listen[0]"]),
    "in a list": (
        STORE + '[api]\nlisten = [\n  "127.0.0.1:1", # ]\n  "x"\n]\n',
        5,
        ["api.listen[1]", 'found "x"'],
    ),
    "network": (STORE + '[phoenix]\nallow = ["10.0.0.1/8"]\n', 3, ["host bits zero"]),
    "address": (STORE + '[nfs]\nbind = "here"\n', 3, ["an address", 'found "here"']),
    "mount name": (STORE + '[mounts."../x"]\n', 2, ['mounts."../x"', "1 to 64 letters"]),
    "long name": (STORE + f'[mounts.{"x" * 65}]\n', 2, ["1 to 64 letters"]),
    "target name": (STORE + '[restore_targets]\n"a b" = "/x"\n', 3, ["1 to 64 letters"]),
    "target path": (STORE + '[restore_targets]\na = "x"\n', 3, ["restore_targets.a", "absolute"]),
    "squash ids": (STORE + '[mounts.m]\nsquash_to = "0:0"\n', 3, ["as '65534:65534'"]),
    "squash nobody": (STORE + '[mounts.m]\n\nsquash_to = "9:9"\n', 4, ["root_squash = true"]),
    "schedule": (STORE + '[mounts.m]\nsnapshots = "hourly"\n', 3, ["'every 6h'", "five cron"]),
    "never": (STORE + '[maintenance]\nscrub = "0 0 30 2 *"\n', 3, ["a schedule"]),
    "hook event": (STORE + '[mounts.m.hooks.begin]\ncommand = ["/x"]\n', 2, ["'before_begin'"]),
    "hook nothing": (STORE + "[mounts.m]\nhooks.before_begin.command = []\n", 3, ["a program"]),
    "hook relative": (STORE + '[mounts.m]\nhooks.before_begin.command = ["x"]\n', 3, ["program"]),
    "hook missing": (STORE + "[mounts.m.hooks.before_begin]\n", 2, ["command", "expected a value"]),
    "root in store": ('store = "/s"\nmount_root = "/s/m"\n', 2, ["mount_root", "outside the store"]),
    "run_dir in store": ('store = "/s"\nrun_dir = "/s"\n', 2, ["run_dir", "outside the store"]),
    "store in mount": (STORE + '[mounts.m]\npath = "/srv"\n', 3, ["would hide the store"]),
    "store in unnamed path": ('store = "/m/a/s"\nmount_root = "/m"\n[mounts.a]\n', 3, ["hide"]),
    "mount in store": (STORE + '[mounts.m]\npath = "/srv/s/m"\n', 3, ["outside the store"]),
    "run_dir in mount": (STORE + '[mounts.m]\npath = "/run"\n', 3, ["would hide run_dir"]),
    "path twice": (
        STORE + '[mounts.a]\npath = "/a"\n[mounts.b]\npath = "/a/"\n',
        5,
        ["mounts.b.path", "also the path of mounts.a"],
    ),
    "path in path": (
        STORE + '[mounts.a]\npath = "/a/b"\n[mounts.b]\npath = "/a"\n',
        5,
        ["mounts.b.path", "inside each other"],
    ),
    "target in store": (STORE + 'restore_targets.a = "/srv/s/t"\n', 2, ["neither inside nor"]),
    "target around store": (STORE + '[restore_targets]\na = "/srv"\n', 3, ["nor around"]),
    "target in mount": (
        STORE + '[restore_targets]\na = "/mnt/holdfast/m/t"\n[mounts.m]\n',
        3,
        ["restore_targets.a", "mounts.m"],
    ),
    "long socket": (STORE + f'[api]\nsocket = "/{"x" * 107}"\n', 3, ["api.socket", "107 bytes"]),
    "long run_dir": (STORE + f'run_dir = "/{"x" * 100}"\n', 2, ["run_dir", "107 bytes"]),
    "port twice": (
        STORE + '[api]\nlisten = ["[::1]:9000"]\n[phoenix]\n\nlisten = ["[0:0::1]:9000"]\n',
        6,
        ["phoenix.listen", "9000", "api.listen"],
    ),
    "port everywhere": (
        STORE + '[api]\ninsecure_plain = true\nlisten = ["0.0.0.0:9090"]\n[phoenix]\n',
        5,
        ["phoenix.listen", "9090"],
    ),
    "port of nfs": (
        STORE + '[api]\nlisten = ["127.0.0.1:2049"]\n[nfs]\nserver = "ganesha"\nport = 2049\n',
        6,
        ["nfs.port", "2049"],
    ),
    "cert alone": (STORE + '[api]\ntls_cert = "/c"\n', 3, ["api.tls_cert", "api.tls_key beside"]),
    "key alone": (STORE + '[api]\ntls_key = "/c"\n', 3, ["api.tls_key", "api.tls_cert beside"]),
    "ca alone": (STORE + '[api]\nclient_ca = "/c"\n', 3, ["api.client_ca", "api.tls_cert beside"]),
    "plain": (STORE + '[api]\nlisten = ["10.0.0.1:9091"]\n', 3, ["insecure_plain = true"]),
    "plain everywhere": (STORE + '[api]\nlisten = ["[::]:9091"]\n', 3, ["insecure_plain = true"]),
    "nobody allowed": (STORE + '[phoenix]\nlisten = ["0.0.0.0:1"]\n', 3, ["phoenix.allow"]),
    "all allowed": (STORE + '[phoenix]\nallow = ["0.0.0.0/0"]\n', 3, ["token_required = true"]),
    "no server": (STORE + '[[mounts.m.exports]]\nclient = "::1"\n', 2, ["nfs.server"]),
    "client twice": (
        STORE + 'nfs.server = "kernel"\n[mounts.m]\nexports = [ {client = "::1"},\n {client = "::1"} ]\n',
        5,
        ["mounts.m.exports", "twice"],
    ),
}  # fmt: skip


def refused(place: Path) -> InvalidConfig:
    with pytest.raises(InvalidConfig) as caught:
        load(str(place))
    return caught.value


@pytest.mark.parametrize("name", BAD)
def test_each_names_its_line(tmp_path: Path, name: str) -> None:
    content, line, said = BAD[name]
    place = tmp_path / "h.toml"
    place.write_bytes(content if isinstance(content, bytes) else content.encode())
    error = refused(place)
    assert len(error.problems) == 1, error
    assert str(error).startswith(f"{place}:{line}: "), error
    assert "\n" not in str(error) and len(str(error)) < 700
    for text in said:
        assert text in str(error)


def test_all_errors_are_listed_in_their_order(tmp_path: Path) -> None:
    place = tmp_path / "h.toml"
    place.write_text(
        'store = "s"\r\n[api]\r\nlistn = 1\r\nmax_body = "x"\r\n[log]\r\nlevel = ""\r\n'
    )
    error = refused(place)
    assert [one.line for one in error.problems] == [1, 3, 4, 6]
    assert all(str(one) in str(error) for one in error.problems)


def test_all_that_does_not_go_together_is_listed(tmp_path: Path) -> None:
    place = tmp_path / "h.toml"
    place.write_text(
        'store = "/s"\nrun_dir = "/s/r"\n[api]\ntls_cert = "/c"\n[mounts.m]\npath = "/"\n'
    )
    assert [one.line for one in refused(place).problems] == [2, 4, 6]


@pytest.mark.parametrize("path", ["", "\0", "."])
def test_what_is_no_file(tmp_path: Path, path: str) -> None:
    with pytest.raises(HoldfastError) as caught:
        load(path)
    assert caught.value.kind.exit in (InvalidRequest.kind.exit, NotFound.kind.exit)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="holdfast config example"):
        load(str(tmp_path / "missing"))
    with pytest.raises(NotFound):
        load("/dev/null/x")
