"""Pictures of described scenes by casting rays: colours, distances and which object each pixel shows.

One ray a pixel; pixels that differ from a neighbour get four more, whose mean replaces their colour. Pictures are made
one at a time, so that a picture does not depend on its batch.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modalities.worlds.scenes.caster import SKY, Caster
from modalities.worlds.scenes.description import SceneBatch
from modalities.worlds.scenes.shapes import Floats, Ints

FAR = 20.0  # metres: the distance of what is farther, of the sky too
_CONTRAST = 24  # steps of 256 between neighbours from which a pixel is worth more rays
_INSIDE_PIXEL = ((-0.125, -0.375), (0.375, -0.125), (-0.375, 0.125), (0.125, 0.375))  # rotated grid, in pixels


@dataclass(frozen=True, kw_only=True)
class Views:
    """What a camera sees, B pictures of S x S pixels.

    depth is the distance in metres along the ray through the middle of a pixel, at most FAR; objects the slot of the
    object seen there, -1 for none.
    """

    images: NDArray[np.uint8]  # [B, 3, S, S], sRGB
    depth: Floats  # [B, S, S]
    objects: NDArray[np.int8]  # [B, S, S]


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """F pictures in the making, S x S pixels."""

    image: NDArray[np.uint8]  # [F, 3, S, S], sRGB
    coarse: NDArray[np.uint8]  # [F, 3, S, S], the same from one ray a pixel
    distance: Floats  # [F, S, S], metres along the ray through the middle of a pixel, inf for the sky
    surface: Ints  # [F, S, S], of those of a Caster

    @staticmethod
    def blank(frames: int, size: int) -> "Pictures":
        """Nothing as yet."""
        image, square = np.zeros((frames, 3, size, size), dtype=np.uint8), (frames, size, size)
        distance, surface = np.full(square, np.inf, dtype=np.float32), np.full(square, SKY)
        return Pictures(image=image, coarse=image.copy(), distance=distance, surface=surface)

    def repeated(self, frames: int) -> "Pictures":
        """The same F times, to be painted over."""
        return Pictures(
            image=self.image.repeat(frames, axis=0),
            coarse=self.coarse.repeat(frames, axis=0),
            distance=self.distance.repeat(frames, axis=0),
            surface=self.surface.repeat(frames, axis=0),
        )

    def paint(self, caster: Caster, where: NDArray[np.bool_]) -> None:
        """Paint the pixels that are true in [F, S, S]."""
        frame, row, column = np.nonzero(where)
        rgb, self.distance[where], self.surface[where] = caster.look(row, column, frame)
        self.coarse[frame, :, row, column] = self.image[frame, :, row, column] = np.rint(rgb * 255).T

        frame, row, column = np.nonzero(_edges(self.coarse, self.surface) & where)
        down = np.concatenate([row + offset for _, offset in _INSIDE_PIXEL])
        across = np.concatenate([column + offset for offset, _ in _INSIDE_PIXEL])
        rays = len(_INSIDE_PIXEL)
        finer = caster.look(down, across, np.tile(frame, rays))[0].reshape(3, rays, -1).mean(axis=1)
        self.image[frame, :, row, column] = np.rint(finer * 255).T

    def objects(self, caster: Caster) -> NDArray[np.int8]:
        """The slot of the object at each pixel, -1 for none: [F, S, S]."""
        return np.where(self.surface < caster.count, self.surface, -1).astype(np.int8)


@np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore")
def render(scenes: SceneBatch, size: int) -> Views:
    """Pictures of size x size pixels."""
    batch = len(scenes.camera.focal)
    images = np.empty((batch, 3, size, size), dtype=np.uint8)
    depth = np.empty((batch, size, size), dtype=np.float32)
    objects = np.empty((batch, size, size), dtype=np.int8)
    everywhere = np.ones((1, size, size), dtype=np.bool_)
    for number in range(batch):
        caster, picture = Caster([scenes], number, size), Pictures.blank(1, size)
        picture.paint(caster, everywhere)
        images[number] = picture.image[0]
        depth[number] = np.minimum(picture.distance[0], np.float32(FAR))
        objects[number] = picture.objects(caster)[0]
    return Views(images=images, depth=depth, objects=objects)


def _edges(image: NDArray[np.uint8], surface: Ints) -> NDArray[np.bool_]:
    """Pixels that differ visibly from one beside, above or below them: [F, 3, S, S], [F, S, S] -> [F, S, S]."""
    found = np.zeros(surface.shape, dtype=np.bool_)
    levels = image.astype(np.int16)
    across = (np.abs(levels[..., 1:] - levels[..., :-1]).max(axis=1) > _CONTRAST) | (
        surface[..., 1:] != surface[..., :-1]
    )
    down = (np.abs(levels[..., 1:, :] - levels[..., :-1, :]).max(axis=1) > _CONTRAST) | (
        surface[:, 1:] != surface[:, :-1]
    )
    found[..., 1:] |= across
    found[..., :-1] |= across
    found[:, 1:] |= down
    found[:, :-1] |= down
    return found
