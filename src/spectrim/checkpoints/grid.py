"""Strides and frames of an AST whose file holds only the number of its patches."""

from __future__ import annotations

from typing import NamedTuple

from spectrim.checkpoints.files import Source
from spectrim.errors import CheckpointError, InvalidSetting

PUBLISHED: dict[tuple[int, int | None], tuple[int, int]] = {
    (512, None): (16, 1024),
    (1212, None): (10, 1024),
    (850, 527): (12, 1024),
    (657, 527): (14, 1024),
    (600, 50): (10, 512),
    (256, 50): (16, 512),
    (144, 35): (10, 128),
    (64, 35): (16, 128),
}
"""(patches, outputs of the head, None for any) of the published ASTs → (stride, frames).

AudioSet's four strides, and ESC-50 and Speech Commands as AST and the paper train them. Only these are loaded without a
word about the stride. The grid of 64 columns and 8 rows stands for stride 16: stride 15 and 961 to 975 frames, which
nobody has published, would give it too.
"""


class Grid(NamedTuple):
    """Steps between patches, and the shortest and longest input that they cut into the same patches."""

    frequency_stride: int
    time_stride: int
    shortest: int
    longest: int

    def settings(self, frames: int | None) -> dict[str, int]:
        """Fields of the configuration; the shortest input where ``frames`` is not one of this grid's."""
        own = frames is not None and self.shortest <= frames <= self.longest
        length = frames if own and frames is not None else self.shortest
        return {"frequency_stride": self.frequency_stride, "time_stride": self.time_stride, "max_length": length}

    def __str__(self) -> str:
        same = self.frequency_stride == self.time_stride
        stride = str(self.time_stride) if same else f"({self.frequency_stride}, {self.time_stride})"
        return f"stride={stride} with {self.shortest} to {self.longest} frames"


def grid_with(positions: int, stride: tuple[int, int], patch: int, bins: int) -> Grid | None:
    """The grid of so many patches with a stride (along frequency, along time), None where there is none."""
    along_frequency, along_time = stride
    time, rest = divmod(positions, (bins - patch) // along_frequency + 1)
    if rest or time < 1 or max(stride) > patch:
        return None
    shortest = (time - 1) * along_time + patch
    return Grid(along_frequency, along_time, shortest, shortest + along_time - 1)


def find_grid(source: Source, positions: int, patch: int, outputs: int, bins: int = 128) -> dict[str, int]:
    """Strides and frames of an AST, from its number of patches and what the caller says of it.

    With ``source.stride``, the frames follow. With ``source.frames`` alone, the one stride (the same along both axes)
    that makes so many patches of so many frames follows; for a published AST they are the length to fit it to.

    Args:
        source: the checkpoint.
        positions: number of patches.
        patch: side of a patch.
        outputs: of the head, 0 without one.
        bins: number of mel bins.

    Returns:
        ``frequency_stride``, ``time_stride`` and ``max_length``.

    Raises:
        CheckpointError: no stride gives that number, or several do and nothing tells which; it names them.
        InvalidSetting: the stride that was given does not.
    """
    fitting = [grid for step in range(patch, 0, -1) if (grid := grid_with(positions, (step, step), patch, bins))]
    choices = "; ".join(map(str, fitting))
    if not fitting:
        raise CheckpointError(
            f"{source.name}: {positions} patches fit no stride from 1 to {patch} with {bins} mel bins"
        )
    if source.stride is not None:
        chosen = grid_with(positions, source.stride, patch, bins)
        if chosen is None:
            raise InvalidSetting("stride", source.stride, f"what makes {positions} patches: {choices}")
        return chosen.settings(source.frames)
    told = [grid for grid in fitting if source.frames and grid.shortest <= source.frames <= grid.longest]
    step, frames = PUBLISHED.get((positions, outputs)) or PUBLISHED.get((positions, None)) or (0, 0)
    known = grid_with(positions, (step, step), patch, bins) if step and bins == 128 and patch == 16 else None
    if known is not None and all(grid == known for grid in told):
        return known.settings(source.frames if told else frames)
    if known is None and len(told) == 1:
        return told[0].settings(source.frames)
    raise CheckpointError(
        f"{source.name}: nothing in it says the stride of its patches, and {positions} patches fit several: {choices}. "
        "Give stride= or frames= (--stride, --frames), or stride=(frequency, time) where the two differ"
    )
