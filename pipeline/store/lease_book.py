"""The rows behind leases: who holds a device, who waits for it, in what order.

One row per claim, held or waiting; whoever made it renews it, and a claim not renewed for `ttl_s`
is dead and deleted by the next who asks. Every decision is one transaction that holds the device's
row (PostgreSQL) or the whole database (SQLite), so two never hold a device. A claim's row says all
there is to know: as long as it is there, nobody else was ever given the device.

Times are only compared with times of the same clock: PostgreSQL's own, or on one computer the one
that counts since boot, so no host's idea of the time of day matters. After a reboot that clock
starts anew, which makes older claims dead: a claim is alive for `ttl_s` on either side of `seen_s`.
"""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, delete, func, insert, select, text, update

from pipeline.store import tables
from pipeline.store.errors import translate_errors
from pipeline.store.schema import prepare_leases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HEAD_START_S = 60.0
"""A claim goes before those that came this much earlier, per level of priority above theirs.

So a higher priority goes first, and yet a lower one is never passed over for ever.
"""

LEASES_VARIABLE = "EDGEWRIGHT_LEASES"
CHOSEN_BY = f"${LEASES_VARIABLE}"

_NOW = text("SELECT CAST(extract(epoch FROM clock_timestamp()) AS double precision)")


@dataclass(frozen=True, slots=True)
class Claim:
    """One who holds a device or waits for it.

    Attributes:
        token: known to the claimant alone; only with it a claim is renewed or given back.
        device: the key that all who share the device have for it.
        name: the claimant's own name for the device.
        holder: user, computer and process.
        purpose: what for, in the user's words.
        priority: higher goes first.
        number: rises in the order in which those who wait now have come.
        asked_s: when it came, on the database's clock.
        fence: rises with every holder of the device; None while it waits.
        since_s: when it was given the device; None while it waits.
    """

    token: str
    device: str
    name: str
    holder: str
    purpose: str
    priority: int
    number: int = 0
    asked_s: float = 0.0
    fence: int | None = None
    since_s: float | None = None

    @property
    def turn(self) -> tuple[bool, float, int]:
        """The sort key of the queue: who holds the device, then who is next."""
        return (self.fence is None, self.asked_s - HEAD_START_S * self.priority, self.number)


class LeaseBook:
    """Claims in one database. Every method is one transaction; all raise StoreError.

    Safe to use from several threads; several processes and computers may use one database.
    """

    def __init__(
        self, engine: Engine, place: str, *, clock: Callable[[], float], ttl_s: float
    ) -> None:
        self.place = place
        self.ttl_s = ttl_s
        self._engine = engine
        self._clock = clock
        self._sqlite = engine.dialect.name == "sqlite"
        self._prepared = False

    def close(self) -> None:
        """Let go of the database; may be called twice."""
        self._engine.dispose()

    def prepare(self) -> None:
        """Make the tables that are not there; every other method does so when it must."""
        with translate_errors(self.place, CHOSEN_BY):
            self._make_tables()

    def ask(self, device: str, *, name: str, holder: str, purpose: str, priority: int) -> Claim:
        """Join a device's queue; the claim has a fence if it is its head."""
        return self.visit(new_claim(device, name, holder, purpose, priority))

    def visit(self, claim: Claim) -> Claim:
        """Renew a claim that waits, and give it the device if it is the head of its queue.

        A claim that is not there, new or dead and gone, joins the queue. May be repeated when it
        is not known whether it was done.
        """
        with self._alone(claim.device) as (connection, now_s):
            if not self._seen(connection, claim, now_s):
                return self._joined(connection, claim, now_s)
            queue = self._living(connection, claim.device, now_s)
            return self._given(connection, queue, claim, now_s)

    def renew(self, claim: Claim) -> bool:
        """Say that the claimant lives; False if its claim is dead and gone."""
        with self._transaction() as connection:
            return self._seen(connection, claim, self._now(connection))

    def release(self, claim: Claim) -> bool:
        """Give the device or the place in its queue back; False if the claim was gone already."""
        gone = delete(tables.lease_claims).where(tables.lease_claims.c.token == claim.token)
        with self._transaction() as connection:
            return connection.execute(gone).rowcount == 1

    def queue(self, device: str | None = None) -> tuple[list[Claim], float]:
        """Return the living claims on a device or on all, holders first, and the time now.

        Writes nothing and waits for nobody.
        """
        columns = tables.lease_claims.c
        with self._connected() as connection:
            now_s = self._now(connection)
            query = select(tables.lease_claims).where(
                func.abs(now_s - columns.seen_s) <= columns.ttl_s
            )
            if device is not None:
                query = query.where(columns.device == device)
            rows = connection.execute(query).mappings().all()
        return sorted((_claim(row) for row in rows), key=lambda c: (c.device, c.turn)), now_s

    def _joined(self, connection: Connection, claim: Claim, now_s: float) -> Claim:
        queue = self._living(connection, claim.device, now_s)
        number = 1 + max((other.number for other in queue), default=0)
        claim = replace(claim, number=number, asked_s=now_s)
        values = {field: getattr(claim, field) for field in Claim.__slots__}
        new = insert(tables.lease_claims).values(**values, seen_s=now_s, ttl_s=self.ttl_s)
        connection.execute(new)
        return self._given(connection, [*queue, claim], claim, now_s)

    def _given(
        self, connection: Connection, queue: list[Claim], claim: Claim, now_s: float
    ) -> Claim:
        """Return the claim, with a new fence if it is the head of the queue and has none."""
        if claim.fence is not None or min(queue, key=lambda other: other.turn).token != claim.token:
            return claim
        devices, claims = tables.lease_devices, tables.lease_claims
        fence = connection.execute(
            update(devices)
            .where(devices.c.device == claim.device)
            .values(fence=devices.c.fence + 1)
            .returning(devices.c.fence)
        ).scalar_one()
        given = replace(claim, fence=fence, since_s=now_s)
        connection.execute(
            update(claims).where(claims.c.token == claim.token).values(fence=fence, since_s=now_s)
        )
        return given

    def _living(self, connection: Connection, device: str, now_s: float) -> list[Claim]:
        """Delete the dead claims on a device; return the others."""
        columns = tables.lease_claims.c
        mine = columns.device == device
        dead = func.abs(now_s - columns.seen_s) > columns.ttl_s
        connection.execute(delete(tables.lease_claims).where(mine, dead))
        rows = connection.execute(select(tables.lease_claims).where(mine)).mappings()
        return [_claim(row) for row in rows]

    def _seen(self, connection: Connection, claim: Claim, now_s: float) -> bool:
        claims = tables.lease_claims
        seen = update(claims).where(claims.c.token == claim.token).values(seen_s=now_s)
        return connection.execute(seen).rowcount == 1

    @contextmanager
    def _alone(self, device: str) -> Iterator[tuple[Connection, float]]:
        """Begin a transaction that nobody else decides about the device beside; with the time."""
        devices = tables.lease_devices
        make = text(
            "INSERT INTO lease_devices (device, fence) VALUES (:device, 0) "
            "ON CONFLICT (device) DO NOTHING"
        )
        # Locks the row in PostgreSQL; SQLite knows no such clause and has locked everything.
        lock = select(devices.c.fence).where(devices.c.device == device).with_for_update()
        with self._transaction() as connection:
            connection.execute(make, {"device": device})
            connection.execute(lock)
            yield connection, self._now(connection)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._connected() as connection, connection.begin():
            if self._sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        with translate_errors(self.place, CHOSEN_BY):
            self._make_tables()
            with self._engine.connect() as connection:
                yield connection

    def _make_tables(self) -> None:
        if not self._prepared:
            prepare_leases(self._engine)
            self._prepared = True

    def _now(self, connection: Connection) -> float:
        if self._sqlite:
            return self._clock()
        return float(connection.execute(_NOW).scalar_one())


def new_claim(device: str, name: str, holder: str, purpose: str, priority: int) -> Claim:
    """Return a claim of an own token, which `LeaseBook.visit` takes in."""
    return Claim(uuid.uuid4().hex, device, name, holder, purpose, priority)


def _claim(row: Any) -> Claim:
    return Claim(**{field: row[field] for field in Claim.__slots__})
