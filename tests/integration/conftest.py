import pytest

import harness


@pytest.fixture(scope="session")
def shared_gateway():
    gateway = harness.Gateway().start()
    yield gateway
    gateway.remove()


@pytest.fixture
def gateway(shared_gateway):
    """The gateway that tests share. A test that hurts it makes its own with make_gateway."""
    if shared_gateway not in harness.live_processes:
        harness.live_processes.append(shared_gateway)
    if not shared_gateway.is_up():
        shared_gateway.start()
    return shared_gateway


@pytest.fixture
def make_gateway():
    made = []

    def make(start=True, **options):
        gateway = harness.Gateway(**options)
        made.append(gateway)
        return gateway.start() if start else gateway

    yield make
    for gateway in made:
        gateway.remove()


@pytest.fixture
def redis_url():
    """A Redis of our own, to be shared by several gateways."""
    process = harness.Process()
    path = process.directory / "r.sock"
    process.spawn(["redis-server", "--port", "0", "--unixsocket", path, "--dir", process.directory, "--appendonly", "yes", "--save", ""])
    harness.wait_until(path.exists, 10, "redis is up")
    yield f"unix://{path}"
    process.remove()


@pytest.fixture
def make_fleet(gateway):
    """Workers with model servers of their own, serving a model of their own, on the shared gateway unless told otherwise."""
    made = []

    def make(count=1, on=None, **options):
        made.append(harness.Fleet(on or gateway, count, **options))
        return made[-1]

    yield make
    for fleet in made:
        fleet.remove()


@pytest.fixture
def make_server():
    made = []

    def make(**options):
        made.append(harness.ModelServer(**options))
        return made[-1]

    yield make
    for server in made:
        server.remove()


@pytest.fixture
def make_worker(gateway):
    made = []

    def make(upstream, on=None, start=True, wait=True, **options):
        worker = harness.Worker(on or gateway, upstream, **options)
        made.append(worker)
        return worker.start(wait) if start else worker

    yield make
    for worker in made:
        worker.remove()


@pytest.fixture(scope="session")
def shared_fleet(shared_gateway):
    fleet = harness.Fleet(shared_gateway, gpu="nvidia/h100-sxm-80", region="eu-west", price="2.00")
    yield fleet
    fleet.remove()


@pytest.fixture
def fleet(gateway, shared_fleet):
    """One ordinary worker that tests share; its faults are forgotten before each of them."""
    for process in shared_fleet.workers + shared_fleet.servers:
        if process not in harness.live_processes:
            harness.live_processes.append(process)
    shared_fleet.server.clear()
    return shared_fleet


@pytest.fixture
def tenant(gateway):
    return gateway.tenant()


@pytest.fixture
def client(tenant):
    with tenant.client() as client:
        yield client


@pytest.fixture(autouse=True)
def _only_this_tests_logs():
    harness.live_processes.clear()
    yield


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed:
        for process in harness.live_processes:
            lines = process.log().splitlines()[-40:]
            if lines:
                report.sections.append((f"log of {process.name} {process.process.pid if process.process else ''}", "\n".join(lines)))
