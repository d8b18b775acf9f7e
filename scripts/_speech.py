"""Sounds like spoken words, as keyword spotters of MLPerf Tiny are fed: real words are not here.

A glottal pulse train or noise through two moving formants, in an envelope of syllables, with some
noise behind; then its first ten MFCCs in 49 frames, as the benchmark's own preprocessing makes them
(https://github.com/mlcommons/tiny/blob/master/benchmark/training/keyword_spotting/get_dataset.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.fft import dct
from scipy.signal import lfilter

if TYPE_CHECKING:
    import numpy.typing as npt

RATE = 16_000
_WINDOW, _STEP, _BINS, _KEPT = 480, 320, 40, 10
_LOW_HZ, _HIGH_HZ = 20.0, 4000.0


def draw_words(count: int, *, seed: int) -> npt.NDArray[np.float32]:
    """Return features of drawn sounds, (count, 49, 10, 1)."""
    rng = np.random.default_rng(seed)
    return np.stack([_features(_sound(rng)) for _ in range(count)])


def _sound(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return a second of sound within -1 and 1."""
    times = np.arange(RATE) / RATE
    pitch = rng.uniform(80, 250) * (1 + 0.1 * np.sin(2 * np.pi * rng.uniform(1, 4) * times))
    pulses = np.sign(np.diff(np.floor(np.cumsum(pitch) / RATE), prepend=0.0))
    voiced = rng.random() < 0.8
    source = pulses if voiced else rng.standard_normal(RATE) * 0.1
    sound = np.zeros(RATE)
    for _ in range(rng.integers(1, 4)):  # syllables, each with vowel formants of its own
        start, length = rng.uniform(0.0, 0.7), rng.uniform(0.1, 0.3)
        envelope = np.exp(-(((times - start - length / 2) / (length / 2)) ** 4))
        part = source * envelope
        for formant in (rng.uniform(250, 900), rng.uniform(900, 2800)):
            radius, angle = 0.97, 2 * np.pi * formant / RATE
            part = lfilter([1.0], [1.0, -2 * radius * np.cos(angle), radius**2], part)
        sound += part
    loudness = rng.uniform(0.1, 0.9) if rng.random() < 0.9 else 0.0
    sound *= loudness / max(np.abs(sound).max(), 1e-9)
    # From a noisy street to digital silence, which recordings begin with.
    return np.clip(sound + rng.standard_normal(RATE) * 10 ** rng.uniform(-9, -2), -1, 1)


def _features(sound: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    frames = np.lib.stride_tricks.sliding_window_view(sound, _WINDOW)[::_STEP]
    spectrum = np.abs(np.fft.rfft(frames * np.hanning(_WINDOW + 1)[:-1], 512))
    mels = np.log(spectrum @ _mel_weights(spectrum.shape[1]) + 1e-6)
    kept = np.asarray(dct(mels, type=2, axis=1), np.float32)[:, :_KEPT, None]
    return kept / np.float32(np.sqrt(2 * _BINS))


def _mel_weights(bins: int) -> npt.NDArray[np.float64]:
    """Return the triangles of the mel scale, (bins, 40)."""

    def mel(hertz: npt.NDArray[np.float64] | float) -> npt.NDArray[np.float64]:
        return np.asarray(1127.0 * np.log1p(np.asarray(hertz) / 700.0))

    edges = np.linspace(mel(_LOW_HZ), mel(_HIGH_HZ), _BINS + 2)
    places = mel(np.linspace(0.0, RATE / 2, bins))[:, None]
    rising = (places - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - places) / (edges[2:] - edges[1:-1])
    weights: npt.NDArray[np.float64] = np.maximum(0.0, np.minimum(rising, falling))
    weights[0] = 0.0
    return weights
