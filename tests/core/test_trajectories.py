import pytest
import torch

from momalit.core.trajectories import Trajectories

LENGTHS = [3, 1, 5, 2]
S, A, U = 2, 2, 3


@pytest.fixture
def trajectories() -> Trajectories:
    generator = torch.Generator().manual_seed(0)
    n, e = sum(LENGTHS), len(LENGTHS)
    ends = torch.zeros(n, dtype=torch.bool)
    ends[torch.tensor(LENGTHS).cumsum(0) - 1] = True
    return Trajectories.from_lengths(
        torch.randn(n + e, S, generator=generator),
        torch.randn(n, A, U, generator=generator),
        torch.randn(n, generator=generator),
        ends & (torch.arange(n) % 2 == 0),
        ends & (torch.arange(n) % 2 == 1),
        torch.tensor(LENGTHS),
    )


def episodes(trajectories):
    """A plain list with the states, actions, rewards and flags of each episode."""
    found, first = [], 0
    for number, length in enumerate(trajectories.lengths.tolist()):
        steps = slice(first, first + length)
        states = trajectories.state[first + number : first + number + length + 1]
        parts = [getattr(trajectories, key)[steps] for key in ("action", "reward", "terminated", "truncated")]
        found.append((states, *parts))
        first += length
    return found


def locate(index):
    """Returns the episode and the step of a transition."""
    for episode, length in enumerate(LENGTHS):
        if index < length:
            return episode, index
        index -= length
    raise IndexError


def test_lengths_and_returns(trajectories):
    assert len(trajectories) == sum(LENGTHS)
    assert trajectories.lengths.tolist() == LENGTHS
    assert trajectories.first.tolist() == [0, 3, 4, 9]
    expected = torch.stack([reward.sum() for _, _, reward, _, _ in episodes(trajectories)])
    assert torch.allclose(trajectories.returns, expected, atol=1e-6)


def test_discounted_returns(trajectories):
    expected = []
    for _, _, reward, _, _ in episodes(trajectories):
        total, backwards = 0.0, []
        for value in reversed(reward.tolist()):
            total = value + 0.9 * total
            backwards.append(total)
        expected += backwards[::-1]
    assert trajectories.discounted_returns(0.9).tolist() == pytest.approx(expected, rel=1e-5)


def test_discounted_returns_with_a_continuation(trajectories):
    continuation = torch.tensor([1.0, -2.0, 0.0, 5.0])
    remaining = trajectories.length - trajectories.step
    discounted = 0.9**remaining * continuation.repeat_interleave(trajectories.lengths)
    expected = trajectories.discounted_returns(0.9) + discounted
    torch.testing.assert_close(trajectories.discounted_returns(0.9, continuation), expected)


def test_episodes_that_did_not_terminate_go_on_with_their_mean_reward():
    lengths, terminated = torch.tensor([3, 2]), torch.tensor([False, False, False, False, True])
    reward = torch.tensor([2.0, 2.0, 2.0, 2.0, 2.0])
    data = Trajectories.from_lengths(torch.zeros(7, 1), torch.zeros(5, 1, 1), reward, terminated, ~terminated, lengths)
    assert data.endless_returns(0.9).tolist() == pytest.approx([20.0, 20.0, 20.0, 2.0 + 0.9 * 2.0, 2.0])


@pytest.mark.parametrize("chosen", [[2], [3, 0], [1, 1, 2], []])
def test_select(trajectories, chosen):
    picked = trajectories.select(torch.tensor(chosen, dtype=torch.long))
    assert picked.lengths.tolist() == [LENGTHS[i] for i in chosen]
    expected = episodes(trajectories)
    for found, number in zip(episodes(picked), chosen, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(found, expected[number], strict=True))


@pytest.mark.parametrize(("begin", "end"), [(0, 4), (1, 3), (3, 4), (2, 2)])
def test_span(trajectories, begin, end):
    part, expected = trajectories.span(begin, end), episodes(trajectories)
    assert part.lengths.tolist() == LENGTHS[begin:end]
    for found, number in zip(episodes(part), range(begin, end), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(found, expected[number], strict=True))


def test_locate(trajectories):
    index = torch.tensor([[0, 3, 4], [8, 9, 10]])
    row, step, length = trajectories.locate(index)
    assert row.tolist() == [[0, 4, 6], [10, 12, 13]]
    assert step.tolist() == [[0, 0, 0], [4, 0, 1]]
    assert length.tolist() == [[3, 1, 5], [5, 2, 2]]
    assert torch.equal(trajectories.row[index], row)
    assert torch.equal(trajectories.step[index], step)
    assert torch.equal(trajectories.length[index], length)


def test_transitions(trajectories):
    index = torch.arange(len(trajectories)).flip(0)
    found, expected = trajectories.transitions(index), episodes(trajectories)
    for row, i in enumerate(index.tolist()):
        episode, step = locate(i)
        states, action, reward, terminated, _ = expected[episode]
        assert torch.equal(found.state[row], states[step])
        assert torch.equal(found.next_state[row], states[step + 1])
        assert torch.equal(found.action[row], action[step])
        assert found.reward[row] == reward[step]
        assert found.terminated[row] == terminated[step]
    assert trajectories.transitions(index[:10].reshape(5, 2)).state.shape == (5, 2, S)


@pytest.mark.parametrize(("before", "after"), [(0, 0), (2, 0), (4, 3), (0, 6)])
def test_sequence(trajectories, before, after):
    index = torch.arange(len(trajectories))
    found, expected = trajectories.sequence(index, before, after), episodes(trajectories)
    assert found.state.shape == (before + 1 + after, len(index), S)
    for row in index.tolist():
        episode, at = locate(row)
        states, action, *_ = expected[episode]
        for time in range(before + 1 + after):
            step, length = at - before + time, LENGTHS[episode]
            inside = 0 < step <= length
            assert torch.equal(found.state[time, row], states[min(max(step, 0), length)])
            assert bool(found.keep[time, row]) == inside
            previous = action[step - 1] if inside else torch.zeros(A, U)
            assert torch.equal(found.previous_action[time, row], previous)


@pytest.mark.parametrize(("before", "length"), [(0, 1), (2, 3), (0, 6)])
def test_windows(trajectories, before, length):
    index = torch.arange(len(trajectories))
    found, expected = trajectories.windows(index, before, length), episodes(trajectories)
    assert found.sequence.state.shape[0] == before + length
    for row in index.tolist():
        episode, at = locate(row)
        for time in range(length):
            valid = at + time < LENGTHS[episode]
            assert bool(found.valid[time, row]) == valid
            if valid:
                assert torch.equal(found.action[time, row], expected[episode][1][at + time])
                assert torch.equal(found.sequence.state[before + time, row], expected[episode][0][at + time])


def test_nested_records_move_to_another_device(trajectories):
    windows = trajectories.windows(torch.tensor([0, 4]), 1, 2).to("meta")
    assert {windows.action.device.type, windows.sequence.state.device.type} == {"meta"}


def test_segments_end_with_the_true_next_state(trajectories):
    index = torch.arange(len(trajectories))
    windows, found, expected = (
        trajectories.windows(index, 1, 3),
        trajectories.segments(index, 1, 3),
        episodes(trajectories),
    )
    assert torch.equal(found.sequence.state[:-1], windows.sequence.state)
    assert torch.equal(found.action, windows.action)
    assert torch.equal(found.valid, windows.valid)
    for row in index.tolist():
        episode, at = locate(row)
        states, action, reward, terminated, _ = expected[episode]
        for time in range(3):
            if found.valid[time, row]:
                assert torch.equal(found.sequence.state[2 + time, row], states[at + time + 1])
                assert torch.equal(found.sequence.previous_action[2 + time, row], action[at + time])
                assert found.sequence.keep[2 + time, row]
                assert found.reward[time, row] == reward[at + time]
                assert found.terminated[time, row] == terminated[at + time]


@pytest.mark.parametrize("length", [1, 3, 10])
def test_every_transition_is_in_equally_many_windows(length):
    lengths = torch.tensor([4, 1, 7])
    n = int(lengths.sum())
    no = torch.zeros(n, dtype=torch.bool)
    numbered = torch.arange(n).float().view(n, 1, 1)
    data = Trajectories.from_lengths(torch.zeros(n + 3, 1), numbered, torch.zeros(n), no, no, lengths)
    numbers = torch.arange(data.count_windows(length))
    index, missing = data.locate_windows(numbers, length)
    windows = data.windows(index, 0, length, missing)
    assert windows.valid.any(0).all()
    assert windows.action[windows.valid].flatten().long().bincount().tolist() == [length] * n
    assert torch.equal(windows.valid, data.segments(index, 0, length, missing).valid)
