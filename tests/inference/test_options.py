"""What the command lines share: seeds, devices, numbers, one-line errors."""

import argparse

import pytest
import torch

from inference.options import (
    add_device,
    add_exact,
    add_seeds,
    default_device,
    flatten,
    parse_device,
    parse_seeds,
    positive,
    run_script,
)


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("7", [7]), ("0-3", [0, 1, 2, 3]), ("5-5", [5]), ("012", [12]), (f"{2**63 - 1}", [2**63 - 1])],
)
def test_seeds_are_numbers_and_ranges_with_both_ends(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize(
    "text", ["", "-", "-1", "3-", "-3", "3-1", "1-2-3", "1.5", "a", "1,2", f"{2**63}", "1e3"]
)
def test_a_bad_seed_is_refused_and_repeated(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        parse_seeds(text)
    assert f"got {text!r}" in str(caught.value)


def test_the_largest_seed_makes_a_generator() -> None:
    torch.Generator().manual_seed(parse_seeds(f"{2**63 - 1}")[0])


@pytest.mark.parametrize("flag", ["--seeds", "--seed"])
@pytest.mark.parametrize(
    ("words", "seeds"),
    [([], [0, 1, 2]), (["4"], [4]), (["0-2", "9", "5-6"], [0, 1, 2, 9, 5, 6])],
)
def test_lists_and_ranges_mix_under_either_name(
    flag: str, words: list[str], seeds: list[int]
) -> None:
    parser = argparse.ArgumentParser()
    add_seeds(parser)
    given = parser.parse_args([flag, *words] if words else [])
    assert flatten(given.seeds) == seeds


def test_a_bad_seed_on_the_command_line_ends_with_code_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    parser = argparse.ArgumentParser()
    add_seeds(parser)
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args(["--seeds", "0-3", "x"])
    assert stopped.value.code == 2
    assert "got 'x'" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0", "-4", "2.5", "", "many"])
def test_what_must_be_positive_is(text: str) -> None:
    assert positive("12") == 12
    with pytest.raises(argparse.ArgumentTypeError, match="a whole number above 0"):
        positive(text)


@pytest.mark.parametrize("text", ["tpuu", "", "cpu:x", "cuda:977"])
def test_a_device_that_is_not_there_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not available") as caught:
        parse_device(text)
    assert "\n" not in str(caught.value) and repr(text) in str(caught.value)


def test_the_default_device_is_one_that_is_there() -> None:
    parser = argparse.ArgumentParser()
    add_device(parser)
    assert parser.parse_args([]).device == default_device() == parse_device(default_device())
    assert parser.parse_args(["--device", "cpu"]).device == "cpu"


class Mended(Exception):
    pass


@pytest.mark.parametrize("error", [ValueError, OSError, FileNotFoundError, Mended])
def test_what_the_user_can_mend_is_one_line_and_code_2(
    error: type[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        raise error("first\n  second line")

    with pytest.raises(SystemExit) as stopped:
        run_script(main, also=(Mended,))
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: first second line\n"


def test_a_bug_keeps_its_traceback_and_success_is_silent(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def bug() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        run_script(bug)
    run_script(lambda: None)
    assert capsys.readouterr().err == ""


def test_pictures_leave_out_empty_space_unless_exact() -> None:
    parser = argparse.ArgumentParser()
    add_exact(parser)
    assert not parser.parse_args([]).exact
    assert parser.parse_args(["--exact"]).exact
