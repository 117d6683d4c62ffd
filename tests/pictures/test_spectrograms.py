"""Pictures say what the numbers say: colours, places, axes; and nobody's text lies on another's."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image
from torch.nn import functional

from spectrim.audio.frontend import Frontend
from spectrim.backbones import ast_base, ast_tiny, beats_base
from spectrim.config import SpectrimConfig
from spectrim.errors import InputShapeError, InvalidSetting
from spectrim.network.transformer import AudioTransformer
from spectrim.pictures.kept_patches import _fitted, explain_picture, kept_stages
from spectrim.pictures.spectrograms import kept_area, prepare
from spectrim.pruning.pruning import Pruning
from spectrim.pruning.trace import TokenTrace

ONE_SECOND = {"max_length": 128}
TEN_SECONDS = {"max_length": 1024}
STRIDE_10 = {"max_length": 1024, "frequency_stride": 10, "time_stride": 10}
LABELS = [
    ("marvin", 0.934),
    ("Female speech, woman speaking", 0.03),
    ("WWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWW", 0.012),
    ("$x_1$ and $y", 0.0004),
    ("Vehicle horn, car horn, honking", 0.0),
    ("a sixth that is not drawn", 0.0),
]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Figure]:
    """Hands out the last figure that would have been saved; saving itself, which is slow, is tested apart."""
    figures: list[Figure] = []

    def record(figure: Figure, target: Path, **options: object) -> None:
        figures.append(figure)
        target.touch()

    monkeypatch.setattr(Figure, "savefig", record)
    return lambda: figures[-1]


def spectrogram(config: SpectrimConfig, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, 0.5, (config.max_length, config.num_mel_bins)).astype(np.float32)


def random_stages(config: SpectrimConfig, rate: float = 0.7, seed: int = 0) -> list[tuple[str, np.ndarray]]:
    """Three stages, each keeping a share of the last."""
    generator = np.random.default_rng(seed)
    alive, stages = np.ones(config.grid, dtype=bool), []
    for block in (3, 6, 9):
        alive = alive & (generator.random(config.grid) < rate)
        stages.append((f"after block {block}", alive))
    return stages


def panels(figure: Figure) -> list[Axes]:
    return [axis for axis in figure.axes if axis.get_images()]


def pixels(axis: Axes) -> np.ndarray:
    """(mels, frames, 4)."""
    return np.asarray(axis.get_images()[0].get_array())


def area_by_transposed_convolution(kept: np.ndarray, config: SpectrimConfig, frames: int) -> np.ndarray:
    size = config.patch_size
    stride = (config.frequency_stride, config.time_stride)
    mask = torch.from_numpy(kept)[None, None].float()
    covered = functional.conv_transpose2d(mask, torch.ones(1, 1, size, size), stride=stride)
    height, width = covered.shape[2:]
    padded = functional.pad(covered, (0, frames - width, 0, config.num_mel_bins - height))
    return padded[0, 0].numpy() > 0


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_point_is_kept_if_any_kept_patch_covers_it(data: st.DataObject) -> None:
    config = ast_base(
        num_mel_bins=data.draw(st.integers(16, 64)),
        max_length=data.draw(st.integers(16, 120)),
        frequency_stride=data.draw(st.integers(5, 16)),
        time_stride=data.draw(st.integers(5, 16)),
    )
    kept = np.random.default_rng(data.draw(st.integers(0, 99))).random(config.grid) < 0.4
    expected = area_by_transposed_convolution(kept, config, config.max_length)
    np.testing.assert_array_equal(kept_area(kept, config, config.max_length), expected)


@pytest.mark.parametrize("geometry", [ONE_SECOND, STRIDE_10], ids=["one second", "stride 10"])
def test_kept_patches_show_the_spectrogram_and_removed_ones_are_grey(
    geometry: dict[str, int], tmp_path: Path, drawn: Callable[[], Figure]
) -> None:
    config = ast_base(**geometry)
    stages = random_stages(config)
    explain_picture(spectrogram(config), stages, config, LABELS, "clip", None, tmp_path / "a.png")
    whole, *others = [pixels(axis) for axis in panels(drawn())]
    assert len(others) == 3
    seen = area_by_transposed_convolution(np.ones(config.grid, dtype=bool), config, config.max_length)
    assert (whole[~seen] == 1.0).all()
    for (_, mask), image in zip(stages, others, strict=True):
        kept = area_by_transposed_convolution(mask, config, config.max_length)
        np.testing.assert_array_equal(image[kept], whole[kept])
        removed = image[seen & ~kept]
        assert len(removed)
        assert (np.ptp(removed[:, :3], axis=1) == 0.0).all()
        assert removed[:, 0].min() > 0.7
    coloured = whole[seen]
    assert (np.ptp(coloured[:, :3], axis=1) > 0.0).mean() > 0.95


def test_each_panel_is_named_with_its_count(tmp_path: Path, drawn: Callable[[], Figure]) -> None:
    config = ast_base(**ONE_SECOND)
    masks = [np.arange(64).reshape(8, 8) < count for count in (45, 32)]
    stages = [("after block 3", masks[0]), ("after block 6", masks[1])]
    explain_picture(spectrogram(config), stages, config, [], "clip", None, tmp_path / "a.png")
    names = [axis.get_title(loc="left") for axis in panels(drawn())]
    assert names == ["spectrogram", "after block 3: 45 of 64", "after block 6: 32 of 64"]
    assert drawn().get_suptitle() == "clip"


def test_colours_stand_for_the_power_in_decibels(tmp_path: Path, drawn: Callable[[], Figure]) -> None:
    config = ast_base(**ONE_SECOND, mean=-5.0, std=3.0)
    power = np.random.default_rng(0).uniform(1e-5, 10.0, (128, 128))
    power[40, 100] = 100.0
    power[3, 7] = 1e-11
    normalised = (np.log(power) + 5.0) / 6.0
    explain_picture(normalised, [], config, [], "clip", None, tmp_path / "a.png")
    bar = next(axis for axis in drawn().axes if axis.get_ylabel() == "Mel-band power (dB)")
    low, high = bar.get_ylim()
    assert high == pytest.approx(10 * np.log10(100.0))
    assert low == pytest.approx(20.0 - 70.0)
    level = (10 * np.log10(power.T) - low) / (high - low)
    expected = matplotlib.colormaps["magma"](level.clip(0.0, 1.0))
    np.testing.assert_allclose(pixels(panels(drawn())[0]), expected, atol=0.02)


@pytest.mark.parametrize("padding", [0.0, 9.0, -99.0])
def test_padding_does_not_set_the_colours(padding: float, tmp_path: Path, drawn: Callable[[], Figure]) -> None:
    config = ast_base(**ONE_SECOND, mean=0.0, std=0.5)
    log_mel = np.random.default_rng(0).uniform(-5.0, 5.0, (128, 128))
    log_mel[98:] = padding
    explain_picture(log_mel, [], config, [], "clip", 98, tmp_path / "a.png")
    bar = next(axis for axis in drawn().axes if axis.get_ylabel() == "Mel-band power (dB)")
    sound = 10 * np.log10(np.exp(log_mel[:98]))
    assert bar.get_ylim() == pytest.approx((sound.min(), sound.max()))
    assert bar._colorbar.extend == "neither"


@pytest.mark.parametrize("frames", [90, 96])
def test_padding_is_hatched_and_told_apart_where_it_is_kept(
    frames: int, tmp_path: Path, drawn: Callable[[], Figure]
) -> None:
    config = ast_base(**ONE_SECOND)
    kept = np.zeros(config.grid, dtype=bool)
    kept[2, 5] = kept[3, 7] = kept[4, 6:] = kept[0, 0] = True
    explain_picture(spectrogram(config), [("after", kept)], config, [], "a", frames, tmp_path / "a.png")
    whole, after = ([patch for patch in axis.patches if patch.get_hatch()] for axis in panels(drawn()))
    assert [patch.get_facecolor() for patch in whole] == [to_rgba("#ececec")], "nothing is chosen yet"
    assert whole[0].get_x() == pytest.approx(frames / 100, abs=0.006)
    area = np.zeros((128, 128), dtype=bool)
    for patch in after[1:]:
        assert patch.get_facecolor() == to_rgba("#e3d2f3")
        left, bottom = round(patch.get_x() * 100), round(patch.get_y())
        area[bottom : bottom + round(patch.get_height()), left : left + round(patch.get_width() * 100)] = True
    wanted = np.kron(kept, np.ones((16, 16), dtype=bool))
    wanted[:, :frames] = False
    np.testing.assert_array_equal(area, wanted)
    texts = {text.get_text() for text in drawn().legends[0].get_texts()}
    assert {"end of the sound", "padding", "padding that is kept"} <= texts


@pytest.mark.parametrize("hertz", [250.0, 500.0, 1000.0, 2000.0, 4000.0])
def test_a_tone_lies_at_its_tick(hertz: float, tmp_path: Path, drawn: Callable[[], Figure]) -> None:
    config = ast_base(**ONE_SECOND)
    tone = np.sin(2 * np.pi * hertz * np.arange(16000) / 16000).astype(np.float32)
    features = Frontend.from_config(config)([tone])
    explain_picture(features.input_values[0], [], config, [], "tone", 98, tmp_path / "a.png")
    axis = panels(drawn())[0]
    ticks = dict(zip([label.get_text() for label in axis.get_yticklabels()], axis.get_yticks(), strict=True))
    loudest = features.input_values[0, :98].mean(dim=0).argmax().item()
    bottom, top = axis.get_ylim()
    assert (bottom, top) == (0.0, 128.0)
    assert abs(ticks[f"{hertz:g}"] - (loudest + 0.5)) <= 1.0
    assert axis.get_images()[0].origin == "lower"


def test_a_click_lies_at_its_second_and_padding_begins_where_the_sound_ends(
    tmp_path: Path, drawn: Callable[[], Figure]
) -> None:
    config = ast_base(**TEN_SECONDS)
    samples = np.random.default_rng(0).normal(0.0, 1e-4, 5 * 16000).astype(np.float32)
    samples[3 * 16000] = 1.0
    features = Frontend.from_config(config)([samples])
    frames = int(features.num_frames[0])
    explain_picture(features.input_values[0], [], config, LABELS, "click", frames, tmp_path / "a.png")
    axis = panels(drawn())[0]
    left, right = axis.get_images()[0].get_extent()[:2]
    assert (left, right) == pytest.approx((0.0, 10.24))
    column = features.input_values[0, :frames].mean(dim=1).argmax().item()
    assert abs((column + 0.5) / 1024 * right - 3.0) <= 0.025
    (end,) = {line.get_xdata()[0] for line in axis.get_lines()}
    assert end == pytest.approx(5.0, abs=0.025)
    assert any("padding" in text.get_text() for text in drawn().legends[0].get_texts())


def test_a_clip_without_padding_has_no_line(tmp_path: Path, drawn: Callable[[], Figure]) -> None:
    config = ast_base(**ONE_SECOND)
    for frames in (None, 128, 500):
        explain_picture(spectrogram(config), [], config, [], "clip", frames, tmp_path / "a.png")
        assert not panels(drawn())[0].get_lines()
        assert not drawn().legends


def drawn_texts(figure: Figure, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Text, Bbox]]:
    """What Agg was asked to write, with the box of each."""
    found = []
    write = RendererAgg.draw_text

    def record(renderer, gc, x, y, s, prop, angle, ismath=False, mtext=None):
        found.append((s, mtext, mtext.get_window_extent(renderer)))
        write(renderer, gc, x, y, s, prop, angle, ismath, mtext)

    with monkeypatch.context() as patch:
        patch.setattr(RendererAgg, "draw_text", record)
        FigureCanvasAgg(figure).draw()
    return found


@pytest.mark.parametrize(
    ("geometry", "stages"),
    [
        (ONE_SECOND, 0),
        (ONE_SECOND, 3),
        (ONE_SECOND, 5),
        (TEN_SECONDS, 0),
        (TEN_SECONDS, 3),
        (STRIDE_10, 3),
        ({"max_length": 512}, 1),
        ({"max_length": 300, "time_stride": 12}, 3),
        ({"max_length": 200}, 3),
    ],
)
def test_texts_are_readable_inside_the_picture_and_apart(
    geometry: dict[str, int],
    stages: int,
    tmp_path: Path,
    drawn: Callable[[], Figure],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = ast_base(**geometry)
    kept = [(f"after block {i}", np.ones(config.grid, dtype=bool)) for i in range(stages)]
    title = "a_recording_with_$a$_name_that_goes_on_" + 5 * "and_on_" + ".wav"
    explain_picture(spectrogram(config), kept, config, LABELS, title, 90, tmp_path / "a.png")
    texts = drawn_texts(drawn(), monkeypatch)
    written = {text for text, _, _ in texts}
    assert {"Frequency (Hz)", "Time (s)", "Mel-band power (dB)", "0.93", "<0.01", "0.00"} <= written
    assert "a sixth that is not drawn" not in written
    for text, artist, box in texts:
        assert artist.get_fontsize() >= 8.0, text
        assert box.x0 >= 0 and box.y0 >= 0, text
        assert box.x1 <= drawn().bbox.width and box.y1 <= drawn().bbox.height, text
    for (one, _, first), (other, _, second) in itertools.combinations(texts, 2):
        both = Bbox.intersection(first, second)
        assert both is None or min(both.width, both.height) <= 1.0, (one, other)


@pytest.mark.parametrize("geometry", [ONE_SECOND, TEN_SECONDS], ids=["one second", "ten seconds"])
def test_panels_have_one_size_and_stand_in_line(
    geometry: dict[str, int], tmp_path: Path, drawn: Callable[[], Figure]
) -> None:
    config = ast_base(**geometry)
    explain_picture(spectrogram(config), random_stages(config), config, LABELS, "clip", 90, tmp_path / "a.png")
    drawn().canvas.draw()
    boxes = np.array([axis.get_position().bounds for axis in panels(drawn())])
    np.testing.assert_allclose(boxes[:, 2:], boxes[:1, 2:].repeat(4, axis=0), atol=1e-6)
    across = 1 if geometry is ONE_SECOND else 0
    np.testing.assert_allclose(boxes[:, across], boxes[0, across], atol=1e-6)


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".svg", ".pdf"])
def test_the_ending_says_the_format_and_the_same_input_gives_the_same_file(suffix: str, tmp_path: Path) -> None:
    config = ast_base(**ONE_SECOND)
    path = tmp_path / f"picture{suffix}"
    arguments = (spectrogram(config), random_stages(config), config, LABELS, "clip", 98)
    assert explain_picture(*arguments, path) == path
    first = path.read_bytes()
    explain_picture(*arguments, str(path))
    assert path.read_bytes() == first
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    if suffix.lower() == ".png":
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert min(image.size) > 400
    elif suffix == ".svg":
        assert ElementTree.fromstring(first).tag.endswith("svg")
    else:
        assert first.startswith(b"%PDF")


def test_a_failure_leaves_the_old_picture_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ast_base(**ONE_SECOND)
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def fail(figure: Figure, target: Path, **options: object) -> None:
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        explain_picture(spectrogram(config), [], config, [], "clip", None, path)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.partial"])
def test_other_endings_are_refused_before_anything_is_written(name: str, tmp_path: Path) -> None:
    config = ast_base(**ONE_SECOND)
    with pytest.raises(InvalidSetting, match=r"\.pdf, \.png, \.svg"):
        explain_picture(spectrogram(config), [], config, [], "clip", None, tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(128,), (128, 127), (15, 128), (1, 128, 128)])
def test_a_wrong_spectrogram_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(InputShapeError, match="log_mel has shape"):
        explain_picture(np.zeros(shape), [], ast_base(**ONE_SECOND), [], "clip", None, tmp_path / "a.png")


def test_a_grid_of_another_model_is_refused(tmp_path: Path) -> None:
    config = ast_base(**ONE_SECOND)
    with pytest.raises(InputShapeError, match=r"'after block 3' have shape \(8, 64\).*\(8, 8\)"):
        explain_picture(
            spectrogram(config), [("after block 3", np.ones((8, 64)))], config, [], "clip", None, tmp_path / "a.png"
        )


def test_a_file_name_that_is_not_text_can_be_a_title(tmp_path: Path, drawn: Callable[[], Figure]) -> None:
    config = ast_base(**ONE_SECOND)
    title = b"caf\xe9.wav".decode(errors="surrogateescape")
    explain_picture(spectrogram(config), [], config, [], title, None, tmp_path / "a.png")
    assert drawn().get_suptitle() == "caf?.wav"


def test_silence_and_constant_input_are_drawn_without_a_warning(tmp_path: Path) -> None:
    config = ast_base(**ONE_SECOND)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explain_picture(np.zeros((128, 128)), random_stages(config), config, LABELS, "", 1, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.size[0] > image.size[1]


def test_stages_come_from_the_trace_in_order_and_for_the_clip_asked_for() -> None:
    first, second = (torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(seed)) < 0.5 for seed in (0, 1))
    kept = (torch.ones_like(first), first, first, first & second)
    trace = TokenTrace(scores=(torch.zeros(2, 8, 8),) * 4, kept=kept)
    config = ast_base(**ONE_SECOND, num_hidden_layers=4, prune_at=[3, 1])
    stages = kept_stages(trace, config, clip=1)
    assert [name for name, _ in stages] == ["after block 1", "after block 3"]
    np.testing.assert_array_equal(stages[0][1], kept[1][1].numpy())
    np.testing.assert_array_equal(stages[1][1], kept[3][1].numpy())
    config.drop_padding = True
    assert [name for name, _ in kept_stages(trace, config)] == ["padding removed", "after block 1", "after block 3"]
    config.prune_at = [0]
    there = TokenTrace(scores=(), kept=(first,) * 4)
    assert [name for name, _ in kept_stages(there, config)] == ["after block 0"]


@pytest.mark.parametrize("reducer", ["drop", "merge"])
def test_stages_of_a_pass_with_its_own_operating_point(reducer: str) -> None:
    model = AudioTransformer(ast_tiny(**ONE_SECOND, num_hidden_layers=7, prune_at=[3, 6])).eval()
    own = Pruning(0.5, (2, 5), reducer=reducer)
    with torch.no_grad():
        trace = model(torch.randn(2, 128, 128), pruning=own, output_token_trace=True).token_trace
    stages = kept_stages(trace, model.config, 1, pruning=own)
    assert [name for name, _ in stages] == ["after block 2", "after block 5"]
    for (_, kept), block in zip(stages, own.at, strict=True):
        np.testing.assert_array_equal(kept, trace.kept[block][1].numpy())
    if reducer == "drop":
        assert [kept.sum() for _, kept in stages] == [32, 16]
    for wrong in (None, Pruning(0.5, (3,)), Pruning(0.5, (2, 6))):
        with pytest.raises(InvalidSetting, match=r"prune_at is .*patches went at block [25]: give .* as pruning="):
            kept_stages(trace, model.config, pruning=wrong)
    dense = model(torch.randn(1, 128, 128), output_token_trace=True).token_trace
    assert [name for name, _ in kept_stages(dense, model.config)] == ["after block 3", "after block 6"]


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_drawing_leaves_no_open_figure_and_changes_no_setting(suffix: str, tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    config = ast_base(**ONE_SECOND)
    explain_picture(spectrogram(config), [], config, LABELS, "clip", 90, tmp_path / f"a{suffix}")
    assert pyplot.get_fignums() == []
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("keep_end", [False, True])
@pytest.mark.parametrize("text", ["word", "several words that go on", "W" * 50, "i" * 500, "$a$", "…", ""])
def test_shortened_texts_fit_and_are_as_long_as_fits(text: str, keep_end: bool) -> None:
    figure = Figure(dpi=72)
    renderer = FigureCanvasAgg(figure).get_renderer()

    def inches(shown: str) -> float:
        return figure.text(0, 0, shown, fontsize=8.0, parse_math=False).get_window_extent(renderer).width / 72.0

    shown = _fitted(text, 1.0, 8.0, keep_end=keep_end)
    assert inches(shown) <= 1.05
    if shown != text:
        head, tail = shown.split("…")
        assert text.startswith(head) and text.endswith(tail)
        assert bool(tail) == keep_end
        assert inches(shown) > 0.8


def test_decibels_are_of_full_scale_whatever_a_sample_counts() -> None:
    """Filterbanks of 16-bit samples are 90 dB above those of samples up to 1; pictures of both say the same."""
    wave = 0.1 * np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    loudest = []
    for config in (ast_tiny(max_length=98), beats_base(max_length=98)):
        shown = Frontend.from_config(config)([wave]).input_values[0].numpy()
        loudest.append(prepare(shown.astype(np.float64), config, None).high)
    assert abs(loudest[0] - loudest[1]) < 1.0 and loudest[0] < 30.0
