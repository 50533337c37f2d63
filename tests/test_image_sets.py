from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from guerdon.benchmarks.image_sets import Equaliser, ImageSet, read_prompts
from guerdon.core.errors import GuerdonError


def picture(seed: int, width: int = 16, height: int = 16) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        picture(number).save(tmp_path / f"img{number}.png")
    (tmp_path / "notes.txt").write_text("not an image")
    found = ImageSet("model", tmp_path)
    assert found.keys == ["img1", "img2", "img10"] and not found.positional
    assert np.array_equal(np.asarray(found.picture(2)), np.asarray(picture(10)))


def test_photographs_are_turned_upright_and_made_rgb(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees to view
    picture(0, width=20, height=12).save(tmp_path / "a.png", exif=exif)
    picture(1).convert("L").save(tmp_path / "b.png")
    found = ImageSet("real", tmp_path)
    assert found.picture(0).size == (12, 20)
    assert found.picture(1).mode == "RGB"
    assert found.short_sides() == [12, 16]


def test_tensor_and_list_sources_agree() -> None:
    tensor = torch.rand(3, 3, 9, 11, generator=torch.Generator().manual_seed(0))
    found = ImageSet("model", tensor)
    assert torch.equal(found.tensor(1), tensor[1:2]) and found.keys == ["00000", "00001", "00002"]
    listed = ImageSet("model", [found.picture(i) for i in range(3)])
    assert torch.allclose(listed.tensor(1), tensor[1:2], atol=0.5 / 255 + 1e-6)
    assert found.short_sides() == listed.short_sides() == [9, 9, 9]


def test_pairing_goes_by_stem_between_folders_and_by_order_otherwise(tmp_path: Path) -> None:
    for folder, names in (("a", ("0", "1")), ("b", ("0", "1")), ("c", ("0", "2"))):
        (tmp_path / folder).mkdir()
        for name in names:
            picture(0).save(tmp_path / folder / f"{name}.png")
    a, b, c = (ImageSet(name, tmp_path / name) for name in "abc")
    assert a.mismatch(b) is None
    assert a.mismatch(c) == "a has '1' where c has '2'"
    assert c.mismatch(ImageSet("t", torch.rand(2, 3, 8, 8))) is None
    assert c.mismatch(ImageSet("t", torch.rand(3, 3, 8, 8))) == "c has 2 images, t has 3"


def test_bad_sources_are_named(tmp_path: Path) -> None:
    with pytest.raises(GuerdonError, match="no folder"):
        ImageSet("model", tmp_path / "absent")
    (tmp_path / "photo").mkdir()
    with pytest.raises(GuerdonError, match="no image .* it has folders: photo"):
        ImageSet("model", tmp_path)
    (tmp_path / "a.png").write_bytes(b"not a png")
    with pytest.raises(GuerdonError, match="a.png: not a readable image"):
        ImageSet("model", tmp_path).picture(0)
    buffer = io.BytesIO()
    picture(0, 64, 64).save(buffer, format="PNG")
    (tmp_path / "a.png").write_bytes(buffer.getvalue()[:400])  # header intact, data cut off
    with pytest.raises(GuerdonError, match="a.png: not a readable image"):
        ImageSet("model", tmp_path).picture(0)
    picture(0).save(tmp_path / "a.jpg")
    with pytest.raises(GuerdonError, match="share a stem"):
        ImageSet("model", tmp_path)
    with pytest.raises(GuerdonError, match="item 1 is a str"):
        ImageSet("model", [picture(0), "b.png"])  # type: ignore[list-item]
    with pytest.raises(GuerdonError, match="there are no images"):
        ImageSet("model", [])


def test_equaliser_sends_everything_through_one_path() -> None:
    wide, small = ImageSet("a", [picture(0, 60, 40)]), ImageSet("b", torch.rand(1, 3, 24, 24))
    equaliser = Equaliser.for_sets([wide, small], "jpeg:90", "auto")
    assert equaliser.side == 24
    assert equaliser.picture(wide, 0).size == equaliser.picture(small, 0).size == (24, 24)
    buffer = io.BytesIO()
    small.picture(0).save(buffer, format="JPEG", quality=90)
    assert np.array_equal(np.asarray(equaliser.picture(small, 0)), np.asarray(Image.open(buffer).convert("RGB")))
    cropped = Equaliser("png", 40).picture(wide, 0)
    assert np.array_equal(np.asarray(cropped), np.asarray(wide.picture(0))[:, 10:50])  # a square is cut, not squashed


def test_equaliser_can_be_switched_off() -> None:
    tensor = torch.rand(2, 3, 10, 12)
    images = ImageSet("a", tensor)
    assert torch.equal(Equaliser(None, None).tensor(images, 1), tensor[1:2])
    assert torch.allclose(Equaliser("png", None).tensor(images, 1), tensor[1:2], atol=0.5 / 255 + 1e-6)


def test_batches_keep_order_and_split_at_a_change_of_size() -> None:
    sizes = [8, 8, 8, 10, 10, 8]
    images = ImageSet("a", [picture(i, side, side) for i, side in enumerate(sizes)])
    found = list(Equaliser(None, None).batches(images, batch_size=2))
    assert [(start, tuple(batch.shape[::3])) for start, batch in found] == [
        (0, (2, 8)),
        (2, (1, 8)),
        (3, (2, 10)),
        (5, (1, 8)),
    ]
    assert all(
        torch.equal(batch[i : i + 1], images.tensor(start + i)) for start, batch in found for i in range(len(batch))
    )


@pytest.mark.parametrize("codec", ["jpg", "jpeg", "jpeg:0", "jpeg:101", "jpeg:high", "webp:90"])
def test_unknown_codecs_are_refused(codec: str) -> None:
    with pytest.raises(GuerdonError, match="unknown codec .* choices: 'png', 'jpeg:1' to 'jpeg:100', None"):
        Equaliser(codec, None)


def test_other_settings_and_prompts(tmp_path: Path) -> None:
    images = ImageSet("a", [picture(0)])
    with pytest.raises(GuerdonError, match="unknown size 'small'"):
        Equaliser.for_sets([images], "png", "small")  # type: ignore[arg-type]
    with pytest.raises(GuerdonError, match="at least 8 pixels; got 4"):
        Equaliser("png", 4)
    (tmp_path / "prompt.txt").write_text("a cat\na dog\n", encoding="utf-8")
    assert read_prompts(tmp_path / "prompt.txt") == ["a cat", "a dog"] == read_prompts(["a cat", "a dog"])
    with pytest.raises(GuerdonError, match="cannot read prompts"):
        read_prompts(tmp_path / "absent.txt")
