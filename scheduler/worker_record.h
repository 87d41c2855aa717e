/* A stored worker as fields of a Redis hash: checking, writing, reading. */
#ifndef SLUICE_SCHEDULER_WORKER_RECORD_H
#define SLUICE_SCHEDULER_WORKER_RECORD_H

#include "scheduler/worker_store.h"

/* Would it be read back as it is? Ids, texts without control characters, numbers in range. */
bool worker_record_is_valid(const struct worker_record *record);
bool admission_is_storable(const struct admission *admission);
bool proof_is_storable(const struct worker_proof *proof);

/* Words to send, "name", value, ...; numbers lie in .numbers. */
#define RECORD_WORDS_MAX 128
struct record_words {
    struct str words[RECORD_WORDS_MAX];
    size_t count;
    char numbers[RECORD_WORDS_MAX / 2][32];
    size_t number_count;
};
void record_put_declared(struct record_words *words, const struct worker_record *record); /* name ... vram_bytes */
void record_put_initial(struct record_words *words, const struct worker_record *record);  /* the rest but the secret */
void record_put_admission(struct record_words *words, const struct admission *admission); /* all but the token */
void record_put_proof(struct record_words *words, const struct worker_proof *proof); /* all but the receipt's hash */
void record_put_receipt(struct record_words *words, const char *sha256);             /* borrowed */
void record_put_double(struct record_words *words, const char *name, double value);  /* name NULL: the value only */
void record_put_u64(struct record_words *words, const char *name, uint64_t value);   /* name NULL: the value only */

/* The answer of HGETALL. ERR_NOT_FOUND when empty, ERR_PROTOCOL when something is missing or no value of ours. */
MUST_CHECK enum error worker_record_read(struct str id, const redisReply *reply, struct worker_record *ret);

#endif
