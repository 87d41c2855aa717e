#include "scheduler/capacity_memory.h"

#include "core/embed.h"
#include "core/log.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CLASSES_MAX 1024 /* the least remembered gives way */
#define HALF_MS 600000
#define FIRST_MS 30000
#define LONGEST_MS 900000
#define CLOSES 1.5   /* two failures within 10 minutes */
#define FORGETS 0.75 /* below it a class that was closed is as good as new */
#define KEPT_MS 7200000
#define TRY_MS 120000
#define SCORE_MAX 64
#define READ_MAX CLASSES_MAX /* a refresh */
#define OVERLAP_MS 10000     /* what a refresh reads again, for clocks and answers that crossed */
#define INDEX_KEY "sl:{cap}"
#define KEY_MAX 40
#define DIGEST_MAX 17

EMBED(capacity_note_lua, "scheduler/capacity_note.lua");
REDIS_SCRIPT(note_script, capacity_note_lua);

struct class
{
    uint64_t digest;
    double score; /* as of at_ms */
    int64_t at_ms, until_ms, try_ms;
    bool is_tried; /* here, and the others do not know */
};

struct capacity_memory {
    struct class classes[CLASSES_MAX];
    size_t count;
    int64_t read_ms; /* the newest change that was read */
    unsigned open;   /* questions to Redis */
    bool is_freed;
};

enum error capacity_memory_open(struct capacity_memory **ret)
{
    struct capacity_memory *memory = calloc(1, sizeof(*memory));
    if (!memory)
        return ERR_NO_MEMORY;
    *ret = memory;
    return ERR_NONE;
}

static void check_free(struct capacity_memory *memory)
{
    if (memory->is_freed && memory->open == 0)
        free(memory);
}

struct capacity_memory *capacity_memory_free(struct capacity_memory *memory)
{
    if (memory) {
        memory->is_freed = true;
        check_free(memory);
    }
    return NULL;
}

/* -- classes -- */

static uint64_t digest_of(const struct lease_candidate *candidate)
{
    char text[256];
    const char *zone = *candidate->zone ? candidate->zone : candidate->region;
    snprintf(text, sizeof(text), "%s\n%s\n%u\n%d\n%s", candidate->network,
             *candidate->gpu ? candidate->gpu : candidate->gpu_raw, candidate->gpus, candidate->interruptible, zone);
    return str_hash(str_of(text), 0);
}

static const struct class *find(const struct capacity_memory *memory, uint64_t digest)
{
    for (size_t i = 0; i < memory->count; i++) {
        if (memory->classes[i].digest == digest)
            return &memory->classes[i];
    }
    return NULL;
}

static double score_at(const struct class *class, int64_t now_ms)
{
    int64_t age_ms = now_ms - class->at_ms;
    return age_ms > 0 ? class->score * exp2(-(double)age_ms / HALF_MS) : class->score;
}

static struct class *find_or_make(struct capacity_memory *memory, uint64_t digest, int64_t now_ms)
{
    const struct class *found = find(memory, digest);
    if (found)
        return &memory->classes[found - memory->classes];
    struct class *class = &memory->classes[0];
    if (memory->count < CLASSES_MAX) {
        class = &memory->classes[memory->count++];
    } else {
        for (size_t i = 1; i < CLASSES_MAX; i++) {
            if (score_at(&memory->classes[i], now_ms) < score_at(class, now_ms))
                class = &memory->classes[i];
        }
    }
    *class = (struct class){.digest = digest, .at_ms = now_ms};
    return class;
}

enum capacity_verdict capacity_ask(const struct capacity_memory *memory, const struct lease_candidate *candidate,
                                   int64_t now_ms, int64_t *ret_until_ms)
{
    const struct class *class = find(memory, digest_of(candidate));
    int64_t until_ms = class ? class->until_ms : 0;
    enum capacity_verdict verdict = CAPACITY_OPEN;
    /* A clock that was set back must not close it for longer than it would have been. */
    if (until_ms > 0 && until_ms <= now_ms + LONGEST_MS && score_at(class, now_ms) >= FORGETS) {
        if (until_ms <= now_ms && class->try_ms > 0 && class->try_ms + TRY_MS > now_ms)
            until_ms = class->try_ms + TRY_MS;
        verdict = until_ms > now_ms ? CAPACITY_CLOSED : CAPACITY_HALF_OPEN;
    }
    if (ret_until_ms)
        *ret_until_ms = verdict == CAPACITY_CLOSED ? until_ms : now_ms;
    return verdict;
}

/* -- what is told -- */

void capacity_try(struct capacity_memory *memory, const struct lease_candidate *candidate, int64_t now_ms)
{
    if (capacity_ask(memory, candidate, now_ms, NULL) != CAPACITY_HALF_OPEN)
        return;
    struct class *class = find_or_make(memory, digest_of(candidate), now_ms);
    class->try_ms = now_ms;
    class->is_tried = true;
}

static void on_noted(void *ctx, const redisReply *reply, enum error error)
{
    (void)ctx;
    if (error)
        log_debug(NULL, "a capacity failure is known to this gateway only: %s", error_text(error));
    else if (reply->type == REDIS_REPLY_ERROR)
        log_warn(NULL, "a capacity failure cannot be noted: %s", reply->str);
}

static void key_of(uint64_t digest, char ret_key[static KEY_MAX], char ret_digest[static DIGEST_MAX])
{
    snprintf(ret_digest, DIGEST_MAX, "%016" PRIx64, digest);
    snprintf(ret_key, KEY_MAX, INDEX_KEY ":%s", ret_digest);
}

static void tell(struct redis *redis, uint64_t digest, const char *what)
{
    char key[KEY_MAX], hex[DIGEST_MAX], numbers[5][24];
    key_of(digest, key, hex);
    snprintf(numbers[0], sizeof(numbers[0]), "%d", HALF_MS);
    snprintf(numbers[1], sizeof(numbers[1]), "%d", FIRST_MS);
    snprintf(numbers[2], sizeof(numbers[2]), "%d", LONGEST_MS);
    snprintf(numbers[3], sizeof(numbers[3]), "%.17g", CLOSES);
    snprintf(numbers[4], sizeof(numbers[4]), "%d", KEPT_MS);
    const struct str args[] = {str_of(key),        STR(INDEX_KEY),     str_of(hex),
                               str_of(what),       str_of(numbers[0]), str_of(numbers[1]),
                               str_of(numbers[2]), str_of(numbers[3]), str_of(numbers[4])};
    enum error error = redis_run(redis, &note_script, on_noted, NULL, 2, sizeof(args) / sizeof(args[0]) - 2, args);
    if (error)
        on_noted(NULL, NULL, error);
}

/* The same sums as in capacity_note.lua. */
static void count(struct class *class, bool had_capacity, int64_t now_ms)
{
    double score = score_at(class, now_ms) + 1;
    if (had_capacity) {
        class->score = 0;
        class->until_ms = 0;
    } else {
        class->score = score < SCORE_MAX ? score : SCORE_MAX;
        double pause_ms = FIRST_MS * exp2(class->score - CLOSES);
        if (class->score >= CLOSES)
            class->until_ms = now_ms + (int64_t)(pause_ms < LONGEST_MS ? pause_ms : LONGEST_MS);
    }
    class->at_ms = now_ms;
    class->try_ms = 0;
    class->is_tried = false;
}

void capacity_note(struct capacity_memory *memory, struct redis *redis, const struct lease_candidate *candidate,
                   bool had_capacity, int64_t now_ms)
{
    uint64_t digest = digest_of(candidate);
    if (had_capacity && !find(memory, digest))
        return; /* nothing to forget, here or by what was read */
    count(find_or_make(memory, digest, now_ms), had_capacity, now_ms);
    if (redis)
        tell(redis, digest, had_capacity ? "had" : "lacked");
}

/* -- what others told -- */

struct reading {
    struct capacity_memory *memory;
    uint64_t digest;
};

static bool number_at(const redisReply *reply, size_t i, double *ret)
{
    if (reply->type != REDIS_REPLY_ARRAY || i >= reply->elements || reply->element[i]->type != REDIS_REPLY_STRING)
        return false;
    return str_to_double((struct str){reply->element[i]->str, reply->element[i]->len}, ret) && *ret >= 0 && *ret < 1e15;
}

static void on_class(void *ctx, const redisReply *reply, enum error error)
{
    struct reading *reading = ctx;
    struct capacity_memory *memory = reading->memory;
    double score = 0, at = 0, until = 0, tried = 0;
    memory->open--;
    if (!error && !memory->is_freed && number_at(reply, 0, &score) && number_at(reply, 1, &at) &&
        number_at(reply, 2, &until) && number_at(reply, 3, &tried)) {
        struct class *class = find_or_make(memory, reading->digest, (int64_t)at);
        class->score = score < SCORE_MAX ? score : SCORE_MAX;
        class->at_ms = (int64_t)at;
        class->until_ms = (int64_t)until;
        if (!class->is_tried)
            class->try_ms = (int64_t)tried;
        if (class->at_ms > memory->read_ms)
            memory->read_ms = class->at_ms;
    }
    free(reading);
    check_free(memory);
}

static enum error read_class(struct capacity_memory *memory, struct redis *redis, uint64_t digest)
{
    char key[KEY_MAX], hex[DIGEST_MAX];
    struct reading *reading = malloc(sizeof(*reading));
    if (!reading)
        return ERR_NO_MEMORY;
    *reading = (struct reading){memory, digest};
    key_of(digest, key, hex);
    const struct str args[] = {STR("HMGET"), str_of(key), STR("score"), STR("at_ms"), STR("until_ms"), STR("try_ms")};
    enum error error = redis_command(redis, on_class, reading, sizeof(args) / sizeof(args[0]), args);
    if (error)
        free(reading);
    else
        memory->open++;
    return error;
}

struct index_reading {
    struct capacity_memory *memory;
    struct redis *redis;
};

static void on_index(void *ctx, const redisReply *reply, enum error error)
{
    struct index_reading reading = *(struct index_reading *)ctx;
    struct capacity_memory *memory = reading.memory;
    free(ctx);
    memory->open--;
    for (size_t i = 0; !error && !memory->is_freed && reply->type == REDIS_REPLY_ARRAY && i < reply->elements; i++) {
        char *end = NULL;
        const redisReply *item = reply->element[i];
        if (item->type != REDIS_REPLY_STRING || item->len != DIGEST_MAX - 1)
            continue;
        uint64_t digest = strtoull(item->str, &end, 16);
        if (*end == '\0')
            error = read_class(memory, reading.redis, digest);
    }
    check_free(memory);
}

void capacity_refresh(struct capacity_memory *memory, struct redis *redis)
{
    char from[24], most[24];
    for (size_t i = 0; i < memory->count; i++) {
        if (memory->classes[i].is_tried)
            tell(redis, memory->classes[i].digest, "try");
        memory->classes[i].is_tried = false;
    }
    struct index_reading *reading = memory->open == 0 ? malloc(sizeof(*reading)) : NULL;
    if (!reading)
        return; /* the last one is not answered yet */
    *reading = (struct index_reading){memory, redis};
    snprintf(from, sizeof(from), "%" PRId64, memory->read_ms > OVERLAP_MS ? memory->read_ms - OVERLAP_MS : 0);
    snprintf(most, sizeof(most), "%d", READ_MAX);
    const struct str args[] = {STR("ZRANGEBYSCORE"), STR(INDEX_KEY), str_of(from), STR("+inf"),
                               STR("LIMIT"),         STR("0"),       str_of(most)};
    if (redis_command(redis, on_index, reading, sizeof(args) / sizeof(args[0]), args))
        free(reading);
    else
        memory->open++;
}
