"""The ways of benchmarks/shapes.py find the same surface."""

import torch

from benchmarks.shapes import Contest, load
from generators.pigan import PiGAN


def test_all_ways_end_with_the_same_vertices() -> None:
    generator, stage = load(None, "cpu")
    assert isinstance(generator, PiGAN)
    with torch.no_grad():  # a field with a surface
        generator.siren.final_layer.weight.mul_(100)
    contest = Contest(generator, generator.w_avg[None], stage, 16)
    contest.dense()
    contest.reference()
    contest.near("near")
    contest.near("near_mixed", torch.bfloat16)
    assert contest.evaluations["dense"] == contest.evaluations["reference"] == 16**3
    assert contest.evaluations["near"] <= 16**3
    assert len(contest.vertices["near"]) > 50
    assert contest.apart("near") < 1e-3 and contest.apart("reference") < 0.05
    # the search is rounded, but the surface is not
    assert len(contest.vertices["near_mixed"]) == len(contest.vertices["dense"])
    assert contest.apart("near_mixed") < 1e-3
