"""Commands on data sets: list, prepare, check-task."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from eval.common.errors import BadInput, NotFound
from eval.common.files import default_cache

if TYPE_CHECKING:
    from eval.hub.mirror import Mirrored

MASK_SETS = ("voc2012-seg", "ade20k", "cityscapes")  # those of eval.prepare.layouts.masks


def list_command(args: argparse.Namespace) -> int:
    from eval.cli import listing
    from eval.data.locations import data_from

    data = data_from(args.data)
    if isinstance(data, Path) and not data.is_dir():
        raise NotFound(f"--data {str(data)!r} does not exist or is not a directory")
    verbose = args.verbose and args.what == "protocols"
    rows = listing.settings() if verbose else listing.rows(args.what, data)
    if args.json:
        print(json.dumps(rows, indent=1))
    else:
        print(listing.render(rows, markdown=not sys.stdout.isatty()))
    return 0


def prepare_command(args: argparse.Namespace) -> int:
    from eval.data.manifest import read_manifest
    from eval.prepare.prepare import Prepared, preparable, prepare, report

    if args.processes < 1:
        raise BadInput(f"--processes must be at least 1, got {args.processes}")
    if args.task in MASK_SETS:
        return _prepare_masks(args)
    task = preparable(args.task)
    if args.source is not None:
        done = prepare(
            task.name, args.source, args.out,
            partial=args.partial, decode=args.decode, processes=args.processes,
        )  # fmt: skip
    else:
        manifest = read_manifest(args.out / task.name)
        if manifest is None:
            raise NotFound(
                f"{args.out / task.name} is not prepared yet; say where the download lies with "
                f"--source DIR ({task.download})"
            )
        done = Prepared(args.out / task.name, manifest, False)
    pushed = None
    if args.push_to:
        from eval.prepare.publish import publish

        pushed = publish(
            done.folder, args.push_to, private=args.private, replace=args.replace,
            dry_run=args.dry_run, say=lambda text: print(text, file=sys.stderr),
        )  # fmt: skip
    if args.json:
        facts = done.manifest.model_dump(mode="json")
        where = {"folder": str(done.folder.resolve()), "pushed": pushed and pushed.url}
        print(json.dumps(where | facts, indent=1))
        return 0
    for line in report(done):
        print(line)
    if pushed:
        print(_mirrored(pushed))
    print(f"transfer-eval run MODEL --task {task.name} --data {args.out}")
    return 0


def _prepare_masks(args: argparse.Namespace) -> int:
    from eval.prepare.masks import prepare_masks, report

    for option in ("partial", "decode", "push_to", "private", "replace", "dry_run"):
        if getattr(args, option):
            raise BadInput(
                f"prepare {args.task} takes no --{option.replace('_', '-')}: it takes whole sets, "
                "looks at every mask and uploads nothing"
            )
    if args.processes != 1:
        raise BadInput(f"prepare {args.task} takes no --processes: one process writes it")
    if args.source is None:
        raise BadInput(f"prepare {args.task}: say where the download lies with --source DIR")
    done = prepare_masks(args.task, args.source, args.out)
    if args.json:
        facts = {"folder": str(done.folder.resolve()), "images": done.images,
                 "classes": list(done.classes), "groups": done.groups, "notes": done.notes(),
                 "pixels": {p: n.tolist() for p, n in done.pixels.items()}}  # fmt: skip
        print(json.dumps(facts, indent=1))
        return 0
    for line in report(done):
        print(line)
    print(f"transfer-eval run MODEL --task parquet:{done.folder} --protocol segment")
    return 0


def _mirrored(done: Mirrored) -> str:
    size = f"{len(done.uploaded)} files, {done.bytes / 1e6:.1f} MB"
    if done.dry_run:
        return f"{done.url}: would upload {size}"
    if not done.uploaded and not done.removed:
        return f"{done.url}: nothing changed, no commit made (commit {done.sha})"
    return f"{done.url}: {size} uploaded (commit {done.sha})"


def check_task_command(args: argparse.Namespace) -> int:
    from eval.check_task.wording import cannot_be_read
    from eval.data.load import load_task
    from eval.data.locations import data_from

    data = load_task(args.task, args.cache or default_cache(), data_from(args.data))
    path = args.sheet or Path(f"{data.name}.png")
    markdown = not sys.stdout.isatty()
    if data.kind == "detection":
        from eval.check_task import boxes as checkboxes
        from eval.check_task.box_sheet import box_sheet
        from eval.data.boxes.box_data import DetectionData

        assert isinstance(data, DetectionData)
        sheet = box_sheet(data, path)
        boxes = checkboxes.check_boxes(data)
        unreadable = boxes.unreadable
        facts, text = checkboxes.as_json(boxes), checkboxes.render(boxes, markdown=markdown)
    elif data.kind == "segmentation":
        from eval.check_task import masks as checkmasks
        from eval.data.masks.mask_data import SegmentationData

        assert isinstance(data, SegmentationData)
        sheet = checkmasks.mask_sheet(data, path)
        masks = checkmasks.check_masks(data)
        unreadable = masks.unreadable
        facts, text = checkmasks.as_json(masks), checkmasks.render(masks, markdown=markdown)
    else:
        from eval.check_task import images

        sheet = images.contact_sheet(data, path)
        found = images.check(data)
        unreadable = found.images.unreadable
        facts, text = images.as_json(found), images.render(found, markdown=markdown)
    if args.json:
        print(json.dumps(facts | {"sheet": str(sheet.resolve())}, indent=1))
    else:
        print(text)
        print(f"contact sheet: {sheet.resolve()}")
    if args.strict:
        from eval.run.plan import warnings_of

        wrong = [*cannot_be_read(unreadable), *warnings_of(data)]
        if wrong:
            raise BadInput(f"task {data.name!r}: {'; '.join(wrong)} (--strict)")
    return 0
