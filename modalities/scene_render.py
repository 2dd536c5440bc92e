"""Pictures of described scenes by casting rays: colours, distances and which object each pixel shows.

One ray a pixel; pixels that differ from a neighbour get four more, whose mean replaces their colour. Pictures are made
one at a time, so that a picture does not depend on its batch; rays are flat arrays, vectors [3, R].
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from modalities.scene_shapes import Floats, Ints, entry, outward
from modalities.scene_world import MATERIALS, PATTERNS, SceneBatch

FAR = 20.0  # metres: the distance of what is farther, of the sky too
_CONTRAST = 24  # steps of 256 between neighbours from which a pixel is worth more rays
_INSIDE_PIXEL = ((-0.125, -0.375), (0.375, -0.125), (-0.375, 0.125), (0.125, 0.375))  # rotated grid, in pixels
_SKY = -1

# By material: strength and sharpness of highlights, share of the surroundings that are mirrored.
_GLOSS = {"matte": (0.0, 1.0, 0.0), "plastic": (0.45, 40.0, 0.08), "metal": (0.9, 70.0, 0.6)}


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
class Picture:
    """A picture in the making, S x S pixels."""

    image: NDArray[np.uint8]  # [3, S, S], sRGB
    coarse: NDArray[np.uint8]  # [3, S, S], the same from one ray a pixel
    distance: Floats  # [S, S], metres along the ray through the middle of a pixel, inf for the sky
    surface: Ints  # [S, S], of those of a Caster

    @staticmethod
    def blank(size: int) -> "Picture":
        """Nothing as yet."""
        image, square = np.zeros((3, size, size), dtype=np.uint8), (size, size)
        return Picture(
            image=image,
            coarse=image.copy(),
            distance=np.full(square, np.inf, dtype=np.float32),
            surface=np.full(square, _SKY),
        )

    def copy(self) -> "Picture":
        """The same, to be painted over."""
        return Picture(
            image=self.image.copy(),
            coarse=self.coarse.copy(),
            distance=self.distance.copy(),
            surface=self.surface.copy(),
        )


@np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore")
def render(scenes: SceneBatch, size: int) -> Views:
    """Pictures of size x size pixels."""
    batch = len(scenes.camera.focal)
    images = np.empty((batch, 3, size, size), dtype=np.uint8)
    depth = np.empty((batch, size, size), dtype=np.float32)
    objects = np.empty((batch, size, size), dtype=np.int8)
    everywhere = np.ones((size, size), dtype=np.bool_)
    for number in range(batch):
        picture = Picture.blank(size)
        caster = Caster(scenes, number, size)
        caster.paint(picture, everywhere)
        images[number] = picture.image
        depth[number] = np.minimum(picture.distance, np.float32(FAR))
        objects[number] = caster.slots(picture)
    return Views(images=images, depth=depth, objects=objects)


def _edges(image: NDArray[np.uint8], surface: Ints) -> NDArray[np.bool_]:
    """Pixels that differ visibly from one beside, above or below them: [3, S, S], [S, S] -> [S, S]."""
    found = np.zeros(surface.shape, dtype=np.bool_)
    levels = image.astype(np.int16)
    across = (np.abs(levels[:, :, 1:] - levels[:, :, :-1]).max(axis=0) > _CONTRAST) | (
        surface[:, 1:] != surface[:, :-1]
    )
    down = (np.abs(levels[:, 1:] - levels[:, :-1]).max(axis=0) > _CONTRAST) | (surface[1:] != surface[:-1])
    found[:, 1:] |= across
    found[:, :-1] |= across
    found[1:] |= down
    found[:-1] |= down
    return found


class Caster:
    """Rays into one scene. Its surfaces are the objects by slot, then the ground and the wall."""

    def __init__(self, scenes: SceneBatch, number: int, size: int) -> None:
        objects, camera, light, backdrop = scenes.objects, scenes.camera, scenes.light, scenes.backdrop
        self.size, self.count = size, int(objects.count[number])
        self.ground = self.count
        present = (number, slice(self.count))
        self.shape = objects.shape[present].tolist()
        self.position, self.radius = objects.position[present], objects.radius[present]
        # The ground below an object in the air sees more sky: as much as the share that the object takes shrinks.
        self.closeness = np.float32(0.7) * np.exp(-np.square(objects.aloft[present] / self.radius))
        self.to_local = objects.rotation[present].swapaxes(-1, -2) / objects.scale[present][..., None]  # [K, 3, 3]
        self.gloss = [_GLOSS[MATERIALS[material]] for material in objects.material[present]]

        frequency = objects.frequency[present][:, None, None]
        self.texture = np.concatenate([self.to_local * frequency, backdrop.texture[number]])  # [K + 2, 3, 3]
        self.pattern = [PATTERNS[kind] for kind in (*objects.pattern[present], *backdrop.pattern[number])]
        self.rgb = np.concatenate([objects.rgb[present], backdrop.rgb[number]])  # [K + 2, 2, 3]

        self.eye, self.axes, self.focal = camera.position[number], camera.axes[number], camera.focal[number]
        self.lamp, self.lamp_rgb, self.ambient = light.direction[number], light.rgb[number], light.ambient[number]
        x, y, z = self.lamp
        across = np.array([[0, z, -y], [-y * y - z * z, x * y, x * z]], dtype=np.float32)
        self.across = across / np.hypot(y, z)  # [2, 3], axes of the plane on which the lamp casts shadows
        self.plane_normal, self.plane_offset = backdrop.normal[number], backdrop.offset[number]
        self.sky = backdrop.sky[number]

    def paint(self, picture: Picture, where: NDArray[np.bool_]) -> None:
        """Paint the pixels of a picture that are true in [S, S]."""
        row, column = np.nonzero(where)
        rgb, picture.distance[where], picture.surface[where] = self.look(row, column)
        picture.coarse[:, where] = picture.image[:, where] = np.rint(rgb * 255)

        rows, columns = np.nonzero(_edges(picture.coarse, picture.surface) & where)
        down = np.concatenate([rows + offset for _, offset in _INSIDE_PIXEL])
        across = np.concatenate([columns + offset for offset, _ in _INSIDE_PIXEL])
        finer = self.look(down, across)[0].reshape(3, len(_INSIDE_PIXEL), -1).mean(axis=1)
        picture.image[:, rows, columns] = np.rint(finer * 255)

    def slots(self, picture: Picture) -> NDArray[np.int8]:
        """The slot of the object at each pixel, -1 for none: [S, S]."""
        return np.where(picture.surface < self.count, picture.surface, -1).astype(np.int8)

    def directions(self, row: NDArray[np.number], column: NDArray[np.number]) -> Floats:
        """Unit vectors [3, R] along the rays through places, whole numbers being middles of pixels."""
        half = np.float32(self.size / 2)
        x, y = (column + 0.5).astype(np.float32) / half - 1, 1 - (row + 0.5).astype(np.float32) / half
        direction = self.axes.T @ np.stack([x, y, np.full_like(x, self.focal)])
        direction /= _length(direction)
        return direction

    def look(self, row: NDArray[np.number], column: NDArray[np.number]) -> tuple[Floats, Floats, Ints]:
        """What is seen at places, whole numbers being middles of pixels: -> sRGB [3, R], distance, surface [R]."""
        direction = self.directions(row, column)
        distance, surface = self._nearest(direction)

        rgb = self._sky(direction[2])
        solid = np.argsort(surface.astype(np.int8), kind="stable")[np.count_nonzero(surface == _SKY) :]
        ends = np.searchsorted(surface[solid], np.arange(len(self.pattern) + 1)).tolist()
        members = [slice(*pair) for pair in pairwise(ends)]
        rgb[:, solid] = self._shade(direction[:, solid], distance[solid], members)
        return np.sqrt(np.clip(rgb, 0, 1)), distance, surface

    def _nearest(self, direction: Floats) -> tuple[Floats, Ints]:
        """What rays from the camera meet first: [3, R] -> distance, surface [R]."""
        distance = np.full(direction.shape[1], np.inf, dtype=np.float32)
        surface = np.full(direction.shape[1], _SKY)
        for slot in range(self.count):
            ray = np.flatnonzero(self.met(slot, direction))
            if not ray.size:
                continue
            start = self.to_local[slot] @ (self.eye - self.position[slot])[:, None]
            reached = entry(self.shape[slot], start, self.to_local[slot] @ direction[:, ray])
            closer = reached < distance[ray]
            distance[ray[closer]] = reached[closer]
            surface[ray[closer]] = slot
        for plane, (normal, offset) in enumerate(zip(self.plane_normal, self.plane_offset, strict=True)):
            reached = (offset - normal @ self.eye) / (normal @ direction)
            closer = (reached > 0) & (reached < distance)
            distance = np.where(closer, reached, distance)
            surface[closer] = self.ground + plane
        return distance, surface

    def met(self, slot: int, direction: Floats) -> NDArray[np.bool_]:
        """Which rays from the camera meet the ball around an object, [3, R] -> [R]: a cone around its middle."""
        offset = self.position[slot] - self.eye
        return offset @ direction > np.sqrt(np.maximum(offset @ offset - self.radius[slot] ** 2, 0))

    def under(self, slot: int, point: Floats) -> NDArray[np.bool_]:
        """Which points the ball around an object may hide from the lamp, were they behind it: [3, R] -> [R]."""
        x, y = self.across @ (point - self.position[slot][:, None])
        return x * x + y * y < self.radius[slot] ** 2

    def _shade(self, direction: Floats, distance: Floats, members: list[slice]) -> Floats:
        """Linear colours at the end of rays that come sorted by the surface they meet: [3, R]."""
        point = self.eye[:, None] + distance * direction
        normal, own, openness = np.empty_like(point), np.empty_like(point), np.ones_like(distance)
        for number, ray in enumerate(members):
            if ray.start == ray.stop:
                continue
            facing = self._normals(number, point[:, ray])
            normal[:, ray] = facing
            own[:, ray] = self._albedo(number, point[:, ray], direction[:, ray], distance[ray], facing)
        openness[members[self.ground]] = self._openness(point[:, members[self.ground]])

        bright = np.maximum(self.lamp @ normal, 0)
        lit = np.flatnonzero(bright > 0)
        bright[lit[self._shadowed(point[:, lit] + np.float32(0.015) * normal[:, lit])]] = 0
        open_sky = (np.float32(0.72) + np.float32(0.28) * normal[2]) * openness
        rgb = own * (self.lamp_rgb[:, None] * bright + self.ambient[:, None] * open_sky)
        for (strength, sharpness, mirror), ray in zip(self.gloss, members, strict=False):
            if strength and ray.start < ray.stop:
                halfway = self.lamp[:, None] - direction[:, ray]
                shine = _dot(halfway, normal[:, ray]) / _length(halfway)
                shine = np.float32(strength) * (bright[ray] > 0) * np.maximum(shine, 0) ** np.float32(sharpness)
                mirrored = self._mirrored(normal[:, ray], direction[:, ray], own[:, ray])
                rgb[:, ray] += self.lamp_rgb[:, None] * shine + np.float32(mirror) * (mirrored - rgb[:, ray])
        return rgb

    def _normals(self, surface: int, point: Floats) -> Floats:
        """Unit normals of a surface at points of it: [3, R] -> [3, R] or [3, 1]."""
        if surface >= self.ground:
            return self.plane_normal[surface - self.ground, :, None]
        to_local = self.to_local[surface]
        local = outward(self.shape[surface], to_local @ (point - self.position[surface][:, None]))
        normal = to_local.T @ local
        return normal / _length(normal)

    def _albedo(self, surface: int, point: Floats, direction: Floats, distance: Floats, normal: Floats) -> Floats:
        """Colours of a patterned surface, the pattern fading out where a pixel holds a period: [3, R] or [3, 1]."""
        one, other = self.rgb[surface, :, :, None]
        pattern, texture = self.pattern[surface], self.texture[surface]
        if pattern == "plain":
            return one
        origin = self.position[surface] if surface < self.ground else np.zeros(3, dtype=np.float32)
        slant = np.maximum(np.abs(_dot(normal, direction)), np.float32(0.05))
        fineness = np.float32(1.6 / self.size) * np.sqrt((texture * texture).sum() / 3)
        contrast = np.clip(np.float32(1.6) - fineness * distance / slant, 0, 1)
        mixed = contrast * (_pattern(pattern, texture @ (point - origin[:, None])) - np.float32(0.5)) + np.float32(0.5)
        return one + mixed * (other - one)

    def _shadowed(self, point: Floats) -> NDArray[np.bool_]:
        """Which points an object hides from the lamp: [3, R] -> [R]."""
        shadowed = np.zeros(point.shape[1], dtype=np.bool_)
        place = self.across @ point
        for slot in range(self.count):
            offset = place - (self.across @ self.position[slot])[:, None]
            ray = np.flatnonzero((offset[0] * offset[0] + offset[1] * offset[1] < self.radius[slot] ** 2) & ~shadowed)
            if not ray.size:
                continue
            start = self.to_local[slot] @ (point[:, ray] - self.position[slot][:, None])
            shadowed[ray] = np.isfinite(entry(self.shape[slot], start, self.to_local[slot] @ self.lamp[:, None]))
        return shadowed

    def _openness(self, point: Floats) -> Floats:
        """Share of the sky that objects leave to points of the ground: [3, R] -> [R]."""
        openness = np.ones(point.shape[1], dtype=np.float32)
        for position, radius, closeness in zip(self.position, self.radius, self.closeness, strict=True):
            x, y = point[0] - position[0], point[1] - position[1]
            openness *= 1 - closeness * np.exp((x * x + y * y) / -np.square(np.float32(0.75) * radius))
        return openness

    def _mirrored(self, normal: Floats, direction: Floats, own: Floats) -> Floats:
        """What a surface shows of its surroundings, tinted by its own colour: [3, R]."""
        upwards = direction[2] - 2 * _dot(normal, direction) * normal[2]
        ground = self.rgb[self.ground].mean(axis=0)[:, None]
        blend = np.clip(upwards * 6 + np.float32(0.5), 0, 1)
        surroundings = ground + blend * (self._sky(upwards) - ground)
        return surroundings * (own * np.float32(1.1) + np.float32(0.2))

    def _sky(self, upwards: Floats) -> Floats:
        """Colours of the sky by how steeply one looks up: [R] -> [3, R]."""
        horizon, overhead = self.sky[:, :, None]
        return horizon + np.clip(upwards * np.float32(2.5), 0, 1) * (overhead - horizon)


def _pattern(kind: str, at: Floats) -> Floats:
    """How much of its second colour a pattern shows at texture coordinates: [3, R] -> [R] in 0..1."""
    x, y, z = at
    match kind:
        case "stripes":
            shown = 3 * np.sin(x)
        case "checks":
            shown = 6 * np.sin(x) * np.sin(y) * np.cos(z)
        case "dots":
            shown = 7 * np.abs(np.sin(x) * np.sin(y) * np.cos(z)) - 3
        case "tiles":
            shown = 2 - 12 * np.minimum(np.minimum(np.abs(np.sin(x)), np.abs(np.sin(y))), np.abs(np.cos(z)))
        case "rings":
            shown = 3 * np.sin(np.float32(1.6) * np.sqrt(x * x + y * y + z * z))
        case "zigzag":
            shown = 3 * np.sin(x + 2 * np.arcsin(np.sin(y)))
        case "lines":
            shown = 6 * np.sin(np.float32(1.5) * z) - 3
        case "crosses":
            shown = 2 - 7 * np.abs(np.sin(x) * np.sin(y)) - 4 * np.abs(np.cos(z))
        case _:
            drift = np.sin(y * np.float32(0.7) + z), np.sin(x * np.float32(0.6) - z)
            shown = np.sin(x * np.float32(0.8) + 2 * drift[0]) * np.sin(y * np.float32(0.9) + 2 * drift[1])
    return np.clip(shown + np.float32(0.5), 0, 1)


def _dot(one: Floats, other: Floats) -> Floats:
    product: Floats = one[0] * other[0] + one[1] * other[1] + one[2] * other[2]
    return product


def _length(vector: Floats) -> Floats:
    return np.sqrt(_dot(vector, vector))
