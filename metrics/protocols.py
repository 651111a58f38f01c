"""The metrics by name: how many pictures each compares, and in which way.

Short names are those of pi-GAN's evaluation with torch-fidelity's definitions; names with a number
are StyleGAN's (Karras et al. 2021, official code) and EpiGRAF's. "full" means all real pictures,
without flips. No torch here: a mistyped name is reported before anything is loaded.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

DEFAULT_FAKES = 2048
STYLEGAN_FAKES = 50_000
SWD_IMAGES = 2048  # its patches are kept in memory: more pictures are not looked at


@dataclass(frozen=True)
class Protocol:
    """A metric under one of its names."""

    name: str
    kind: str  # fid, kid, is, pr, ppl, swd, eqt_int, eqt_frac or eqr
    num_fakes: int = DEFAULT_FAKES  # generated pictures, or samples of ppl, eqt and eqr
    max_reals: int | None = None  # so many of the real pictures at most; None: all
    stylegan: bool = False  # population covariance (fid), 16-bit features (pr)

    @property
    def keys(self) -> tuple[str, ...]:
        """The numbers that the metric gives; the first one is what it is judged by."""
        plain = not self.stylegan
        if self.kind == "pr":
            both = ("precision", "recall")
            return both if plain else tuple(f"{self.name}_{key}" for key in both)
        if self.kind == "is":
            return (self.name if plain else f"{self.name}_mean", f"{self.name}_std")
        return (self.name, f"{self.name}_std") if self.kind == "kid" and plain else (self.name,)

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger first number is the better one."""
        return self.kind in ("is", "pr", "eqt_int", "eqt_frac", "eqr")

    @property
    def needs_reals(self) -> bool:
        """Whether it compares with real pictures."""
        return self.kind in ("fid", "kid", "pr", "swd")

    @property
    def needs_generator(self) -> bool:
        """Whether pictures alone, without what makes them, are not enough."""
        return self.kind in ("ppl", "eqt_int", "eqt_frac", "eqr")


def _stylegan(name: str, kind: str, num_fakes: int, max_reals: int | None = None) -> Protocol:
    return Protocol(name, kind, num_fakes, max_reals, stylegan=True)


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        *(Protocol(kind, kind) for kind in ("fid", "kid", "is", "pr", "ppl")),
        Protocol("swd", "swd", max_reals=SWD_IMAGES),
        _stylegan("fid2k_full", "fid", DEFAULT_FAKES),
        _stylegan("fid50k_full", "fid", STYLEGAN_FAKES),
        _stylegan("kid50k_full", "kid", STYLEGAN_FAKES, 1_000_000),
        _stylegan("pr50k3_full", "pr", STYLEGAN_FAKES, 200_000),
        _stylegan("is50k", "is", STYLEGAN_FAKES),
        _stylegan("ppl2_wend", "ppl", STYLEGAN_FAKES),
        _stylegan("eqt50k_int", "eqt_int", STYLEGAN_FAKES),
        _stylegan("eqt50k_frac", "eqt_frac", STYLEGAN_FAKES),
        _stylegan("eqr50k", "eqr", STYLEGAN_FAKES),
    )
}


def find_protocols(names: Sequence[str]) -> list[Protocol]:
    """Protocols by name, in order, each once; ValueError for an unknown name."""
    for name in names:
        if name not in PROTOCOLS:
            close = difflib.get_close_matches(str(name), PROTOCOLS, n=1)
            hint = f", did you mean {close[0]!r}?" if close else f"; known: {', '.join(PROTOCOLS)}"
            raise ValueError(f"unknown metric {name!r}{hint}")
    if not names:
        raise ValueError(f"no metric is asked for; known: {', '.join(PROTOCOLS)}")
    return [PROTOCOLS[name] for name in dict.fromkeys(names)]
