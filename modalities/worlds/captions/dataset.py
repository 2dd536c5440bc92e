"""The embedded world of images with captions, as a data set."""

from dataclasses import replace
from pathlib import Path

from jepa.modality import Sample, Split
from modalities.storage.captioned import CaptionedImage
from modalities.worlds.captions.grammar import captions
from modalities.worlds.captions.swaps import swaps
from modalities.worlds.scenes.dataset import Scenes, ScenesConfig


class CaptionedScenes:
    """Scenes with five captions each. Labels: those of Scenes, and `colour` of the main object, index in COLOURS.

    inputs: CaptionedImage. Held-out splits have the swaps `attribute` and `relation` if the scene allows them; the
    training split has none.
    """

    def __init__(self, config: ScenesConfig, split: Split, size: int, cache_dir: Path) -> None:
        self._scenes = Scenes(config, split, size, cache_dir, captioned=True)
        self._seed, self._held_out = config.seed, split != "train"

    def __len__(self) -> int:
        return len(self._scenes)

    def __getitem__(self, index: int) -> Sample:
        sample, objects = self._scenes[index], self._scenes.objects(index)
        scene = self._scenes.first + range(len(self))[index]  # index errors and negative indices as in a list
        pairs = swaps(objects, self._seed, scene) if self._held_out else {}
        inputs = CaptionedImage(sample.inputs, captions(objects, self._seed, scene), pairs)
        return replace(sample, inputs=inputs, labels={**sample.labels, "colour": int(objects[0]["colour"])})
