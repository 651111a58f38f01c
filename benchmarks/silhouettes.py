"""A mesh's silhouettes against the pictures': intersection over union from eight cameras.

  PYTHONPATH=. python benchmarks/silhouettes.py runs/toys --seeds 0 1 2 --psi 0.8

The mesh is that of `extract_shapes.py` (automatic level); a picture's silhouette is where its
opacity is above one half. Prints a JSON line per seed; without a run there is nothing to measure.
"""

import argparse
import json
import math
from pathlib import Path

import torch

from curriculums import stage_at
from generators.base import RadianceGenerator
from inference.checkpoint import checkpoint_step, load_generator
from inference.latents import named_styles
from inference.shapes import Extraction, extract_shape
from rendering.cameras import Cameras
from rendering.raster import rasterize
from rendering.renderer import render

VIEWS, SIZE, SAMPLES = 8, 96, 96


def main() -> None:
    """Extract, draw, compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path, nargs="?", help="a radiance generator's run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="(0)")
    parser.add_argument("--psi", type=float, default=0.8, help="truncation (0.8)")
    parser.add_argument("--voxel_resolution", type=int, default=256, help="voxels per side (256)")
    args = parser.parse_args()
    if args.path is None:
        return
    generator, curriculum = load_generator(args.path)
    assert isinstance(generator, RadianceGenerator)
    stage = stage_at(curriculum, checkpoint_step(args.path))
    yaw = torch.arange(VIEWS) * 2 * math.pi / VIEWS
    views = Cameras.from_angles(yaw, torch.tensor([1.1, 1.5] * 4), stage.fov, stage.radius)
    settings = stage.eval_settings(resolution=SIZE, num_steps=SAMPLES)
    for name, w in named_styles(generator, args.seeds, psi=args.psi):
        mesh = extract_shape(generator, w, stage, Extraction(resolution=args.voxel_resolution)).mesh
        drawn = [rasterize(mesh.vertices, mesh.faces, view, SIZE).face >= 0 for view in views]
        with torch.no_grad():
            opacities = [render(generator.field(w), view, settings).opacity for view in views]
        seen = [opacity[0] > 0.5 for opacity in opacities if opacity is not None]
        ious = [float((a & b).sum() / (a | b).sum()) for a, b in zip(drawn, seen, strict=True)]
        line = {"seed": name, "mean_iou": sum(ious) / VIEWS, "least_iou": min(ious)}
        print(json.dumps({"benchmark": "silhouettes", **line}))


if __name__ == "__main__":
    main()
