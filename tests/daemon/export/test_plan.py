"""What may be exported, and what is written for the servers: pure."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.contract import ExportInfo
from daemon.export import Settings, Wanted, checked_path, ganesha, kernel, log, network
from daemon.export.plan import EXPORT_IDS, Planned, fsid_of, numbered, planned
from engine.errors import InvalidRequest


def made(
    *clients: ExportInfo, mount: str = "db", path: str = "/mnt/holdfast/db", identity: str = "s/1"
) -> Planned:
    return planned(Wanted(mount, identity, path, clients or (ExportInfo(mount, "192.0.2.0/24"),)))


@pytest.mark.parametrize(
    "text",
    ["", "*", "host", "192.0.2.1/33", "192.0.2.1/24", "@all", "192.0.2.0/24; Squash = none", "1", "::/129", "0x7f.1"],
)  # fmt: skip
def test_a_client_is_an_address_or_a_network(text: str) -> None:
    with pytest.raises(InvalidRequest):
        network(text)


@pytest.mark.parametrize(
    "path",
    ["", "/", "relative", "/a b", '/a"b', "/a/../b", "/a/.", "/a;b", "/a\n", "/ä", "/a//b", "/a/", "/" + "x" * 1024],
)  # fmt: skip
def test_a_path_has_no_character_of_a_meaning(path: str) -> None:
    with pytest.raises(InvalidRequest):
        checked_path(path)


@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=20), st.text(max_size=10))
def test_nothing_escapes_into_a_configuration(
    mount: str, path: str, client: str, squash: str
) -> None:
    try:
        plan = planned(
            Wanted(mount, "s/1", "/" + path, (ExportInfo(mount, client, squash=squash),))  # type: ignore[arg-type]
        )
    except InvalidRequest:
        return
    text = ganesha.render(Settings(), "/r", [(1, plan)])
    usual = ganesha.render(Settings(), "/r", [(1, made())])
    assert [re.sub(r"=.*", "=", line) for line in text.splitlines()] == [
        re.sub(r"=.*", "=", line) for line in usual.splitlines()
    ]
    assert len(kernel.render([plan]).splitlines()) == 2


def test_the_narrowest_client_comes_first() -> None:
    plan = made(
        ExportInfo("db", "0.0.0.0/0", read_only=True),
        ExportInfo("db", "192.0.2.0/24", squash="all"),
        ExportInfo("db", "192.0.2.7", squash="none"),
        ExportInfo("db", "2001:db8::/32"),
    )
    assert [str(one) for one in plan.clients] == [
        "192.0.2.7",
        "2001:db8::/32",
        "192.0.2.0/24",
        "0.0.0.0/0",
    ]
    lines = [line.strip() for line in ganesha.render(Settings(), "/r", [(7, plan)]).splitlines()]
    assert "CLIENT { Clients = 192.0.2.7; Access_Type = RW; Squash = No_Root_Squash; }" in lines
    assert "CLIENT { Clients = 0.0.0.0/0; Access_Type = RO; Squash = Root_Squash; }" in lines
    assert "Access_Type = None;" in lines


def test_the_kernel_is_told_the_same() -> None:
    text = kernel.render(
        [
            made(
                ExportInfo("db", "192.0.2.7", squash="none"),
                ExportInfo("db", "::1/128", True, "all"),
            )
        ]
    )
    line = text.splitlines()[1]
    path, *clients = line.split(" ")
    assert path == "/mnt/holdfast/db"
    assert sorted(one.partition("(")[0] for one in clients) == ["192.0.2.7", "::1"]
    assert all(
        re.search(r"sync,no_subtree_check,sec=sys,fsid=[0-9a-f-]{36},", one) for one in clients
    )
    assert "(ro," in next(one for one in clients if one.startswith("::1"))
    assert text == kernel.render(
        [
            made(
                ExportInfo("db", "::1/128", True, "all"),
                ExportInfo("db", "192.0.2.7", squash="none"),
            )
        ]
    )
    other = kernel.render([made(ExportInfo("db", "192.0.2.7"), identity="s/2")])
    assert not set(re.findall(r"fsid=([^,]*)", text)) & set(re.findall(r"fsid=([^,]*)", other))


@given(st.lists(st.text(max_size=5), unique=True, max_size=50), st.integers(0, 50))
def test_numbers_are_distinct_and_stay(identities: list[str], split: int) -> None:
    first = numbered(identities[:split], {})
    both = numbered(identities, first)
    assert first.items() <= both.items()
    assert len(set(both.values())) == len(both) == len(identities)
    assert all(1 <= number <= EXPORT_IDS < 1 << 16 for number in both.values())
    assert all(0 < fsid_of(one) < 1 << 64 for one in identities)


def test_two_that_would_have_the_same_number() -> None:
    number = numbered(["a"], {})["a"]
    both = numbered(["a"], {"before": number})
    assert both == {"before": number, "a": number % EXPORT_IDS + 1}


SAID = """\
21/11/2026 14:22:00 : epoch 6b01 : vm : nfs-ganesha-1[main] gsh_dbus_pkginit :DBUS :CRIT :dbus_bus_get failed (x)
21/11/2026 14:22:00 : epoch 6b01 : vm : nfs-ganesha-1[sigmgr] fsal_cfg_commit :CONFIG :CRIT :Could not create export for (/mnt/holdfast/db) to (/mnt/holdfast/db)
21/11/2026 14:22:00 : epoch 6b01 : vm : nfs-ganesha-1[sigmgr] reread_exports :CONFIG :EVENT :Reread exports complete
21/11/2026 14:22:00 : epoch 6b01 : vm : nfs-ganesha-1[sigmgr] config_errs_to_log :CONFIG :CRIT :Config File (/r/g.conf:LINE): Unknown token (Bogus)
"""  # noqa: E501


def test_a_log_tells_which_export_failed() -> None:
    plans = [
        made(),
        made(mount="db2", path="/mnt/holdfast/db2", identity="s/2"),
        made(mount="d", path="/mnt/holdfast", identity="s/3"),
    ]
    config = ganesha.render(Settings(), "/r", list(enumerate(plans, 1)))
    line = config.splitlines().index('    Path = "/mnt/holdfast/db2";') + 3
    said = log.troubles(SAID.replace("LINE", str(line)))
    assert len(said) == 2
    assert log.blamed(said, config, plans) == {
        "/mnt/holdfast/db": "Could not create export for (/mnt/holdfast/db) to (/mnt/holdfast/db)",
        "/mnt/holdfast/db2": "Unknown token (Bogus)",
    }
