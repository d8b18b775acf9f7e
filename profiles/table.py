"""A device's latency table: what every op of a search space costs there, each with its error.

A table holds for what it was measured with and nothing else: device, runtime and its version,
threads, CPUs, settings and number format. `LatencyTable.check` refuses any other in one sentence;
a key that is missing is an error that names it. Published tools priced a missing key at 200 ms and
went on, and priced every resolution as 224: keys here hold the full shapes (`models.graph.Op.key`).

The latency of a network is `overhead` once, plus the entry of each of its ops. How entries are
made so that this sum is right: `pipeline.search.lut.table`.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from device_agents import bounded
from device_agents.errors import ConfigError
from device_agents.files import replace_file
from profiles.registry import devices_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from device_agents.api import Measurement

FORMAT = 1
FOLDER = "tables"
"""Of the user's own tables, beside the profiles of devices."""

_SHOWN_KEYS = 5
_TEXTS = ("device", "device_digest", "runtime", "runtime_version", "scheme", "when")


class MissingKeysError(ConfigError):
    """Ops that the table does not have; `keys` are theirs, the sentence says what measures them."""

    def __init__(self, message: str, keys: tuple[str, ...]) -> None:
        super().__init__(message)
        self.keys = keys


class TableMismatchError(ConfigError):
    """A table of another device, runtime, version, number of threads or number format."""


@dataclass(frozen=True, slots=True)
class TableEntry:
    """What one op costs inside a network.

    Attributes:
        latency_ms: as the sum needs it: corrected by networks that were measured whole.
        stderr_ms: its standard error.
        samples: processes that timed it; each gives a median.
        alone_ms: as timed in a model of its own, the invoke's overhead taken off; None where it
            was not.
    """

    latency_ms: float
    stderr_ms: float
    samples: int
    alone_ms: float | None = None

    def times(self, factor: float) -> TableEntry:
        """Return the entry of a device that takes `factor` as long."""
        alone_ms = None if self.alone_ms is None else factor * self.alone_ms
        return TableEntry(factor * self.latency_ms, factor * self.stderr_ms, self.samples, alone_ms)


@dataclass(frozen=True, slots=True)
class Additivity:
    """How far sums are from networks that were measured whole and not used to make the table.

    Attributes:
        networks: how many.
        mape: mean of |sum / measured - 1|.
        within_10: share of them within 10 %.
        spearman: rank correlation of sums and measured latencies.
        bias: mean of sum / measured - 1.
    """

    networks: int
    mape: float
    within_10: float
    spearman: float
    bias: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyTable:
    """Latencies by op key, and all that they depend on.

    Attributes:
        device: the user's name of it.
        device_digest: hash of its facts, tells it from another of the same name.
        scheme: static8 | float32.
        when: UTC, ISO 8601.
        overhead: of one inference, whatever the network.
        entries: by `models.graph.Op.key`.
        relative_error: what a sum is off by, one standard deviation as a share of it.
        additivity: None until it is checked.
        space: its name, options, input and classes, as `pipeline.search.lut.table` reads them.
        networks: those that it was corrected by, in the one-line form.
        reference: name, sha256 and latency_ms of the model that everything was timed beside.
        edgewright: the version that made the table.
    """

    device: str
    device_digest: str
    runtime: str
    runtime_version: str
    threads: int
    scheme: str
    when: str
    overhead: TableEntry
    entries: Mapping[str, TableEntry]
    relative_error: float = 0.0
    additivity: Additivity | None = None
    cpus: tuple[int, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    space: Mapping[str, Any] = field(default_factory=dict)
    networks: tuple[str, ...] = ()
    reference: Mapping[str, Any] = field(default_factory=dict)
    edgewright: str = ""

    def latency_ms(self, keys: Iterable[str]) -> tuple[float, float]:
        """Return (latency, its standard error) of a network from the keys of its ops.

        A key counts as often as it is given. Errors of entries are taken as independent of each
        other, that of one entry as the same wherever its op stands; `relative_error` is on top.

        Raises:
            MissingKeysError: the table lacks some of the keys; it names them.
        """
        counts = Counter(keys)
        missing = tuple(key for key in counts if key not in self.entries)
        if missing:
            raise MissingKeysError(self._missing(missing), missing)
        value = self.overhead.latency_ms
        variance = self.overhead.stderr_ms**2
        for key, count in counts.items():
            entry = self.entries[key]
            value += count * entry.latency_ms
            variance += (count * entry.stderr_ms) ** 2
        return value, math.sqrt(variance + (self.relative_error * value) ** 2)

    def check(self, measured: Measurement, scheme: str) -> None:
        """Refuse a table that was made with anything else than a measurement was.

        Args:
            measured: any measurement on the device, with the runtime, threads and CPUs in use.
            scheme: the number format in use.

        Raises:
            TableMismatchError: names the first thing that differs, and both values.
        """
        pairs = (
            ("device", self.device_digest, measured.device_digest),
            ("runtime", self.runtime, measured.runtime),
            (f"{self.runtime} version", self.runtime_version, measured.runtime_version),
            ("number of threads", self.threads, measured.threads),
            ("CPUs", self.cpus, measured.cpus),
            ("settings", dict(self.settings), dict(measured.settings)),
            ("number format", self.scheme, scheme),
        )
        for what, ours, in_use in pairs:
            if ours != in_use:
                raise TableMismatchError(
                    f"this latency table is for another {what}: made with {ours or 'none'} on "
                    f"{self.device} ({self.when}), in use is {in_use or 'none'} on "
                    f"{measured.device}; build one for it with `edgewright lut build`"
                )

    def rescale(self, sha256: str, latency_ms: float) -> Self:
        """Return the table for a session in which its reference model takes `latency_ms`.

        A device is not as fast every day, with all its ops alike. Beside another reference model
        than the table's, told by the hash of its file, nothing is known of that: no change.
        """
        if self.reference.get("sha256") != sha256:
            return self
        factor = latency_ms / self.reference["latency_ms"]
        return replace(
            self,
            overhead=self.overhead.times(factor),
            entries={key: entry.times(factor) for key, entry in self.entries.items()},
            reference={**self.reference, "latency_ms": latency_ms},
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"edgewright_latency_table": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote. Raises ConfigError naming what is not as it should be."""
        values = dict(data)
        found = values.pop("edgewright_latency_table", None)
        if found != FORMAT:
            raise ConfigError(
                f"not a latency table of format {FORMAT} (edgewright_latency_table = {found!r}); "
                "build one with `edgewright lut build`"
            )
        try:
            values["overhead"] = _entry("overhead", values["overhead"])
            values["entries"] = {k: _entry(k, v) for k, v in values["entries"].items()}
            values["cpus"] = tuple(values["cpus"])
            values["networks"] = tuple(values["networks"])
            for name in ("settings", "space", "reference"):
                values[name] = dict(values[name])
            if values["additivity"] is not None:
                values["additivity"] = Additivity(**values["additivity"])
            _check("relative_error", values["relative_error"])
            if values["reference"]:
                _check("reference latency_ms", values["reference"]["latency_ms"], positive=True)
            for name in _TEXTS:
                _check_type(name, values[name], str, "text")
            _check_type("threads", values["threads"], int, "a whole number")
            return cls(**values)
        except KeyError as error:
            raise ConfigError(f"the latency table has no {error}; build it again") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"the latency table is damaged ({error}); build it again") from error

    def save(self, path: Path) -> None:
        """Write the table whole or not at all, making folders. Raises ConfigError."""
        try:
            replace_file(path, (json.dumps(self.to_json(), indent=1) + "\n").encode())
        except OSError as error:
            raise ConfigError(
                f"latency table {path} cannot be written: {error.strerror or error}; "
                "choose another place with --out"
            ) from error

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a table's file. Raises ConfigError that names the file."""
        try:
            data = bounded.json_value(bounded.read_text(path, limit_bytes=bounded.JSON_BYTES))
        except bounded.Unreadable as error:
            raise ConfigError(
                f"latency table {path} cannot be read: {error.reason}; "
                "`edgewright lut build` makes one"
            ) from error
        except bounded.Undecodable as error:
            raise ConfigError(f"{path} is no latency table: it is not JSON ({error})") from error
        if not isinstance(data, dict):
            raise ConfigError(f"{path} is no latency table: it holds no JSON object")
        try:
            return cls.from_json(data)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error

    def _missing(self, keys: tuple[str, ...]) -> str:
        shown = ", ".join(keys[:_SHOWN_KEYS])
        more = f" and {len(keys) - _SHOWN_KEYS} more" if len(keys) > _SHOWN_KEYS else ""
        space = self.space.get("name", "SPACE")
        return (
            f"the latency table of {self.device} has no entry for {shown}{more}; it was built for "
            f"space {space}; `edgewright lut build --device {self.device} --space {space}` with "
            "the options, input and classes in use measures them"
        )


def default_path(device: str, space: str, scheme: str, config: Path | None = None) -> Path:
    """Return where a table of the user's own is kept unless told otherwise."""
    return devices_folder(config).parent / FOLDER / f"{device}-{space}-{scheme}.json"


def _entry(key: str, data: Any) -> TableEntry:
    entry = TableEntry(**data)
    _check(f"entry {key}, latency_ms", entry.latency_ms)
    _check(f"entry {key}, stderr_ms", entry.stderr_ms)
    if entry.alone_ms is not None:
        _check(f"entry {key}, alone_ms", entry.alone_ms)
    return entry


def _check_type(what: str, value: Any, kind: type, words: str) -> None:
    """Refuse a value of another type. Raises ConfigError."""
    if type(value) is not kind:
        raise ConfigError(f"the latency table's {what} is {value!r}, not {words}; build it again")


def _check(what: str, value: Any, *, positive: bool = False) -> None:
    """Refuse what is no finite number of 0 or more, or above 0. Raises ConfigError."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and (value > 0 if positive else value >= 0)):
        least = "above 0" if positive else "of 0 or more"
        raise ConfigError(
            f"the latency table's {what} is {value!r}, not a number {least}; build it again"
        )
