/* Opens a lease's attempt the way a gateway does, for tests that want a leased machine without a network:
 * door_tool REDIS_URL GATEWAY_URL PROGRAMS_FOLDER LEASE.ATTEMPT VALID_S ORPHAN_S container|machine IMAGE|- [COMMAND...]
 * prints the token, and then the script. */
#include "core/clock.h"
#include "core/log.h"
#include "core/redis.h"
#include "gateway/bootstrap.h"
#include "gateway/enrolment.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATIENCE_NS (10 * NS_PER_S)

static void on_put(void *ctx, enum error error)
{
    *(int *)ctx = (int)error;
}

static enum error turn_until(struct loop *loop, struct bootstrap *bootstrap, const int *stored)
{
    for (int64_t until = clock_mono_ns() + PATIENCE_NS; clock_mono_ns() < until;) {
        loop_turn(loop, 10 * NS_PER_MS);
        if (stored ? *stored >= 0 : bootstrap_has_key(bootstrap))
            return ERR_NONE;
    }
    return ERR_DEADLINE;
}

int main(int argc, char **argv)
{
    struct loop *loop = NULL;
    struct redis *redis = NULL;
    struct bootstrap *bootstrap = NULL;
    struct str command[DOOR_WORDS_MAX];
    char token[SECRET_TEXT_MAX];
    struct buf script;
    int64_t valid_s, orphan_s;
    int stored = -1;
    if (argc < 9 || argc - 9 > DOOR_WORDS_MAX || !str_to_i64(str_of(argv[5]), &valid_s) ||
        !str_to_i64(str_of(argv[6]), &orphan_s))
        return 2;
    signal(SIGPIPE, SIG_IGN);
    log_init("door_tool", LOG_WARN);
    const struct redis_options options = {.url = argv[1]};
    struct door_want door = {.kind = strcmp(argv[7], "machine") ? DOOR_CONTAINER : DOOR_MACHINE,
                             .image = str_of(argv[8]),
                             .command = command,
                             .command_count = (size_t)argc - 9,
                             .orphan_s = orphan_s};
    for (int i = 9; i < argc; i++)
        command[i - 9] = str_of(argv[i]);
    if (loop_open(&loop) || redis_open(loop, &options, &redis) || bootstrap_open(argv[3], &bootstrap))
        return 1;
    bootstrap_follow_key(bootstrap, redis);
    if (turn_until(loop, bootstrap, NULL) || !bootstrap_token(bootstrap, str_of(argv[4]), token))
        return 1;
    struct enrolment enrolment = {.supplier = "lease"};
    int64_t now_ms = clock_wall_ms();
    enrolment.created_at_ms = now_ms;
    enrolment.expires_at_ms = now_ms + (valid_s > 0 ? valid_s : 60) * 1000;
    const struct bootstrap_want want = {.lease = str_of(argv[4]),
                                        .url = str_of(argv[2]),
                                        .token = str_of(token),
                                        .expires_at_s = now_ms / 1000 + valid_s,
                                        .door = &door};
    buf_init(&script, 0);
    if (!str_copy(enrolment.lease, sizeof(enrolment.lease), str_of(argv[4])) ||
        enrolment_put_lease(redis, &enrolment, str_of(token), on_put, &stored) ||
        turn_until(loop, bootstrap, &stored) || stored != ERR_NONE)
        return 1;
    enum error error = bootstrap_script(bootstrap, &want, &script);
    if (error) {
        fprintf(stderr, "door_tool: %s\n", error_text(error));
        return 1;
    }
    printf("%s\n" STR_FMT, token, STR_ARG(buf_str(&script)));
    buf_free(&script);
    redis_free(redis);
    bootstrap_free(bootstrap);
    loop_free(loop);
    return 0;
}
