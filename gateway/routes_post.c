/* POSTs that may come twice: the Idempotency-Key around a handler's creating. */
#include "gateway/reactor.h"
#include "gateway/routes.h"

#include <stdlib.h>
#include <string.h>

static void post_free(struct post *post)
{
    json_decref(post->object);
    json_decref(post->answer);
    crypto_wipe(post->secret, sizeof(post->secret));
    free(post);
}

/* Sends and frees: nothing of the post is used after the call is gone. */
static void send_answer(struct post *post)
{
    struct api_call *call = post->call;
    json_t *answer = json_incref(post->answer);
    int status = post->status;
    post_free(post);
    api_reply_json(call, status, answer);
}

static void send_error(struct post *post)
{
    struct api_call *call = post->call;
    struct api_error error = post->error;
    post_free(post);
    api_reply_error(call, &error);
}

static void on_claimed(void *ctx, enum error code, const struct id *seed, int status, struct str answer)
{
    struct post *post = ctx;
    if (code) {
        api_error_from(&post->error, code);
        send_error(post);
    } else if (status) {
        struct api_call *call = post->call;
        post_free(post);
        api_reply(call, status, "application/json", answer);
    } else {
        post->seed = *seed;
        post->create(post);
    }
}

static void run_task(struct task *task)
{
    struct post *post = container_of(task, struct post, task);
    post->create(post);
}

void post_begin(struct api_call *call, int64_t keep_ms, json_t *take_object, int64_t amount_usd_nano,
                void (*create)(struct post *post))
{
    struct post *post = calloc(1, sizeof(*post));
    struct api_error error;
    if (!post) {
        json_decref(take_object);
        api_error_unavailable(&error);
        api_reply_error(call, &error);
        return;
    }
    *post = (struct post){.call = call,
                          .object = take_object,
                          .amount_usd_nano = amount_usd_nano,
                          .create = create,
                          .has_key = call->idempotency_key.ptr != NULL,
                          .task = {.run = run_task}};
    if (!post->has_key) {
        post->seed = id_make();
        loop_defer(call->reactor->loop, &post->task);
        return;
    }
    struct str caller = call->is_admin ? STR("admin") : str_of(call->tenant);
    if (!idempotency_make(caller, call->method, call->path, call->idempotency_key, call->body, keep_ms, &post->what)) {
        api_error_bad_request(&post->error, "Idempotency-Key", "Idempotency-Key must have 1 to %d bytes.",
                              IDEMPOTENCY_KEY_MAX);
        send_error(post);
        return;
    }
    enum error code = idempotency_claim(call->reactor->redis, &post->what, on_claimed, post);
    if (code) {
        api_error_from(&post->error, code);
        send_error(post);
    }
}

/* The object exists whether or not its answer could be kept: a repeat then finds the object by its id. */
static void on_completed(void *ctx, enum error code)
{
    (void)code;
    send_answer(ctx);
}

void post_answer(struct post *post, int status, json_t *take_answer, const char *secret_name)
{
    char *stored = take_answer && post->has_key ? json_dumps(take_answer, JSON_COMPACT) : NULL;
    post->status = status;
    post->answer = take_answer;
    if (secret_name && json_object_set_new(take_answer, secret_name, json_string(post->secret)) != 0) {
        json_decref(post->answer);
        post->answer = NULL;
    }
    enum error code = ERR_NO_MEMORY;
    if (stored)
        code = idempotency_complete(post->call->reactor->redis, &post->what, &post->seed, status, str_of(stored),
                                    on_completed, post);
    free(stored);
    if (code)
        send_answer(post);
}

static void on_released(void *ctx, enum error code)
{
    (void)code;
    send_error(ctx);
}

void post_fail(struct post *post, const struct api_error *error)
{
    post->error = *error;
    enum error code = ERR_CANCELLED;
    if (post->has_key && error->status >= 400 && error->status < 500)
        code = idempotency_release(post->call->reactor->redis, &post->what, &post->seed, on_released, post);
    if (code)
        send_error(post);
}
