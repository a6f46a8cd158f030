"""Sounds that are silent, short or long, and videos with sound: right, or refused by name."""

import io
import subprocess
import sys
import wave
from fractions import Fraction
from pathlib import Path

import av
import keras
import numpy as np
import pandas as pd
import pytest

from deepfake_nb.core.errors import DatasetNotFoundError, ParameterError, SoundError
from deepfake_nb.data.datasets import load_samples
from deepfake_nb.data.samples import make_samples
from deepfake_nb.forensics.audio import load_sound, sound_statistics, sound_windows, synchrony
from deepfake_nb.forensics.audio_classifiers import sound_scores, window_cepstra
from deepfake_nb.forensics.motion import mouth_opening
from deepfake_nb.models.classifiers import compile_model
from deepfake_nb.models.sounds import build_sound_network
from deepfake_nb.studies.watched import motion_table, watch_faces
from deepfake_nb.synthetic.datasets import generate, read_video, write_video
from deepfake_nb.synthetic.layouts import CODECS
from deepfake_nb.synthetic.people import make_identity, trajectory
from deepfake_nb.synthetic.rendering import render_frame
from deepfake_nb.synthetic.scenes import backdrop
from deepfake_nb.synthetic.speech import speak


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


@pytest.mark.backend
@pytest.mark.slow
def test_the_network_on_bands_learns_a_band_and_cannot_hear_loudness(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(0, 6, (160, 32, 41)).astype("float32")
    y = np.tile([0, 1], 80).astype("float32")[:, None]
    x[1::2, 12:15] += 10
    x += rng.normal(0, 20, (160, 1, 1)).astype("float32")  # loudness
    network = compile_model(build_sound_network(32, 41, filters=(8, 16), seed=0), 5e-3)
    network.fit(x[:120], y[:120], epochs=12, batch_size=24, verbose=0)
    scores = keras.ops.convert_to_numpy(network(x))[:, 0]
    right = (scores[120:] > 0.5) == y[120:, 0]
    assert right.mean() > 0.9
    assert np.allclose(keras.ops.convert_to_numpy(network(x + 30))[:, 0], scores, atol=1e-3)
    network.save(tmp_path / "network.keras")
    again = keras.ops.convert_to_numpy(keras.saving.load_model(tmp_path / "network.keras")(x))
    assert np.allclose(again[:, 0], scores, atol=1e-6)


def write_film(path: Path, frames: list, times=None, samples: np.ndarray | None = None) -> Path:
    """Write frames at times in milliseconds, 40 apart unless given, and sound beside them."""
    with av.open(str(path), "w") as container:
        film = container.add_stream("libx264", rate=25, options={"crf": "18"})
        film.height, film.width = frames[0].shape[:2]
        film.pix_fmt = "yuv420p"
        film.codec_context.time_base = film.time_base = Fraction(1, 1000)
        sound = None if samples is None else container.add_stream("aac", rate=16000, layout="mono")
        for pixels, time in zip(frames, times or range(0, 40 * len(frames), 40)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = time
            container.mux(film.encode(frame))
        container.mux(film.encode(None))
        if sound is not None:
            pcm = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
            pcm.rate = 16000
            container.mux([*sound.encode(pcm), *sound.encode(None)])
    return path


def test_sound_longer_than_the_picture_is_compared_over_the_common_part(tmp_path):
    samples, opening = speak(1, 0, seconds=4)
    path = write_film(tmp_path / "x.mp4", [np.zeros((64, 64, 3), np.uint8)] * 50, samples=samples)
    sound = load_sound(path)
    assert sound.seconds == pytest.approx(4, abs=0.1)
    shown = opening[:32000:640]
    assert synchrony(shown, sound.samples) == synchrony(shown, sound.samples[:32000]) > 0.5
    assert synchrony(opening[::640], sound.samples[:32000]) == pytest.approx(
        synchrony(shown, sound.samples), abs=1e-9
    )


@pytest.fixture(scope="module")
def people():
    """Fifty frames of a person, and of the room without one."""
    person, states = make_identity(4, skin_tone=3), trajectory(3, 50)
    frames = [render_frame(person, state).image for state in states]
    room = (255 * np.sqrt(np.clip(backdrop(person, states[0], 256), 0, 1))).astype(np.uint8)
    room[90:] = room[:1]
    return frames, [room] * 50


def watched(path: Path):
    row = {"path": str(path), "kind": "video", "label": 0, "dataset": "made", "original": "x"}
    return watch_faces(make_samples([row]), 50, face_detector="mtcnn")


@pytest.mark.slow
@pytest.mark.parametrize("present", ["first half", "second half"])
def test_a_video_with_no_face_in_half_of_its_frames_is_not_watched(
    present, people, tmp_path, monkeypatch
):
    monkeypatch.setenv("DEEPFAKE_NB_CACHE", str(tmp_path))
    here = (np.arange(50) < 25) == (present == "first half")
    path = write_film(tmp_path / "x.mp4", [people[not k][i] for i, k in enumerate(here)])
    with pytest.warns(UserWarning, match=r"1 of 1 videos left out: .*x.mp4 \(no face found\)"):
        assert len(watched(path).videos) == 0


@pytest.mark.slow
def test_motion_and_pulse_are_not_measured_at_uneven_times(people, tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPFAKE_NB_CACHE", str(tmp_path))
    even = watched(write_film(tmp_path / "even.mp4", people[0]))
    assert "pulse, rate" in motion_table(even) and even.videos["fps"].item() == pytest.approx(25)
    times = [*range(0, 1000, 40), *range(1000, 3000, 80)]
    with pytest.warns(UserWarning, match=r"x.mp4 \(frames 40 to 80 ms apart\)"):
        assert len(watched(write_film(tmp_path / "x.mp4", people[0], times)).videos) == 0


HOUR = """
import re, sys
from pathlib import Path
import pandas as pd
from deepfake_nb.forensics.audio import lfcc, log_mel, sound_windows
from deepfake_nb.forensics.audio_classifiers import window_cepstra

def peak(path):
    n = sum(lfcc(w).shape[1] + log_mel(w).shape[1] for _, w in sound_windows(path))
    window_cepstra(pd.DataFrame({"path": [path]}))
    return n, int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

_, before = peak(sys.argv[1])
n, after = peak(sys.argv[2])
print(n, before, after)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_an_hour_of_sound_takes_no_more_memory_than_a_minute(tmp_path):
    """Its samples alone would take 230 MB."""
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(60 * 16000) / 16000)
    minute = (tone + 0.2 * noise(len(tone))).astype("float32")
    paths = [write_wave(tmp_path / f"{k}.wav", np.tile(minute, k)) for k in (1, 60)]
    words = [sys.executable, "-c", HOUR, *map(str, paths)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    n, before, after = map(float, done.stdout.split())
    assert n == 1800 * 2 * 201
    assert after < before + 20 and after < 300, (before, after)


SMALL = {"identities": 2, "videos": 1, "frames": 6, "fps": 12, "manipulations": ["mouth"]}


def test_videos_have_sound_only_if_asked_for(tmp_path):
    """The names of folders are hashes of the options: they and the bytes stay what they were."""
    silent, again = io.BytesIO(), io.BytesIO()
    frames = [np.full((64, 64, 3), 90, np.uint8)] * 50
    write_video(silent, frames)
    write_video(again, frames, sound=None)
    assert silent.getvalue() == again.getvalue()
    with pytest.raises(DatasetNotFoundError, match="dfdc-17bb966c152f"):
        generate("dfdc", tmp_path, sound=False, render=False, **SMALL)
    for layout, options, words in (
        ("faces", {}, "sound=True: expected False in layout 'faces'"),
        ("dfdc", {"fps": 25}, "frames=6: expected at least half a second"),
        ("dfdc", {"sound": "yes"}, "sound='yes': expected True or False"),
    ):
        with pytest.raises(ParameterError, match=words):
            generate(layout, tmp_path, render=False, **{**SMALL, "sound": True, **options})
    heard, _ = speak(1, 0, 2)
    for codec in CODECS:
        path = tmp_path / f"{codec}.mp4"
        write_video(path, frames, codec=codec, sound=heard)
        sound, n = load_sound(path), len(heard)
        assert (len(read_video(path)), sound.remarks) == (50, ())
        assert sound.seconds == pytest.approx(2, abs=0.1)
        assert np.corrcoef(sound.samples[:n], heard[: len(sound.samples)])[0, 1] > 0.95


@pytest.mark.slow
def test_lips_in_a_video_follow_its_own_sound(tmp_path, monkeypatch):
    """The mouth is measured in the pixels of the file, and the sound is decoded from it."""
    monkeypatch.setenv("DEEPFAKE_NB_CACHE", str(tmp_path))
    options = {"identities": 6, "videos": 1, "frames": 75, "fps": 25, "manipulations": ["mouth"]}
    samples = load_samples("synthetic-dfdc", sound=True, seed=90, progress=False, **options)
    videos = watch_faces(samples, 75, face_detector="mtcnn")
    opening = [mouth_opening(crops) for crops in videos.crops]
    sounds = [load_sound(path).samples for path in videos.videos["path"]]
    real, fake = (np.flatnonzero(videos.label == label) for label in (0, 1))
    assert len(real) == len(fake) == 6
    whole = np.array([synchrony(opening[i], sounds[i]) for i in real])
    broken = [synchrony(opening[i], sounds[j]) for i, j in zip(real, np.roll(real, 1))]
    mouths = [synchrony(opening[i], sounds[i]) for i in fake]
    assert (whole > broken).all() and np.mean(whole) > np.mean(broken) + 0.3, (whole, broken)
    assert np.mean(whole) > np.mean(mouths), (whole, mouths)
    for path in samples["mask_path"].dropna():
        with pytest.raises(SoundError, match="holds no sound"):
            load_sound(path)
