"""Writes the seeds of the image fuzzer's corpus: small images of every kind. Needs Pillow and NumPy.

python tests/fuzz/make_corpus.py tests/fuzz/corpus
"""

import io
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

# Of an interlaced PNG: the passes' first row and column, and their steps.
ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]


def picture(width: int, height: int) -> Image.Image:
    """A gradient with noise: not flat, and the same each time."""
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(0).integers(0, 24, (height, width, 3))
    colours = np.stack([x * 5, y * 6, (x + y) * 3], axis=2) % 230 + noise
    return Image.fromarray(colours.astype(np.uint8))


def encode(image: Image.Image, kind: str, **settings: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def png(header: bytes, rows: bytes) -> bytes:
    """A PNG by hand, for what Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def jpegs() -> dict[str, bytes]:
    image = picture(37, 29)
    exif = Image.Exif()
    exif[0x112] = 6
    made = {
        f"{name}{'-progressive' if progressive else ''}": encode(
            image, "JPEG", quality=80, subsampling=subsampling, progressive=progressive
        )
        for name, subsampling in (("444", 0), ("422", 1), ("420", 2))
        for progressive in (False, True)
    }
    made["gray"] = encode(image.convert("L"), "JPEG")
    made["cmyk"] = encode(image.convert("CMYK"), "JPEG")
    made["cmyk-progressive"] = encode(image.convert("CMYK"), "JPEG", progressive=True)
    made["exif"] = encode(image, "JPEG", exif=exif)
    made["restarts"] = encode(image, "JPEG", restart_marker_rows=1)
    made["one-pixel"] = encode(image.resize((1, 1)), "JPEG")
    made["tall"] = encode(image.resize((3, 90)), "JPEG")
    made["cut-off"] = made["420"][: len(made["420"]) * 2 // 3]
    return {f"{name}.jpg": data for name, data in made.items()}


def pngs() -> dict[str, bytes]:
    image = picture(21, 17)
    exif = Image.Exif()
    exif[0x112] = 3
    alpha = image.copy()
    alpha.putalpha(image.convert("L"))
    made = {
        "rgb": encode(image, "PNG"),
        "rgba": encode(alpha, "PNG"),
        "gray": encode(image.convert("L"), "PNG"),
        "gray-alpha": encode(alpha.convert("LA"), "PNG"),
        "bits": encode(image.convert("1"), "PNG"),
        "palette": encode(image.quantize(50), "PNG"),
        "palette-4": encode(image.quantize(9), "PNG"),
        "exif": encode(image, "PNG", exif=exif),
        "one-pixel": encode(image.resize((1, 1)), "PNG"),
    }
    wide = np.arange(9 * 7 * 3, dtype=">u2").reshape(7, 9 * 3) * 300
    made["16-bits"] = png(
        struct.pack(">IIBBBBB", 9, 7, 16, 2, 0, 0, 0), b"".join(b"\0" + row.tobytes() for row in wide)
    )
    pixels = np.asarray(image)
    rows = [b"\0" + row.tobytes() for top, left, dy, dx in ADAM7 for row in pixels[top::dy, left::dx]]
    made["interlaced"] = png(struct.pack(">IIBBBBB", 21, 17, 8, 2, 0, 0, 1), b"".join(rows))
    made["bomb"] = png(struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0), b"\0" * 1000)
    made["cut-off"] = made["rgb"][: len(made["rgb"]) * 2 // 3]
    return {f"{name}.png": data for name, data in made.items()}


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in (jpegs() | pngs()).items():
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
