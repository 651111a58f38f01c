"""What a run tells while it trains: progress bars, log.jsonl, TensorBoard.

Losses are summed on the device and read once in a while, never every step.
"""

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

logger = logging.getLogger("perigan")


class RunLog:
    """Writes the numbers of a run; only the main process should hold one."""

    def __init__(self, directory: Path, *, step: int, last_step: int | None) -> None:
        self._file = directory / "log.jsonl"
        for name in ("log.jsonl", "metrics.jsonl"):
            forget_after(directory / name, step)
        self._total = tqdm(total=last_step, initial=step, desc="total", unit="step", position=0)
        self._stage: tqdm | None = None
        self._board = _tensorboard(directory, step)

    def enter_stage(self, name: str, step: int, next_step: int | None) -> None:
        """Begin the bar of a new stage."""
        if self._stage is not None:
            self._stage.close()
        total = None if next_step is None else next_step
        self._stage = tqdm(
            total=total, initial=step, desc=name, unit="step", position=1, leave=False
        )

    def advance(self) -> None:
        """Count one step."""
        self._total.update()
        if self._stage is not None:
            self._stage.update()

    def write(self, step: int, numbers: dict[str, Any]) -> None:
        """Record the means since the last time."""
        line = {"step": step, "time": time.time(), **numbers}
        with self.surviving(step, self._file.name), self._file.open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        names = ("images_per_s", "loss_d", "loss_g")
        shown = {k: f"{numbers[k]:.3g}" for k in names if k in numbers}
        self._total.set_postfix(shown)
        if self._board is not None:
            for name, value in numbers.items():
                if isinstance(value, (int, float)):
                    self._board.add_scalar(name, value, step)

    def picture(self, step: int, name: str, pixels: Tensor) -> None:
        """Show a sample grid (height, width, 3) in TensorBoard."""
        if self._board is not None:
            self._board.add_image(name, pixels, step, dataformats="HWC")

    def say(self, text: str) -> None:
        """Print above the bars."""
        tqdm.write(text)

    def close(self) -> None:
        """Finish the bars and files."""
        for bar in (self._stage, self._total):
            if bar is not None:
                bar.close()
        if self._board is not None:
            self._board.close()

    @contextmanager
    def surviving(self, step: int, what: str) -> Iterator[None]:
        """Go on where the disk does not take something that training can do without."""
        try:
            yield
        except OSError as error:
            self.say(f"step {step}: {what} was not written: {error}")


def forget_after(file: Path, step: int) -> None:
    """Drop what a run that was cut off wrote after the checkpoint that it resumes from."""
    if not file.exists():
        return
    kept = []
    for line in file.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue  # half a line, written when the run was killed
    shorter = file.with_name(file.name + ".new")
    shorter.write_text("".join(kept))
    os.replace(shorter, file)


class Averages:
    """Running means of step statistics, kept on the device until they are asked for.

    Numbers that are not finite do not count: the steps that they come from are skipped.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor] = {}

    def add(self, stats: dict[str, Tensor]) -> None:
        """Add one step's numbers."""
        for name, value in stats.items():
            finite = value.isfinite()
            value = torch.where(finite, value, 0).float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            counted = self._counts.get(name)
            self._counts[name] = finite.int() if counted is None else counted + finite

    def take(self) -> dict[str, float]:
        """Return the means and start anew; the only place that waits for the device."""
        if not self._sums:
            return {}
        sums = torch.stack([s.reshape(()) for s in self._sums.values()])
        counts = torch.stack([c.reshape(()) for c in self._counts.values()])
        means = dict(zip(self._sums, (sums / counts).tolist(), strict=True))
        self._sums, self._counts = {}, {}
        return {k: v for k, v in means.items() if v == v}


def _tensorboard(directory: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logger.info("tensorboard is not installed: log.jsonl only")
        return None
    return SummaryWriter(str(directory), purge_step=step + 1)
