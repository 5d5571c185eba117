"""Photos to tensors: the pixels are Pillow's, the errors are clear, the draws repeat."""

import io
import pickle
import struct
import zlib

import numpy as np
import penstock as ps
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from photos import array, difference, encode, jpeg, photo, pillow
from PIL import Image, ImageOps
from support import quiet_loader

BILINEAR = Image.Resampling.BILINEAR
HWC = ps.image.layout("HWC")


def run(encoded, *steps, mode="RGB", **key):
    return ps.image.transform(encoded, [ps.image.decode(mode), *steps, HWC], **key)


def crop_box(image, box):
    top, left, height, width = box
    return image.crop((left, top, left + width, top + height))


SUBSAMPLINGS = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS.values(), ids=SUBSAMPLINGS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_random_resized_crops_are_those_of_pillow(mode, subsampling, progressive):
    encoded = jpeg(mode=mode, subsampling=subsampling, progressive=progressive)
    step = ps.image.random_resized_crop(224)
    for row in range(12):
        (drawn,) = ps.image.drawn([ps.image.decode(), step], (375, 500), seed=7, row=row)
        expected = crop_box(pillow(encoded), drawn["box"]).resize((224, 224), BILINEAR)
        ours = run(encoded, step, seed=7, row=row)
        assert difference(ours, expected) == (0, 0), drawn


# Every border of a crop, whatever the blocks of the JPEG do there.
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS.values(), ids=SUBSAMPLINGS)
def test_small_crops_anywhere_are_exact(subsampling):
    encoded = jpeg((97, 61), subsampling=subsampling)
    full = array(pillow(encoded))
    step = ps.image.random_crop((9, 13))
    steps = [ps.image.decode(), step]
    places = set()
    for row in range(400):
        (drawn,) = ps.image.drawn(steps, (61, 97), row=row)
        top, left, height, width = drawn["box"]
        places |= {("top", top), ("left", left)}
        np.testing.assert_array_equal(
            run(encoded, step, row=row), full[top : top + height, left : left + width]
        )
    assert {("top", 0), ("top", 52), ("left", 0), ("left", 84)} <= places


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (2, 2), (8, 8), (17, 16), (33, 500)])
@pytest.mark.parametrize("to", [(1, 1), (5, 3), (64, 48), (300, 299)])
def test_sizes_of_every_class(size, to):
    for kind in (jpeg(size), encode(photo().resize(size), "PNG")):
        expected = pillow(kind).resize(to[::-1], BILINEAR)
        assert difference(run(kind, ps.image.resize(to)), expected) == (0, 0)


@pytest.mark.parametrize("size", [(640, 427), (427, 640), (256, 256)])
def test_the_usual_way_to_evaluate(size):
    encoded = jpeg(size)
    ours = run(encoded, ps.image.resize(256), ps.image.center_crop(224))
    short, long = min(size), max(size)
    other = 256 * long // short
    image = pillow(encoded).resize((256, other) if size[0] <= size[1] else (other, 256), BILINEAR)
    top, left = round((image.height - 224) / 2), round((image.width - 224) / 2)
    assert difference(ours, crop_box(image, (top, left, 224, 224))) == (0, 0)


def test_gray_jpegs_give_three_equal_channels():
    encoded = jpeg(mode="L")
    ours = run(encoded, ps.image.center_crop(64))
    assert (ours[..., 0] == ours[..., 1]).all()
    assert (ours[..., 0] == ours[..., 2]).all()
    assert difference(ours, crop_box(pillow(encoded), (156, 218, 64, 64))) == (0, 0)


# Of a colour JPEG the luminance is taken as it is stored; Pillow's convert() makes it from rounded colours.
def test_gray_pixels_of_colour_jpegs_are_close():
    mean, most = difference(
        run(jpeg(), ps.image.resize((224, 224)), mode="L"), pillow(jpeg(), "L").resize((224, 224), BILINEAR)
    )
    assert mean < 0.5
    assert most <= 3


def png_kinds():
    image = photo().resize((61, 47))
    rng = np.random.default_rng(0)
    alpha = image.copy()
    alpha.putalpha(Image.fromarray(rng.integers(0, 256, (47, 61), dtype=np.uint8)))
    return {
        "RGB": image,
        "RGBA": alpha,
        "L": image.convert("L"),
        "LA": alpha.convert("LA"),
        "1": image.convert("1"),
        "P": image.quantize(200),
        "P4": image.quantize(11),
    }


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("kind", png_kinds())
def test_pngs_of_every_kind(kind, mode):
    encoded = encode(png_kinds()[kind], "PNG")
    expected = pillow(encoded, mode)
    assert difference(run(encoded, ps.image.resize((47, 61)), mode=mode), expected) == (0, 0)
    ours = run(encoded, ps.image.resize((20, 30)), mode=mode)
    assert difference(ours, expected.resize((30, 20), BILINEAR)) == (0, 0)


def test_png_of_16_bits_keeps_the_upper_ones():
    values = np.arange(0, 65536, 151, dtype=np.uint16)[:400].reshape(20, 20)
    encoded = encode(Image.fromarray(values), "PNG")
    ours = run(encoded, ps.image.resize((20, 20)), mode="L")
    np.testing.assert_array_equal(ours[..., 0], values >> 8)


def interlaced_png(pixels):
    """As PNG's Adam7 has it; Pillow writes none."""
    height, width, _ = pixels.shape
    passes = [
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ]
    rows = [b"\0" + row.tobytes() for top, left, dy, dx in passes for row in pixels[top::dy, left::dx]]

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"".join(rows)))
        + chunk(b"IEND", b"")
    )


def test_interlaced_pngs():
    pixels = array(photo().resize((61, 47)))
    encoded = interlaced_png(pixels)
    np.testing.assert_array_equal(array(pillow(encoded)), pixels)
    np.testing.assert_array_equal(run(encoded, ps.image.resize((47, 61))), pixels)
    ours = run(encoded, ps.image.center_crop((11, 9)))
    np.testing.assert_array_equal(ours, pixels[18:29, 26:35])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_orientation_on_request(kind, orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    encoded = encode(photo().resize((90, 61)), kind, exif=exif)
    turned = ImageOps.exif_transpose(pillow_with_exif(encoded)).convert("RGB")
    step = ps.image.random_resized_crop((48, 40))
    flip = ps.image.random_horizontal_flip()
    flips = set()
    for row in range(8):
        steps = [ps.image.decode(orientation=True), step, flip, HWC]
        crop, flipped = ps.image.drawn(steps, (turned.height, turned.width), row=row)
        expected = crop_box(turned, crop["box"]).resize((40, 48), BILINEAR)
        if flipped["flipped"]:
            expected = ImageOps.mirror(expected)
        flips.add(flipped["flipped"])
        assert difference(ps.image.transform(encoded, steps, row=row), expected) == (0, 0)
    assert flips == {True, False}
    plain = ps.image.transform(encoded, [ps.image.decode(), ps.image.resize((61, 90)), HWC])
    np.testing.assert_array_equal(plain, array(pillow(encoded)))


def pillow_with_exif(encoded):
    return Image.open(io.BytesIO(encoded))


def test_floats_layouts_and_types():
    encoded = jpeg()
    pixels = run(encoded, ps.image.resize((30, 20)))
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    base = [ps.image.decode(), ps.image.resize((30, 20))]
    expected = (pixels / 255 - mean) / std

    def made(*steps):
        return ps.image.transform(encoded, [*base, *steps])

    chw = made(ps.image.to_float(), ps.image.normalize(mean, std))
    assert chw.dtype == np.float32
    assert chw.shape == (3, 30, 20)
    np.testing.assert_allclose(chw, expected.transpose(2, 0, 1), atol=2e-6)
    np.testing.assert_array_equal(made(ps.image.normalize(mean, std)), chw)
    hwc = made(ps.image.normalize(mean, std), HWC)
    np.testing.assert_array_equal(hwc.transpose(2, 0, 1), chw)
    half = made(ps.image.to_float("float16"), ps.image.normalize(mean, std))
    np.testing.assert_array_equal(half, chw.astype(np.float16))
    np.testing.assert_allclose(made(ps.image.to_float()), pixels.transpose(2, 0, 1) / 255, atol=1e-7)
    np.testing.assert_array_equal(made(), pixels.transpose(2, 0, 1))
    gray = run(encoded, ps.image.resize((30, 20)), ps.image.normalize(0.5, 0.25), mode="L")
    plain = run(encoded, ps.image.resize((30, 20)), mode="L")
    np.testing.assert_allclose(gray, (plain / 255 - 0.5) / 0.25, atol=2e-6)


@pytest.mark.parametrize("settings", [{}, {"progressive": True}])
def test_truncated_and_damaged_files_are_errors(settings):
    encoded = jpeg(**settings)
    steps = ps.image.resize((224, 224))
    for keep in (4, 100, 600, len(encoded) // 2, len(encoded) - 60):
        with pytest.raises(ValueError, match="JPEG: "):
            run(encoded[:keep], steps)
    damaged = bytearray(encoded)
    damaged[len(encoded) // 2 : len(encoded) // 2 + 40] = b"\xff\xd9" * 20
    with pytest.raises(ValueError, match="JPEG: "):
        run(bytes(damaged), steps)


def test_truncated_and_damaged_pngs_are_errors():
    encoded = encode(photo().resize((90, 61)), "PNG")
    for keep in (10, 40, len(encoded) // 2, len(encoded) - 60):
        with pytest.raises(ValueError, match="PNG: "):
            run(encoded[:keep], ps.image.resize((8, 8)))
    damaged = bytearray(encoded)
    damaged[len(encoded) // 2] ^= 1
    with pytest.raises(ValueError, match="PNG: "):
        run(bytes(damaged), ps.image.resize((8, 8)))


def test_any_byte_may_be_wrong():
    rng = np.random.default_rng(3)
    for encoded in (
        jpeg((64, 48)),
        jpeg((64, 48), progressive=True),
        encode(photo().resize((64, 48)), "PNG"),
    ):
        for _ in range(300):
            damaged = bytearray(encoded)
            for place in rng.integers(0, len(encoded), 3):
                damaged[place] = rng.integers(0, 256)
            try:
                out = run(bytes(damaged), ps.image.resize((16, 16)))
            except ValueError:
                continue
            assert out.shape == (16, 16, 3)


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (b"", "no bytes at all"),
        (b"GIF89a..", "GIF"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "WebP"),
        (b"hello world", "68 65 6c"),
    ],
)
def test_other_formats_are_named(encoded, message):
    with pytest.raises(ValueError, match=f"neither JPEG nor PNG, but .*{message}"):
        run(encoded, ps.image.resize((8, 8)))


def test_pixel_bombs_are_refused_by_the_header():
    bomb = bytearray(encode(Image.new("1", (64, 64)), "PNG"))
    bomb[16:24] = struct.pack(">II", 60_000, 60_000)
    bomb[29:33] = struct.pack(">I", zlib.crc32(bomb[12:29]))
    with pytest.raises(ValueError, match="60000 x 60000 pixels, more than max_pixels"):
        run(bytes(bomb), ps.image.resize((8, 8)))
    steps = [ps.image.decode(max_pixels=500 * 375 - 1), ps.image.resize((8, 8))]
    with pytest.raises(ValueError, match="500 x 375 pixels, more than max_pixels"):
        ps.image.transform(jpeg(), steps)


D, R = ps.image.decode(), ps.image.resize((8, 8))


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([], "first step on an image is decode"),
        ([R], "first step on an image is decode"),
        ([D], "size of what comes out is not fixed"),
        ([D, ps.image.resize(8)], "size of what comes out is not fixed"),
        ([D, D, R], "decode is given twice"),
        ([D, R, R], "resized once"),
        ([D, R, ps.image.random_resized_crop(8)], "resized once"),
        ([D, ps.image.to_float(), R], "comes before to_float"),
        ([D, R, ps.image.to_float(), ps.image.to_float()], "floats already"),
        ([D, R, ps.image.normalize((0, 0), 1)], "one entry, or one for each"),
        ([D, R, HWC, HWC], "layout is given twice"),
    ],
)
def test_steps_that_make_no_sense(steps, message):
    with pytest.raises(ValueError, match=message):
        ps.image.transform(jpeg(), steps)


def test_arguments_are_checked():
    for make, error in [
        (lambda: ps.image.decode("CMYK"), ValueError),
        (lambda: ps.image.resize(0), ValueError),
        (lambda: ps.image.resize("8"), TypeError),
        (lambda: ps.image.center_crop((1, 2, 3)), ValueError),
        (lambda: ps.image.random_resized_crop(8, scale=(0.5, 2)), ValueError),
        (lambda: ps.image.random_resized_crop(8, ratio=(2, 1)), ValueError),
        (lambda: ps.image.random_horizontal_flip(1.5), ValueError),
        (lambda: ps.image.to_float("int8"), ValueError),
        (lambda: ps.image.normalize(0.5, 0), ValueError),
        (lambda: ps.image.layout("CWH"), ValueError),
        (lambda: ps.image.transform(b"", [ps.ops.cast("int8")]), TypeError),
    ]:
        with pytest.raises(error):
            make()
    step = ps.image.random_resized_crop([4, 5], scale=[0.5, 1])
    assert pickle.loads(pickle.dumps(step)) == step
    assert hash(step) == hash(step)
    with pytest.raises(ValueError, match=r"random_crop.*put a resize in front"):
        run(jpeg((20, 20)), ps.image.random_crop(21))


# What is drawn is spread as asked for, and differs between rows, epochs, files and steps.
def test_draws_follow_their_distribution():
    steps = [D, ps.image.random_resized_crop(8), ps.image.random_horizontal_flip(0.25)]
    drawn = [ps.image.drawn(steps, (375, 500), row=row) for row in range(2000)]
    areas = np.array([crop["box"][2] * crop["box"][3] / (375 * 500) for crop, _ in drawn])
    assert areas.min() > 0.07
    assert areas.max() <= 1
    assert 0.4 < areas.mean() < 0.5
    assert 0.2 < np.mean([flip["flipped"] for _, flip in drawn]) < 0.3
    for other in ({"seed": 1}, {"epoch": 1}, {"file": 1}, {"row": 1}):
        assert ps.image.drawn(steps, (375, 500), **other)[0] != drawn[0][0]
    twice = [D, ps.image.random_crop(300), ps.image.random_crop(200)]
    first, second = ps.image.drawn(twice, (375, 500))
    assert first["step"] == second["step"] == "random_crop"
    assert first["box"][:2] != second["box"][:2]


@pytest.fixture(scope="module")
def photo_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for part in range(2):
        rows = range(part * 20, part * 20 + 20)
        images = [jpeg((90 + row, 70), "flower" if row % 3 else "china") for row in rows]
        table = pa.table({"image": pa.array(images, pa.binary()), "label": list(rows)})
        pq.write_table(table, folder / f"{part}.parquet", row_group_size=7)
    return folder


STEPS = [
    ps.image.decode(),
    ps.image.random_resized_crop(32),
    ps.image.random_horizontal_flip(),
    ps.image.normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
]


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_the_loader_gives_what_transform_gives(photo_files, num_workers):
    with quiet_loader(
        photo_files,
        batch_size=16,
        columns=["image", "label", ps.ROW_ID, ps.FILE],
        transforms={"image": STEPS},
        num_workers=num_workers,
    ) as loader:
        batches = list(loader)
        assert loader.memory()["decode"]["current_bytes"] == 0
    images = np.concatenate([batch["image"] for batch in batches])
    assert images.shape == (40, 3, 32, 32)
    assert images.dtype == np.float32
    rows = [row for part in range(2) for row in pq.read_table(photo_files / f"{part}.parquet").to_pylist()]
    ids = [
        (int(file), int(row))
        for batch in batches
        for file, row in zip(batch[ps.FILE], batch[ps.ROW_ID], strict=True)
    ]
    for image, row, (file, row_id) in zip(images, rows, ids, strict=True):
        np.testing.assert_array_equal(image, ps.image.transform(row["image"], STEPS, file=file, row=row_id))


# Epochs draw anew; what a resumed loader gives is what the uninterrupted one would have given.
def test_draws_follow_seed_and_epoch_also_after_a_resume(photo_files):
    def loader(**options):
        return quiet_loader(photo_files, batch_size=16, transforms={"image": STEPS}, num_workers=2, **options)

    first_row = pq.read_table(photo_files / "0.parquet")["image"][0].as_py()
    with loader(seed=5) as whole:
        epochs = [[batch["image"].copy() for batch in whole] for _ in range(2)]
    for epoch, batches in enumerate(epochs):
        expected = ps.image.transform(first_row, STEPS, seed=5, epoch=epoch)
        np.testing.assert_array_equal(batches[0][0], expected)
    assert not np.array_equal(epochs[0][0], epochs[1][0])
    with loader(seed=5) as broken:
        broken.set_epoch(1)
        iterator = iter(broken)
        next(iterator)
        state = broken.state_dict()
        iterator.close()
    with loader(seed=5) as resumed:
        resumed.load_state_dict(state)
        for batch, expected in zip(resumed, epochs[1][1:], strict=True):
            np.testing.assert_array_equal(batch["image"], expected)
    with loader(seed=5, epochs=2) as joined:
        images = np.concatenate([batch["image"].copy() for batch in joined])
    np.testing.assert_array_equal(images, np.concatenate([*epochs[0], *epochs[1]]))


def test_a_bad_image_is_named(tmp_path):
    images = [jpeg((40, 30))] * 5 + [jpeg((40, 30))[:300], b"?"]
    pq.write_table(
        pa.table({"image": pa.array(images, pa.binary())}), tmp_path / "x.parquet", row_group_size=4
    )
    with (
        ps.Loader(tmp_path / "x.parquet", batch_size=2, transforms={"image": STEPS}) as loader,
        pytest.raises(ValueError, match=r"x\.parquet.*row group 1.*column 'image'.*row 1: image: JPEG: "),
    ):
        list(loader)
    pq.write_table(pa.table({"image": pa.array([None], pa.binary())}), tmp_path / "null.parquet")
    with (
        ps.Loader(tmp_path / "null.parquet", batch_size=1, transforms={"image": STEPS}) as loader,
        pytest.raises(ValueError, match="row 0: image: the image is missing; pass on_error"),
    ):
        list(loader)
    with pytest.raises(TypeError, match="column of binary values, not of int64"):
        ps.Loader(pa.table({"image": [1]}), batch_size=1, transforms={"image": STEPS})
    struct = pa.table({"photo": [{"bytes": b"", "path": "a"}]})
    with pytest.raises(TypeError, match=r'take the field that has them: ps\.col\("photo\.bytes"\)'):
        ps.Loader(struct, batch_size=1, transforms={"photo": STEPS})
