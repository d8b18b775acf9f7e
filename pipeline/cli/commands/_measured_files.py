"""A device on which `edgewright compress` times networks, and the store that remembers them."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pipeline.cli.options import echo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from models.model import Model
    from pipeline.compress.on_device import TimedFiles
    from pipeline.formats.api import Format
    from profiles.schema import DeviceProfile


@dataclass(frozen=True, slots=True)
class Where:
    """Where networks are timed, and what is kept of it.

    Attributes:
        profile: of the device.
        protocol: `thorough` or `quick`, of networks that may be handed over.
        store: where measurements are remembered.
        fresh: measure anew what was measured before.
    """

    profile: DeviceProfile
    protocol: str
    store: str | None
    fresh: bool


@dataclass(frozen=True, slots=True)
class _Order:
    """What is measured in a run: networks that come of one model, in one format."""

    model: str
    format: str

    @property
    def name(self) -> str:
        """What its runs are called."""
        return "compress"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, to be kept with the run."""
        return {"name": self.name, "compressed": asdict(self)}

    def digest(self) -> str:
        """Return a 16-digit hash of all that."""
        return hashlib.sha256(f"prune {self.model} {self.format}".encode()).hexdigest()[:16]


@dataclass(slots=True)
class _Sayings:
    """Events of which only sentences are heard."""

    heard: list[str] = field(default_factory=list)

    def say(self, sentence: str) -> None:
        """Print a sentence on stderr."""
        self.heard.append(sentence)
        echo(sentence, err=True)

    def candidate(self, row: object) -> None:
        """Hear nothing: there is no search."""

    def task(self, title: str, total: int) -> Any:  # noqa: ARG002  # there is no bar
        """Hear nothing: there is a line already that says how far it is."""
        return nullcontext()


@contextmanager
def open_files(
    where: Where, model: Model, format_: Format, tell: Callable[[str], None]
) -> Iterator[TimedFiles]:
    """Open the device and take up the last run of a model on it; give what times networks.

    Raises:
        DeviceError: the device cannot be reached.
        StoreError: the store cannot be opened.
    """
    from pipeline.compress.on_device import TimedFiles
    from pipeline.measure.bench import choose_protocol
    from pipeline.run.opening import open_run
    from pipeline.store import Store
    from pipeline.store.leases import open_leases

    profile = replace(where.profile, runtime=format_.name)
    tell(f"opening {profile.name}")
    with (
        Store.open(where.store) as store,
        open_leases(where.store, purpose="compress") as leases,
        open_run(
            _Order(model.digest(), format_.name),
            [profile],
            store=store,
            leases=leases,
            events=_Sayings(),
            fresh=where.fresh,
        ) as held,
    ):
        yield TimedFiles(held.bench, format_, choose_protocol(where.protocol), held.folder)
