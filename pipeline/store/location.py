"""Where a store lies: a folder, or a database by its URL, whose password is shown nowhere.

A URL that cannot be read is not quoted either: which part of it is the password is then unknown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from device_agents.errors import StoreError

# What stands for a part must not hold the signs that end it: `p@ss` would become half a host.
_URL = re.compile(
    r"[A-Za-z][\w+.-]*://"
    r"(?:[^:@/?#\s]*(?::[^:@/?#\s]*)?@)?"
    r"(?:\[[^\]@/?#\s]*\]|[^:@/?#\s]*)(?::\d{1,5})?"
    r"(?:/[^@?#\s]*)?(?:\?[^#\s]*)?"
)
_SQLITE = re.compile(r"sqlite(?:\+\w+)?:///[^?#]*")
# A mistyped URL, or libpq's other form; else it would become the name of a folder, and be shown.
_MEANT_AS_URL = re.compile(
    r"[A-Za-z][\w+.-]*:/|postgres(?:ql)?\b.*:|(?://)?[^/]*:[^/]*@|.*\bpassword\s*="
)
_SECRETS = ("password", "secret")
_HIDDEN = "***"


@dataclass(frozen=True, slots=True)
class DatabaseURL:
    """A database's URL; `shown` is how sentences name it."""

    url: URL
    shown: str


def database_url(location: str) -> DatabaseURL | None:
    """Return the URL that a location is, None for a folder.

    Raises:
        StoreError: it is meant as a URL and cannot be read as one.
    """
    if not _MEANT_AS_URL.match(location):
        return None
    if not (_URL.fullmatch(location) or _SQLITE.fullmatch(location)):
        raise _unreadable()
    try:
        url = make_url(location)
    except (ArgumentError, ValueError):
        raise _unreadable() from None
    hidden = {key: _HIDDEN for key in url.query if any(word in key.lower() for word in _SECRETS)}
    shown = url.update_query_dict(hidden).render_as_string(hide_password=True)
    return DatabaseURL(url, shown)


def _unreadable() -> StoreError:
    return StoreError(
        "the database URL that was given cannot be read, and is not shown here because it may hold "
        "a password; write postgresql://USER:PASSWORD@HOST:PORT/NAME, and in user and password "
        "%3A for a colon, %40 for @, %2F for /, %3F for ?, %23 for # and %20 for a blank"
    )
