"""The training loop: stages, data, both players' steps, and everything a run leaves on disk.

A run is a pure function of its curriculum, seed and hardware: all randomness comes from named
streams whose states are saved, so that a run that was stopped, or killed, goes on bit for bit.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from curriculums import (
    Curriculum,
    fade_start,
    images_at,
    last_step,
    next_stage,
    stage_at,
    stage_starts,
    validate,
)
from datasets import ImageDataset, open_dataset
from discriminators.base import Discriminator
from inference import checkpoint
from metrics.protocols import find_protocols
from rendering.camera_labels import cameras_from_labels, raw_cameras
from stages import FROM_DATA
from training.best import Best
from training.build import build_players, check_options, check_players
from training.data import DataStream, Prefetch
from training.distributed import World
from training.ema import make_average
from training.fakes import Sampler
from training.graphs import GraphedSteps, check_graphs
from training.log import Averages, RunLog
from training.players import Draw, Moment, Reals
from training.previews import save_previews
from training.random import Streams
from training.signals import StopSignals
from training.state import NotFiniteError, RunState
from training.steps import both_steps, path_length_step, restore_scale, set_hyperparameters

LOG_INTERVAL = 20  # steps between lines of log.jsonl, and between looks at the device
STOP_INTERVAL = 10  # steps between which several processes ask each other whether to stop
END_OF_CURRICULUM = "the curriculum ends"
NON_FINITE_LIMIT = 40  # skipped steps in a row after which training stops
DATASET_KEYS = ("dataset", "dataset_path", "dataset_options", "img_size", "compat")
DATA_KEYS = (*DATASET_KEYS, "batch_size")


@dataclass(frozen=True)
class RunOptions:
    """What the command line decides about a run; the curriculum decides the rest."""

    output_dir: Path
    load_dir: Path | None = None  # continue from this run
    init_from: Path | None = None  # or begin with the networks of this one
    generator_only: bool = False  # ... of which only the generator is taken
    n_epochs: int | None = None  # stop after so many passes through the data
    n_steps: int | None = None  # stop at this step
    sample_interval: int = 200  # steps between sample grids and saves
    model_save_interval: int = 5000  # steps between snapshots that are kept
    eval_freq: int = 5000  # steps between measurements; 0: none
    set_step: int | None = None  # pretend that the loaded run is at this step
    seed: int = 0
    num_workers: int = 0  # threads that decode pictures
    cuda_graphs: bool = False  # replay steps that do not change


class Trainer:
    """A run: its state, its data and its log, moving along a curriculum.

    `evaluate` measures the run every `eval_freq` steps; what it returns goes to metrics.jsonl.
    """

    def __init__(
        self,
        curriculum: Curriculum,
        options: RunOptions,
        world: World,
        evaluate: Callable[["Trainer"], dict[str, Any]] | None = None,
    ) -> None:
        """Check all that can be wrong, build the players, load what is resumed; write nothing."""
        validate(curriculum)
        if options.cuda_graphs:
            check_graphs(curriculum, world)
        self.curriculum, self.options, self.world = curriculum, options, world
        self.evaluate = evaluate
        step = options.set_step or 0
        if options.load_dir is not None and options.set_step is None:
            step = checkpoint.read_file(options.load_dir / "trainer.pth")["step"]
        self.stage = stage_at(curriculum, step)
        self.dataset = self._open_dataset()
        streams = Streams(options.seed, world.rank, world.device)
        players, records = build_players(
            self.stage, options.seed, world, streams.rendering, streams.chance
        )
        check_players(curriculum, players)
        self._check_data(players.discriminator)
        if any(stage_at(curriculum, s).pl_lambda for s in stage_starts(curriculum)):
            players.generator.allow_second_derivatives()
        emas = {
            "ema.pth": make_average(players.generator, self.stage),
            "ema2.pth": make_average(players.generator, self.stage, second=True),
        }
        self.state = RunState(players, records, emas, streams, self._open_stream())
        if options.load_dir is not None:
            self.state.data.close()
            self.state.data = self._open_stream(self.state.load(options.load_dir))
        elif options.init_from is not None:
            self.state.adopt(options.init_from, generator_only=options.generator_only)
        if options.set_step is not None:
            self.state.images = images_at(curriculum, step) * world.size
        self.state.step = step
        set_hyperparameters(players, self.stage)
        self.sampler = self._make_sampler()
        self.both_steps = GraphedSteps() if options.cuda_graphs else both_steps
        self.averages = Averages()
        self._log: RunLog | None = None
        self._saved: tuple[int, bool] = (-1, False)  # the last step to be saved, and whether it was
        self._shown_step: int | None = None  # the last step with a grid in samples/
        self._stop = StopSignals()

    def fit(self) -> str:
        """Train to the end and return why it ended; the last state is on disk then."""
        try:
            self._stop.listen()
            self._start_log()
            if self.state.step == 0:
                self._save_previews()
            while (reason := self._reason_to_stop()) is None:
                self._follow_curriculum()
                self.train_step()
                self._at_intervals()
            self._report()
            self._save_previews()
            if not self._try_save():
                raise OSError(f"the last checkpoint in {self.options.output_dir} is an older one")
            self.world.barrier()  # rank 0 hosts the meeting place: nobody leaves before the others
        finally:
            self.state.data.close()
            if self._log is not None:
                self._log.close()
            self._stop.restore()
        return reason

    def train_step(self) -> None:
        """One step of the discriminator, one of the generator, and the averages after them."""
        state, stage = self.state, self.stage
        faded = state.step - fade_start(self.curriculum, state.step)
        moment = Moment(
            stage=stage,
            step=state.step,
            alpha=min(1.0, faded / stage.fade_steps) if stage.fade_steps else 1.0,
            settings=stage.render_settings(
                state.step, resolution=stage.patch_size or stage.img_size
            ),
            images_seen=state.images,
        )
        reals, players = self._reals(), state.players

        def draws() -> list[Draw]:
            return self.sampler.fakes(state.images)

        stats = self.both_steps(players, moment, reals, draws)
        if stage.pl_lambda > 0 and state.step % stage.pl_interval == 0:
            stats |= path_length_step(players, moment, draws())
        images = stage.batch_size * self.world.size
        for ema in state.emas.values():
            ema.update(players.generator, images, state.images)
        if players.control is not None and players.augment is not None:
            players.augment.p = players.control.step(images, self.world.mean)
            stats["augment_p"] = torch.tensor(players.augment.p)
        norms = [value for name, value in stats.items() if name.startswith("norm")]
        state.count(torch.stack(norms).isfinite().all(), images)
        self.averages.add(stats)

    def _reals(self) -> Reals:
        """The next real pictures, with their cameras and, for conditional networks, labels."""
        stage = self.stage
        batch = next(self.state.data).to(self.world.device, non_blocking=True)
        cameras = None
        if batch.camera_angles is not None:
            cameras = self.sampler.cameras_at(batch.camera_angles)
        elif batch.camera_labels is not None:
            cameras = raw_cameras(batch.camera_labels)
        reals = Reals(batch.images, cameras, batch.labels if stage.label_dim else None)
        return self.sampler.windows(reals, self.state.images)

    def _make_sampler(self) -> Sampler:
        """What draws of the present stage are made with; ValueError where the data lack it."""
        stage, players = self.stage, self.state.players
        poses = None
        if stage.sample_dist == FROM_DATA:
            poses = self.dataset.poses(stage.fov, stage.radius).to(self.world.device)
        chunk = stage.batch_size // stage.batch_split
        return Sampler(
            stage,
            players.generator,
            self.state.streams,
            self.dataset.labels,
            poses,
            players.discriminator.group_size(chunk),
        )

    def _follow_curriculum(self) -> None:
        """When a stage begins: reopen data whose keys changed, and set the stage's rates."""
        stage = stage_at(self.curriculum, self.state.step)
        if stage == self.stage:
            return
        old, self.stage = self.stage, stage
        if any(getattr(old, key) != getattr(stage, key) for key in DATA_KEYS):
            self.state.data.close()
            if any(getattr(old, key) != getattr(stage, key) for key in DATASET_KEYS):
                self.dataset = self._open_dataset()
            self.state.data = self._open_stream(self.state.data.state_dict())
        set_hyperparameters(self.state.players, stage)
        self.sampler = self._make_sampler()
        self._show_stage()

    def _open_dataset(self) -> ImageDataset:
        """Open the stage's pictures; of several processes one decodes, the others wait for it."""
        stage = self.stage
        check_options("dataset_options", stage.dataset_options, open_dataset)
        return open_dataset(
            stage.dataset,
            stage.dataset_path,
            stage.img_size,
            **{
                "nearest": "nearest_resize" in stage.compat,
                "num_workers": self.options.num_workers,
                "progress": self.world.is_main,
                **stage.dataset_options,
            },
        )

    def _check_data(self, discriminator: Discriminator) -> None:
        """Refuse data that lack what the networks are told about each picture."""
        stage, data = self.stage, self.dataset
        if discriminator.uses_cameras and data.camera_angles is None:
            if data.camera_labels is None:
                raise ValueError(
                    f"{stage.discriminator} judges pictures by their cameras: it needs camera "
                    f"angles or labels, and {stage.dataset_path!r} has no dataset.json with "
                    '"camera_angles", or "labels" of 25 numbers (docs/data.md)'
                )
            where = f"{stage.dataset_path}: dataset.json: labels"
            cameras_from_labels(data.camera_labels, where=where)
        if stage.label_dim and data.num_classes != stage.label_dim:
            found = f"has {data.num_classes} classes" if data.num_classes else "has no labels"
            raise ValueError(f"label_dim is {stage.label_dim}, but {stage.dataset_path!r} {found}")

    def _open_stream(self, state: dict[str, int] | None = None) -> DataStream | Prefetch:
        """Batches of the data set from a position on, prepared ahead of time for a GPU."""
        stream = DataStream(
            self.dataset,
            self.stage.batch_size,
            seed=self.options.seed,
            rank=self.world.rank,
            world_size=self.world.size,
            state=state,
        )
        return Prefetch(stream, self.world.device) if self.world.device.type == "cuda" else stream

    def _reason_to_stop(self) -> str | None:
        step, options = self.state.step, self.options
        asked = self.world.size == 1 or step % STOP_INTERVAL == 0  # asking others waits for them
        if asked and self.world.any(self._stop.number is not None):
            return self._stop.reason
        end = last_step(self.curriculum)
        kimg = self.stage.total_kimg
        if (end is not None and step >= end) or (kimg and self.state.images >= 1000 * kimg):
            return END_OF_CURRICULUM
        if options.n_steps is not None and step >= options.n_steps:
            return "n_steps reached"
        if options.n_epochs is not None and self.state.data.epoch >= options.n_epochs:
            return "n_epochs reached"
        return None

    def _at_intervals(self) -> None:
        """Whatever happens only every so many steps."""
        step, options = self.state.step, self.options
        if self._log is not None:
            self._log.advance()
        if step % LOG_INTERVAL == 0:
            self._report()
        if step % options.sample_interval == 0:
            self._save_previews()
        if step % options.sample_interval == 0 or step % options.model_save_interval == 0:
            saved = self._try_save()
            if saved and self._log is not None and step % options.model_save_interval == 0:
                with self._log.surviving(step, "a snapshot"):
                    self.state.snapshot(options.output_dir)
        if self.evaluate is not None and options.eval_freq and step % options.eval_freq == 0:
            self._measure(self.evaluate)

    def _report(self) -> None:
        """Read the device's numbers, write them down, and stop if they make no sense."""
        numbers, state = self.averages.take(), self.state
        in_a_row, skipped = torch.stack([state.non_finite, state.skipped]).tolist()
        if in_a_row >= NON_FINITE_LIMIT:
            raise NotFiniteError(
                f"{int(in_a_row)} steps in a row had gradients that are not finite (step "
                f"{state.step}): lower gen_lr, disc_lr or r1_lambda, or use --precision fp32; "
                f"the checkpoint in {self.options.output_dir} is the last good one"
            )
        restore_scale(state.players.scaler)
        if self._log is not None and numbers:
            (then, step), self._clock = self._clock, (time.perf_counter(), state.step)
            images = (state.step - step) * self.stage.batch_size * self.world.size
            numbers["images_per_s"] = images / (self._clock[0] - then)
            numbers |= {
                "skipped": int(skipped),
                "img_size": self.stage.img_size,
                "kimg": state.images / 1000,
            }
            self._log.write(state.step, numbers)

    def _measure(self, evaluate: Callable[["Trainer"], dict[str, Any]]) -> None:
        """Append a measurement to metrics.jsonl; every process takes part in making it."""
        began = time.perf_counter()
        numbers = evaluate(self)
        line = {"step": self.state.step, **numbers, "seconds": time.perf_counter() - began}
        if self._log is not None and numbers:
            file = self.options.output_dir / "metrics.jsonl"
            with self._log.surviving(self.state.step, file.name), file.open("a") as stream:
                stream.write(json.dumps(line) + "\n")
            shown = [f"{k} {v:.4g}" for k, v in numbers.items() if isinstance(v, float)]
            self._log.say(f"step {self.state.step}: {', '.join(shown)}")
        best, chosen = Best(self.options.output_dir), find_protocols(self.stage.eval_metrics)[0]
        is_best = self._log is not None and best.is_beaten_by(numbers, chosen)
        if self.world.any(is_best) and self._try_save() and self._log is not None:
            with self._log.surviving(self.state.step, "the best checkpoint"):
                best.keep(line)

    def _save_previews(self) -> None:
        if self._log is not None and self._shown_step != self.state.step:
            self._shown_step = self.state.step
            with self._log.surviving(self.state.step, "a sample grid"):
                save_previews(
                    self.options.output_dir / "samples",
                    self.state.step,
                    self.stage,
                    self.state.players.generator,
                    self.state.emas["ema.pth"].module,
                    self._log,
                )

    def _try_save(self) -> bool:
        """Save, or say why not and go on: there may be room the next time."""
        if self._saved[0] == self.state.step:
            return self._saved[1]
        try:
            self.state.save(self.options.output_dir, self.curriculum)
        except OSError as error:
            assert self._log is not None
            self._log.say(
                f"step {self.state.step} was NOT saved: {error}; the last checkpoint is intact"
            )
            self._saved = (self.state.step, False)
            return False
        self._saved = (self.state.step, True)
        return True

    def _start_log(self) -> None:
        """Make the run's directory, in the main process alone."""
        if not self.world.is_main:
            return
        directory, n_steps = self.options.output_dir, self.options.n_steps
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "curriculum.json").write_text(json.dumps(self.curriculum, indent=2) + "\n")
        ends = [s for s in (last_step(self.curriculum), n_steps) if s is not None]
        if self.stage.total_kimg is not None:  # as if this stage lasted
            left = 1000 * self.stage.total_kimg - self.state.images
            steps = math.ceil(left / (self.stage.batch_size * self.world.size))
            ends.append(self.state.step + max(steps, 0))
        self._clock = (time.perf_counter(), self.state.step)
        self._log = RunLog(directory, step=self.state.step, last_step=min(ends, default=None))
        self._show_stage()

    def _show_stage(self) -> None:
        if self._log is not None:
            stage, step = self.stage, self.state.step
            name = f"{stage.img_size}x{stage.img_size}"
            self._log.enter_stage(name, step, next_stage(self.curriculum, step))
