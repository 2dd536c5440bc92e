"""The ten solids of the embedded world: ray entry, surface normals and support functions.

Each solid is defined in its local frame: z up, around the origin, about as large as the unit sphere. Vectors are
[3, R], or [3, 1] if they are the same for all rays. Directions need not have unit length, so that a ray meets a scaled
and rotated object where the transformed ray meets the solid.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

CLASSES = ("sphere", "cube", "cylinder", "cone", "torus", "pyramid", "capsule", "dome", "prism", "cross")

# Rotations about the x axis, in degrees, in which a solid rests on the ground.
RESTING_TILTS = ((0.0,), (0.0,), (0.0, 90.0), (0.0,), (0.0, 90.0), (0.0,), (0.0, 90.0), (0.0,), (0.0, 90.0), (0.0,))

_EPSILON = np.float32(1e-3)  # a ray that starts on a surface does not hit it there
_CYLINDER_RADIUS, _CYLINDER_HALF = np.float32(0.75), np.float32(0.88)
_CONE_RADIUS, _CONE_HALF = np.float32(1.0), np.float32(1.05)
_RING_RADIUS, _TUBE_RADIUS = np.float32(0.88), np.float32(0.36)
_CAPSULE_RADIUS, _CAPSULE_HALF = np.float32(0.58), np.float32(0.72)
_DOME_RADIUS, _DOME_BASE = np.float32(1.22), np.float32(-0.5)  # the centre of the half ball is at z = base
_TORUS_STEPS = 20


def _planes(*rows: tuple[float, float, float, float]) -> tuple[Floats, Floats]:
    """Half-spaces n . p <= offset with unit normals: (normals [F, 3], offsets [F])."""
    table = np.array(rows, dtype=np.float32)
    length = np.linalg.norm(table[:, :3], axis=1)
    return table[:, :3] / length[:, None], table[:, 3] / length


def _box(x: float, y: float, z: float) -> tuple[Floats, Floats]:
    return _planes((1, 0, 0, x), (-1, 0, 0, x), (0, 1, 0, y), (0, -1, 0, y), (0, 0, 1, z), (0, 0, -1, z))


def _corners(x: float, y: float, z: float) -> list[tuple[float, float, float]]:
    return [(i * x, j * y, k * z) for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)]


_LONG, _THIN = 1.05, 0.36  # half length and half width of the bars of a cross
_BARS = [(_LONG, _THIN, _THIN), (_THIN, _LONG, _THIN), (_THIN, _THIN, _LONG)]

# Solids with flat faces are unions of convex parts.
_PARTS: dict[str, list[tuple[Floats, Floats]]] = {
    "cube": [_box(0.8, 0.8, 0.8)],
    "pyramid": [_planes((2, 0, 1, 1), (-2, 0, 1, 1), (0, 2, 1, 1), (0, -2, 1, 1), (0, 0, -1, 1))],
    "prism": [_planes((5, 0, 3, 2.4), (-5, 0, 3, 2.4), (0, 0, -1, 0.8), (0, 1, 0, 0.95), (0, -1, 0, 0.95))],
    "cross": [_box(*bar) for bar in _BARS],
}
_VERTICES: dict[str, Floats] = {
    name: np.array(points, dtype=np.float32)
    for name, points in {
        "cube": _corners(0.8, 0.8, 0.8),
        "pyramid": [(0, 0, 1), (1, 1, -1), (1, -1, -1), (-1, 1, -1), (-1, -1, -1)],
        "prism": [(x, y, z) for x, z in ((0, 0.8), (0.96, -0.8), (-0.96, -0.8)) for y in (-0.95, 0.95)],
        "cross": [corner for bar in _BARS for corner in _corners(*bar)],
    }.items()
}


def entry(shape: int, origin: Floats, direction: Floats) -> Floats:
    """Where rays enter a solid, in multiples of their directions, inf for misses: 2 x [3, R] -> [R].

    A ray that starts inside does not enter; otherwise a lit face would shadow itself.
    """
    x, y, z = origin
    dx, dy, dz = direction
    match CLASSES[shape]:
        case "sphere":
            return _first(_ball(origin, direction, np.float32(1)))
        case "cylinder":
            side = _roots(dx * dx + dy * dy, x * dx + y * dy, x * x + y * y - _CYLINDER_RADIUS**2)
            return _first(side, _slab(z, dz, -_CYLINDER_HALF, _CYLINDER_HALF))
        case "cone":
            return _first(_cone(origin, direction), _slab(z, dz, -_CONE_HALF, _CONE_HALF))
        case "torus":
            return _trace_torus(origin, direction)
        case "capsule":
            rod = _roots(dx * dx + dy * dy, x * dx + y * dy, x * x + y * y - _CAPSULE_RADIUS**2)
            found = _first(rod, _slab(z, dz, -_CAPSULE_HALF, _CAPSULE_HALF))
            for end in (-_CAPSULE_HALF, _CAPSULE_HALF):
                cap = _first(_ball(np.stack([x, y, z - end]), direction, _CAPSULE_RADIUS))
                beyond = (z + cap * dz) * np.sign(end) >= _CAPSULE_HALF  # inf * 0 is nan, and nan is not beyond
                found = np.where(beyond, np.minimum(found, cap), found)
            return found
        case "dome":
            ball = _ball(np.stack([x, y, z - _DOME_BASE]), direction, _DOME_RADIUS)
            return _first(ball, _slab(z, dz, _DOME_BASE, np.float32(np.inf)))
        case name:
            found = _first(_convex(origin, direction, *_PARTS[name][0]))
            for part in _PARTS[name][1:]:
                found = np.minimum(found, _first(_convex(origin, direction, *part)))
            return found


def outward(shape: int, point: Floats) -> Floats:
    """Outward normals of any length at points of the surface: [3, R] -> [3, R]."""
    x, y, z = point
    radius = np.sqrt(x * x + y * y) + np.float32(1e-9)
    zero = np.zeros_like(z)
    match CLASSES[shape]:
        case "sphere":
            return point
        case "cylinder":
            cap = np.abs(z) - _CYLINDER_HALF > radius - _CYLINDER_RADIUS
            return np.where(cap, np.stack([zero, zero, z]), np.stack([x, y, zero]))
        case "cone":
            slope = _CONE_RADIUS / (2 * _CONE_HALF)
            base = -z - _CONE_HALF > (radius - slope * (_CONE_HALF - z)) / np.sqrt(1 + slope * slope)
            return np.where(base, np.stack([zero, zero, zero - 1]), np.stack([x / radius, y / radius, zero + slope]))
        case "torus":
            inwards = 1 - _RING_RADIUS / radius
            return np.stack([x * inwards, y * inwards, z])
        case "capsule":
            return np.stack([x, y, z - np.clip(z, -_CAPSULE_HALF, _CAPSULE_HALF)])
        case "dome":
            lifted = z - _DOME_BASE
            base = -lifted > np.sqrt(radius * radius + lifted * lifted) - _DOME_RADIUS
            return np.where(base, np.stack([zero, zero, zero - 1]), np.stack([x, y, lifted]))
        case name:
            heights = [normals @ point - offsets[:, None] for normals, offsets in _PARTS[name]]  # parts x [F, R]
            face = np.array([np.argmax(part, axis=0) for part in heights])  # [parts, R]
            part = np.argmin([np.max(part, axis=0) for part in heights], axis=0)  # [R], the part that the point is on
            normals = np.stack([normals for normals, _ in _PARTS[name]])  # [parts, F, 3]
            picked: Floats = normals[part, face[part, np.arange(part.size)]].T
            return picked


def support(shape: int, direction: Floats) -> Floats:
    """The support function: the maximum of direction . p over the points p of a solid, [3, R] -> [R]."""
    x, y, z = direction
    level, length = np.sqrt(x * x + y * y), np.sqrt(x * x + y * y + z * z)
    match CLASSES[shape]:
        case "sphere":
            return length
        case "cylinder":
            return _CYLINDER_RADIUS * level + _CYLINDER_HALF * np.abs(z)
        case "cone":
            return np.maximum(_CONE_HALF * z, _CONE_RADIUS * level - _CONE_HALF * z)
        case "torus":
            return _RING_RADIUS * level + _TUBE_RADIUS * length
        case "capsule":
            return _CAPSULE_RADIUS * length + _CAPSULE_HALF * np.abs(z)
        case "dome":
            return _DOME_BASE * z + _DOME_RADIUS * np.where(z > 0, length, level)
        case name:
            heights = [point[0] * x + point[1] * y + point[2] * z for point in _VERTICES[name]]
            farthest: Floats = np.max(heights, axis=0)
            return farthest


_Interval = tuple[Floats, Floats]  # where rays enter and leave a convex set; enter > leave for misses


def _first(*intervals: _Interval) -> Floats:
    """Where rays enter the intersection of convex sets."""
    enter, leave = intervals[0]
    for other_enter, other_leave in intervals[1:]:
        enter, leave = np.maximum(enter, other_enter), np.minimum(leave, other_leave)
    return np.where((enter <= leave) & (enter > _EPSILON), enter, np.float32(np.inf))


def _nonzero(value: Floats) -> Floats:
    return np.where(np.abs(value) < 1e-9, np.float32(1e-9), value)


def _roots(a: Floats, b: Floats, c: Floats) -> _Interval:
    """The interval in which a t^2 + 2 b t + c <= 0, for a > 0."""
    a = _nonzero(a)
    square = b * b - a * c
    root = np.sqrt(np.maximum(square, 0))
    missed = np.where(square < 0, np.float32(np.inf), np.float32(0))
    return (-b - root) / a + missed, (-b + root) / a - missed


def _ball(origin: Floats, direction: Floats, radius: np.float32) -> _Interval:
    (x, y, z), (dx, dy, dz) = origin, direction
    return _roots(dx * dx + dy * dy + dz * dz, x * dx + y * dy + z * dz, x * x + y * y + z * z - radius * radius)


def _slab(z: Floats, dz: Floats, low: np.float32, high: np.float32) -> _Interval:
    slope = _nonzero(dz)
    one, other = (low - z) / slope, (high - z) / slope
    return np.minimum(one, other), np.maximum(one, other)


def _cone(origin: Floats, direction: Floats) -> _Interval:
    """The infinite double cone below its tip; where the slab discards it, possibly the upper part."""
    (x, y, z), (dx, dy, dz) = origin, direction
    slope = _CONE_RADIUS / (2 * _CONE_HALF)
    height = z - _CONE_HALF
    a = _nonzero(dx * dx + dy * dy - slope * slope * dz * dz)
    b = x * dx + y * dy - slope * slope * height * dz
    c = x * x + y * y - slope * slope * height * height
    square = b * b - a * c
    root = np.sqrt(np.maximum(square, 0))
    low, high = np.minimum((-b - root) / a, (-b + root) / a), np.maximum((-b - root) / a, (-b + root) / a)
    infinite = np.float32(np.inf)
    steep = a < 0  # the ray is inside before the first root and after the second, once in each part
    enter = np.where(steep, np.where(dz < 0, high, -infinite), low)
    leave = np.where(steep, np.where(dz < 0, infinite, low), high)
    missed = (square < 0) & ~steep
    return np.where(missed, infinite, enter), np.where(missed, -infinite, leave)


def _convex(origin: Floats, direction: Floats, normals: Floats, offsets: Floats) -> _Interval:
    slope = _nonzero(normals @ direction)  # [F, R]
    distance = (offsets[:, None] - normals @ origin) / slope
    infinite = np.float32(np.inf)
    entering = slope < 0
    return np.where(entering, distance, -infinite).max(axis=0), np.where(entering, infinite, distance).min(axis=0)


def _trace_torus(origin: Floats, direction: Floats) -> Floats:
    """Sphere tracing: the distance to the surface is a safe step (Hart 1996)."""
    (x, y, z), (dx, dy, dz) = origin, direction
    length = np.sqrt(dx * dx + dy * dy + dz * dz)
    enter, leave = _ball(origin, direction, _RING_RADIUS + _TUBE_RADIUS)
    travelled = np.where(enter <= leave, np.maximum(enter, _EPSILON), np.float32(0))
    for _ in range(_TORUS_STEPS):
        px, py, pz = x + travelled * dx, y + travelled * dy, z + travelled * dz
        to_ring = np.sqrt(px * px + py * py) - _RING_RADIUS
        gap = np.sqrt(to_ring * to_ring + pz * pz) - _TUBE_RADIUS
        travelled = travelled + gap / length
    hit = (np.abs(gap) < 0.02) & (travelled <= leave) & (travelled > _EPSILON) & (enter <= leave)
    return np.where(hit, travelled, np.float32(np.inf))
