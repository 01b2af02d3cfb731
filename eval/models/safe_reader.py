"""Others' checkpoint files, read without running anything that they hold.

Only tensors and plain values come out. Classes that real checkpoints mention are stood in for by
inert ones, by name: their packages are neither needed nor imported.
"""

from __future__ import annotations

import contextlib
import pickletools
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.common.errors import BadInput, NotFound, one_line

if TYPE_CHECKING:
    from torch import Tensor


class Inert:
    """Stands for a class of another package: it keeps plain state, and runs nothing."""

    def __init__(self, *args: object) -> None:
        self.values: dict[Any, Any] = {}

    def __setstate__(self, state: object) -> None:
        self.values = state if isinstance(state, dict) else {}


class _Bag:
    """Stands for a subclass of dict, which torch's safe unpickler does not fill: it is plain."""

    def __new__(cls, *args: Any) -> OrderedDict[Any, Any]:  # type: ignore[misc]  # not a _Bag: see above
        return OrderedDict(*args)


# Classes that real checkpoints mention. Only their names are known here; none is imported.
_HARMLESS: dict[str, type] = {
    "argparse.Namespace": Inert,
    "pytorch_lightning.utilities.parsing.AttributeDict": _Bag,
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint": Inert,
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping": Inert,
    "pytorch_lightning.callbacks.lr_monitor.LearningRateMonitor": Inert,
    "utils.custom_callbacks.CheckpointCallback": Inert,  # the study's own, key of 'callbacks'
    "utils.custom_callbacks.LearningRateMonitor": Inert,
    **{
        f"pathlib.{part}{kind}": Inert
        for part in ("", "_local.")
        for kind in ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")
    },
    **{
        f"numpy.{core}.multiarray.{name}": Inert
        for core in ("core", "_core")
        for name in ("scalar", "_reconstruct")
    },
    "numpy.dtype": Inert,
    "numpy.ndarray": Inert,
}


def load(file: Path) -> Mapping[Any, Any]:
    """The file's top level. Tensors and plain values only: nothing a pickle names is run."""
    if file.is_dir():
        raise BadInput(f"{file} is a folder; name the checkpoint file in it")
    if not file.is_file():
        raise NotFound(f"there is no file {file}")
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        try:
            return load_file(file)
        except Exception as error:
            raise BadInput(f"{file} is not a whole safetensors file: {one_line(error)}") from None

    import pickle

    import torch

    names: list[Any] = [(stand_in, name) for name, stand_in in _HARMLESS.items()]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(names):
            warnings.simplefilter("ignore")  # on the age of the file's format
            top = torch.load(file, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except Exception as error:  # whatever damaged bytes make of a pickle
        code = _refused_global(file, str(error)) if isinstance(error, pickle.PickleError) else None
        if code is not None:
            raise BadInput(
                f"{file} holds {code!r}, which is code and not a tensor, and nothing of it was "
                "run; save the weights alone, with torch.save(model.state_dict(), FILE)"
            ) from None
        raise BadInput(f"{file} is not a whole torch checkpoint: {_reason(error)}") from None
    if not isinstance(top, Mapping):
        raise BadInput(f"{file} holds a {type(top).__name__}, where a dict of weights is needed")
    return top


def _reason(error: Exception) -> str:
    """Why torch could not read a file, without its advice to run the file's code."""
    text = str(error)
    if isinstance(error, OSError):  # sought beyond the file's end
        return "its bytes are cut short"
    if re.search(r"Unsupported operand 1[45]\d", text):
        return "it is pickled by another protocol than torch's own 2; save it again with torch.save"
    if "weights_only" in text:
        text = text.partition("WeightsUnpickler error: ")[2].partition("\n")[0]
    text = " ".join(text.split()).partition(". ")[0]
    # Of arbitrary bytes, torch says little more than the byte that it stumbled on.
    return text if " " in text else "its bytes are of another format or cut short"


def _refused_global(file: Path, error: str) -> str | None:
    """The global that torch refused to load, None where it refused something else."""
    named = re.search(r"GLOBAL (\S+)", error)
    if named:
        return named[1]
    # Newer pickle protocols are refused before a name is read: it is read here, and not followed.
    with contextlib.suppress(Exception):
        for name in _globals(file):
            if name not in _HARMLESS and not name.startswith(("torch.", "collections.")):
                return name
    return None


def _globals(file: Path) -> Iterator[str]:
    """The globals that a file's first pickle names."""
    with contextlib.ExitStack() as stack:
        stream: Any = stack.enter_context(file.open("rb"))
        if zipfile.is_zipfile(file):
            archive = stack.enter_context(zipfile.ZipFile(file))
            stream = stack.enter_context(
                archive.open(next(n for n in archive.namelist() if n.endswith("data.pkl")))
            )
        strings: list[str] = []
        for op, value, _ in pickletools.genops(stream):
            if op.name in ("GLOBAL", "INST"):
                yield str(value).replace(" ", ".")
            elif op.name == "STACK_GLOBAL":
                yield ".".join(strings[-2:])
            elif isinstance(value, str):
                strings.append(value)


def values_of(thing: Any) -> dict[Any, Any]:
    """The values of a dict or of what was an argparse.Namespace; of anything else, none."""
    if isinstance(thing, Mapping):
        return dict(thing)
    return thing.values if isinstance(thing, Inert) else {}


def state_dict(top: Mapping[Any, Any], file: Path, *names: str) -> dict[str, Tensor]:
    """The state dict under the first of ``names`` that there is, else the top level itself."""
    import torch

    name = next((n for n in names if isinstance(top.get(n), Mapping)), None)
    state = top if name is None else top[name]
    if name is None and not any(isinstance(value, torch.Tensor) for value in top.values()):
        raise BadInput(
            f"{file} holds no weights under {' or '.join(map(repr, names))}: its keys are "
            f"{', '.join(map(repr, list(top)[:6])) or 'none'}; another --source may fit"
        )
    for key, value in state.items():
        if not isinstance(key, str):
            raise BadInput(f"{file}: {key!r} is not a name of a weight")
        if not isinstance(value, torch.Tensor):
            raise BadInput(f"{file}: {key!r} is of type {type(value).__name__}, not a tensor")
        if value.layout != torch.strided or value.is_quantized:
            raise BadInput(f"{file}: {key!r} is a sparse or quantized tensor; save it dense")
        if value.is_meta:
            raise BadInput(f"{file}: {key!r} is a tensor without values, saved from 'meta'")
    if not state:
        raise BadInput(f"{file} holds no weights: {name!r} is empty")
    return dict(state)
