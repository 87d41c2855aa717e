"""Which failure of an upstream leads to which next step."""

import time

import pytest

from harness import error_of, wait_until


def ask(tenant, fleet, **fields):
    return tenant.call("POST", "/v1/chat/completions", json=fleet.chat(**fields))


def break_all(fleet, **fault):
    for server in fleet.servers:
        server.fault(count=-1, **fault)


PASSED = [400, 404, 409, 413, 415, 422]
SERVER_SIDE = [
    {"status": 500, "body": '{"error":{"message":"x"}}'}, {"status": 502, "body": "bad gateway"}, {"status": 503, "body": "{}"},
    {"status": 504, "body": ""}, {"status": 302, "headers": {"Location": "http://127.0.0.1:1/"}, "body": ""},
    {"status": 200, "headers": {"Content-Type": "text/html"}, "body": "<html>login</html>"},
    {"status": 200, "body": '{"error":{"message":"overloaded","type":"x","code":null}}'}, {"status": 200, "body": "not json"},
    {"status": 200, "body": '{"choices":[{"mess'}, {"die": "before_head"}, {"die": "before_head", "rst": True},
    {"die": "after_head"}, {"die": "mid"}, {"short_by": 10},
]


@pytest.mark.parametrize("status", PASSED)
def test_passed_on_after_one_attempt(tenant, make_fleet, status):
    fleet = make_fleet(2)
    break_all(fleet, status=status, body='{"error":{"message":"as it is","type":null,"param":null,"code":"c"}}')
    answer = ask(tenant, fleet)
    assert answer.status_code == status and answer.json()["error"]["message"] == "as it is"
    assert sorted(fleet.seen()) == [0, 1]
    assert answer.headers["x-sluice-worker"] in [w.id for w in fleet.workers]


@pytest.mark.parametrize("status", [401, 402, 403])
def test_dead_credential_goes_to_the_next(tenant, make_fleet, status):
    fleet = make_fleet(3)
    break_all(fleet, status=status, body='{"error":{"message":"secret-upstream-detail"}}')
    answer = ask(tenant, fleet)
    assert error_of(answer, 502)["code"] == "upstream_error"
    assert answer.headers["x-should-retry"] == "false"
    assert fleet.seen() == [1, 1, 1]


@pytest.mark.parametrize("status", [408, 429])
def test_busy_upstreams(tenant, make_fleet, status):
    fleet = make_fleet(3)
    break_all(fleet, status=status, body="{}")
    started = time.monotonic()
    answer = ask(tenant, fleet)
    error_of(answer, 429)
    assert 0 < float(answer.headers["retry-after-ms"]) <= 60000
    assert answer.headers["x-should-retry"] == "false"
    assert fleet.seen() == [1, 1, 1] and time.monotonic() - started < 2


@pytest.mark.parametrize("fault", SERVER_SIDE, ids=str)
def test_server_side_failures_end_in_502(tenant, make_fleet, fault):
    fleet = make_fleet(2)
    break_all(fleet, **fault)
    answer = ask(tenant, fleet)
    error = error_of(answer, 502)
    assert error["code"] == "upstream_error" and answer.headers["x-should-retry"] == "false"
    assert fleet.seen() == [1, 1]
    assert "login" not in answer.text


@pytest.mark.parametrize("fault", SERVER_SIDE, ids=str)
def test_server_side_failure_of_one_is_not_seen(tenant, make_fleet, fault):
    fleet = make_fleet(2)
    for _ in range(4):
        fleet.servers[0].fault(**fault)
        answer = ask(tenant, fleet)
        fleet.servers[0].clear()
        assert answer.status_code == 200, answer.text
        if fleet.servers[0].requests():
            break
    assert answer.headers["x-sluice-worker"] in [w.id for w in fleet.workers]
    assert answer.json()["choices"][0]["message"]["content"]


def test_at_most_three_attempts(tenant, make_fleet):
    fleet = make_fleet(4)
    break_all(fleet, status=500, body="x")
    error_of(ask(tenant, fleet), 502)
    assert sorted(fleet.seen()) == [0, 1, 1, 1]


@pytest.mark.parametrize("fault,attempts", [({"die": "before_head"}, 2), ({"status": 500, "body": "x"}, 1), ({"die": "mid", "first_delay_ms": 50}, 1),
                                            ({"status": 429, "body": "{}"}, 1)], ids=str)
def test_lone_replica(tenant, make_fleet, fault, attempts):
    fleet = make_fleet(1)
    break_all(fleet, **fault)
    answer = ask(tenant, fleet)
    assert answer.status_code in (429, 502)
    assert fleet.seen() == [attempts]
    assert (answer.headers.get("x-should-retry") == "false") == (attempts > 1)


def test_refused_connection_goes_to_the_next(tenant, make_fleet):
    fleet = make_fleet(2)
    fleet.servers[0].listen(False)
    for _ in range(5):
        assert ask(tenant, fleet).status_code == 200
    fleet.servers[0].listen(True)


def test_failed_attempts_cost_nothing(tenant, make_fleet):
    fleet = make_fleet(2)
    break_all(fleet, status=500, body="x")
    for _ in range(3):
        error_of(ask(tenant, fleet), 502)
    for server in fleet.servers:
        server.clear()
    assert ask(tenant, fleet).status_code == 200
    tenant.wait_rows(1)


def test_failing_worker_is_ejected_and_comes_back(tenant, make_fleet):
    fleet = make_fleet(workers=[{"region": "bad"}, {"region": "good"}])
    bad = fleet.servers[0]
    ask_bad = lambda: tenant.call("POST", "/v1/chat/completions", json=fleet.chat(), headers={"x-sluice-region": "bad"})
    bad.fault(count=-1, status=500, body="x")
    for _ in range(3):
        error_of(ask_bad(), 502)
    assert len(bad.requests()) == 3
    for n in range(20):
        assert ask(tenant, fleet, user=f"u{n}").status_code == 200
    assert len(bad.requests()) == 3, "an ejected worker was still asked"
    bad.clear()
    started = time.monotonic()
    wait_until(lambda: ask_bad().status_code == 200, 15, "the ejected worker is back")
    assert time.monotonic() - started > 2, "an ejection lasts 5 s"


def test_last_replica_is_never_ejected(tenant, make_fleet):
    fleet = make_fleet(1)
    fleet.server.fault(count=6, status=500, body="x")
    for _ in range(6):
        error_of(ask(tenant, fleet), 502)
    assert ask(tenant, fleet).status_code == 200
