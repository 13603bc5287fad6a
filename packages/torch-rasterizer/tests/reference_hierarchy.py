"""A reference implementation of build_hierarchy with plain loops over dictionaries.

It is slow: it processes one pixel, one cell and one neighbour at a time. It was written from the description of the
algorithm and shares no code with torch_rasterizer.
"""

import numpy as np

STRIDE_OFFSETS = [(1, -1), (1, 0), (1, 1), (0, -1), (0, 0), (0, 1), (-1, -1), (-1, 0), (-1, 1)]
DEPTH_AXIS = (2, 0, 1)


def wrap(value):
    """Return the value wrapped to a 32-bit signed integer."""
    return (value + 2**31) % 2**32 - 2**31


def quotient(a, b):
    """Return a / b truncated towards zero, as in C."""
    q = abs(a) // abs(b)
    return q if (a >= 0) == (b >= 0) else -q


def remainder(a, b):
    """Return a % b with the sign of a, as in C."""
    return a - b * quotient(a, b)


def key_of(point, resolution):
    x, y, z = (int((float(p) * 0.5 + 0.5) * resolution) for p in point)
    return wrap((x * resolution + y) * resolution + z)


def cell_of(key, resolution):
    yz = quotient(key, resolution)
    x = quotient(yz, resolution)
    return x, yz - x * resolution, key - yz * resolution


def point_in(key, resolution, offset=(0.5, 0.5, 0.5)):
    cell = cell_of(key, resolution)
    return [np.float32(((c + o) / resolution - 0.5) * 2) for c, o in zip(cell, offset, strict=True)]


def pixel_of(point, view, height, width):
    x, y, z = (float(p) for p in point)
    across = z if view == 1 else x
    down = -z if view == 2 else y
    return int((down / 2 + 0.5) * height), int((across / 2 + 0.5) * width)


class Level:
    def __init__(self, resolution, stride):
        self.resolution, self.stride = resolution, stride
        self.index = {}  # key -> cell
        self.keys, self.views, self.down = [], [], []

    def look_up(self, key):
        """Return the cell of a key; an absent key becomes an additional key of cell 0."""
        return self.index.setdefault(key, 0)


class Loops:
    def __init__(self, positions, normals, num_level, resolution, feats=None):
        self.positions, self.normals, self.feats = positions, normals, feats
        self.points, self.features, self.mask = [], [], []
        self.levels = [Level(resolution, 1)]
        self.first_level()
        for _ in range(num_level - 1):
            self.coarser_level()
        self.neighbours, self.even, self.odd = [], [], []
        for level in self.levels:
            self.visit(level)
        for depth in range(num_level - 1, 0, -1):
            self.pad(depth)

    def first_level(self):
        level = self.levels[0]
        for view in range(3):
            layers, height, width, _ = self.positions[view].shape
            for layer, row, column in np.ndindex(layers, height, width):
                *point, valid = self.positions[view][layer, row, column]
                if not valid > 0:
                    continue
                key = key_of(point, level.resolution)
                if key in level.index:
                    continue
                level.index[key] = len(level.keys)
                level.keys.append(key)
                self.points.append(point)
                self.mask.append(1.0)
                if self.feats is not None:
                    self.features.append(self.feats[view][layer, row, column])
                n = [abs(float(c)) for c in self.normals[view][layer, row, column]]
                level.views.append((n.index(max(n)) + 1) % 3)

    def coarser_level(self):
        fine = self.levels[-1]
        level = Level(fine.resolution // 2, fine.stride * 2)
        votes = []
        for cell, key in enumerate(fine.keys):
            coarse = key_of(point_in(key, fine.resolution), level.resolution)
            if coarse not in level.index:
                level.index[coarse] = len(level.keys)
                level.keys.append(coarse)
                votes.append([0, 0, 0])
            fine.down.append(level.index[coarse])
            votes[level.index[coarse]][fine.views[cell]] += 1
        level.views = [v.index(max(v)) for v in votes]
        self.levels.append(level)

    def valid_layers(self, view, row, column):
        count = 0
        for position in self.positions[view][:, row, column]:
            if not position[3] > 0:
                break
            count += 1
        return count

    def key_at(self, view, layer, row, column, resolution):
        return key_of(self.positions[view][layer, row, column][:3], resolution)

    def visit(self, level):
        count = len(level.keys)
        self.neighbours.append([[-1] * 9 for _ in range(count)])
        self.even.append([0] * count)
        self.odd.append([0] * count)
        visited = [False] * count
        for v in range(3):
            for vd in range(3):
                for row, column in np.ndindex(self.positions[vd].shape[1:3]):
                    for layer in range(self.valid_layers(vd, row, column)):
                        self.visit_pixel(level, v, vd, (row, column, layer), visited)

    def visit_pixel(self, level, v, vd, pixel, visited):
        row, column, layer = pixel
        key = self.key_at(vd, layer, row, column, level.resolution)
        cell = level.look_up(key)
        if level.views[cell] != v:
            return
        centre = point_in(key, level.resolution)
        ci, cj = pixel_of(centre, v, *self.positions[v].shape[1:3])
        s = level.stride
        if remainder(ci, 2 * s) < s <= remainder(cj, 2 * s):
            self.even[-1][cell] = 1
        if remainder(cj, 2 * s) < s <= remainder(ci, 2 * s):
            self.odd[-1][cell] = 1
        if visited[cell]:
            return
        visited[cell] = True
        choice = "nearest"
        if vd == v and layer == self.valid_layers(vd, row, column) - 1:
            choice = "first" if layer == 0 else "last"
        self.neighbours[-1][cell] = self.nine(level, cell, v, centre, choice)

    def nine(self, level, cell, view, centre, choice):
        height, width = self.positions[view].shape[1:3]
        ci, cj = pixel_of(centre, view, height, width)
        found = []
        for down, across in STRIDE_OFFSETS:
            row, column = ci + down * level.stride, cj + across * level.stride
            if down == 0 and across == 0:
                found.append(cell)
                continue
            if not (0 <= row < height and 0 <= column < width):
                found.append(-1)
                continue
            valid = self.valid_layers(view, row, column)
            if valid == 0:
                found.append(-1)
                continue
            keys = [self.key_at(view, layer, row, column, level.resolution) for layer in range(valid)]
            if choice == "first":
                key = keys[0]
            elif choice == "last":
                key = keys[-1]
            else:
                axis = DEPTH_AXIS[view]
                gaps = [abs(point_in(k, level.resolution)[axis] - centre[axis]) for k in keys]
                key = keys[gaps.index(min(gaps))]
            found.append(level.look_up(key))
        return found

    def pad(self, depth):
        coarse, fine = self.levels[depth], self.levels[depth - 1]
        has_even, has_odd = [False] * len(coarse.keys), [False] * len(coarse.keys)
        for cell, parent in enumerate(fine.down):
            has_even[parent] |= bool(self.even[depth - 1][cell])
            has_odd[parent] |= bool(self.odd[depth - 1][cell])
        for parent, key in enumerate(coarse.keys):
            if has_even[parent] and has_odd[parent]:
                continue
            corner = point_in(key, coarse.resolution, (0.75, 0.25, 0.75))
            fine_key = key_of(corner, fine.resolution)
            if fine_key not in fine.index:
                self.append(depth - 1, fine_key, parent, coarse.views[parent], corner)
            cell = fine.index[fine_key]
            if not has_even[parent]:
                self.even[depth - 1][cell] = 1
            if not has_odd[parent]:
                self.odd[depth - 1][cell] = 1

    def append(self, depth, key, parent, view, corner):
        fine = self.levels[depth]
        cell = fine.index[key] = len(fine.keys)
        fine.keys.append(key)
        fine.views.append(view)
        fine.down.append(parent)
        self.even[depth].append(0)
        self.odd[depth].append(0)
        self.neighbours[depth].append(self.nine(fine, cell, view, corner, "nearest"))
        if depth == 0:
            self.points.append(corner)
            self.mask.append(0.0)
            if self.feats is not None:
                self.features.append(np.full(self.feats[0].shape[-1], 0.5, np.float32))

    def result(self):
        """Return the result as numpy arrays, nested as build_hierarchy does."""
        cloud = [np.array(self.points, np.float32).reshape(-1, 3), np.array(self.mask, np.float32)]
        if self.feats is not None:
            cloud.insert(1, np.array(self.features, np.float32).reshape(-1, self.feats[0].shape[-1]))
        return [
            cloud,
            [np.array(n, np.int64).reshape(-1, 9) for n in self.neighbours],
            [np.array(level.down, np.int64) for level in self.levels[:-1]],
            [np.array(e, np.int64) for e in self.even],
            [np.array(o, np.int64) for o in self.odd],
        ]


def build(positions, normals, num_level, resolution, feats=None):
    return Loops(positions, normals, num_level, resolution, feats).result()
