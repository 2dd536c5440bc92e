"""Pictures of clips: the middle frame in full, and from there in both directions only what changes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modalities.moving_world import ClipBatch, scenes_at
from modalities.scene_render import Caster, Picture
from modalities.scene_world import SceneBatch


@dataclass(frozen=True, kw_only=True)
class Films:
    """B clips of F frames of S x S pixels; objects: the slot of the object seen at each pixel, -1 for none."""

    images: NDArray[np.uint8]  # [B, F, 3, S, S], sRGB
    objects: NDArray[np.int8]  # [B, F, S, S]


@np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore")
def film(clips: ClipBatch, size: int) -> Films:
    """Pictures of size x size pixels. The middle one depends on the middle scene alone."""
    batch, middle = len(clips.motion), clips.middle_frame
    images = np.empty((batch, clips.frames, 3, size, size), dtype=np.uint8)
    objects = np.empty((batch, clips.frames, size, size), dtype=np.int8)
    scenes = [scenes_at(clips, frame) for frame in range(clips.frames)]
    for number in range(batch):
        changing = _changing(clips, number)
        start = _Shot(scenes[middle], number, size)
        start.caster.paint(start.picture, np.ones((size, size), dtype=np.bool_))
        for order in (range(middle, clips.frames), range(middle - 1, -1, -1)):
            shot = start
            for frame in order:
                if frame != middle:
                    shot = shot.followed(scenes[frame], changing)
                images[number, frame] = shot.picture.image
                objects[number, frame] = shot.caster.slots(shot.picture)
    return Films(images=images, objects=objects)


def _changing(clips: ClipBatch, number: int) -> list[int] | None:
    """Slots of the objects that move or turn in a clip; None where the camera does, so that everything changes."""
    if clips.pan[number].any():
        return None
    moves = clips.velocity[number].any(axis=(0, 2)) | clips.spin[number].any(axis=-1)
    return np.flatnonzero(moves[: clips.middle.objects.count[number]]).tolist()


class _Shot:
    """A scene and its picture."""

    def __init__(self, scenes: SceneBatch, number: int, size: int) -> None:
        self.number, self.size = number, size
        self.caster, self.picture = Caster(scenes, number, size), Picture.blank(size)

    def followed(self, scenes: SceneBatch, changing: list[int] | None) -> "_Shot":
        """The shot of the frame beside this one, painted over this one where objects are, were, or cast shadows."""
        after = _Shot(scenes, self.number, self.size)
        if changing is None:
            after.caster.paint(after.picture, np.ones((self.size, self.size), dtype=np.bool_))
            return after
        after.picture = self.picture.copy()
        row, column = np.divmod(np.arange(self.size * self.size), self.size)
        direction = self.caster.directions(row, column)
        point = self.caster.eye[:, None] + self.picture.distance.reshape(-1) * direction
        touched = np.zeros(self.size * self.size, dtype=np.bool_)
        for slot in changing:
            for caster in (self.caster, after.caster):
                touched |= caster.met(slot, direction) | caster.under(slot, point)
        after.caster.paint(after.picture, _widened(touched.reshape(self.size, self.size)))
        return after


def _widened(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """With the pixels beside, above and below, whose edges may have changed, and those at corners."""
    wide = mask.copy()
    wide[1:] |= mask[:-1]
    wide[:-1] |= mask[1:]
    across = wide.copy()
    across[:, 1:] |= wide[:, :-1]
    across[:, :-1] |= wide[:, 1:]
    return across
