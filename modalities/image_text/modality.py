"""Captioned images: image patches and words as one set of tokens, over two towers of open_clip."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from jepa.data.given import ValueRange
from jepa.encoder import TokenEncoder
from jepa.evaluate.cross_modal.vectors import StreamEncoder
from jepa.masking import Masks, check_masking, mask_groups
from jepa.matching import MatchedModality
from jepa.modality import Samples, Split, Task
from jepa.model import JEPA
from modalities.image.views import (
    center_view,
    denormalise,
    normalise,
    normalise_bytes,
    random_resized_crop,
    stored_side,
)
from modalities.image_text.captions.rules import clean_caption
from modalities.image_text.captions.sources import EVIDENCE, open_captions
from modalities.image_text.config import ImageTextConfig, TowersConfig
from modalities.image_text.encoder import TwoTowers, View
from modalities.image_text.masks import Layout, both_regions, check_words, sample_objectives
from modalities.image_text.open_clip_files import PixelStatistics
from modalities.image_text.served import ImageTextModel
from modalities.storage.captioned import CaptionedImage
from modalities.storage.given import given_pixels
from modalities.storage.images import decode_image
from modalities.storage.opened import Opened
from modalities.storage.sources import source_and_root, with_source
from modalities.storage.splits import StoredSplit
from modalities.storage.value_ranges import value_range_warnings
from modalities.worlds.captions.dataset import CaptionedScenes
from modalities.worlds.captions.words import SHAPE_NOUNS
from modalities.worlds.scenes.dataset import default_cache_dir
from modalities.worlds.scenes.description import COLOURS
from modalities.worlds.scenes.shapes import CLASSES

_RAW_SIDE = 32  # pixels per side of the raw-input baseline


class ImageText(MatchedModality[ImageTextConfig]):
    """Images and their captions as one set of tokens: patches row by row, words, and a summary token of each."""

    contract, config_type, model_type = 1, ImageTextConfig, TowersConfig

    def __init__(self, config: ImageTextConfig, model: TowersConfig | None = None) -> None:
        model = model or TowersConfig()
        config = with_source(config, EVIDENCE, "or images for those without captions")
        with torch.device("meta"):
            towers = model.build(None)
        self.mean, self.std = _statistics(config, model)
        super().__init__(replace(config, pixel_mean=self.mean, pixel_std=self.std))
        self.layout = Layout(towers.image.grid, towers.text.length)
        self.grid, self.streams = self.layout.grid, (self.layout.image, self.layout.text)
        self.size, self.tokenize = towers.image.image_size, towers.tokenize
        check_masking(self.grid, config.masking)
        self.mask_groups = mask_groups([config.masking])
        if self.mask_groups and not self.mask_groups.equal:
            raise ValueError("masking.legacy_group: only images and videos without captions can have it")
        self._opened = Opened()
        check_words(self.layout, config.objectives)
        if model.contrast != "none" and not config.objectives.contrasts:
            raise ValueError(
                "objectives: model.contrast compares whole images and captions, so set image and caption to 1"
            )

    @classmethod
    def of(cls, data: ImageTextConfig, model: Any) -> Self:
        """Create the modality of a config; its tokens depend on the towers."""
        return cls(data, model)

    @property
    def positions(self) -> Tensor:
        """Coordinates (stream, row or word, column): [N, 3]."""
        return self.layout.positions

    @cached_property
    def _labelled_classes(self) -> Sequence[str]:
        return CLASSES if self.config.source == "scenes" else self._open("train").classes

    @property
    def tasks(self) -> Sequence[Task]:  # type: ignore[override]
        """Classes of labelled images; for the embedded world also the main object's colour and the object count."""
        classes = self._labelled_classes
        tasks = [Task(label="class", kind="class", classes=classes)] if classes else []
        if self.config.source != "scenes":
            return tasks
        return [*tasks, Task(label="colour", kind="class", classes=tuple(COLOURS)), Task(label="count", kind="count")]

    def dataset(self, split: Split) -> Samples:
        """Captioned images of their stored size; raises ValueError if the tokenizer's files are missing."""
        self.tokenize.load()
        if self.config.source == "scenes":
            return CaptionedScenes(self.config.scenes, split, max(self.size), default_cache_dir())
        return self._open(split).samples

    def encoder(self, config: TowersConfig) -> TokenEncoder:
        """The two towers with random weights."""
        return TwoTowers(config.build(None))

    def data_warnings(self) -> Sequence[str]:
        """Missing captions, or deep images whose values fall into few levels, as `value_range` is not set."""
        if self.config.source == "images":
            return ("data.source=images has no captions, so a run learns nothing about text",)
        if self.config.source == "scenes" or self.config.value_range is not None:
            return ()
        return value_range_warnings(self.dataset("train"), lambda pair: pair, 8)

    def sample_masks(self, batch_size: int, generator: Generator) -> list[Masks]:
        """A set of masks for each objective that is drawn for the step."""
        return sample_objectives(self.layout, self.config.objectives, self.config.masking, batch_size, generator)

    def gain_masks(self, batch_size: int, generator: Generator) -> tuple[Masks, Masks] | None:
        """Masks that hide regions of the image, with and without the caption, if the run trains on both."""
        if not self.config.objectives.drops_at_times:
            return None
        return both_regions(self.layout, self.config.masking, batch_size, generator)

    def training_view(self, inputs: CaptionedImage, generator: Generator) -> View:
        """A random crop and a random caption."""
        image, text = self._crop(inputs, generator)
        return View(self._pixels(image), text)

    def loader_view(self, inputs: CaptionedImage, generator: Generator) -> View:
        """As `training_view`, with the image as uint8."""
        return self._crop(inputs, generator)

    def to_network(self, views: View) -> View:
        """Normalise the images of a batch if they are uint8."""
        return View(normalise_bytes(views.image, self.mean, self.std), views.text)

    def evaluation_view(self, inputs: CaptionedImage) -> View:
        """The central crop and the first caption."""
        return self.view(inputs.image, inputs.captions[0])

    def view(self, image: Tensor, caption: str) -> View:
        """The input of the towers for an image uint8 [3, H', W'] and a caption."""
        return View(self._pixels(center_view(image, self.size)), self._ids(caption))

    def sentence_view(self, sentence: str) -> View:
        """The input of the towers for a sentence, cleaned like a caption, beside an empty image."""
        return self.view(torch.zeros(3, *self.size, dtype=torch.uint8), clean_caption(sentence))

    def example_view(self) -> View:
        """An empty image and an empty caption."""
        return View(torch.zeros(3, *self.size), torch.zeros(self.layout.length, dtype=torch.int64))

    def example_loader_view(self) -> View:
        """An empty image as uint8, and an empty caption."""
        return self.example_view()._replace(image=torch.zeros(3, *self.size, dtype=torch.uint8))

    def matches(self, inputs: CaptionedImage) -> Sequence[View]:
        """The image with each of its captions."""
        pixels = self._pixels(center_view(inputs.image, self.size))
        return [View(pixels, self._ids(caption)) for caption in inputs.captions]

    def near_misses(self, inputs: CaptionedImage) -> Mapping[str, tuple[View, View]]:
        """The image with a true caption, and with a false caption of the same words."""
        return {
            name: (self.view(inputs.image, true), self.view(inputs.image, false))
            for name, (true, false) in inputs.swaps.items()
        }

    def prompts(self, task: Task) -> Iterator[Sequence[View]]:
        """The prompts of the config with the names of each class, and an empty image."""
        nothing = torch.zeros(()).expand(3, *self.size)
        for names in self._names(task):
            yield [View(nothing, self._ids(text.format(name))) for name in names for text in self.config.prompts]

    def descriptions(self, inputs: CaptionedImage) -> Sequence[str]:
        """The captions."""
        return inputs.captions

    def inference_model(self, model: JEPA, encoder: Literal["target_encoder", "context_encoder"]) -> nn.Module:
        """All networks as one model that encodes and compares pictures and sentences."""
        matcher = StreamEncoder(model, self, encoder)
        return ImageTextModel(self, matcher, encoder, self.config)

    def baselines(self, view: View) -> Mapping[str, Tensor]:
        """Pixels, averaged to at most 32 per side: -> [F]."""
        height, width = (min(side, _RAW_SIDE) for side in self.size)
        return {"raw_input": F.adaptive_avg_pool2d(view.image, (height, width)).flatten()}

    @property
    def stored_side(self) -> int:
        """Pixels needed on the shorter side of a stored image; see `stored_side` of views.py."""
        return stored_side(self.size, self.config.crop_scale)

    def stored_input(self, given: Any, value_range: ValueRange) -> CaptionedImage:
        """A path, an array or a Pillow image -> the image with an empty caption."""
        if isinstance(given, str | Path):
            return CaptionedImage(decode_image(Path(given), self.stored_side, pixels=self.config), ("",))
        return CaptionedImage(given_pixels(given, 3, value_range, self.config), ("",))

    def picture(self, view: View) -> Tensor:
        """The image: uint8 [H, W, 3]."""
        return denormalise(view.image, self.mean, self.std).permute(1, 2, 0)

    def _names(self, task: Task) -> Sequence[Sequence[str]]:
        """Names of each class of a task; a colour is named together with every shape; () if nothing names it."""
        match task.label, self.config.source:
            case "class", "scenes":
                return [(SHAPE_NOUNS[shape],) for shape in CLASSES]
            case "colour", "scenes":
                return [[f"{colour} {SHAPE_NOUNS[shape]}" for shape in CLASSES] for colour in COLOURS]
            case "class", _:
                # Numbers, as of classes in shards, are not names.
                return [() if name.isdecimal() else (name.replace("_", " "),) for name in self._labelled_classes]
        return ()

    def _crop(self, inputs: CaptionedImage, generator: Generator) -> View:
        config = self.config
        number = int(torch.randint(len(inputs.captions), (), generator=generator))
        crop = random_resized_crop(inputs.image, self.size, config.crop_scale, config.crop_aspect, False, generator)
        return View(crop, self._ids(inputs.captions[number]))

    def _pixels(self, image: Tensor) -> Tensor:
        return normalise(image, self.mean, self.std)

    def _ids(self, caption: str) -> Tensor:
        return self.tokenize([caption])[0]

    def _open(self, split: Split) -> StoredSplit:
        config, (source, root) = self.config, source_and_root(self.config)
        open_split = partial(
            open_captions,
            min_side=self.stored_side,
            pixels=config,
            opened=self._opened.at(self.index_folder),
            labels=config.reads_labels,
        )
        return self._opened.once((split, self.index_folder), lambda: open_split(source, root, split))


def _statistics(config: ImageTextConfig, model: TowersConfig) -> tuple[PixelStatistics, PixelStatistics]:
    """Mean and std of pixels: those of the config, as pretrained weights may be gone later, else of the weights."""
    if config.pixel_mean and config.pixel_std:
        return config.pixel_mean, config.pixel_std
    mean, std = model.pixel_statistics()
    return config.pixel_mean or mean, config.pixel_std or std
