"""The readers of the official layouts: on archives, on unpacked trees, on what is not right."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from eval.common.errors import UserError
from eval.prepare.archives import Damaged, Download
from eval.prepare.layouts import LAYOUTS
from eval.prepare.layouts.folders import EUROSAT
from eval.prepare.layouts.marks import MARKS, looks_like
from eval.prepare.listing import Entry, Item, Listing
from eval.tasks.registry import TASKS as DECLARED
from tests.prepare import official
from tests.prepare.official import MAKERS, Made, draw, unpack, voc_object, voc_xml

TASKS = sorted(MAKERS)
# What the official downloads hold that is on no list: KaoKore's images without a label.
STRANGERS = {"kaokore": ("images_256/00009999.jpg",)}


def listing(task: str, made: Made) -> Listing:
    return LAYOUTS[task](Download.open(made.folder), made.classes, **made.options)


def refused(task: str, made: Made) -> str:
    """The one sentence in which the reader refuses the download."""
    with pytest.raises(UserError) as caught:
        listing(task, made)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert len(sentence) < 600
    return sentence


def check(task: str, made: Made, without: Collection[str] = ()) -> Listing:
    """The listing is what was made, and its entries are the right files."""
    download = Download.open(made.folder)
    found = LAYOUTS[task](download, made.classes, **made.options)
    assert [item.name for item in found.items] == made.names
    assert [item.label for item in found.items] == made.labels
    assert [item.part for item in found.items] == made.parts
    assert [item.group for item in found.items] == made.groups
    assert {item.name for item in found.items if item.entry is None} == set(without)
    assert {i.name: i.boxes for i in found.items if i.boxes is not None} == made.boxes
    assert bytes_of(download, found.items) == made.data
    return found


def bytes_of(download: Download, items: tuple[Item, ...]) -> dict[str, bytes]:
    """What the entries hold, by the items' names; of an array file, the row's pixels."""
    of = {item.entry: item for item in items if item.entry is not None and item.row < 0}
    got = {}
    for entry, data in download.stream(of):
        assert isinstance(data, bytes)
        got[of[entry].name] = data
    arrays: dict[Entry, Any] = {}
    for item in items:
        if item.row >= 0:
            assert item.entry is not None
            if item.entry not in arrays:
                arrays[item.entry] = loadmat(io.BytesIO(download.read(item.entry)))["X"]
            got[item.name] = arrays[item.entry][..., item.row].tobytes()
    return got


@pytest.fixture(scope="module")
def all_made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    """One download of each set. Not to be changed."""
    return {task: make(tmp_path_factory.mktemp(task)) for task, make in MAKERS.items()}


def test_a_reader_a_set() -> None:
    assert set(LAYOUTS) == set(MAKERS) == set(MARKS)


@pytest.mark.parametrize("task", TASKS)
def test_archives(task: str, all_made: dict[str, Made]) -> None:
    made = all_made[task]
    assert len(set(made.data.values())) == len(made.names), "each picture is another"
    found = check(task, made)
    assert found.strangers == STRANGERS.get(task, ())


@pytest.mark.parametrize("task", TASKS)
def test_unpacked_and_both(task: str, tmp_path: Path) -> None:
    """Unpacked trees give the same; so do archives that lie beside what they unpacked to."""
    made = MAKERS[task](tmp_path / "download")
    archives = shutil.copytree(made.folder, tmp_path / "archives")
    unpack(made.folder)
    found = check(task, made)
    assert found.strangers == STRANGERS.get(task, ())
    shutil.copytree(archives, made.folder, dirs_exist_ok=True)
    check(task, made)


@pytest.mark.parametrize("task", TASKS)
def test_in_any_folder_and_with_strangers(task: str, tmp_path: Path) -> None:
    """The tree may lie deeper, and what is on no list is named."""
    made = MAKERS[task](tmp_path / "download" / "deep er")
    unpack(made.folder)
    made.folder = tmp_path / "download"
    (made.folder / "mine").mkdir()
    (made.folder / "mine" / "holiday.JPEG").write_bytes(draw(1))
    (made.folder / "mine" / "notes.txt").write_text("what I did")
    strangers = check(task, made).strangers
    if task == "voc0712":  # beside its folders of images are masks, which are not looked at
        assert not strangers
    else:
        assert "mine/holiday.JPEG" in strangers
        assert len(strangers) == 1 + len(STRANGERS.get(task, ()))


@pytest.mark.parametrize(
    "task", sorted(set(TASKS) - {"cropdisease", "sketch", "svhn"}), ids=lambda task: task
)
def test_missing_images_stay_on_the_list(task: str, tmp_path: Path) -> None:
    whole = MAKERS[task](tmp_path / "whole")
    without = {whole.names[0], whole.names[len(whole.names) // 2], whole.names[-1]}
    made = MAKERS[task](tmp_path / "part", without=without)
    assert made.names == whole.names
    check(task, made, without)


@pytest.mark.parametrize("task", TASKS)
def test_no_image_is_read_while_listing(
    task: str, all_made: dict[str, Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    get = Download.get

    def watched(self: Download, entry: Entry) -> bytes | Damaged:
        read.append(entry)
        return get(self, entry)

    monkeypatch.setattr(Download, "get", watched)
    listing(task, all_made[task])
    assert not [e for e in read if e.name.lower().endswith((".jpg", ".jpeg", ".png"))]
    assert len(read) == len(set(read)), "no list is read twice"


@pytest.mark.parametrize("task", TASKS)
def test_another_sets_download(task: str, all_made: dict[str, Made]) -> None:
    for other, made in all_made.items():
        if other == task:
            continue
        assert looks_like(Download.open(made.folder), but=task) == other
        with pytest.raises(UserError) as caught:
            LAYOUTS[task](Download.open(made.folder), all_made[task].classes)
        sentence = str(caught.value)
        # Two sets have a labels.csv each: there the header tells.
        if {task, other} == {"deepweeds", "kaokore"}:
            assert "no column" in sentence
        else:
            assert f"this looks like {other}, not {task}" in sentence
            assert str(made.folder) in sentence


@pytest.mark.parametrize("task", TASKS)
def test_a_folder_of_something_else(task: str, tmp_path: Path, all_made: dict[str, Made]) -> None:
    (tmp_path / "holiday.jpg").write_bytes(draw(1))
    made = replace(all_made[task], folder=tmp_path)
    sentence = refused(task, made)
    assert sentence.startswith("no ")
    assert "holiday.jpg" in sentence
    assert "looks like" not in sentence


# --- lists of every kind --------------------------------------------------------------------------


def edit(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8", newline="")


# The list of a set that has one: its file, after unpacking.
LISTS = {
    "deepweeds": "labels/labels.csv",
    "chestx": "Data_Entry_2017.csv",
    "isic2018": "ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_GroundTruth.csv",
    "kaokore": "labels.csv",
    "dtd": "dtd/labels/val1.txt",
    "voc0712": "VOCdevkit/VOC2012/ImageSets/Main/trainval.txt",
}
TABLES = sorted(set(LISTS) - {"dtd", "voc0712"})


@pytest.fixture(params=sorted(LISTS))
def with_list(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Made, Path]:
    """(task, its unpacked download, its list)"""
    task = request.param
    made = MAKERS[task](tmp_path)
    unpack(tmp_path)
    made.options = dict.fromkeys(made.options)  # any number of rows
    return task, made, tmp_path / LISTS[task]


def test_windows_wrote_the_list(with_list: tuple[str, Made, Path]) -> None:
    task, made, path = with_list
    edit(path, lambda text: "\ufeff" + text.replace("\n", "\r\n") + "\r\n\r\n")
    check(task, made)


def test_list_without_last_newline(with_list: tuple[str, Made, Path]) -> None:
    task, made, path = with_list
    edit(path, str.rstrip)
    check(task, made)


def test_list_names_an_image_twice(with_list: tuple[str, Made, Path]) -> None:
    task, made, path = with_list
    edit(path, lambda text: text + text.splitlines()[1] + "\n")
    name = path.read_text().splitlines()[1].split(",")[0]
    sentence = refused(task, made)
    assert "twice" in sentence
    assert name in sentence


def test_list_is_no_text(with_list: tuple[str, Made, Path]) -> None:
    task, made, path = with_list
    path.write_bytes(path.read_bytes() + b"caf\xe9\n")
    assert "not UTF-8" in refused(task, made)


def test_list_is_not_there(with_list: tuple[str, Made, Path]) -> None:
    task, made, path = with_list
    path.unlink()
    assert path.name in refused(task, made)


def test_two_lists_that_differ(with_list: tuple[str, Made, Path]) -> None:
    task, made, path = with_list
    copy = path.parents[1] / "copy" / path.parent.name / path.name
    if task == "voc0712":
        copy = made.folder / "copy" / LISTS[task]
    elif path.parent == made.folder:
        copy = made.folder / "copy" / path.name
    copy.parent.mkdir(parents=True)
    copy.write_text(path.read_text())
    check(task, made)  # alike: a copy
    copy.write_text(path.read_text() + "more\n")
    assert "could be" in refused(task, made)


@pytest.mark.parametrize("task", TABLES)
def test_tables_of_another_form(task: str, tmp_path: Path) -> None:
    made = MAKERS[task](tmp_path)
    unpack(tmp_path)
    path = tmp_path / LISTS[task]
    whole = path.read_text()
    path.write_text("a,b,c\n1,2,3\n")
    assert "'a,b,c'" in refused(task, made)
    path.write_text("")
    assert "header is ''" in refused(task, made)
    header, first, rest = whole.split("\n", 2)
    path.write_text(f"{header}\nshort,0\n{rest}")
    assert "line 2" in refused(task, made)
    path.write_text(f'{header}\n{first}\n"{rest}')  # a quote that never ends
    assert "line" in refused(task, made)
    path.write_text(f"{header}\n{first.replace(first.split(',')[0], '../../etc/passwd')}\n{rest}")
    made.options = dict.fromkeys(made.options)
    assert "'../../etc/passwd" in refused(task, made)


def test_a_list_too_long_to_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = official.make_deepweeds(tmp_path)
    monkeypatch.setattr("eval.prepare.layouts.lists.LIMIT", 100)
    assert "a list of this set has less than 100" in refused("deepweeds", made)


def test_copies_of_an_image_that_differ(tmp_path: Path) -> None:
    """A half unpacked file beside its archive is not taken for the image."""
    made = official.make_eurosat(tmp_path, per_class=2)
    broken = tmp_path / "2750" / "Forest" / "Forest_2.jpg"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(made.data["Forest/Forest_2.jpg"][:100])
    sentence = refused("eurosat", made)
    assert "'Forest/Forest_2.jpg'" in sentence
    assert "100" in sentence


# --- folders that are classes ---------------------------------------------------------------------


def test_cropdisease_the_repository_is_another_download(tmp_path: Path) -> None:
    crop = official.CROPS[0]
    made = Made(tmp_path, official.CROPS)
    (tmp_path / "raw" / "color" / crop).mkdir(parents=True)
    (tmp_path / "raw" / "color" / crop / "a___RS_HL 1.JPG").write_bytes(draw(1))
    sentence = refused("cropdisease", made)
    assert "raw/color" in sentence
    assert "CropDiseases.zip" in sentence


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("Background_without_leaves", "none of the 4 classes of cropdisease"),
        ("Apple___Apple_scabs", "did you mean 'Apple___Apple_scab'?"),
    ],
)
def test_cropdisease_of_other_classes(folder: str, said: str, tmp_path: Path) -> None:
    made = official.make_cropdisease(tmp_path)
    unpack(tmp_path)
    (tmp_path / "CropDiseases" / "train" / folder).mkdir()
    (tmp_path / "CropDiseases" / "train" / folder / "x.JPG").write_bytes(draw(1))
    sentence = refused("cropdisease", made)
    assert repr(folder) in sentence
    assert said in sentence


def test_cropdisease_class_missing_from_a_part(tmp_path: Path) -> None:
    made = official.make_cropdisease(tmp_path)
    unpack(tmp_path)
    shutil.rmtree(tmp_path / "CropDiseases" / "test" / official.CROPS[1])
    assert f"test has no images of '{official.CROPS[1]}'" in refused("cropdisease", made)
    shutil.rmtree(tmp_path / "CropDiseases" / "test")
    assert "and 3 other classes" in refused("cropdisease", made)


def test_eurosat_order_is_of_strings(tmp_path: Path) -> None:
    made = official.make_eurosat(tmp_path, per_class=11, top="EuroSAT_RGB")
    names = [item.name for item in check("eurosat", made).items[:4]]
    assert names == [f"AnnualCrop/AnnualCrop_{n}.jpg" for n in (1, 10, 11, 2)]


def test_eurosat_whole_list_by_default(tmp_path: Path) -> None:
    made = official.make_eurosat(tmp_path, per_class=1)
    made.options = {}
    found = listing("eurosat", made)
    counts = np.bincount([item.label for item in found.items])
    assert counts.tolist() == [3000, 3000, 3000, 2500, 2500, 2000, 2500, 3000, 2500, 3000]
    assert len(found.items) == sum(EUROSAT.values()) == 27_000
    assert sum(item.entry is None for item in found.items) == 27_000 - 10


def test_eurosat_files_of_no_list(tmp_path: Path) -> None:
    made = official.make_eurosat(tmp_path, per_class=2)
    unpack(tmp_path)
    strange = {
        "2750/Forest/Forest_3.jpg",  # beyond the count
        "2750/Forest/Forest_02.jpg",  # not so written
        "2750/Forest/River_1 copy.jpg",
        "2750/Forest/Highway_1.jpg",  # another class's name
        "overview.png",
    }
    for name in strange:
        (tmp_path / name).write_bytes(draw(1))
    assert set(check("eurosat", made).strangers) == strange


def test_eurosat_of_other_classes(tmp_path: Path) -> None:
    made = official.make_eurosat(tmp_path, per_class=2)
    unpack(tmp_path)
    (tmp_path / "2750" / "Clouds").mkdir()
    (tmp_path / "2750" / "Clouds" / "Clouds_1.jpg").write_bytes(draw(1))
    assert "'Clouds', none of the 10 classes of eurosat" in refused("eurosat", made)
    made.classes = (*official.LAND[:-1], "Sea Lake")
    assert "'Sea Lake', 'SeaLake'" in refused("eurosat", made)


def test_resisc45_without_its_folders(tmp_path: Path) -> None:
    without = {"palace/palace_002.jpg"}
    made = official.make_resisc45(tmp_path, flattened=True, without=without)
    (tmp_path / "Resisc45" / "cloudy_001.jpg").write_bytes(draw(1))
    assert check("resisc45", made, without).strangers == ("Resisc45/cloudy_001.jpg",)


def test_resisc45_whole_list_by_default(tmp_path: Path) -> None:
    made = official.make_resisc45(tmp_path)
    made.options = {}
    found = listing("resisc45", made)
    assert len(found.items) == 4 * 700
    assert found.items[699].name == "airplane/airplane_700.jpg"


def test_resisc45_file_in_another_classs_folder(tmp_path: Path) -> None:
    made = official.make_resisc45(tmp_path, without={"palace/palace_001.jpg"})
    unpack(tmp_path)
    misfiled = "NWPU-RESISC45/airplane/palace_001.jpg"
    (tmp_path / misfiled).write_bytes(draw(1))
    assert check("resisc45", made, {"palace/palace_001.jpg"}).strangers == (misfiled,)


def test_omniglot_is_the_evaluation_part(tmp_path: Path) -> None:
    made = official.make_omniglot(tmp_path / "both")
    assert listing("omniglot", made).notes == (
        "drawings of images_background, not of this task: 3",
    )
    made = official.make_omniglot(tmp_path / "evaluation", background=False)
    assert listing("omniglot", made).notes == ()
    made = official.make_omniglot(tmp_path / "background", evaluation=False)
    assert "images_evaluation.zip" in refused("omniglot", made)


def test_omniglot_of_other_characters(tmp_path: Path) -> None:
    made = official.make_omniglot(tmp_path)
    made.classes = official.CHARACTERS[:2]
    sentence = refused("omniglot", made)
    assert "'Old_Church_Slavonic_(Cyrillic)/character01'" in sentence
    made.classes = (*official.CHARACTERS, "Tengwar/character01")
    assert "no images of 'Tengwar/character01'" in refused("omniglot", made)


def test_omniglot_drawings_of_two_characters_in_a_folder(tmp_path: Path) -> None:
    made = official.make_omniglot(tmp_path)
    unpack(tmp_path)
    folder = tmp_path / "images_evaluation" / "Angelic" / "character01"
    (folder / "0999_01.png").write_bytes(draw(1, "1", "PNG"))
    assert "0965, 0999" in refused("omniglot", made)
    (folder / "0999_01.png").rename(folder / "0965_21.png")
    strange = ("images_evaluation/Angelic/character01/0965_21.png",)
    assert check("omniglot", made).strangers == strange


def test_sketch_names_of_any_kind(tmp_path: Path) -> None:
    """Files of another name are taken as they are; other ImageNet folders are not."""
    made = official.make_sketch(tmp_path)
    unpack(tmp_path)
    name = "n01440764/ILSVRC2012_val_00000293.JPEG"
    made.add(name, 0, data=draw(1))
    made.sort(lambda name: name.split("/"))
    (tmp_path / "sketch" / name).write_bytes(made.data[name])
    (tmp_path / "val" / "n01440764").mkdir(parents=True)
    (tmp_path / "val" / "n01440764" / "x.JPEG").write_bytes(draw(2))
    assert check("sketch", made).strangers == ("val/n01440764/x.JPEG",)


def test_sketch_of_other_classes(tmp_path: Path) -> None:
    made = official.make_sketch(tmp_path)
    made.classes = official.WNIDS[:2]
    assert "'n01484850', none of the 2 classes of sketch" in refused("sketch", made)
    made.classes = (*official.WNIDS, "n01491361 tiger shark")
    assert "no images of 'n01491361'" in refused("sketch", made)


# --- lists of labels ------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", ["", "images/", "images/images/"])
def test_deepweeds_wherever_the_images_lie(inner: str, tmp_path: Path) -> None:
    check("deepweeds", official.make_deepweeds(tmp_path, inner=inner))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (",8,Negative", ",9,Negative", "Label is '9', not one of 0 to 8"),
        (",8,Negative", ",-1,Negative", "Label is '-1'"),
        (",8,Negative", ",8.0,Negative", "Label is '8.0'"),
        (",8,Negative", f",{'9' * 5000},Negative", "Label is '9999"),
        ("20170126-095108-0.jpg", "/etc/passwd", "'/etc/passwd', which is not a file name"),
        (",8,Negative", ",8,Lantana", "label 8 is 'Lantana'; of deepweeds it is 'Negative'"),
        ("Label", "Class", "no column 'Label'"),
    ],
)
def test_deepweeds_labels(old: str, new: str, said: str, tmp_path: Path) -> None:
    made = official.make_deepweeds(tmp_path)
    edit(tmp_path / "labels" / "labels.csv", lambda text: text.replace(old, new, 1))
    assert said in refused("deepweeds", made)


def test_chestx_keeps_single_findings(tmp_path: Path) -> None:
    made = official.make_chestx(tmp_path)
    found = check("chestx", made)
    assert found.notes == (
        "images not of this task: 28 of 56 (Hernia 7, No Finding 7, Pneumonia 7, several "
        "findings 7)",
    )
    assert len({item.group for item in found.items}) < len(found.items), "patients come again"


def test_chestx_later_release(tmp_path: Path) -> None:
    """v2020 has no comma at the ends of lines; beside the study's file the study's is read."""
    made = official.make_chestx(tmp_path, v2020=True)
    check("chestx", made)
    other = official.make_chestx(tmp_path / "other")
    shutil.copy(other.folder / "Data_Entry_2017.csv", tmp_path)
    shutil.rmtree(other.folder)
    (tmp_path / "Data_Entry_2017_v2020.csv").write_text("not read")
    check("chestx", made)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (",Mass,", ",Tuberculosis,", "'Tuberculosis'"),
        (",Mass,", ",Masses,", "did you mean 'Mass'?"),
        ("Finding Labels", "Labels", "does not begin with the columns"),
        ("Cardiomegaly,0,2,", "Cardiomegaly,0,,", "no patient"),
    ],
)
def test_chestx_rows(old: str, new: str, said: str, tmp_path: Path) -> None:
    made = official.make_chestx(tmp_path)
    path = tmp_path / "Data_Entry_2017.csv"
    assert old in path.read_text()
    edit(path, lambda text: text.replace(old, new, 1))
    assert said in refused("chestx", made)


@pytest.mark.parametrize(
    "lesions",
    [
        "ISIC2018_Task3_Training_LesionGroupings.csv",
        "HAM10000_metadata.csv",
        "HAM10000_metadata",
        "HAM10000_metadata.tab",
    ],
)
@pytest.mark.parametrize("suffix", ["jpg", "JPG"])
def test_isic2018_lesions(lesions: str, suffix: str, tmp_path: Path) -> None:
    made = official.make_isic2018(tmp_path, lesions=lesions, suffix=suffix)
    found = check("isic2018", made)
    assert len({item.group for item in found.items}) == len(found.items) / 2


def test_isic2018_without_lesions(tmp_path: Path) -> None:
    made = official.make_isic2018(tmp_path, lesions="")
    sentence = refused("isic2018", made)
    assert "ISIC2018_Task3_Training_LesionGroupings.csv" in sentence
    assert "HAM10000_metadata" in sentence


def test_isic2018_image_of_no_lesion(tmp_path: Path) -> None:
    made = official.make_isic2018(tmp_path)
    path = tmp_path / "ISIC2018_Task3_Training_LesionGroupings.csv"
    edit(path, lambda text: text.replace("ISIC_0024308", "ISIC_0099999"))
    assert "'ISIC_0024308'" in refused("isic2018", made)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ISIC_0024306,1.0,0.0", "ISIC_0024306,1.0,1.0"),
        ("ISIC_0024306,1.0,0.0", "ISIC_0024306,0.0,0.0"),
        ("ISIC_0024306,1.0,0.0", "ISIC_0024306,0.5,0.5"),
        ("ISIC_0024306,1.0,0.0", "ISIC_0024306,yes,0.0"),
        ("ISIC_0024306,1.0,0.0", "ISIC_0024306,nan,0.0"),
    ],
)
def test_isic2018_rows_are_one_hot(old: str, new: str, tmp_path: Path) -> None:
    made = official.make_isic2018(tmp_path)
    unpack(tmp_path)
    edit(tmp_path / LISTS["isic2018"], lambda text: text.replace(old, new))
    sentence = refused("isic2018", made)
    assert "line 2" in sentence
    assert "'ISIC_0024306'" in sentence


def test_isic2018_columns_in_another_order(tmp_path: Path) -> None:
    """Labels follow the declared classes, by the columns' names."""
    made = official.make_isic2018(tmp_path)
    made.classes = tuple(reversed(made.classes))
    made.labels = [6 - label for label in made.labels]
    check("isic2018", made)


def test_dtd_is_the_first_split(tmp_path: Path) -> None:
    made = official.make_dtd(tmp_path)
    assert made.parts == ["train"] * 16 + ["test"] * 8
    unpack(tmp_path)
    (tmp_path / "dtd" / "images" / "banded" / "banded_9999.jpg").write_bytes(draw(1))
    assert check("dtd", made).strangers == ("dtd/images/banded/banded_9999.jpg",)


@pytest.mark.parametrize(
    ("line", "said"),
    [("bandet/bandet_0001.jpg", "did you mean 'banded'?"), ("banded_0001.jpg", "banded_0001.jpg")],
)
def test_dtd_of_other_classes(line: str, said: str, tmp_path: Path) -> None:
    made = official.make_dtd(tmp_path)
    unpack(tmp_path)
    edit(tmp_path / LISTS["dtd"], lambda text: text + line + "\n")
    assert said in refused("dtd", made)


def test_dtd_image_in_two_lists(tmp_path: Path) -> None:
    made = official.make_dtd(tmp_path)
    unpack(tmp_path)
    edit(tmp_path / LISTS["dtd"], lambda text: text + made.names[-1] + "\n")
    assert f"'{made.names[-1]}' twice" in refused("dtd", made)


def test_kaokore_of_the_repository(tmp_path: Path) -> None:
    """Of its four lists, that of v1.1 is read."""
    made = official.make_kaokore(tmp_path, repository=True)
    strangers = check("kaokore", made).strangers
    assert "kaokore/images/fig/label_example.png" in strangers


def test_kaokore_labels(tmp_path: Path) -> None:
    made = official.make_kaokore(tmp_path)
    found = check("kaokore", made)
    assert {item.label for item in found.items} == set(range(8))
    assert {item.part for item in found.items} == {"train", "validation", "test"}


@pytest.mark.parametrize(
    ("rows", "said"),
    [(5298, "that is v1.0"), (8446, "v1.2"), (9257, "v1.3"), (7000, "not a known version")],
)
def test_kaokore_of_another_version(rows: int, said: str, tmp_path: Path) -> None:
    made = Made(tmp_path, official.PEOPLE)
    lines = [f"{number:08d}.jpg,0,1,train\n" for number in range(rows)]
    (tmp_path / "labels.csv").write_text("image,gender,status,set\n" + "".join(lines))
    sentence = refused("kaokore", made)
    assert said in sentence
    assert "v1.1 with 8,215" in sentence
    assert f"{rows:,} images" in sentence


def test_kaokore_in_another_folder(tmp_path: Path) -> None:
    """Wherever the images are; beside images of another size those of images_256 are taken."""
    made = official.make_kaokore(tmp_path)
    (tmp_path / "images_256").rename(tmp_path / "pictures")
    check("kaokore", made)
    shutil.copytree(tmp_path / "pictures", tmp_path / "images_256")
    for path in (tmp_path / "pictures").iterdir():
        path.write_bytes(draw(1, size=(40, 40)))
    check("kaokore", made)


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [(1, "2", "gender"), (2, "4", "status"), (2, "", "status"), (3, "val", "not train, dev or")],
)
def test_kaokore_rows(column: int, value: str, said: str, tmp_path: Path) -> None:
    made = official.make_kaokore(tmp_path)
    rows = [row.split(",") for row in (tmp_path / "labels.csv").read_text().splitlines()]
    rows[3][column] = value
    (tmp_path / "labels.csv").write_text("\n".join(map(",".join, rows)))
    sentence = refused("kaokore", made)
    assert said in sentence
    assert "line 4" in sentence


# --- arrays ---------------------------------------------------------------------------------------


def mat(path: Path, **values: Any) -> None:
    savemat(path, values)


def test_svhn_ten_is_zero(tmp_path: Path) -> None:
    made = official.make_svhn(tmp_path)
    found = check("svhn", made)
    assert found.items[0].label == 0
    assert found.items[0].name == "train/000001.png"
    y = loadmat(tmp_path / "train_32x32.mat")["y"]
    assert y[0, 0] == 10
    assert [item.row for item in found.items[:30]] == list(range(30))


def test_svhn_extra_is_not_used(tmp_path: Path) -> None:
    made = official.make_svhn(tmp_path, extra=True)
    assert check("svhn", made).notes == ("extra_32x32.mat is not part of this task",)


def test_svhn_one_part_alone(tmp_path: Path) -> None:
    made = official.make_svhn(tmp_path)
    (tmp_path / "test_32x32.mat").unlink()
    assert "test_32x32.mat" in refused("svhn", made)


X = np.zeros((32, 32, 3, 4), np.uint8)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"X": X}, "no variable 'y'"),
        ({"X": X, "y": np.array([[0], [1], [2], [3]])}, "holds 0, not one of 1 to 10"),
        ({"X": X, "y": np.array([[11], [1], [2], [3]])}, "holds 11"),
        ({"X": X, "y": np.array([[1.5], [1], [2], [3]])}, "holds 1.5"),
        ({"X": X, "y": np.array([[np.nan], [1], [2], [3]])}, "holds nan"),
        ({"X": X, "y": np.array([["a"]])}, "no numbers"),
        ({"X": X, "y": np.array([[1]])}, "4 pictures and 1 labels"),
        ({"X": X[:, :, 0], "y": np.array([[1]])}, "the shape (32, 32, 4)"),
        ({"y": np.array([[1]])}, "the shape ()"),
    ],
)
def test_svhn_arrays_of_another_form(values: dict[str, Any], said: str, tmp_path: Path) -> None:
    made = official.make_svhn(tmp_path)
    mat(tmp_path / "train_32x32.mat", **values)
    assert said in refused("svhn", made)


@pytest.mark.parametrize("cut", [0, 60, 300, -1000])
def test_svhn_broken_file(cut: int, tmp_path: Path) -> None:
    made = official.make_svhn(tmp_path)
    path = tmp_path / "train_32x32.mat"
    path.write_bytes(path.read_bytes()[:cut])
    assert "train_32x32.mat" in refused("svhn", made)


def test_svhn_matlab_7_3(tmp_path: Path) -> None:
    made = official.make_svhn(tmp_path)
    head = b"MATLAB 7.3 MAT-file".ljust(116) + b"\0" * 8 + b"\x00\x02IM"
    (tmp_path / "train_32x32.mat").write_bytes(head + b"\x89HDF\r\n\x1a\n" + b"\0" * 500)
    assert "not a MATLAB 5 file" in refused("svhn", made)


def test_flowers102_parts(tmp_path: Path) -> None:
    made = official.make_flowers102(tmp_path, per_class=3)
    found = check("flowers102", made)
    assert [found.items[i].name for i in (0, -1)] == ["image_00001.jpg", "image_00306.jpg"]
    assert sum(item.part == "train" for item in found.items) == 204
    assert {item.label for item in found.items} == set(range(102))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tstid": [[1, 2, 2]]}, "image 2 twice"),
        ({"tstid": [[1, 2, 103]]}, "image 103 twice"),
        ({"tstid": [[1, 2]]}, "no part to 100 of 306 images, such as number 3"),
        ({"tstid": [[0, 1]]}, "holds 0, not one of 1 to 306"),
        ({"tstid": [[307, 1]]}, "holds 307"),
        ({"valid": None}, "no variable 'valid'"),
    ],
)
def test_flowers102_setid(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    made = official.make_flowers102(tmp_path)
    sets = {k: v for k, v in loadmat(tmp_path / "setid.mat").items() if not k.startswith("__")}
    sets = {k: np.array(v) for k, v in {**sets, **change}.items() if v is not None}
    mat(tmp_path / "setid.mat", **sets)
    assert said in refused("flowers102", made)


@pytest.mark.parametrize("label", [0, 103])
def test_flowers102_labels(label: int, tmp_path: Path) -> None:
    made = official.make_flowers102(tmp_path)
    labels = loadmat(tmp_path / "imagelabels.mat")["labels"]
    labels[0, 5] = label
    mat(tmp_path / "imagelabels.mat", labels=labels)
    assert f"holds {label}, not one of 1 to 102" in refused("flowers102", made)


@pytest.mark.parametrize("task", ["svhn", "flowers102", "kaokore"])
def test_declared_classes_of_another_number(task: str, all_made: dict[str, Made]) -> None:
    made = replace(all_made[task], classes=("a", "b"))
    assert f"{task} has {len(all_made[task].classes)} classes; 2 names" in refused(task, made)


# --- boxes ----------------------------------------------------------------------------------------


def annotation(made: Made, objects: list[str] | bytes) -> None:
    """Put these objects into the first annotation of an unpacked VOC."""
    data = objects if isinstance(objects, bytes) else voc_xml("000001.jpg", objects)
    (made.folder / "VOCdevkit" / "VOC2007" / "Annotations" / "000001.xml").write_bytes(data)


@pytest.fixture
def voc(tmp_path: Path) -> Made:
    made = official.make_voc0712(tmp_path)
    unpack(tmp_path)
    return made


def test_voc0712_boxes(voc: Made) -> None:
    found = check("voc0712", voc)
    assert found.notes == ("images on the authors' other lists, not of this task: 1",)
    box = (found.items[1].boxes or ())[0]
    assert (box.x, box.y, box.width, box.height) == (0, 0, 24, 20)
    assert box.difficult
    assert {item.label for item in found.items} == {-1}


def test_voc0712_boxes_without_area(voc: Made) -> None:
    objects = [
        voc_object("cat", (9, 1, 3, 5)),
        voc_object("dog", (4, 4, 4, 4)),  # one pixel
        voc_object("cat", (3, 8, 9, 7)),
    ]
    annotation(voc, objects)
    found = listing("voc0712", voc)
    assert found.notes[0] == "boxes without area, left out: 2"
    (box,) = found.items[0].boxes or ()
    assert (box.x, box.y, box.width, box.height, box.area) == (3, 3, 1, 1, 1)
    assert box.category == official.VOC.index("dog")


def test_voc0712_image_without_objects(voc: Made) -> None:
    annotation(voc, [])
    assert listing("voc0712", voc).items[0].boxes == ()


BOMB = (
    b'<?xml version="1.0"?>\n<!DOCTYPE bomb [<!ENTITY a "aaaaaaaaaa">'
    + b"".join(
        b'<!ENTITY %c "%s">' % (99 + n, b"&%c;" % ((97, 99 + n - 1)[n > 0]) * 10) for n in range(9)
    )
    + b"]>\n<annotation><object><name>&k;</name></object></annotation>"
)


@pytest.mark.parametrize(
    ("objects", "said"),
    [
        (BOMB, "declares XML entities"),
        (BOMB.decode().encode("utf-16"), "not UTF-8"),
        (BOMB.decode().encode("utf-16-le"), "not UTF-8"),
        (b"<annotation>", "not valid XML"),
        (b"", "not valid XML"),
        (b"<html>404</html>" + b" " * (1 << 20), "has less than"),
        ([voc_object("unicorn", (1, 1, 2, 2))], "object 1 of"),
        ([voc_object("cats", (1, 1, 2, 2))], "did you mean 'cat'?"),
        ([voc_object("cat", (1, 1, "", 2))], "no bndbox of four numbers"),
        ([voc_object("cat", (1, 1, "nan", 2))], "no bndbox of four numbers"),
        ([voc_object("cat", (1, 1, "1e999", 2))], "no bndbox of four numbers"),
        ([voc_object("cat", (1, 1, 2, 2)), "<object><name>cat</name></object>"], "object 2 of"),
    ],
)
def test_voc0712_annotations(objects: list[str] | bytes, said: str, voc: Made) -> None:
    annotation(voc, objects)
    sentence = refused("voc0712", voc)
    assert said in sentence
    assert "VOC2007/Annotations/000001.xml" in sentence


def test_voc0712_annotation_missing(voc: Made) -> None:
    (voc.folder / "VOCdevkit" / "VOC2007" / "Annotations" / "000001.xml").unlink()
    assert "'000001', which has no annotation" in refused("voc0712", voc)


def test_voc0712_image_in_two_lists(voc: Made) -> None:
    path = voc.folder / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main" / "test.txt"
    edit(path, lambda text: text + "000001\n")
    assert "'VOC2007/000001.jpg' twice" in refused("voc0712", voc)


def test_voc0712_one_archive_missing(tmp_path: Path) -> None:
    made = official.make_voc0712(tmp_path)
    (tmp_path / "VOCtest_06-Nov-2007.tar").unlink()
    assert "no ImageSets/Main/test.txt of VOC2007" in refused("voc0712", made)


def test_voc0712_stranger(voc: Made) -> None:
    name = "VOCdevkit/VOC2012/JPEGImages/2012_999999.jpg"
    (voc.folder / name).write_bytes(draw(1))
    assert check("voc0712", voc).strangers == (name,)


@pytest.fixture
def coco(tmp_path: Path) -> Made:
    made = official.make_coco2017(tmp_path)
    unpack(tmp_path)
    return made


def instances(made: Made, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the training set's file."""
    path = made.folder / "annotations" / "instances_train2017.json"
    facts = json.loads(path.read_text())
    change(facts)
    path.write_text(json.dumps(facts))


def test_coco2017_order_and_ids(coco: Made) -> None:
    found = check("coco2017", coco)
    train = [item.name for item in found.items if item.part == "train"]
    assert train == sorted(train)
    assert [item.part for item in found.items] == ["train"] * 6 + ["test"] * 4
    assert {box.category for item in found.items for box in item.boxes or ()} == {0, 1, 2}
    assert any(not item.boxes for item in found.items), "images without boxes stay"
    assert any(box.crowd for item in found.items for box in item.boxes or ())


def test_coco2017_other_images_are_no_strangers(coco: Made) -> None:
    (coco.folder / "test2017").mkdir()
    (coco.folder / "test2017" / "000000000001.jpg").write_bytes(draw(1))
    (coco.folder / "train2017" / "000000999999.jpg").write_bytes(draw(2))
    assert check("coco2017", coco).strangers == ("train2017/000000999999.jpg",)


def test_coco2017_boxes_without_area(coco: Made) -> None:
    instances(coco, lambda facts: facts["annotations"][0]["bbox"].__setitem__(2, 0.0))
    found = listing("coco2017", coco)
    assert found.notes == ("boxes without area, left out: 1",)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.pop("categories"), "no lists of images"),
        (lambda f: f["categories"].reverse(), "in their order"),
        (lambda f: f["categories"].pop(), "has 2 categories"),
        (lambda f: f["annotations"][0].update(image_id=7), "is of image 7 and"),
        (lambda f: f["annotations"][0].update(category_id=3), "and category 3, of which one"),
        (lambda f: f["annotations"][0].pop("bbox"), "KeyError 'bbox'"),
        (lambda f: f["annotations"][0].update(bbox=[1, 2, 3]), "not laid out as COCO's"),
        (lambda f: f["annotations"][0].update(bbox=[1, 2, 3, "x"]), "not laid out as COCO's"),
        (lambda f: f["annotations"][0].update(bbox=[1, 2, 3, float("nan")]), "not a number"),
        (lambda f: f["annotations"][0].update(area=float("inf")), "not a number"),
        (lambda f: f["images"].append(f["images"][0]), "an image id twice"),
        (lambda f: f["images"][0].update(id={}), "not laid out as COCO's"),
        (lambda f: f["images"][2].update(id="9"), "not laid out as COCO's"),
        (lambda f: f["images"][0].update(file_name=f["images"][1]["file_name"]), "twice"),
        (lambda f: f["images"][0].update(file_name="../../x.jpg"), "not a file name"),
        (lambda f: f["images"].append(7), "not laid out as COCO's"),
    ],
)
def test_coco2017_of_another_form(
    change: Callable[[dict[str, Any]], object], said: str, coco: Made
) -> None:
    instances(coco, change)
    sentence = refused("coco2017", coco)
    assert said in sentence
    assert "instances_train2017.json" in sentence


@pytest.mark.parametrize("text", ["", "[1, 2", "[]", "\xff", "[" * 100_000, "7"])
def test_coco2017_no_json(text: str, coco: Made) -> None:
    path = coco.folder / "annotations" / "instances_train2017.json"
    path.write_bytes(text.encode("latin-1"))
    assert "instances_train2017.json" in refused("coco2017", coco)


@pytest.mark.parametrize("task", sorted(set(TASKS) - {"cropdisease", "eurosat", "resisc45"}))
def test_damaged_list(
    task: str, all_made: dict[str, Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list that cannot be read is refused; what reads no list does not care."""
    monkeypatch.setattr(Download, "get", lambda self, entry: Damaged("its checksum is wrong"))
    if task in ("omniglot", "sketch"):
        listing(task, all_made[task])
    else:
        assert "its checksum is wrong" in refused(task, all_made[task])


# --- torchvision reads the same -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "root", "part"),
    [
        ("eurosat", "2750", ""),
        ("resisc45", "NWPU-RESISC45", ""),
        ("sketch", "sketch", ""),
        ("cropdisease", "CropDiseases/train", "train"),
        ("cropdisease", "CropDiseases/test", "test"),
    ],
)
def test_as_image_folder(task: str, root: str, part: str, tmp_path: Path) -> None:
    """Order and labels are those of torchvision's ImageFolder, which the study uses."""
    from torchvision.datasets import ImageFolder

    made = MAKERS[task](tmp_path)
    unpack(tmp_path)
    # The declared order is that of the sorted folders; the small sketch set's is not.
    made.classes = tuple(sorted(made.classes))
    samples = ImageFolder(tmp_path / root).samples
    read = [item for item in listing(task, made).items if item.part == part]
    assert [item.label for item in read] == [label for _, label in samples]
    for item, (path, _) in zip(read, samples, strict=True):
        assert item.entry is not None
        assert str(tmp_path / item.entry.name) == path


def test_as_torchvisions_dtd_and_voc(tmp_path: Path) -> None:
    from torchvision.datasets import DTD, VOCDetection

    dtd = official.make_dtd(tmp_path / "dtd")
    unpack(dtd.folder)
    items = listing("dtd", dtd).items
    for part, splits in (("train", ("train", "val")), ("test", ("test",))):
        read = [DTD(tmp_path, split=split, partition=1) for split in splits]
        labels = [label for data in read for label in data._labels]
        paths = [path for data in read for path in data._image_files]
        assert [item.label for item in items if item.part == part] == labels
        assert [item.name for item in items if item.part == part] == [
            f"{path.parent.name}/{path.name}" for path in paths
        ]
    voc = official.make_voc0712(tmp_path / "voc")
    unpack(voc.folder)
    items = listing("voc0712", voc).items
    paths = []
    for year, image_set in (("2007", "trainval"), ("2012", "trainval"), ("2007", "test")):
        read = VOCDetection(str(voc.folder), year=year, image_set=image_set)
        paths += [f"VOC{year}/{Path(path).name}" for path in read.images]
    assert [item.name for item in items] == paths


# --- the declared tasks ---------------------------------------------------------------------------

OWN_CLASSES = ("cropdisease", "resisc45", "dtd", "omniglot", "sketch", "coco2017")


@pytest.mark.parametrize("task", TASKS)
def test_declared_classes(task: str, tmp_path: Path) -> None:
    """The catalogue's classes are those of the official downloads, in the order of labels."""
    names = tuple(DECLARED[task].class_names)
    small = {"resisc45": {"per_class": 1}, "sketch": {"per_class": 1}, "dtd": {"per_list": 1}}
    if task in OWN_CLASSES:
        if task == "omniglot":  # 659 characters, of 20 drawings each
            made = official.make_omniglot(tmp_path, classes=names[::60], background=False)
        else:
            made = MAKERS[task](tmp_path, classes=names, **small.get(task, {}))
    else:
        made = MAKERS[task](tmp_path)
        if task != "flowers102":  # whose labels have no names in the official files
            assert made.classes == names
        made.classes = names
    check(task, made)
    if task in ("cropdisease", "eurosat", "resisc45", "dtd", "omniglot", "sketch"):
        folders = [name.split()[0] if task == "sketch" else name for name in names]
        assert folders == sorted(folders), "labels are ranks of the sorted folders"


def test_a_declaration_knows_whether_its_layout_is_known() -> None:
    assert {name for name, task in DECLARED.items() if task.preparable} == set(LAYOUTS)
