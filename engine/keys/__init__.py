"""Keys of storage locations: rings, secrets, the sealing of files. The only room that imports cryptography.

``ring`` makes and opens the key ring of a location, ``keyring`` changes it where it lies, ``secrets`` is what a person
holds, ``seal`` what a program works with once a ring is open. ``copies/FORMAT-copies.md`` has every byte. Nothing here
prints, logs or pickles a key.
"""

from engine.keys.keyring import Keyring, Opened, Rings
from engine.keys.ring import (
    COST,
    RingFacts,
    SlotFacts,
    alone,
    facts,
    let_in,
    make,
    rotated,
    slot_of,
    unlock,
    with_slots,
)
from engine.keys.seal import FRAME_OVERHEAD, HEADER_LEN, JOURNAL_MAGIC, PACK_MAGIC, FileSeal, Vault
from engine.keys.secrets import (
    Both,
    Identity,
    Key,
    Opener,
    Passphrase,
    Recipient,
    Secret,
    load,
    load_from,
    parse,
)

__all__ = [
    "COST", "FRAME_OVERHEAD", "HEADER_LEN", "JOURNAL_MAGIC", "PACK_MAGIC", "Both", "FileSeal", "Identity", "Key",
    "Keyring", "Opened", "Opener", "Passphrase", "Recipient", "RingFacts", "Rings", "Secret", "SlotFacts", "Vault",
    "alone", "facts", "let_in", "load", "load_from", "make", "parse", "rotated", "slot_of", "unlock", "with_slots",
]  # fmt: skip
