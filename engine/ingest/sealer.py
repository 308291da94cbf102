"""The sealer: dirty fragments of a span become chunks and extents. CPU heavy; call it from seal threads."""

from __future__ import annotations

from engine import codec, limits
from engine.chunks import ChunkReader, ChunkWriter, Context, Hold
from engine.errors import Corrupt
from engine.ingest.fixed import seal_fixed
from engine.ingest.groups import Groups
from engine.ingest.jobs import Fragment, Mode, SealJob
from engine.ingest.sketches import Sketches
from engine.ingest.small import SmallSealer
from engine.ingest.splice import Extent, cut, merged, replace
from engine.ingest.stream import StreamSealer
from engine.nodes.extents import encode_extents

_RUN_MIN = limits.SLOT  # a shorter run of a stream is not worth cutting: it is one chunk


class Sealer:
    """Seals spans of all files of one worker. Thread-safe."""

    def __init__(self, context: Context, reader: ChunkReader, writer: ChunkWriter) -> None:
        self._context = context
        self._reader = reader
        self._writer = writer
        self._sketches = Sketches(context, writer)
        self._groups = Groups(context, writer, reader)
        self._small = SmallSealer(context, writer, self._sketches)
        self._stream = StreamSealer(context, writer, self._sketches, self._groups)

    def seal(self, job: SealJob) -> list[Extent]:
        """The span's new extents, under ``SPAN_ROW_MAX`` bytes when encoded.

        ``job.hold`` protects what they refer to until the caller releases it, after they are committed.  Raises
        StoreFull or LocationUnavailable; then nothing has changed and the job can be done again.
        """
        self._sketches.look_for_suspects()
        hold = self._writer.holds.open()
        try:
            self._small.offer([job])
            extents = self._seal(job, hold)
            if (
                len(extents) > limits.SLOTS_PER_SPAN
                and len(encode_extents(extents)) > limits.SPAN_ROW_MAX
            ):
                extents = self._compact(job, extents, hold)
        except BaseException:
            hold.release()
            raise
        job.hold = hold
        return extents

    def seal_small(self, jobs: list[SealJob]) -> None:
        """Do those of the jobs that are better done together: whole small files (``job.extents`` is set then)."""
        self._sketches.look_for_suspects()
        self._small.seal(jobs)

    def flush(self) -> None:
        """Write gathered sketches (before a snapshot's barrier, and on close)."""
        self._sketches.flush()

    def _seal(self, job: SealJob, hold: Hold) -> list[Extent]:

        if job.mode != Mode.STREAM:
            return seal_fixed(self._context, self._reader, self._writer, self._groups, job, hold)
        small: list[Fragment] = []
        extents = job.old
        for start, data in _runs(job.fragments):
            if len(data) < _RUN_MIN:
                small.append((start, data))
            else:
                new = self._stream.seal_run(start, data, job.group, hold)
                extents = replace(extents, start, start + len(data), new)
        if small:
            rest = SealJob(job.span_no, extents, small, Mode.FIXED, job.predecessor)
            extents = seal_fixed(
                self._context, self._reader, self._writer, self._groups, rest, hold
            )
        return merged(extents)

    def _compact(self, job: SealJob, extents: list[Extent], hold: Hold) -> list[Extent]:
        """Too many pieces for one row: slots in most pieces are read and stored again as fewer chunks.

        First what touches is joined.  When that is not enough, the holes between the pieces of a slot are filled with
        zeros: small ones only, as a slot is, and only in files with more than one hole in 64 KiB.
        """
        for fill in (False, True):
            crowded = sorted(
                range(0, limits.SPAN, limits.SLOT),
                key=lambda slot: -len(cut(extents, slot, slot + limits.SLOT)),
            )
            for slot in crowded:
                if len(encode_extents(extents)) <= limits.SPAN_ROW_MAX:
                    return extents
                extents = self._joined(job, extents, slot, hold, fill=fill)
        if len(encode_extents(extents)) > limits.SPAN_ROW_MAX:  # damaged chunks stood in the way
            raise Corrupt("span", expected="pieces that can be read and joined", found="damage",
                          do="run 'holdfast check'")  # fmt: skip
        return extents

    def _joined(
        self, job: SealJob, extents: list[Extent], slot: int, hold: Hold, *, fill: bool
    ) -> list[Extent]:
        """The slot's pieces stored again; as they are when one cannot be read."""
        pieces = cut(extents, slot, slot + limits.SLOT)
        if len(pieces) < 2:
            return extents
        fragments: list[Fragment] = []
        at = pieces[0][0]
        for offset, length, cid, inner in pieces:
            if fill and offset > at:
                fragments.append((at, bytes(offset - at)))
            at = offset + length
            try:
                data = memoryview(self._reader.read(cid))[inner : inner + length]
            except Corrupt:
                return extents
            fragments.append((offset, data))
        emptied = replace(extents, slot, slot + limits.SLOT, [])
        again = SealJob(job.span_no, emptied, fragments, Mode.FIXED, lambda _: extents)
        return seal_fixed(self._context, self._reader, self._writer, self._groups, again, hold)


def _runs(fragments: list[Fragment]) -> list[tuple[int, codec.Bytes]]:
    """Touching fragments joined."""
    groups: list[tuple[int, list[codec.Bytes], int]] = []
    for start, data in fragments:
        if groups and groups[-1][2] == start:
            groups[-1][1].append(data)
            groups[-1] = (groups[-1][0], groups[-1][1], start + len(data))
        else:
            groups.append((start, [data], start + len(data)))
    return [(start, codec.join(parts)) for start, parts, _ in groups]
