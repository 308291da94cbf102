"""Storage locations: directories and buckets that hold packs, behind one small interface (``contract``).

``open_location`` makes one of a URL and credentials; ``Retry`` and ``Throttle`` are wrappers with the same interface.
"""

from engine.locations.contract import Features, Location, Stat
from engine.locations.credentials import Credentials
from engine.locations.open import open_location
from engine.locations.retry import Retry
from engine.locations.throttle import Bandwidth, Throttle, Window, parse_windows

__all__ = [
    "Bandwidth",
    "Credentials",
    "Features",
    "Location",
    "Retry",
    "Stat",
    "Throttle",
    "Window",
    "open_location",
    "parse_windows",
]
