#!/usr/bin/env python3
"""Writes the PNG files here, and expected.json: what the digits classifier has to make of each.

The pixels are computed another way than the component does, by whole multiples of the picture. Run with
the packages of models/requirements.txt.
"""

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image
from sklearn.datasets import load_digits

HERE = Path(__file__).resolve().parent
MODEL = HERE.parent.parent / "models/digits-classifier/1/model.onnx"
DIGITS = load_digits()


def ink(row):
    """A picture of the dataset, 0 to 255, light on dark."""
    return np.round(DIGITS.images[row] * 255 / 16).astype(np.uint8)


def enlarged(row, width, height):
    return Image.fromarray(ink(row)).resize((width, height), Image.Resampling.BICUBIC)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, colour, interlaced, scanlines, *more):
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    body = chunk(b"IDAT", zlib.compress(scanlines, 9))
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + b"".join(more) + body + chunk(b"IEND", b"")


def interlaced(dots):
    """Grey, by Adam7, which Pillow does not write."""
    scanlines = b""
    for x, y, dx, dy in [
        (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
    ]:  # fmt: skip
        for row in dots[y::dy, x::dx]:
            scanlines += b"\0" + row.tobytes() if row.size else b""
    return png(dots.shape[1], dots.shape[0], 8, 0, 1, scanlines)


def pictures():
    """Name -> picture, or its file."""
    yield "grey-8x8", Image.fromarray(ink(0))
    yield "grey-28x28", enlarged(1, 28, 28)
    yield "grey-3x5", enlarged(2, 3, 5)
    yield "dark-on-light-64x64", enlarged(3, 64, 64).point(lambda dot: 255 - dot)
    shades = [enlarged(4, 100, 61).point(lambda dot, s=share: dot * s // 4) for share in (4, 3, 2)]
    yield "rgb-100x61", Image.merge("RGB", shades)
    transparent = Image.new("RGBA", (48, 48), (10, 20, 90, 0))
    transparent.putalpha(enlarged(5, 48, 48))
    yield "rgba-48x48", transparent
    dark = Image.new("L", (31, 33), 40)
    yield "grey-alpha-31x33", Image.merge("LA", [dark, enlarged(6, 31, 33)])
    adaptive = {"palette": Image.Palette.ADAPTIVE, "colors": 7}
    yield "palette-200x200", enlarged(7, 200, 200).convert("P", **adaptive)
    yield "bilevel-32x32", enlarged(8, 32, 32).point(lambda dot: 255 * (dot > 127)).convert("1")
    deep = np.array(enlarged(9, 40, 56)).astype(np.uint16) * 257
    yield "grey-16-bits-40x56", Image.fromarray(deep)
    yield "interlaced-37x29", interlaced(np.array(enlarged(11, 37, 29)))


def pixels(path):
    """8x8 from 0 to 16: each dot becomes 8x8 pixels, so that every part consists of whole dots."""
    image = Image.open(path)
    if image.mode.startswith("I"):
        image = Image.fromarray((np.array(image) >> 8).astype(np.uint8))
    red, green, blue, alpha = np.moveaxis(np.array(image.convert("RGBA")).astype(np.int64), -1, 0)
    grey = (299 * red + 587 * green + 114 * blue + 500) // 1000
    grey = (grey * alpha + 255 * (255 - alpha) + 127) // 255
    inner = grey[1:-1, 1:-1]
    border = (grey.sum() - inner.sum()) / (grey.size - inner.size)
    dots = 255 - grey if border > 127.5 else grey
    height, width = dots.shape
    parts = np.kron(dots, np.ones((8, 8))).reshape(8, height, 8, width)
    return (parts.mean(axis=(1, 3)) / 255 * 16).astype(np.float32).reshape(1, 64)


def others():
    """Small files that would be large, or large on the way."""
    zeros = bytes(10_000_000)
    yield "bomb-picture", png(60_000, 60_000, 1, 0, 0, zeros)
    yield "bomb-scanlines", png(8, 8, 8, 0, 0, zeros)
    packed = zlib.compress(zeros, 9)
    profile = chunk(b"iCCP", b"x\0\0" + packed)
    text = chunk(b"zTXt", b"x\0\0" + packed)
    yield "bomb-chunks", png(8, 8, 8, 0, 0, bytes(8 * 9), profile, text)


def main():
    session = onnxruntime.InferenceSession(MODEL)
    expected = {}
    for name, picture in pictures():
        path = HERE / f"{name}.png"
        if isinstance(picture, bytes):
            path.write_bytes(picture)
        else:
            picture.save(path, optimize=True)
        features = pixels(path)
        label, probabilities = session.run(["label", "probabilities"], {"pixels": features})
        expected[name] = {
            "pixels": [float(str(pixel)) for pixel in features[0]],
            "prediction": str(label[0]),
            "probabilities": [float(str(share)) for share in probabilities[0]],
        }
        print(name, path.stat().st_size, label[0], probabilities.max())
    for name, file in others():
        (HERE / f"{name}.png").write_bytes(file)
        print(name, len(file))
    lines = [f"{json.dumps(name)}: {json.dumps(case)}" for name, case in expected.items()]
    (HERE / "expected.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
