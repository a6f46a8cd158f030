"""Sounds that are silent, short or long, and videos with sound: right, or refused by name."""

import wave
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deepfake_nb.core.errors import SoundError
from deepfake_nb.forensics.audio import load_sound, sound_statistics, sound_windows
from deepfake_nb.forensics.audio_classifiers import sound_scores, window_cepstra


def write_wave(path: Path, samples: np.ndarray, rate: int = 16000) -> Path:
    """Write one channel of samples in −1 to 1."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


def noise(n: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, n)


def test_a_silent_sound_is_all_silence():
    for level in (0, 5e-5):
        found = sound_statistics(level * noise(16000))
        of_silence = ("leading_silence", "trailing_silence", "pause_share", "pauses_per_second")
        assert [found[name] for name in of_silence] == [1, 1, 1, 0]
    found = sound_statistics(1e-3 * noise(16000))
    assert found["leading_silence"] == found["pause_share"] == 0


@pytest.mark.parametrize("rate", [8000, 16000, 96000])
def test_a_sound_of_a_millisecond_is_refused_with_its_length(rate, tmp_path):
    path = write_wave(tmp_path / "click.wav", noise(rate // 1000), rate)
    for read in (load_sound, lambda path: list(sound_windows(path))):
        with pytest.raises(SoundError, match=r"lasts 1 ms; .*expected at least 32 ms") as caught:
            read(path)
        assert str(path) in str(caught.value)
    assert load_sound(write_wave(path, noise(rate // 25), rate)).seconds == pytest.approx(0.04)


def test_a_sound_shorter_than_a_window_is_refused_or_scored_as_unknown(tmp_path):
    short = write_wave(tmp_path / "short.wav", noise(8000))
    with pytest.raises(SoundError, match=r"short.wav: its sound lasts 0.5 s, less than a window"):
        list(sound_windows(short, seconds=1))
    assert len(list(sound_windows(short, seconds=0.5))) == 1
    long = write_wave(tmp_path / "long.wav", noise(16000))
    table = pd.DataFrame({"path": [str(short), str(long)]})
    windows, rows = window_cepstra(table, seconds=1)
    assert (len(windows), rows.tolist()) == (1, [1])
    assert np.isnan(sound_scores(np.ones(1), rows, 2)).tolist() == [True, False]
    with pytest.raises(SoundError, match="1 sounds, none as long as a window of 1 s"):
        window_cepstra(table[:1], seconds=1)
