"""DifferentiableBlockWorld: an editable set of blocks with learnable materials."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from nv_diff_render.grid import Position, Positions
from nv_diff_render.materials import AIR, MATERIALS, material_index
from nv_diff_render.mesh_builder import grid_blocks
from nv_diff_render.renderer import DifferentiableBlockRenderer
from nv_diff_render.scene import Frame, Materials, RenderOptions, Scene

_M = len(MATERIALS)


class BlockLogits(nn.Parameter):
    """The logits [M] of one block: a row of the world's table, sharing its memory and gradient.

    It can be used like any parameter in optimizers. torch.autograd.grad must be called with the table ``world.logits``,
    from which pictures are computed.
    """

    _table: nn.Parameter
    _row: int

    @property
    def grad(self) -> torch.Tensor | None:
        """Return the block's row of the table's gradient, or None if the table has no gradient."""
        return None if self._table.grad is None else self._table.grad[self._row]

    @grad.setter
    def grad(self, value: torch.Tensor | None) -> None:
        if self._table.grad is None:
            if value is None:
                return
            self._table.grad = torch.zeros_like(self._table)
        self._table.grad[self._row] = 0.0 if value is None else value


class DifferentiableBlockWorld(nn.Module):
    """A grid of blocks; ``parameters()`` is one table of material logits [N, M] with one row per block.

    Create the optimizer after placing the blocks: placing or removing a block resizes the table and drops its gradient.
    The logits of the other blocks are kept.

    Args:
        grid_size, world_scale, device, backend: see DifferentiableBlockRenderer.
    """

    def __init__(
        self,
        grid_size: Position = (64, 48, 64),
        world_scale: float = 2.0,
        device: torch.device | str | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.renderer = DifferentiableBlockRenderer(grid_size, world_scale, device, backend)
        self.logits = nn.Parameter(torch.zeros((0, _M), device=self.renderer.device))
        # Spare rows keep placing blocks one by one from taking quadratic time.
        self._rows = self.logits.data
        self._index: dict[Position, int] = {}
        self._views: weakref.WeakValueDictionary[Position, BlockLogits] = weakref.WeakValueDictionary()
        self._scene: Scene | None = None

    @property
    def device(self) -> torch.device:
        """The device of the blocks."""
        return self.renderer.device

    @property
    def grid_size(self) -> Position:
        """The number of cells along x, y and z."""
        return self.renderer.grid.size

    @property
    def world_scale(self) -> float:
        """The edge length of a cell in world units."""
        return self.renderer.grid.world_scale

    @property
    def blocks(self) -> list[tuple[Position, BlockLogits]]:
        """The position and logits of every block, in the order of the table."""
        return [(position, self._view(position)) for position in self._index]

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, position: object) -> bool:
        return position in self._index

    def __iter__(self) -> Iterator[Position]:
        return iter(self._index)

    def place_block(
        self,
        position: Position,
        material: str | int | None = None,
        logits: torch.Tensor | None = None,
        bias_strength: float = 10.0,
    ) -> BlockLogits:
        """Place a block, or change an existing one. Return its logits [M].

        Args:
            position: the cell.
            material: name or index; sets the logits to 0, and to ``bias_strength`` for this material.
            logits: [M], instead of a material. Without material and logits, they are drawn from a normal distribution
            with
                standard deviation 0.1.
            bias_strength: see material.

        Raises:
            TypeError, ValueError: if the position is outside the grid, the material is unknown, or logits are not [M].
        """
        if logits is not None and logits.shape != (_M,):
            raise ValueError(f"logits: expected [{_M}], found {list(logits.shape)}")
        self.place_blocks([position], material, None if logits is None else logits[None], bias_strength)
        return self._view(_position(position))

    def place_blocks(
        self,
        positions: Positions,
        material: str | int | torch.Tensor | None = None,
        logits: torch.Tensor | None = None,
        bias_strength: float = 10.0,
    ) -> None:
        """Place N blocks at once, or change existing ones.

        Args:
            positions: N cells.
            material: one material for all blocks, or indices int [N].
            logits: [N, M], instead of materials.
            bias_strength: see place_block.

        Raises:
            TypeError, ValueError: see place_block; no block is placed in this case.
        """
        checked = self.renderer.grid.positions(positions, self.device)
        values = self._initial_logits(len(checked), material, logits, bias_strength)
        places: list[Position] = [(x, y, z) for x, y, z in checked.tolist()]
        before = len(self)
        for place in places:
            self._index.setdefault(place, len(self._index))
        if len(self) > before:
            self._resize()
        with torch.no_grad():
            self.logits[[self._index[place] for place in places]] = values

    def fill(self, lower: Position, upper: Position, material: str | int | None = None) -> None:
        """Place blocks in all cells from ``lower`` to ``upper``, both included.

        Raises:
            ValueError: if a cell is outside the grid, the material is unknown, or upper is below lower.
        """
        if any(low > high for low, high in zip(lower, upper, strict=True)):
            raise ValueError(f"upper {tuple(upper)} is below lower {tuple(lower)}")
        axes = (torch.arange(low, high + 1) for low, high in zip(lower, upper, strict=True))
        self.place_blocks(torch.cartesian_prod(*axes), material)

    def remove_block(self, position: Position) -> bool:
        """Remove a block. Return False if the cell is empty."""
        place = _position(position)
        if place not in self._index:
            return False
        row = self._index.pop(place)
        self._views.pop(place, None)
        self._rows = torch.cat([self.logits.data[:row], self.logits.data[row + 1 :]])
        self._index = {other: at for at, other in enumerate(self._index)}
        self._resize()
        return True

    def clear(self) -> None:
        """Remove all blocks."""
        self._index.clear()
        self._views.clear()
        self._resize()

    def get_block(self, position: Position) -> BlockLogits | None:
        """Return the logits [M] of the block at ``position``, or None if the cell is empty."""
        place = _position(position)
        return self._view(place) if place in self._index else None

    def get_positions(self) -> list[Position]:
        """Return the positions of all blocks, in the order of the table."""
        return list(self._index)

    def get_material_logits(self) -> torch.Tensor:
        """Return the table [N, M]."""
        return self.logits

    def to_grid(self) -> torch.Tensor:
        """Return the most likely material of every cell, int64 [X, Y, Z]; empty cells are 0 (Air)."""
        grid = torch.full(self.grid_size, AIR, device=self.device)
        if len(self):
            grid[tuple(self._positions().unbind(1))] = self.logits.detach().argmax(dim=1)
        return grid

    def from_grid(self, materials: torch.Tensor, bias_strength: float = 10.0) -> None:
        """Replace all blocks by those of a dense grid of material indices, int [X, Y, Z]; 0 is Air.

        Raises:
            TypeError, ValueError: if the grid does not hold material indices or has another size; the world stays
            unchanged.
        """
        positions, logits, size = grid_blocks(materials.to(self.device), bias_strength)
        if size != self.grid_size:
            raise ValueError(f"materials: expected {list(self.grid_size)}, found {list(size)}")
        self.clear()
        self.place_blocks(positions, logits=logits)

    def render(
        self,
        camera_view: torch.Tensor,
        camera_proj: torch.Tensor,
        img_h: int,
        img_w: int,
        temperature: float = 1.0,
        hard_materials: bool = False,
        *,
        exclude_air: bool = False,
        gumbel: torch.Generator | None = None,
        quantize: bool = True,
    ) -> torch.Tensor:
        """Return the pictures [B, 4, H, W] of the world; see DifferentiableBlockRenderer.render for the arguments."""
        materials = Materials(temperature, hard_materials, exclude_air, gumbel)
        options = RenderOptions(camera_view, camera_proj, img_h, img_w, materials, quantize)
        return self.scene.render(self.logits, options)

    def render_frame(
        self,
        camera_view: torch.Tensor,
        camera_proj: torch.Tensor,
        img_h: int,
        img_w: int,
        materials: Materials | None = None,
    ) -> Frame:
        """Return the pictures with depth, normals and block ids."""
        options = RenderOptions(camera_view, camera_proj, img_h, img_w, materials or Materials())
        return self.scene.frame(self.logits, options)

    @property
    def scene(self) -> Scene:
        """The faces and their visibility, without materials; rebuilt after a block is placed or removed."""
        if self._scene is None:
            self._scene = self.renderer.scene(self._positions())
        return self._scene

    def state_dict_blocks(self) -> dict[str, Any]:
        """Return the state of the world: {positions, logits [N, M], grid_size, world_scale}."""
        return {
            "positions": self.get_positions(),
            "logits": self.logits.detach().clone(),
            "grid_size": self.grid_size,
            "world_scale": self.world_scale,
        }

    def load_state_dict_blocks(self, state: Mapping[str, Any]) -> None:
        """Replace all blocks by those of ``state``, a result of state_dict_blocks.

        Raises:
            ValueError: if a key is missing or the state has another grid; the world stays unchanged.
        """
        missing = {"positions", "logits", "grid_size", "world_scale"} - state.keys()
        if missing:
            raise ValueError(f"the state lacks {', '.join(sorted(missing))}")
        state_grid = (tuple(state["grid_size"]), float(state["world_scale"]))
        if state_grid != (self.grid_size, self.world_scale):
            raise ValueError(
                f"the state has grid size and scale {state_grid}, expected {(self.grid_size, self.world_scale)}"
            )
        checked = self.renderer.grid.positions(state["positions"], self.device)
        values = self._initial_logits(len(checked), None, state["logits"], 0.0)
        self.clear()
        self.place_blocks(checked, logits=values)

    def _initial_logits(
        self, count: int, material: str | int | torch.Tensor | None, logits: torch.Tensor | None, bias: float
    ) -> torch.Tensor:
        if logits is not None:
            if material is not None:
                raise ValueError("expected material or logits, found both")
            if logits.shape != (count, _M):
                raise ValueError(f"logits: expected [{count}, {_M}], found {list(logits.shape)}")
            return logits.detach().to(self.logits)
        if material is None:
            return torch.randn((count, _M), device=self.device) * 0.1
        if isinstance(material, torch.Tensor):
            known = [material_index(index) for index in material.tolist()]
            if len(known) != count:
                raise ValueError(f"material: expected [{count}], found {list(material.shape)}")
        else:
            known = [material_index(material)] * count
        values = torch.zeros((count, _M), device=self.device)
        return values.scatter_(1, torch.tensor(known, device=self.device)[:, None], bias)

    def _positions(self) -> torch.Tensor:
        return torch.tensor(list(self._index), device=self.device, dtype=torch.int64).reshape(-1, 3)

    def _resize(self) -> None:
        """Give the table one row per block."""
        count = len(self)
        if count > len(self._rows):
            grown = self._rows.new_zeros((max(count, 2 * len(self._rows)), _M))
            grown[: len(self._rows)] = self._rows
            self._rows = grown
        self._scene = None
        self.logits.grad = None
        self.logits.data = self._rows[:count]
        for place, view in self._views.items():
            self._attach(view, place)

    def _view(self, place: Position) -> BlockLogits:
        if place not in self._views:
            view = BlockLogits(self.logits.data[self._index[place]])
            self._attach(view, place)
            self._views[place] = view
        return self._views[place]

    def _attach(self, view: BlockLogits, place: Position) -> None:
        row = self._index[place]
        view.data = self.logits.data[row]
        view._table, view._row = self.logits, row


def _position(position: Position) -> Position:
    x, y, z = (int(at) for at in position)
    return x, y, z
