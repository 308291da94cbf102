"""Storage locations over HTTP: who may, what is told, and that no secret is kept or told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from daemon.contract import MountSpec
from engine.keys import Identity
from tests.daemon.http.world import World, world
from tests.locations.places import Place

CANARY = "canary-7Q-passphrase"


def new(place: Path, name: str = "there", **more: object) -> dict[str, object]:
    (place / name).mkdir(exist_ok=True)
    key = Identity.new().recipient.printed()
    return {"name": name, "url": f"file://{place}/{name}", "keys": [key], **more}


def test_locations_and_uploads(place: Place, tmp_path: Path) -> None:
    with world(tmp_path) as one:
        locations_and_uploads(one, place, tmp_path)


def locations_and_uploads(one: World, place: Place, tmp_path: Path) -> None:
    client = one.client()
    for name in ("copied", "other"):
        one.service.create_mount(MountSpec(name))
    point = one.service.snapshot("copied").point.id
    made = client.post("/v1/locations", json={**new(tmp_path, mounts=["copied"]), "url": place.url})
    assert made.status_code == 201, made.text
    assert made.json()["queued"] == 1
    assert client.get("/v1/mounts/copied").json()["pending"] == 1
    assert [one["name"] for one in client.get("/v1/locations").json()["items"]] == ["there"]
    assert [one["point"] for one in client.get("/v1/uploads").json()["items"]] == [point]
    assert client.get("/v1/uploads", params={"state": "failed"}).json()["items"] == []
    assert client.get("/v1/uploads", params={"state": "x"}).status_code == 400
    assert client.get("/v1/uploads", params={"location": "x"}).status_code == 404
    assert client.post("/v1/uploads/retry", json={"location": "there"}).json() == {"queued": 0}
    again = client.post("/v1/mounts/copied/snapshots", json={"durability": "remote"})
    assert again.json()["copies"] == {"there": "verified"}
    begun = client.post("/v1/mounts/copied/sessions").json()["id"]
    done = client.post(f"/v1/sessions/{begun}/commit", json={"durability": "remote"})
    assert done.json()["detail"]["copies"] == {"there": "verified"}
    refused = client.post("/v1/mounts/other/snapshots", json={"durability": "remote"})
    assert (refused.status_code, refused.json()["kind"]) == (400, "invalid_request")
    assert client.post("/v1/mounts/other/snapshots", json={"durability": "x"}).status_code == 400
    change = {"bandwidth": "08:00-18:00=5M,20M", "verify": 0.5, "mounts": []}
    changed = client.patch("/v1/locations/there", json=change).json()
    assert {key: changed[key] for key in change} == change
    assert changed["requests"]["put"] >= 2
    assert max(each["requests"] for each in client.get("/v1/uploads").json()["items"]) > 4
    for wrong, status in (
        ({"bandwidth": "x"}, 400),
        ({"verify": 2}, 400),
        ({"mounts": ["no"]}, 404),
    ):
        assert client.patch("/v1/locations/there", json=wrong).status_code == status
    assert client.patch("/v1/locations/none", json={"verify": 1}).status_code == 404
    assert client.delete("/v1/locations/there").status_code == 204
    assert client.delete("/v1/locations/there").status_code == 404
    acts = [(act, about, result) for _, act, about, result in one.acts() if "location" in about]
    assert acts == [
        ("add location", "location there", "ok"), ("retry uploads", "location there", "ok"),
        ("change location", "location there", "ok"),
        ("change location", "location there", "invalid_request"), ("change location", "location there", "not_found"),
        ("change location", "location none", "not_found"),
        ("remove location", "location there", "ok"), ("remove location", "location there", "not_found"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("role", "mounts", "statuses"),
    [
        ("operator", (), (200, 403, 403, 200, 404, 404, 403, 403, 403)),
        ("writer", (), (403,) * 9),
        ("auditor", (), (200, 403, 403, 200, 403, 404, 403, 403, 403)),
        ("operator", ("mine",), (403, 403, 403, 200, 403, 403, 403, 403, 403)),
    ],
)
def test_who_may(
    one: World, tmp_path: Path, role: str, mounts: tuple[str, ...], statuses: tuple[int, ...]
) -> None:
    client = one.client(role, *mounts)  # type: ignore[arg-type]
    answers = (
        client.get("/v1/locations"), client.post("/v1/locations", json=new(tmp_path)),
        client.delete("/v1/locations/none"), client.get("/v1/uploads"),
        client.post("/v1/uploads/retry", json={"location": "none"}), client.get("/v1/locations/none/keys"),
        client.post("/v1/locations/none/keys", json={}), client.post("/v1/locations/none/keys/rotate", json={}),
        client.patch("/v1/locations/none", json={}),
    )  # fmt: skip
    assert tuple(answer.status_code for answer in answers) == statuses


def test_no_secret_is_told_or_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with world(tmp_path) as one:
        client = one.client()
        bodies = [
            new(tmp_path, passphrase=CANARY), new(tmp_path, "again", passphrase=CANARY, verify=7),
            new(tmp_path, "third", keys=[CANARY]), new(tmp_path, "fourth", passphrase=[CANARY]),
            new(tmp_path, "fifth", passphrase=CANARY, mounts=["none"]), new(tmp_path, "sixth", passphrase=CANARY, x=1),
        ]  # fmt: skip
        answers = [client.post("/v1/locations", json=body) for body in bodies]
        assert [one.status_code for one in answers] == [201, 400, 400, 400, 404, 400]
        keyed = client.post("/v1/locations", json=bodies[0], headers={"Idempotency-Key": "k"})
        assert keyed.status_code == 400  # no hash of a secret is kept
        keys, secret = "/v1/locations/there/keys", {"passphrase": CANARY}
        changes = [
            (keys, {"add": [secret]}, 200), (keys, {"remove": [], "opened_with": secret}, 400),
            (keys, {"add": [{"key": CANARY}]}, 400), (keys, {"add": [CANARY]}, 400),
            (keys, {"add": [{"passphrase": [CANARY]}]}, 400), (keys, {"add": [{**secret, "x": 1}]}, 400),
            (f"{keys}/rotate", {"opened_with": secret}, 200), (f"{keys}/rotate", {"opened_with": CANARY}, 400),
            (f"{keys}/rotate", {"opened_with": {"passphrase": CANARY + "x"}}, 403),
            ("/v1/locations/none/keys", {"add": [secret]}, 404),
        ]  # fmt: skip
        for path, body, status in changes:
            answers.append(client.post(path, json=body))
            assert answers[-1].status_code == status, answers[-1].text
        answers.append(client.post(keys, json={"add": [secret]}, headers={"Idempotency-Key": "k"}))
        assert answers[-1].status_code == 400
        answers.append(client.get(keys))
        assert answers[-1].json()["epochs"] == [1, 2]
        told = [each.text for each in (*answers, keyed, client.get("/v1/locations"))]
        told += [repr(one.acts()), repr(one.service.jobs().items), repr(one.service.incidents())]
        told += [client.get(path).text for path in ("/metrics", "/v1/config", "/v1/audit")]
        assert CANARY not in "".join(told)
    assert CANARY not in caplog.text
    for place, _, names in os.walk(tmp_path):
        for name in names:
            path = Path(place, name)
            if path.is_file():
                assert CANARY.encode() not in path.read_bytes(), path
