"""Names and attributes: POSIX's rules and errors, over memory and over the engine."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from engine import limits
from engine.errors import AlreadyExists, Busy, HoldfastError, InvalidRequest, NotFound
from engine.live import Ctx
from tests.live.rig import CTX, Rig, content, names, write_file


def refused(number: int):
    """The call raises the family's error with this errno."""
    return pytest.raises(HoldfastError, check=lambda error: error.errno == number)


def test_a_new_tree_is_an_empty_root(rig: Rig) -> None:
    root = rig.tree.getattr(1)
    assert (root.ino, root.nlink, root.generation) == (1, 2, 1)
    assert stat.S_ISDIR(root.mode)
    assert names(rig.tree) == {}
    assert rig.tree.lookup(1, b".").ino == 1
    assert rig.tree.lookup(1, b"..").ino == 1


def test_every_kind_of_inode_survives_a_restart(rig: Rig) -> None:
    tree = rig.tree
    tree.mkdir(1, b"dir", 0o777, CTX)
    tree.symlink(1, b"link", b"\xff/../odd\n", CTX)
    tree.mknod(1, b"fifo", stat.S_IFIFO | 0o666, 99, CTX)
    tree.mknod(1, b"socket", stat.S_IFSOCK | 0o600, 0, CTX)
    tree.mknod(1, b"char", stat.S_IFCHR | 0o666, os.makedev(1, 3), CTX)
    tree.mknod(1, b"block", stat.S_IFBLK | 0o660, os.makedev(259, 70000), CTX)
    tree.mknod(1, b"file", 0o666, 0, CTX)
    before = {name: vars_of(attr) for name, attr, _ in tree.readdir(1, 0)}
    tree = rig.reopen()
    assert {name: vars_of(attr) for name, attr, _ in tree.readdir(1, 0)} == before
    assert stat.S_IMODE(tree.lookup(1, b"dir").mode) == 0o755
    assert tree.lookup(1, b"block").rdev == os.makedev(259, 70000)
    assert tree.lookup(1, b"fifo").rdev == 0
    assert tree.readlink(tree.lookup(1, b"link").ino) == b"\xff/../odd\n"
    assert tree.lookup(1, b"link").size == 9


def vars_of(attr) -> dict[str, int]:
    return {name: getattr(attr, name) for name in attr.__slots__}


def test_names_of_odd_bytes_and_full_length(rig: Rig) -> None:
    odd = [b"\n", b"\xff\xfe", b" ", b"-rf *", b"n" * 255, b"\x01" * 255]
    inos = {name: write_file(rig.tree, 1, name, b"") for name in odd}
    tree = rig.reopen()
    assert names(tree) == inos
    for bad in (b"n" * 256,):
        with refused(errno.ENAMETOOLONG):
            tree.create(1, bad, 0o600, CTX)
        with refused(errno.ENAMETOOLONG):
            tree.lookup(1, bad)
    for bad in (b"", b".", b"..", b"a/b", b"a\0"):
        with pytest.raises(InvalidRequest):
            tree.mkdir(1, bad, 0o700, CTX)


def test_errors_of_making_and_removing(rig: Rig) -> None:
    tree = rig.tree
    file = write_file(tree, 1, b"file", b"x")
    sub = tree.mkdir(1, b"sub", 0o755, CTX).ino
    write_file(tree, sub, b"inner", b"")
    with pytest.raises(AlreadyExists):
        tree.create(1, b"file", 0o600, CTX)
    with refused(errno.ENOTDIR):
        tree.create(file, b"x", 0o600, CTX)
    with refused(errno.ENOTDIR):
        tree.lookup(file, b"x")
    with refused(errno.EISDIR):
        tree.unlink(1, b"sub")
    with refused(errno.ENOTDIR):
        tree.rmdir(1, b"file")
    with refused(errno.ENOTEMPTY):
        tree.rmdir(1, b"sub")
    with pytest.raises(NotFound):
        tree.unlink(1, b"none")
    with refused(errno.EPERM):
        tree.link(sub, 1, b"second")
    with refused(errno.ESTALE):
        tree.getattr(999_999)
    with pytest.raises(InvalidRequest):
        tree.readlink(file)
    with pytest.raises(InvalidRequest):
        tree.symlink(1, b"empty", b"", CTX)
    with refused(errno.ENAMETOOLONG):
        tree.symlink(1, b"long", b"x" * (limits.SYMLINK_MAX + 1), CTX)
    assert tree.symlink(1, b"long", b"x" * limits.SYMLINK_MAX, CTX).size == limits.SYMLINK_MAX


def test_nothing_can_be_made_in_a_removed_directory(rig: Rig) -> None:
    tree = rig.tree
    sub = tree.mkdir(1, b"sub", 0o755, CTX).ino
    file = write_file(tree, 1, b"file", b"")
    tree.opened(sub, 0)
    tree.rmdir(1, b"sub")
    for attempt in (
        lambda: tree.create(sub, b"x", 0o600, CTX),
        lambda: tree.mkdir(sub, b"x", 0o700, CTX),
        lambda: tree.link(file, sub, b"x"),
        lambda: tree.rename(1, b"file", sub, b"x"),
    ):
        with pytest.raises(NotFound):
            attempt()
    assert names(tree, sub) == {}
    assert tree.getattr(sub).nlink == 0


def test_hard_links_in_any_order(rig: Rig) -> None:
    tree = rig.tree
    ino = write_file(tree, 1, b"one", b"data")
    sub = tree.mkdir(1, b"sub", 0o755, CTX).ino
    assert tree.link(ino, sub, b"two").nlink == 2
    tree.link(ino, 1, b"three")
    tree = rig.reopen()
    tree.unlink(1, b"one")  # the first link: another takes its place
    assert tree.getattr(ino).nlink == 2
    tree.rename(sub, b"two", 1, b"moved")
    tree = rig.reopen()
    assert {name for name, number in names(tree).items() if number == ino} == {b"three", b"moved"}
    tree.unlink(1, b"three")
    tree.unlink(1, b"moved")
    tree.forgotten(ino)
    with refused(errno.ESTALE):
        tree.getattr(ino)
    tree = rig.reopen()
    with refused(errno.ESTALE):
        tree.getattr(ino)


def test_too_many_links(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LINK_MAX", 2)
    ino = write_file(rig.tree, 1, b"a", b"")
    rig.tree.link(ino, 1, b"b")
    with refused(errno.EMLINK):
        rig.tree.link(ino, 1, b"c")


def test_rename_replaces_exchanges_and_refuses(rig: Rig) -> None:
    tree = rig.tree
    one = write_file(tree, 1, b"one", b"1")
    two = write_file(tree, 1, b"two", b"2")
    sub = tree.mkdir(1, b"sub", 0o755, CTX).ino
    deep = tree.mkdir(sub, b"deep", 0o755, CTX).ino
    with pytest.raises(AlreadyExists):
        tree.rename(1, b"one", 1, b"two", 1)
    with pytest.raises(NotFound):
        tree.rename(1, b"one", 1, b"none", 2)
    with pytest.raises(InvalidRequest):
        tree.rename(1, b"one", 1, b"two", 3)
    with pytest.raises(InvalidRequest):
        tree.rename(1, b"sub", deep, b"loop")
    with pytest.raises(InvalidRequest):
        tree.rename(1, b"sub", sub, b"deep", 2)
    with refused(errno.EISDIR):
        tree.rename(1, b"one", 1, b"sub")
    with refused(errno.ENOTDIR):
        tree.rename(1, b"sub", 1, b"one")
    with refused(errno.ENOTEMPTY):
        tree.rename(sub, b"deep", 1, b"sub")
    tree.rename(1, b"one", deep, b"one", 1)
    tree.rename(1, b"two", deep, b"one", 2)
    assert names(tree)[b"two"] == one
    assert names(tree, deep) == {b"one": two}
    tree.rename(1, b"two", deep, b"one")
    assert names(tree, deep) == {b"one": one}
    tree = rig.reopen()
    assert names(tree, deep) == {b"one": one}
    assert content(tree, one) == b"1"


def test_renaming_one_name_of_a_file_over_another_does_nothing(rig: Rig) -> None:
    ino = write_file(rig.tree, 1, b"a", b"x")
    rig.tree.link(ino, 1, b"b")
    rig.tree.rename(1, b"a", 1, b"b")
    assert names(rig.tree) == {b"a": ino, b"b": ino}


def test_directories_count_their_subdirectories(rig: Rig) -> None:
    tree = rig.tree
    one = tree.mkdir(1, b"one", 0o755, CTX).ino
    two = tree.mkdir(1, b"two", 0o755, CTX).ino
    tree.mkdir(one, b"child", 0o755, CTX)
    write_file(tree, two, b"file", b"")
    tree.rename(two, b"file", one, b"file")
    tree.rename(one, b"child", two, b"child")
    assert [tree.getattr(i).nlink for i in (1, one, two)] == [4, 2, 3]
    child = tree.lookup(two, b"child").ino
    assert tree.lookup(child, b"..").ino == two
    write_file(tree, 1, b"plain", b"")
    tree.rename(1, b"plain", two, b"child", 2)  # a file and a directory change places
    assert [tree.getattr(i).nlink for i in (1, one, two)] == [5, 2, 2]
    assert tree.lookup(child, b"..").ino == 1
    tree = rig.reopen()
    assert [tree.getattr(i).nlink for i in (1, one, two)] == [5, 2, 2]


def test_a_setgid_directory_passes_on_its_group(rig: Rig) -> None:
    tree = rig.tree
    shared = tree.mkdir(1, b"shared", 0o777, CTX).ino
    tree.setattr(shared, mode=0o2775, gid=50, now_ns=1)
    file = tree.create(shared, b"file", 0o666, CTX)
    sub = tree.mkdir(shared, b"sub", 0o777, CTX)
    assert (file.gid, sub.gid) == (50, 50)
    assert sub.mode & stat.S_ISGID
    assert not file.mode & stat.S_ISGID


def test_a_new_owner_clears_set_user_id(rig: Rig) -> None:
    tree = rig.tree
    ino = tree.create(1, b"tool", 0o755, CTX).ino
    tree.setattr(ino, mode=0o6755, now_ns=1)
    assert stat.S_IMODE(tree.setattr(ino, uid=0, now_ns=2).mode) == 0o755
    tree.setattr(ino, mode=0o2644, now_ns=3)  # without group execution it is no set-group-id
    assert stat.S_IMODE(tree.setattr(ino, gid=0, now_ns=4).mode) == 0o2644
    assert stat.S_IMODE(tree.setattr(ino, uid=7, mode=0o4755, now_ns=5).mode) == 0o4755
    tree.setattr(ino, mode=0o4755, now_ns=5)
    tree.write(ino, 0, b"late writes of the page cache must not clear it")
    assert stat.S_IMODE(tree.getattr(ino).mode) == 0o4755


def test_the_umask_and_the_caller_make_the_inode(rig: Rig) -> None:
    attr = rig.tree.create(1, b"f", 0o7777, Ctx(5, 6, 1, 0o027))
    assert (attr.uid, attr.gid, stat.S_IMODE(attr.mode)) == (5, 6, 0o7750)


def test_times_move_as_posix_says(rig: Rig) -> None:
    tree = rig.tree
    sub = tree.mkdir(1, b"sub", 0o755, CTX).ino
    ino = write_file(tree, sub, b"f", b"")

    def times(number: int) -> tuple[int, int]:
        attr = tree.getattr(number)
        return attr.mtime_ns, attr.ctime_ns

    directory, file = times(sub), times(ino)
    tree.link(ino, 1, b"other")
    assert times(sub) == directory
    assert times(ino)[0] == file[0]
    assert times(ino)[1] > file[1]
    file = times(ino)
    tree.write(ino, 0, b"x")
    assert times(ino)[0] > file[0]
    file = times(ino)
    tree.rename(sub, b"f", sub, b"g")
    assert times(sub) > directory
    assert times(ino)[0] == file[0]
    assert times(ino)[1] > file[1]
    tree.setattr(ino, mtime_ns=-5, atime_ns=2**62, now_ns=77)
    attr = rig.reopen().getattr(ino)
    assert (attr.mtime_ns, attr.atime_ns, attr.ctime_ns) == (-5, 2**62, 77)


def test_an_open_file_outlives_its_name(rig: Rig) -> None:
    tree = rig.tree
    ino = write_file(tree, 1, b"f", b"hello")
    tree.barrier()
    tree.opened(ino, 2)
    tree.unlink(1, b"f")
    tree.forgotten(ino)
    tree.write(ino, 5, b" world")
    assert content(tree, ino) == b"hello world"
    assert tree.getattr(ino).nlink == 0
    tree.barrier()
    assert content(tree, ino) == b"hello world"
    with pytest.raises(NotFound):
        tree.link(ino, 1, b"again")
    tree.released(ino)
    with refused(errno.ESTALE):
        tree.getattr(ino)
    rig.reopen()


def test_inode_numbers_are_never_given_twice(rig: Rig) -> None:
    seen = set()
    for step in range(4):
        tree = rig.tree
        for i in range(3):
            attr = tree.create(1, b"%d-%d" % (step, i), 0o600, CTX)
            assert attr.ino not in seen, "also not those whose file a crash took away"
            assert attr.generation == 1
            seen.add(attr.ino)
        if step % 2:
            rig.crash()
        else:
            rig.reopen()


def test_inode_numbers_run_out_only_until_the_next_commit(
    memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.tree._commits.reserve = 3
    memory.tree._commits.commit(force=True)
    for i in range(3):
        memory.tree.create(1, b"%d" % i, 0o600, CTX)
    with pytest.raises(Busy):
        memory.tree.create(1, b"more", 0o600, CTX)
    assert sorted(names(memory.tree)) == [b"0", b"1", b"2"]
    memory.tree.barrier()
    memory.tree.create(1, b"more", 0o600, CTX)


def test_frozen_means_no_change(rig: Rig) -> None:
    tree = rig.tree
    ino = write_file(tree, 1, b"f", b"x")
    tree.setxattr(ino, b"user.a", b"1")
    tree.freeze()
    tree.barrier()
    for attempt in (
        lambda: tree.create(1, b"n", 0o600, CTX),
        lambda: tree.unlink(1, b"f"),
        lambda: tree.rename(1, b"f", 1, b"g"),
        lambda: tree.link(ino, 1, b"g"),
        lambda: tree.write(ino, 0, b"y"),
        lambda: tree.setattr(ino, size=0, now_ns=1),
        lambda: tree.setxattr(ino, b"user.a", b"2"),
        lambda: tree.removexattr(ino, b"user.a"),
    ):
        with pytest.raises(Busy):
            attempt()
    assert content(tree, ino) == b"x"
    tree.thaw()
    tree.unlink(1, b"f")


def test_a_frozen_tree_does_not_commit_of_itself(memory) -> None:
    tree = memory.tree
    ino = write_file(tree, 1, b"f", b"x")
    tree.barrier()
    tree.unlink(1, b"f")
    tree.freeze()
    tree.barrier()
    commits = memory.chunks.commits
    tree.forgotten(ino)  # its rows are to be removed
    memory.time.wait(60)
    tree.tick()
    tree.fsyncdir(1)
    assert memory.chunks.commits == commits
    tree.thaw()
    tree.tick()
    assert memory.chunks.commits == commits + 1
    memory.verify()


def test_open_writers_and_dirty_inodes_are_listed(rig: Rig) -> None:
    tree = rig.tree
    a = write_file(tree, 1, b"a", b"")
    b = tree.create(1, b"b", 0o600, CTX).ino
    tree.opened(b, os.O_WRONLY)
    tree.opened(a, os.O_RDONLY)
    assert tree.open_writers() == [b]
    tree.barrier()
    assert tree.dirty_inodes() == []
    tree.write(b, 0, b"x")
    assert tree.dirty_inodes() == [b]
    tree.released(b)
    assert tree.open_writers() == []
