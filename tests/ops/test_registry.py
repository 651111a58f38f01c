"""Registries find plugins by name and alias, and help with misspelt ones."""

import pytest

from ops.registry import Registry, nearest


@pytest.fixture
def shapes() -> Registry[type]:
    registry: Registry[type] = Registry("shape")

    @registry.register("Circle", "ROUND", "disc")
    class _Circle:
        pass

    @registry.register("Square")
    class _Square:
        pass

    return registry


def test_names_and_aliases_lead_to_the_same_entry(shapes: Registry[type]) -> None:
    assert shapes["Circle"] is shapes["ROUND"] is shapes["disc"]
    assert shapes["Square"] is not shapes["Circle"]


def test_every_name_knows_the_canonical_one(shapes: Registry[type]) -> None:
    assert [shapes.canonical(n) for n in ("Circle", "ROUND", "disc")] == ["Circle"] * 3
    assert shapes.name_of(shapes["disc"]) == "Circle"
    assert shapes.aliases("Circle") == ["ROUND", "disc"]
    assert shapes.aliases("Square") == []


def test_iteration_gives_each_plugin_once_in_order(shapes: Registry[type]) -> None:
    assert list(shapes) == ["Circle", "Square"]


def test_membership_knows_aliases_and_is_exact(shapes: Registry[type]) -> None:
    assert "disc" in shapes
    assert "circle" not in shapes
    assert None not in shapes


def test_a_misspelt_name_is_answered_with_the_nearest(shapes: Registry[type]) -> None:
    with pytest.raises(ValueError, match="unknown shape 'Sqare', did you mean 'Square'?"):
        shapes["Sqare"]


def test_a_name_unlike_any_is_answered_with_all(shapes: Registry[type]) -> None:
    with pytest.raises(ValueError, match="allowed: Circle, ROUND, Square, disc"):
        shapes["hyperboloid"]


def test_the_nearest_name_is_found_whatever_the_case() -> None:
    assert nearest("TALLSIRENS", ["TallSiren", "Other"]) == ", did you mean 'TallSiren'?"


@pytest.mark.parametrize("names", [("Circle",), ("disc",), ("Oval", "ROUND")])
def test_a_taken_name_is_refused_and_the_registry_left_alone(
    shapes: Registry[type], names: tuple[str, ...]
) -> None:
    before = {name: shapes[name] for name in ("Circle", "ROUND", "disc", "Square")}
    with pytest.raises(ValueError, match="is registered twice"):
        shapes.register(*names)(type("Other", (), {}))
    assert {name: shapes[name] for name in before} == before
    assert "Oval" not in shapes


def test_a_class_that_was_never_registered_has_no_name(shapes: Registry[type]) -> None:
    with pytest.raises(ValueError, match="is not a registered shape"):
        shapes.name_of(int)
