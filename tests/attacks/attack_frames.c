/* The protocol bent: frames replayed, signed by others, too late, torn, too many; roots chosen late; paths that lead
 * elsewhere. The device itself is honest and would pass; every one of these must be caught, always. */
#include "tests/attacks/world.h"
#include "core/clock.h"
#include "core/crypto.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define H100 "nvidia/h100-sxm-80"

static struct world world;
static bool is_right = true;
static int64_t most_cpu_ns; /* that refusing what is no frame cost */

/* -- where to strike, and what with -- */

struct strike {
    enum probe_frame_type ask;
    enum probe_kind kind; /* of a CHALLENGE, or of what an OPEN opens; 0: any */
    void (*change)(struct strike *strike, const struct probe_frame *ask, struct buf *answer, int64_t *took_ns);
    struct buf kept; /* an answer of another session, or of an earlier frame */
    bool is_recording;
    enum probe_kind now; /* the challenge under way */
};

static void strike(void *ctx, const struct probe_frame *ask, unsigned round, struct buf *answer, int64_t *took_ns)
{
    struct strike *self = ctx;
    (void)round;
    if (ask->type == PROBE_CHALLENGE)
        self->now = ask->of.challenge.kind;
    const bool has_kind = ask->type == PROBE_CHALLENGE || ask->type == PROBE_OPEN;
    if (ask->type != self->ask || (self->kind && has_kind && self->kind != self->now))
        return;
    if (self->is_recording) {
        buf_clear(&self->kept);
        must(buf_append_str(&self->kept, buf_str(answer)), "no memory");
    } else {
        self->change(self, ask, answer, took_ns);
    }
}

static void replace(struct buf *answer, struct str by)
{
    buf_clear(answer);
    must(buf_append_str(answer, by), "no memory");
}

static void sign_with(const struct signing_key *key, struct buf *answer)
{
    uint8_t signature[PROBE_SIGNATURE_BYTES];
    must(!signing_key_sign(key, probe_signed_part(buf_str(answer)), signature), "no signature");
    memcpy(answer->ptr + answer->len - sizeof(signature), signature, sizeof(signature));
}

static void encode(const struct probe_frame *frame, struct buf *answer)
{
    struct buf made;
    buf_init(&made, PROBE_FRAME_MAX);
    must(probe_frame_encode(frame, &made), "no memory");
    replace(answer, buf_str(&made));
    buf_free(&made);
}

#define CHANGE(name) \
    static void name(struct strike *self, const struct probe_frame *ask, struct buf *answer, int64_t *took_ns)
#define UNUSED (void)self, (void)ask, (void)answer, (void)took_ns

/* -- replays -- */

CHANGE(replay) /* the very frame of another session */
{
    UNUSED;
    replace(answer, buf_str(&self->kept));
}

CHANGE(replay_signed_anew) /* its roots under this challenge's id */
{
    struct probe_frame old;
    UNUSED;
    must(!probe_frame_decode(buf_str(&self->kept), &old), "no frame");
    memcpy(old.of.commit.id, ask->of.challenge.id, PROBE_ID_BYTES);
    encode(&old, answer);
    sign_with(world.key, answer);
}

CHANGE(signed_by_another)
{
    UNUSED;
    sign_with(world.other_key, answer);
}

CHANGE(name_another_key) /* a hello with a key that did not sign it */
{
    struct probe_frame hello;
    UNUSED;
    must(!probe_frame_decode(buf_str(answer), &hello), "no frame");
    signing_key_public(world.other_key, hello.of.hello.worker_key);
    encode(&hello, answer);
    sign_with(world.key, answer);
}

/* -- roots -- */

CHANGE(root_to_come) /* commits to nothing; the openings are of the true tree, which it makes when it knows them */
{
    struct probe_frame commit;
    UNUSED;
    must(!probe_frame_decode(buf_str(answer), &commit), "no frame");
    for (uint32_t i = 0; i < commit.of.commit.root_count; i++)
        crypto_random(commit.of.commit.roots[i], PROBE_HASH_BYTES);
    encode(&commit, answer);
    sign_with(world.key, answer);
}

CHANGE(commit_again) /* another root once the openings are known */
{
    UNUSED;
    replace(answer, buf_str(&self->kept));
}

CHANGE(fewer_roots)
{
    struct probe_frame commit;
    UNUSED;
    must(!probe_frame_decode(buf_str(answer), &commit), "no frame");
    commit.of.commit.root_count--;
    encode(&commit, answer);
    sign_with(world.key, answer);
}

CHANGE(fewer_tiles)
{
    struct probe_frame commit;
    UNUSED;
    must(!probe_frame_decode(buf_str(answer), &commit), "no frame");
    commit.of.commit.items--;
    encode(&commit, answer);
    sign_with(world.key, answer);
}

/* -- openings -- */

CHANGE(wrong_path)
{
    struct probe_frame proof;
    UNUSED;
    must(!probe_frame_decode(buf_str(answer), &proof), "no frame");
    answer->ptr[proof.of.proof.items[0].path.ptr - answer->ptr + 5] ^= 1;
}

CHANGE(short_path)
{
    struct probe_frame proof;
    UNUSED;
    must(!probe_frame_decode(buf_str(answer), &proof), "no frame");
    proof.of.proof.items[0].path.len -= PROBE_HASH_BYTES;
    encode(&proof, answer);
}

CHANGE(path_of_another) /* what is right for one tile is given for the next */
{
    struct probe_frame proof;
    UNUSED;
    must(!probe_frame_decode(buf_str(answer), &proof), "no frame");
    proof.of.proof.items[0].path = proof.of.proof.items[1].path;
    proof.of.proof.items[0].data = proof.of.proof.items[1].data;
    encode(&proof, answer);
}

CHANGE(other_openings) /* it opens what it likes */
{
    struct probe_frame proof;
    UNUSED;
    must(!probe_frame_decode(buf_str(answer), &proof), "no frame");
    proof.of.proof.items[0] = proof.of.proof.items[1];
    encode(&proof, answer);
}

CHANGE(half_of_the_openings)
{
    struct probe_frame proof;
    UNUSED;
    must(!probe_frame_decode(buf_str(answer), &proof), "no frame");
    proof.of.proof.count /= 2;
    encode(&proof, answer);
}

CHANGE(flood_of_openings) /* twice as many as asked for */
{
    struct probe_frame proof;
    UNUSED;
    must(!probe_frame_decode(buf_str(answer), &proof), "no frame");
    struct probe_proof *all = &proof.of.proof;
    for (uint32_t i = 0; i < all->count && all->count + i < PROBE_OPENINGS_MAX; i++)
        all->items[all->count + i] = all->items[i];
    all->count = all->count * 2 < PROBE_OPENINGS_MAX ? all->count * 2 : PROBE_OPENINGS_MAX;
    encode(&proof, answer);
}

CHANGE(flip_data)
{
    struct probe_frame proof;
    UNUSED;
    must(!probe_frame_decode(buf_str(answer), &proof), "no frame");
    answer->ptr[proof.of.proof.items[0].data.ptr - answer->ptr] ^= 1;
}

CHANGE(flip_last_byte)
{
    UNUSED;
    answer->ptr[answer->len - 1] ^= 1;
}

/* -- time -- */

CHANGE(too_late)
{
    UNUSED;
    *took_ns = 60 * NS_PER_S + 1;
}

CHANGE(never)
{
    UNUSED;
    *took_ns = -1;
}

CHANGE(half_a_second) /* within the deadline, and yet too slow */
{
    UNUSED;
    *took_ns += NS_PER_S / 2;
}

/* -- what is no frame -- */

CHANGE(nothing)
{
    UNUSED;
    buf_clear(answer);
}

CHANGE(garbage)
{
    uint8_t bytes[4096];
    UNUSED;
    crypto_random(bytes, sizeof(bytes));
    replace(answer, (struct str){(const char *)bytes, 1 + chance() % (sizeof(bytes) - 1)});
}

CHANGE(half_a_frame)
{
    UNUSED;
    answer->len /= 2;
}

CHANGE(trailing_bytes)
{
    UNUSED;
    must(buf_append_str(answer, STR("more")), "no memory");
}

CHANGE(zeros_of_a_mebibyte)
{
    UNUSED;
    buf_clear(answer);
    must(buf_reserve(answer, PROBE_FRAME_MAX), "no memory");
    memset(answer->ptr, 0, PROBE_FRAME_MAX);
    answer->len = PROBE_FRAME_MAX;
}

CHANGE(huge_count) /* a head that tells of more than there is */
{
    UNUSED;
    memset(answer->ptr + 4, 0xff, 4);
}

CHANGE(another_type)
{
    struct probe_frame ack = {.type = PROBE_ACK};
    UNUSED;
    encode(&ack, answer);
}

CHANGE(an_error)
{
    struct probe_frame error = {.type = PROBE_ERROR};
    UNUSED;
    error.of.error = (struct probe_error_frame){PROBE_FAILURE_DEVICE, STR("no")};
    encode(&error, answer);
}

/* -- playing -- */

enum { IS_REPLAY = 1 };
static const struct attack {
    const char *name;
    enum probe_frame_type ask;
    enum probe_kind kind;
    void (*change)(struct strike *, const struct probe_frame *, struct buf *, int64_t *);
    int replay;
    bool is_no_frame; /* counts for the cost of garbage */
} attacks[] = {
    {"a hello of another session", PROBE_HELLO_ASK, 0, replay, IS_REPLAY, false},
    {"a hello signed by another key", PROBE_HELLO_ASK, 0, signed_by_another, 0, false},
    {"a hello that names another's key", PROBE_HELLO_ASK, 0, name_another_key, 0, false},
    {"a FILL commitment of another session", PROBE_CHALLENGE, PROBE_KIND_FILL, replay, IS_REPLAY, false},
    {"a PASS root of another session", PROBE_CHALLENGE, PROBE_KIND_PASS, replay, IS_REPLAY, false},
    {"a PASS root of another session, signed anew", PROBE_CHALLENGE, PROBE_KIND_PASS, replay_signed_anew, IS_REPLAY,
     false},
    {"a WALK root of another session, signed anew", PROBE_CHALLENGE, PROBE_KIND_WALK, replay_signed_anew, IS_REPLAY,
     false},
    {"a CHAIN root of another session", PROBE_CHALLENGE, PROBE_KIND_CHAIN, replay, IS_REPLAY, false},
    {"a CHAIN root of another session, signed anew", PROBE_CHALLENGE, PROBE_KIND_CHAIN, replay_signed_anew, IS_REPLAY,
     false},
    {"a CHAIN proof of another session", PROBE_OPEN, PROBE_KIND_CHAIN, replay, IS_REPLAY, false},
    {"a CHAIN commitment signed by another worker", PROBE_CHALLENGE, PROBE_KIND_CHAIN, signed_by_another, 0, false},
    {"PASS roots chosen after the openings", PROBE_CHALLENGE, PROBE_KIND_PASS, root_to_come, 0, false},
    {"a WALK root chosen after the openings", PROBE_CHALLENGE, PROBE_KIND_WALK, root_to_come, 0, false},
    {"a CHAIN root chosen after the openings", PROBE_CHALLENGE, PROBE_KIND_CHAIN, root_to_come, 0, false},
    {"a second commitment instead of the openings", PROBE_OPEN, PROBE_KIND_CHAIN, commit_again, 2, false},
    {"one PASS root too few", PROBE_CHALLENGE, PROBE_KIND_PASS, fewer_roots, 0, false},
    {"one tile too few", PROBE_CHALLENGE, PROBE_KIND_FILL, fewer_tiles, 0, false},
    {"a wrong path of PASS", PROBE_OPEN, PROBE_KIND_PASS, wrong_path, 0, false},
    {"a wrong path of WALK", PROBE_OPEN, PROBE_KIND_WALK, wrong_path, 0, false},
    {"a wrong path of CHAIN", PROBE_OPEN, PROBE_KIND_CHAIN, wrong_path, 0, false},
    {"a path of CHAIN cut short", PROBE_OPEN, PROBE_KIND_CHAIN, short_path, 0, false},
    {"the path of another tile", PROBE_OPEN, PROBE_KIND_PASS, path_of_another, 0, false},
    {"the row and path of another row", PROBE_OPEN, PROBE_KIND_CHAIN, path_of_another, 0, false},
    {"other rows than asked for", PROBE_OPEN, PROBE_KIND_CHAIN, other_openings, 0, false},
    {"half of the openings", PROBE_OPEN, PROBE_KIND_PASS, half_of_the_openings, 0, false},
    {"a flood of openings", PROBE_OPEN, PROBE_KIND_PASS, flood_of_openings, 0, false},
    {"half of the tiles that NET asks for", PROBE_OPEN, PROBE_KIND_FILL, half_of_the_openings, 0, false},
    {"one bit of a walker's trace", PROBE_OPEN, PROBE_KIND_WALK, flip_data, 0, false},
    {"one bit of a row", PROBE_OPEN, PROBE_KIND_CHAIN, flip_data, 0, false},
    {"a wrong digest of what came down", PROBE_NET, 0, flip_last_byte, 0, false},
    {"a wrong secret of BIND", PROBE_BIND, 0, flip_last_byte, 0, false},
    {"a ping's answer to another", PROBE_PING, 0, flip_last_byte, 0, false},
    {"FILL later than its deadline", PROBE_CHALLENGE, PROBE_KIND_FILL, too_late, 0, false},
    {"CHAIN later than its deadline", PROBE_CHALLENGE, PROBE_KIND_CHAIN, too_late, 0, false},
    {"openings later than their deadline", PROBE_OPEN, PROBE_KIND_CHAIN, too_late, 0, false},
    {"silence at hello", PROBE_HELLO_ASK, 0, never, 0, false},
    {"silence at PASS", PROBE_CHALLENGE, PROBE_KIND_PASS, never, 0, false},
    {"half a second late at PASS, in its deadline", PROBE_CHALLENGE, PROBE_KIND_PASS, half_a_second, 0, false},
    {"half a second late at CHAIN, in its deadline", PROBE_CHALLENGE, PROBE_KIND_CHAIN, half_a_second, 0, false},
    {"empty answers", PROBE_HELLO_ASK, 0, nothing, 0, true},
    {"garbage", PROBE_HELLO_ASK, 0, garbage, 0, true},
    {"half a frame at hello", PROBE_HELLO_ASK, 0, half_a_frame, 0, true},
    {"half a frame of openings", PROBE_OPEN, PROBE_KIND_CHAIN, half_a_frame, 0, false},
    {"bytes behind a frame", PROBE_HELLO_ASK, 0, trailing_bytes, 0, true},
    {"a mebibyte of zeros", PROBE_HELLO_ASK, 0, zeros_of_a_mebibyte, 0, true},
    {"a length of four gibibytes", PROBE_HELLO_ASK, 0, huge_count, 0, true},
    {"a frame of another type", PROBE_CHALLENGE, PROBE_KIND_CHAIN, another_type, 0, false},
    {"a device that says it failed", PROBE_CHALLENGE, PROBE_KIND_CHAIN, an_error, 0, false},
};

static void run(struct strike *with, struct verify_report *ret)
{
    struct lie lie = {.claim = claim_of(&world, H100)};
    struct contest contest = {.world = &world,
                              .options = options_for(&world, VERIFY_ADMISSION, H100),
                              .machine = machine_of(&world, H100),
                              .lie = &lie,
                              .tamper = with->change ? strike : NULL,
                              .ctx = with};
    contest_run(&contest, ret);
}

static void play(const struct attack *attack, unsigned trials)
{
    struct tally tally = {.attack = attack->name, .class_name = H100};
    struct strike with = {.ask = attack->ask, .kind = attack->kind, .change = attack->change};
    struct verify_report report;
    buf_init(&with.kept, PROBE_FRAME_MAX);
    if (attack->replay) {
        with.is_recording = true;
        with.ask = attack->replay == 2 ? PROBE_CHALLENGE : attack->ask;
        run(&with, &report);
        must(report.result == VERIFY_PASSED && with.kept.len > 0, "an honest session fails");
        with.is_recording = false;
        with.ask = attack->ask;
    }
    for (unsigned i = 0; i < trials; i++) {
        run(&with, &report);
        tally_add(&tally, &report);
        if (attack->is_no_frame && report.cpu_ns > most_cpu_ns)
            most_cpu_ns = report.cpu_ns;
    }
    buf_free(&with.kept);
    is_right &= tally_end(&tally);
}

/* A proof that another worker gave is not this one's, though it is right. */
static void relay(unsigned trials)
{
    struct tally tally = {.attack = "all answers are another worker's", .class_name = H100};
    uint8_t key[PROBE_KEY_BYTES];
    signing_key_public(world.key, key);
    for (unsigned i = 0; i < trials; i++) {
        struct lie lie = {.claim = claim_of(&world, H100)};
        struct verify_report report;
        struct contest contest = {.world = &world,
                                  .options = options_for(&world, VERIFY_SPOT, H100),
                                  .machine = machine_of(&world, H100),
                                  .lie = &lie,
                                  .key = world.other_key};
        contest.options.expect_key = key;
        contest_run(&contest, &report);
        tally_add(&tally, &report);
    }
    is_right &= tally_end(&tally);
}

/* The other end: whoever asks twice for openings of one commitment could choose among draws; nobody may. */
struct again {
    struct prover *prover;
    unsigned refused, asked;
};

static void ask_again(void *ctx, const struct probe_frame *ask, unsigned round, struct buf *answer, int64_t *took_ns)
{
    struct again *self = ctx;
    struct buf frame, second;
    struct probe_frame given;
    (void)round;
    (void)took_ns;
    (void)answer;
    if (ask->type != PROBE_OPEN)
        return;
    buf_init(&frame, PROBE_FRAME_MAX);
    buf_init(&second, PROBE_FRAME_MAX);
    must(probe_frame_encode(ask, &frame), "no memory");
    must(!prover_answer(self->prover, buf_str(&frame), &second) && !probe_frame_decode(buf_str(&second), &given),
         "no answer");
    self->asked++;
    self->refused += given.type == PROBE_ERROR;
    buf_free(&frame);
    buf_free(&second);
}

static void openings_are_drawn_once(void)
{
    struct again again = {0};
    struct lie lie = {.claim = claim_of(&world, H100)};
    struct contest contest = {.world = &world,
                              .options = options_for(&world, VERIFY_SPOT, H100),
                              .machine = machine_of(&world, H100),
                              .lie = &lie,
                              .tamper = ask_again,
                              .ctx = &again};
    contest_open(&contest);
    again.prover = contest.prover;
    while (contest.next != VERIFY_DONE)
        contest_judge(&contest, contest_work(&contest));
    is_right &= verify_report(contest.session)->result == VERIFY_PASSED && again.asked == 2 && again.refused == 2;
    printf("A prover that is asked twice to open one commitment refused %u of %u.\n", again.refused, again.asked);
    contest_close(&contest);
}

/* Two hundred sessions with what is no frame: the memory in use is what it was. */
static void nothing_lasts(void)
{
    const size_t count = sizeof(attacks) / sizeof(attacks[0]);
    size_t before = 0;
    unsigned sessions = 0;
    for (unsigned round = 0; round < 2; round++) {
        before = mallinfo2().uordblks; /* the first round warms up what libraries keep */
        for (sessions = 0; sessions < 200;)
            for (size_t i = 0; i < count; i++) {
                struct strike with = {.ask = attacks[i].ask, .change = attacks[i].change};
                struct verify_report report;
                if (!attacks[i].is_no_frame)
                    continue;
                run(&with, &report);
                sessions++;
            }
    }
    const size_t after = mallinfo2().uordblks;
    printf("After %u more such sessions %zu bytes more were in use.\n", sessions, after > before ? after - before : 0);
    is_right &= after <= before + 4096;
}

int main(void)
{
    const char *text = getenv("ATTACK_TRIALS");
    int64_t trials = 200;
    if (text)
        must(str_to_i64(str_of(text), &trials) && trials >= 10 && trials <= 1000000, "ATTACK_TRIALS: 10 or more");
    world_open(&world);
    table_head("Frames (the device is honest)");
    for (size_t i = 0; i < sizeof(attacks) / sizeof(attacks[0]); i++)
        play(&attacks[i], (unsigned)trials / 20);
    relay((unsigned)trials / 20);
    openings_are_drawn_once();
    printf("What is no frame cost the verifier at most %.3f ms of CPU.\n", (double)most_cpu_ns / 1e6);
    is_right &= most_cpu_ns < 10 * NS_PER_MS;
    nothing_lasts();
    world_close(&world);
    return is_right ? 0 : 1;
}
