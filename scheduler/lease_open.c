#include "scheduler/lease_open.h"

#include "scheduler/lease_store.h"

#include <stdio.h>
#include <stdlib.h>

struct counting {
    unsigned left; /* shards that have not answered */
    size_t count;
    enum error error;
    lease_open_fn *done;
    void *ctx;
};

struct str lease_open_key(char ret[static LEASE_OPEN_KEY_MAX], unsigned shard, struct str tenant)
{
    snprintf(ret, LEASE_OPEN_KEY_MAX, "sl:{lse:%u}:open:%.*s", shard, (int)tenant.len, tenant.ptr);
    return str_of(ret);
}

static void on_shard(void *ctx, const redisReply *reply, enum error error)
{
    struct counting *counting = ctx;
    if (!error && (reply->type != REDIS_REPLY_INTEGER || reply->integer < 0))
        error = ERR_PROTOCOL;
    if (error)
        counting->error = error;
    else
        counting->count += (size_t)reply->integer;
    if (--counting->left > 0)
        return;
    counting->done(counting->ctx, counting->error, counting->count);
    free(counting);
}

enum error lease_open_count(struct redis *redis, struct str tenant, lease_open_fn *done, void *ctx)
{
    char key[LEASE_OPEN_KEY_MAX];
    struct counting *counting = calloc(1, sizeof(*counting));
    if (!counting)
        return ERR_NO_MEMORY;
    *counting = (struct counting){.done = done, .ctx = ctx};
    enum error error = ERR_NONE;
    for (unsigned shard = 0; !error && shard < LEASE_SHARDS; shard++) {
        const struct str args[] = {STR("SCARD"), lease_open_key(key, shard, tenant)};
        error = redis_command(redis, on_shard, counting, 2, args);
        counting->left += !error;
    }
    if (error && counting->left > 0) {
        counting->error = error; /* told with the answers that come */
        return ERR_NONE;
    }
    if (error)
        free(counting);
    return error;
}
