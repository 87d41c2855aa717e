#!/bin/bash
# The whole of Sluice on this machine: gateway with its own Redis, a real small model behind llama-server, three workers
# with different prices and delays. Ends when Ctrl-C is pressed, and then stops what it started and nothing else.
#   SLUICE_PORT=8080        the first port to try
#   SLUICE_DATA_DIR=var     what the gateway keeps
#   SLUICE_RUN_DIR=.run     logs, the workers' identities, the key of the quick start (mode 0600), the model
#   UPSTREAM=URL            use this OpenAI-compatible server instead of the small model
#   SLUICE_NO_MODEL=1       start the gateway alone
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
umask 077

port=${SLUICE_PORT:-8080}
data_dir=${SLUICE_DATA_DIR:-var}
run_dir=${SLUICE_RUN_DIR:-.run}
upstream=${UPSTREAM:-}
key_file=$run_dir/quickstart.key
logs=$run_dir/log
model=
declare -A name_of=()
started=()

say() { printf '%s\n' "$*"; }

# launch NAME COMMAND...: in a session of its own, so that Ctrl-C reaches only this script, which stops them in order.
# If this script itself is killed, they get SIGTERM from the kernel.
launch() {
    local name=$1
    shift
    setsid setpriv --pdeathsig TERM -- "$@" </dev/null >"$logs/$name.log" 2>&1 9>&- &
    name_of[$!]=$name
    started+=($!)
}

stop_all() {
    trap '' INT TERM HUP
    local at pid tries
    say ""
    say "Stopping."
    [ -z "${admin_key:-}" ] || end_leases
    for ((at = ${#started[@]} - 1; at >= 0; at--)); do
        pid=${started[at]}
        kill -TERM "$pid" 2>/dev/null || continue
        for ((tries = 0; tries < 150; tries++)); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$pid" 2>/dev/null && say "  ${name_of[$pid]} had to be killed"
        wait "$pid" 2>/dev/null
    done
    say "All stopped. The data stays in $data_dir."
}

fail() {
    say "error: $1"
    [ -z "${2:-}" ] || { say "the end of $logs/$2.log:"; tail -n 15 "$logs/$2.log" | sed 's/^/    /'; }
    stop_all
    exit 1
}

free_port() {
    local candidate=$1
    while (exec 3<>"/dev/tcp/127.0.0.1/$candidate") 2>/dev/null; do candidate=$((candidate + 1)); done
    echo "$candidate"
}

# wait_for SECONDS PID COMMAND...: until the command succeeds; 1 when the time is up or the process has ended.
wait_for() {
    local end=$((SECONDS + $1)) pid=$2
    shift 2
    until "$@"; do
        kill -0 "$pid" 2>/dev/null && [ $SECONDS -lt $end ] || return 1
        sleep 0.1
    done
}

answers() { curl -sf -o /dev/null --max-time 5 "$1"; }
field() { sed -n 's/.*"'"$1"'"[[:space:]]*:[[:space:]]*"\([^"]*\)".*/\1/p' | head -n 1; }
admin() { curl -sS --max-time 10 -X "$1" "$url$2" -H "Authorization: Bearer $admin_key" -H 'Content-Type: application/json' -d "$3"; }
as_caller() { curl -sS --max-time 60 "$@" -H "Authorization: Bearer $key"; }

# A network in a folder: its machines are processes here, so that renting can be tried without an account anywhere.
# Each machine keeps a folder with what it fetched; those of an earlier run go, unless one may still be running.
write_config() {
    mkdir -p "$run_dir/fake"
    [ -n "$(ls -A "$run_dir/fake/instances" 2>/dev/null)" ] || rm -rf "$run_dir/fake/run" "$run_dir/fake/ended"
    printf 'networks:\n  - {id: fake, adapter: fake, base_url: "dir://%s", options: {run: "true"}, poll_s: 2, reconcile_s: 5}\n' \
        "$(cd "$run_dir/fake" && pwd)" >"$run_dir/sluice.yaml"
}

offered() { as_caller "$url/api/v1/offers?network=fake&limit=1" 2>/dev/null | grep -q '"off_'; }

# What was rented ends with the quick start. Bounded: what is left then is ended by the next start's reconciler.
end_leases() {
    local ids
    ids=$(SLUICE_ADMIN_KEY=$admin_key timeout 10 build/sluice ps --gateway "$url" -o name 2>/dev/null) || return 0
    [ -n "$ids" ] || return 0
    say "  ending leases"
    # shellcheck disable=SC2086
    SLUICE_ADMIN_KEY=$admin_key timeout 40 build/sluice down $ids --gateway "$url" --yes >/dev/null 2>&1
}

start_gateway() {
    port=$(free_port "$port")
    url=http://127.0.0.1:$port
    say "Starting the gateway on $url (data in $data_dir)"
    write_config
    launch gateway build/sluiced --config "$run_dir/sluice.yaml" --listen "127.0.0.1:$port" --data-dir "$data_dir"
    wait_for 40 $! answers "$url/readyz" || fail "the gateway did not become ready" gateway
    admin_key=${SLUICE_ADMIN_KEY:-$(cat "$data_dir/admin.key")}
}

# The tenant and key of an earlier run, if the gateway still knows them, else new ones with 10 dollars.
get_key() {
    local tenant
    key=$(cat "$key_file" 2>/dev/null)
    if [ -n "$key" ] && [ "$(as_caller -o /dev/null -w '%{http_code}' "$url/v1/models")" = 200 ]; then return; fi
    tenant=$(admin POST /api/v1/admin/tenants '{"name":"quickstart"}' | field id)
    [ -n "$tenant" ] || fail "no tenant could be made" gateway
    admin POST /api/v1/admin/credits "{\"tenant\":\"$tenant\",\"amount_usd\":\"10\"}" >/dev/null
    key=$(admin POST /api/v1/admin/keys "{\"tenant\":\"$tenant\",\"name\":\"quickstart\"}" | field key)
    [ -n "$key" ] || fail "no API key could be made" gateway
    printf '%s\n' "$key" >"$key_file"
}

new_token() {
    token=$(admin POST /api/v1/admin/enrolments "{\"supplier\":\"quickstart\",\"expires_at\":$((($(date +%s) + 3600) * 1000))}" | field token)
    [ -n "$token" ] || fail "no enrolment token could be made" gateway
}

start_model() {
    local model_port template
    [ -z "${SLUICE_NO_MODEL:-}" ] || return 1
    if [ ! -x .run/model/llama-server ] || [ ! -f .run/model/model.gguf ]; then
        bash deploy/deps.sh --model 9>&- || return 1
    fi
    model_port=$(free_port 18080)
    say "Starting llama-server with Gemma 3 270M"
    # The model is a plain one, not tuned to chat, so the template asks it as a quiz would.
    template='{% for m in messages %}{% if m["role"] == "assistant" %}Answer: {{ m["content"] }}{{ "\n" }}{% else %}Question: {{ m["content"] }}{{ "\n" }}{% endif %}{% endfor %}Answer:'
    launch llama-server .run/model/llama-server --model .run/model/model.gguf --alias gemma-3-270m --host 127.0.0.1 --port "$model_port" \
        --ctx-size 8192 --parallel 4 --threads "$(nproc)" --jinja --chat-template "$template" --embeddings --pooling mean
    upstream=http://127.0.0.1:$model_port
    if ! wait_for 60 $! answers "$upstream/health"; then
        say "llama-server did not start; the end of its log:"
        tail -n 5 "$logs/llama-server.log" | sed 's/^/    /'
        upstream=
        return 1
    fi
}

start_worker() {
    SLUICE_TOKEN=$token launch "worker-$1" build/sluice-worker --gateway "$url" --token env:SLUICE_TOKEN --upstream "$upstream" \
        --price "$2" --delay-ms "$3" --region "$4" --slots 4 --state-dir "$run_dir/workers/$1"
}

replicas() { as_caller "$url/v1/models" 2>/dev/null | tr -d ' \n' | grep -q '"replicas":3'; }

start_workers() {
    local number region
    new_token
    say "Starting three workers; each has to pass its admission probe"
    start_worker 1 0.50 0 eu-west
    start_worker 2 0.30 80 us-east
    start_worker 3 0.20 250 ap-south
    wait_for 60 $! replicas || fail "the three workers did not become ready" worker-1
    model=$(as_caller "$url/v1/models" | field id)
    # Some calls for each, so that the model is warm and the ranking knows how fast they are.
    curl -sS -o /dev/null --max-time 60 "$upstream/v1/chat/completions" -H 'Content-Type: application/json' -d "$(body 4)"
    for number in 1 2 3; do
        for region in eu-west us-east ap-south; do
            as_caller -o /dev/null "$url/v1/chat/completions" -H 'Content-Type: application/json' -H "x-sluice-region: $region" -d "$(body 1)"
        done
    done
}

body() {
    printf '{"model":"%s","messages":[{"role":"user","content":"The capital of France is"}],"max_tokens":%d,"stop":["\\n"]}' "$model" "${1:-16}"
}

report() {
    local call="curl -sS -w '\\n' $url/v1/chat/completions -H 'Authorization: Bearer $key' -H 'Content-Type: application/json'"
    say ""
    say "Sluice is running."
    say ""
    say "  address    $url/v1"
    say "  API key    $key"
    say "  metrics    $url/metrics"
    say "  stats      curl -sS -w '\\n' $url/api/v1/stats -H 'Authorization: Bearer $key'"
    say "  admin key  in $data_dir/admin.key"
    say "  logs       in $logs"
    say ""
    if [ -n "$model" ]; then
        say "Ask it something:"
        say ""
        say "  $call -d '$(body)'"
        say ""
        say "See the ranking choose: the worker that is cheapest by the hour answers late, the dearest at once."
        say ""
        say "  $call -H 'x-sluice-prefer: price' -o /dev/null -D - -d '$(body)' | grep -i ^x-sluice"
        say "  $call -H 'x-sluice-prefer: latency' -o /dev/null -D - -d '$(body)' | grep -i ^x-sluice"
        say ""
        say "What it cost:"
        say ""
        say "  curl -sS -w '\\n' '$url/api/v1/usage?group_by=worker' -H 'Authorization: Bearer $key'"
        say ""
        say "What each worker claims and has proven, with its receipts (build/sluice --help tells more):"
        say ""
        say "  build/sluice workers --gateway $url --key-file $data_dir/admin.key"
    else
        new_token
        say "No model is served yet: the small model or its server could not be installed here, or was not wanted."
        say "Point a worker at any OpenAI-compatible server (vLLM, SGLang, Ollama, TGI, llama.cpp, ...):"
        say ""
        say "  build/sluice-worker --gateway $url --token $token --upstream http://127.0.0.1:8000 --price 1.20"
        say ""
        say "The token holds for an hour. Then:  curl -sS -w '\\n' $url/v1/models -H 'Authorization: Bearer $key'"
    fi
    say ""
    say "Rent a machine: the network 'fake' lives in $run_dir/fake, and its cpu machines are processes here that prove themselves."
    say ""
    say "  export SLUICE_API_KEY=$key SLUICE_GATEWAY=$url"
    say "  build/sluice offers"
    say "  build/sluice launch --gpu cpu --image demo/hello:1 --yes -- sh -c 'echo hello; sleep 600'"
    say "  build/sluice ps"
    say "  build/sluice logs \$(build/sluice ps -o name)"
    say "  build/sluice networks --key-file $data_dir/admin.key"
    say "  build/sluice down \$(build/sluice ps -o name)"
    say ""
    say "What it sells as an RTX 4090 is a CPU: the door refuses it, and that costs nothing."
    say ""
    say "  build/sluice launch --gpu RTX4090 --image demo/hello:1 --max-price 0.50 --yes"
    say ""
    say "Ctrl-C stops everything."
}

trap 'stop_all; exit 0' INT TERM HUP
mkdir -p "$run_dir" "$logs" "$run_dir/workers"
exec 9>"$run_dir/lock"
flock -n 9 || { say "error: it runs already in $run_dir; a second one needs its own SLUICE_RUN_DIR and SLUICE_DATA_DIR"; exit 1; }
[ -x build/sluiced ] && [ -x build/sluice-worker ] || { say "error: the programs are not built yet: make all"; exit 1; }
start_gateway
get_key
if [ -n "$upstream" ] || start_model; then start_workers; fi
wait_for 20 "${started[0]}" offered || fail "the network 'fake' offers nothing" gateway
report

# Until Ctrl-C. One that ends by itself is told of; without the gateway there is nothing to wait for.
gateway_pid=${started[0]}
while [ ${#started[@]} -gt 0 ]; do
    wait -n -p ended "${started[@]}"
    status=$?
    [ -n "${ended:-}" ] || continue
    say "${name_of[$ended]} ended with status $status; see $logs/${name_of[$ended]}.log"
    [ "$ended" != "$gateway_pid" ] || fail "the gateway is gone" gateway
    for at in "${!started[@]}"; do [ "${started[at]}" != "$ended" ] || unset "started[at]"; done
    started=("${started[@]}")
done
