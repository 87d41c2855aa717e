"""The server against its own description, gateway/openapi.json."""

import json
import re
from datetime import datetime, timezone

import jsonschema
import pytest

import harness

DOCUMENT = json.loads((harness.REPO / "gateway/openapi.json").read_text())
OPERATIONS = [(method.upper(), path) for path, item in DOCUMENT["paths"].items() for method in item
              if method in ("get", "post", "put", "delete", "patch")]
CONTRACT = [("GET", "/v1/models"), ("GET", "/v1/models/{id}"), ("POST", "/v1/chat/completions"), ("POST", "/v1/completions"),
            ("POST", "/v1/embeddings"), ("POST", "/v1/responses"), ("GET", "/api/v1/offers"), ("POST", "/api/v1/route"),
            ("GET", "/api/v1/balance"), ("GET", "/api/v1/usage"), ("GET", "/api/v1/invoices/{}"), ("GET", "/api/v1/ledger"),
            ("GET", "/api/v1/workers"), ("POST", "/api/v1/admin/tenants"), ("POST", "/api/v1/admin/keys"),
            ("DELETE", "/api/v1/admin/keys/{}"), ("POST", "/api/v1/admin/credits"), ("POST", "/api/v1/admin/enrolments"),
            ("DELETE", "/api/v1/admin/enrolments/{}"), ("GET", "/metrics"), ("GET", "/api/v1/stats"), ("GET", "/healthz"),
            ("GET", "/readyz"), ("GET", "/openapi.json")]


def shape(path):
    return re.sub(r"\{[^}]*\}", "{}", path)


def resolve(node):
    while "$ref" in node:
        at = DOCUMENT
        for part in node["$ref"].lstrip("#/").split("/"):
            at = at[part]
        node = at
    return node


def check(method, path, answer):
    """The answer's status is described for this call, and its body fits the schema given there."""
    operation = DOCUMENT["paths"][path][method.lower()]
    responses = operation["responses"]
    found = responses.get(str(answer.status_code)) or responses.get(f"{answer.status_code // 100}XX") or responses.get("default")
    assert found, f"{method} {path} answers {answer.status_code}, which is described nowhere: {sorted(responses)}"
    kind = answer.headers.get("content-type", "").split(";")[0]
    content = resolve(found).get("content")
    if not content:
        assert not answer.content, f"{method} {path} {answer.status_code} has a body that is not described"
        return
    assert kind in content, f"{method} {path} {answer.status_code} is {kind}, described are {sorted(content)}"
    if kind == "application/json" and "schema" in content[kind]:
        schema = {**content[kind]["schema"], "components": DOCUMENT.get("components", {})}
        jsonschema.Draft202012Validator(schema).validate(answer.json())


def test_the_document_is_served(gateway):
    answer = gateway.call("GET", "/openapi.json")
    assert answer.status_code == 200 and answer.json() == DOCUMENT
    assert DOCUMENT["openapi"].startswith("3.")


@pytest.mark.parametrize("method,path", CONTRACT)
def test_every_call_of_the_contract_is_described(method, path):
    assert (method, shape(path)) in [(m, shape(p)) for m, p in OPERATIONS]


def test_every_reference_leads_somewhere():
    def walk(node):
        if isinstance(node, dict):
            if "$ref" in node:
                resolve(node)
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(DOCUMENT)


@pytest.mark.parametrize("method,path", OPERATIONS)
def test_described_calls_exist(gateway, method, path):
    """Without a key a described call answers as described, and is not an unknown path or method."""
    concrete = re.sub(r"\{[^}]*\}", "x", path)
    answer = gateway.call(method, concrete, **({"json": {}} if method in ("POST", "PUT") else {}))
    assert answer.status_code != 405
    if answer.status_code == 404:
        assert "no such" not in answer.json()["error"]["message"].lower() or "{" in path
    check(method, path, answer)


@pytest.mark.parametrize("method,path", [(m, p) for m, p in OPERATIONS if "{" not in p])
def test_other_methods_are_405_and_allow_tells_the_described(gateway, method, path):
    answer = gateway.call("PATCH", path, json={})
    assert answer.status_code == 405
    allowed = {m.strip() for m in answer.headers["allow"].split(",")}
    assert {m for m, p in OPERATIONS if p == path} <= allowed


def test_answers_fit_their_schemas(gateway, tenant, fleet):
    by_shape = {(m, shape(p)): p for m, p in OPERATIONS}
    month = datetime.now(timezone.utc).strftime("%Y-%m")
    caller, admin = tenant.key, harness.ADMIN_KEY
    worker_call = {"model": fleet.model, "messages": [{"role": "user", "content": "x"}]}
    calls = [("POST", "/v1/chat/completions", caller, {"json": worker_call}),
             ("POST", "/v1/completions", caller, {"json": {"model": fleet.model, "prompt": "x"}}),
             ("POST", "/v1/embeddings", caller, {"json": {"model": fleet.model, "input": "x"}}),
             ("POST", "/v1/responses", caller, {"json": {"model": fleet.model, "input": "x"}}),
             ("GET", "/v1/models", caller, {}), ("GET", f"/v1/models/{fleet.model}", caller, {}),
             ("POST", "/api/v1/route", caller, {"json": worker_call}), ("GET", "/api/v1/offers", caller, {}),
             ("GET", "/api/v1/offers?explain=1", caller, {}), ("GET", "/api/v1/balance", caller, {}),
             *[("GET", f"/api/v1/usage?group_by={g}", caller, {}) for g in ("day", "model", "worker", "key", "network")],
             ("GET", f"/api/v1/invoices/{month}", caller, {}), ("GET", "/api/v1/invoices/1999-01", caller, {}),
             ("GET", f"/api/v1/invoices/{month}?format=csv", caller, {}), ("GET", "/api/v1/ledger", caller, {}),
             ("GET", "/api/v1/ledger", admin, {}), ("GET", "/api/v1/workers", admin, {}), ("GET", "/api/v1/workers", caller, {}),
             ("GET", "/api/v1/stats", caller, {}), ("GET", "/api/v1/stats", admin, {}),
             ("POST", "/api/v1/admin/tenants", admin, {"json": {"name": "described"}}),
             ("POST", "/api/v1/admin/keys", admin, {"json": {"tenant": tenant.id, "name": "described"}}),
             ("POST", "/api/v1/admin/enrolments", admin, {"json": {"supplier": "described"}}),
             ("POST", "/api/v1/admin/credits", admin, {"json": {"tenant": tenant.id, "amount_usd": "1"}, "headers": {"Idempotency-Key": tenant.id}}),
             ("POST", "/api/v1/admin/credits", admin, {"json": {"tenant": tenant.id, "amount_usd": 1}, "headers": {"Idempotency-Key": "d" + tenant.id}}),
             ("GET", "/healthz", None, {}), ("GET", "/readyz", None, {}), ("GET", "/metrics", None, {})]
    tenant_rows = 4
    for method, path, key, options in calls:
        if path.startswith("/api/v1/invoices"):
            tenant.wait_rows(tenant_rows)
        answer = gateway.call(method, path, key=key, **options)
        bare = path.split("?")[0]
        pattern = next(p for (m, _), p in by_shape.items() if m == method and re.fullmatch(re.sub(r"\{[^}]*\}", "[^/]+", p), bare))
        check(method, pattern, answer)
