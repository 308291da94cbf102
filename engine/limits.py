"""Every bound of the engine by name, each with its reason; relations between them are asserted at import."""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

# --- shape of files -------------------------------------------------------------------------------------
SLOT = 64 * KIB  # fixed chunk: largest size at which an 8 KiB page change is still a cheap delta
SPAN = 2 * MIB  # 32 slots: an extent list of whole slots is about 1.1 KB, under VALUE_MAX
SLOTS_PER_SPAN = SPAN // SLOT
CHUNK_MAX = 256 * KIB  # largest plaintext of a data chunk; bounds one decode's memory
SMALL_CHUNK = CHUNK_MAX  # small files are gathered up to this: 2.3 % less space than 128 KiB, 0.2 ms to decode
PIECE_MIN, PIECE_AVG, PIECE_MAX = (
    2 * KIB,
    8 * KIB,
    32 * KIB,
)  # content-defined pieces: a database page
STREAM_CHUNK = 128 * KIB  # pieces new to the store are gathered into chunks of about this size
SLOT_MAX_EXTENTS = 4  # a slot in more pieces than this is merged when it is next sealed
SPAN_ROW_MAX = (
    4000  # encoded extents of a span, rarely over 1.1 KB: over it, pieces are merged until it fits
)
FILE_MAX = 16 * TIB  # largest file: span number fits 23 bits, well inside the u32 of keys
NAME_MAX = 255
SYMLINK_MAX = 4095
XATTR_VALUE_MAX = 64 * KIB
XATTR_NAME_MAX = 255
XATTR_TOTAL_MAX = 256 * KIB  # names and values of one inode: they are loaded together
XATTR_PART = 1_800  # bytes of a value in one row, inside VALUE_MAX
DEPTH_MAX = 4_096  # directories within each other: deeper than any path a caller can name at once
LINK_MAX = 65_000  # hard links of a file; as ext4
READDIR_BATCH = 256  # entries read in one index transaction
INO_RESERVE = 65_536  # inode numbers claimed ahead of a commit: none is given twice after a crash
INLINE_CONTENT_MAX = 128  # encoded extents up to this size live in the inode row / directory entry

# --- manifest nodes (of the first five, a change is a new format version) --------------------------------
FILE_LEAF_SPANS = (
    4  # spans of a leaf (8 MiB, 4.4 KB of ids): a quarter of the nodes to mark and index
)
DIR_NODE_MIN = 16  # children before a node may end: an inner level shrinks at least so much
DIR_NODE_MEAN = 80  # further children until a name ends a node, on average: about 92 in all
DIR_NODE_MAX = 256  # children after which a node ends whatever the names are
DIR_LEAF_BYTES = (
    64 * KIB
)  # record bytes after which a leaf ends: only long symbolic links get there
FILE_DEPTH_MAX = 3  # inner levels of a file tree, fanout 256
DIR_DEPTH_MAX = 8  # inner levels of a directory tree: 16 ** 8 leaves are more than inode numbers
XATTR_INLINE_MAX = 254  # encoded xattrs up to this size live in the directory entry
XATTR_NODE = 128 * KIB  # larger ones are cut in nodes of this size …
XATTR_NODES_MAX = 4  # … of which so many hold XATTR_TOTAL_MAX with the least favourable names
POINT_ID_LEN = 26  # 48 bits of milliseconds, 80 random bits, 5 bits a character
MOUNT_NAME_MAX = 255
LABEL_MAX = 1_024  # bytes of UTF-8 of a point's label and of its lineage's name

# --- chunks, deltas, packs ------------------------------------------------------------------------------
DICTIONARY_SAMPLE = (
    8 * KIB
)  # measured: 16 samples of this size beat fewer larger or more smaller ones
DICTIONARY_SAMPLES = 16
DICTIONARY_MIN = (
    1 * MIB
)  # new bytes of a group in one span before a dictionary is worth its own space
ZSTD_LEVEL = 2  # measured, 64 KiB of programs: 3.6 % smaller than 1 at 0.9 of its rate; 3 gains 1.3 % more at 0.75
ZSTD_LEVEL_WITH = 1  # with a dictionary or prefix: 2 gains nothing for database pages, and takes 1.6 times as long
ZSTD_LEVEL_MODEST = (
    3  # of files below a span: 3 to 4 % of space, and what such files cost is elsewhere
)
SMALL_OVERWRITE = 16 * KIB  # a piece below this is no reason to read what was there before
DELTA_DEPTH_MAX = 4  # frames to decode for one read: 1 + this
DELTA_BASES_MAX = 16  # bases that together form one prefix
DELTA_PREFIX_MIN = 64  # a shorter prefix gains nothing, and zstd wants eight bytes at least
DELTA_PREFIX_MAX = 512 * KIB  # bytes of prefix: bounds window and decode memory
DELTA_WORTH = 0.85  # a delta must be smaller than this part of the plain frame's estimate
NODE_MAX = 256 * KIB  # plaintext of a manifest node
PACK_MAX = 64 * MIB  # a sealed pack is about this large: unit of upload and deletion
PACK_HARD_MAX = 1 * GIB  # offsets are u32; a reader refuses more
RECORD_MAX = CHUNK_MAX + 16 * KIB  # stored length of one record, header and bases included
RECORD_SEAL = 32  # bytes that sealing adds to a record: epoch, nonce, tag
APPEND_BUFFER = 1 * MIB  # bytes gathered before one pwrite
WRITE_BEHIND = 4 * MIB  # bytes of a segment the kernel is told to begin writing at once

# --- memory of a worker (sum well under 512 MiB) ----------------------------------------------------------
DIRTY_MAX = 80 * MIB  # plaintext waiting to be sealed, all files of a mount
CHUNK_CACHE = 64 * MIB  # decoded chunks
RESTORE_CACHE = (
    256 * MIB
)  # the same while restoring, in each process: pieces of a set lie in chunks of all its past
RESTORE_TRAY = (
    20 * MIB
)  # records that a batch of a restore was fetched: RANGE_MAX of files, and what they are deltas of
RESTORE_TRAYS = 8  # batches that are fetched or written; memory only as far as they are filled
DICTIONARIES_MAX = 6  # of a group: each more is one more try for every span of new data
DICTIONARIES_KEPT = 48  # of all groups, 0.4 MB each; those of other groups take 1 ms each to fetch
GROUPS_MAX = 1_000  # groups kept, most without a dictionary
DICTIONARY_CACHE = 16 * MIB  # digested dictionaries, about four times their content each
NODE_CACHE = 16 * MIB  # decoded manifest nodes, as bytes
SKETCH_CACHE_PACKS = (
    24  # sketches of that many packs (about 2.5 MB each) for content-defined matching
)
UNCOMMITTED_MAX = (
    48 * MIB
)  # encoded records kept in memory until their barrier, to be written anew after a failed sync
PENDING_MAX = 200_000  # chunk rows waiting for a barrier; reaching it forces one
SEAL_THREADS = 2  # BLAKE3 and zstd release the GIL; more than the cores gains nothing here
INODE_CACHE = 50_000  # clean inodes kept in memory by a live tree
NAME_CACHE = 200_000  # directory entries kept in memory by a live tree, about 250 bytes each
SPAN_CACHE = 3_000  # decoded extent lists of clean spans, about 6 KB each when full of slots
DIRTY_SEAL = DIRTY_MAX // 2  # waiting plaintext above which the oldest is sealed
COMMIT_ROWS = 2_500  # dirty inodes or names that start a commit: collecting them takes about 15 ms
DIRTY_ROWS_MAX = 40_000  # dirty inodes or names at which changes wait for a commit
SMALL_BATCH_FILES = 64  # closed small files sealed in one hand-over to a thread
SMALL_BATCH_BYTES = 2 * MIB  # … or this much of them

GATHER_CHUNKS = 40  # chunks read together: a span's slots; with their bases 40 MiB at the very most, for a moment

# --- index ------------------------------------------------------------------------------------------------
MAP_SIZE = 1 * TIB  # sparse address space of the LMDB file; grows never, costs nothing
MAX_READERS = 510
VALUE_MAX = 1900  # larger values take overflow pages: one each up to ``VALUE_HARD_MAX``
VALUE_HARD_MAX = 4076  # over it several in a row, which make LMDB's free-list search slow
TXN_DELETES_MAX = 20_000  # deletes in one transaction
GC_SWEEP_ROWS = 5_000  # rows per transaction of a sweep, so that writers never wait long
TOMBSTONES_KEPT = (
    256  # so many are not worth a look through all metadata packs for those not needed
)

# --- copies at storage locations, which are not trusted -----------------------------------------------------
SEALED_PACK = (
    32 * MIB
)  # a pack at a location is no larger, with its trailer: built in memory, four parts of an upload
SEALED_FIRST = (
    4 * MIB
)  # the first of an upload, each next twice as large: sending begins soon, and has more when it is done
SEALED_PACK_MAX = 48 * MIB  # a reader refuses more; packs were made with the trailer on top
SEALED_RECORDS_MAX = 131_072  # records of a pack: of 256 bytes each they fill one
SEALED_TRAILER_MAX = 12 * MIB  # plaintext of a trailer: so many records with a base and a half each
JOURNAL_PLAIN_MAX = (
    32 * MIB
)  # JSON of a journal entry: a checkpoint of 200,000 packs (6 TiB), 100 MiB when decoded
JOURNAL_ENTRY_MAX = (
    JOURNAL_PLAIN_MAX + 1 * MIB
)  # what is fetched of an entry: zstd never makes it so much longer
JSON_DEPTH_MAX = 12  # lists and objects within each other; a mount's settings have four
JOURNAL_NAMES_MAX = 100_000  # points, extras, or names of packs in one list of an entry
JOURNAL_PACKS_MAX = (
    100_000  # packs that an entry of a point or of packs names: half of what has room, 3 TiB
)
JOURNAL_FREE_MAX = 64 * KIB  # JSON of a mount's settings, or of what is kept with a point
RING_MAX = 1 * MIB  # bytes of a key ring
RING_SLOTS_MAX = 16
RING_EPOCHS_MAX = 4_096  # once a day for eleven years
ARGON2_MEMORY_KIB_MAX = 1 * MIB  # 1 GiB: four times what we write
ARGON2_PASSES_MAX = 16
ARGON2_LANES_MAX = 16
ARGON2_WORK_MAX = (
    16 * MIB
)  # KiB times passes of all slots of a ring: 21 of ours, with 1 to 4 s each
PASSPHRASE_MAX = 1_024  # bytes
KEY_FILE_MAX = 4 * KIB

# --- time -------------------------------------------------------------------------------------------------
COMMIT_INTERVAL = 5.0  # s: the longest a change waits for its barrier
TICK = 1.0  # s: worker heartbeat, background commit
STALL_AFTER = 2.0  # s a writer waits for the write transaction before it looks for a stopped process that holds it

# --- incidents --------------------------------------------------------------------------------------------
INCIDENT_QUIET = 600.0  # s without a condition after which it counts as over
INCIDENT_AGAIN = (
    60.0  # s until a condition that goes on is written once more, and then ever more rarely
)
INCIDENTS_MAX = (
    500  # kept in memory by one process; of what else is met, each kind is counted together
)
INCIDENT_FILE = 1 * MIB  # bytes after which the file is put aside; the one put aside before goes
INCIDENT_TEXT, INCIDENT_THING = 400, 200  # characters: with JSON's escapes a line stays under 4 KiB
CLOCK_JUMP = (
    2.0  # s a clock may be set at once before that is told: adjusting moves it 0.5 ms a second
)
STALL = 30.0  # s a background turn may take before that is told; a busy disk answers within some

# --- storage locations ------------------------------------------------------------------------------------
OBJECT_NAME_MAX = 200  # characters: with a prefix far below the 1,024 bytes that servers take
PUT_PART = (
    8 * MIB
)  # larger things go up in parts of this size; servers take none below 5 MiB but the last
PUT_PARTS_AT_ONCE = 4  # of one upload; its memory is that of what is uploaded, and no more
LIST_PAGE = 1_000  # names a server gives in one answer, and takes in one request to remove
RANGE_GAP = (
    256 * KIB
)  # bytes that are not wanted cost less than another request, at 25 MB/s and 10 ms
RANGE_MAX = 16 * MIB  # ranges are joined up to this: bounds what one answer holds in memory
RANGES_AT_ONCE = 8  # requests for the ranges of one call
RETRY_FIRST, RETRY_LONGEST = 0.5, 15.0  # s between tries: doubled from the first to the longest
RETRY_LIMIT = (
    180.0  # s a location may be gone: a server that is started anew is back in two minutes
)
REQUEST_RETRIES, REQUEST_RETRY_TIME = (
    3,
    10.0,
)  # the client library's own, for one part or one answer's rest
CONNECT_LIMIT = 5.0  # s to a connection
REQUEST_LIMIT = 120.0  # s for one request: a part of 8 MiB, four at once, at 280 KB/s
BANDWIDTH_LOOK = 2.0  # s until a changed limit is seen by who sends or fetches
THROTTLE_BURST = 1.0  # s of a rate that may be saved up while nothing is sent
LEFTOVER_AGE = (
    86_400.0  # s after which what an upload left half done is nobody's: no upload takes a day
)
CREDENTIALS_MAX = 64 * KIB  # bytes of a file of credentials

# --- space ------------------------------------------------------------------------------------------------
# Writers never use so much of the store's file system, as commits and collection need room: this part of it,
# within these bounds.
RESERVE_PART = 0.05
RESERVE_MIN = 4 * MIB
RESERVE = 64 * MIB

assert SPAN % SLOT == 0 and STREAM_CHUNK <= CHUNK_MAX <= RECORD_MAX
assert SLOT <= CHUNK_MAX and PIECE_MAX <= STREAM_CHUNK
assert SLOTS_PER_SPAN * 34 + 64 <= SPAN_ROW_MAX <= VALUE_HARD_MAX
assert XATTR_PART <= VALUE_MAX and COMMIT_ROWS < DIRTY_ROWS_MAX < INO_RESERVE
assert (
    6 * (INCIDENT_TEXT + INCIDENT_THING) + 300 < 4 * KIB
    and INCIDENTS_MAX * 4 * KIB < 3 * INCIDENT_FILE
)
assert FILE_MAX // SPAN < 2**32 and PACK_MAX + RECORD_MAX < PACK_HARD_MAX < 2**32
assert FILE_LEAF_SPANS * 256**FILE_DEPTH_MAX * SPAN >= FILE_MAX and FILE_LEAF_SPANS <= 8
assert DIR_LEAF_BYTES + 8 * KIB + 2 * DIR_NODE_MAX <= NODE_MAX and XATTR_NODE < NODE_MAX
assert 32 * XATTR_NODES_MAX < XATTR_INLINE_MAX <= 254
assert XATTR_NODES_MAX * XATTR_NODE >= 2 * XATTR_TOTAL_MAX
assert SEALED_PACK + RECORD_MAX + SEALED_TRAILER_MAX <= SEALED_PACK_MAX < PACK_HARD_MAX
assert 48 * SEALED_RECORDS_MAX <= SEALED_TRAILER_MAX < int.from_bytes(b"HFR1", "little")
assert SEALED_PACK % PUT_PART == 0 and 5 * MIB <= PUT_PART
assert RETRY_FIRST < RETRY_LONGEST < RETRY_LIMIT and RANGE_GAP < RANGE_MAX
assert REQUEST_RETRY_TIME < RETRY_LONGEST

# --- locks ------------------------------------------------------------------------------------------------
DAY = 86_400
LOCK_MAX = (
    100 * 366 * DAY
)  # s from now on: nothing takes a lock back, so what is longer is a slip of the pen
LOCK_WEEK = (
    7 * DAY  # s: servers retain until whole weeks, so that a daily point extends a pack weekly
)
LOCK_SPARE = 1_000  # lines of the file of locks that are of points gone, before it is written anew
VERSIONS_KNOWN = 100_000  # names whose oldest version is kept in memory, 30 MB
RETAINS = 8  # objects whose retention is extended at once
WALKED_NODES_MAX = 1_000_000  # ids kept of nodes that were looked at for retention, 100 MB

# --- uploads ----------------------------------------------------------------------------------------------
SMALL_RECORD = 16 * KIB  # smaller ones lie in packs apart: deltas, of which many are read at a time
STOP_LOOK = 1.0  # s between two looks whether to stop, of who waits for a pack
UPLOADS = 4  # packs on their way at once, each in memory: 128 MiB

# --- reading what is elsewhere ------------------------------------------------------------------------------
AWAY_CACHE = 4 * GIB  # bytes of the cache on disk of what was fetched
AWAY_PART = 4  # of the free space, at most: the cache is no reason for a full disk
AWAY_MOST = 0.9  # of the free space, where somebody said how large the cache is to be
AWAY_BLOCK = 256 * KIB  # fetched and kept as a whole: as much as a request costs
AWAY_AHEAD = 32  # blocks fetched along when a pack is read in order

# --- reclaiming what lies at a location -----------------------------------------------------------------------
RECLAIM_BELOW = (
    0.4  # part of a pack that is needed, up to which it is rewritten: 3 bytes freed for 2 moved
)
RECLAIM_LEAST = (
    64 * KIB
)  # bytes not needed: for less, the requests cost more than half a year of keeping it
RECLAIM_GRACE = (
    86_400.0  # s a pack stays after the journal said it is gone: restores elsewhere take hours
)
CHECKPOINT_EVERY = 1_000  # journal entries: who adopts reads up to twice as many
ALONE_WAIT = 60.0  # s who sends waits for its turn: one pack is read, put and read back in less

# --- adopting a location ------------------------------------------------------------------------------------
ADOPT_THREADS = (
    8  # entries and trailers fetched at once, and in memory: 264 and 96 MiB at the very most
)
ADOPT_ROWS = 100_000  # chunks put into the index together, in order: about 100 MiB
BORROW_ROOM = (
    64 * MIB
)  # bytes free without which no store is borrowed: its index, and some of the cache
BORROW_ROW = 256  # bytes of the index for a chunk: measured 222
ADOPT_TWICE_MAX = 100_000  # chunks that lie in several packs: each is read to choose
