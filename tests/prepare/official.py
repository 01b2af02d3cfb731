"""Small downloads in exactly the official layouts, and what a reader must find in them.

Every maker writes the authors' archives by their names, with the quirks that the real ones have,
and says what is on the list from what it wrote: nothing here knows the readers.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

from eval.prepare.listing import Box


@dataclass
class Made:
    """A small download, and the truth about it. The lists stand in the official order."""

    folder: Path
    classes: tuple[str, ...]
    names: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    data: dict[str, bytes] = field(default_factory=dict)  # what is in the download, by name
    boxes: dict[str, tuple[Box, ...]] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)  # of the reader: sizes of a small set

    def add(
        self, name: str, label: int, part: str = "", group: str = "", data: bytes | None = None
    ) -> None:
        self.names.append(name)
        self.labels.append(label)
        self.parts.append(part)
        self.groups.append(group)
        if data is not None:
            self.data[name] = data

    def sort(self, key: Callable[[str], Any]) -> None:
        """Put the list in order."""
        order = sorted(range(len(self.names)), key=lambda i: key(self.names[i]))
        columns: tuple[list[Any], ...] = (self.names, self.labels, self.parts, self.groups)
        for column in columns:
            column[:] = [column[i] for i in order]


def draw(
    seed: int, mode: str = "RGB", kind: str = "JPEG", size: tuple[int, int] = (24, 20)
) -> bytes:
    """An image file unlike any of another seed."""
    random = np.random.RandomState(seed)
    channels = {"1": 1, "L": 1, "RGB": 3, "RGBA": 4, "CMYK": 4}[mode]
    coarse = random.randint(0, 256, (4, 4, channels)).astype(np.uint8)
    array = np.kron(coarse, np.ones((size[1] // 4, size[0] // 4, 1), np.uint8))
    if mode == "1":
        image = Image.fromarray(array[..., 0]).point(lambda value: 255 * (value > 127)).convert("1")
    else:
        image = Image.fromarray(array[..., 0] if channels == 1 else array, mode)
    out = io.BytesIO()
    image.save(out, kind, **({"quality": 90} if kind == "JPEG" else {}))
    return out.getvalue()


def write_zip(path: Path, files: dict[str, bytes], mac: bool = False) -> None:
    """``mac``: with the shadow files that macOS packs beside the real ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        folders = dict.fromkeys(str(Path(name).parent) + "/" for name in files if "/" in name)
        for name in folders:
            archive.writestr(zipfile.ZipInfo(name), b"")
        for name, data in files.items():
            archive.writestr(name, data)
            if mac:
                head, _, tail = name.rpartition("/")
                archive.writestr(f"__MACOSX/{head}/._{tail}", b"\0\5\26\7shadow")


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> None:
    """``mode``: 'w' for .tar, 'w:gz' for .tar.gz and .tgz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]  # a mode as text
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def unpack(folder: Path) -> None:
    """Turn a download into its unpacked trees: every archive is replaced by what it holds."""
    for path in sorted(folder.iterdir()):
        if path.suffix in (".zip", ".tar", ".gz", ".tgz"):
            shutil.unpack_archive(path, folder, filter=None if path.suffix == ".zip" else "data")
            path.unlink()


def _write(path: Path, data: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def _mat(**values: Any) -> bytes:
    out = io.BytesIO()
    savemat(out, values, do_compression=True)
    return out.getvalue()


# --- folders that are classes ---------------------------------------------------------------------

CROPS = (
    "Apple___Apple_scab",
    "Cherry_(including_sour)___healthy",
    "Corn_(maize)___Cercospora_leaf_spot Gray_leaf_spot",
    "Pepper,_bell___Bacterial_spot",
)


def make_cropdisease(
    folder: Path, classes: Sequence[str] = CROPS, train: int = 4, test: int = 2
) -> Made:
    """CropDiseases.zip of the CD-FSL benchmark: names with spaces, suffixes of both cases."""
    made = Made(folder, tuple(classes))
    files = {}
    for part, count in (("train", train), ("test", test)):
        for label, cls in enumerate(classes):
            for n in range(count):
                seed = 10_000 + 100 * label + n + (50 if part == "test" else 0)
                # PlantVillage has a few png and RGBA files among its JPEGs.
                png = n == count - 1 and label == 0
                data = draw(seed, "RGBA" if png else "RGB", "PNG" if png else "JPEG")
                suffix = "png" if png else ("JPG", "jpg")[n % 2]
                name = f"{part}/{cls}/{seed * 7919 % 99991:08x}-a___RS_HL {n}.{suffix}"
                files[f"CropDiseases/{name}"] = data
                made.add(name, label, part, data=data)
    made.sort(lambda name: (made.parts[made.names.index(name)] != "train", name.split("/")))
    write_zip(folder / "CropDiseases.zip", files, mac=True)
    return made


LAND = (
    "AnnualCrop",
    "Forest",
    "HerbaceousVegetation",
    "Highway",
    "Industrial",
    "Pasture",
    "PermanentCrop",
    "Residential",
    "River",
    "SeaLake",
)


def make_eurosat(
    folder: Path, per_class: int = 11, without: Collection[str] = (), top: str = "2750"
) -> Made:
    """EuroSAT.zip. From 10 images a class on, names sort as strings: _1, _10, _11, _2."""
    made = Made(folder, LAND, options={"expected": dict.fromkeys(LAND, per_class)})
    files = {}
    for label, cls in enumerate(LAND):
        for n in range(1, per_class + 1):
            name = f"{cls}/{cls}_{n}.jpg"
            data = draw(20_000 + 100 * label + n)
            made.add(name, label, data=None if name in without else data)
            if name not in without:
                files[f"{top}/{name}"] = data
    made.sort(lambda name: name.split("/"))
    write_zip(folder / "EuroSAT.zip", files)
    return made


SCENES = ("airplane", "baseball_diamond", "palace", "wetland")


def make_resisc45(
    folder: Path,
    classes: Sequence[str] = SCENES,
    per_class: int = 4,
    without: Collection[str] = (),
    flattened: bool = False,
) -> Made:
    """NWPU-RESISC45.zip; ``flattened``: a folder of what ``unrar e`` leaves, without folders."""
    made = Made(folder, tuple(classes), options={"expected": dict.fromkeys(classes, per_class)})
    for label, cls in enumerate(classes):
        for n in range(1, per_class + 1):
            name = f"{cls}/{cls}_{n:03d}.jpg"
            data = draw(30_000 + 100 * label + n)
            made.add(name, label, data=None if name in without else data)
    made.sort(lambda name: name.split("/"))
    if flattened:
        for name, data in made.data.items():
            _write(folder / "Resisc45" / name.split("/")[1], data)
    else:
        files = {f"NWPU-RESISC45/{name}": data for name, data in made.data.items()}
        write_zip(folder / "NWPU-RESISC45.zip", files)
    return made


CHARACTERS = (
    "Angelic/character01",
    "Angelic/character02",
    "Old_Church_Slavonic_(Cyrillic)/character01",
)


def make_omniglot(
    folder: Path,
    classes: Sequence[str] = CHARACTERS,
    without: Collection[str] = (),
    background: bool = True,
    evaluation: bool = True,
) -> Made:
    """images_evaluation.zip and images_background.zip: 1-bit pictures, 20 drawings a character."""
    made = Made(folder, tuple(classes))
    for label, cls in enumerate(classes):
        for drawer in range(1, 21):
            name = f"{cls}/{965 + label:04d}_{drawer:02d}.png"
            data = draw(40_000 + 100 * label + drawer, "1", "PNG", (28, 28))
            made.add(name, label, data=None if name in without else data)
    made.sort(lambda name: name.split("/"))
    if evaluation:
        files = {f"images_evaluation/{name}": data for name, data in made.data.items()}
        write_zip(folder / "images_evaluation.zip", files)
    if background:
        files = {
            f"images_background/Greek/character01/{394:04d}_{drawer:02d}.png": draw(
                49_000 + drawer, "1", "PNG", (28, 28)
            )
            for drawer in range(1, 4)
        }
        write_zip(folder / "images_background.zip", files)
    return made


WNIDS = ("n01440764 tench", "n01443537 goldfish", "n01484850 great white shark")


def make_sketch(folder: Path, classes: Sequence[str] = WNIDS, per_class: int = 4) -> Made:
    """ImageNet-Sketch.zip: numbers from 0 with gaps; grey and CMYK files among the RGB ones."""
    made = Made(folder, tuple(classes))
    for label, cls in enumerate(classes):
        for n in range(per_class):
            mode = ("RGB", "L", "CMYK", "RGB")[n % 4]
            name = f"{cls.split()[0]}/sketch_{5 * n}.JPEG"
            made.add(name, label, data=draw(50_000 + 100 * label + n, mode))
    made.sort(lambda name: name.split("/"))
    files = {f"sketch/{name}": data for name, data in made.data.items()}
    write_zip(folder / "ImageNet-Sketch.zip", files)
    return made


# --- lists of labels ------------------------------------------------------------------------------

WEEDS = (
    "Chinee apple",
    "Lantana",
    "Parkinsonia",
    "Parthenium",
    "Prickly acacia",
    "Rubber vine",
    "Siam weed",
    "Snake weed",
    "Negative",
)


def make_deepweeds(
    folder: Path, per_class: int = 3, without: Collection[str] = (), inner: str = ""
) -> Made:
    """images.zip, whose files lie at its top (``inner``: in this folder), and labels/labels.csv.

    Rows go by time, so the classes come mixed.
    """
    made = Made(folder, WEEDS)
    rows = ["Filename,Label,Species"]
    for n in range(per_class):
        for label in (8, *range(8)):
            name = f"2017{n + 1:02d}26-0951{label:02d}-{n % 4}.jpg"
            data = draw(60_000 + 100 * label + n)
            made.add(name, label, data=None if name in without else data)
            rows.append(f"{name},{label},{WEEDS[label]}")
    _write(folder / "labels" / "labels.csv", "\n".join(rows) + "\n")
    _write(folder / "labels" / "train_subset0.csv", "Filename,Label\n")
    write_zip(folder / "images.zip", {inner + name: data for name, data in made.data.items()})
    return made


FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumothorax",
)
CHESTX_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)


def make_chestx(
    folder: Path, per_class: int = 4, without: Collection[str] = (), v2020: bool = False
) -> Made:
    """Data_Entry_2017.csv and twelve image archives.

    Patients have several images, with several findings, none, or those that the task drops; one
    picture in five is RGBA. ``v2020``: the later release of the csv, without the last comma.
    """
    made = Made(folder, FINDINGS)
    rows = [CHESTX_HEADER.removesuffix(",") if v2020 else CHESTX_HEADER]
    end = "" if v2020 else ","
    archives: list[dict[str, bytes]] = [{} for _ in range(12)]
    patient = 0
    for n in range(per_class):
        for label, finding in enumerate(FINDINGS):
            patient += n % 2 == 0 or label % 3 == 0
            other = ("No Finding", "Pneumonia", "Hernia", f"{finding}|Edema")[(n + label) % 4]
            for follow, findings in enumerate((finding, other)):
                name = f"{patient:08d}_{2 * n + follow + 10 * label:03d}.png"
                data = draw(len(rows) + 70_000, "RGBA" if len(rows) % 5 == 0 else "L", "PNG")
                rows.append(
                    f"{name},{findings},{follow},{patient},{'058Y' if n else 58},M,PA,2682,2749,"
                    f"0.143,0.143{end}"
                )
                if name not in without:
                    archives[len(rows) % 12][f"images/{name}"] = data
                if findings == finding:
                    made.add(name, label, "", str(patient), None if name in without else data)
    name = "Data_Entry_2017_v2020.csv" if v2020 else "Data_Entry_2017.csv"
    _write(folder / name, "\n".join(rows) + "\n")
    for number, files in enumerate(archives, 1):
        write_tar(folder / f"images_{number:03d}.tar.gz", files, "w:gz")
    return made


DIAGNOSES = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")


def make_isic2018(
    folder: Path,
    per_class: int = 6,
    without: Collection[str] = (),
    lesions: str = "ISIC2018_Task3_Training_LesionGroupings.csv",
    suffix: str = "jpg",
) -> Made:
    """Inputs and ground truth as zips; two images a lesion. ``lesions``: the file that says which
    ('' for none); HAM10000's come as csv with or without suffix and as Dataverse's .tab."""
    made = Made(folder, DIAGNOSES)
    truth = ["image," + ",".join(DIAGNOSES)]
    groups: list[tuple[str, str, str]] = []  # image, lesion, diagnosis
    for n in range(per_class):
        for label, diagnosis in enumerate(DIAGNOSES):
            image = f"ISIC_{24306 + len(groups):07d}"
            lesion = f"HAM_{1000 * label + n // 2:07d}"
            groups.append((image, lesion, diagnosis.lower()))
            truth.append(
                image
                + ","
                + ",".join("1.0" if k == label else "0.0" for k in range(len(DIAGNOSES)))
            )
            name = f"{image}.jpg"
            data = None if name in without else draw(80_000 + len(groups))
            made.add(name, label, "", lesion, data)
    inputs = {
        f"ISIC2018_Task3_Training_Input/{name.removesuffix('.jpg')}.{suffix}": data
        for name, data in made.data.items()
    }
    licence = {"ISIC2018_Task3_Training_Input/LICENSE.txt": b"CC BY-NC 4.0\n"}
    write_zip(folder / "ISIC2018_Task3_Training_Input.zip", {**licence, **inputs})
    inner = "ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_GroundTruth.csv"
    text = "\n".join(truth) + "\n"
    write_zip(folder / "ISIC2018_Task3_Training_GroundTruth.zip", {inner: text.encode()})
    if lesions.startswith("ISIC"):
        rows = ["image,lesion_id,diagnosis_confirm_type"]
        rows += [f"{image},{lesion},histopathology" for image, lesion, _ in sorted(groups)]
        _write(folder / lesions, "\n".join(rows) + "\n")
    elif lesions:
        tab = lesions.endswith(".tab")
        rows = ["lesion_id,image_id,dx,dx_type,age,sex,localization,dataset"]
        rows += [f"{les},{im},{dx},histo,80.0,male,scalp,vidir_modern" for im, les, dx in groups]
        table = "\n".join(rows) + "\n"
        if tab:  # Dataverse quotes its texts
            table = "\n".join(
                [rows[0].replace(",", "\t")]
                + ["\t".join(f'"{cell}"' for cell in row.split(",")) for row in rows[1:]]
            )
        _write(folder / lesions, table)
    return made


TEXTURES = ("banded", "blotchy", "polka-dotted", "zigzagged")


def make_dtd(
    folder: Path,
    classes: Sequence[str] = TEXTURES,
    per_list: int = 2,
    without: Collection[str] = (),
) -> Made:
    """dtd-r1.0.1.tar.gz with the lists of splits 1 and 2; numbers of images have gaps."""
    made = Made(folder, tuple(classes))
    files = {"dtd/imdb/imdb.mat": b"MATLAB", "dtd/labels/labels_joint_anno.txt": b"joint\n"}
    for place, (file, part) in enumerate((("train", "train"), ("val", "train"), ("test", "test"))):
        listed = []
        for label, cls in enumerate(classes):
            for n in range(per_list):
                number = 2 + 3 * place + 13 * n
                name = f"{cls}/{cls}_{number:04d}.jpg"
                data = draw(90_000 + 1000 * label + number, size=(32, 24))
                made.add(name, label, part, data=None if name in without else data)
                listed.append(name)
        files[f"dtd/labels/{file}1.txt"] = ("\n".join(listed) + "\n").encode()
        files[f"dtd/labels/{file}2.txt"] = ("\n".join(reversed(listed)) + "\n").encode()
    files.update({f"dtd/images/{name}": data for name, data in made.data.items()})
    files["dtd/images/.directory"] = b"[Dolphin]\n"
    write_tar(folder / "dtd-r1.0.1.tar.gz", files, "w:gz")
    return made


PEOPLE = tuple(
    f"{gender} {status}"
    for gender in ("male", "female")
    for status in ("noble", "warrior", "incarnation", "commoner")
)


def make_kaokore(
    folder: Path, per_class: int = 3, without: Collection[str] = (), repository: bool = False
) -> Made:
    """labels.csv of v1.1 with images_256 as download.py writes it, which fetches unlabelled ones,
    too. ``repository``: the lists stand in the authors' repository, one of each version."""
    made = Made(folder, PEOPLE)
    rows = ["image,gender,status,set"]
    number = 0
    for part, official in (("train", "train"), ("dev", "validation"), ("test", "test")):
        for _ in range(per_class if part == "train" else 1):
            for label in (5, 0, 7, 1, 6, 2, 4, 3):
                number = (number + 37) % 1000
                name = f"{number:08d}.jpg"
                data = None if name in without else draw(100_000 + number)
                made.add(name, label, official, data=data)
                rows.append(f"{name},{int(label > 3)},{label % 4},{part}")
    text = "\n".join(rows) + "\n"
    made.options["expected"] = len(rows) - 1
    if repository:
        for version in ("dataset", "dataset_v1.1", "dataset_v1.2", "dataset_v1.3"):
            own = text if version == "dataset_v1.1" else rows[0] + "\n" + version
            _write(folder / "kaokore" / version / "labels.csv", own)
        _write(folder / "kaokore" / "images" / "fig" / "label_example.png", draw(1, kind="PNG"))
    else:
        _write(folder / "labels.csv", text)
    for name, data in made.data.items():
        _write(folder / "images_256" / name, data)
    _write(folder / "images_256" / "00009999.jpg", draw(109_999))
    return made


# --- arrays ---------------------------------------------------------------------------------------


def make_svhn(folder: Path, train: int = 30, test: int = 20, extra: bool = False) -> Made:
    """train_32x32.mat and test_32x32.mat; ``data`` has a picture's pixels (32x32x3 uint8)."""
    made = Made(folder, tuple("0123456789"))
    random = np.random.RandomState(110_000)
    for part, count in (("train", train), ("test", test), ("extra", 5 if extra else 0)):
        if not count:
            continue
        pictures = random.randint(0, 256, (32, 32, 3, count)).astype(np.uint8)
        digits = np.arange(count) % 10  # of every digit alike
        y = np.where(digits == 0, 10, digits).astype(np.uint8)[:, None]
        _write(folder / f"{part}_32x32.mat", _mat(X=pictures, y=y))
        if part == "extra":
            continue
        for row, digit in enumerate(digits):
            name = f"{part}/{row + 1:06d}.png"
            made.add(name, int(digit), part, data=pictures[..., row].tobytes())
    return made


def make_flowers102(folder: Path, per_class: int = 3, without: Collection[str] = ()) -> Made:
    """102flowers.tgz, imagelabels.mat, setid.mat: everything counts from 1; the classes come mixed.

    One third of the images each is in trnid, valid and tstid.
    """
    made = Made(folder, tuple(f"flower {n}" for n in range(102)))
    sets: dict[str, list[int]] = {"trnid": [], "valid": [], "tstid": []}
    labels = []
    for index in range(102 * per_class):
        label = 7 * index % 102
        which = ("tstid", "trnid", "valid")[index // 102 % 3]
        name = f"image_{index + 1:05d}.jpg"
        data = None if name in without else draw(120_000 + index, size=(16, 12))
        made.add(name, label, "test" if which == "tstid" else "train", data=data)
        labels.append(label + 1)
        sets[which].insert(0, index + 1)
    _write(folder / "imagelabels.mat", _mat(labels=np.array([labels], np.uint8)))
    _write(
        folder / "setid.mat",
        _mat(**{key: np.array([numbers], np.uint16) for key, numbers in sets.items()}),
    )
    files = {f"jpg/{name}": data for name, data in made.data.items()}
    write_tar(folder / "102flowers.tgz", files, "w:gz")
    return made


# --- boxes ----------------------------------------------------------------------------------------

VOC = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)


def voc_object(
    name: str, box: Sequence[float | str], difficult: str | None = "0", parts: str = ""
) -> str:
    """One <object>; ``difficult`` None: without that element."""
    ends = "".join(
        f"<{end}>{value}</{end}>"
        for end, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    flag = "" if difficult is None else f"<difficult>{difficult}</difficult>"
    return (
        f"<object><name>{name}</name><pose>Left</pose><truncated>1</truncated>{flag}"
        f"<bndbox>{ends}</bndbox>{parts}</object>"
    )


def voc_xml(image: str, objects: Sequence[str]) -> bytes:
    """An annotation file as the authors write it."""
    return (
        f"<annotation>\n\t<folder>VOC</folder>\n\t<filename>{image}</filename>\n\t<size>"
        f"<width>24</width><height>20</height><depth>3</depth></size>\n{''.join(objects)}\n"
        "</annotation>\n"
    ).encode()


def make_voc0712(folder: Path, per_list: int = 4, without: Collection[str] = ()) -> Made:
    """The three official tars; both of 2007 have the same folders.

    Boxes count from 1, some are floats, some objects have parts with boxes of their own, some no
    flag. VOC2012 has an image and masks of another challenge.
    """
    made = Made(folder, VOC)
    for order, (year, which, part, file) in enumerate(
        (
            ("VOC2007", "trainval", "train", "VOCtrainval_06-Nov-2007.tar"),
            ("VOC2012", "trainval", "train", "VOCtrainval_11-May-2012.tar"),
            ("VOC2007", "test", "test", "VOCtest_06-Nov-2007.tar"),
        )
    ):
        root = f"VOCdevkit/{year}"
        files, ids = {}, []
        for n in range(per_list):
            number = f"{1 + 5 * n + order:06d}" if year == "VOC2007" else f"2008_{1 + n:06d}"
            image = f"{year}/{number}.jpg"
            label = (order * per_list + n) % len(VOC)
            person = VOC.index("person")
            part_box = voc_object("head", (3, 3, 5, 5), None).replace("object>", "part>")
            objects = [
                voc_object(VOC[label], (1, 1, 24, 20), str(n % 2)),
                voc_object("person", ("2.5", "3.0", "7.5", "9.0"), None, part_box),
            ]
            whole = Box(0, 0, 24, 20, label, 480, difficult=n % 2 == 1)
            floats = Box(1.5, 2, 6, 7, person, 42)
            files[f"{root}/Annotations/{number}.xml"] = voc_xml(f"{number}.jpg", objects)
            data = draw(130_000 + 100 * order + n)
            made.add(image, -1, part, data=None if image in without else data)
            made.boxes[image] = (whole, floats)
            if image not in without:
                files[f"{root}/JPEGImages/{number}.jpg"] = data
            ids.append(number)
        files[f"{root}/ImageSets/Main/{which}.txt"] = ("\n".join(ids) + "\n").encode()
        files[f"{root}/ImageSets/Main/person_{which}.txt"] = f"{ids[0]}  1\n".encode()
        if year == "VOC2012":
            files[f"{root}/Annotations/2007_000027.xml"] = voc_xml("2007_000027.jpg", [])
            files[f"{root}/JPEGImages/2007_000027.jpg"] = draw(139_999)
            files[f"{root}/SegmentationClass/2007_000027.png"] = draw(139_998, "L", "PNG")
        write_tar(folder / file, files)
    return made


def make_coco2017(
    folder: Path,
    classes: Sequence[str] = ("person", "bicycle", "traffic light"),
    train: int = 6,
    test: int = 4,
    without: Collection[str] = (),
) -> Made:
    """train2017.zip, val2017.zip, annotations_trainval2017.zip.

    Category ids have a gap (11 comes after 9 in the real ones), the images stand in no order, one
    has no boxes, one box is a crowd, some pictures are grey.
    """
    made = Made(folder, tuple(classes))
    ids = [place + 1 + (place > 1) for place in range(len(classes))]
    annotations = {}
    for part, split, count in (("train", "train", train), ("test", "val", test)):
        images, notes = [], []
        for n in range(count):
            number = 9 + 16 * ((5 * n + 3) % count) + (500_000 if part == "test" else 0)
            file = f"{number:012d}.jpg"
            name = f"{split}2017/{file}"
            images.append({"id": number, "file_name": file, "height": 20, "width": 24})
            data = draw(140_000 + number % 1000 + count, "L" if n == 1 else "RGB")
            made.add(name, -1, part, data=None if name in without else data)
            boxes = []
            for k in range(0 if n == 2 else 1 + n % 2):
                label = (n + k) % len(classes)
                x, y, width, height = 1.5 + k, 2.25, 10.0, 8.5 + n
                crowd = n == 0
                notes.append(
                    {
                        "segmentation": [[1.5, 2.25, 11.5, 2.25, 11.5, 10.0]],
                        "area": 61.25 + n,
                        "iscrowd": int(crowd),
                        "image_id": number,
                        "bbox": [x, y, width, height],
                        "category_id": ids[label],
                        "id": 1000 + 10 * n + k,
                    }
                )
                boxes.append(Box(x, y, width, height, label, 61.25 + n, crowd=crowd))
            made.boxes[name] = tuple(boxes)
        categories = [
            {"supercategory": "thing", "id": number, "name": cls}
            for number, cls in zip(ids, classes, strict=True)
        ]
        annotations[f"annotations/instances_{split}2017.json"] = json.dumps(
            {
                "info": {"year": 2017},
                "licenses": [],
                "images": images,
                "annotations": notes,
                "categories": categories,
            }
        ).encode()
        annotations[f"annotations/captions_{split}2017.json"] = b"{}"
        files = {name: data for name, data in made.data.items() if name.startswith(f"{split}2017/")}
        write_zip(folder / f"{split}2017.zip", files)
    write_zip(folder / "annotations_trainval2017.zip", annotations)
    made.sort(lambda name: (name.startswith("val"), name))
    return made


MAKERS: dict[str, Callable[..., Made]] = {
    "cropdisease": make_cropdisease,
    "deepweeds": make_deepweeds,
    "eurosat": make_eurosat,
    "resisc45": make_resisc45,
    "chestx": make_chestx,
    "isic2018": make_isic2018,
    "dtd": make_dtd,
    "omniglot": make_omniglot,
    "svhn": make_svhn,
    "kaokore": make_kaokore,
    "sketch": make_sketch,
    "flowers102": make_flowers102,
    "voc0712": make_voc0712,
    "coco2017": make_coco2017,
}
