"""Names for plugins: one registry per kind, with aliases and helpful errors."""

import difflib
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


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

    def register(self, name: str, *aliases: str) -> Callable[[T], T]:
        """Class decorator: register under `name` and, for old curricula, under `aliases`."""

        def add(entry: T) -> T:
            self._entries[name] = entry
            for key in (name, *aliases):
                if key in self._canonical:
                    raise ValueError(f"{self.kind} {key!r} is registered twice")
                self._canonical[key] = name
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
