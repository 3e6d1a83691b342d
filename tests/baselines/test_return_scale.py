import pytest
import torch

from momalit.baselines.return_scale import ReturnScale
from momalit.core.trajectories import Trajectories


def dataset(terminated, reward=(1.0, 1.0, 0.0, 0.0)):
    ends = torch.tensor([False, True, False, True])
    return Trajectories.from_lengths(
        torch.zeros(6, 1), torch.zeros(4, 1, 1), torch.tensor(reward), ends & terminated, ends & (not terminated),
        torch.tensor([2, 2]),
    )  # fmt: skip


def test_the_scale_of_a_small_dataset_by_hand():
    scale = ReturnScale()
    scale.fit(dataset(terminated=True), horizon=10, discount=0.5)
    # Returns are 2 and 0, so rewards are multiplied by 5. The values are 7.5, 5, 0 and 0.
    assert float(scale.factor) == 5.0
    assert float(scale.center) == pytest.approx(3.125)
    assert float(scale.spread) == pytest.approx(torch.tensor([7.5, 5.0, 0.0, 0.0]).std(correction=0).item())
    assert float(scale.value(torch.tensor(-1.0))) == pytest.approx(3.125 - float(scale.spread))
    assert scale.reward(torch.tensor([2.0])).tolist() == [10.0]


def test_the_mean_reward_continues_after_a_time_limit():
    scale = ReturnScale()
    scale.fit(dataset(terminated=False), horizon=10, discount=0.5)
    # The scaled mean reward is 2.5, so the value after a time limit is 5, and the values are 7.5 + 5/4, 5 + 5/2, 5/4
    # and 5/2.
    assert float(scale.center) == pytest.approx((8.75 + 7.5 + 1.25 + 2.5) / 4)


def test_equal_returns_give_the_identity():
    scale = ReturnScale()
    scale.fit(dataset(terminated=True, reward=(0.0,) * 4), horizon=10, discount=0.5)
    assert (float(scale.factor), float(scale.center), float(scale.spread)) == (1.0, 0.0, 1.0)
