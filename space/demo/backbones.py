"""The backbones the page has at hand: loaded once, shared by all visitors, bounded in every way."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from PIL import Image

from eval.common.errors import BadInput, Unreachable
from eval.common.files import default_cache
from eval.hub.client import with_retries
from eval.models.backbone import Backbone, load
from eval.models.names import ModelName
from eval.models.resolve import ResolvedModel, model_files, resolve
from eval.models.weight_files import CONFIG, WEIGHTS
from space.demo.admission import (
    MAX_CONFIG_BYTES,
    check_config,
    checked_name,
    in_public_words,
    weight_bytes,
)

if TYPE_CHECKING:
    from torch import Tensor

    from space.demo.encoding import Encoder

T = TypeVar("T")

MAX_MODELS = 10  # all that ship, which one question asks, and some more
MAX_BYTES = 2 * 10**9  # of weights in memory, one model's and all together
FEATURE_BYTES = 64 * 2**20
_LOADS = 2  # models being downloaded or built at a time


class Shelf:
    """Loaded backbones, least recently used ones given up; safe to use from many threads.

    At most ``models`` of them and ``max_bytes`` of weights are kept. A model evicted while a
    visitor's pictures run through it lives until they are done. A name keeps meaning the commit
    it was loaded at for as long as it is on the shelf; ``Backbone.resolved`` tells which.
    """

    def __init__(
        self,
        cache: Path | None = None,
        *,
        models: int = MAX_MODELS,
        max_bytes: int = MAX_BYTES,
        feature_bytes: int = FEATURE_BYTES,
        slots: int | None = None,
    ) -> None:
        """``slots`` batches run at a time, on as many threads; by default what the cores have room
        for, each forward pass using torch's own threads."""
        self.cache = cache or default_cache()
        self.models, self.max_bytes = models, max_bytes
        self._lock = threading.Lock()  # guards the two dicts below; never held while loading
        self._loaded: OrderedDict[str, tuple[Backbone, int]] = OrderedDict()
        self._loading: dict[str, Future[Backbone]] = {}
        self._loads = threading.BoundedSemaphore(_LOADS)
        self._slots, self._feature_bytes = slots, feature_bytes
        self._making = threading.Lock()
        self._engine: tuple[ThreadPoolExecutor, Encoder] | None = None

    def get(self, text: str) -> Backbone:
        """The model, loaded now if need be; visitors who ask for the same wait for one load.

        Raises UserError for other forms than ``zoo:``, ``hf-hub:`` and timm names, for a model
        over ``max_bytes`` (before its weights are downloaded), and for what ``eval.models.resolve``
        refuses.
        """
        name = checked_name(text)
        with self._lock:
            if held := self._loaded.get(text):
                self._loaded.move_to_end(text)
                return held[0]
            future = self._loading.get(text)
            mine = future is None
            if future is None:
                future = self._loading[text] = Future()
        if not mine:
            return future.result()
        try:
            with self._loads:
                backbone = self._load(text, name)
        except BaseException as error:
            with self._lock:
                del self._loading[text]
            future.set_exception(error)
            raise
        with self._lock:
            self._loaded[text] = backbone, weight_bytes(backbone.net)
            while len(self._loaded) > self.models or (
                len(self._loaded) > 1 and sum(b for _, b in self._loaded.values()) > self.max_bytes
            ):
                self._loaded.popitem(last=False)
            del self._loading[text]
        future.set_result(backbone)
        return backbone

    def loaded(self) -> list[str]:
        """The names on the shelf, least recently used first."""
        with self._lock:
            return list(self._loaded)

    def encode(self, text: str, images: Sequence[Image.Image]) -> Tensor:
        """Features [N, D] float32 of RGB images in fp32; equal pixels give equal rows.

        Pictures seen lately are not encoded again. Raises UserError like ``get``, and when
        features are not finite.
        """
        return self.features(self.get(text), images)

    def features(self, backbone: Backbone, images: Sequence[Image.Image]) -> Tensor:
        """``encode`` by a backbone that need not be on the shelf."""
        return self._at_work()[1].features(backbone, images, self.run)

    def run(self, work: Callable[[], T]) -> T:
        """What ``work`` returns or raises, done on one of the shelf's threads: heavy work of any
        number of visitors, a few at a time. ``work`` itself must not call ``run``."""
        return self._at_work()[0].submit(work).result()

    def _at_work(self) -> tuple[ThreadPoolExecutor, Encoder]:
        """Threads and encoder, made when first asked for: they take torch, and a page that asks
        nothing of the models is there without it."""
        with self._making:
            if self._engine is None:
                from torch import get_num_threads

                from space.demo.encoding import Encoder

                room = (os.cpu_count() or 1) // max(get_num_threads(), 1)
                # Threads of our own, not the visitors': each thread that ever computes keeps its
                # scratch memory and its team of OpenMP threads.
                pool = ThreadPoolExecutor(self._slots or max(1, room), "shelf")
                self._engine = pool, Encoder(self._feature_bytes)
            return self._engine

    def _load(self, text: str, name: ModelName) -> Backbone:
        from space.demo.encoding import settle

        with in_public_words(self.cache, text):
            if name.kind == "hub":
                self._check_hub(name.name, name.revision, text, (CONFIG, WEIGHTS), sure=False)
            model = resolve(text, self.cache)
            held = None
            if model.repo:
                names = (model.config, *model.weights)
                held = self._check_hub(model.repo, model.commit, text, names, sure=True)
            if held is None:  # they lie here
                held = self._check_files(model, text)
            # before anything but config.json is downloaded
            check_config(model, held, text, self.max_bytes)
            self._check_files(model, text)
            backbone = load(model)
            settle(backbone.net)
            self._check_size(weight_bytes(backbone.net), text)
            return backbone

    def _check_files(self, model: ResolvedModel, text: str) -> int:
        """Bytes of the weights, downloaded where they are not here."""
        files = model_files(model)
        size = sum((files.folder / part).stat().st_size for part in files.weights)
        self._check_size(size, text)
        return size

    def _check_size(self, size: int, text: str) -> None:
        if size > self.max_bytes:
            raise BadInput(
                f"model {text!r} has {size / 1e9:.2g} GB of weights; this page takes at most "
                f"{self.max_bytes / 1e9:.2g} GB"
            )

    def _check_hub(
        self, repo: str, revision: str | None, text: str, names: tuple[str, ...], *, sure: bool
    ) -> int | None:
        """Refuse by the Hub's metadata what is too large to download; ``sure`` refuses as well
        what is neither cached nor of a size the Hub tells. Bytes of the weights, as far as it tells
        them; None where they are cached."""
        from huggingface_hub import HfApi, try_to_load_from_cache

        exact = revision is not None and re.fullmatch(r"[0-9a-f]{40}", revision)
        if exact and all(
            isinstance(try_to_load_from_cache(repo, file, revision=revision), str) for file in names
        ):
            return None
        sizes: dict[str, int | None] = {}
        with contextlib.suppress(Exception):  # resolve() asks again and says what is wrong
            ask = HfApi().model_info
            info = with_retries(
                lambda: ask(repo, revision=revision, files_metadata=True, timeout=30)
            )
            sizes = {s.rfilename: s.size for s in info.siblings or []}
        held = [sizes.get(file) for file in names]
        if sure and None in held:
            raise Unreachable(f"the Hub does not tell the size of model {text!r}; try again later")
        size = sum(size or 0 for size in held[1:])
        self._check_size(size, text)
        if (held[0] or 0) > MAX_CONFIG_BYTES:
            raise BadInput(f"model {text!r} has a config.json that is too large to be one")
        return size
