"""``python -m tools.torture.faults.child MODULE REQUEST``: the cases of one rig, in a process that can be broken.

The module's ``work(request)`` yields one JSON object for each case; the parent reads them as they come.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from tools.torture.bugs import plant_chosen
from tools.torture.rig import Job

Answer = dict[str, Any]


def answers(job: Job, module: str, request: Answer, *, silence: float = 60.0) -> Iterator[Answer]:
    """What the child says; one that says nothing for ``silence`` s hangs, and one that dies was killed by a fault."""
    command = [sys.executable, "-m", "tools.torture.faults.child", module, json.dumps(request)]
    errors = job.scratch / "child.err"
    with errors.open("ab") as stderr:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr)
    assert child.stdout is not None
    rest, last = b"", "before the first case"
    end = time.monotonic() + silence
    try:
        while True:
            ready, _, _ = select.select([child.stdout], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                job.fail(last, f"nothing for {silence:.0f} s: something waits for ever")
            more = os.read(child.stdout.fileno(), 1 << 16)
            if not more:
                break
            end = time.monotonic() + silence
            *lines, rest = (rest + more).split(b"\n")
            for line in lines:
                answer = json.loads(line)
                last = str(answer.get("case", last))
                yield answer
        status = child.wait(10)
        if status < 0:
            job.fail(last, f"the process died of signal {-status} in this case or after it")
        if status:
            text = errors.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"the rig's child failed after case {last}:\n{text}")
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def main() -> None:
    """Answer one request."""
    plant_chosen()
    module, request = sys.argv[1:]
    for answer in importlib.import_module(module).work(json.loads(request)):
        print(json.dumps(answer), flush=True)
    # Not by way of the interpreter's end: threads that hang must not keep a child that has said all.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
