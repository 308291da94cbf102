"""Keys of locations and of sealed stores: rings, secrets, sealing. The only room that imports cryptography.

``ring`` makes and opens a key ring, ``keyring`` changes it where it lies, ``secrets`` is what a person holds, ``seal``
and ``records`` what a program works with once a ring is open: at a location, and in a store.
``copies/FORMAT-copies.md`` and ``FORMAT.md`` have every byte. Nothing here prints, logs or pickles a key.
"""

from engine.keys.keyring import Keyring, Opened, Rings, bearing
from engine.keys.records import Master, StoreSeal
from engine.keys.ring import (
    COST,
    RingFacts,
    SlotFacts,
    alone,
    facts,
    let_in,
    make,
    make_store,
    rotated,
    slot_of,
    unlock,
    unlock_store,
    with_slots,
)
from engine.keys.seal import (
    FRAME_OVERHEAD,
    HEADER_LEN,
    JOURNAL_MAGIC,
    PACK_MAGIC,
    FileSeal,
    Vault,
    epoch_in,
)
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
    "Keyring", "Master", "Opened", "Opener", "Passphrase", "Recipient", "RingFacts", "Rings", "Secret", "SlotFacts",
    "StoreSeal", "Vault", "alone", "bearing", "epoch_in", "facts", "let_in", "load", "load_from", "make", "make_store",
    "parse", "rotated", "slot_of", "unlock", "unlock_store", "with_slots",
]  # fmt: skip
