"""Find the latent of a picture, and look at what it shows from other sides.

  python inverse_render.py runs/celeba face.jpg
  python inverse_render.py runs/celeba face.jpg --edit --loss both
  python inverse_render.py runs/toys figure.png --yaw 0.4 --image_size 32 --output_dir inversion
  python render_multiview_images.py inversion/tuned --latent inversion/latent.npz

The style starts at the average. In small pictures, eight trials of 100 steps, and 100 more of the
best two, find a way from there, and the best is fitted in 400 steps, along the directions in which
the generator's own styles differ, so that the sides that the picture does not show fit it as well;
--style_space free fits every number of the style by itself, in 700 steps from the average, as the
original does. A generator without geometry turns only pictures like its own: its styles are kept
near the average (--prior). The camera is the one that pictures are shown from, or at --yaw and
--pitch beside it, or found among those of training and fitted along with the style (--fit_pose):
then the trials are 24 cameras of 25 steps, 8 of 50 and 3 of 100, and a few degrees may stay in
doubt, for another style seen from there can look the same. --pivotal_steps goes on by changing the
generator's weights until they show the picture at that style. --edit is all of it, for a real
picture to be seen from other sides: the camera is found unless it is given, and the weights are
tuned.

Writes gt.png, the picture as it is fitted; <step>.png, the fit and seven views beside it along the
way; latent.npz, the style with its camera, which the render scripts take with --latent in place of
seeds; views.png, the result from other sides; reconstructed.mp4, the camera sinking and then
circling; and with tuning the generator, as a run's directory tuned/ that goes with latent.npz.
A generator that makes flat pictures (StyleGAN) has one view, and neither camera nor film.
"""

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from curriculums import Curriculum, find_curriculum, stage_at
from datasets import center_crop, decode_image
from generators import Generator
from inference.checkpoint import (
    checkpoint_step,
    load_generator,
    network_state,
    read_file,
    save_files,
)
from inference.inversion import Loss, fit_style, principal_directions, psnr, tune_weights
from inference.inversion_options import (
    add_camera,
    add_style,
    add_tuning,
    expand_edit,
    expand_prior,
    schedule_of,
)
from inference.latents import check_styles, load_cameras, load_latents, save_latents
from inference.media import save_png, tile, to_uint8
from inference.options import add_device, positive, run_script
from inference.perceptual import lpips_loss
from inference.scene import Scene
from inference.style_search import (
    NOISE,
    POSE_ROUNDS,
    STYLE_ROUNDS,
    find_start,
    spread_cameras,
)
from inference.video import save_video
from inference.views import front_pitch
from rendering.cameras import Cameras
from rendering.settings import RenderSettings
from rendering.trajectories import FRONTAL, front, lower
from stages import Stage

VIEW_YAWS = (-0.7, -0.5, -0.3, 0.0, 0.3, 0.5, 0.7)  # radians, beside the fitted camera
KEPT_SIDES = 8  # that tuning looks at, so that they do not change
LOWER_FRAMES = 24  # of the film, before --num_frames of circling


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("path", type=Path, help="a generator.pth, or the run's directory that holds it")
    add("image", type=Path, help="the picture, of any size; its central square is taken")
    add("--output_dir", type=Path, default=Path("inversion"), help="where files go (inversion)")
    add("--image_size", type=positive,
        help="pixels per side that are fitted (128; of a 2D generator, its own)")  # fmt: skip
    add("--view_size", type=positive,
        help="pixels per side of views and film (twice image_size)")  # fmt: skip
    add("--num_frames", type=positive, default=64,
        help=f"frames of circling, after {LOWER_FRAMES} of sinking (64)")  # fmt: skip
    add("--no_video", action="store_true", help="no film, which takes longest on a CPU")
    add("--progress_interval", type=positive, default=100, help="steps between pictures (100)")
    add("--ray_step_multiplier", type=positive, default=2,
        help="samples per ray, as a multiple of those in training (2)")  # fmt: skip
    add("--lock_view_dependence", action="store_true",
        help="views and film have the colours of the front, as in the original")  # fmt: skip
    add("--max_batch_size", type=positive, default=2_400_000,
        help="field points computed at once; less takes less memory (2400000)")  # fmt: skip
    add("--ema", default="ema.pth", help="average of the weights to use, or 'none' (ema.pth)")
    add("--curriculum", help="cameras and settings of another curriculum than the checkpoint's")
    add_device(parser)
    add_style(parser)
    add_camera(parser)
    add_tuning(parser)
    args = parser.parse_args()
    expand_edit(args)
    return args


def load_picture(path: Path, size: int) -> Tensor:
    """The central square of a picture, (1, 3, size, size) in [-1, 1]."""
    data = path.read_bytes()
    try:
        image = decode_image(data)
    except Exception as error:  # decoders raise whatever they like over a damaged file
        raise ValueError(f"{path} is not a picture that can be read: {error}") from error
    pixels = torch.tensor(list(center_crop(image, size, nearest=False).tobytes()))
    return pixels.reshape(1, size, size, 3).permute(0, 3, 1, 2) / 127.5 - 1


def make_loss(args: argparse.Namespace) -> Loss:
    """The loss that is asked for."""
    if args.loss == "mse":
        return F.mse_loss
    perceptual = lpips_loss(args.device, args.lpips_weights, args.lpips_net)
    if args.loss == "lpips":
        return perceptual
    return lambda image, target: F.mse_loss(image, target) + perceptual(image, target)


@dataclass(frozen=True)
class Task:
    """What is fitted, to what, and how both are compared and shown."""

    generator: Generator
    stage: Stage
    target: Tensor
    loss: Loss
    fitting: RenderSettings  # of the pictures that are compared
    looking: RenderSettings  # of those that are shown
    has_sides: bool  # whether a camera changes anything
    start: Tensor | None  # style; None: the average
    camera: Cameras | None  # None: to be found


def prepare(args: argparse.Namespace) -> tuple[Task, Curriculum]:
    """Read everything that is needed, and refuse what cannot work, before any work."""
    ema = None if args.ema == "none" else args.ema
    generator, curriculum = load_generator(args.path, args.device, ema)
    expand_prior(args, generator)
    shown = find_curriculum(args.curriculum) if args.curriculum else curriculum
    stage = stage_at(shown, checkpoint_step(args.path))
    own = generator.resolution
    for flag, size in (("image_size", args.image_size), ("view_size", args.view_size)):
        if own is not None and size not in (None, own):
            raise ValueError(f"--{flag}: this generator's pictures have {own} pixels a side")
    size = own or args.image_size or 128
    fitting = stage.eval_settings(
        resolution=size,
        num_steps=stage.num_steps * args.ray_step_multiplier,
        max_batch_size=args.max_batch_size,
    )
    looking = replace(
        fitting,
        resolution=own or args.view_size or 2 * size,
        lock_view_dependence=args.lock_view_dependence,
    )
    has_sides = generator.sees_cameras
    for flag in ("edit", "fit_pose", "yaw", "pitch", "fov"):
        given = getattr(args, flag)
        if not has_sides and given is not None and given is not False:
            raise ValueError(f"--{flag}: a {type(generator).__name__} is blind to cameras")
    start = None
    if args.latent is not None:
        start = load_latents(args.latent)[:1].to(args.device)
        check_styles(generator, start, args.latent)
    target = load_picture(args.image, size).to(args.device)
    camera = place_camera(args, stage)
    loss = make_loss(args)
    save_png(args.output_dir / "gt.png", to_uint8(target)[0])
    task = Task(generator, stage, target, loss, fitting, looking, has_sides, start, camera)
    return task, curriculum


def place_camera(args: argparse.Namespace, stage: Stage) -> Cameras | None:
    """The camera to start from: as given, else the latent file's, else to be found, else ahead."""
    given = args.yaw is not None or args.pitch is not None
    if args.latent is not None and not given:
        kept = load_cameras(args.latent)
        if kept is not None:
            fov = kept.fov if args.fov is None else torch.full_like(kept.fov, args.fov)
            return replace(kept, fov=fov)[0].to(args.device)
    if args.fit_pose and not given:
        return None
    yaw, pitch = stage.h_mean + (args.yaw or 0.0), front_pitch(stage) + (args.pitch or 0.0)
    return Cameras.from_angles(yaw, pitch, args.fov or stage.fov, stage.radius).to(args.device)


def candidates(task: Task, args: argparse.Namespace) -> Cameras:
    """The cameras of the trials: the one there is for all of them, else all round."""
    if task.camera is not None:
        return Cameras.cat([task.camera] * STYLE_ROUNDS[0][0])
    law = task.stage.pose_law()
    law = replace(law, fov=args.fov or law.fov)
    return spread_cameras(law, POSE_ROUNDS[0][0]).to(args.device)


def fit(task: Task, args: argparse.Namespace) -> tuple[Tensor, Cameras]:
    """The style and the camera of the picture."""
    along, schedule = args.style_space == "principal", schedule_of(args)
    directions = None
    if along or task.camera is None:
        directions = principal_directions(task.generator)
    start, camera = task.start, task.camera
    if camera is None or (along and start is None and task.has_sides):
        assert directions is not None
        start, camera = find_start(
            task.generator,
            task.target,
            candidates(task, args),
            task.fitting,
            directions,
            fit_pose=args.fit_pose,
            rounds=POSE_ROUNDS if camera is None else STYLE_ROUNDS,
            prior=schedule.prior,
            start=start,
        )
        if along and args.noise is None:
            schedule = replace(schedule, noise=NOISE)
    return fit_style(
        task.generator,
        task.target,
        camera,
        task.fitting,
        loss=task.loss,
        schedule=schedule,
        directions=directions if along else None,
        fit_pose=args.fit_pose,
        start=start,
        rng=torch.Generator().manual_seed(args.seed),
        watch=watch_progress(task, args, schedule.steps, ""),
    )


def tune(task: Task, args: argparse.Namespace, w: Tensor, camera: Cameras) -> None:
    """Pivotal tuning of the generator, in place."""
    sides = None
    if task.has_sides and args.locality:
        sides = spread_cameras(task.stage.pose_law(), KEPT_SIDES).to(args.device)
    tune_weights(
        task.generator,
        task.target,
        w,
        camera,
        task.fitting,
        steps=args.pivotal_steps,
        lr=args.pivotal_lr,
        loss=task.loss,
        sides=sides,
        locality=args.locality,
        watch=watch_progress(task, args, args.pivotal_steps, "tuned_"),
    )


def watch_progress(
    task: Task, args: argparse.Namespace, steps: int, label: str
) -> Callable[[int, Tensor, Cameras], None]:
    """A progress bar, and a picture <label><step>.png now and then."""
    bar = tqdm(total=steps, desc=label.rstrip("_") or "fit", unit="step", disable=None)

    def watch(step: int, w: Tensor, camera: Cameras) -> None:
        bar.update()
        if step % args.progress_interval == 0:
            save_views(task, w, camera, args.output_dir / f"{label}{step:04d}.png")
        if step == steps:
            bar.close()

    return watch


def save_views(task: Task, w: Tensor, camera: Cameras, path: Path) -> None:
    """Write the picture of the camera itself, then views beside it, in a row."""
    if task.has_sides:
        yaw, pitch = camera.yaw_pitch[0]
        turned = torch.tensor(VIEW_YAWS, device=yaw.device) + yaw
        radius = camera.origin[0].norm()
        camera = Cameras.cat([camera, Cameras.from_angles(turned, pitch, camera.fov[0], radius)])
    frames = torch.stack(list(look(task, w, camera)))
    save_png(path, tile(frames, columns=len(frames)))


def save_film(task: Task, w: Tensor, camera: Cameras, args: argparse.Namespace) -> None:
    """The original's film, around the fitted camera: it sinks, then circles."""
    fov = float(camera.fov[0])
    path = Cameras.cat([lower(LOWER_FRAMES, fov), front(args.num_frames, fov, zoom=0.0)])
    yaw, pitch = (path.yaw_pitch - FRONTAL + camera.yaw_pitch[0].cpu()).unbind(-1)
    radius = float(camera.origin[0].norm())
    path = Cameras.from_angles(yaw, pitch, fov, radius).to(args.device)
    frames = tqdm(look(task, w, path), total=len(path), desc="film", unit="frame", disable=None)
    save_video(frames, args.output_dir, "reconstructed")


def look(task: Task, w: Tensor, cameras: Cameras) -> Iterator[Tensor]:
    """The style from each camera in turn, as bytes (N, N, 3)."""
    scene = Scene(task.generator, w)
    for camera in cameras:
        yield to_uint8(scene.look(camera, task.looking).image)[0]


@torch.no_grad()
def measure(task: Task, w: Tensor, camera: Cameras) -> float:
    """PSNR of the fit in decibels, as it is seen: colours beyond black and white are those."""
    image = task.generator.synthesis(w, camera, task.fitting).image
    return psnr(image.clamp(-1, 1), task.target)


def save_tuned(args: argparse.Namespace, generator: Generator, curriculum: Curriculum) -> Path:
    """Write the tuned generator as a run's directory."""
    file = args.path / "generator.pth" if args.path.is_dir() else args.path
    data = read_file(file)
    record = {key: data[key] for key in ("class", "arguments")}
    state = network_state(generator, record, data["step"])
    folder = args.output_dir / "tuned"
    save_files(folder, {"generator.pth": {**state, "curriculum": curriculum}, "ema.pth": state})
    return folder


def main() -> None:
    """Fit, tune, save and look."""
    args = parse_args()
    task, curriculum = prepare(args)
    w, camera = fit(task, args)
    facts = {"psnr": measure(task, w, camera)}
    print(f"fitted in {schedule_of(args).steps} steps: PSNR {facts['psnr']:.2f} dB")
    if args.fit_pose:
        yaw, pitch = camera.yaw_pitch[0].tolist()
        print(f"camera: yaw {math.degrees(yaw):.1f}, pitch {math.degrees(pitch):.1f} degrees")
    if args.pivotal_steps:
        tune(task, args, w, camera)
        facts["tuned_psnr"] = measure(task, w, camera)
        folder = save_tuned(args, task.generator, curriculum)
        print(f"tuned in {args.pivotal_steps} steps: PSNR {facts['tuned_psnr']:.2f} dB, {folder}")
    save_latents(args.output_dir / "latent.npz", w, camera if task.has_sides else None, facts)
    save_views(task, w, camera, args.output_dir / "views.png")
    if task.has_sides and not args.no_video:
        save_film(task, w, camera, args)
    print(f"wrote latent.npz and views.png to {args.output_dir}")


if __name__ == "__main__":
    run_script(main)
