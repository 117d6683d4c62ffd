"""Upper bounds of what is lost on paired clips: how sure a promise is, and how many clips a surer one takes.

Of n clips the first model is right and the second wrong on ``lost`` of them, and the other way round on ``gained``:
McNemar's two counts. The difference of the two accuracies is p₁₀ − p₀₁. An upper end for the one and a lower end for
the other (Clopper & Pearson, 1934), each at half the error, bound it whatever the two shares are (Bonferroni): the
bound is exact in the sense that it fails at most as often as it says, for any number of clips, and a little wide.
"""

from __future__ import annotations

from scipy.stats import beta

from spectrim.errors import InvalidSetting

CONFIDENCE = 0.95
MOST_CLIPS = 10_000_000
"""Clips beyond which nobody is told to go."""


def drop_bound(lost: float, gained: float, clips: float, confidence: float = CONFIDENCE) -> float:
    """Upper bound of the accuracy that is lost, as a share, from counts of discordant clips.

    Args:
        lost: clips that only the first model gets right.
        gained: clips that only the second gets right.
        clips: all of them. Fractions are allowed, for counts that are only expected.
        confidence: share of such bounds, at least, that the true loss lies below.

    Raises:
        InvalidSetting: the counts do not fit each other, or the confidence is no share.
    """
    if clips <= 0 or min(lost, gained) < 0 or lost + gained > clips:
        raise InvalidSetting("lost, gained, clips", (lost, gained, clips), "counts of clips, the first two among them")
    if not 0.0 < confidence < 1.0:
        raise InvalidSetting("confidence", confidence, "a number between 0 and 1")
    error = (1.0 - confidence) / 2
    most = 1.0 if lost >= clips else float(beta.ppf(1.0 - error, lost + 1, clips - lost))
    least = 0.0 if gained <= 0 else float(beta.ppf(error, gained, clips - gained + 1))
    return most - least


def clips_for_bound(
    lost: float, gained: float, clips: int, wanted: float, confidence: float = CONFIDENCE
) -> int | None:
    """Clips from which on `drop_bound` is at most ``wanted``, if the shares of discordant clips stay as they are.

    Args:
        lost, gained, clips, confidence: as for `drop_bound`.
        wanted: the bound to be reached, a share.

    Returns:
        How many in all; None where no number of clips reaches it: what was lost is not below it, or so little below
        that it takes more than `MOST_CLIPS`.
    """

    def bound(number: int) -> float:
        return drop_bound(lost * number / clips, gained * number / clips, number, confidence)

    if (lost - gained) / clips >= wanted or bound(MOST_CLIPS) > wanted:
        return None
    low, high = 0, MOST_CLIPS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if bound(middle) <= wanted else (middle, high)
    return high
