"""Make a tree of many small files in a mount that nobody serves, through the engine's facade.

python -m tools.bench.probes.grow STORE MOUNT FILES
"""

import stat
import sys

from engine import Store
from engine.live import ROOT, Ctx
from tools.bench.probes.snapshots import PER_FOLDER, file_name


def main(arguments: list[str]) -> None:
    """Create the files; each holds a line of its own, and they are durable when this returns."""
    path, mount, count = arguments[0], arguments[1], int(arguments[2])
    me = Ctx(0, 0)
    with Store.open(path) as store:
        tree = store.open_live(mount)
        folder = ROOT
        for number in range(count):
            parent, _, name = file_name(number).partition("/")
            if number % PER_FOLDER == 0:
                folder = tree.mkdir(ROOT, parent.encode(), stat.S_IFDIR | 0o755, me).ino
            ino = tree.create(folder, name.encode(), stat.S_IFREG | 0o644, me).ino
            tree.write(ino, 0, b"file number %d of a tree of %d files\n" % (number, count))
            tree.wait_room()
        tree.close()


if __name__ == "__main__":
    main(sys.argv[1:])
