"""DifferentiableBlockWorld: blocks that can be placed and taken away, and whose materials can be learned."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from nv_diff_render.grid import Position, Positions
from nv_diff_render.materials import AIR, MATERIALS, material_index
from nv_diff_render.mesh_builder import grid_blocks
from nv_diff_render.renderer import DifferentiableBlockRenderer, picture_size
from nv_diff_render.scene import Frame, Materials, Scene

_M = len(MATERIALS)


class BlockLogits(nn.Parameter):
    """The logits <M> of one block: a row of the world's table, whose memory and gradient it shares.

    Optimizers and readers may use it as any parameter. What torch.autograd.grad is asked for must be the table,
    ``world.logits``: that is what pictures are made from.
    """

    _table: nn.Parameter
    _row: int

    @property
    def grad(self) -> torch.Tensor | None:
        """The block's row of the table's gradient, None if there is none."""
        return None if self._table.grad is None else self._table.grad[self._row]

    @grad.setter
    def grad(self, value: torch.Tensor | None) -> None:
        if self._table.grad is None:
            if value is None:
                return
            self._table.grad = torch.zeros_like(self._table)
        self._table.grad[self._row] = 0.0 if value is None else value


class DifferentiableBlockWorld(nn.Module):
    """A grid of blocks; ``parameters()`` is one table of material logits <N,M>, a row a block.

    Make an optimizer after the blocks are placed: placing or removing one changes the table's size and drops its
    gradient, while values of blocks that stay are kept.

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
        # More rows than blocks, so that placing one by one is not quadratic.
        self._rows = self.logits.data
        self._index: dict[Position, int] = {}
        self._views: weakref.WeakValueDictionary[Position, BlockLogits] = weakref.WeakValueDictionary()
        self._scene: Scene | None = None

    @property
    def device(self) -> torch.device:
        """Where the blocks are."""
        return self.renderer.device

    @property
    def grid_size(self) -> Position:
        """The number of cells along x, y and z."""
        return self.renderer.grid.size

    @property
    def world_scale(self) -> float:
        """The length of a cell's edge."""
        return self.renderer.grid.world_scale

    @property
    def blocks(self) -> list[tuple[Position, BlockLogits]]:
        """Every block's position and logits, in the order of the table."""
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
        """Place a block, or change the one that is there; returns its logits <M>.

        Args:
            position: its cell.
            material: by name or index: the logits are 0, and ``bias_strength`` at it.
            logits: instead of a material; without either they are drawn from a normal distribution, 0.1 wide.
            bias_strength: see material.

        Raises:
            TypeError, ValueError: the position is outside the grid, there is no such material, or logits are not <M>.
        """
        if logits is not None and logits.shape != (_M,):
            raise ValueError(f"logits: expected <{_M}>, found {tuple(logits.shape)}")
        self.place_blocks([position], material, None if logits is None else logits[None], bias_strength)
        return self._view(_position(position))

    def place_blocks(
        self,
        positions: Positions,
        material: str | int | torch.Tensor | None = None,
        logits: torch.Tensor | None = None,
        bias_strength: float = 10.0,
    ) -> None:
        """Place N blocks at once, or change those that are there.

        Args:
            positions: N cells.
            material: of all, or the materials' indices int <N>.
            logits: <N,M>, instead of materials.
            bias_strength: see place_block.

        Raises:
            TypeError, ValueError: see place_block; nothing is placed then.
        """
        checked = self.renderer.grid.positions(positions, self.device)
        values = self._values(len(checked), material, logits, bias_strength)
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
            ValueError: a cell is outside the grid, there is no such material, or upper is below lower.
        """
        if any(low > high for low, high in zip(lower, upper, strict=True)):
            raise ValueError(f"upper {tuple(upper)} is below lower {tuple(lower)}")
        axes = (torch.arange(low, high + 1) for low, high in zip(lower, upper, strict=True))
        self.place_blocks(torch.cartesian_prod(*axes), material)

    def remove_block(self, position: Position) -> bool:
        """Take a block away; False if there is none."""
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
        """Take all blocks away."""
        self._index.clear()
        self._views.clear()
        self._resize()

    def get_block(self, position: Position) -> BlockLogits | None:
        """The logits <M> of the block at ``position``, None if there is none."""
        place = _position(position)
        return self._view(place) if place in self._index else None

    def get_positions(self) -> list[Position]:
        """The positions of all blocks, in the order of the table."""
        return list(self._index)

    def get_material_logits(self) -> torch.Tensor:
        """The table <N,M>."""
        return self.logits

    def to_grid(self) -> torch.Tensor:
        """The likeliest material of every cell, int64 <X,Y,Z>; 0, Air, where no block is."""
        grid = torch.full(self.grid_size, AIR, device=self.device)
        if len(self):
            grid[tuple(self._positions().unbind(1))] = self.logits.detach().argmax(dim=1)
        return grid

    def from_grid(self, materials: torch.Tensor, bias_strength: float = 10.0) -> None:
        """Replace all blocks by those of a dense grid of material indices, int <X,Y,Z>, 0 is Air.

        Raises:
            TypeError, ValueError: it is no such grid of this world's size; nothing changes then.
        """
        positions, logits, size = grid_blocks(materials.to(self.device), bias_strength)
        if size != self.grid_size:
            raise ValueError(f"materials: expected <{','.join(map(str, self.grid_size))}>, found {size}")
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
        """The pictures <B,4,H,W> of the world; see DifferentiableBlockRenderer.render."""
        materials = Materials(temperature, hard_materials, exclude_air, gumbel)
        size = picture_size(img_h, img_w)
        return self.scene.render(self.logits, camera_view, camera_proj, size, materials, quantize=quantize)

    def render_frame(
        self,
        camera_view: torch.Tensor,
        camera_proj: torch.Tensor,
        img_h: int,
        img_w: int,
        materials: Materials | None = None,
    ) -> Frame:
        """The pictures with depth, normals and block ids."""
        size = picture_size(img_h, img_w)
        return self.scene.frame(self.logits, camera_view, camera_proj, size, materials or Materials())

    @property
    def scene(self) -> Scene:
        """What does not depend on materials; made anew after a block was placed or taken away."""
        if self._scene is None:
            self._scene = self.renderer.scene(self._positions())
        return self._scene

    def state_dict_blocks(self) -> dict[str, Any]:
        """What the world is: {positions, logits <N,M>, grid_size, world_scale}."""
        return {
            "positions": self.get_positions(),
            "logits": self.logits.detach().clone(),
            "grid_size": self.grid_size,
            "world_scale": self.world_scale,
        }

    def load_state_dict_blocks(self, state: Mapping[str, Any]) -> None:
        """Replace all blocks by those of ``state``, which state_dict_blocks made.

        Raises:
            ValueError: something is missing, or it is of a world of another size; nothing changes then.
        """
        missing = {"positions", "logits", "grid_size", "world_scale"} - state.keys()
        if missing:
            raise ValueError(f"the state lacks {', '.join(sorted(missing))}")
        made_for = (tuple(state["grid_size"]), float(state["world_scale"]))
        if made_for != (self.grid_size, self.world_scale):
            raise ValueError(f"the state is of a world of {made_for}, this one is {(self.grid_size, self.world_scale)}")
        checked = self.renderer.grid.positions(state["positions"], self.device)
        values = self._values(len(checked), None, state["logits"], 0.0)
        self.clear()
        self.place_blocks(checked, logits=values)

    def _values(
        self, count: int, material: str | int | torch.Tensor | None, logits: torch.Tensor | None, bias: float
    ) -> torch.Tensor:
        if logits is not None:
            if material is not None:
                raise ValueError("material and logits are both given: expected one of them")
            if logits.shape != (count, _M):
                raise ValueError(f"logits: expected <{count},{_M}>, found {tuple(logits.shape)}")
            return logits.detach().to(self.logits)
        if material is None:
            return torch.randn((count, _M), device=self.device) * 0.1
        if isinstance(material, torch.Tensor):
            known = [material_index(index) for index in material.tolist()]
            if len(known) != count:
                raise ValueError(f"material: expected <{count}>, found {tuple(material.shape)}")
        else:
            known = [material_index(material)] * count
        values = torch.zeros((count, _M), device=self.device)
        return values.scatter_(1, torch.tensor(known, device=self.device)[:, None], bias)

    def _positions(self) -> torch.Tensor:
        return torch.tensor(list(self._index), device=self.device, dtype=torch.int64).reshape(-1, 3)

    def _resize(self) -> None:
        """Give the table as many rows as there are blocks."""
        count = len(self)
        if count > len(self._rows):
            grown = self._rows.new_zeros((max(count, 2 * len(self._rows)), _M))
            grown[: len(self._rows)] = self._rows
            self._rows = grown
        self._scene = None
        self.logits.grad = None
        self.logits.data = self._rows[:count]
        for place, view in self._views.items():
            self._point(view, place)

    def _view(self, place: Position) -> BlockLogits:
        if place not in self._views:
            view = BlockLogits(self.logits.data[self._index[place]])
            self._point(view, place)
            self._views[place] = view
        return self._views[place]

    def _point(self, view: BlockLogits, place: Position) -> None:
        row = self._index[place]
        view.data = self.logits.data[row]
        view._table, view._row = self.logits, row


def _position(position: Position) -> Position:
    x, y, z = (int(at) for at in position)
    return x, y, z
