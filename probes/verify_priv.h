/* Inside the verifier: the session, and what each of its steps asks and checks. */
#ifndef SLUICE_PROBES_VERIFY_PRIV_H
#define SLUICE_PROBES_VERIFY_PRIV_H

#include "probes/hash.h"
#include "probes/verifier.h"

#define VERIFY_PINGS_MAX 16u
#define VERIFY_FILL_SHARE 0.97 /* of the claimed memory that FILL takes */

enum verify_ask { VERIFY_ASK_SEND, VERIFY_ASK_SKIP, VERIFY_ASK_WAIT, VERIFY_ASK_END /* the session is over */ };
enum verify_check { VERIFY_CHECK_NEXT, VERIFY_CHECK_AGAIN /* ask this step once more */, VERIFY_CHECK_END };

struct verify_step { /* one frame and its answer */
    const char *kind;
    enum probe_frame_type answer; /* what must come back */
    bool is_slotted;
    /* Fills the frame and the deadline in. */
    enum verify_ask (*ask)(struct verify_session *session, struct probe_frame *ret, int64_t *ret_deadline_ns);
    enum verify_check (*check)(struct verify_session *session, const struct probe_frame *answer, struct str bytes,
                               int64_t took_ns);
};
/* The steps of each purpose, in order; NULL ends them. */
extern const struct verify_step *const verify_admission_steps[];
extern const struct verify_step *const verify_spot_steps[];
extern const struct verify_step *const verify_lease_steps[];

struct verify_net { /* both directions; the slower one counts */
    uint8_t *payload;
    struct probe_hash prefix; /* of all of the payload but its last block */
    unsigned frames_done;
    int64_t took_ns;
    uint64_t bytes;
    double down_mbps;
};

struct verify_session {
    struct verify_options options; /* its views point into this session */
    char claimed_gpu[CATALOGUE_NAME_MAX], proven_gpu[CATALOGUE_NAME_MAX];
    uint8_t expect_key[PROBE_KEY_BYTES];

    struct verify_report report;
    struct verify_step_report now; /* the challenge under way; kind "" between them */
    struct buf frame, sealed;
    const struct verify_step *const *step;
    int64_t deadline_ns; /* of what was sent last */
    bool is_asked;       /* an answer is awaited */
    bool has_work;       /* a challenge was sent, so that the device may hold memory */
    bool is_released;    /* ... RELEASE too */

    const struct gpu_class *sizes; /* what challenges are sized by: the class of the claim, or a guess by its memory */
    struct gpu_class guess;
    bool is_cpu;
    uint32_t worker_words[8];
    uint8_t nonce[32];
    int64_t rtts_ns[VERIFY_PINGS_MAX], rtt_total_ns;
    unsigned rtt_count, waits;
    struct verify_net net;
    uint8_t fill_id[PROBE_ID_BYTES];
    struct probe_fill fill;
    struct probe_pass pass;
    uint32_t pass_keys[PROBE_PASSES_MAX][8], pass_roots[PROBE_PASSES_MAX][8];
    struct probe_walk walk;
    uint32_t walk_root[8];
    struct chain_shape shape; /* n = 0: not chosen yet */
    struct fingerprint print; /* prints NULL: not taken yet */
    uint32_t chain_root[8];
    struct probe_open open; /* what was last asked for */
    uint8_t bound[32];
};

/* Ends the session. The reason is the step's kind and the text. */
enum verify_check verify_fail(struct verify_session *session, enum verify_result result, const char *format, ...)
    PRINTF_LIKE(3, 4);

/* The steps of a purpose, for session->step. */
const struct verify_step *const *verify_steps_of(enum verify_purpose purpose);

/* -- verify_size.c: how much is asked for -- */
/* After HELLO: the class to size by. */
void verify_choose_class(struct verify_session *session);
/* After that: does the work fit into the memory that is free? A smaller purpose is chosen where that is allowed; false:
 * a first proof does not fit, and the session has failed. */
bool verify_fit(struct verify_session *session);
void verify_choose_rtt(struct verify_session *session); /* the median of the pings */
uint64_t verify_fill_tiles(const struct verify_session *session);
uint32_t verify_passes(const struct verify_session *session);
uint32_t verify_walk_steps(const struct verify_session *session);
/* false: none fits into the memory that is free. */
bool verify_chain_shape(const struct verify_session *session, struct chain_shape *ret);
/* Seconds that an honest device of the class needs. */
double verify_fill_s(const struct verify_session *session, uint64_t tiles);
double verify_pass_s(const struct verify_session *session, uint64_t tiles, uint32_t passes);
double verify_walk_s(const struct verify_session *session, uint32_t steps);
double verify_chain_s(const struct verify_session *session, struct chain_shape shape);
double verify_chain_operations(struct chain_shape shape);
/* With a round trip so long no honest device would reach its rates: nothing can be said. */
bool verify_is_too_far(const struct verify_session *session, double expected_s);
int64_t verify_deadline_ns(const struct verify_session *session, double expected_s);

/* -- verify_check.c: is what was opened what was asked for? -- */
/* Draws what to open, after the commitment. */
void verify_draw_tiles(struct verify_session *session, uint32_t count, uint32_t passes);
void verify_draw_walkers(struct verify_session *session);
void verify_draw_rows(struct verify_session *session);
/* The items are those asked for, in order. */
bool verify_is_same_opening(const struct verify_session *session, const struct probe_proof *proof);
enum verify_check verify_pass_proof(struct verify_session *session, const struct probe_proof *proof);
enum verify_check verify_walk_proof(struct verify_session *session, const struct probe_proof *proof);
enum verify_check verify_chain_proof(struct verify_session *session, const struct probe_proof *proof);
enum verify_check verify_tiles_read(struct verify_session *session, const struct probe_proof *proof, uint32_t samples);

/* -- verify_judge.c -- */
void verify_judge(struct verify_session *session); /* all answers were right: class, ratio and result */

#endif
