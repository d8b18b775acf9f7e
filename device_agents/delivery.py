"""How a file came to a device: whole or packed, in how many bytes and seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Parcel:
    """A file that is to be sent.

    Attributes:
        path: of the file.
        packed: holds it, and is sent in its place where the device can unpack it.
        on_delivered: hears what was sent.
    """

    path: Path
    packed: Path | None = None
    on_delivered: Callable[[Delivery], object] = lambda _: None

    @classmethod
    def of(cls, artifact: str | Path | Parcel) -> Parcel:
        """Return a parcel of a file that is sent as it is; one that is given comes back."""
        return artifact if isinstance(artifact, Parcel) else cls(Path(artifact))


@dataclass(frozen=True, slots=True)
class Delivery:
    """A file that is on a device now.

    Attributes:
        sha256: of the file.
        file_bytes: of the file.
        sent_bytes: over the link; 0: it was there already.
        sent_s: what that took, by this computer's clock.
        unpack_s: what unpacking it took on the device; None: it was not sent packed.
    """

    sha256: str
    file_bytes: int
    sent_bytes: int = 0
    sent_s: float = 0.0
    unpack_s: float | None = None

    @property
    def words(self) -> str:
        """What was sent, in words that follow the device's name."""
        if not self.sent_bytes:
            return "had the file already"
        if self.unpack_s is None:
            return f"got {self.sent_bytes} bytes in {self.sent_s:.2f} s"
        return (
            f"got {self.sent_bytes} bytes in {self.sent_s:.2f} s and unpacked "
            f"{self.file_bytes} in {self.unpack_s:.2f} s: {self.saving:.1%} less to send"
        )

    @property
    def saving(self) -> float:
        """The space-saving rate of the link, 1 - sent / file; negative where packing costs."""
        return 1.0 - self.sent_bytes / self.file_bytes
