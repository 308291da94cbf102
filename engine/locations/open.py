"""A URL and credentials become a location."""

from __future__ import annotations

from collections.abc import Mapping

from engine.errors import NotFound
from engine.locations.contract import Location
from engine.locations.directory import Directory
from engine.locations.url import parse
from engine.seam import REAL, Os


def open_location(
    url: str, credentials: Mapping[str, str] | None = None, *, system: Os = REAL
) -> Location:
    """The location of a URL (``url`` says what is allowed), as it is: without retries beyond those of one request.

    Raises InvalidRequest for a URL or credentials that cannot be; NotFound when a directory is not there, which is
    never made: where a disk should be mounted, a new directory would be on another. No server is asked.
    """
    place = parse(url)
    if place.scheme == "file":
        try:
            return Directory(place.path, place.shown, system)
        except NotFound as error:
            raise NotFound(
                error.what, expected="a directory", found="none", do="mount its disk, or make it"
            ) from None
    # Here: loading the client takes a while, and directories do without.
    from engine.locations.objectstore import Bucket, open_bucket

    sort = Bucket
    if place.versions:
        from engine.locations.versioned import Versioned

        sort = Versioned
    return open_bucket(place, credentials or {}, sort)
