"""Where rows come from: one reader a format, each giving (place, row) or a bad row with its reason."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from guerdon.core.errors import GuerdonError, nearest

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".parquet", ".csv", ".zip")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
CAPTIONS = ("prompt", "text", "caption")
METADATA = "metadata.jsonl"
LARGEST_PICTURE = 256 * 2**20


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used: ``file:row``, the reason, and what could be read of it."""

    where: str
    reason: str
    values: Any = None


Row = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Source:
    """A named supply of rows.

    rows:     given the required columns, each row or bad row; a row holds at least those of them that it has.
    columns:  the names of all columns where they are known beforehand.
    images:   it has a column ``image`` of encoded pictures.
    dataset:  the datasets.Dataset that the rows come from, where row i is the one named ``...:i``.
    """

    name: str
    rows: Callable[[tuple[str, ...]], Iterator[Row | BadRow]]
    columns: tuple[str, ...] = ()
    images: bool = False
    dataset: Any = None

    @classmethod
    def of_dataset(cls, name: str, dataset: Any) -> Source:
        """Rows of a datasets.Dataset; only required columns are looked at, and pictures are not decoded."""

        def rows(needed: tuple[str, ...]) -> Iterator[Row | BadRow]:
            raw = dataset.with_format(None).select_columns([key for key in dataset.column_names if key in needed])
            for column, feature in raw.features.items():
                if type(feature).__name__ in ("Image", "Audio", "Video"):
                    raw = raw.cast_column(column, type(feature)(decode=False))
            for number in range(len(dataset)):
                yield f"{name}:{number}", dict(raw[number]) if raw.column_names else {}

        return cls(name, rows, tuple(dataset.column_names), dataset=dataset)


def open_source(path: Path) -> Source:
    """The source for a path that exists; a folder with one data file and no images means that file.

    Raises GuerdonError for a format that is not among ``SUFFIXES``, or a folder with nothing, or several, to choose.
    """
    name = path.name.lower()
    if path.is_dir():
        return _image_folder(path)
    if name.endswith(".zip"):
        return _zipped_folder(path)
    if name.endswith((".jsonl", ".json", ".jsonl.gz")):
        return Source(str(path), lambda _: _json_lines(path))
    if name.endswith(".csv"):
        return Source(str(path), lambda _: _csv(path))
    if name.endswith(".parquet"):
        return _parquet(path)
    raise GuerdonError(f"{path}: unknown format; choices: {', '.join(SUFFIXES)} or a folder of images")


def _json_lines(path: Path) -> Iterator[Row | BadRow]:
    opened: IO[bytes] = gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")  # type: ignore[assignment]
    number = 0
    with opened as file:
        lines = iter(file)
        while True:
            try:
                line = next(lines, None)
            except (OSError, EOFError, zlib.error) as error:
                yield BadRow(f"{path}:{number + 1}", f"the file is damaged from here on ({error})")
                return
            if line is None:
                return
            number += 1
            row = _json_line(line, f"{path}:{number}", first=number == 1)
            if row is not None:
                yield row


def _json_line(line: bytes, where: str, *, first: bool = False) -> Row | BadRow | None:
    try:
        text = line.decode("utf-8-sig" if first else "utf-8").strip()
    except UnicodeDecodeError as error:
        return BadRow(where, f"not UTF-8 (byte {error.start} is 0x{line[error.start]:02x})", repr(line[:200]))
    if not text:
        return None
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        return BadRow(where, f"not JSON ({error})", text[:200])
    if not isinstance(row, dict):
        return BadRow(where, f"a row is an object, not {type(row).__name__}", row)
    return where, row


def _csv(path: Path) -> Iterator[Row | BadRow]:
    lines: list[str] = []
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        try:
            lines.append(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError as error:
            # Quoted fields may span lines, so the rest of the file cannot be told apart from here on.
            byte = f"byte {error.start} is 0x{line[error.start]:02x}"
            raise GuerdonError(f"{path}:{number}: not UTF-8 ({byte})") from None
    reader = csv.reader(lines)
    header = next(reader, [])
    rows: list[tuple[str, list[str]]] = []
    for cells in reader:
        if cells:
            rows.append((f"{path}:{reader.line_num}", cells))
    whole = [cells for _, cells in rows if len(cells) == len(header)]
    readers = [_cell_reader([cells[place] for cells in whole]) for place in range(len(header))]
    for where, cells in rows:
        if len(cells) == len(header):
            yield where, {key: read(cell) for key, read, cell in zip(header, readers, cells, strict=True)}
        else:
            yield BadRow(where, f"{len(cells)} cells for {len(header)} columns", cells)


def _cell_reader(cells: list[str]) -> Callable[[str], Any]:
    """How to read a column: as whole numbers, numbers, or text, whichever fits every cell that is not empty."""
    for kind in (int, float):
        try:
            for cell in cells:
                if cell.strip():
                    kind(cell)
        except ValueError:
            continue
        if any(cell.strip() for cell in cells):
            return lambda cell, kind=kind: kind(cell) if cell.strip() else None  # type: ignore[misc]
    return lambda cell: cell if cell else None


def _parquet(path: Path) -> Source:
    from datasets import Dataset
    from pyarrow import ArrowException
    from pyarrow.parquet import read_table

    try:
        dataset = Dataset(read_table(path))
    except (ArrowException, OSError, ValueError) as error:
        raise GuerdonError(f"{path} is not a parquet file that can be read: {error}") from None
    return Source.of_dataset(str(path), dataset)


def _image_folder(folder: Path) -> Source:
    root = folder.resolve()
    files = {
        str(PurePosixPath(*path.relative_to(folder).parts)): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }
    if not any(name.lower().endswith(PICTURES) for name in files) and METADATA not in files:
        data = [name for name in files if name.lower().endswith(SUFFIXES)]
        if len(data) == 1:
            return open_source(folder / data[0])
        hint = f"; did you mean {str(folder / data[0])!r}?" if data else ""
        raise GuerdonError(f"{folder} is not a folder of images{hint}")

    def read(name: str) -> bytes:
        if not files[name].resolve().is_relative_to(root):
            raise OSError("it lies outside the folder")
        return files[name].read_bytes()

    return Source(str(folder), lambda _: _pictures(str(folder), list(files), read, folder=root), images=True)


def _zipped_folder(path: Path) -> Source:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {info.filename: info for info in archive.infolist() if not info.is_dir()}
    except (zipfile.BadZipFile, OSError) as error:
        raise GuerdonError(f"{path} is not a zip file that can be read: {error}") from None
    # Nothing is ever extracted, but a name that leaves the folder is not a picture of this folder either.
    safe = [name for name in entries if _is_inside(name) and not name.startswith("__MACOSX/")]
    tops = {PurePosixPath(name).parts[0] for name in safe}
    top = f"{tops.pop()}/" if len(tops) == 1 and METADATA not in safe and all("/" in name for name in safe) else ""
    names = [name.removeprefix(top) for name in safe]

    def rows(_: tuple[str, ...]) -> Iterator[Row | BadRow]:
        for name in entries:
            if not _is_inside(name):
                yield BadRow(f"{path}:{name}", "its name leads outside the archive")
        with zipfile.ZipFile(path) as archive:

            def read(name: str) -> bytes:
                info = entries[top + name]
                if info.file_size > LARGEST_PICTURE:
                    raise OSError(f"it is larger than {LARGEST_PICTURE // 2**20} MiB")
                try:
                    return archive.read(info)
                except (zipfile.BadZipFile, RuntimeError, NotImplementedError, zlib.error) as error:
                    raise OSError(str(error)) from None

            yield from _pictures(str(path), names, read)

    return Source(str(path), rows, images=True)


def _is_inside(name: str) -> bool:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return bool(parts) and ".." not in parts and not name.startswith(("/", "\\")) and ":" not in parts[0]


def _pictures(
    source: str, names: list[str], read: Callable[[str], bytes], folder: Path | None = None
) -> Iterator[Row | BadRow]:
    """Rows of a folder of images, from its metadata if there are any.

    ``read`` raises OSError with the reason; ``folder`` is where the files are, None where only their bytes are at hand.
    """
    there = set(names)
    pictures = [name for name in names if name.lower().endswith(PICTURES)]
    if METADATA not in there:
        yield from (_picture(f"{source}/{name}", name, {}, read, folder) for name in pictures)
        return
    described: set[str] = set()
    lines = [
        _json_line(line, f"{source}/{METADATA}:{number}", first=number == 1)
        for number, line in enumerate(io.BytesIO(read(METADATA)), 1)
    ]
    keys = {key for row in lines if isinstance(row, tuple) for key in row[1]}
    if keys and not keys.intersection(CAPTIONS):
        guess = next((near for caption in CAPTIONS if (near := nearest(caption, keys - {"file_name"}))), None)
        hint = f"; did you mean {guess!r}?" if guess else ""
        raise GuerdonError(f"{source}/{METADATA} has no column {', '.join(CAPTIONS)}{hint} columns: {sorted(keys)}")
    for row in lines:
        if row is None:
            continue
        if isinstance(row, BadRow):
            yield row
            continue
        where, values = row
        name = values.get("file_name")
        if not isinstance(name, str):
            yield BadRow(where, "column 'file_name' is missing", values)
        elif not _is_inside(name):
            yield BadRow(where, f"{name!r} leads outside the folder", values)
        elif name not in there:
            guess = nearest(name, there)
            yield BadRow(where, f"{name!r} does not exist" + (f"; the nearest is {guess!r}" if guess else ""), values)
        else:
            described.add(name)
            yield _picture(where, name, values, read, folder)
    for name in pictures:
        if name not in described:
            yield BadRow(f"{source}/{name}", f"{METADATA} has no row for this image", {"file_name": name})


def _picture(
    where: str, name: str, values: dict[str, Any], read: Callable[[str], bytes], folder: Path | None
) -> Row | BadRow:
    caption = next((values[key] for key in CAPTIONS if values.get(key) is not None), None)
    if values and (not isinstance(caption, str) or not caption.strip()):
        return BadRow(where, f"{name!r} has no caption ({', '.join(CAPTIONS)})", values)
    try:
        encoded = read(name)
        _decode(encoded)
    except OSError as error:
        return BadRow(where, f"image {name!r} cannot be read: {error}", values or {"file_name": name})
    # Pictures that lie on the disk stay there: only those of an archive are kept in memory.
    image = {"bytes": encoded, "path": name} if folder is None else {"bytes": None, "path": str(folder / name)}
    row = {**values, "file_name": name, "image": image}
    return where, {**row, "prompt": caption} if caption is not None else row


def _decode(encoded: bytes) -> None:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(encoded)) as picture:
            picture.load()  # a header may be whole where the pixels are not
    except UnidentifiedImageError:
        raise OSError("not a picture") from None
    except (SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise OSError(str(error) or type(error).__name__) from None
