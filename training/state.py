"""Everything that a run needs to go on where it stopped, and its way to disk and back."""

import shutil
from pathlib import Path
from typing import Any

import torch

from curriculums import Curriculum
from generators import GENERATORS
from inference import checkpoint
from inference.checkpoint import CheckpointError, load_weights, network_state
from training.data import DataStream, Prefetch
from training.ema import ExponentialMovingAverage
from training.players import Players
from training.random import Streams


class NotFiniteError(RuntimeError):
    """Training has gone where numbers mean nothing; the message says what to lower."""


class RunState:
    """Players, averages, streams and counters at a step.

    `non_finite` counts skipped steps in a row and `skipped` all of them, both on the device.
    """

    def __init__(
        self,
        players: Players,
        records: dict[str, dict[str, Any]],
        emas: dict[str, ExponentialMovingAverage],
        streams: Streams,
        data: DataStream | Prefetch,
    ) -> None:
        self.players, self.records, self.emas = players, records, emas
        self.streams, self.data = streams, data
        self.step = 0
        self.images = 0  # reals shown so far, by all processes
        self.non_finite, self.skipped = torch.zeros(2, device=players.world.device).unbind()

    def count(self, finite: torch.Tensor, images: int) -> None:
        """Move on by one step of so many images, which changed weights if `finite`."""
        bad = (~finite).float()
        self.non_finite = (self.non_finite + bad) * bad
        self.skipped = self.skipped + bad
        self.step += 1
        self.images += images

    def save(self, directory: Path, curriculum: Curriculum) -> None:
        """Write a complete checkpoint, replacing the last one in one go.

        Every process must call it. Raises NotFiniteError rather than save weights that are not
        finite, OSError if the disk does not take them; the last checkpoint is intact then.
        """
        players = self.players
        streams = players.world.gather(self.streams.state_dict())
        if not players.world.is_main:
            return
        for network in (players.generator, players.discriminator):
            if not all(p.isfinite().all() for p in network.parameters()):
                raise NotFiniteError(
                    f"weights are not finite at step {self.step} and were not saved: "
                    "lower gen_lr and disc_lr, and resume from the last checkpoint"
                )
        players.generator.update_w_avg()
        for ema in self.emas.values():
            ema.module.update_w_avg()
        networks = {"generator.pth": players.generator, "discriminator.pth": players.discriminator}
        files = {
            name: network_state(network, self.records[name], self.step)
            for name, network in networks.items()
        }
        files["generator.pth"]["curriculum"] = curriculum
        for name, part in self._parts().items():
            files[name] = {**self._header(), "state": part.state_dict()}
        for name, ema in self.emas.items():
            files[name] = {**self._header(), **ema.state_dict()}
        files["trainer.pth"] = {
            **self._header(),
            "streams": streams,
            "data": self.data.state_dict(),
            "images": self.images,
            "path_length_mean": float(players.path_length_mean),
            "augmentation": players.control.state_dict() if players.control else None,
            "non_finite": float(self.non_finite),
            "skipped": float(self.skipped),
        }
        checkpoint.save_files(directory, files)

    def load(self, directory: Path) -> dict[str, int]:
        """Restore what `save` wrote, and return where the data stream stood."""
        players = self.players
        self._load_network(directory / "generator.pth", players.generator)
        self._load_network(directory / "discriminator.pth", players.discriminator)
        for name, ema in self.emas.items():
            ema.load_state_dict(checkpoint.read_file(directory / name), directory / name)
        for name, part in self._parts().items():
            state = checkpoint.read_file(directory / name)["state"]
            if state:  # the scaler of a run in full precision has none
                part.load_state_dict(state)
        data = checkpoint.read_file(directory / "trainer.pth")
        self.step = data["step"]
        if players.world.rank < len(data["streams"]):
            self.streams.load_state_dict(data["streams"][players.world.rank])
        self.images = data["images"]
        players.path_length_mean.fill_(data["path_length_mean"])
        if players.control is not None and players.augment is not None:
            if data["augmentation"] is not None:  # the run may have had another mode before
                players.control.load_state_dict(data["augmentation"])
            players.augment.p = players.control.p
        self.non_finite.fill_(data["non_finite"])
        self.skipped.fill_(data["skipped"])
        return data["data"]

    def adopt(self, directory: Path, *, generator_only: bool = False) -> None:
        """Begin with the networks of another run; what optimisers and counters knew is left behind.

        The generator may be of a class that this run's extends, which adapts the weights. Averages
        that are not there, as of a converted checkpoint, begin as the generator itself.
        """
        players = self.players
        own, file = players.generator, directory / "generator.pth"
        data = checkpoint.read_file(file)
        stored = str(data.get("class"))
        if stored not in GENERATORS or not isinstance(own, GENERATORS[stored]):
            raise _of_another_architecture(file, stored, self.records["generator.pth"]["class"])
        load_weights(own, own.adapted(data["state_dict"]), file)
        if not generator_only:
            self._load_network(directory / "discriminator.pth", players.discriminator)
        for name, ema in self.emas.items():
            there = directory / (name if (directory / name).exists() else "generator.pth")
            weights = own.adapted(checkpoint.read_file(there)["state_dict"])
            load_weights(ema.module, weights, there)

    def _load_network(self, file: Path, network: torch.nn.Module) -> None:
        """Weights of the same class of network."""
        data, wanted = checkpoint.read_file(file), self.records[file.name]["class"]
        if data.get("class") != wanted:
            raise _of_another_architecture(file, data.get("class"), wanted)
        load_weights(network, data["state_dict"], file)

    def snapshot(self, directory: Path) -> None:
        """Keep the checkpoint just written as snapshots/<step>/, in links that cost no room."""
        link_files(directory, directory / "snapshots" / f"{self.step:06d}")

    def _parts(self) -> dict[str, Any]:
        players = self.players
        return {
            "optimizer_G.pth": players.optimizer_g,
            "optimizer_D.pth": players.optimizer_d,
            "scaler.pth": players.scaler,
        }

    def _header(self) -> dict[str, Any]:
        return {"format": checkpoint.FORMAT, "step": self.step}


def link_files(directory: Path, target: Path) -> None:
    """Give a run's files another name in `target`; where that cannot be done, copy them."""
    target.mkdir(parents=True, exist_ok=True)
    for file in directory.glob("*.pth"):
        link = target / file.name
        link.unlink(missing_ok=True)
        try:
            link.hardlink_to(file)
        except OSError:  # a file system without hard links
            shutil.copy2(file, link)


def _of_another_architecture(file: Path, stored: object, wanted: str) -> CheckpointError:
    return CheckpointError(
        f"{file} is from another architecture: it holds {stored}, the curriculum names {wanted}"
    )
