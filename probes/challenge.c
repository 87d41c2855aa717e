/* A product of two random matrices over the integers modulo 251, checked by Freivalds' test.
 *
 * The worker multiplies (n^3 steps) and sends the whole product. The gateway draws secret random vectors r and compares
 * C r with A (B r), which costs n^2 steps a vector. A wrong product passes one vector with a probability of at most
 * 1/251; eight vectors leave less than 2^-63. The vectors are drawn after the answer has come and are never told, so
 * there is nothing to prepare an answer for. Nobody but the holder of the question can tell the seed beforehand.
 *
 * Question, 44 bytes: "SLCQ", u16 version (1), u16 kind (1), u16 n (384), u16 p (251), 32 bytes of seed.
 * Answer: "SLCA", u16 version, u16 kind, SHA-256 of the question, then C row by row, a byte an element.
 *
 * Elements of A and B come from xoshiro256** over the seed's four words (for B each with all bits turned): eight bytes
 * a step, lowest first, those of 251 and more skipped. A's and B's streams fill their matrices row by row. */
#include "probes/challenge.h"
#include "core/clock.h"
#include "core/crypto.h"

#include <stdlib.h>
#include <string.h>

#define N 384
#define P 251
#define VECTORS 8
#define VERSION 1
#define KIND 1
#define SEED_BYTES 32
#define QUESTION_HEAD 12
#define QUESTION_BYTES (QUESTION_HEAD + SEED_BYTES)
#define ANSWER_HEAD (8 + SHA256_BYTES)
#define ANSWER_BYTES ((size_t)ANSWER_HEAD + (size_t)N * N)

/* The product takes some milliseconds; the rest is for machines under load and links across the world. */
#define DEADLINE_NS (5 * NS_PER_S)

static const uint8_t question_head[QUESTION_HEAD] = {'S',  'L', 'C',      'Q',    VERSION,  0,
                                                     KIND, 0,   N & 0xff, N >> 8, P & 0xff, P >> 8};
static const uint8_t answer_head[8] = {'S', 'L', 'C', 'A', VERSION, 0, KIND, 0};

/* -- the stream of elements -- */

struct stream {
    uint64_t state[4], bytes;
    unsigned left; /* bytes left in .bytes */
};

static struct stream stream_of(const uint8_t seed[SEED_BYTES], uint64_t flip)
{
    struct stream stream = {.left = 0};
    for (size_t i = 0; i < 4; i++) {
        for (size_t j = 0; j < 8; j++)
            stream.state[i] |= (uint64_t)seed[i * 8 + j] << (8 * j);
        stream.state[i] ^= flip;
    }
    return stream;
}

static uint64_t rotate(uint64_t x, unsigned by)
{
    return (x << by) | (x >> (64 - by));
}

static uint8_t next_element(struct stream *stream)
{
    for (;;) {
        if (stream->left == 0) {
            uint64_t *s = stream->state, shifted = s[1] << 17;
            stream->bytes = rotate(s[1] * 5, 7) * 9;
            s[2] ^= s[0];
            s[3] ^= s[1];
            s[1] ^= s[2];
            s[0] ^= s[3];
            s[2] ^= shifted;
            s[3] = rotate(s[3], 45);
            stream->left = 8;
        }
        uint8_t byte = (uint8_t)stream->bytes;
        stream->bytes >>= 8;
        stream->left--;
        if (byte < P)
            return byte;
    }
}

static void next_row(struct stream *stream, uint8_t row[static N])
{
    for (size_t i = 0; i < N; i++)
        row[i] = next_element(stream);
}

/* -- asking and answering -- */

void challenge_make(struct challenge *ret)
{
    memset(ret, 0, sizeof(*ret));
    memcpy(ret->question, question_head, QUESTION_HEAD);
    crypto_random(ret->question + QUESTION_HEAD, SEED_BYTES);
    ret->question_len = QUESTION_BYTES;
    ret->deadline_ns = DEADLINE_NS;
}

static bool question_seed(struct str question, uint8_t ret[static SEED_BYTES])
{
    if (question.len != QUESTION_BYTES || memcmp(question.ptr, question_head, QUESTION_HEAD) != 0)
        return false;
    memcpy(ret, question.ptr + QUESTION_HEAD, SEED_BYTES);
    return true;
}

enum error challenge_answer(struct str question, struct buf *ret_answer)
{
    uint8_t seed[SEED_BYTES], digest[SHA256_BYTES], row[N];
    uint32_t sums[N]; /* at most 384 x 250 x 250: fits */
    if (!question_seed(question, seed))
        return ERR_BAD_INPUT;
    uint8_t *b = malloc((size_t)N * N);
    if (!b || !buf_reserve(ret_answer, ANSWER_BYTES)) {
        free(b);
        return ERR_NO_MEMORY;
    }
    struct stream stream = stream_of(seed, UINT64_MAX);
    for (size_t i = 0; i < N; i++)
        next_row(&stream, b + i * N);
    crypto_sha256(question, digest);
    bool ok = buf_append(ret_answer, answer_head, sizeof(answer_head)) && buf_append(ret_answer, digest, SHA256_BYTES);
    stream = stream_of(seed, 0);
    for (size_t i = 0; i < N && ok; i++) {
        next_row(&stream, row);
        memset(sums, 0, sizeof(sums));
        for (size_t k = 0; k < N; k++) {
            const uint8_t *from = b + k * N;
            uint32_t factor = row[k];
            for (size_t j = 0; j < N; j++)
                sums[j] += factor * from[j];
        }
        for (size_t j = 0; j < N; j++)
            row[j] = (uint8_t)(sums[j] % P);
        ok = buf_append(ret_answer, row, N);
    }
    free(b);
    return ok ? ERR_NONE : ERR_NO_MEMORY; /* the room was reserved: always ok */
}

/* -- checking -- */

/* The eight products of a row with the eight vectors, modulo P. */
static void row_times(const uint8_t row[static N], const uint32_t vectors[static N * VECTORS],
                      uint32_t ret[static VECTORS])
{
    uint32_t sums[VECTORS] = {0};
    for (size_t k = 0; k < N; k++) {
        uint32_t factor = row[k];
        for (size_t v = 0; v < VECTORS; v++)
            sums[v] += factor * vectors[k * VECTORS + v];
    }
    for (size_t v = 0; v < VECTORS; v++)
        ret[v] = sums[v] % P;
}

/* Asks nothing of the heap: a gateway short of memory must not call an honest worker wrong. */
bool challenge_check(const struct challenge *challenge, struct str answer)
{
    uint8_t seed[SEED_BYTES], secret[SEED_BYTES], digest[SHA256_BYTES], row[N];
    uint32_t r[N * VECTORS], br[N * VECTORS], left[VECTORS], right[VECTORS];
    struct str question = {(const char *)challenge->question, challenge->question_len};
    if (!question_seed(question, seed) || answer.len != ANSWER_BYTES ||
        memcmp(answer.ptr, answer_head, sizeof(answer_head)) != 0)
        return false;
    crypto_sha256(question, digest);
    if (memcmp(answer.ptr + sizeof(answer_head), digest, SHA256_BYTES) != 0)
        return false;
    const uint8_t *c = (const uint8_t *)answer.ptr + ANSWER_HEAD;
    uint8_t most = 0;
    for (size_t i = 0; i < (size_t)N * N; i++)
        most = c[i] > most ? c[i] : most;
    if (most >= P) /* one answer only is right: 251 is not another way to write 0 */
        return false;
    crypto_random(secret, sizeof(secret));
    struct stream stream = stream_of(secret, 0);
    for (size_t i = 0; i < (size_t)N * VECTORS; i++)
        r[i] = next_element(&stream);
    stream = stream_of(seed, UINT64_MAX);
    for (size_t i = 0; i < N; i++) {
        next_row(&stream, row);
        row_times(row, r, br + i * VECTORS);
    }
    stream = stream_of(seed, 0);
    for (size_t i = 0; i < N; i++) {
        next_row(&stream, row);
        row_times(row, br, left);
        row_times(c + i * N, r, right);
        if (memcmp(left, right, sizeof(left)) != 0)
            return false;
    }
    return true;
}
