"""DifferentiableBlockRenderer: pictures of blocks, from positions and material logits."""

from __future__ import annotations

from collections import OrderedDict

import torch

from nv_diff_render import backends
from nv_diff_render.grid import Grid, Position, Positions
from nv_diff_render.mesh_builder import block_faces, check_count, grid_blocks
from nv_diff_render.scene import Frame, Materials, RenderOptions, Scene

# The number of scenes in the cache.
_SCENES = 4


class DifferentiableBlockRenderer:
    """Renders blocks with the pixels of WebGPU and with gradients to their materials.

    Args:
        grid_size: the number of cells along x, y and z.
        world_scale: the edge length of a cell in world units.
        device: the device of the computation, by default the CPU.
        backend: "auto" or "torch", which is exact, or "nvdiffrast", which is faster and differs on some edges.

    Raises:
        ValueError: if the grid is empty, or the backend is unknown or does not run on the device.
        ImportError: if nvdiffrast is selected but cannot be imported.
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
        """Return the scene of blocks at these positions, which does not depend on materials; recent scenes are cached.

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
        """Return the pictures [B, 4, H, W] of cameras [4, 4] (B is 1) or [B, 4, 4]: RGB over the sky, and coverage.

        Args:
            positions: N cells (x, y, z), as tuples or int [N, 3].
            material_logits: [N, M].
            camera_view, camera_proj: see nv_diff_render.camera.
            img_h, img_w: size in pixels.
            temperature, hard_materials, exclude_air, gumbel: see mesh_builder.material_weights.
            neighbor_check: omit faces between two blocks.
            return_depth, return_normals: also return a dict with the requested entries of {"depth": [B, 1, H, W],
                "normals": [B, 3, H, W]}; see scene.Frame.
            quantize: round to k/255, as a target with eight bits does; the gradient is that of the identity.

        Raises:
            TypeError, ValueError: if an argument does not match; the message names it and the value found.
        """
        scene = self.scene(positions, neighbor_check)
        self._check_logits(scene, material_logits)
        materials = Materials(temperature, hard_materials, exclude_air, gumbel)
        options = RenderOptions(camera_view, camera_proj, img_h, img_w, materials, quantize)
        if not (return_depth or return_normals):
            return scene.render(material_logits, options)
        frame = scene.frame(material_logits, options)
        requested = {"depth": return_depth, "normals": return_normals}
        return frame.rgba, {name: getattr(frame, name) for name, wanted in requested.items() if wanted}

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
        """Return the pictures with depth, normals and block ids; see ``render`` for the arguments."""
        scene = self.scene(positions)
        self._check_logits(scene, material_logits)
        options = RenderOptions(camera_view, camera_proj, img_h, img_w, materials or Materials())
        return scene.frame(material_logits, options)

    def render_from_grid(
        self,
        materials: torch.Tensor,
        camera_view: torch.Tensor,
        camera_proj: torch.Tensor,
        img_h: int,
        img_w: int,
    ) -> torch.Tensor:
        """Return the pictures [B, 4, H, W] of a dense grid of material indices int [X, Y, Z]; 0 is Air.

        Raises:
            TypeError, ValueError: if the grid does not hold material indices or has another size than this renderer's
            grid.
        """
        positions, logits, size = grid_blocks(materials.to(self.device))
        if size != self.grid.size:
            raise ValueError(f"materials: expected {list(self.grid.size)}, found {list(size)}")
        options = RenderOptions(camera_view, camera_proj, img_h, img_w, Materials(hard=True))
        return self.scene(positions).render(logits, options)

    def _check_logits(self, scene: Scene, logits: torch.Tensor) -> None:
        check_count(scene.faces.positions, logits)
        if logits.device.type != self.device.type:
            raise ValueError(f"material_logits: expected a tensor on {self.device}, found one on {logits.device}")
