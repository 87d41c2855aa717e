/* A worker's hash as Redis might give it back after anybody has written to it: "name=value" lines. What is read must be
 * valid and read back the same. */
#include "tests/fuzz/fuzz.h"

#include "scheduler/worker_record.h"

#include <string.h>

#define FIELDS_MAX 64

static redisReply text_reply(struct str text)
{
    return (redisReply){.type = REDIS_REPLY_STRING, .str = (char *)(uintptr_t)text.ptr, .len = text.len};
}

static redisReply reply_of(redisReply *fields, redisReply **pointers, size_t count)
{
    for (size_t i = 0; i < count; i++)
        pointers[i] = &fields[i];
    return (redisReply){.type = REDIS_REPLY_ARRAY, .elements = count, .element = pointers};
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const base =
        "secret_sha256=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\nname=n\nsupplier=s\ngpu=cpu\n"
        "gpu_raw=\nregion=\ntags=\ngpus=1\nslots=4\nprice_usd_nano=5\nvram_bytes=0\nenrolled_at_ms=7\nstate=ready\n"
        "reason=\nnext_probe_at_ms=1\nlast_probe_at_ms=1\nlast_probe_took_ms=1\nsuspensions=0\ntoken=3\n"
        "good_hardware=1.5\nbad_network=0\nreputation_at_ms=9\nproof_at_ms=3\nproof_gpu=cpu\nproof_ratio=1.5\n"
        "earned_usd_nano=7";
    redisReply fields[2 * FIELDS_MAX], *pointers[2 * FIELDS_MAX];
    struct str rest = {(const char *)data, size}, usual = str_of(base), id = STR("wrk_00000000000000000000000000");
    size_t count = 0;
    /* The input's fields come first and so win over the usual ones. */
    for (struct str line; count + 2 <= FIELDS_MAX && (line = str_next(&rest, '\n')).ptr; count += 2) {
        struct str name = str_next(&line, '=');
        fields[count] = text_reply(name);
        fields[count + 1] = text_reply(line.ptr ? line : STR(""));
    }
    for (struct str line; (line = str_next(&usual, '\n')).ptr; count += 2) {
        fields[count] = text_reply(str_next(&line, '='));
        fields[count + 1] = text_reply(line);
    }
    struct worker_record record, again;
    redisReply reply = reply_of(fields, pointers, count);
    if (worker_record_read(id, &reply, &record) != ERR_NONE)
        return 0;
    CHECK(worker_record_is_valid(&record));
    struct record_words words = {.count = 0};
    record_put_declared(&words, &record);
    record_put_initial(&words, &record);
    count = 0;
    for (; count < words.count; count++)
        fields[count] = text_reply(words.words[count]);
    fields[count++] = text_reply(STR("secret_sha256"));
    fields[count++] = text_reply(str_of(record.secret_sha256));
    reply = reply_of(fields, pointers, count);
    CHECK(worker_record_read(id, &reply, &again) == ERR_NONE);
    CHECK(memcmp(&again.admission.token, &record.admission.token, sizeof(record.admission.token)) == 0);
    CHECK(again.price_usd_nano == record.price_usd_nano && again.earned_usd_nano == record.earned_usd_nano);
    CHECK(memcmp(again.reputation.good, record.reputation.good, sizeof(record.reputation.good)) == 0);
    CHECK(memcmp(again.reputation.bad, record.reputation.bad, sizeof(record.reputation.bad)) == 0);
    CHECK(again.proof.ratio == record.proof.ratio && strcmp(again.proof.gpu, record.proof.gpu) == 0);
    CHECK(strcmp(again.tags, record.tags) == 0 && again.admission.state == record.admission.state);
    return 0;
}
