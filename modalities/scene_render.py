"""Pictures of described scenes by casting rays: colours, distances and which object each pixel shows.

One ray a pixel; pixels that differ from a neighbour get four more, whose mean replaces their colour. All rays of a
batch are flat arrays, vectors [3, R], and all rays that may meet solids of one kind are intersected at once.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modalities.scene_shapes import CLASSES, Floats, Ints, entry, outward
from modalities.scene_world import SceneBatch

FAR = 20.0  # metres: the distance of what is farther, of the sky too
_CONTRAST = 20  # steps of 256 between neighbours from which a pixel is worth more rays
_INSIDE_PIXEL = ((-0.125, -0.375), (0.375, -0.125), (-0.375, 0.125), (0.125, 0.375))  # rotated grid, in pixels
_SKY = 255

# By material, of MATERIALS: strength and sharpness of highlights, share of the surroundings that are mirrored.
_HIGHLIGHT = np.array([0.0, 0.45, 0.9], dtype=np.float32)
_SHARPNESS = np.array([1.0, 40.0, 70.0], dtype=np.float32)
_MIRROR = np.array([0.0, 0.08, 0.6], dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Views:
    """What a camera sees, B pictures of S x S pixels.

    depth is the distance in metres along the ray through the middle of a pixel, at most FAR; objects the slot of the
    object seen there, -1 for none.
    """

    images: NDArray[np.uint8]  # [B, 3, S, S], sRGB
    depth: Floats  # [B, S, S]
    objects: NDArray[np.int8]  # [B, S, S]


@np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore")
def render(scenes: SceneBatch, size: int) -> Views:
    """Pictures of size x size pixels."""
    caster = _Caster(scenes, size)
    batch = len(scenes.camera.focal)
    rows, columns = np.divmod(np.arange(size * size), size)
    every = np.arange(batch).repeat(size * size)
    rgb, distance, surface = caster.look(every, np.tile(rows, batch) + 0.5, np.tile(columns, batch) + 0.5)
    images = np.rint(rgb * 255).astype(np.uint8).reshape(3, batch, size, size)
    objects = np.where(surface < caster.slots, surface, -1).astype(np.int8).reshape(batch, size, size)

    image, row, column = np.nonzero(_edges(images, objects))
    finer = [caster.look(image, row + 0.5 + down, column + 0.5 + across)[0] for across, down in _INSIDE_PIXEL]
    images[:, image, row, column] = np.rint(np.mean(finer, axis=0) * 255)
    depth = np.minimum(distance, np.float32(FAR)).reshape(batch, size, size)
    return Views(images=np.ascontiguousarray(images.swapaxes(0, 1)), depth=depth, objects=objects)


def _edges(images: NDArray[np.uint8], objects: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Pixels that differ visibly from one beside, above or below them: [3, B, S, S], [B, S, S] -> [B, S, S]."""
    found = np.zeros(objects.shape, dtype=np.bool_)
    levels = images.astype(np.int16)
    for axis in (1, 2):
        differs = (np.abs(np.diff(levels, axis=axis + 1)) > _CONTRAST).any(axis=0) | (np.diff(objects, axis=axis) != 0)
        first, second = (slice(None),) * axis + (slice(None, -1),), (slice(None),) * axis + (slice(1, None),)
        found[first] |= differs
        found[second] |= differs
    return found


class _Caster:
    """The surfaces of all scenes as flat tables, columns K objects and 2 planes a scene, and rays that meet them."""

    def __init__(self, scenes: SceneBatch, size: int) -> None:
        objects, backdrop = scenes.objects, scenes.backdrop
        self.scenes, self.size = scenes, size
        batch, self.slots = objects.shape.shape
        self.surfaces = self.slots + 2
        inverse = objects.rotation.swapaxes(-1, -2) / objects.scale[..., None]  # [B, K, 3, 3], world to unit solid
        self.to_local = inverse.reshape(-1, 9).T.copy()  # [9, B * K]
        self.centre = objects.position.reshape(-1, 3).T.copy()  # [3, B * K]
        self.shape = objects.shape.ravel()

        frequency = objects.frequency[..., None, None]
        shift = -(inverse * frequency * objects.position[..., None, :]).sum(axis=-1)  # [B, K, 3]
        flat = np.broadcast_to(np.array([0, 0, np.pi / 2], dtype=np.float32), (batch, 2, 3))
        plain = np.zeros((batch, 2), dtype=np.int64)
        self.texture = _columns(inverse * frequency, backdrop.texture)  # [9, B * surfaces]
        self.shift = _columns(shift, flat)  # [3, B * surfaces]
        self.fineness = np.sqrt((self.texture**2).sum(axis=0) / 3)
        self.rgb = _columns(objects.rgb, backdrop.rgb)  # [6, B * surfaces]
        self.pattern = np.concatenate([objects.pattern, backdrop.pattern], axis=1).ravel()
        self.material = np.concatenate([objects.material, plain], axis=1).ravel()

    def look(self, image: Ints, row: Floats, column: Floats) -> tuple[Floats, Floats, Ints]:
        """What is seen at places in pictures, in pixels: [R] each -> sRGB [3, R], distance [R], surface [R]."""
        camera, backdrop = self.scenes.camera, self.scenes.backdrop
        half = np.float32(self.size / 2)
        x, y = (column.astype(np.float32) - half) / half, (half - row.astype(np.float32)) / half
        axes, focal = camera.axes.reshape(-1, 9).T[:, image], camera.focal[image]
        direction = axes[0:3] * x + axes[3:6] * y + axes[6:9] * focal
        direction /= np.sqrt(_dot(direction, direction))
        origin = camera.position.T[:, image]

        distance, surface = self._nearest_object(image, origin, direction)
        for plane in range(2):
            normal = backdrop.normal[:, plane].T[:, image]
            reached = (backdrop.offset[image, plane] - _dot(normal, origin)) / _dot(normal, direction)
            closer = (reached > 0) & (reached < distance)
            distance, surface = np.where(closer, reached, distance), np.where(closer, self.slots + plane, surface)

        rgb = self._sky(image, direction[2])
        solid = np.flatnonzero(surface != _SKY)
        rgb[:, solid] = self._shade(
            image[solid], origin[:, solid], direction[:, solid], distance[solid], surface[solid]
        )
        return np.sqrt(np.clip(rgb, 0, 1)), distance, surface

    def _nearest_object(self, image: Ints, origin: Floats, direction: Floats) -> tuple[Floats, Ints]:
        ray, slot, distance = self._entries(image, origin, direction)
        reached = np.full((self.slots, image.size), np.inf, dtype=np.float32)
        reached[slot, ray] = distance
        nearest = reached.argmin(axis=0)
        distance = reached.min(axis=0)
        return distance, np.where(np.isfinite(distance), nearest, _SKY)

    def _entries(self, image: Ints, origin: Floats, direction: Floats) -> tuple[Ints, Ints, Floats]:
        """Every entry of a ray into an object: index of the ray, slot of the object, distance, all [n]."""
        objects = self.scenes.objects
        rays, slots = [], []
        for slot in range(self.slots):
            # Only rays that meet the ball around the object; an empty slot's ball has no extent.
            extent = np.where(slot < objects.count, objects.radius[:, slot], np.float32(-1))
            offset = objects.position[:, slot].T[:, image] - origin
            along = _dot(offset, direction)
            near = _dot(offset, offset) - along * along < (np.sign(extent) * extent**2)[image]
            ray = np.flatnonzero(near & (along > -extent[image]))
            rays.append(ray)
            slots.append(np.full(ray.size, slot))
        ray, slot_of = np.concatenate(rays), np.concatenate(slots)
        item = image[ray] * self.slots + slot_of
        distance = np.empty(ray.size, dtype=np.float32)
        kinds = self.shape[item]
        for kind in range(len(CLASSES)):
            chosen = np.flatnonzero(kinds == kind)
            to_local = self.to_local[:, item[chosen]]
            start = origin[:, ray[chosen]] - self.centre[:, item[chosen]]
            distance[chosen] = entry(kind, _turn(to_local, start), _turn(to_local, direction[:, ray[chosen]]))
        met = np.flatnonzero(np.isfinite(distance))
        return ray[met], slot_of[met], distance[met]

    def _normals(self, image: Ints, surface: Ints, point: Floats) -> Floats:
        """Unit normals of surfaces at points of them: [3, R]."""
        plane = np.clip(surface - self.slots, 0, 1)
        normal = self.scenes.backdrop.normal[image, plane].T.copy()
        item = image * self.slots + surface
        kinds = np.where(surface < self.slots, self.shape[np.minimum(item, self.shape.size - 1)], -1)
        for kind in range(len(CLASSES)):
            chosen = np.flatnonzero(kinds == kind)
            to_local = self.to_local[:, item[chosen]]
            local = outward(kind, _turn(to_local, point[:, chosen] - self.centre[:, item[chosen]]))
            world = _turn(to_local[[0, 3, 6, 1, 4, 7, 2, 5, 8]], local)
            normal[:, chosen] = world / np.sqrt(_dot(world, world))
        return normal

    def _shade(self, image: Ints, origin: Floats, direction: Floats, distance: Floats, surface: Ints) -> Floats:
        """Linear colours of surfaces at the end of rays: [3, R]."""
        light = self.scenes.light
        point = origin + distance * direction
        normal = self._normals(image, surface, point)
        lamp = light.direction.T[:, image]
        facing = _dot(normal, lamp)
        lit = facing > 0
        candidates = np.flatnonzero(lit)
        start = point[:, candidates] + np.float32(0.015) * normal[:, candidates]
        lit[candidates[self._entries(image[candidates], start, lamp[:, candidates])[0]]] = False
        bright = np.where(lit, facing, np.float32(0))

        own = self._albedo(image * self.surfaces + surface, point, np.abs(_dot(normal, direction)), distance)
        open_sky = (np.float32(0.72) + np.float32(0.28) * normal[2]) * self._openness(image, surface, point)
        material = self.material[image * self.surfaces + surface]
        halfway = lamp - direction
        shine = np.maximum(_dot(normal, halfway) / np.sqrt(_dot(halfway, halfway)), 0) ** _SHARPNESS[material]
        mirror = _MIRROR[material]
        diffuse = own * (light.rgb.T[:, image] * bright + light.ambient.T[:, image] * open_sky) * (1 - mirror)
        highlight = light.rgb.T[:, image] * (_HIGHLIGHT[material] * shine * lit)
        return diffuse + highlight + self._mirrored(image, normal, direction, own) * mirror

    def _albedo(self, item: Ints, point: Floats, slant: Floats, distance: Floats) -> Floats:
        """Colours of patterned surfaces, the patterns fading out where a pixel holds a period: [3, R]."""
        at = _turn(self.texture[:, item], point) + self.shift[:, item]
        period = np.float32(4 / self.size) * distance * self.fineness[item] / np.maximum(slant, np.float32(0.05))
        contrast = np.clip(np.float32(1.6) - period * np.float32(0.4), 0, 1)
        mixed = contrast * (_pattern(self.pattern[item], at) - np.float32(0.5)) + np.float32(0.5)
        rgb = self.rgb[:, item]
        return rgb[0:3] + np.where(self.pattern[item] > 0, mixed, 0) * (rgb[3:6] - rgb[0:3])

    def _openness(self, image: Ints, surface: Ints, point: Floats) -> Floats:
        """Share of the sky that objects leave to points of the ground: [R]."""
        objects = self.scenes.objects
        openness = np.ones(image.size, dtype=np.float32)
        ground = np.flatnonzero(surface == self.slots)
        place, shaded = image[ground], np.ones(ground.size, dtype=np.float32)
        for slot in range(self.slots):
            x, y = (
                point[0, ground] - objects.position[place, slot, 0],
                point[1, ground] - objects.position[place, slot, 1],
            )
            width = (objects.radius[:, slot] * np.float32(0.75))[place]
            dark = np.where(slot < objects.count, np.float32(0.7), np.float32(0))[place]
            shaded *= 1 - dark * np.exp(-(x * x + y * y) / (width * width))
        openness[ground] = shaded
        return openness

    def _mirrored(self, image: Ints, normal: Floats, direction: Floats, own: Floats) -> Floats:
        """What metal shows of its surroundings, tinted by its own colour: [3, R]."""
        upwards = direction[2] - 2 * _dot(normal, direction) * normal[2]
        ground = self.scenes.backdrop.rgb[:, 0].mean(axis=1).T[:, image]
        blend = np.clip(upwards * 6 + np.float32(0.5), 0, 1)
        return (
            (ground + blend * (self._sky(image, upwards) - ground)) * (own * np.float32(0.85) + np.float32(0.15)) * 1.3
        )

    def _sky(self, image: Ints, upwards: Floats) -> Floats:
        """Colours of the sky by how steeply one looks up: [R] -> [3, R]."""
        horizon, overhead = self.scenes.backdrop.sky[:, 0].T[:, image], self.scenes.backdrop.sky[:, 1].T[:, image]
        return horizon + np.clip(upwards * np.float32(2.5), 0, 1) * (overhead - horizon)


def _pattern(kind: Ints, at: Floats) -> Floats:
    """How much of its second colour a pattern shows at texture coordinates: [R], [3, R] -> [R] in 0..1."""
    wave = np.sin(at)
    product = wave[0] * wave[1] * wave[2]
    closest = np.abs(wave).min(axis=0)
    drift = np.sin(at[1] * np.float32(0.7) + 2 * wave[2]), np.sin(at[0] * np.float32(0.6) + 2 * wave[1])
    clouds = np.sin(at[0] * np.float32(0.8) + 2 * drift[0]) * np.sin(at[1] * np.float32(0.9) + 2 * drift[1])
    blurred = [np.zeros_like(product), wave[0] * 3, product * 6, np.abs(product) * 7 - 3, clouds, 2 - closest * 12]
    return np.clip(np.choose(kind, blurred) + np.float32(0.5), 0, 1)


def _dot(one: Floats, other: Floats) -> Floats:
    return one[0] * other[0] + one[1] * other[1] + one[2] * other[2]


def _turn(matrix: Floats, vector: Floats) -> Floats:
    """Matrices times vectors: [9, R], [3, R] -> [3, R]."""
    return np.stack([_dot(matrix[0:3], vector), _dot(matrix[3:6], vector), _dot(matrix[6:9], vector)])


def _columns(objects: Floats, planes: Floats) -> Floats:
    """Tables of objects [B, K, ...] and planes [B, 2, ...] as one: [F, B * (K + 2)]."""
    table = np.concatenate([objects, planes], axis=1)
    return table.reshape(table.shape[0] * table.shape[1], -1).T.copy()
