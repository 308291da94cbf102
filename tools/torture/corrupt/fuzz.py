"""Rig: every decoder fuzzed, guided by coverage, from real encodings on; 20 minutes of processor time at full size.

Each group of decoders is fuzzed by a process of its own, two at once.  An input that brings out anything but the error
family, encodes to other bytes than it was, takes too long or too much memory, is the case that replays it.
"""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from engine.index.rows import ChunkRow, PackRow, WorkerRow
from engine.live import rows as live
from tools.torture.corrupt import decoders, made, talk
from tools.torture.corrupt.decoders import GROUPS, Decode
from tools.torture.corrupt.model import Model
from tools.torture.rig import Job, Rig

FULL = 1200  # s, all groups together
_PARTS = {"packs": 4, "nodes": 6, "rows": 2, "files": 4, "control": 4}  # of the time, of 20
_MEMORY = 512  # MiB a process may take, atheris and the engine's modules included
_COUNT = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
_COVERED = re.compile(r"cov: (\d+)")


def seeds(model: Model) -> Iterator[tuple[Decode, bytes]]:
    """Real encodings of everything."""
    for name, data in model.files.packs.items():
        yield decoders.header, data[:64]
        if name in model.sealed:
            start = int.from_bytes(data[-80:-76], "little")
            yield decoders.trailer, data[start:]
    for cid, place in model.places.items():
        raw = model.files.packs[place.file][place.offset : place.offset + place.size]
        head = 52 + 40 * raw[6]
        yield decoders.record, raw[:head]
        if raw[5] in (1, 2):
            prefix = b"".join(
                model.plain[one][low : low + size] for one, low, size in model.bases[cid]
            )
            size = len(model.plain[cid]).to_bytes(4, "little")
            if len(prefix) < 65536:
                yield decoders.frame, size + len(prefix).to_bytes(2, "little") + prefix + raw[head:]
        if raw[4] in (2, 3, 4):
            yield from _nodes(model.plain[cid])
    yield from _rows()
    yield decoders.format_file, model.files.other["format.json"]
    for at in range(3 * 4096, len(model.files.index), 8 * 4096):
        yield decoders.page, (3).to_bytes(8, "little") + model.files.index[at + 8 : at + 4096]
    yield decoders.index_file, model.files.index[:140_000]
    for operation in (b"status", b"barrier", b"freeze", b"thaw", b"drain"):
        yield talk.request, b'{"op": "%s"}\n' % operation
    yield talk.request, b'{"op": "freeze"}\n{"op": "thaw"}\n' + b"[" * 3000 + b"\n"
    yield talk.reply, b'{"ok": true, "state": "served", "pid": 4}\n'
    yield talk.reply, b'{"ok": false, "kind": "busy", "message": "later"}\n'


def _nodes(data: bytes) -> Iterator[tuple[Decode, bytes]]:
    yield decoders.any_node, data
    kinds: dict[int, Decode] = {
        0x44: decoders.directory, 0x46: decoders.file_inner, 0x53: decoders.file_leaf,
        0x50: decoders.point_record, 0x54: decoders.tombstone,
    }  # fmt: skip
    if data[0] in kinds:
        yield kinds[data[0]], data
    if data[0] == 0x58:
        yield decoders.attributes, b"\1" + data[2:]
    if data[0] == 0x44 and not data[2]:
        yield decoders.entry, data[5 + 2 * data[3] :][: int.from_bytes(data[5:7], "little")]
    if data[0] == 0x53:
        yield decoders.span, data[5:][: int.from_bytes(data[3:5], "little")]


def _rows() -> Iterator[tuple[Decode, bytes]]:
    ids = (bytes(range(32)), bytes(32))
    yield decoders.chunk_row, ChunkRow(3, 64, 152, 100, 1, 2, 1, 0, ids).pack_bytes()
    yield decoders.pack_row, PackRow(3, 1, 0, 5000, 4, 0, ids[0]).pack_bytes()
    yield decoders.worker_row, WorkerRow(9, 8, 7).pack_bytes()
    yield (
        decoders.inode_row,
        live.encode_inode(0, 1, 0o100644, 1, 2, 3, 9, 9, 4, 5, 6, 7, 1, 44, 2, b""),
    )
    yield (
        decoders.inode_row,
        live.encode_inode(0, 0, 0o120777, 1, 0, 0, 2, 0, 4, 5, 6, 7, 1, 44, 2, b"to"),
    )
    yield decoders.dirent_row, live.encode_dirent(4, 8, b"name")
    yield decoders.live_meta, live.Meta(4, 5, 6, 7, ids[0][:16]).encode()
    yield decoders.live_cut, live.Cut(4, 3).encode()
    yield decoders.changed_row, live.Changed(4, 3).encode()
    yield decoders.sequence, live.encode_seq(4)
    yield decoders.mount_row, bytes(29)
    yield decoders.collection_row, bytes(8) + b"\2"


def _corpus(job: Job) -> None:
    origin = job.scratch / "store"
    model = Model(origin, made.make(origin, job.random("store")))
    places = {
        one: (name, at) for name, group in GROUPS.items() for at, one in enumerate(group.decoders)
    }
    for name in GROUPS:
        (job.scratch / name).mkdir()
        (job.scratch / f"{name}-found").mkdir()
    for number, (decode, data) in enumerate(seeds(model)):
        name, at = places[decode]
        (job.scratch / name / f"seed{number}").write_bytes(bytes((at,)) + data)


def _start(job: Job, name: str, *options: str) -> subprocess.Popen[bytes]:
    words = [
        sys.executable, "-m", "tools.torture.corrupt.fuzz_one", name, f"-seed={job.seed % 2**31 or 1}",
        f"-rss_limit_mb={_MEMORY}", "-timeout=20", "-print_final_stats=1",
        f"-artifact_prefix={job.scratch}/{name}-found/", *options,
    ]  # fmt: skip
    with (job.scratch / f"{name}.log").open("wb") as log:  # no pipe: nobody reads while it runs
        return subprocess.Popen(
            words, cwd=job.scratch, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        )  # fmt: skip


def _settle(job: Job, name: str, process: subprocess.Popen[bytes], limit: float) -> None:
    """Count, or fail with the input that was found."""
    try:
        process.wait(limit)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    said = (job.scratch / f"{name}.log").read_text(errors="replace")
    found = sorted((job.scratch / f"{name}-found").iterdir())
    if process.returncode or found:
        text = base64.b64encode(found[0].read_bytes()).decode() if found else ""
        lines = [
            line
            for line in said.splitlines()
            if line.strip() and not line.startswith(("#", "INFO"))
        ]
        at = next((i for i, line in enumerate(lines) if "Uncaught" in line or "ERROR" in line), 0)
        job.fail(f"{name}:{text}", f"{name}: " + "\n  ".join(lines[at : at + 30]))
    counted, covered = _COUNT.findall(said), _COVERED.findall(said)
    job.count("inputs decoded", int(counted[-1]) if counted else 0)
    if covered:
        job.note(f"{name}: {covered[-1]} branches")


def attack(job: Job) -> None:
    """The rig."""
    _corpus(job)
    if job.case:
        name, _, text = job.case.partition(":")
        file = job.scratch / "input"
        file.write_bytes(base64.b64decode(text))
        _settle(job, name, _start(job, name, str(file)), 60)
        return
    todo = sorted(GROUPS, key=lambda name: -_PARTS[name])
    running: dict[str, tuple[subprocess.Popen[bytes], int]] = {}
    try:
        while todo or running:
            while todo and len(running) < 2:
                name = todo.pop(0)
                seconds = max(2, round(job.size(FULL) * _PARTS[name] / sum(_PARTS.values())))
                folder = str(job.scratch / name)
                running[name] = (_start(job, name, f"-max_total_time={seconds}", folder), seconds)
            ended = [name for name, (process, _) in running.items() if process.poll() is not None]
            if not ended and len(running) == 2:
                time.sleep(0.1)
                continue
            name = next(iter(ended or running))
            process, seconds = running[name]
            _settle(job, name, process, seconds + 120)
            del running[name]
    finally:
        for process, _ in running.values():
            process.kill()
            process.wait()


RIGS = (
    Rig(
        "corrupt-fuzz",
        "decoders fed with what no writer made",
        attack,
        bugs=("decode-without-bound", "decoder-runs-over"),
        teeth=0.01,
        test=0.008,
    ),
)
