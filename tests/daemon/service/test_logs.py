"""Logs of backup tools, as such tools write them, and what is no log at all."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from daemon.service import logs

RMAN = b"""
Recovery Manager: Release 19.0.0.0.0 - Production on Thu Nov 19 01:00:04 2026
Version 19.3.0.0.0

Copyright (c) 1982, 2019, Oracle and/or its affiliates.  All rights reserved.

connected to target database: ORCL (DBID=1588504224)

RMAN> run {
2> allocate channel c1 device type disk format '/local/oracle/%d_%U';
3> backup incremental level 0 database plus archivelog;
4> }
using target database control file instead of recovery catalog
allocated channel: c1
channel c1: SID=271 device type=DISK

Starting backup at 19-NOV-26
channel c1: starting incremental level 0 datafile backup set
channel c1: specifying datafile(s) in backup set
input datafile file number=00001 name=/u01/app/oracle/oradata/ORCL/system01.dbf
input datafile file number=00003 name=/u01/app/oracle/oradata/ORCL/sys aux01.dbf
channel c1: starting piece 1 at 19-NOV-26
channel c1: finished piece 1 at 19-NOV-26
piece handle=/local/oracle/ORCL_0a2b3c4d_1_1 tag=TAG20261119T010012 comment=NONE
channel c1: backup set complete, elapsed time: 00:00:25
output file name=/local/oracle/data_D-ORCL_I-1588504224_TS-USERS_FNO-7 tag=TAG20261119T010100 RECID=4 STAMP=1091
Starting Control File and SPFILE Autobackup at 19-NOV-26
piece handle=/local/oracle/c-1588504224-20261119-00 comment=NONE
Finished Control File and SPFILE Autobackup at 19-NOV-26

Recovery Manager complete.
"""
FOUND = [
    "/u01/app/oracle/oradata/ORCL/system01.dbf",
    "/u01/app/oracle/oradata/ORCL/sys aux01.dbf",
    "/local/oracle/ORCL_0a2b3c4d_1_1",
    "/local/oracle/data_D-ORCL_I-1588504224_TS-USERS_FNO-7",
    "/local/oracle/c-1588504224-20261119-00",
]
MANIFEST = {
    "PostgreSQL-Backup-Manifest-Version": 1,
    "Files": [
        {"Path": "backup_label", "Size": 227, "Last-Modified": "2026-11-19 01:00:04 GMT",
         "Checksum-Algorithm": "CRC32C", "Checksum": "1b3d0b5d"},
        {"Encoded-Path": "62617365 2f31ff".replace(" ", ""), "Size": 8192},
    ],
    "WAL-Ranges": [{"Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/2000100"}],
    "Manifest-Checksum": "0a",
}  # fmt: skip


def read(content: bytes, size: int = 1 << 20) -> dict[str, list[str]]:
    log = logs.Log()
    parts = [content[at : at + size] for at in range(0, len(content), size)]
    assert b"".join(log.through(parts)) == content
    return log.files()


def test_rman() -> None:
    for size in (1 << 20, 100, 7, 1):
        assert read(RMAN, size) == {"ORCL": FOUND}
    assert read(RMAN.replace(b"\n", b"\r\n")) == {"ORCL": FOUND}
    two = RMAN + RMAN.replace(b"ORCL", b"TEST")
    assert list(read(two)) == ["ORCL", "TEST"]
    assert read(b"piece handle=/a/b tag=T comment=NONE") == {logs.UNNAMED: ["/a/b"]}


def test_postgresql() -> None:
    text = json.dumps(MANIFEST, indent=1).encode()
    for size in (1 << 20, 50, 1):
        assert read(text, size) == {logs.POSTGRES: ["backup_label", "base/1\udcff"]}
    for other in (
        b"{}",
        b"[1]",
        b'{"a": ',
        b"{" * 100_000,
        b'{"PostgreSQL-Backup-Manifest-Version": 1, "Files": 7}',
    ):
        assert read(other) == {}


def test_bounds() -> None:
    assert read(b"piece handle=/" + b"x" * 20_000 + b"\npiece handle=/y\n") == {
        logs.UNNAMED: ["/y"]
    }
    many = b"".join(b"piece handle=/f%d\n" % n for n in range(logs.FILES_MAX + 10))
    assert len(read(many)[logs.UNNAMED]) == logs.FILES_MAX
    assert read(b"piece handle=/a\0b\npiece handle=\n") == {}


WORDS = [
    b"piece handle=", b"input datafile ", b"name=", b"\n", b" tag=X", b"{", b'{"Files":',
    b"connected to target database: ",
]  # fmt: skip


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.sampled_from(WORDS),
        ), max_size=40,
    ), st.integers(1, 50),
)  # fmt: skip
def test_anything(parts: list[bytes], size: int) -> None:
    content = b"".join(parts)
    found = read(content, size)
    assert found == read(content)
    for paths in found.values():
        assert all(path and "\n" not in path and "\0" not in path for path in paths)


def test_the_files_of_a_database_in_a_point() -> None:
    there = [
        "oracle/ORCL_0a2b3c4d_1_1",
        "old/oracle/ORCL_0a2b3c4d_1_1",
        "c-1588504224-20261119-00",
        "z",
    ]
    assert logs.in_point(FOUND, there) == ["c-1588504224-20261119-00", "oracle/ORCL_0a2b3c4d_1_1"]
    assert logs.in_point([], there) == logs.in_point(FOUND, []) == []
    assert logs.in_point(["d\\x.dbf"], ["d/x.dbf"]) == ["d/x.dbf"]


@given(st.lists(st.text(max_size=20), max_size=10), st.lists(st.text(max_size=20), max_size=10))
def test_no_file_is_made_up(named: list[str], there: list[str]) -> None:
    assert set(logs.in_point(named, there)) <= set(there)
