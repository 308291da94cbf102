"""Looking at an LMDB file before LMDB does: what cannot be what LMDB left is refused, as it could kill the process
(SIGBUS, SIGABRT) or silently show an older state.

Looked at are the two meta pages, which must be of successive commits (where the younger is damaged LMDB takes the
older one, and the last commit is gone without a word), and the few pages that the names and roots of all tables are
on.  The rest is ``structure``'s, for ``check``: it takes too long to be done at every opening.

A sound file may end before its last page: pages that a transaction took and gave back at the end of the file are free,
and were never written.  So where the file is short, every page that is in use is looked for: by following page
numbers from the roots.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from engine.errors import Corrupt, NotFound, from_os
from engine.index import layout
from engine.index.layout import NONE, Damaged, Meta
from engine.index.structure import metas_agree

_DO = "run 'holdfast repair --rebuild-index'"
_TRIES, _PAUSE = 20, 0.01  # commits may change what is being looked at: then once more


def inspect(folder: str) -> None:
    """Raises NotFound when there is no index, Corrupt when its file cannot be what LMDB left."""
    path = os.path.join(folder, "data.mdb")
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(f"index {path}", expected="a file", found="none", do=_DO) from None
    except OSError as error:
        raise from_os(error, f"index {path}") from None
    try:
        _inspect(fd, path)
    except OSError as error:
        raise from_os(error, f"index {path}") from None
    finally:
        os.close(fd)


def _inspect(fd: int, path: str) -> None:
    seen = -1
    problem: tuple[str, str] | None = None
    for _ in range(_TRIES):
        metas = layout.read_metas(fd)
        if not metas_agree(metas):
            found = " and ".join(str(meta.transaction) for meta in metas) or "none that is valid"
            problem = ("meta pages of two successive commits", found)
            time.sleep(_PAUSE)
            continue
        meta = metas[-1]
        size = os.fstat(fd).st_size
        problem = _wrong(fd, meta, size)
        if not problem or meta.transaction == seen:
            break
        seen = meta.transaction
    else:
        problem = problem or ("a state that stays", "another at every look")
    if problem:
        raise Corrupt(f"index {path}", expected=problem[0], found=problem[1], do=_DO)


def _wrong(fd: int, meta: Meta, size: int) -> tuple[str, str] | None:
    """(what was expected, what was found) where a state cannot be opened."""
    if (meta.last + 1) * meta.page > size and not _whole(fd, meta, size // meta.page):
        return f"{(meta.last + 1) * meta.page} bytes", f"{size} (cut short)"
    try:
        _trunk(fd, meta)
    except Damaged as error:
        return "pages that lead to every table", f"one that {error}"
    return None


def _trunk(fd: int, meta: Meta) -> None:
    """Follow the main tree to the root page of every table. Raises Damaged."""
    if meta.main.flags:
        raise Damaged("has other flags than LMDB gives it")
    todo = [(meta.main.root, 1)]
    while todo:
        number, depth = todo.pop()
        raw = _page(fd, meta, number)
        children = layout.branch(raw, number)
        if children is not None and depth < meta.main.depth:
            todo += [(child, depth + 1) for _, child in children]
            continue
        for row in layout.leaf(raw, number):
            if not row.database:
                raise Damaged("has a row that is no database")
            tree = layout.decode_tree(row.data)
            if tree.flags:
                raise Damaged("has other flags than LMDB gives it")
            if tree.root != NONE:
                root = _page(fd, meta, tree.root)
                if layout.branch(root, tree.root) is None:
                    layout.leaf(root, tree.root)


def _page(fd: int, meta: Meta, number: int) -> bytes:
    if not 2 <= number <= meta.last:
        raise Damaged(f"is number {number}, which is none of the file's")
    return os.pread(fd, meta.page, number * meta.page)


def _whole(fd: int, meta: Meta, count: int) -> bool:
    """Whether every page in use is among the first ``count``."""
    todo = [tree.root for tree in (meta.free, meta.main) if tree.root != NONE]
    seen = 0
    try:
        while todo:
            number = todo.pop()
            seen += 1
            if number >= count or seen > count:
                return False
            todo += _refers(os.pread(fd, meta.page, number * meta.page), number, fd, meta, count)
    except Damaged:
        return False
    return True


def _refers(raw: bytes, number: int, fd: int, meta: Meta, count: int) -> Iterator[int]:
    """Pages with nodes that a page refers to; its overflow pages are looked at here. Raises Damaged."""
    children = layout.branch(raw, number)
    if children is not None:
        yield from (child for _, child in children)
        return
    for row in layout.leaf(raw, number):
        if row.big:
            pages = layout.overflow(os.pread(fd, 16, row.big * meta.page), row.big)
            if row.big + pages > count:
                raise Damaged("lies behind the end of the file")
        elif row.database:
            root = layout.decode_tree(row.data).root
            if root != NONE:
                yield root
