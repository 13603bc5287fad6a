"""Conversion of blocks to triangles: the faces without a neighbour block, in the order of the WebGPU engine's mesh."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nv_diff_render.grid import Grid, Positions
from nv_diff_render.materials import AIR, BOTTOM, MATERIALS, SIDE, TOP, get_material_palette
from nv_diff_render.shading import NORMALS

# East (+x), west, top (+y), bottom, south (+z), north: four corners each, counter-clockwise from outside.
CORNERS = (
    ((1, 0, 0), (1, 1, 0), (1, 1, 1), (1, 0, 1)),
    ((0, 0, 0), (0, 0, 1), (0, 1, 1), (0, 1, 0)),
    ((0, 1, 0), (0, 1, 1), (1, 1, 1), (1, 1, 0)),
    ((0, 0, 0), (1, 0, 0), (1, 0, 1), (0, 0, 1)),
    ((0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)),
    ((0, 0, 0), (0, 1, 0), (1, 1, 0), (1, 0, 0)),
)
_UVS = (
    ((0, 1), (0, 0), (1, 0), (1, 1)),
    ((1, 1), (0, 1), (0, 0), (1, 0)),
    ((0, 1), (0, 0), (1, 0), (1, 1)),
    ((0, 0), (1, 0), (1, 1), (0, 1)),
    ((0, 1), (1, 1), (1, 0), (0, 0)),
    ((1, 1), (1, 0), (0, 0), (0, 1)),
)
# The colour slot of each side.
SLOTS = (SIDE, SIDE, TOP, BOTTOM, SIDE, SIDE)
# Corner indices of the two triangles of a face.
TRIANGLES = (0, 1, 2, 0, 2, 3)


@dataclass(frozen=True)
class BlockFaces:
    """The exposed faces, ordered by y, z, x of their block, then east, west, top, bottom, south, north.

    ``block`` int64 [F] is the index of the block in the positions [N, 3], ``side`` int64 [F] is 0 to 5.
    """

    grid: Grid
    positions: torch.Tensor
    block: torch.Tensor
    side: torch.Tensor

    def __len__(self) -> int:
        return len(self.block)

    def corners(self, chosen: torch.Tensor | None = None) -> torch.Tensor:
        """Return world positions float32 [F, 4, 3] of the corners of all faces or of ``chosen`` faces int64 [C]."""
        block, side = (self.block, self.side) if chosen is None else (self.block[chosen], self.side[chosen])
        device = self.positions.device
        table = torch.tensor(CORNERS, dtype=torch.float32, device=device)
        at = self.positions.float() + torch.tensor(self.grid.origin, device=device)
        # Multiples of 1/2: the additions are exact, and only the product is rounded.
        return (at[block][:, None] + table[side]).mul_(self.grid.world_scale)


def block_faces(positions: torch.Tensor, grid: Grid, *, neighbor_check: bool = True) -> BlockFaces:
    """Return the faces of blocks at ``positions`` (int64 [N, 3], checked).

    neighbor_check: omit faces next to another block.
    """
    if not len(positions):
        none = positions.new_zeros(0)
        return BlockFaces(grid, positions, none, none)
    # A border of empty cells gives every cell six neighbours at constant offsets.
    width, layer = grid.size[0] + 2, (grid.size[0] + 2) * (grid.size[2] + 2)
    x, y, z = (positions + 1).unbind(1)
    cell = y * layer + z * width + x
    filled = positions.new_zeros(layer * (grid.size[1] + 2), dtype=torch.uint8)
    filled[cell] = 1
    block_at = torch.empty_like(filled, dtype=torch.int32)
    block_at[cell] = torch.arange(len(positions), dtype=torch.int32, device=positions.device)
    cells, bits = _open_sides(filled, width, layer) if neighbor_check else _all_sides(filled)
    sides = (bits[:, None] >> torch.arange(6, dtype=torch.uint8, device=bits.device)) & 1
    found = sides.reshape(-1).nonzero().squeeze(1)
    row = torch.div(found, 6, rounding_mode="floor")
    return BlockFaces(grid, positions, block_at[cells[row]].long(), found - row * 6)


def _open_sides(filled: torch.Tensor, width: int, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the exposed cells [C] in order, and a bit mask of their sides without a neighbour, uint8 [C]."""
    empty = 1 - filled
    inner = slice(layer, len(filled) - layer)
    sides = torch.zeros_like(filled)
    for bit, step in enumerate((1, -1, layer, -layer, width, -width)):
        sides[inner] |= empty[layer + step : len(filled) - layer + step] << bit
    sides *= filled
    cells = sides.nonzero().squeeze(1)
    return cells, sides[cells]


def _all_sides(filled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    cells = filled.nonzero().squeeze(1)
    return cells, filled.new_full((len(cells),), 0b111111)


def material_weights(
    logits: torch.Tensor,
    *,
    temperature: float = 1.0,
    hard: bool = False,
    exclude_air: bool = False,
    gumbel: torch.Generator | None = None,
) -> torch.Tensor:
    """Return the weight of every material in every block, [N, M]; rows sum to 1: softmax(logits / temperature).

    Args:
        logits: [N, M].
        temperature: lower values move the weights towards the largest logit.
        hard: give all weight to the largest logit, with the gradient of the soft weights (straight-through).
        exclude_air: give Air no weight.
        gumbel: generator of Gumbel noise that is added to the logits, so that hard materials are samples of the softmax
            distribution (Jang et al. 2017, arXiv:1611.01144).

    Raises:
        TypeError: if the logits are not floating point.
        ValueError: if the logits are not [N, M], or the temperature is not positive.
    """
    if logits.ndim != 2 or logits.shape[1] != len(MATERIALS):
        raise ValueError(f"material_logits: expected [N, {len(MATERIALS)}], found {list(logits.shape)}")
    if not logits.is_floating_point():
        raise TypeError(f"material_logits: expected floating point, found {logits.dtype}")
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}: expected > 0")
    if exclude_air:
        logits = logits.index_fill(1, logits.new_tensor([AIR], dtype=torch.int64), float("-inf"))
    if gumbel is not None:
        noise = torch.empty_like(logits).exponential_(generator=gumbel).log_().neg_()
        logits = logits + noise
    soft = torch.softmax(logits / temperature, dim=1)
    if not hard:
        return soft
    one = torch.zeros_like(soft).scatter_(1, soft.argmax(dim=1, keepdim=True), 1.0)
    return one + soft - soft.detach()


def block_colors(weights: torch.Tensor) -> torch.Tensor:
    """Return the unlit colours [N, 3, 3] of the tops, bottoms and sides of blocks with ``weights`` [N, M]."""
    palette = get_material_palette(weights.device, weights.dtype)
    return (weights @ palette.reshape(len(palette), 9)).reshape(-1, 3, 3)


def build_block_mesh(
    positions: Positions,
    material_logits: torch.Tensor,
    grid_size: tuple[int, int, int] = (64, 48, 64),
    world_scale: float = 2.0,
    neighbor_check: bool = True,
    temperature: float = 1.0,
    hard_assignment: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """Return the triangles of blocks without vertex sharing, like the vertex buffer of the WebGPU engine.

    Args:
        positions: N cells (x, y, z).
        material_logits: [N, M].
        grid_size, world_scale: see Grid.
        neighbor_check: omit faces between two blocks.
        temperature, hard_assignment: see material_weights.

    Returns:
        vertices [V, 3] in the world, six per face; faces int32 [V/3, 3]; and attributes per vertex: normals [V, 3],
        unlit colors [V, 3], differentiable with respect to the logits, uvs [V, 2], material_weights [V, M].

    Raises:
        TypeError, ValueError: see Grid.positions and material_weights; also if the number of logits and positions
        differ.
    """
    grid = Grid.of(grid_size, world_scale)
    checked = grid.positions(positions, material_logits.device)
    check_count(checked, material_logits)
    weights = material_weights(material_logits, temperature=temperature, hard=hard_assignment)
    faces = block_faces(checked, grid, neighbor_check=neighbor_check)
    vertices = faces.corners()[:, TRIANGLES].reshape(-1, 3)
    side = faces.side
    tables = {"normals": NORMALS, "uvs": _UVS, "slots": SLOTS}
    normal, uv, slot = (torch.tensor(table, device=side.device) for table in tables.values())
    attributes = {
        "normals": normal.to(vertices.dtype)[side].repeat_interleave(6, dim=0),
        "colors": block_colors(weights)[faces.block, slot[side]].repeat_interleave(6, dim=0),
        "uvs": uv.to(vertices.dtype)[side][:, TRIANGLES].reshape(-1, 2),
        "material_weights": weights[faces.block].repeat_interleave(6, dim=0),
    }
    return vertices, torch.arange(len(vertices), dtype=torch.int32, device=side.device).reshape(-1, 3), attributes


def build_mesh_from_grid(
    materials: torch.Tensor, world_scale: float = 2.0, neighbor_check: bool = True
) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """Return the mesh of a dense grid of material indices, int [X, Y, Z], 0 is Air; see build_block_mesh."""
    positions, logits, size = grid_blocks(materials)
    return build_block_mesh(positions, logits, size, world_scale, neighbor_check, hard_assignment=True)


def grid_blocks(
    materials: torch.Tensor, bias_strength: float = 10.0
) -> tuple[torch.Tensor, torch.Tensor, tuple[int, int, int]]:
    """Return the positions [N, 3] and logits [N, M] of the blocks of a dense grid [X, Y, Z], and its size.

    Raises:
        TypeError, ValueError: if the grid does not hold material indices.
    """
    if materials.ndim != 3:
        raise ValueError(f"materials: expected [X, Y, Z], found {list(materials.shape)}")
    if materials.is_floating_point() or materials.is_complex():
        raise TypeError(f"materials: expected material indices (integers), found {materials.dtype}")
    known = (materials >= 0) & (materials < len(MATERIALS))
    if not bool(known.all()):
        at = tuple((~known).nonzero()[0].tolist())
        raise ValueError(f"materials{list(at)} is {int(materials[at])}: expected 0 to {len(MATERIALS) - 1}")
    positions = (materials != AIR).nonzero()
    index = materials[tuple(positions.unbind(1))].long()
    logits = torch.zeros((len(positions), len(MATERIALS)), device=materials.device)
    logits.scatter_(1, index[:, None], bias_strength)
    x, y, z = materials.shape
    return positions, logits, (x, y, z)


def check_count(positions: torch.Tensor, logits: torch.Tensor) -> None:
    """Raise ValueError unless every position has one row of logits."""
    if logits.ndim != 2 or len(logits) != len(positions):
        expected = [len(positions), len(MATERIALS)]
        raise ValueError(f"material_logits: expected {expected}, found {list(logits.shape)}")
