"""The same script over a live tree and in the history of it: both end with the same tree, and the point has it too."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from engine import Store
from tools.torture.crash.engine_files import TreeFiles, observe_point, observe_tree
from tools.torture.history import History
from tools.torture.workload import Script


@pytest.mark.parametrize("seed", range(3))
def test_a_script_does_to_a_live_tree_what_its_history_says(tmp_path: Path, seed: int) -> None:
    Store.init(str(tmp_path / "store"))
    history = History()
    script = Script(random.Random(seed), history)
    with Store.open(str(tmp_path / "store")) as store:
        store.create_mount("m")
        tree = store.open_live("m")
        files = TreeFiles(tree)
        for _ in range(250):
            op = script.next()
            history.begin(op)
            files.do(op)
            history.done(op)
            if history.begun % 50 == 0:
                picture = history.picture(floor=history.finished)
                assert picture.misfit(observe_tree(tree)) == ""
        tree.barrier()
        point = store.snapshot("m", "all of it")
        assert history.picture(floor=history.finished).misfit(observe_tree(tree)) == ""
        seen = observe_point(store.view(point.id))
        assert history.picture(floor=history.finished).misfit(seen) == ""
        tree.close()
        went_on = History.of(seen)
        assert went_on.picture().misfit(seen) == ""
        more = Script(random.Random(seed), went_on, files=20, size=3000)
        made = [more.next() for _ in range(200)]
        assert not {op.path for op in made if op.kind == "create"} & seen.keys()
        changed = {path: one._replace(data=one.data + b"x") for path, one in seen.items()}
        assert history.picture(floor=history.finished).misfit(changed) != ""
        assert store.check(read_data=True).problems == []
