/* Registration: enrolment by token the first time, by id and secret from then on; tried for ever, with back-off. */
#include "adapters/native/agent_priv.h"
#include "core/clock.h"
#include "core/money.h"

#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_MAX ((size_t)1 << 20)
#define REGISTER_NS (10 * NS_PER_S)

static void register_later(struct agent *agent)
{
    timer_set(agent->loop, &agent->register_timer, loop_now(agent->loop) + backoff_next(&agent->register_backoff));
}

/* Tells of a failure once, until something changes. */
static void register_failed(struct agent *agent, const char *url, const char *why)
{
    struct log_ctx log = agent_log(agent);
    if (!agent->register_silent)
        log_warn(&log, "cannot register with %s: %s; trying on", url, why);
    agent->register_silent = true;
    register_later(agent);
}

static json_t *list_of(const char *words)
{
    json_t *list = json_array();
    for (struct str rest = str_of(words), word; list && (word = str_next(&rest, ',')).ptr;)
        if (word.len > 0)
            json_array_append_new(list, json_stringn(word.ptr, word.len));
    return list;
}

static bool describe(struct agent *agent)
{
    const struct agent_options *options = &agent->options;
    char price[MONEY_TEXT_MAX];
    bool by_token = agent->use_token || !agent->state.secret[0];
    money_text(options->price_usd_nano, price);
    json_t *models = json_array();
    for (size_t i = 0; models && i < agent->model_count; i++)
        json_array_append_new(models, json_string(agent->models[i]));
    json_t *root = json_pack("{s:s, s:s, s:i, s:s, s:o, s:i, s:s, s:o}", "name", options->name, "gpu", options->gpu,
                             "gpus", options->gpus, "region", options->region, "tags", list_of(options->tags), "slots",
                             options->slots, "price_per_gpu_hour_usd", price, "models", models);
    if (root && by_token)
        json_object_set_new(root, "token", json_string(options->token));
    else if (root) {
        json_object_set_new(root, "worker_id", json_string(agent->state.worker_id));
        json_object_set_new(root, "secret", json_string(agent->state.secret));
    }
    char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    buf_clear(&agent->register_body);
    bool is_good = text && buf_append_str(&agent->register_body, str_of(text));
    if (text)
        crypto_wipe(text, strlen(text));
    free(text);
    return is_good;
}

/* -- the answer -------------------------------------------------------------------------------------------------- */

/* The host of the URL, for gateways that know only a wildcard address of themselves. */
static void remember_host(struct agent *agent, const char *text)
{
    CURLU *url = curl_url();
    char *host = NULL;
    if (url && !curl_url_set(url, CURLUPART_URL, text, 0) && !curl_url_get(url, CURLUPART_HOST, &host, 0)) {
        struct str value = str_of(host);
        if (value.len > 2 && value.ptr[0] == '[')
            value = (struct str){value.ptr + 1, value.len - 2};
        if (!str_copy(agent->gateway_host, sizeof(agent->gateway_host), value))
            agent->gateway_host[0] = '\0';
    }
    curl_free(host);
    curl_url_cleanup(url);
}

static bool take_identity(struct agent *agent, const json_t *root)
{
    const char *id = json_string_value(json_object_get(root, "worker_id"));
    const char *secret = json_string_value(json_object_get(root, "secret"));
    bool by_token = agent->use_token || !agent->state.secret[0];
    bool is_same = id && secret && !strcmp(id, agent->state.worker_id) && !strcmp(secret, agent->state.secret);
    if (is_same || (!by_token && !secret)) {
        agent->use_token = false;
        return true;
    }
    if (!id || !*id || !secret || !*secret || strpbrk(id, " \r\n") || strpbrk(secret, " \r\n") ||
        !str_copy(agent->state.worker_id, sizeof(agent->state.worker_id), str_of(id)) ||
        !str_copy(agent->state.secret, sizeof(agent->state.secret), str_of(secret)))
        return false;
    agent->use_token = false;
    agent_links_renew(agent);
    struct log_ctx log = agent_log(agent);
    log_info(&log, "enrolled");
    if (agent_state_save(&agent->state) != ERR_NONE)
        log_error(&log, "cannot write the identity to %s: after a restart this is a new worker", agent->state.dir);
    return true;
}

static void register_accepted(struct agent *agent, const char *url)
{
    struct log_ctx log = agent_log(agent);
    json_t *root = json_loadb(agent->register_answer.ptr, agent->register_answer.len, 0, NULL);
    remember_host(agent, url);
    if (!root || !take_identity(agent, root) || !agent_gateways_set(agent, json_object_get(root, "gateways"))) {
        register_failed(agent, url, "its answer makes no sense");
    } else {
        log_info(&log, "registered with %s, %zu gateways", url, agent->gateway_count);
        agent->is_registered = true;
        agent->register_silent = false;
        agent_links_dial(agent);
    }
    json_decref(root);
}

/* The message of an error object, for the operator. */
static const char *error_message(const json_t *root, const char *otherwise)
{
    const char *message = json_string_value(json_object_get(json_object_get(root, "error"), "message"));
    return message ? message : otherwise;
}

/* 4xx: the gateway does not take what we say of ourselves. */
static void register_refused(struct agent *agent, const char *url, int status)
{
    struct log_ctx log = agent_log(agent);
    json_t *root =
        agent->register_answer.len ? json_loadb(agent->register_answer.ptr, agent->register_answer.len, 0, NULL) : NULL;
    bool is_ours = json_is_object(json_object_get(root, "error"));
    bool had_identity = agent->state.secret[0] != '\0';
    if (is_ours && (status == 401 || status == 404) && had_identity && !agent->use_token) {
        if (!agent->register_silent)
            log_warn(&log, "%s does not know this worker any more; enrolling again with the token", url);
        agent->use_token = true;
        register_later(agent);
    } else if (is_ours && !had_identity) {
        log_error(NULL, "%s refuses this worker%s: %s", url, status == 401 ? " (is the token right?)" : "",
                  error_message(root, "no reason given"));
        agent_finish(agent, AGENT_REFUSED);
    } else {
        agent->use_token = false; /* try the identity first again */
        register_failed(agent, url, error_message(root, "refused"));
    }
    json_decref(root);
}

static void register_on_head(void *ctx, int status, const struct http_header *headers, size_t count)
{
    struct agent *agent = ctx;
    (void)headers;
    (void)count;
    agent->register_status = status;
}

static void register_on_data(void *ctx, struct str bytes)
{
    struct agent *agent = ctx;
    if (!buf_append_str(&agent->register_answer, bytes))
        http_fetch_cancel(agent->register_fetch);
}

static void register_on_end(void *ctx, enum http_end end)
{
    struct agent *agent = ctx;
    size_t at = agent->register_url;
    const char *url = agent->options.gateways[at];
    int status = agent->register_status;
    agent->register_fetch = NULL;
    if (agent->is_freeing || agent->is_draining)
        return;
    if (end == HTTP_END_OK && status == 200) {
        register_accepted(agent, url);
    } else {
        agent->register_url = (at + 1) % agent->options.gateway_count;
        if (end == HTTP_END_OK && status >= 400 && status < 500 && status != 408 && status != 429)
            register_refused(agent, url, status);
        else
            register_failed(agent, url, end == HTTP_END_OK ? "it answers with an error" : "it does not answer");
    }
    crypto_wipe(agent->register_answer.ptr, agent->register_answer.len);
    buf_clear(&agent->register_answer);
    crypto_wipe(agent->register_body.ptr, agent->register_body.len);
}

static bool is_loopback_url(const char *url)
{
    static const struct str hosts[] = {{"http://127.", 11}, {"http://localhost", 16}, {"http://[::1]", 12}};
    for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++)
        if (str_starts(str_of(url), hosts[i]))
            return true;
    return false;
}

void agent_register_start(struct agent *agent)
{
    for (size_t i = 0; i < agent->options.gateway_count; i++)
        if (str_starts(str_of(agent->options.gateways[i]), STR("http:")) &&
            !is_loopback_url(agent->options.gateways[i]))
            log_warn(NULL, "the token goes to %s unencrypted: use https", agent->options.gateways[i]);
    agent_register_soon(agent);
}

/* -- asking ------------------------------------------------------------------------------------------------------ */

static void register_start(struct agent *agent)
{
    static const struct http_header headers[] = {{{"content-type", 12}, {"application/json", 16}}};
    const char *gateway = agent->options.gateways[agent->register_url];
    char url[sizeof(agent->options.gateways[0]) + 32];
    struct http_request request = {.method = "POST",
                                   .url = url,
                                   .headers = headers,
                                   .header_count = 1,
                                   .total_timeout_ns = REGISTER_NS,
                                   .body_max = ANSWER_MAX,
                                   .on_head = register_on_head,
                                   .on_data = register_on_data,
                                   .on_end = register_on_end,
                                   .ctx = agent};
    struct buf text;
    buf_init(&text, sizeof(url));
    agent->register_status = 0;
    bool is_good = buf_printf(&text, "%s/worker/v1/register", gateway) && str_copy(url, sizeof(url), buf_str(&text)) &&
                   describe(agent);
    buf_free(&text);
    buf_clear(&agent->register_answer);
    request.body = buf_str(&agent->register_body);
    if (!is_good || http_fetch_start(agent->http, &request, &agent->register_fetch) != ERR_NONE)
        register_failed(agent, gateway, "out of memory");
}

static void register_on_due(struct timer *timer)
{
    register_start(container_of(timer, struct agent, register_timer));
}

void agent_register_soon(struct agent *agent)
{
    if (agent->register_fetch || timer_is_set(&agent->register_timer) || agent->is_draining || agent->is_done ||
        !agent->options.gpu[0]) /* the probe has yet to say */
        return;
    agent->register_timer.on_due = register_on_due;
    if (agent->is_registered)
        register_later(agent);
    else
        timer_set(agent->loop, &agent->register_timer, loop_now(agent->loop));
}

void agent_register_stop(struct agent *agent)
{
    timer_clear(agent->loop, &agent->register_timer);
    if (agent->register_fetch)
        http_fetch_cancel(agent->register_fetch);
}
