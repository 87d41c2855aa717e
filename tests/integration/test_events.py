"""/api/v1/events: the operator hears of each worker's state and of its changes."""

import json
import threading

import httpx

from harness import ADMIN_KEY, error_of, wait_until


def listen(gateway, heard, stop):
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    with httpx.stream("GET", gateway.url + "/api/v1/events", headers=headers, timeout=30) as answer:
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("data: "):
                heard.append(json.loads(line[6:]))
            if stop.is_set():
                return


def test_changes_of_a_worker_are_told(gateway, make_fleet):
    first = make_fleet().worker
    heard, stop = [], threading.Event()
    thread = threading.Thread(target=listen, args=(gateway, heard, stop), daemon=True)
    thread.start()
    states = lambda worker: [event["state"] for event in list(heard) if event["worker"] == worker.id]
    wait_until(lambda: states(first) == ["ready"], 10, "who is there at first is told")
    second = make_fleet().worker
    wait_until(lambda: states(second)[-1:] == ["ready"], 10, "who comes is told")
    assert states(first) == ["ready"], "what did not change is told once"
    assert all({"worker", "state", "reason", "was", "at"} <= set(event) for event in heard)
    stop.set()


def test_events_are_the_operators(gateway, tenant):
    error_of(tenant.call("GET", "/api/v1/events"), 403)
    error_of(gateway.call("GET", "/api/v1/events"), 401)
