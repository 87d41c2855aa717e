#include "scheduler/proof_store.h"
#include "core/embed.h"
#include "core/log.h"

#include <stdio.h>
#include <stdlib.h>

EMBED(proof_list_lua, "scheduler/proof_list.lua");
REDIS_SCRIPT(list_script, proof_list_lua);

struct ask {
    proof_list_fn *done;
    void *ctx;
    size_t limit;
};

static bool entry_of(const redisReply *reply, struct proof_entry *ret)
{
    int64_t number, at_ms;
    if (reply->type != REDIS_REPLY_STRING)
        return false;
    struct str text = {reply->str, reply->len};
    if (!str_to_i64(str_next(&text, ' '), &number) || !str_to_i64(str_next(&text, ' '), &at_ms) || number <= 0 ||
        !text.ptr)
        return false;
    *ret = (struct proof_entry){(uint64_t)number, at_ms, text};
    return true;
}

static void on_list(void *ctx, const redisReply *reply, enum error error)
{
    struct ask *ask = ctx;
    struct proof_entry entries[PROOF_LIST_MAX];
    size_t count = 0;
    uint64_t next = 0;
    if (!error && reply->type == REDIS_REPLY_ERROR)
        log_warn(NULL, "the script on receipts failed: %s", reply->str);
    if (!error && (reply->type != REDIS_REPLY_ARRAY || reply->elements > ask->limit + 1))
        error = ERR_PROTOCOL;
    for (size_t i = 0; !error && i < reply->elements && count < ask->limit; i++) {
        if (entry_of(reply->element[i], &entries[count]))
            count++;
        else
            error = ERR_PROTOCOL;
    }
    if (!error && reply->elements > ask->limit)
        next = entries[count - 1].number;
    ask->done(ask->ctx, error, entries, error ? 0 : count, next);
    free(ask);
}

enum error proof_store_list(struct redis *redis, struct str worker, uint64_t cursor, size_t limit, proof_list_fn *done,
                            void *ctx)
{
    struct id id;
    char key[ID_TEXT_MAX + 20], words[3][24];
    if (!id_parse("wrk_", worker, &id) || limit == 0 || limit > PROOF_LIST_MAX || cursor > INT64_MAX)
        return ERR_BAD_INPUT;
    struct ask *ask = malloc(sizeof(*ask));
    if (!ask)
        return ERR_NO_MEMORY;
    *ask = (struct ask){done, ctx, limit};
    snprintf(key, sizeof(key), "sl:{wrk:" STR_FMT "}proofs", STR_ARG(worker));
    snprintf(words[0], sizeof(words[0]), "%llu", (unsigned long long)cursor);
    snprintf(words[1], sizeof(words[1]), "%zu", limit);
    snprintf(words[2], sizeof(words[2]), "%lld", (long long)PROOF_STORE_MS);
    const struct str args[] = {str_of(key), str_of(words[0]), str_of(words[1]), str_of(words[2])};
    enum error error = redis_run(redis, &list_script, on_list, ask, 1, 3, args);
    if (error)
        free(ask);
    return error;
}
