"""Small drawn sets with boxes, written in each of the layouts that are read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.factories import png
from tests.prepare.official import voc_object, voc_xml

NAMES = ("ant", "bee", "cow")
Box = tuple[float, float, float, float]  # x1, y1, x2, y2


@dataclass(frozen=True)
class Picture:
    name: str
    data: bytes
    size: tuple[int, int]  # width, height
    boxes: tuple[tuple[int, Box], ...]  # label, place


Parts = Mapping[str, Sequence[Picture]]


def picture(name: str, boxes: Sequence[tuple[int, Box]], width: int = 32, height: int = 24,
            seed: int | None = None) -> Picture:  # fmt: skip
    random = np.random.RandomState(sum(name.encode()) * 7 if seed is None else seed)
    pixels = random.randint(0, 256, (height, width, 3), np.uint8)
    return Picture(f"{name}.png", png(pixels), (width, height), tuple(boxes))


def some() -> dict[str, list[Picture]]:
    """Three images to train on, one of them without boxes, and two to test."""
    return {
        "train": [
            picture("a", [(0, (1, 2, 11, 12)), (1, (0, 0, 32, 24))]),
            picture("b", []),
            picture("c", [(2, (5, 5, 9.5, 20))], width=40, height=30),
        ],
        "test": [
            picture("d", [(1, (3, 4, 13, 9))]),
            picture("e", [(0, (2, 2, 30, 22)), (2, (8, 1, 9, 3))]),
        ],
    }


def _write(path: Path, data: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def coco_facts(pictures: Sequence[Picture]) -> dict[str, Any]:
    """COCO's JSON; category ids have gaps and do not stand in order."""
    images = [
        {"id": 10 * i, "file_name": p.name, "width": p.size[0], "height": p.size[1]}
        for i, p in enumerate(pictures)
    ]
    notes = [
        {
            "id": 100 * i + k, "image_id": 10 * i, "category_id": 3 * label + 1,
            "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0,
        }
        for i, p in enumerate(pictures) for k, (label, (x1, y1, x2, y2)) in enumerate(p.boxes)
    ]  # fmt: skip
    categories = [{"id": 3 * i + 1, "name": name} for i, name in enumerate(NAMES)]
    return {"images": images, "annotations": notes, "categories": categories[::-1]}


def write_coco(root: Path, parts: Parts, roboflow: bool = False) -> Path:
    for part, year in (("train", "train2017"), ("test", "val2017")):
        facts = json.dumps(coco_facts(parts[part]))
        folder = root / ("valid" if roboflow and part == "test" else part if roboflow else year)
        annotations = folder / "_annotations.coco.json"
        _write(annotations if roboflow else root / f"annotations/instances_{year}.json", facts)
        for p in parts[part]:
            _write(folder / p.name, p.data)
    return root


def write_voc(root: Path, parts: Parts, lists: tuple[str, str] = ("trainval", "test")) -> Path:
    for part, name in zip(("train", "test"), lists, strict=True):
        stems = [Path(p.name).stem for p in parts[part]]
        _write(root / f"ImageSets/Main/{name}.txt", "\n".join(stems) + "\n")
        for p, stem in zip(parts[part], stems, strict=True):
            objects = [
                voc_object(NAMES[label], (x1 + 1, y1 + 1, x2, y2))
                for label, (x1, y1, x2, y2) in p.boxes
            ]
            size = f"<width>{p.size[0]}</width><height>{p.size[1]}</height>"
            xml = voc_xml(p.name, objects).decode()
            xml = xml.replace("<width>24</width><height>20</height>", size)
            _write(root / f"Annotations/{stem}.xml", xml)
            _write(root / f"JPEGImages/{p.name}", p.data)
    return root


def write_yolo(root: Path, parts: Parts, test: str = "val", names: str = "yaml") -> Path:
    for part, folder in (("train", "train"), ("test", test)):
        for p in parts[part]:
            width, height = p.size
            lines = [
                f"{label} {(x1 + x2) / 2 / width:.9f} {(y1 + y2) / 2 / height:.9f} "
                f"{(x2 - x1) / width:.9f} {(y2 - y1) / height:.9f}\n"
                for label, (x1, y1, x2, y2) in p.boxes
            ]
            _write(root / f"images/{folder}/{p.name}", p.data)
            if lines:
                label = Path(p.name).with_suffix(".txt")
                _write(root / f"labels/{folder}/{label}", "".join(lines))
    if names == "yaml":
        numbered = "".join(f"  {i}: {name}\n" for i, name in enumerate(NAMES))
        paths = f"path: .\ntrain: images/train\nval: images/{test}\n"
        _write(root / "data.yaml", f"{paths}names:\n{numbered}")
    else:
        _write(root / "classes.txt", "\n".join(NAMES) + "\n")
    return root


def write_objects(
    path: Path, images: Sequence[bytes], objects: Sequence[Any], names: Sequence[str] | None = NAMES
) -> None:
    """A Parquet file with boxes; ``objects`` are structs of lists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = {name: pa.list_(pa.int64()) for name in ("category", "difficult", "iscrowd")}
    fields |= {"bbox": pa.list_(pa.list_(pa.float32())), "area": pa.list_(pa.float32())}
    have = {name for one in objects if one for name in one} or {"bbox", "category"}
    kind = pa.struct([(name, type_) for name, type_ in fields.items() if name in have])
    cells = [{"bytes": data, "path": None} for data in images]
    image = pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    table = pa.table({"image": image, "objects": pa.array(list(objects), kind)})
    if names is not None:
        category = {"feature": {"names": list(names), "_type": "ClassLabel"}, "_type": "List"}
        info = {"info": {"features": {"objects": {"category": category}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    pq.write_table(table, path)


def write_boxes(root: Path, parts: Parts) -> Path:
    """The same set in Parquet."""
    for part, pictures in parts.items():
        objects = [
            {
                "bbox": [[x1, y1, x2 - x1, y2 - y1] for _, (x1, y1, x2, y2) in p.boxes],
                "category": [label for label, _ in p.boxes],
            }
            for p in pictures
        ]
        path = root / f"{part}-00000-of-00001.parquet"
        write_objects(path, [p.data for p in pictures], objects)
    return root
