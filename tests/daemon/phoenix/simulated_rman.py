"""A SIMULATION of Oracle's RMAN, for tests: nothing here is Oracle's, and no Oracle database is read.

It does to a directory what RMAN is known to do to one, from the same command line (``rman target / @FILE using DIR``)
and a small part of the same command files:

    RUN { ALLOCATE CHANNEL name DEVICE TYPE DISK FORMAT 'PATH'; … BACKUP …; RELEASE CHANNEL name; … }

Every channel writes a piece of its own, all at once, in large writes one after the other, and at the end writes the
first block (the header) again.  Names are made of ``%U`` (unique), ``%d`` (database), ``%s`` (set), ``%p`` (piece),
``%%``; ``&1`` is the word after ``using``.  The "database" is files named by ``SIM_DATAFILES``, colon between them;
``SIM_FAIL`` = ``write`` fails in the middle of a piece with RMAN's banner of errors, ``silently`` prints the banner
and exits with 0; ``SIM_PAUSE`` is how many seconds each large write takes.
"""

from __future__ import annotations

import os
import re
import struct
import sys
import threading
import time

BLOCK = 8192
WRITE = 1 << 20  # bytes: RMAN's output buffers on disk
BANNER = """RMAN-00571: ===========================================================
RMAN-00569: =============== ERROR MESSAGE STACK FOLLOWS ===============
RMAN-00571: ===========================================================
RMAN-03009: failure of backup command on {channel} channel at {when}
ORA-19502: write error on file "{piece}", block number {block} (block size=8192)"""
_SAYING = threading.Lock()


def say(line: str) -> None:
    with _SAYING:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


class Trouble(Exception):
    """What ends a channel."""


def command_file(words: list[str]) -> str:
    """The commands, with their arguments in place."""
    [at] = [word for word in words if word.startswith("@")]
    arguments = words[words.index("using") + 1 :] if "using" in words else []
    with open(at[1:], encoding="utf-8") as file:
        text = re.sub(r"#.*", "", file.read())
    return re.sub(r"&(\d+)\.?", lambda found: arguments[int(found[1]) - 1], text)


def channels(text: str) -> list[tuple[str, str]]:
    """Name and format of every channel. Exits as RMAN does when it cannot make sense of the file."""
    found = re.findall(
        r"ALLOCATE\s+CHANNEL\s+(\w+)\s+DEVICE\s+TYPE\s+DISK\s+FORMAT\s+'([^']+)'\s*;",
        text,
        re.IGNORECASE,
    )
    if not found or not re.search(r"\bBACKUP\b[^;]*;", text, re.IGNORECASE):
        say("RMAN-00571: \nRMAN-00569: =============== ERROR MESSAGE STACK FOLLOWS ===============")
        say("RMAN-01009: syntax error: found something else")
        sys.exit(1)
    return found


def piece_name(pattern: str, number: int) -> str:
    unique = f"{os.urandom(4).hex()}_{number}_1_1"
    known = {"U": unique, "d": "ORCL", "s": str(number), "p": "1", "%": "%"}
    return re.sub(r"%(.)", lambda found: known[found[1]], pattern)


class Channel(threading.Thread):
    """Writes its share of the data files as one piece."""

    def __init__(self, name: str, piece: str, files: list[tuple[int, str]]) -> None:
        super().__init__(name=name)
        self.piece, self.files = piece, files
        self.trouble: Exception | None = None

    def run(self) -> None:
        try:
            self._write()
        except (Trouble, OSError) as error:
            self.trouble = error

    def _write(self) -> None:
        say(f"channel {self.name}: starting full datafile backup set")
        say(f"channel {self.name}: specifying datafile(s) in backup set")
        for number, path in self.files:
            say(f"input datafile file number={number:05d} name={path}")
        say(f"channel {self.name}: starting piece 1 at {time.strftime('%d-%b-%y').upper()}")
        blocks = 1
        with open(self.piece, "xb", buffering=0) as out:
            out.write(self._header(0))
            for _, path in self.files:
                with open(path, "rb") as file:
                    while data := file.read(WRITE):
                        time.sleep(float(os.environ.get("SIM_PAUSE", "0")))
                        if os.environ.get("SIM_FAIL") == "write" and blocks > 1:
                            raise Trouble(blocks)
                        out.write(data)
                        blocks += -(-len(data) // BLOCK)
            os.pwrite(out.fileno(), self._header(blocks), 0)  # now it is known how much it is
            os.fsync(out.fileno())
        say(f"channel {self.name}: finished piece 1")
        say(f"piece handle={self.piece} tag=TAG{time.strftime('%Y%m%dT%H%M%S')} comment=NONE")
        say(f"channel {self.name}: backup set complete, elapsed time: 00:00:01")

    def _header(self, blocks: int) -> bytes:
        """Ours, not Oracle's: what is checked in tests is that it was written last."""
        return struct.pack("<8sQ", b"SIMULATE", blocks).ljust(BLOCK, b"\0")


def main(words: list[str]) -> int:
    say("Recovery Manager (a simulation for tests): Release 0.0.0.0.0")
    found = channels(command_file(words))
    files = list(enumerate(os.environ["SIM_DATAFILES"].split(":"), 1))
    say("connected to target database: ORCL (a simulation)")
    running = []
    for index, (name, pattern) in enumerate(found):
        say(f"allocated channel: {name}")
        running.append(Channel(name, piece_name(pattern, index + 1), files[index :: len(found)]))
    for channel in running:
        channel.start()
    for channel in running:
        channel.join()
    bad = [channel for channel in running if channel.trouble is not None]
    for channel in running:
        say(f"released channel: {channel.name}")
    if bad:
        say(BANNER.format(channel=bad[0].name, when="now", piece=bad[0].piece, block=1))
        return 1
    if os.environ.get("SIM_FAIL") == "silently":
        say(BANNER.format(channel="c1", when="now", piece="?", block=0))
    say("Recovery Manager complete.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
