from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import welch

from spectrim.errors import InvalidSetting
from spectrim.miniatures.signals import NOISE_KINDS, SAMPLING_RATE, coloured_noise


@pytest.mark.parametrize(("kind", "slope"), [("white", 0.0), ("pink", -1.0), ("brown", -2.0)])
def test_noise_has_the_slope_of_its_name(kind: str, slope: float) -> None:
    noise = coloured_noise(np.random.default_rng(0), 20 * SAMPLING_RATE, kind)
    frequency, power = welch(noise, SAMPLING_RATE, nperseg=4096)
    band = (frequency > 60) & (frequency < 7000)
    assert np.polyfit(np.log(frequency[band]), np.log(power[band]), 1)[0] == pytest.approx(slope, abs=0.05)


def test_a_hum_is_mostly_lines() -> None:
    noise = coloured_noise(np.random.default_rng(1), SAMPLING_RATE, "hum")
    power = np.sort(np.abs(np.fft.rfft(noise)) ** 2)[::-1]
    assert power[:30].sum() > 0.8 * power.sum()


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(NOISE_KINDS), st.integers(0, 2**32), st.sampled_from([8000, 16000, 16001]))
def test_noise_is_scaled_and_seeded(kind: str, seed: int, samples: int) -> None:
    noise = coloured_noise(np.random.default_rng(seed), samples, kind)
    assert noise.shape == (samples,)
    assert np.sqrt(np.mean(noise**2)) == pytest.approx(1)
    assert abs(noise.mean()) < 1e-6
    np.testing.assert_array_equal(noise, coloured_noise(np.random.default_rng(seed), samples, kind))


def test_an_unknown_kind() -> None:
    with pytest.raises(InvalidSetting, match="white, pink"):
        coloured_noise(np.random.default_rng(0), 100, "green")
