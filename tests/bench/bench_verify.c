/* What proofs cost the gateway, one thread: CHAIN prepared beforehand, and the answers of a large GPU checked. Nothing
 * large is proven here: what is measured is the verifier's arithmetic at the sizes of an H100's admission (80 GB of
 * tiles with D = 64, n = 8192, 8 blocks), an honest session at a small size, and answers that are garbage. The least of
 * several runs counts. */
#include "core/clock.h"
#include "core/crypto.h"
#include "probes/prover.h"
#include "probes/tiles.h"
#include "probes/vector.h"
#include "probes/verifier.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RUNS 7
#define N 8192u
#define BLOCKS 8u
#define ROW (N * BLOCKS)
#define TILES UINT64_C(10170000) /* 97 % of 80 GB */
#define ROUNDS 64u
#define PASSES 6u

static int64_t cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return now.tv_sec * NS_PER_S + now.tv_nsec;
}

static double ms_since(int64_t before_ns)
{
    return (double)(cpu_ns() - before_ns) / 1e6;
}

static volatile uint32_t sink;

/* -- beforehand -- */

static double make_ms(struct chain_shape shape)
{
    double least = 1e9;
    for (int run = 0; run < 3; run++) {
        struct fingerprint made;
        const int64_t before_ns = cpu_ns();
        if (fingerprint_make(shape, &made))
            abort();
        const double took = ms_since(before_ns);
        least = took < least ? took : least;
        fingerprint_free(&made);
    }
    return least;
}

/* -- online, part by part -- */

static const uint32_t seed[8] = {1, 2, 3, 4, 5, 6, 7, 8};
static uint8_t path[MERKLE_DEPTH_MAX * PROBE_HASH_BYTES];
static int8_t row[ROW];
static struct fingerprint print;
static struct signing_key *key;

static struct str path_of(uint64_t index, uint64_t leaves)
{
    return (struct str){(const char *)path, (size_t)merkle_path_length(index, leaves) * PROBE_HASH_BYTES};
}

static void check_tiles(void)
{
    uint32_t tile[PROBE_TILE_WORDS], stream[PROBE_PASS_KEY_WORDS], leaf[8];
    uint64_t nh[2];
    for (uint32_t pass = 0; pass < PASSES; pass++)
        pass_key_make(seed, stream);
    for (uint64_t i = 0; i < 64; i++) {
        const uint64_t index = i * 158906;
        tile_make(seed, index, ROUNDS, tile);
        tile_nh(tile, stream, nh);
        probe_tile_leaf(seed, index, nh[0], nh[1], leaf);
        sink += merkle_check(leaf, index, TILES, path_of(index, TILES), seed);
    }
}

static void check_walks(void)
{
    static uint64_t trace[257];
    uint32_t line[PROBE_LINE_WORDS], stream[PROBE_WALK_KEY_WORDS], leaf[8];
    walk_key_make(seed, stream);
    for (uint32_t i = 0; i < 32; i++) {
        tile_line_make(seed, i * 1000, i, ROUNDS, line);
        trace[1] = line_nh(line, stream) + probe_walk_start(seed, i);
        walk_leaf(seed, i, trace, 256, leaf);
        sink += merkle_check(leaf, i, 1056, path_of(i, 1056), seed);
    }
}

static void check_rows(void)
{
    uint32_t leaf[8];
    for (uint32_t i = 0; i < 4; i++) {
        sink += fingerprint_check(&print, i, (struct str){(const char *)row, ROW});
        chain_leaf(seed, i, row, ROW, leaf);
        sink += merkle_check(leaf, i, N, path_of(i, N), seed);
    }
}

static void check_one_row(void)
{
    sink += fingerprint_check(&print, 1, (struct str){(const char *)row, ROW});
}

static void check_net(void) /* 1 MiB made and hashed once, 16 ends and frames; 16 tiles of what comes up */
{
    static uint8_t payload[PROBE_NET_MAX];
    uint32_t tile[PROBE_TILE_WORDS], digest[8];
    struct probe_hash prefix;
    struct probe_frame frame = {.type = PROBE_NET, .of.net.payload = {(const char *)payload, sizeof(payload)}};
    struct buf to;
    buf_init(&to, PROBE_FRAME_MAX);
    crypto_random(payload, sizeof(payload));
    probe_hash_init(&prefix, PROBE_HASH_NET);
    probe_hash_update(&prefix, payload, sizeof(payload) - 32);
    for (int i = 0; i < 16; i++) {
        struct probe_hash end = prefix;
        probe_hash_update(&end, payload, 32);
        probe_hash_final(&end, digest);
        buf_clear(&to);
        sink += digest[0] + probe_frame_encode(&frame, &to);
    }
    buf_free(&to);
    for (uint64_t i = 0; i < 16; i++)
        tile_make(seed, i, ROUNDS, tile);
}

static void check_signatures(void) /* HELLO and four commitments */
{
    uint8_t signature[ED25519_SIGNATURE], public[ED25519_BYTES];
    signing_key_public(key, public);
    memset(signature, 1, sizeof(signature));
    for (int i = 0; i < 5; i++)
        sink += signature_check(public, (struct str){(const char *)path, 500}, signature);
}

static void check_bind(void)
{
    uint8_t public[32], secret[32] = {1};
    struct exchange_key *exchange;
    struct buf sealed;
    buf_init(&sealed, PROBE_SEALED_MAX);
    if (exchange_key_new(&exchange))
        abort();
    exchange_key_public(exchange, public);
    if (seal(public, secret, STR("context"), STR("0123456789abcdef0123456789abcdef"), &sealed))
        abort();
    exchange_key_free(exchange);
    buf_free(&sealed);
}

static double part(const char *name, void (*work)(void))
{
    double least = 1e9;
    for (int run = 0; run < RUNS; run++) {
        const int64_t before_ns = cpu_ns();
        work();
        const double took = ms_since(before_ns);
        least = took < least ? took : least;
    }
    printf("  %-48s %7.3f ms\n", name, least);
    return least;
}

static double online(void)
{
    double total = part("64 tiles (D = 64), hashes, paths of 24 levels", check_tiles);
    total += part("32 walks of 256 steps", check_walks);
    total += part("4 rows of 64 KiB: fingerprints, leaves, paths", check_rows);
    total += part("network: 16 MiB down, 16 of the tiles up", check_net);
    total += part("5 signatures", check_signatures);
    total += part("1 sealed secret", check_bind);
    printf("  %-48s %7.3f ms   (bar: 10)\n", "admission, online", total);
    part("  of which the fingerprint of one row", check_one_row);
    return total;
}

/* -- sessions -- */

/* An honest session over a CPU: what the calls of the verifier took. change: what comes in the place of PASS's proof.
 */
static struct verify_report session_of(enum verify_purpose purpose, const struct catalogue *catalogue,
                                       struct chain_pool *pool)
{
    struct prover *prover;
    struct verify_session *session;
    struct verify_send send;
    struct buf answer;
    const struct prover_options made = {.backend = &probe_backend_cpu, .key = key, .devices = 1};
    const struct verify_options options = {.purpose = purpose, .catalogue = catalogue, .pool = pool};
    if (prover_open(&made, &prover) || verify_open(&options, &session))
        abort();
    buf_init(&answer, PROBE_FRAME_MAX);
    enum verify_next next = verify_start(session, &send);
    while (next == VERIFY_SEND) {
        buf_clear(&answer);
        if (prover_answer(prover, send.frame, &answer))
            abort();
        next = verify_answer(session, buf_str(&answer), NS_PER_MS, &send);
    }
    const struct verify_report report = *verify_report(session);
    buf_free(&answer);
    verify_free(session);
    prover_free(prover);
    return report;
}

static void garbage_ms(const char *name, struct str bytes)
{
    double least = 1e9;
    for (int run = 0; run < RUNS; run++) {
        struct probe_frame frame;
        const int64_t before_ns = cpu_ns();
        sink += (uint32_t)probe_frame_decode(bytes, &frame);
        const double took = ms_since(before_ns);
        least = took < least ? took : least;
    }
    printf("  %-48s %7.3f ms   (bar: 1)\n", name, least);
}

static void sessions(void)
{
    static char bytes[PROBE_FRAME_MAX + 1];
    char error[512];
    struct catalogue *catalogue;
    struct chain_pool *pool;
    if (catalogue_open(NULL, &catalogue, error) || chain_pool_open(1, &pool))
        abort();
    double least[3] = {1e9, 1e9, 1e9};
    for (int run = 0; run < RUNS; run++)
        for (int purpose = VERIFY_ADMISSION; purpose <= VERIFY_LEASE; purpose++) {
            const struct verify_report report = session_of((enum verify_purpose)purpose, catalogue, pool);
            if (report.result != VERIFY_PASSED) {
                fprintf(stderr, "%s\n", report.reason);
                abort();
            }
            const double took = (double)report.cpu_ns / 1e6;
            least[purpose] = took < least[purpose] ? took : least[purpose];
        }
    printf("a machine without a GPU, its CHAIN made on the spot:\n  admission %.2f ms, spot check %.2f ms, lease %.2f "
           "ms\n",
           least[0], least[1], least[2]);
    crypto_random(bytes, sizeof(bytes));
    printf("answers that are none:\n");
    garbage_ms("empty", (struct str){bytes, 0});
    garbage_ms("1 MiB of random bytes", (struct str){bytes, PROBE_FRAME_MAX});
    garbage_ms("a byte too many", (struct str){bytes, PROBE_FRAME_MAX + 1});
    memcpy(bytes, "SL\1\12", 4);
    const uint32_t length = PROBE_FRAME_MAX - PROBE_FRAME_HEAD;
    memcpy(bytes + 4, &length, sizeof(length));
    garbage_ms("1 MiB of random bytes as a proof", (struct str){bytes, PROBE_FRAME_MAX});
    chain_pool_free(pool);
    catalogue_free(catalogue);
}

int main(void)
{
    static const char *const names[] = {"portable", "AVX2", "AVX-512"};
    const enum probe_vector best = probe_vector_best();
    double offline_ms = 0, online_ms = 0;
    if (signing_key_new(&key) || fingerprint_make((struct chain_shape){N, BLOCKS, 1}, &print))
        abort();
    for (int form = best > PROBE_VECTOR_AVX2 ? PROBE_VECTOR_AVX2 : (int)best; form <= (int)best; form++) {
        probe_vector_force((enum probe_vector)form);
        const double one = make_ms((struct chain_shape){N, BLOCKS, 1}),
                     six = make_ms((struct chain_shape){N, BLOCKS, 6}),
                     more = make_ms((struct chain_shape){N, BLOCKS, 26});
        const double step = (more - six) / 20;
        printf("%s, one core\n", names[form]);
        printf("beforehand, n = 8192, 8 blocks: matrix and first row %.0f ms, a step %.2f ms, spot check of 6 steps "
               "%.0f ms, "
               "admission of 50 %.0f ms\n",
               one - step, step, six, six + 44 * step);
        printf("online, at an H100's sizes:\n");
        online_ms = online();
        offline_ms = six;
    }
    /* a spot check has no WALK and no network, so an admission's cost is more than its own */
    printf("1,000 GPUs re-checked hourly: %.1f %% of one core   (bar: 10)\n",
           (offline_ms + online_ms) * 1000 / 3.6e6 * 100);
    sessions();
    fingerprint_free(&print);
    signing_key_free(key);
    return 0;
}
