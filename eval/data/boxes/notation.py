"""The two notations of the authors' own files, read alike by `prepare` and for a user's own data:
PASCAL VOC's XML and COCO's JSON."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from typing import Any

from eval.common.errors import BadInput, Refused, one_line


def xml_root(content: str, where: str) -> ET.Element:
    """The file's outermost element. Entities are refused before the parser may expand them."""
    if "<!DOCTYPE" in content or "<!ENTITY" in content:
        raise Refused(f"{where} declares XML entities; no official annotation does")
    try:
        return ET.fromstring(content)
    except (ET.ParseError, ValueError) as error:
        raise BadInput(f"{where} is not valid XML: {one_line(error, 120)}") from None


def voc_place(node: ET.Element, where: str) -> tuple[float, float, float, float]:
    """An object's x, y, width, height, counted from 0; its own pixels count from 1, and both ends
    belong to the box. Raises UserError where there are no four finite numbers.

    Only direct children count: the parts of a person have boxes of their own.
    """
    try:
        x1, y1, x2, y2 = (
            float(node.findtext(f"bndbox/{end}") or "") for end in ("xmin", "ymin", "xmax", "ymax")
        )
    except ValueError:
        raise BadInput(f"{where} has no bndbox of four numbers") from None
    width, height = x2 - x1 + 1, y2 - y1 + 1  # floats occur in the 2012 files
    if not all(map(math.isfinite, (x1, y1, width, height))):
        raise BadInput(f"{where} has no bndbox of four numbers")
    return x1 - 1, y1 - 1, width, height


def voc_difficult(node: ET.Element) -> bool:
    return (node.findtext("difficult") or "0").strip().lower() in ("1", "true", "yes")


def without_outline(value: dict[str, Any]) -> dict[str, Any]:
    """Drop the outline of an object that has a box as soon as it is parsed: it is most of a COCO
    file."""
    if value.get("bbox"):
        value.pop("segmentation", None)
    return value
