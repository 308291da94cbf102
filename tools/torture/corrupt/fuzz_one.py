"""``python -m tools.torture.corrupt.fuzz_one GROUP [libFuzzer's options] [corpus or input]``: a process that fuzzes."""

from __future__ import annotations

import logging
import sys

import atheris

with atheris.instrument_imports(include=["engine", "fsmount"]):
    from tools.torture.corrupt import decoders

from tools.torture import bugs


def main() -> None:
    """Never returns: libFuzzer ends the process."""
    logging.disable(logging.CRITICAL)
    bugs.plant_chosen()
    group = decoders.GROUPS[sys.argv.pop(1)]

    def one(data: bytes) -> None:
        if data:
            decoders.feed(group.decoders[data[0] % len(group.decoders)], data[1:])

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        if len(data) < 2:
            return bytes(atheris.Mutate(data, most))
        changed = bytes(atheris.Mutate(data[1:], most - 1))
        if seed % 8:
            changed = decoders.mended(group.decoders[data[0] % len(group.decoders)], changed)
        return (data[:1] + changed)[:most]

    atheris.Setup([*sys.argv, f"-max_len={group.most}"], one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
