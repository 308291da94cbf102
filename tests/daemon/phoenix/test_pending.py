"""The limit of pending recovery points, over a real store: it counts what a storage location does not have yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from daemon.contract import LocationSpec, MountSpec
from daemon.http import phoenix
from daemon.http.phoenix_access import Settings
from engine.keys import Identity
from tests.daemon.http.serving import serving
from tests.daemon.service.support import new_store, served, settings
from tests.locations.places import Place


def test_the_limit_follows_what_waits_for_its_copy(place: Place, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    new_store(store)
    with served(store, settings(store)) as service:
        service.create_mount(MountSpec("m"))
        app = phoenix.app(service, lambda: Settings(max_pending=2))
        with serving(app, tell=phoenix.refused) as listener, httpx.Client() as client:
            base = f"http://127.0.0.1:{listener.port}/druva-phoenix/v1/mounts/m/backup"

            def ask(method: str) -> tuple[int, Any]:
                told = client.request(method, base).json()
                return told["error_code"], told["result"].get("is_reached_max_snapshots")

            for _ in range(3):
                service.snapshot("m")
            assert ask("GET") == (0, False)  # no location: nothing is pending
            key = Identity.new().recipient.printed()
            service.add_location(LocationSpec("there", place.url, keys=[key]))
            assert ask("GET") == (0, True)
            assert ask("POST")[0] == 4295622664
            service.start_job("upload", {"location": "there"})
            assert ask("GET") == (0, False)
            assert ask("POST")[0] == 0
            service.snapshot("m")
            service.snapshot("m")
            assert ask("GET") == (0, True)
            assert ask("PUT")[0] == 0  # never refused: what it commits exists
