"""Keys: who may call what, limits that come with a key, revoking."""

import time

import openai
import pytest

import harness
from harness import ADMIN_KEY, error_of, wait_until

ADMIN_CALLS = [("POST", "/api/v1/admin/tenants"), ("POST", "/api/v1/admin/keys"), ("POST", "/api/v1/admin/credits"),
               ("POST", "/api/v1/admin/enrolments"), ("DELETE", "/api/v1/admin/keys/key_x"), ("DELETE", "/api/v1/admin/enrolments/enr_x")]
CALLER_CALLS = [("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("POST", "/v1/embeddings"), ("GET", "/api/v1/balance"),
                ("GET", "/api/v1/usage"), ("GET", "/api/v1/offers"), ("POST", "/api/v1/route"), ("GET", "/api/v1/stats"),
                ("GET", "/api/v1/invoices/2026-01"), ("GET", "/api/v1/ledger")]


@pytest.mark.parametrize("method,path", ADMIN_CALLS + CALLER_CALLS)
@pytest.mark.parametrize("authorization", [None, "Bearer", "Bearer wrong", "Basic dXNlcjpwYXNz", "wrong", f"bearer{ADMIN_KEY}",
                                           f"Bearer {ADMIN_KEY}x", f"Bearer {ADMIN_KEY[:-1]}"])
def test_no_or_wrong_key_is_401(gateway, method, path, authorization):
    headers = {"Authorization": authorization} if authorization else {}
    body = {"json": {}} if method == "POST" else {}
    answer = gateway.call(method, path, headers=headers, **body)
    assert error_of(answer, 401)["code"] == "invalid_api_key"


@pytest.mark.parametrize("method,path", ADMIN_CALLS)
def test_callers_key_on_an_admin_call_is_403(tenant, method, path):
    body = {"json": {}} if method == "POST" else {}
    error_of(tenant.call(method, path, **body), 403)


def test_scheme_is_case_insensitive(gateway, tenant):
    assert gateway.call("GET", "/v1/models", headers={"Authorization": f"bearer {tenant.key}"}).status_code == 200


def test_revoked_key_is_refused_within_a_second(gateway, tenant, fleet):
    key_id, key = tenant.new_key()
    post = lambda: gateway.call("POST", "/v1/chat/completions", key=key, json=fleet.chat())
    assert post().status_code == 200
    assert gateway.admin("DELETE", f"/api/v1/admin/keys/{key_id}").status_code == 204
    deleted = time.monotonic()
    wait_until(lambda: post().status_code == 401, 5, "the key is refused")
    assert time.monotonic() - deleted < 1.2
    assert tenant.call("GET", "/v1/models").status_code == 200
    assert gateway.admin("DELETE", f"/api/v1/admin/keys/{key_id}").status_code in (204, 404)


def test_expired_key(gateway, tenant):
    soon = int(time.time() * 1000) + 1500
    made = gateway.admin_ok("POST", "/api/v1/admin/keys", json={"tenant": tenant.id, "name": "short", "expires_at": soon})
    wait_until(lambda: gateway.call("GET", "/v1/models", key=made["key"]).status_code == 200, 1.4, "key works before")
    wait_until(lambda: gateway.call("GET", "/v1/models", key=made["key"]).status_code == 401, 4, "key is refused after")
    assert time.time() * 1000 >= soon


def test_models_of_a_key(gateway, make_fleet, fleet):
    other = make_fleet()
    tenant = gateway.tenant(models=[fleet.model])
    assert [m["id"] for m in tenant.call("GET", "/v1/models").json()["data"]] == [fleet.model]
    assert tenant.call("POST", "/v1/chat/completions", json=fleet.chat()).status_code == 200
    answer = tenant.call("POST", "/v1/chat/completions", json=other.chat())
    assert error_of(answer, 403)["code"] == "model_not_allowed"
    with pytest.raises(openai.PermissionDeniedError):
        tenant.client().chat.completions.create(**other.chat())
    assert other.server.requests() == []


def test_key_is_shown_once_and_never_again(gateway, tenant):
    body = {"tenant": tenant.id, "name": "once"}
    headers = {"Idempotency-Key": f"once-{tenant.id}"}
    first = gateway.admin("POST", "/api/v1/admin/keys", json=body, headers=headers)
    again = gateway.admin("POST", "/api/v1/admin/keys", json=body, headers=headers)
    assert first.is_success and again.is_success
    assert first.json()["id"] == again.json()["id"]
    assert first.json()["key"] and again.json().get("key") is None
    assert first.json()["key"] not in again.text
    other = gateway.admin("POST", "/api/v1/admin/keys", json={**body, "name": "other"}, headers=headers)
    assert error_of(other, 409)["code"] == "idempotency_mismatch"


def test_keys_are_not_stored_in_clear(gateway, tenant):
    import redis
    sockets = [p for p in gateway.data_dir.rglob("*") if p.is_socket()]
    assert sockets, "no socket of the embedded Redis in the data folder"
    store = redis.Redis(unix_socket_path=str(sockets[0]))
    for name in store.scan_iter("*"):
        kind = store.type(name)
        value = {b"hash": store.hgetall, b"string": store.get, b"set": store.smembers,
                 b"zset": lambda n: store.zrange(n, 0, -1), b"stream": store.xrange,
                 b"list": lambda n: store.lrange(n, 0, -1)}[kind](name)
        assert tenant.key.encode() not in name and tenant.key not in str(value)
    assert tenant.key not in gateway.log() and ADMIN_KEY not in gateway.log()


def test_admin_key_of_its_own(make_gateway):
    gateway = make_gateway(env={"SLUICE_ADMIN_KEY": ""})
    path = gateway.data_dir / "admin.key"
    assert path.stat().st_mode & 0o777 == 0o600
    key = path.read_text().strip()
    assert len(key) >= 32
    assert gateway.call("GET", "/api/v1/workers", key=key).status_code == 200
    gateway.stop()
    gateway.start()
    assert path.read_text().strip() == key
    assert gateway.call("GET", "/api/v1/workers", key=key).status_code == 200


@pytest.mark.parametrize("fields", [
    {"rpm": -1}, {"rpm": "5"}, {"max_concurrency": 1.5}, {"budget_usd": 5}, {"budget_usd": "1", "budget_period": "year"}, {"models": "m"},
    {"expires_at": "soon"}, {"tenant": "ten_nobody"}, {"tenant": 7}, {"nonsense": 1}])
def test_nonsense_in_a_key(gateway, tenant, fields):
    answer = gateway.admin("POST", "/api/v1/admin/keys", json={"tenant": tenant.id, "name": "x", **fields})
    assert answer.status_code in (400, 404), answer.text
    error_of(answer, answer.status_code)


def test_bodies_that_are_not_requests(gateway, tenant, fleet):
    good = b'{"model":"%s","messages":[]}' % fleet.model.encode()
    kind = {"Content-Type": "application/json"}
    before = len(fleet.server.requests())
    for body in (b"", b"{", b"[]", b'"x"', b"null", b"1", good[:-1], good + b"x", b"\xef\xbb\xbf" + good, good.replace(b"[]", b"[\xff]"),
                 good.replace(b"[]", b'["\xc3"]'), good.replace(b"[]", b"NaN"), good.replace(b"[]", b"01"), good.replace(b"[]", b"[1,]"),
                 good.replace(b"[]", b"'x'"), good.replace(b"[]", b'"\\ud800\\q"'), good.replace(b"[]", b'"a\nb"'),
                 b'{"model":"%s","model":"x"}' % fleet.model.encode(), good[:-1] + b',"stream":true,"stream":false}',
                 good[:-1] + b',"stream_options":{},"stream_options":{}}', good[:-1] + b',"\\u0073tream":true,"stream":false}',
                 b'{"messages":[]}', b'{"model":5}', b'{"model":null}', b'{"model":""}', good[:-1] + b',"stream":"yes"}',
                 b'{"a":' * 100000, b"[" * 1000000):
        answer = tenant.call("POST", "/v1/chat/completions", content=body, headers=kind)
        assert answer.status_code in (400, 404) if b'""' in body else answer.status_code == 400, (body[:100], answer.text)
        error_of(answer, answer.status_code)
    assert len(fleet.server.requests()) == before
    assert tenant.call("POST", "/v1/chat/completions", content=good, headers=kind).status_code == 200
