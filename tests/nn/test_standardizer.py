"""Standardisation: statistics, constant dimensions, running scales."""

import pytest
import torch

from momalit.nn.standardizer import RunningScale, Standardizer


def test_fit_gives_zero_mean_and_unit_standard_deviation():
    values = torch.randn(1000, 3) * torch.tensor([1e-3, 1.0, 1e3]) + torch.tensor([5.0, -2.0, 1e4])
    standardizer = Standardizer(3)
    standardizer.fit(values)
    result = standardizer(values)
    torch.testing.assert_close(result.mean(0), torch.zeros(3), atol=2e-3, rtol=0)
    torch.testing.assert_close(result.std(0, correction=0), torch.ones(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(standardizer.inverse(result), values, rtol=1e-4, atol=1e-5)


def test_fit_replaces_earlier_statistics():
    standardizer = Standardizer(2)
    standardizer.fit(torch.randn(50, 2) + 100)
    values = torch.randn(50, 2)
    standardizer.fit(values)
    torch.testing.assert_close(standardizer.mean, values.mean(0))
    assert float(standardizer.count) == 50


def test_incremental_updates_equal_one_fit():
    values = torch.randn(700, 3) * 3 + 7
    fitted, updated = Standardizer(3), Standardizer(3)
    fitted.fit(values)
    for chunk in values.split([10, 200, 490]):
        updated.update(chunk)
    for name in ("mean", "std", "count"):
        torch.testing.assert_close(getattr(updated, name), getattr(fitted, name))


def test_a_constant_dimension_is_only_centred_and_inverts_to_its_constant():
    values = torch.randn(100, 2)
    values[:, 1] = 0.1
    standardizer = Standardizer(2)
    standardizer.fit(values)
    assert standardizer.varies.tolist() == [True, False]
    assert standardizer.std[1] == 1.0
    assert standardizer(values)[:, 1].abs().max() < 1e-6
    # The inverse is the constant, whatever its input is.
    torch.testing.assert_close(standardizer.inverse(torch.full((4, 2), 9.0))[:, 1], torch.full((4,), 0.1))


def test_an_update_may_make_a_constant_dimension_vary():
    first, second = torch.full((100, 1), 3.0), torch.randn(100, 1)
    standardizer, fitted = Standardizer(1), Standardizer(1)
    standardizer.update(first)
    standardizer.update(second)
    fitted.fit(torch.cat([first, second]))
    assert standardizer.varies.all()
    torch.testing.assert_close(standardizer.std, fitted.std)


def test_without_statistics_it_is_the_identity():
    values = torch.randn(5, 3)
    assert torch.equal(Standardizer(3)(values), values)


def test_the_state_dict_contains_the_statistics():
    standardizer, other = Standardizer(2), Standardizer(2)
    standardizer.fit(torch.tensor([[1.0, 2.0], [3.0, 2.0]]))
    other.load_state_dict(standardizer.state_dict())
    values = torch.randn(3, 2)
    assert torch.equal(other(values), standardizer(values))
    assert torch.equal(other.inverse(values), standardizer.inverse(values))


def test_running_scale_is_correct_after_one_batch():
    scale = RunningScale(rate=0.1)
    assert (float(scale.mean), float(scale.std)) == (0.0, 1.0)
    scale.update(torch.tensor(3.0), torch.tensor(13.0))  # variance 13 - 9
    assert float(scale.mean) == pytest.approx(3.0, rel=1e-5)
    assert float(scale.std) == pytest.approx(2.0, rel=1e-5)
    torch.testing.assert_close(scale(torch.tensor([3.0, 5.0])), torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(scale.inverse(scale(torch.tensor([3.0, 5.0]))), torch.tensor([3.0, 5.0]))


def test_running_scale_is_a_bias_corrected_moving_average():
    scale = RunningScale(rate=0.5)
    scale.update(torch.tensor(0.0), torch.tensor(1.0))
    scale.update(torch.tensor(4.0), torch.tensor(17.0))
    # Weights 1/4 and 1/2, normalised to 1/3 and 2/3: mean 8/3, second moment (1 + 34) / 3.
    assert float(scale.mean) == pytest.approx(8 / 3)
    assert float(scale.std) == pytest.approx((35 / 3 - 64 / 9) ** 0.5)
    for _ in range(50):
        scale.update(torch.tensor(4.0), torch.tensor(17.0))
    assert float(scale.mean) == pytest.approx(4.0)
    assert float(scale.std) == pytest.approx(1.0)


def test_running_scale_has_a_minimum_standard_deviation():
    scale = RunningScale(floor=0.5)
    scale.update(torch.tensor(2.0), torch.tensor(4.0))
    assert float(scale.std) == 0.5


def test_running_scale_of_large_values_with_a_small_spread():
    scale = RunningScale()
    for mean in (1e5, 1e5 + 1, 1e5):
        mean = torch.tensor(mean, dtype=torch.float64)
        scale.update(mean, mean**2 + 0.25)
    assert float(scale.mean) == pytest.approx(1e5, abs=1)
    assert float(scale.std) == pytest.approx((0.25 + 0.222) ** 0.5, rel=0.02)  # and the variance of the means
    assert scale(torch.zeros(3)).dtype == scale.inverse(torch.zeros(3)).dtype == torch.float32
