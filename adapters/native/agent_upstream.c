/* What the upstream serves: its /v1/models, asked every 15 s, every second while it is down. */
#include "adapters/native/agent_priv.h"
#include "core/clock.h"

#include <stdlib.h>
#include <string.h>

#define POLL_UP_NS (15 * NS_PER_S)
#define POLL_DOWN_NS (1 * NS_PER_S)
#define ANSWER_NS (10 * NS_PER_S)
#define ANSWER_MAX ((size_t)4 << 20)
#define SLOW_FAILURES_MAX 2 /* in a row: a busy upstream may be slow with this answer once */

static bool is_model_name(const char *name)
{
    size_t len = strlen(name);
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f)
            return false;
    return len > 0 && len < AGENT_MODEL_TEXT_MAX;
}

/* {"data":[{"id":"..."}]}; false: something else. */
static bool models_read(struct str text, char (*ret)[AGENT_MODEL_TEXT_MAX], size_t *ret_count)
{
    json_t *root = json_loadb(text.ptr, text.len, 0, NULL), *entry;
    json_t *data = json_object_get(root, "data");
    size_t at;
    *ret_count = 0;
    json_array_foreach(data, at, entry)
    {
        const char *id = json_string_value(json_object_get(entry, "id"));
        if (id && is_model_name(id) && *ret_count < AGENT_MODELS_MAX)
            memcpy(ret[(*ret_count)++], id, strlen(id) + 1);
    }
    bool is_good = json_is_array(data);
    json_decref(root);
    return is_good;
}

static void upstream_is_up(struct agent *agent, char (*models)[AGENT_MODEL_TEXT_MAX], size_t count)
{
    struct log_ctx log = agent_log(agent);
    bool is_same = agent->upstream_ok && count == agent->model_count;
    for (size_t i = 0; is_same && i < count; i++)
        is_same = !strcmp(models[i], agent->models[i]);
    agent->models_failures = 0;
    if (is_same)
        return;
    if (!agent->upstream_ok)
        log_info(&log, "upstream %s serves %zu models, the first %s", agent->options.upstream, count,
                 count ? models[0] : "none");
    memcpy(agent->models, models, count * sizeof(*models));
    agent->model_count = count;
    agent->upstream_ok = agent->upstream_seen = true;
    agent_status_changed(agent);
}

static void upstream_is_down(struct agent *agent, const char *why)
{
    struct log_ctx log = agent_log(agent);
    if (agent->upstream_ok || !agent->upstream_seen)
        log_warn(&log, "upstream %s is down: %s", agent->options.upstream, why);
    agent->upstream_seen = true;
    if (!agent->upstream_ok)
        return;
    agent->upstream_ok = false;
    agent->model_count = 0;
    agent_status_changed(agent);
}

static void models_on_head(void *ctx, int status, const struct http_header *headers, size_t count)
{
    struct agent *agent = ctx;
    (void)headers;
    (void)count;
    agent->models_status = status;
}

static void models_on_data(void *ctx, struct str bytes)
{
    struct agent *agent = ctx;
    if (!buf_append_str(&agent->models_answer, bytes))
        http_fetch_cancel(agent->models_fetch);
}

static void models_on_end(void *ctx, enum http_end end)
{
    struct agent *agent = ctx;
    char models[AGENT_MODELS_MAX][AGENT_MODEL_TEXT_MAX];
    size_t count;
    agent->models_fetch = NULL;
    if (agent->is_freeing)
        return;
    if (end == HTTP_END_OK && agent->models_status == 200 &&
        models_read(buf_str(&agent->models_answer), models, &count))
        upstream_is_up(agent, models, count);
    else if (end == HTTP_END_UNREACHABLE)
        upstream_is_down(agent, "it cannot be reached");
    else if (++agent->models_failures >= SLOW_FAILURES_MAX || !agent->upstream_ok)
        upstream_is_down(agent, end != HTTP_END_OK                                           ? "it does not answer"
                                : agent->models_status == 401 || agent->models_status == 403 ? "it wants another key"
                                                                                             : "no list of models");
    buf_free(&agent->models_answer);
    bool is_well = agent->upstream_ok && agent->models_failures == 0;
    timer_set(agent->loop, &agent->models_timer, loop_now(agent->loop) + (is_well ? POLL_UP_NS : POLL_DOWN_NS));
}

static void models_on_due(struct timer *timer)
{
    struct agent *agent = container_of(timer, struct agent, models_timer);
    char url[sizeof(agent->options.upstream) + 16], bearer[sizeof(agent->options.upstream_key) + 8];
    struct buf text;
    struct http_header header = {STR("authorization"), {bearer, 0}};
    struct http_request request = {.method = "GET",
                                   .url = url,
                                   .headers = &header,
                                   .header_count = agent->options.upstream_key[0] != '\0',
                                   .total_timeout_ns = ANSWER_NS,
                                   .body_max = ANSWER_MAX,
                                   .on_head = models_on_head,
                                   .on_data = models_on_data,
                                   .on_end = models_on_end,
                                   .ctx = agent};
    buf_init(&text, sizeof(bearer));
    bool is_good =
        buf_printf(&text, "%s/v1/models", agent->options.upstream) && str_copy(url, sizeof(url), buf_str(&text));
    buf_clear(&text);
    is_good = is_good && buf_printf(&text, "Bearer %s", agent->options.upstream_key) &&
              str_copy(bearer, sizeof(bearer), buf_str(&text));
    header.value.len = text.len;
    crypto_wipe(text.ptr, text.len);
    buf_free(&text);
    agent->models_status = 0;
    if (!is_good || http_fetch_start(agent->http, &request, &agent->models_fetch) != ERR_NONE)
        timer_set(agent->loop, &agent->models_timer, loop_now(agent->loop) + POLL_DOWN_NS);
    crypto_wipe(bearer, sizeof(bearer));
}

void agent_models_soon(struct agent *agent)
{
    const struct agent_source *source = agent->options.source;
    if (agent->models_fetch || agent->is_freeing)
        return;
    if (source) {
        agent->upstream_ok = str_copy(agent->models[0], sizeof(agent->models[0]), str_of(source->model));
        agent->model_count = agent->upstream_ok;
        return;
    }
    agent->models_timer.on_due = models_on_due;
    timer_set(agent->loop, &agent->models_timer, loop_now(agent->loop));
}

void agent_upstream_free(struct agent *agent)
{
    timer_clear(agent->loop, &agent->models_timer);
    buf_free(&agent->models_answer);
}
