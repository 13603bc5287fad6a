"""DifferentiableBlockRenderer: pictures of blocks, from positions and material logits."""

from __future__ import annotations

from collections import OrderedDict

import torch

from nv_diff_render import backends
from nv_diff_render.grid import Grid, Position, Positions
from nv_diff_render.mesh_builder import block_faces, check_count, grid_blocks
from nv_diff_render.scene import Frame, Materials, Scene

# How many sets of positions are kept with their faces and what cameras saw of them.
_SCENES = 4


class DifferentiableBlockRenderer:
    """Renders blocks exactly as WebGPU does, with gradients to what they are made of.

    Args:
        grid_size: the number of cells along x, y and z.
        world_scale: the length of a cell's edge.
        device: where everything is computed, the CPU unless told otherwise.
        backend: "auto" or "torch", which is exact, or "nvdiffrast", faster and off by a pixel along some edges.

    Raises:
        ValueError: the grid is empty, or the backend cannot be had.
    """

    def __init__(
        self,
        grid_size: Position = (64, 48, 64),
        world_scale: float = 2.0,
        device: torch.device | str | None = None,
        backend: str = "auto",
    ) -> None:
        self.grid = Grid.of(grid_size, world_scale)
        self.device = torch.device(device or "cpu")
        self._backend = backends.create(backend, self.device)
        self._scenes: OrderedDict[tuple[bytes, bool], Scene] = OrderedDict()

    @property
    def backend(self) -> str:
        """The name of the rasterizer in use."""
        return self._backend.name

    def scene(self, positions: Positions, neighbor_check: bool = True) -> Scene:
        """What does not depend on materials, for blocks at these positions; that of the last ones is kept.

        Raises:
            TypeError, ValueError: see Grid.positions.
        """
        given = torch.as_tensor(positions)
        key = (f"{given.dtype}{tuple(given.shape)}".encode() + given.cpu().numpy().tobytes(), neighbor_check)
        if key not in self._scenes:
            checked = self.grid.positions(positions, self.device)
            self._scenes[key] = Scene(block_faces(checked, self.grid, neighbor_check=neighbor_check), self._backend)
            while len(self._scenes) > _SCENES:
                self._scenes.popitem(last=False)
        self._scenes.move_to_end(key)
        return self._scenes[key]

    def render(
        self,
        positions: Positions,
        material_logits: torch.Tensor,
        camera_view: torch.Tensor,
        camera_proj: torch.Tensor,
        img_h: int,
        img_w: int,
        temperature: float = 1.0,
        hard_materials: bool = False,
        neighbor_check: bool = True,
        return_depth: bool = False,
        return_normals: bool = False,
        *,
        exclude_air: bool = False,
        gumbel: torch.Generator | None = None,
        quantize: bool = True,
    ) -> torch.Tensor | tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The pictures <B,4,H,W> of cameras <4,4> (then B is 1) or <B,4,4>: RGB over the sky, and coverage.

        Args:
            positions: N cells (x, y, z), as tuples or int <N,3>.
            material_logits: <N,M>.
            camera_view, camera_proj: see nv_diff_render.camera.
            img_h, img_w: in pixels.
            temperature, hard_materials, exclude_air, gumbel: see mesh_builder.material_weights.
            neighbor_check: leave out faces between two blocks.
            return_depth, return_normals: also return {"depth": <B,1,H,W>, "normals": <B,3,H,W>}, what of it is asked
                for; see scene.Frame.
            quantize: round to k/255 as a target of eight bits does; the gradient passes through.

        Raises:
            TypeError, ValueError: an argument is not what is said here; it is named, with what was found.
        """
        scene = self.scene(positions, neighbor_check)
        logits, size = self._checked(scene, material_logits), picture_size(img_h, img_w)
        materials = Materials(temperature, hard_materials, exclude_air, gumbel)
        if not (return_depth or return_normals):
            return scene.render(logits, camera_view, camera_proj, size, materials, quantize=quantize)
        frame = scene.frame(logits, camera_view, camera_proj, size, materials, quantize=quantize)
        wanted = {"depth": return_depth, "normals": return_normals}
        return frame.rgba, {name: getattr(frame, name) for name, asked in wanted.items() if asked}

    def render_frame(
        self,
        positions: Positions,
        material_logits: torch.Tensor,
        camera_view: torch.Tensor,
        camera_proj: torch.Tensor,
        img_h: int,
        img_w: int,
        materials: Materials | None = None,
    ) -> Frame:
        """The pictures with depth, normals and block ids; arguments as those of ``render``."""
        scene = self.scene(positions)
        logits, size = self._checked(scene, material_logits), picture_size(img_h, img_w)
        return scene.frame(logits, camera_view, camera_proj, size, materials or Materials())

    def render_from_grid(
        self,
        materials: torch.Tensor,
        camera_view: torch.Tensor,
        camera_proj: torch.Tensor,
        img_h: int,
        img_w: int,
    ) -> torch.Tensor:
        """The pictures <B,4,H,W> of a dense grid of material indices int <X,Y,Z>, 0 is Air.

        Raises:
            TypeError, ValueError: the grid is not one of material indices of this renderer's size.
        """
        positions, logits, size = grid_blocks(materials.to(self.device))
        if size != self.grid.size:
            raise ValueError(f"materials: expected <{','.join(map(str, self.grid.size))}>, found {size}")
        pictures = self.render(positions, logits, camera_view, camera_proj, img_h, img_w, hard_materials=True)
        assert isinstance(pictures, torch.Tensor)
        return pictures

    def _checked(self, scene: Scene, logits: torch.Tensor) -> torch.Tensor:
        check_count(scene.faces.positions, logits)
        if logits.device.type != self.device.type:
            raise ValueError(f"material_logits: expected on {self.device}, found on {logits.device}")
        return logits


def picture_size(img_h: int, img_w: int) -> tuple[int, int]:
    """Height and width.

    Raises:
        ValueError: one of them is not a positive integer.
    """
    for name, value in (("img_h", img_h), ("img_w", img_w)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is {value!r}: expected an integer >= 1")
    return img_h, img_w
