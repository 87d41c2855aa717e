/* A worker that answers on the link by itself, so that a benchmark measures the gateway and not a model server.
 *
 *     bench_worker [--model NAME] [--chunks N] --gateway URL --token T [other options of sluice-worker]
 *
 * A chat completion gets a fixed answer of 270 bytes at once, or N chunks of server-sent events when it asks for a
 * stream. Registration, links, status and proofs are the agent's own. SIGTERM ends it. */
#include "adapters/native/agent.h"
#include "core/log.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define ARGS_MAX 64
#define CHUNKS_MAX 10000
#define LOOK_BYTES 512
#define TAIL_BYTES 16 /* of a piece of the body: what may be the start of a word cut in two */
#define ANSWER_BYTES 270

struct bench {
    struct loop *loop;
    struct agent *agent;
    struct io_source signals;
    struct agent_source source;
    const char *model;
    int64_t chunks;
    int status; /* of the program */
    struct buf plain, events;
};

struct exchange {
    struct bench *bench;
    struct h2_stream *stream;
    bool wants_stream;
    char tail[TAIL_BYTES * 2];
    size_t tail_len;
};

static bool says_stream(struct str text)
{
    static const struct str words[] = {{"\"stream\":true", 13}, {"\"stream\": true", 14}};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (memmem(text.ptr, text.len, words[i].ptr, words[i].len))
            return true;
    return false;
}

/* Looks at both ends of each piece only: to search all of a large body would cost more than the rest of its call. */
static void on_data(void *ctx, struct str bytes)
{
    struct exchange *exchange = ctx;
    size_t end = bytes.len < LOOK_BYTES ? bytes.len : LOOK_BYTES,
           seam = bytes.len < TAIL_BYTES ? bytes.len : TAIL_BYTES;
    h2_stream_consumed(exchange->stream, bytes.len);
    memcpy(exchange->tail + exchange->tail_len, bytes.ptr, seam);
    exchange->wants_stream = exchange->wants_stream || says_stream((struct str){bytes.ptr, end}) ||
                             (bytes.len > end && says_stream((struct str){bytes.ptr + bytes.len - end, end})) ||
                             says_stream((struct str){exchange->tail, exchange->tail_len + seam});
    exchange->tail_len = seam;
    memcpy(exchange->tail, bytes.ptr + bytes.len - seam, seam);
}

static void on_finished(void *ctx)
{
    static const struct h2_header plain[] = {{{"content-type", 12}, {"application/json", 16}}};
    static const struct h2_header events[] = {{{"content-type", 12}, {"text/event-stream", 17}}};
    struct exchange *exchange = ctx;
    bool is_stream = exchange->wants_stream;
    const struct buf *body = is_stream ? &exchange->bench->events : &exchange->bench->plain;
    if (h2_stream_respond(exchange->stream, 200, is_stream ? events : plain, 1) != ERR_NONE ||
        h2_stream_send(exchange->stream, buf_str(body)) != ERR_NONE || h2_stream_finish(exchange->stream) != ERR_NONE)
        h2_stream_cancel(exchange->stream, 2);
}

static void on_end(void *ctx, enum h2_end end)
{
    (void)end;
    free(ctx);
}

static bool on_call(void *ctx, struct h2_stream *stream, const struct h2_header *headers, size_t count,
                    const struct h2_stream_ops **ret_ops, void **ret_ctx)
{
    static const struct h2_stream_ops ops = {.on_data = on_data, .on_finished = on_finished, .on_end = on_end};
    struct exchange *exchange = calloc(1, sizeof(*exchange));
    (void)headers;
    (void)count;
    if (!exchange)
        return false;
    exchange->bench = ctx;
    exchange->stream = stream;
    *ret_ops = &ops;
    *ret_ctx = exchange;
    return true;
}

/* -- what is answered -------------------------------------------------------------------------------------------- */

static bool write_plain(struct bench *bench)
{
    static const char start[] = "{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion\",\"created\":1700000000,"
                                "\"model\":\"%s\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
                                "\"content\":\"";
    static const char end[] = "\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":9,"
                              "\"completion_tokens\":2,\"total_tokens\":11}}";
    buf_init(&bench->plain, 0);
    if (!buf_printf(&bench->plain, start, bench->model))
        return false;
    while (bench->plain.len < ANSWER_BYTES - (sizeof(end) - 1))
        if (!buf_append(&bench->plain, "x", 1))
            return false;
    return buf_append(&bench->plain, end, sizeof(end) - 1);
}

static bool write_events(struct bench *bench)
{
    static const char event[] = "data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\","
                                "\"created\":1700000000,\"model\":\"%s\",\"choices\":[%s]%s}\n\n";
    buf_init(&bench->events, 0);
    for (int64_t i = 0; i < bench->chunks; i++)
        if (!buf_printf(&bench->events, event, bench->model,
                        "{\"index\":0,\"delta\":{\"content\":\"word \"},\"finish_reason\":null}", ""))
            return false;
    return buf_printf(&bench->events, event, bench->model, "{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}",
                      "") &&
           buf_printf(&bench->events, event, bench->model, "",
                      ",\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2,\"total_tokens\":11}") &&
           buf_append_str(&bench->events, STR("data: [DONE]\n\n"));
}

/* -- the program ------------------------------------------------------------------------------------------------- */

static void on_done(void *ctx, enum agent_exit code)
{
    struct bench *bench = ctx;
    bench->status = (int)code;
    loop_stop(bench->loop);
}

static void on_signal(struct io_source *source, uint32_t events)
{
    struct bench *bench = container_of(source, struct bench, signals);
    (void)events;
    loop_remove(bench->loop, source);
    agent_drain(bench->agent);
}

/* Our own two options out, the rest to the agent, with the ones that it cannot do without. */
static bool read_options(struct bench *bench, int argc, char *argv[], char *state_dir, struct agent_options *ret)
{
    char *args[ARGS_MAX + 16] = {argv[0]}, message[512];
    static char upstream_option[] = "--upstream", upstream[] = "http://127.0.0.1:9", price_option[] = "--price",
                price[] = "1", gpu_option[] = "--gpu", gpu[] = "cpu", slots_option[] = "--slots", slots[] = "4096",
                state_option[] = "--state-dir";
    char *const given[] = {upstream_option, upstream, price_option, price,    gpu_option, gpu,
                           slots_option,    slots,    state_option, state_dir};
    int count = 1;
    for (size_t i = 0; i < sizeof(given) / sizeof(given[0]); i++)
        args[count++] = given[i];
    for (int i = 1; i < argc && count < ARGS_MAX; i++) {
        if (!strcmp(argv[i], "--model") && i + 1 < argc)
            bench->model = argv[++i];
        else if (!strcmp(argv[i], "--chunks") && i + 1 < argc) {
            if (!str_to_i64(str_of(argv[++i]), &bench->chunks) || bench->chunks < 0 || bench->chunks > CHUNKS_MAX)
                return false;
        } else
            args[count++] = argv[i];
    }
    args[count] = NULL;
    if (agent_options_parse(count, args, ret, message, sizeof(message)) == AGENT_RUN)
        return true;
    fprintf(stderr, "bench_worker: %s\n", message);
    return false;
}

static bool open_signals(struct bench *bench)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    signal(SIGPIPE, SIG_IGN);
    sigprocmask(SIG_BLOCK, &set, NULL);
    bench->signals.fd = signalfd(-1, &set, SFD_CLOEXEC);
    bench->signals.on_ready = on_signal;
    return bench->signals.fd >= 0 && loop_add(bench->loop, &bench->signals, EPOLLIN) == ERR_NONE;
}

static void remove_state(const char *dir)
{
    static const char *const names[] = {"worker.json", "lock"};
    char path[256];
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
        unlink(path);
    }
    rmdir(dir);
}

int main(int argc, char *argv[])
{
    static struct bench bench = {.model = "bench", .chunks = 20, .status = EXIT_FAILURE};
    static struct agent_options options;
    char state_dir[] = "/tmp/sluice-bench-XXXXXX";
    log_init("bench_worker", LOG_INFO);
    if (!mkdtemp(state_dir))
        return EXIT_FAILURE;
    if (read_options(&bench, argc, argv, state_dir, &options) && write_plain(&bench) && write_events(&bench) &&
        loop_open(&bench.loop) == ERR_NONE && open_signals(&bench)) {
        bench.source = (struct agent_source){bench.model, on_call, &bench};
        options.source = &bench.source;
        if (agent_open(bench.loop, &options, on_done, &bench, &bench.agent) == ERR_NONE)
            loop_run(bench.loop);
    }
    bench.agent = agent_free(bench.agent);
    bench.loop = loop_free(bench.loop);
    buf_free(&bench.plain);
    buf_free(&bench.events);
    remove_state(state_dir);
    return bench.status;
}
