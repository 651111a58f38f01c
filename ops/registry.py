"""Names for plugins: one registry per kind, with aliases and helpful errors."""

import difflib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")
Entry = TypeVar("Entry")


def nearest(name: object, allowed: Iterable[object]) -> str:
    """Return `", did you mean X?"` for a misspelt name, or the allowed names if none is close."""
    names = sorted(str(a) for a in allowed)
    by_lower = {n.lower(): n for n in names}
    close = difflib.get_close_matches(str(name).lower(), by_lower, n=1, cutoff=0.6)
    if close:
        return f", did you mean {by_lower[close[0]]!r}?"
    return f"; allowed: {', '.join(names)}"


class Registry(Generic[T]):
    """Maps a plugin's names to its class.

    `kind` is what error messages call an entry, for instance "generator".
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}
        self._canonical: dict[str, str] = {}

    def register(self, name: str, *aliases: str) -> Callable[[Entry], Entry]:
        """Class decorator: register under `name` and, for old curricula, under `aliases`."""

        def add(entry: Entry) -> Entry:  # a decorated class keeps its own type
            for key in (name, *aliases):
                if key in self._canonical:
                    raise ValueError(f"{self.kind} {key!r} is registered twice")
            self._entries[name] = cast(T, entry)
            self._canonical.update(dict.fromkeys((name, *aliases), name))
            return entry

        return add

    def __getitem__(self, name: str) -> T:
        return self._entries[self.canonical(name)]

    def __contains__(self, name: object) -> bool:
        return name in self._canonical

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def canonical(self, name: str) -> str:
        """Return the field-standard name behind `name`; raise ValueError for an unknown one."""
        if name not in self._canonical:
            raise ValueError(f"unknown {self.kind} {name!r}{nearest(name, self._canonical)}")
        return self._canonical[name]

    def name_of(self, entry: object) -> str:
        """Return the canonical name of a registered class."""
        for name, registered in self._entries.items():
            if registered is entry:
                return name
        raise ValueError(f"{entry!r} is not a registered {self.kind}")

    def aliases(self, name: str) -> list[str]:
        """Return the other names of a plugin."""
        return [a for a, n in self._canonical.items() if n == name and a != name]

    def arguments(
        self, name: str, values: Mapping[str, Any], options: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What to construct plugin `name` with.

        Of `values` (a curriculum's keys) it takes those that the constructor names; every one of
        `options` must be an argument of it, else ValueError.
        """
        parameters = inspect.signature(cast(Any, self._entries[self.canonical(name)])).parameters
        for option in options:
            if option not in parameters:
                raise ValueError(
                    f"{self.kind} {name} has no option {option!r}{nearest(option, parameters)}"
                )
        return {k: v for k, v in values.items() if k in parameters} | dict(options)
