"""The world's ordinary variety of images and videos: shown right, or refused by name.

Every file is made here. Videos carry the number of each frame as bars, so that none is mistaken.
"""

import logging
import random
import struct
import subprocess
import sys
import zipfile
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageCms

from deepfake_nb.core.errors import DeepfakeNbError, ImageError, ParameterError, VideoError
from deepfake_nb.core.files import blame_file
from deepfake_nb.core.images import FORMATS, decode_image, is_image, read_image
from deepfake_nb.data.samples import make_samples
from deepfake_nb.data.verification import check_file
from deepfake_nb.detectors.prediction import score_file
from deepfake_nb.detectors.preprocessing import Preprocessing
from deepfake_nb.detectors.results import results_table
from deepfake_nb.faces import extraction
from deepfake_nb.faces.dataset import extract_faces
from deepfake_nb.faces.detection import build_face_detector
from deepfake_nb.faces.extraction import Extraction, extract_video, wanted_frames
from deepfake_nb.faces.video import first_frame, probe, read_frames
from deepfake_nb.studies.duplicates import small_image
from deepfake_nb.studies.leaks import video_features

WHITE = "transparent pixels composited on white"


class Model:
    """Scores an image by its mean."""

    preprocessing = Preprocessing(size=(32, 32), face_detector="frame")
    threshold, band = 0.5, (0.5, 0.5)
    sha256 = warning = ""

    def look(self, images, _):
        return images.mean((1, 2, 3)) / 255, None, None

    def calibration(self, score):
        return score

    def side(self, probability):
        return np.full(np.shape(probability), "above")


def shown(path: Path) -> tuple[np.ndarray, str]:
    """What training, extraction and prediction see of an image, and the remark."""
    pixels, remarks = decode_image(path)
    assert np.array_equal(read_image(path), pixels)
    frame = next(wanted_frames(path, Extraction()))
    assert np.array_equal(frame.image, pixels) and frame.remarks == remarks
    result = score_file(path, Model())
    assert (result.state, result.kind) == ("scored", "image")
    assert results_table([result])["remark"].item() == "; ".join(remarks)
    return pixels, "; ".join(remarks)


def refused(path: Path) -> str:
    """Why training, extraction and prediction refuse an image, all in the same words."""
    with pytest.raises(ImageError) as caught:
        read_image(path)
    with pytest.raises(VideoError) as again:
        next(wanted_frames(path, Extraction()))
    assert str(caught.value) == str(again.value)
    result = score_file(path, Model())
    assert (result.state, f"{path}: {result.reason}") == ("unreadable", str(caught.value))
    return result.reason


def write_png(path: Path, bits: int, colours: int, rows: np.ndarray, **chunks: bytes) -> Path:
    """Write a PNG of any depth: rows of samples, each (height, samples)."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    width = rows.shape[1] // {0: 1, 2: 3, 4: 2, 6: 4}[colours]
    packed = rows.astype(">u2" if bits == 16 else "u1")
    content = b"\x89PNG\r\n\x1a\n"
    content += chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), bits, colours, 0, 0, 0))
    for name, value in chunks.items():
        content += chunk(name.encode(), value)
    content += chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in packed)))
    path.write_bytes(content + chunk(b"IEND", b""))
    return path


# ---- transparency


def test_what_transparent_pixels_hide_is_not_looked_at(tmp_path):
    red = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    red.putpixel((0, 0), (0, 0, 255, 255))
    for name in ("hidden.png", "hidden.webp", "hidden.tif", "hidden.avif"):
        red.save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
        pixels, remark = shown(tmp_path / name)
        assert remark == WHITE and pixels[4:, 4:].min() == 255, name
        assert name.endswith("avif") or pixels[0, 0].tolist() == [0, 0, 255]
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    palette.putpixel((0, 0), 2)
    for name in ("palette.png", "palette.gif"):
        palette.save(tmp_path / name, transparency=1)
        pixels, remark = shown(tmp_path / name)
        assert remark == WHITE
        assert pixels[0, 0].tolist() == [0, 255, 0] and pixels[1:].min() == 255
    palette.save(tmp_path / "half.png", transparency=bytes([255, 128]))
    assert shown(tmp_path / "half.png")[0][1, 1].tolist() == [255, 127, 127]
    Image.new("LA", (8, 8), (9, 0)).save(tmp_path / "grey.png")
    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "key.png", transparency=(1, 2, 3))
    for name in ("grey.png", "key.png"):
        assert shown(tmp_path / name)[0].min() == 255
    key = struct.pack(">H", 1000)
    rows = np.tile([1000, 30000], (4, 2))
    pixels, remark = shown(write_png(tmp_path / "key16.png", 16, 0, rows, tRNS=key))
    assert pixels[0, :, 0].tolist() == [255, 117, 255, 117] and remark.endswith(WHITE)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA", "1"])
def test_opaque_images_are_what_they_were(mode, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    image = Image.fromarray(noise).convert(mode)
    image.save(tmp_path / "x.png")
    expected = np.asarray(Image.open(tmp_path / "x.png").convert("RGB"))
    pixels, remark = shown(tmp_path / "x.png")
    assert np.array_equal(pixels, expected) and remark == ""


# ---- depth


def twelve_bit_tiff(values: np.ndarray) -> bytes:
    """A TIFF of 12 bits a sample, packed: two samples in three bytes."""
    first, second = values[:, ::2].astype(int), values[:, 1::2].astype(int)
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1)
    content = packed.astype(np.uint8).tobytes()
    height, width = values.shape
    tags = {256: width, 257: height, 258: 12, 259: 1, 262: 1, 273: 0, 277: 1, 278: height}
    tags[279] = len(content)
    start = 8 + 2 + 12 * len(tags) + 4
    tags[273] = start
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + content


def test_more_than_8_bits_are_scaled_by_what_the_file_states(tmp_path):
    ramp = np.arange(4096).reshape(64, 64)
    expected = (ramp / 4095 * 255).round()
    (tmp_path / "12.tif").write_bytes(twelve_bit_tiff(ramp))
    Image.fromarray((ramp / 4095).astype("f4")).save(tmp_path / "float.tif")
    Image.fromarray(ramp.astype("i4")).save(tmp_path / "32.tif", tiffinfo={341: 4095})
    Image.fromarray(ramp.astype("f4")).save(tmp_path / "to4095.tif", tiffinfo={341: 4095.0})
    for name, white in (("12.tif", 4095), ("float.tif", 1), ("32.tif", 4095), ("to4095.tif", 4095)):
        pixels, remark = shown(tmp_path / name)
        assert np.abs(pixels[..., 0] - expected).max() <= 0, name
        assert remark == f"scaled from 0–{white} to 8 bits"
    deep = np.arange(65536, dtype="u2").reshape(256, 256)
    Image.fromarray(deep).save(tmp_path / "inverted.tif", tiffinfo={262: 0})  # 0 is white
    pixels, _ = shown(tmp_path / "inverted.tif")
    assert np.array_equal(pixels[..., 0], 255 - (deep / 257).round())


def test_depths_that_are_not_stated_are_refused_and_not_shown_black(tmp_path):
    ramp = np.arange(4096).reshape(64, 64)
    Image.fromarray(ramp.astype("u2")).save(tmp_path / "12in16.png")
    Image.fromarray(ramp.astype("u2")).save(tmp_path / "12in16.tif")
    Image.fromarray((ramp % 256).astype("i4")).save(tmp_path / "int.tif")
    Image.fromarray((ramp % 256).astype("f4")).save(tmp_path / "float.tif")
    Image.fromarray(np.full((8, 8), np.nan, "f4")).save(tmp_path / "nan.tif")
    for path in tmp_path.iterdir():
        assert "does not state which one is white; convert it to 8 bits" in refused(path), path
    for name, colours, samples in (("rgb.png", 2, 3), ("la.png", 4, 2), ("rgba.png", 6, 4)):
        rows = np.tile(ramp, (1, samples))
        if colours != 2:
            rows[:, samples - 1 :: samples] = 65535  # opaque
        why = refused(write_png(tmp_path / name, 16, colours, rows))
        assert "does not state which value is white" in why, name
    Image.new("I;16", (8, 8)).save(tmp_path / "black.png")
    assert shown(tmp_path / "black.png")[0].max() == 0


# ---- colour

# What the ICC's specification of Display P3 states, as a profile: primaries by their matrix.
P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))


def icc(kind: bytes, space: bytes, pcs: bytes, name: str, tags: dict[bytes, bytes]) -> bytes:
    """An ICC profile of a device class, the spaces of colour and connection, and tags."""
    text = name.encode() + b"\0"
    desc = b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(12 + 67)
    tags = {b"desc": desc, b"wtpt": xyz((0.9642, 1, 0.8249)), b"cprt": b"text\0\0\0\0none\0"} | tags
    offset, table, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for key, value in tags.items():
        table += key + struct.pack(">II", offset + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    header = struct.pack(">I4sI", offset + len(body), b"lcms", 0x02100000) + kind + space + pcs
    header += bytes(12) + b"acsp" + bytes(28) + xyz((0.9642, 1, 0.8249))[8:]
    return header + bytes(128 - len(header)) + table + body


def xyz(values) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(v * 65536)) for v in values)


def matrix_profile(name: str, columns, gamma: float) -> bytes:
    """An ICC profile of three primaries (XYZ, D50), or of grey, and one gamma."""
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    tags = {key: xyz(column) for key, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns)}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC") if columns else (b"kTRC",), curve)
    return icc(b"mntr", b"RGB " if columns else b"GRAY", b"XYZ ", name, tags)


def ink_profile(name: str) -> bytes:
    """An ICC profile of four grey inks: lightness falls with black and with the mean of three."""
    clut = b""
    for c, m, y, k in np.ndindex(2, 2, 2, 2):
        clut += bytes([round(255 * (1 - k) * (1 - (c + m + y) / 3)), 128, 128])
    identity = bytes(range(256))
    matrix = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + identity * 4 + clut + identity * 3
    return icc(b"prtr", b"CMYK", b"Lab ", name, {b"A2B0": table})


@pytest.mark.parametrize("form", ["jpg", "png", "tif", "webp"])
def test_colours_are_converted_to_srgb(form, tmp_path):
    """Red of Display P3 lies outside sRGB; (200, 100, 50) comes out as ICC's formulae say."""
    file = tmp_path / f"p3.{form}"
    options = {"lossless": True} if form == "webp" else {"quality": 100}
    colour = Image.new("RGB", (16, 16), (200, 100, 50))
    colour.save(file, icc_profile=matrix_profile("Display P3", P3, 2.2), **options)
    pixels, remark = shown(file)
    assert remark == "colour profile 'Display P3' converted to sRGB"
    linear = np.array(P3).T @ (np.array([200, 100, 50]) / 255) ** 2.2
    to_srgb = [[3.1339, -1.6169, -0.4906], [-0.9788, 1.9161, 0.0335], [0.0719, -0.2290, 1.4052]]
    rgb = np.clip(np.array(to_srgb) @ linear, 0, 1)  # from XYZ of D50
    expected = 255 * np.where(rgb < 0.0031308, 12.92 * rgb, 1.055 * rgb ** (1 / 2.4) - 0.055)
    assert np.abs(pixels[8, 8] - expected).max() <= 3, (pixels[8, 8], expected)
    assert np.abs(pixels[8, 8].astype(int) - [200, 100, 50]).max() > 5


def test_grey_with_a_profile_of_its_own_is_converted(tmp_path):
    """Half of the light of a linear scale is 188 in sRGB; that of gamma 2.2 is nearly sRGB's."""
    linear, usual = (matrix_profile("Grey", (), gamma) for gamma in (1.0, 2.2))
    for mode in ("L", "LA"):
        grey = Image.new("LA", (8, 8), (128, 255)).convert(mode)
        grey.save(tmp_path / "linear.png", icc_profile=linear)
        pixels, remark = shown(tmp_path / "linear.png")
        assert remark == "colour profile 'Grey' converted to sRGB"
        assert np.abs(pixels.astype(int) - 188).max() <= 1
    grey.save(tmp_path / "usual.png", icc_profile=usual)
    assert np.abs(shown(tmp_path / "usual.png")[0].astype(int) - 128).max() <= 3


@pytest.mark.parametrize("form", ["jpg", "tif"])
def test_inks_are_converted_by_their_profile(form, tmp_path):
    """Half black has a lightness of 50 by this profile: 119 in sRGB, and 127 by the formula."""
    ink = Image.new("CMYK", (16, 16), (0, 0, 0, 128))
    ink.save(tmp_path / f"x.{form}", icc_profile=ink_profile("Four greys"), quality=100)
    pixels, remark = shown(tmp_path / f"x.{form}")
    assert remark == "colour profile 'Four greys' converted to sRGB"
    assert np.abs(pixels.astype(int) - 119).max() <= 2, pixels[0, 0]


def test_a_profile_of_srgb_changes_no_bit(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name in ("x.jpg", "x.png"):
        Image.fromarray(noise).save(tmp_path / name)
        Image.fromarray(noise).save(tmp_path / f"with_{name}", icc_profile=srgb)
        pixels, remark = shown(tmp_path / f"with_{name}")
        assert np.array_equal(pixels, read_image(tmp_path / name)) and remark == ""


def test_colours_that_are_not_converted_are_recorded(tmp_path):
    ink = Image.new("CMYK", (8, 8), (10, 200, 30, 0))
    ink.save(tmp_path / "ink.jpg")
    assert shown(tmp_path / "ink.jpg")[1] == "CMYK without a colour profile, converted by formula"
    colour = Image.new("RGB", (8, 8), (200, 100, 50))
    colour.save(tmp_path / "damaged.png", icc_profile=b"nonsense")
    pixels, remark = shown(tmp_path / "damaged.png")
    assert pixels[0, 0].tolist() == [200, 100, 50]
    assert remark == "colour profile damaged or of an unknown kind, not applied"
    ink.save(tmp_path / "other.tif", icc_profile=matrix_profile("P3", P3, 2.2))
    assert "does not fit, not applied" in shown(tmp_path / "other.tif")[1]
    rows = np.full((4, 12), 99)
    gamma = write_png(tmp_path / "gamma.png", 8, 2, rows, gAMA=struct.pack(">I", 100000))
    assert shown(gamma)[1] == "stated gamma of 1 not applied"
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    colour.save(tmp_path / "camera.jpg", exif=exif)
    assert (
        shown(tmp_path / "camera.jpg")[1] == "colours of Adobe RGB by its EXIF data, not converted"
    )


def test_colours_stated_as_numbers_are_recorded(tmp_path):
    """By code points of H.273 (primaries, transfer), or by the primaries themselves."""
    rows, names = np.full((4, 12), 99), ("not.png", "p3.png", "pq.png", "short.png")
    codes = (bytes([1, 13, 0, 1]), bytes([12, 13, 0, 1]), bytes([9, 16, 0, 1]), b"\x0c")
    files = [write_png(tmp_path / name, 8, 2, rows, cICP=c) for name, c in zip(names, codes)]
    for primaries, curve in ((12, 13), (9, 18)):
        Image.new("RGB", (16, 16), "red").save(tmp_path / f"{curve}.avif")
        content = (tmp_path / f"{curve}.avif").read_bytes()
        at = content.index(b"colrnclx") + 8
        code = struct.pack(">HH", primaries, curve)
        (tmp_path / f"{curve}.avif").write_bytes(content[:at] + code + content[at + 4 :])
        files.append(tmp_path / f"{curve}.avif")
    p3, hdr = "colours of Display P3, not converted", "HDR ({}, BT.2020), not tone-mapped"
    expected = ["", p3, hdr.format("PQ"), "", p3, hdr.format("HLG")]
    assert [shown(file)[1] for file in files] == expected
    for name, blue, remark in (
        ("srgb.png", 6000, ""),
        ("wide.png", 1000, "colours of stated primaries, not converted"),
    ):
        numbers = (31270, 32900, 64000, 33000, 30000, 60000, 15000, blue)
        file = write_png(tmp_path / name, 8, 2, rows, cHRM=struct.pack(">8I", *numbers))
        assert shown(file)[1] == remark
    file = write_png(tmp_path / "odd.png", 8, 2, rows, cHRM=struct.pack(">10I", *range(10)))
    assert shown(file)[0][0, 0].tolist() == [99] * 3


# ---- several images, other formats, metadata


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("x.gif", "frame"),
        ("x.webp", "frame"),
        ("x.png", "frame"),
        ("x.apng", "frame"),
        ("x.avif", "frame"),
        ("x.tif", "image"),
        ("x.jpg", "image"),
    ],
)
def test_of_several_images_the_first_is_shown_and_the_number_said(name, unit, tmp_path):
    images = [Image.new("RGB", (32, 32), colour) for colour in ("red", "green", "blue")]
    form = {"x.jpg": "MPO", "x.apng": "PNG"}.get(name)
    images[0].save(tmp_path / name, form, save_all=True, append_images=images[1:])
    pixels, remark = shown(tmp_path / name)
    assert remark == f"{unit} 1 of 3"
    assert np.abs(pixels.astype(int) - [255, 0, 0]).max() < 9


def test_heic_is_refused_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    start = b"\0\0\0\x18ftypheic" + bytes(100)
    for name in ("phone.heic", "renamed.jpg", "no_suffix"):
        (tmp_path / name).write_bytes(start)
        assert is_image(tmp_path / name)
        why = refused(tmp_path / name)
        assert "HEIC is not supported; install pillow-heif: pip install" in why


def test_heic_is_read_where_pillow_heif_is_installed(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    stored = np.zeros((40, 80, 3), np.uint8)
    stored[:, :20] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = heif.from_pillow(Image.fromarray(stored))
    picture.save(tmp_path / "phone.heic", exif=exif.tobytes())
    pixels, _ = shown(tmp_path / "phone.heic")
    assert pixels.shape == (80, 40, 3)
    assert pixels[:18].min() > 200 and pixels[22:].max() < 50


def test_a_file_is_what_it_holds(tmp_path):
    """Images without a suffix are read as images, and a video's name is asked for a video."""
    Image.new("RGB", (8, 8), "red").save(tmp_path / "x.png")
    (tmp_path / "download").write_bytes((tmp_path / "x.png").read_bytes())
    assert shown(tmp_path / "download")[0][0, 0].tolist() == [255, 0, 0]
    write_video(tmp_path / "x.mp4", 3)
    (tmp_path / "film.jpg").write_bytes((tmp_path / "x.mp4").read_bytes())
    assert "it is a video by its content" in refused(tmp_path / "film.jpg")
    (tmp_path / "film").write_bytes((tmp_path / "x.mp4").read_bytes())
    assert not is_image(tmp_path / "film")
    assert score_file(tmp_path / "film", Model()).kind == "video"


def test_formats_that_start_other_programs_are_not_opened(tmp_path):
    assert not {"EPS", "WMF", "HDF5", "GRIB"} & set(FORMATS)
    (tmp_path / "x.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    assert "not an image that Pillow knows" in refused(tmp_path / "x.jpg")


def test_other_bytes_with_the_same_pixels_have_the_same_pixel_hash(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    image.save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "longer.jpg").write_bytes(content + b"bytes after the end")
    image.save(tmp_path / "commented.jpg", comment=b"other metadata", dpi=(300, 300))
    results = [score_file(path, Model()) for path in sorted(tmp_path.glob("*.jpg"))]
    assert len({result.sha256 for result in results}) == 3
    assert len({result.pixels_sha256 for result in results}) == 1
    assert len({result.score for result in results}) == 1
    table = results_table(results)
    assert table["pixels_sha256"].str.fullmatch("[0-9a-f]{64}").all()
    for name in ("b.png", "b.bmp"):
        image.save(tmp_path / name)
    first, second = (score_file(tmp_path / name, Model()) for name in ("b.png", "b.bmp"))
    assert first.pixels_sha256 == second.pixels_sha256 != results[0].pixels_sha256


@pytest.mark.parametrize("size", [(1, 1), (40_000, 1), (1, 40_000)])
def test_extreme_sizes_are_scored_or_refused(size, tmp_path):
    Image.new("RGB", size, (7, 8, 9)).save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png").shape == (*size[::-1], 3)
    result = score_file(tmp_path / "x.png", Model())
    assert (result.state, result.reason) == ("unreadable", "a side of less than 2 pixels")
    for name in ("haar", "frame"):
        settings = Extraction(face_detector=name)
        with blame_file("x.png"):  # refused, at worst, by name
            rows, _ = extract_video(tmp_path / "x.png", settings, build_face_detector(name))
            assert rows[0]["frame_width"] == size[0]


# ---- limits


def test_declared_sizes_over_the_limit_are_refused_before_decoding(tmp_path, monkeypatch):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "bomb.webp", save_all=True, append_images=frames[1:])
    content = bytearray((tmp_path / "bomb.webp").read_bytes())
    at = content.index(b"VP8X") + 12
    content[at : at + 6] = struct.pack("<I", 2_097_231)[:3] + struct.pack("<I", 63)[:3]
    (tmp_path / "bomb.webp").write_bytes(content)
    rows = np.zeros((1, 3))
    write_png(tmp_path / "bomb.png", 8, 2, rows)
    content = bytearray((tmp_path / "bomb.png").read_bytes())
    content[16:24] = struct.pack(">II", 13_300, 13_300)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "bomb.png").write_bytes(content)
    for name, size in (("bomb.webp", "2,097,232×64"), ("bomb.png", "13,300×13,300")):
        with pytest.warns(Image.DecompressionBombWarning):
            why = refused(tmp_path / name)
        assert f"{size} pixels are more than the limit of 120,000,000" in why
    Image.new("RGB", (40, 30)).save(tmp_path / "small.png")
    write_video(tmp_path / "small.mp4", 3)
    with zipfile.ZipFile(tmp_path / "small.zip", "w") as archive:
        archive.write(tmp_path / "small.png", "small.png")
    n = (tmp_path / "small.png").stat().st_size
    for path in (tmp_path / "small.png", tmp_path / "small.zip!/small.png"):
        monkeypatch.setenv("DEEPFAKE_NB_MAX_FILE_BYTES", str(n - 1))
        with pytest.raises(ImageError, match=rf"{n} bytes .* {n - 1}; .*_MAX_FILE_BYTES sets"):
            read_image(path)
        monkeypatch.setenv("DEEPFAKE_NB_MAX_FILE_BYTES", str(n))
        assert shown(path)[0].shape == (30, 40, 3)
    monkeypatch.setenv("DEEPFAKE_NB_MAX_PIXELS", "1199")
    assert "40×30 pixels are more than the limit of 1,199" in refused(tmp_path / "small.png")
    with pytest.raises(VideoError, match="128×64 pixels are more than the limit of 1,199"):
        probe(tmp_path / "small.mp4")
    monkeypatch.setenv("DEEPFAKE_NB_MAX_PIXELS", "1200")
    assert shown(tmp_path / "small.png")[0].shape == (30, 40, 3)
    monkeypatch.setenv("DEEPFAKE_NB_MAX_PIXELS", "many")
    with pytest.raises(ParameterError, match="DEEPFAKE_NB_MAX_PIXELS='many'"):
        read_image(tmp_path / "small.png")


@pytest.mark.parametrize("in_archive", [False, True])
def test_a_video_that_is_cut_off_says_so(in_archive, tmp_path):
    """Before its index, and within it: FFmpeg finds other faults there."""
    write_video(tmp_path / "whole.mp4", 20)
    content = (tmp_path / "whole.mp4").read_bytes()
    path = tmp_path / "cut.mp4"
    for n in (40, len(content) * 2 // 3, content.index(b"avc1")):
        if in_archive:
            path = tmp_path / "cut.zip!/cut.mp4"
            with zipfile.ZipFile(tmp_path / "cut.zip", "w") as archive:
                archive.writestr("cut.mp4", content[:n])
        else:
            path.write_bytes(content[:n])
        with pytest.raises(VideoError, match=r"cut.mp4: .*; it may be cut off or damaged: copy or"):
            probe(path)


BOMB = """
import resource, sys
from deepfake_nb.core.images import read_image
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_image(sys.argv[1])
except Exception as error:
    print(type(error).__name__, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_bomb_takes_no_memory(tmp_path):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "bomb.webp", save_all=True, append_images=frames[1:])
    content = bytearray((tmp_path / "bomb.webp").read_bytes())
    at = content.index(b"VP8X") + 12
    content[at : at + 6] = struct.pack("<I", 2_097_231)[:3] + struct.pack("<I", 63)[:3]
    (tmp_path / "bomb.webp").write_bytes(content)
    command = [sys.executable, "-W", "ignore", "-c", BOMB, str(tmp_path / "bomb.webp")]
    printed = subprocess.run(command, capture_output=True, text=True).stdout.split()
    assert printed[0] == "ImageError" and int(printed[1]) < 50_000  # KiB


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"\xff\x0a" + bytes(30), "JPEG XL is not supported; convert it to PNG"),
        (b"8BPS\0\1" + bytes(30), "a Photoshop document is not supported"),
        (b"%PDF-1.7\n", "a PDF is not supported"),
        (b"<!DOCTYPE html>", "it is a web page or SVG by its content"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS; `git lfs pull`"),
        (b"II*\0" + bytes(30), "a TIFF of a kind that Pillow cannot read"),
    ],
)
def test_what_is_no_image_is_named(content, reason, tmp_path):
    (tmp_path / "x.jpg").write_bytes(content)
    assert reason in refused(tmp_path / "x.jpg")


def test_deep_colour_in_jpeg_2000_is_refused(tmp_path):
    """Pillow would show white as black."""
    import cv2

    cv2.imwrite(str(tmp_path / "x.jp2"), np.full((32, 32, 3), 65535, np.uint16))
    assert "more than 8 bits in JPEG 2000" in refused(tmp_path / "x.jp2")
    cv2.imwrite(str(tmp_path / "8.jp2"), np.full((32, 32, 3), 255, np.uint8))
    assert shown(tmp_path / "8.jp2")[0].min() == 255


def test_the_preview_in_a_raw_photograph_is_called_so(tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "x.dng", "TIFF", tiffinfo={254: 1})
    assert shown(tmp_path / "x.dng")[1] == "the preview of a larger image"


# ---- videos


def numbered(number: int, height: int = 64, width: int = 128) -> np.ndarray:
    """An image whose eight bars are the bits of a number."""
    bits = np.array([number >> k & 1 for k in range(8)], np.uint8)
    row = np.repeat(bits * 160 + 48, width // 8)
    return np.broadcast_to(row[None, :, None], (height, width, 3)).copy()


def number_of(image: np.ndarray) -> int:
    bars = np.array_split(image.mean(axis=(0, 2)), 8)
    return sum(int(bar.mean() > 128) << k for k, bar in enumerate(bars))


def write_video(
    path: Path,
    n: int = 50,
    codec: str = "libx264",
    form: str | None = None,
    pixels: str = "yuv420p",
    times=None,
    size: tuple[int, int] = (64, 128),
    muxer: dict | None = None,
    **options: str,
) -> Path:
    """Encode numbered frames, 25 a second or at the given milliseconds."""
    options = {"crf": "18"} | options if codec == "libx264" else {"b": "2000000"} | options
    with av.open(str(path), "w", format=form, options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = size
        stream.pix_fmt = pixels
        stream.codec_context.gop_size = 12
        if times is not None:
            stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for k in range(n):
            frame = av.VideoFrame.from_ndarray(numbered(k, *size), format="rgb24")
            frame.pts = k if times is None else times[k]
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def numbers_read(path: Path, **choice) -> list[int]:
    """The numbers in the images of frames that were asked for; all must be read."""
    frames = list(read_frames(path, **choice))
    assert not [frame.reason for frame in frames if frame.image is None]
    return [number_of(frame.image) for frame in frames]


def remark_of(path: Path) -> str:
    """The remark on a video: on each frame, in the extraction and in the prediction."""
    remark = "; ".join(next(read_frames(path)).remarks)
    rows, _ = extract_video(path, Extraction(face_detector="frame"), build_face_detector("frame"))
    assert {row["remark"] for row in rows} == {remark}
    result = score_file(path, Model())
    assert (result.state, result.remark) == ("scored", remark)
    return remark


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("x.mov", "qtrle", "argb"),
        ("x.mkv", "ffv1", "yuva420p"),
        ("x.mov", "prores_ks", "yuva444p10le"),
        ("x.webm", "libvpx-vp9", "yuva420p"),
    ],
)
def test_what_transparent_pixels_of_a_video_hide_is_not_looked_at(name, codec, pixels, tmp_path):
    red = np.zeros((64, 96, 4), np.uint8)
    red[..., 0], red[:32, :, 3] = 255, 255
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, pixels
        container.mux(stream.encode(av.VideoFrame.from_ndarray(red, format="rgba")))
        container.mux(stream.encode())
    frame = next(read_frames(tmp_path / name))
    assert frame.image[8].mean(0) == pytest.approx([255, 0, 0], abs=6)
    if name == "x.webm":  # whose decoder knows no transparency
        assert frame.remarks == ("transparency not applied",)
    else:
        assert frame.image[48].min() > 250 and frame.remarks == (WHITE,)
    assert np.array_equal(first_frame(tmp_path / name), frame.image)


def test_streams_that_were_joined_end_to_end_are_read_to_the_end(tmp_path):
    content = write_video(tmp_path / "x.ts", 20, form="mpegts", bf="2").read_bytes()
    (tmp_path / "x.ts").write_bytes(content * 2)
    numbers = numbers_read(tmp_path / "x.ts", sampling="all")
    assert numbers == [*range(20)] * 2
    assert remark_of(tmp_path / "x.ts").startswith("frames with recurring time stamps, counted")


def test_pixels_that_are_not_square_are_shown_as_square(tmp_path):
    """Side by side on a screen, the wide one shows 128×64 and the tall one 64×128."""
    for name, ratio, shape in (("wide", "2/1", (64, 128, 3)), ("tall", "1/2", (128, 64, 3))):
        options = {"x264-params": f"sar={ratio}"}
        path = write_video(tmp_path / f"{name}.mp4", 9, size=(64, 64), **options)
        info = probe(path)
        assert (info.height, info.width, 3) == shape
        assert {frame.image.shape for frame in read_frames(path)} == {shape}
        assert numbers_read(path, sampling="all") == list(range(9))
        assert remark_of(path) == f"pixels of {ratio.replace('/', ':')} shown as square"
    odd = write_video(tmp_path / "odd.mkv", 9, **{"x264-params": "sar=9/1"})
    assert next(read_frames(odd)).image.shape == (64, 128, 3)
    assert remark_of(odd) == "pixels of 9:1 ignored"


ONE = 65536
MATRICES = {  # a, b, c, d of a display matrix, and what it does to an image
    "as stored": ((1, 0, 0, 1), lambda image: image),
    "left to right": ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda image: image[::-1]),
    "half a turn": ((-1, 0, 0, -1), lambda image: image[::-1, ::-1]),
    "clockwise": ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
    "anticlockwise": ((0, -1, 1, 0), lambda image: np.rot90(image)),
    "transposed": ((0, 1, 1, 0), lambda image: image.transpose(1, 0, 2)),
    "transverse": ((0, -1, -1, 0), lambda image: np.rot90(image, 2).transpose(1, 0, 2)),
}


@pytest.mark.parametrize("name", MATRICES)
def test_display_matrices_are_applied_mirrored_ones_too(name, tmp_path):
    (a, b, c, d), expected = MATRICES[name]
    path = tmp_path / "x.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "10"})
        stream.height, stream.width, stream.pix_fmt = 64, 128, "yuv444p"
        image = np.zeros((64, 128, 3), np.uint8)
        image[:32, :32], image[:32, 96:], image[32:, :32] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    stored = next(read_frames(path)).image
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    matrix = (a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30)
    content[at : at + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(content)
    found = next(read_frames(path)).image
    assert np.array_equal(found, expected(stored))
    info = probe(path)
    assert (info.height, info.width) == found.shape[:2]


@pytest.mark.parametrize("form", ["mp4", "mkv"])
def test_the_film_is_shown_and_not_its_cover(form, tmp_path):
    path = tmp_path / f"x.{form}"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 300, 300, "yuvj420p"
        film = container.add_stream("libx264", rate=25)
        film.height, film.width, film.pix_fmt = 64, 128, "yuv420p"
        grey = np.full((300, 300, 3), 99, np.uint8)
        container.mux(cover.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(cover.encode(None))
        for k in range(20):
            container.mux(film.encode(av.VideoFrame.from_ndarray(numbered(k), format="rgb24")))
        container.mux(film.encode(None))
    assert probe(path).width == 128
    assert numbers_read(path, sampling="all") == list(range(20))
    assert remark_of(path) == ("" if form == "mp4" else "video stream 2 of 2")  # no count in MKV
    seen = small_image(path, "video", (8, 16))
    assert seen.mean() == pytest.approx(numbered(0).mean(), abs=4)  # what audits compare, too
    assert video_features(path)["codec"] == "h264"


def test_of_several_films_the_largest_is_shown_and_the_number_said(tmp_path):
    path = tmp_path / "x.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=25) for _ in range(2)]
        for stream, (height, width) in zip(streams, [(32, 64), (64, 128)]):
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for k in range(9):
            for stream in streams:
                image = numbered(k, stream.height, stream.width)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        for stream in streams:
            container.mux(stream.encode(None))
    assert probe(path).width == 128
    assert numbers_read(path, sampling="all") == list(range(9))
    assert remark_of(path) == "video stream 2 of 2"


@pytest.mark.parametrize(
    ("transfer", "name"), [("smpte2084", "PQ"), ("arib-std-b67", "HLG"), ("bt709", "")]
)
def test_hdr_is_flagged(transfer, name, tmp_path):
    parameters = f"colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc"
    options = {"x264-params": parameters}
    path = write_video(tmp_path / "x.mp4", 9, pixels="yuv420p10le", **options)
    assert numbers_read(path, sampling="all") == list(range(9))
    hdr = f"HDR ({name}, BT.2020), not tone-mapped"
    assert remark_of(path) == (hdr if name else "colours of BT.2020, not converted")


@pytest.mark.parametrize(
    ("name", "form", "codec", "options"),
    [
        ("x.mpg", "mpeg", "mpeg1video", {}),
        ("x.mpg", "mpeg", "mpeg1video", {"bf": "2"}),
        ("x.vob", "vob", "mpeg2video", {"bf": "2"}),
        ("x.ts", "mpegts", "mpeg2video", {"bf": "2"}),
        ("x.ts", "mpegts", "libx264", {}),
        ("x.avi", None, "mpeg4", {"bf": "2"}),
        ("x.avi", None, "libx264", {}),
        ("x.avi", None, "mjpeg", {}),
        ("x.flv", None, "libx264", {}),
        ("x.wmv", None, "wmv2", {}),
        ("x.webm", None, "libvpx", {"cpu-used": "8"}),
        ("x.h264", None, "libx264", {}),
        ("x.mp4", None, "libx264", {"x264-params": "intra-refresh=1:keyint=12"}),
        ("x.mkv", None, "libx264", {"x264-params": "open-gop=1:keyint=12:min-keyint=12"}),
    ],
    ids=str,
)
def test_each_frame_is_found_in_every_container(name, form, codec, options, tmp_path):
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = write_video(tmp_path / name, 50, codec, form, pixels, **options)
    assert probe(path).n_frames == 50
    assert numbers_read(path, sampling="all") == list(range(50))
    for k in (0, 7, 30, 49):
        assert numbers_read(path, indices=[k]) == [k]
    times = probe(path).timestamps
    assert np.abs(times - np.arange(50) / 25).max() < 0.03


def test_packed_b_frames_of_divx_are_unpacked(tmp_path):
    """Two frames lie in one chunk of the AVI, and the next chunk holds none."""
    raw = write_video(tmp_path / "x.m4v", 50, "mpeg4", "m4v", bf="1", b_strategy="0")
    with av.open(str(raw)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    mark = b"\0\0\1\xb6"
    is_b = [packet[packet.index(mark) + 4] >> 6 == 2 for packet in packets]
    chunks, k = [], 0
    while k < len(packets):
        pair = k + 1 < len(packets) and is_b[k + 1]
        chunks += [packets[k] + packets[k + 1], mark + b"\x50\x5f"] if pair else [packets[k]]
        k += 1 + pair
    at = chunks[0].index(b"\0\0\1\xb3") if b"\0\0\1\xb3" in chunks[0] else chunks[0].index(mark)
    chunks[0] = chunks[0][:at] + b"\0\0\1\xb2DivX503b1393p" + chunks[0][at:]
    assert sum(is_b) > 20 and len(chunks) == 50
    with av.open(str(tmp_path / "x.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 64, "yuv420p"
        for k, chunk in enumerate(chunks):
            packet = av.Packet(chunk)
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            packet.pts = packet.dts = k
            packet.is_keyframe = chunk[chunk.index(mark) + 4] >> 6 == 0
            container.mux(packet)
    assert numbers_read(tmp_path / "x.avi", sampling="all") == list(range(50))
    assert numbers_read(tmp_path / "x.avi", indices=[33]) == [33]


@pytest.mark.parametrize(("first", "n"), [(0, 10), (20, 10), (37, 13)])
def test_what_an_edit_list_leaves_out_is_not_shown(first, n, tmp_path):
    path = write_video(tmp_path / "x.mp4")
    content = bytearray(path.read_bytes())
    at, scale = content.index(b"elst") + 12, content.index(b"mdhd") + 16
    scale = struct.unpack_from(">I", content, scale)[0]
    start = struct.unpack_from(">i", content, at + 4)[0] + first * scale // 25
    struct.pack_into(">Ii", content, at, n * 40, start)
    path.write_bytes(content)
    assert numbers_read(path, sampling="all") == list(range(first, first + n))
    assert numbers_read(path, n=3)[0] == first
    assert np.allclose(probe(path).timestamps, np.arange(n) / 25, atol=1e-3)
    assert remark_of(path) == ""
    if hasattr(av.stream.Stream, "index_entries"):  # else the header's number is all there is
        assert check_file(path) == ""


def test_frames_that_only_the_header_promises_are_not_chosen(tmp_path):
    path = write_video(tmp_path / "x.avi", codec="mjpeg", pixels="yuvj420p")
    content = bytearray(path.read_bytes())
    for name, offset in ((b"avih", 16), (b"strh", 32)):
        struct.pack_into("<I", content, content.index(name) + 8 + offset, 1000)
    path.write_bytes(content)
    for sampling in ("spread", "middle"):
        assert len(numbers_read(path, sampling=sampling, n=5)) == 5
    assert numbers_read(path, n=3) == [0, 24, 49]
    assert remark_of(path) == "the file ends after 50 of 1,000 frames"
    (frame,) = read_frames(path, [700])
    assert frame.image is None and frame.reason == "the file ends after 50 of 1000 frames"


def test_times_are_those_of_the_file(tmp_path):
    """A rate that changes in the middle, and a film whose first time is before or after zero."""
    times = [*range(0, 400, 16), *range(400, 2900, 100)]
    path = write_video(tmp_path / "rate.mp4", times=times)
    assert np.allclose(probe(path).timestamps, np.array(times) / 1000, atol=2e-3)
    seconds = list(read_frames(path, sampling="per-second", n=None))
    assert [frame.timestamp for frame in seconds] == pytest.approx([0, 1, 2], abs=2e-3)
    assert [number_of(frame.image) for frame in seconds] == [0, 31, 41]
    for name, start in (("x.ts", -400), ("x.mkv", -400), ("late.mp4", 4000)):
        muxer = {"avoid_negative_ts": "disabled"}
        times = [40 * k + start for k in range(50)]
        path = write_video(tmp_path / name, times=times, muxer=muxer)
        assert numbers_read(path, sampling="all") == list(range(50)), name
        assert np.allclose(probe(path).timestamps, np.arange(50) / 25, atol=2e-3), name


def test_fields_are_flagged_and_a_still_is_a_video(tmp_path):
    options = {"x264-params": "interlaced=1:tff=1"}
    path = write_video(tmp_path / "fields.mp4", 9, **options)
    assert numbers_read(path, sampling="all") == list(range(9))
    assert remark_of(path) == "interlaced, fields not separated"
    still = write_video(tmp_path / "still.mp4", 1)
    for sampling in ("spread", "middle", "per-second", "all"):
        assert numbers_read(still, sampling=sampling) == [0]
    assert remark_of(still) == "" and probe(still).duration == pytest.approx(0.04)


def test_a_title_that_is_not_utf_8_is_no_fault(tmp_path):
    path = tmp_path / "x.mkv"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "Muenchen"
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 128, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(5), format="rgb24")))
        container.mux(stream.encode(None))
    content = path.read_bytes()
    assert content.count(b"Muenchen") == 1
    path.write_bytes(content.replace(b"Muenchen", b"M\xfcnchen "))
    assert numbers_read(path, sampling="all") == [5]


# ---- one net around the work on one file


def test_whatever_a_file_does_is_that_files_row(tmp_path, monkeypatch, caplog):
    """In prediction and in extraction; the neighbours are scored as if it were not there."""
    for k in range(3):
        write_video(tmp_path / f"{k}.mp4", 9)
        Image.fromarray(numbered(k)).save(tmp_path / f"{k}.png")
    real = extraction.wanted_frames

    def fragile(path, settings):
        if Path(path).stem == "1":
            raise AttributeError("'NoneType' object has no attribute 'thread_count'")
        return real(path, settings)

    monkeypatch.setattr(extraction, "wanted_frames", fragile)
    reason = "cannot be read: AttributeError: 'NoneType' object has no attribute 'thread_count'"
    for path in sorted(tmp_path.glob("*.*")):
        result = score_file(path, Model())
        assert result.state == ("unreadable" if path.stem == "1" else "scored")
        assert result.reason == (reason if path.stem == "1" else "")
    assert "Traceback" in caplog.text
    for kind, suffix in (("video", "mp4"), ("image", "png")):
        rows = [
            {"path": str(tmp_path / f"{k}.{suffix}"), "kind": kind, "label": 0, "dataset": "test"}
            for k in range(3)
        ]
        settings = Extraction(face_detector="frame", size=32)
        samples, out = make_samples(rows), tmp_path / f"out {kind}"
        result = extract_faces(samples, out, settings, workers=0, progress=False)
        assert set(result.failures["source_path"]) == {rows[1]["path"]}
        assert result.failures["reason"].tolist() == [f"VideoError: {reason}"]
        assert set(result.index["source_path"]) == {rows[0]["path"], rows[2]["path"]}


def test_remarks_reach_the_table_of_an_extraction(tmp_path):
    Image.new("RGBA", (32, 32), (255, 0, 0, 0)).save(tmp_path / "x.png")
    row = {"path": str(tmp_path / "x.png"), "kind": "image", "label": 0, "dataset": "test"}
    settings = Extraction(face_detector="frame", size=32)
    result = extract_faces(
        make_samples([row]), tmp_path / "out", settings, workers=0, progress=False
    )
    assert result.index["remark"].tolist() == [WHITE]


def seeds(folder: Path) -> list[Path]:
    """Small files of many kinds."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = matrix_profile("P3", P3, 2.2)
    for name in ("a.jpg", "a.png", "a.webp", "a.tif", "a.jp2", "a.avif"):
        image.save(folder / name, exif=exif, icc_profile=profile)
    image.save(folder / "b.jpg", progressive=True)
    image.save(folder / "c.jpg")
    image.convert("P").save(folder / "b.gif", save_all=True, append_images=[image.convert("P")])
    image.convert("RGBA").save(folder / "b.bmp")
    Image.fromarray(np.arange(65536, dtype="u2").reshape(256, 256)[::16]).save(folder / "deep.tif")
    videos = (
        ("a.mp4", "libx264", {}),
        ("a.mkv", "libx264", {}),
        ("a.avi", "mpeg4", {"bf": "2"}),
        ("a.mpg", "mpeg1video", {}),
        ("a.webm", "libvpx", {"cpu-used": "8"}),
    )
    for name, codec, options in videos:
        write_video(folder / name, 6, codec, size=(32, 64), **options)
    return sorted(folder.iterdir())


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Change, remove, repeat or cut a few bytes, more often near the beginning."""
    mutant = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        limit = len(mutant) if rng.random() < 0.5 else min(len(mutant), 400)
        at, length = rng.randrange(max(limit, 1)), rng.choice((1, 1, 1, 2, 4, 16))
        kind = rng.randrange(6)
        if kind < 3:
            mutant[at : at + length] = rng.randbytes(length)
        elif kind == 3:
            del mutant[at : at + length]
        elif kind == 4:
            mutant[at:at] = mutant[at : at + length]
        elif rng.random() < 0.2:
            del mutant[at:]
    return bytes(mutant)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
def test_mutants_are_read_or_refused(tmp_path, monkeypatch):
    """A bounded number of them: an image, frames each with a reason, or an error with the name."""
    logging.disable(logging.CRITICAL)
    monkeypatch.setenv("DEEPFAKE_NB_THREADS", "1")
    (tmp_path / "seeds").mkdir()
    rng, outcomes = random.Random(0), {"read": 0, "refused": 0}
    try:
        for path in seeds(tmp_path / "seeds"):
            content = path.read_bytes()
            for k in range(150):
                mutant = tmp_path / f"{k}{path.suffix}"
                mutant.write_bytes(mutate(content, rng))
                try:
                    frames = list(wanted_frames(mutant, Extraction(n=2, timeout=2)))
                except DeepfakeNbError as error:
                    assert str(mutant) in str(error)
                    outcomes["refused"] += 1
                    continue
                assert all((frame.image is None) == bool(frame.reason) for frame in frames)
                outcomes["read"] += 1
    finally:
        logging.disable(logging.NOTSET)
    assert min(outcomes.values()) > 20, outcomes
