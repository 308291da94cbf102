"""A key ring changed where it lies: one wins, nothing is lost, and whatever cuts it off leaves a ring that opens."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine import keys
from engine.errors import Busy, Corrupt, HoldfastError, InvalidRequest, LocationDenied, NotFound
from engine.keys import Identity, Key, Keyring, Opener, Passphrase, Vault
from tests.keys.support import CHEAP, ID_KEY, LOCATION

OWN, WORDS, SAFE = Key(b"o" * 32), Passphrase("swordfish"), Identity(b"s" * 32)
OTHER = Key(b"x" * 32)


class Memory:
    """Rings in a dict. ``before``: what happens before each call, by its name."""

    shown = "nowhere"

    def __init__(self) -> None:
        raw, _ = keys.make(LOCATION, ID_KEY, [WORDS, OWN], now_ns=1, cost=CHEAP)
        self.rings = {1: raw}
        self.greatest = 1
        self.before: Callable[[str], None] = lambda call: None

    def newest(self) -> tuple[int, bytes]:
        self.before("newest")
        if not self.rings:
            raise NotFound("ring")
        return max(self.rings.items())

    def create(self, number: int, raw: bytes) -> bool:
        self.before("create")
        return self.rings.setdefault(number, raw) is raw

    def seen(self, number: int, vault: Vault) -> None:
        self.before("seen")
        self.greatest = max(self.greatest, number)

    def remove_older(self, number: int) -> None:
        self.before("remove")
        self.rings = {one: raw for one, raw in self.rings.items() if one >= number}


def ring(place: Memory, opener: Opener = OWN, own: Key | None = OWN) -> Keyring:
    return Keyring(place, LOCATION, opener, own, place.greatest, CHEAP)


def opens(place: Memory, secret: Opener) -> bool:
    return bool(keys.slot_of(place.newest()[1], secret))


def slot(place: Memory, secret: Opener) -> str:
    return keys.slot_of(place.newest()[1], secret)


@pytest.fixture
def place() -> Memory:
    return Memory()


def test_slots_come_and_go(place: Memory) -> None:
    first = ring(place).show()
    assert (first.number, first.own, first.left) == (1, slot(place, OWN), "")
    made = ring(place, WORDS, None).change([SAFE.recipient, OTHER])
    assert (made.number, made.own, made.left) == (2, "", "") and list(place.rings) == [2]
    assert place.greatest == 2
    assert all(opens(place, one) for one in (OWN, WORDS, SAFE, OTHER))
    changed = ring(place).change([Passphrase("tuna")], [slot(place, WORDS)])
    assert not opens(place, WORDS) and opens(place, Passphrase("tuna"))
    assert changed.vault.fingerprint == first.vault.fingerprint
    assert ring(place).change(missing=[OTHER, OWN]).number == 3  # they open it: nothing is written
    with pytest.raises(InvalidRequest, match="one of"):
        ring(place).change(drop=["0" * 16])


def test_the_last_ways_in_are_spared(place: Memory) -> None:
    own, words = slot(place, OWN), slot(place, WORDS)
    with pytest.raises(InvalidRequest, match="this machine's own"):
        ring(place).change(drop=[own])
    with pytest.raises(InvalidRequest, match="beside this machine"):
        ring(place).change(drop=[words])
    with pytest.raises(InvalidRequest, match="keep a way"):
        ring(place).change(drop=[own, words], force=True)
    assert place.newest()[0] == 1
    assert ring(place).change(drop=[own], force=True).own == ""
    assert ring(place, WORDS).change(missing=[OWN]).own == slot(place, OWN) != ""


def test_rotating(place: Memory) -> None:
    before = ring(place).show().vault
    turned = ring(place).rotate()
    assert (turned.facts.epochs, len(turned.facts.slots)) == ((1, 2), 2)
    assert turned.vault.goes_on(before) and not before.goes_on(turned.vault)
    new = ring(place).rotate([SAFE.recipient])
    assert new.facts.epochs == (1, 2, 3) and new.own and opens(place, SAFE)
    assert not opens(place, WORDS)
    ring(place).change(drop=[new.own], force=True)
    alone = ring(place, SAFE).rotate([WORDS])
    assert not alone.own and [one.kind for one in alone.facts.slots] == ["passphrase"]


def test_two_at_once_are_both_heard(place: Memory) -> None:
    """The other is between any two steps of the one, from its beginning to its end."""
    for call in ("newest", "create", "seen", "remove"):
        for act in ("add", "rotate", "twice"):
            for mine in ("add", "change", "rotate"):
                both(Memory(), call, act, mine)


def both(place: Memory, call: str, act: str, mine: str) -> None:
    begun: list[str] = []
    secret = slot(place, WORDS)

    def other(now: str) -> None:
        if now == call and not begun:
            begun.append(now)
            place.before = lambda call: None
            for _ in range(1 + (act == "twice")):
                if act == "rotate":
                    ring(place).rotate()
                else:
                    ring(place).change(missing=[OTHER], add=[SAFE.recipient])

    place.before = other
    if mine == "add":
        ring(place).change([Key(b"y" * 32)])
    elif mine == "change":
        ring(place).change([Key(b"y" * 32)], [secret])
    else:
        ring(place).rotate()
    number, raw = place.newest()
    assert begun and place.greatest == number
    assert (mine == "rotate") == (not keys.slot_of(raw, Key(b"y" * 32)))
    assert (mine == "change") == (not opens(place, WORDS))
    assert len(keys.facts(raw).epochs) == 1 + (act == "rotate") + (mine == "rotate")
    if act != "rotate":
        assert opens(place, OTHER)
    assert keys.unlock(raw, OWN, least=number).sealed


def test_died_between_any_two_steps(place: Memory) -> None:
    class Died(Exception):
        pass

    for at in range(8):
        calls: list[str] = []

        def die(call: str, at: int = at, calls: list[str] = calls) -> None:
            calls.append(call)
            if len(calls) > at:
                raise Died

        place.before = die
        try:
            ring(place).change([Key(bytes([at]) * 32)])
            died = False
        except Died:
            died = True
        place.before = lambda call: None
        number, raw = place.newest()
        assert keys.unlock(raw, OWN, location=LOCATION, least=place.greatest).sealed
        assert opens(place, Key(bytes([at]) * 32)) == ("create" in calls[:-1] or not died)
    assert calls == ["newest", "create", "newest", "seen", "remove"]
    assert list(place.rings) == [number]  # whoever changes it next leaves none of before


def test_others_all_the_time(place: Memory) -> None:
    def other(call: str) -> None:
        if call == "create":
            place.before = lambda call: None
            ring(place).rotate()
            place.before = other

    place.before = other
    with pytest.raises(Busy, match="try again"):
        ring(place).change([OTHER])


def test_what_is_not_as_it_was_made(place: Memory) -> None:
    def lost(call: str) -> None:
        if call == "newest" and 2 in place.rings:
            del place.rings[2]

    place.before = lost
    with pytest.raises(Corrupt, match="conditional creates"):
        ring(place).change([OTHER])
    place.before = lambda call: None
    place.greatest = 7
    for change in (ring(place).show, ring(place).rotate, lambda: ring(place).change([OTHER])):
        with pytest.raises(Corrupt, match="7 or more"):
            change()


def test_older_rings_that_cannot_go_are_told(place: Memory) -> None:
    def denied(call: str) -> None:
        if call == "remove":
            raise LocationDenied("nowhere", found="a denial")

    place.before = denied
    made = ring(place).change([OTHER])
    assert "a denial" in made.left and made.number == 2 and list(place.rings) == [1, 2]


def test_a_wrong_secret_changes_nothing(place: Memory) -> None:
    before = dict(place.rings)
    for act in (lambda one: one.show(), lambda one: one.rotate(), lambda one: one.change([OTHER])):
        with pytest.raises(HoldfastError, match="opens none"):
            act(ring(place, Passphrase("wrong")))
    assert place.rings == before
