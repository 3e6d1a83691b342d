"""Every stage with the sizes of the paper's Reacher and Ant runs, and with a small world model."""

import pytest

from datamodules import OfflineDataModule
from datamodules.writer import write_dataset
from momalit.envs.vector_env import VectorTeamEnv
from momalit.policies.rollout import play_episodes
from tests.benchmarks.workloads import (
    HORIZON,
    N_MINIBATCHES,
    N_ROLLOUTS,
    NETWORKS,
    PRECISIONS,
    SMALL,
    TASKS,
    PolicyIteration,
    make_data,
    make_spec,
    model_products,
    world_model_step,
)
from tests.memory import loading_memory

pytestmark = pytest.mark.benchmark

EPOCHS = 5


@pytest.fixture(params=TASKS)
def task(request):
    return request.param


@pytest.fixture
def spec(task):
    return make_spec(task, **TASKS[task])


@pytest.fixture(params=PRECISIONS)
def precision_name(request):
    return request.param


@pytest.mark.benchmark(group="world model: one step of 7 members on 256 transitions each")
@pytest.mark.parametrize("network", NETWORKS)
def test_world_model(benchmark, record, spec, network, precision_name):
    step = world_model_step(spec, NETWORKS[network], precision_name)
    benchmark.pedantic(step, rounds=10, warmup_rounds=2)
    products = 3 * model_products(spec, NETWORKS[network], 256, 7)
    record(256, products)


@pytest.mark.benchmark(group="imagination: 2,020 transitions, 5 elites")
@pytest.mark.parametrize("network", NETWORKS)
def test_imagination(benchmark, record, spec, network, precision_name):
    iteration = PolicyIteration(spec, NETWORKS[network], N_ROLLOUTS, HORIZON, N_MINIBATCHES, precision_name)
    rollout = benchmark.pedantic(iteration.imagine, rounds=5, warmup_rounds=1)
    assert int(rollout.valid.sum()) == N_ROLLOUTS * HORIZON
    record(N_ROLLOUTS * HORIZON, HORIZON * model_products(spec, NETWORKS[network], N_ROLLOUTS, 5))


@pytest.mark.benchmark(group="policies: update on 2,020 transitions, 155 gradient steps")
def test_update(benchmark, record, spec, precision_name):
    iteration = PolicyIteration(spec, SMALL, N_ROLLOUTS, HORIZON, N_MINIBATCHES, precision_name)
    rollout = iteration.imagine()
    assert benchmark.pedantic(iteration.update, (rollout,), rounds=3, warmup_rounds=1) == EPOCHS * N_MINIBATCHES
    record(N_ROLLOUTS * HORIZON * EPOCHS)


@pytest.mark.benchmark(group="one policy iteration with the small model, Reacher")
def test_iteration(benchmark, record, precision_name):
    iteration = PolicyIteration(
        make_spec("reacher", **TASKS["reacher"]), SMALL, N_ROLLOUTS, HORIZON, N_MINIBATCHES, precision_name
    )
    benchmark.pedantic(iteration.iterate, rounds=3, warmup_rounds=1)
    record(N_ROLLOUTS * HORIZON)


@pytest.mark.benchmark(group="one policy iteration with n agents, coordination game")
@pytest.mark.parametrize("precision_name", ["fp32", "bf16"])
@pytest.mark.parametrize("agents", [2, 4, 16, 64])
def test_many_agents(benchmark, record, agents, precision_name):
    iteration = PolicyIteration(make_spec("icg", n_agents=agents), (64, 1), 64, 10, 4, precision_name, (64, 64))
    benchmark.pedantic(iteration.iterate, rounds=3, warmup_rounds=1)
    record(640)


@pytest.mark.benchmark(group="evaluation: 20 parallel episodes of 1,000 steps")
def test_evaluation(benchmark, record):
    spec = make_spec("ant")
    iteration, env = PolicyIteration(spec, SMALL, 20, 10, 4, sizes=(128, 64)), VectorTeamEnv(spec, 20)
    benchmark.pedantic(play_episodes, (env, iteration.team.actor, list(range(20))), rounds=2)
    record()


@pytest.mark.benchmark(group="data: a million transitions of Ant from disk, ready to train")
def test_load(benchmark, record, tmp_path):
    spec = make_spec("ant")
    data = make_data(spec, 1_000_000, 1000)
    write_dataset(tmp_path / "ant", "ant/large/x-v0", spec, data, {})
    benchmark.pedantic(lambda: OfflineDataModule(str(tmp_path / "ant")).train, rounds=2)
    record(1_000_000, subprocess=True)
    write_dataset(tmp_path / "small", "ant/small/x-v0", spec, make_data(spec, 5_000, 1000), {})
    memory = loading_memory(tmp_path / "ant", tmp_path / "small")
    benchmark.extra_info |= {
        f"memory_{key}": memory[key] / memory["raw"] for key in ("resident", "peak", "peak_fitted")
    }
    assert memory["peak"] <= 1.3 * memory["raw"]
