"""Ray Conditioning with the values of the published runs (Chen et al. 2023).

Pictures need cameras: `camera_angles`, or labels of 25 numbers as EG3D's data sets have them, in
their dataset.json. All runs had 32 pictures per step, none was augmented. The originals begin with
stock weights of StyleGAN2 or 3; so does --init_from with the directory of such a run and
--generator_only.
"""

from collections.abc import Callable
from typing import Any

from recipes.stylegan import stylegan2, stylegan3t

Curriculum = dict[int | str, Any]

# what scripts look with: field of view (degrees), distance, spread of yaw and pitch about the front
FACES: Curriculum = {"fov": 13.37, "radius": 2.7, "h_stddev": 0.3, "v_stddev": 0.155}
CARS: Curriculum = {"fov": 32.64, "radius": 1.3, "h_stddev": 1.0, "v_stddev": 0.3}


def _recipe(
    base: Callable[..., Curriculum], views: Curriculum, size: int, gamma: float
) -> Callable[..., Curriculum]:
    def recipe(*, img_size: int = size, batch_size: int = 32, num_processes: int = 1) -> Curriculum:
        """A published run, at another size or batch where asked."""
        stock = base(img_size=img_size, batch_size=batch_size, num_processes=num_processes)
        return (
            stock
            | views
            | {
                "generator": f"RayConditioned{stock['generator']}",
                "discriminator_options": {"condition_on_cameras": True},
                "sample_dist": "dataset",
                "r1_lambda": gamma,
                "augment": "noaug",
            }
        )

    return recipe


RECIPES = {
    "RayCond2_FFHQ": _recipe(stylegan2, FACES, 512, 1.0),
    "RayCond2_AFHQ": _recipe(stylegan2, FACES, 512, 2.5),
    "RayCond2_Cars": _recipe(stylegan2, CARS, 128, 0.3),
    "RayCond3T_FFHQ": _recipe(stylegan3t, FACES, 1024, 10.0),
    "RayCond3T_AFHQ": _recipe(stylegan3t, FACES, 512, 5.0),
    "RayCond3T_Cars": _recipe(stylegan3t, CARS, 128, 0.5),
}
