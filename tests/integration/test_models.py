"""/v1/models, unknown paths and methods, CORS: the parts of the OpenAI path that need no upstream."""

from decimal import Decimal

import openai
import pytest

import harness
from harness import error_of


def test_list_and_retrieve(client, fleet):
    ids = [m.id for m in client.models.list()]
    assert fleet.model in ids
    model = client.models.retrieve(fleet.model)
    assert model.id == fleet.model and model.object == "model"
    extra = model.model_extra["x_sluice"]
    assert extra["replicas"] == 1
    assert Decimal(extra["price_per_gpu_hour_usd"]) == 2
    assert extra["regions"] == ["eu-west"]


def test_cheapest_price_and_all_regions(client, make_fleet):
    fleet = make_fleet(workers=[{"price": "3.00", "region": "us-east"}, {"price": "1.25", "region": "eu-west"}])
    extra = client.models.retrieve(fleet.model).model_extra["x_sluice"]
    assert extra["replicas"] == 2
    assert Decimal(extra["price_per_gpu_hour_usd"]) == Decimal("1.25")
    assert sorted(extra["regions"]) == ["eu-west", "us-east"]


def test_model_names_with_slash_and_colon(gateway, tenant, make_server, make_worker):
    name = f"org/{harness.new_model_name()}:tag"
    make_worker(make_server(models=[name]))
    client = tenant.client()
    harness.wait_until(lambda: name in [m.id for m in client.models.list()], 10, "the model is listed")
    assert client.models.retrieve(name).id == name
    assert client.chat.completions.create(model=name, messages=[{"role": "user", "content": "x"}]).model == name


def test_unknown_model_is_404(tenant, client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("no-such-model")
    assert caught.value.code == "model_not_found"
    answer = tenant.call("POST", "/v1/chat/completions", json={"model": "no-such-model", "messages": []})
    assert error_of(answer, 404)["code"] == "model_not_found"


def test_model_goes_when_its_worker_goes(gateway, tenant, make_server, make_worker):
    server = make_server(models=[harness.new_model_name()])
    worker = make_worker(server)
    harness.wait_until(lambda: tenant.call("GET", f"/v1/models/{server.model}").status_code == 200, 10, "model listed")
    worker.kill()
    harness.wait_until(lambda: tenant.call("GET", f"/v1/models/{server.model}").status_code == 404, 10, "model gone")


def test_head_method_and_path(gateway, tenant):
    with harness.Raw(gateway) as raw:
        got = raw.request("GET", "/v1/models", tenant.key).answer()
        head = raw.request("HEAD", "/v1/models", tenant.key).answer("HEAD")
        assert head.status == got.status == 200
        assert head.get("content-type") == got.get("content-type")
        assert raw.request("GET", "/v1/models", tenant.key).answer().status == 200  # no stray body bytes in between
    wrong = tenant.call("DELETE", "/v1/models")
    error_of(wrong, 405)
    assert {m.strip() for m in wrong.headers["allow"].split(",")} >= {"GET", "HEAD"}
    wrong = tenant.call("GET", "/v1/chat/completions")
    error_of(wrong, 405)
    assert "POST" in wrong.headers["allow"]
    error_of(tenant.call("GET", "/v1/no/such/path"), 404)
    error_of(tenant.call("GET", "/nothing"), 404)


def test_cors(gateway, tenant):
    preflight = gateway.call("OPTIONS", "/v1/chat/completions", headers={
        "Origin": "https://app.example", "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os"})
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == "*"
    allowed = {h.strip().lower() for h in preflight.headers["access-control-allow-headers"].split(",")}
    assert allowed >= {"authorization", "content-type", "x-stainless-os"}
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert "access-control-allow-credentials" not in preflight.headers
    for answer in (tenant.call("GET", "/v1/models", headers={"Origin": "https://app.example"}),
                   gateway.call("GET", "/v1/models", headers={"Origin": "https://app.example"})):
        assert answer.headers["access-control-allow-origin"] == "*"
        exposed = answer.headers["access-control-expose-headers"].lower()
        for name in ("x-request-id", "retry-after", "x-ratelimit-", "x-sluice-"):
            assert name in exposed


def test_every_answer_has_its_own_request_id(gateway, tenant):
    ids = [gateway.call("GET", path).headers["x-request-id"] for path in ("/v1/models", "/nothing", "/healthz")]
    ids.append(tenant.call("GET", "/v1/models").headers["x-request-id"])
    assert len(set(ids)) == 4
