"""Two models or settings in one sentence, and what their ratio decides: said here, in one form."""

from typing import Final, Literal

from analysis.phrases import count, digits, odds, short
from analysis.settings import Estimate

Verdict = Literal[
    "lower, beyond chance", "higher, beyond chance", "no more than chance", "one seed cannot tell"
]
LOWER: Final = "lower, beyond chance"
HIGHER: Final = "higher, beyond chance"
CHANCE: Final = "no more than chance"
ONE_SEED: Final = "one seed cannot tell"


def verdict(ratio: Estimate) -> Verdict:
    """Whether a ratio is below or above 1 beyond chance: its whole 95 % interval is."""
    if ratio.low is None:
        return ONE_SEED
    if not ratio.excludes(1):
        return CHANCE
    return LOWER if ratio.mean < 1 else HIGHER


def bounds(ratio: Estimate) -> str:
    """What a ratio rests on: "95 % interval 1.9 to 2.3, n = 3 seeds", "n = 1 seed"."""
    n = f"n = {count(ratio.n, 'seed')}"
    if ratio.low is None:
        return n
    ends = [short(end) for end in (ratio.lowest, ratio.highest)]
    if len(set(ends)) == 1:
        ends = [digits(end) for end in (ratio.lowest, ratio.highest)]
    return f"95 % interval {' to '.join(ends)}, {n}"


def compared(a: str, ratio: Estimate, b: str, what: str = "test MSE") -> str:
    """What one has of another, without a full stop.

    compared("conv", ratio, "dense-512"):
        "conv has 2.1 times dense-512's test MSE (95 % interval 1.9 to 2.3, n = 3 seeds): higher,
        beyond chance; a fresh run has less with a chance of 0 to 71 % (0 of 3 pairs)"
    """
    said = f"{a} has {short(ratio.mean)} times {b}'s {what} ({bounds(ratio)}): {verdict(ratio)}"
    if ratio.ahead is None or ratio.ahead.n == 1:
        return said
    return f"{said}; a fresh run has less with a chance of {odds(ratio.ahead, 'pairs')}"
