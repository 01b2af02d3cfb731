"""What is asked of the installed transformers: configurations, image processors, silence."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from eval.common.errors import BadInput, one_line
from eval.models.formats.transformers_config import NO_FEATURES, TransformersConfig


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No reports and progress bars of the library while it builds and loads."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def library_config(config: TransformersConfig, who: str) -> Any:
    """The library's configuration object. Raises UserError for a setting that the class has and
    this package does not know: left out, it would silently be another network."""
    from transformers import AutoConfig

    usual = AutoConfig.for_model(config.model_type)
    defaults, general = usual.to_dict(), _general()
    for key, value in config.given.items():
        unknown = key in defaults and key not in general and key not in NO_FEATURES
        if unknown and key not in config.settings and value not in (None, defaults[key]):
            raise BadInput(
                f"config.json of {who} sets {key!r}, which changes a {config.model_type} network "
                "in a way that is not known here"
            )
    try:
        with quiet():
            return AutoConfig.for_model(config.model_type, **config.settings)
    except Exception as error:  # the classes check their values, and say so in many ways
        raise BadInput(f"transformers refuses config.json of {who}: {one_line(error)}") from None


def _general() -> set[str]:
    """Settings that every configuration of the library has: labels, ways of running."""
    from transformers import PretrainedConfig

    return set(PretrainedConfig().to_dict()) | {"model_type"}


def processor(beside: Mapping[str, dict[str, Any]], who: str) -> dict[str, Any]:
    """The image processor's numbers, completed by its class where the file leaves some out.

    Raises UserError where the file has none, it names code of the repository's own, or the
    library does not know it.
    """
    from transformers import AutoImageProcessor

    given = beside.get("preprocessor_config.json")
    if given is None:
        given = beside.get("processor_config.json", {}).get("image_processor")
    if not isinstance(given, dict):
        raise BadInput(f"processor_config.json of {who} has no 'image_processor'")
    if given.get("auto_map"):
        raise BadInput(
            f"preprocessor_config.json of {who} has 'auto_map': it runs code of the repository's "
            "own, which is never done here"
        )
    with tempfile.TemporaryDirectory(prefix="transferzoo-processor-") as folder:
        (Path(folder) / "preprocessor_config.json").write_text(json.dumps(given))
        try:
            with quiet():
                found = AutoImageProcessor.from_pretrained(
                    folder, local_files_only=True, trust_remote_code=False
                )
            return dict(found.to_dict())
        except Exception as error:
            said = one_line(error).replace(folder, "the folder")
            raise BadInput(f"transformers cannot read the processor of {who}: {said}") from None
