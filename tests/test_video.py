"""Videos, archives and images that are damaged, hostile or unusual."""

import random
import struct
import zipfile
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from deepfake_nb.core.errors import VideoError
from deepfake_nb.core.files import read_member
from deepfake_nb.data.datasets import load_samples
from deepfake_nb.data.samples import make_samples
from deepfake_nb.faces import video
from deepfake_nb.faces.dataset import extract_faces
from deepfake_nb.faces.detection import build_face_detector
from deepfake_nb.faces.extraction import Extraction, extract_video
from deepfake_nb.faces.video import probe, read_frames
from deepfake_nb.synthetic.datasets import write_video


def extract_whole(path: Path, **settings):
    """Extract whole frames; return the rows and the crops."""
    whole = Extraction(face_detector="frame", **settings)
    return extract_video(path, whole, build_face_detector("frame"))


def save_rotated(path: Path, pixels: np.ndarray, **tags) -> None:
    """Write an image whose EXIF data say to rotate it clockwise."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for tag, value in tags.items():
        exif[int(tag, 16)] = value
    Image.fromarray(pixels).save(path, exif=exif)


def test_archives_are_not_trusted(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.mp4", bytes(10_000_000))
        archive.writestr("../../escape.mp4", b"video")
    with pytest.raises(VideoError, match="more than the limit"):
        read_member(tmp_path / "x.zip!/bomb.mp4", limit=1_000_000)
    with pytest.raises(VideoError, match="cannot be opened"):
        list(read_frames(tmp_path / "x.zip!/../../escape.mp4"))
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]
    assert not (tmp_path.parent / "escape.mp4").exists()
    content = bytearray((tmp_path / "x.zip").read_bytes())
    content[60:70] = bytes(10)
    (tmp_path / "damaged.zip").write_bytes(content)
    with pytest.raises(VideoError):
        probe(tmp_path / "damaged.zip!/bomb.mp4")


@pytest.mark.parametrize("form", ["jpg", "png", "webp"])
def test_images_are_rotated_as_shown(form, tmp_path):
    stored = np.zeros((40, 80, 3), np.uint8)
    stored[:, :20] = 255  # at the left as stored, at the top as shown
    save_rotated(tmp_path / f"phone.{form}", stored)
    (row,), (crop,) = extract_whole(tmp_path / f"phone.{form}", size=0)
    assert (row["frame_height"], row["frame_width"]) == (80, 40)
    assert (row["right"], row["bottom"]) == (40, 80)
    assert crop.shape == (80, 40, 3)
    assert crop[:18].min() > 200 and crop[22:].max() < 50


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_exif_leaves_an_image_readable(tmp_path):
    rng = random.Random(0)
    whole = tmp_path / "whole.jpg"
    tags = {"0x010F": "a maker", "0x011A": 72.0}
    save_rotated(whole, np.zeros((40, 80, 3), np.uint8), **tags)
    content = whole.read_bytes()
    start = content.index(b"Exif") + 6
    size = len(Image.open(whole).info["exif"]) - 6
    for _ in range(100):
        damaged = bytearray(content)
        for _ in range(8):
            damaged[start + rng.randrange(size)] = rng.randrange(256)
        (tmp_path / "damaged.jpg").write_bytes(damaged)
        (row,), _ = extract_whole(tmp_path / "damaged.jpg", size=0)
        assert {row["frame_height"], row["frame_width"]} == {40, 80}


def png_chunk(name: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum


def test_too_large_and_truncated_images_fail_alone(tmp_path):
    bomb = b"\x89PNG\r\n\x1a\n"
    bomb += png_chunk(b"IHDR", struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0))
    bomb += png_chunk(b"IDAT", zlib.compress(b"")) + png_chunk(b"IEND", b"")
    good = tmp_path / "good.png"
    Image.fromarray(np.zeros((40, 80, 3), np.uint8)).save(good)
    whole = good.read_bytes()
    contents = {f"cut_{n}.png": whole[:n] for n in (8, 20, 30, len(whole) // 2)}
    contents["bomb.png"] = bomb
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    message = "bomb.png: cannot be decoded .Image size .400000000 pixels. exceeds"
    with pytest.raises(VideoError, match=message):
        extract_whole(tmp_path / "bomb.png")
    images = make_samples(
        [
            {"path": str(tmp_path / name), "kind": "image", "label": 0, "dataset": "test"}
            for name in ("good.png", *contents)
        ]
    )
    for reuse in (True, False):
        settings = Extraction(face_detector="frame", size=16, reuse=reuse)
        result = extract_faces(
            images, tmp_path / f"out {reuse}", settings, workers=0, progress=False
        )
        assert result.index["source_path"].tolist() == [str(good)]
        assert len(result.broken) == 5
        assert result.broken["reason"].str.contains("cannot be decoded .").all()


@pytest.mark.parametrize(
    "error",
    [
        EOFError(),
        struct.error("unpack requires a buffer of 4 bytes"),
        OverflowError("too large"),
        ZeroDivisionError("by zero"),
        MemoryError(),
    ],
)
def test_errors_of_image_readers_name_the_file(error, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(Image, "open", fail)
    (tmp_path / "x.png").write_bytes(b"content")
    reason = str(error) or type(error).__name__
    with pytest.raises(VideoError, match=f"x.png: cannot be decoded .{reason}"):
        extract_whole(tmp_path / "x.png")


def test_errors_of_video_readers_name_the_file(monkeypatch):
    path = load_samples("synthetic-faceforensics", identities=4, frames=20)["path"][0]
    info = probe(path)
    with monkeypatch.context() as patch:
        patch.setattr(video, "MOST_FRAMES", 5)
        message = "more than 5 frames, the limit"
        with pytest.raises(VideoError, match=message):
            probe(path)
    for error in (OverflowError("too large"), MemoryError()):

        def fail(*_, error=error, **__):
            raise error

        reason = str(error) or "MemoryError"
        with monkeypatch.context() as patch:
            patch.setattr(av, "open", fail)
            with pytest.raises(VideoError, match=f"mp4: cannot be opened as a video: {reason}"):
                probe(path)
        form = type("Format", (), {"components": ()})
        members = {"to_ndarray": fail, "width": 9, "height": 9, "format": form}
        frame, said = type("Frame", (), members)(), f"its colours cannot be converted: {reason}"
        assert video._to_rgb(frame, info) == (None, said, ())


@pytest.mark.slow
def test_memory_does_not_grow_with_the_video(tmp_path):
    import tracemalloc

    rng = np.random.default_rng(0)
    still = rng.integers(0, 255, (360, 640, 3), dtype=np.uint8)

    def peak(frames: int) -> float:
        """Return the peak memory, in MB, for all frames of a video."""
        path = tmp_path / f"{frames}.mp4"
        write_video(path, [np.roll(still, i, 1) for i in range(frames)], crf=40)
        tracemalloc.start()
        rows, crops = extract_whole(path, sampling="all", n=None, size=16)
        most = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
        assert len(rows) == len(crops) == frames
        return most

    few, many = peak(16), peak(240)  # 240 frames are 166 MB
    assert many < few + 10, (few, many)
