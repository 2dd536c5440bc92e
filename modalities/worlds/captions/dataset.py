"""The embedded world with captions, as a data set."""

from dataclasses import replace
from pathlib import Path

from jepa.modality import Sample, Split
from modalities.storage.captioned import Captioned
from modalities.worlds.captions.grammar import captions
from modalities.worlds.captions.swaps import swaps
from modalities.worlds.scenes.dataset import Scenes, ScenesConfig


class CaptionedScenes:
    """Scenes, see there, each with five captions; labels are those of Scenes and `colour`, an index in COLOURS, of the
    main object.

    inputs: Captioned. Its swaps, `attribute` and `relation` where a scene allows them, are those of held-out splits;
    there are none for training.
    """

    def __init__(self, config: ScenesConfig, split: Split, size: int, cache_dir: Path) -> None:
        self._scenes = Scenes(config, split, size, cache_dir)
        self._seed, self._held_out = config.seed, split != "train"

    def __len__(self) -> int:
        return len(self._scenes)

    def __getitem__(self, index: int) -> Sample:
        sample, objects = self._scenes[index], self._scenes.objects(index)
        number = self._scenes.first + range(len(self))[index]  # raises, or counts from the end, as a list does
        false = swaps(objects, self._seed, number) if self._held_out else {}
        inputs = Captioned(sample.inputs, captions(objects, self._seed, number), false)
        return replace(sample, inputs=inputs, labels={**sample.labels, "colour": int(objects[0]["colour"])})
