/* The session: which step it is at, what every answer must satisfy before its step looks at it, and how it ends. */
#include "probes/verifier.h"
#include "core/clock.h"
#include "core/crypto.h"
#include "probes/verify_priv.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

const char *verify_result_name(enum verify_result result)
{
    static const char *const names[] = {[VERIFY_OPEN] = "open",   [VERIFY_PASSED] = "passed", [VERIFY_SLOW] = "slow",
                                        [VERIFY_WRONG] = "wrong", [VERIFY_LATE] = "late",     [VERIFY_LOST] = "lost"};
    assert((unsigned)result < sizeof(names) / sizeof(names[0]));
    return names[result];
}

static int64_t thread_cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return now.tv_sec * NS_PER_S + now.tv_nsec;
}

const struct verify_step *const *verify_steps_of(enum verify_purpose purpose)
{
    return purpose == VERIFY_ADMISSION ? verify_admission_steps
           : purpose == VERIFY_SPOT    ? verify_spot_steps
                                       : verify_lease_steps;
}

enum error verify_open(const struct verify_options *options, struct verify_session **ret)
{
    assert(options->catalogue && options->pool && options->gpu < PROBE_DEVICES_MAX);
    struct verify_session *session = calloc(1, sizeof(*session));
    if (!session)
        return ERR_NO_MEMORY;
    session->options = *options;
    session->options.claimed_gpu = (struct str){session->claimed_gpu, 0};
    if (str_copy(session->claimed_gpu, sizeof(session->claimed_gpu), options->claimed_gpu))
        session->options.claimed_gpu.len = options->claimed_gpu.len; /* a longer one is no class's */
    session->options.proven_gpu = (struct str){session->proven_gpu, 0};
    if (str_copy(session->proven_gpu, sizeof(session->proven_gpu), options->proven_gpu))
        session->options.proven_gpu.len = options->proven_gpu.len;
    if (options->expect_key) {
        memcpy(session->expect_key, options->expect_key, sizeof(session->expect_key));
        session->options.expect_key = session->expect_key;
    }
    session->report.purpose = options->purpose;
    session->step = verify_steps_of(options->purpose);
    session->sizes = &session->guess; /* until HELLO tells the class */
    buf_init(&session->frame, PROBE_FRAME_MAX);
    buf_init(&session->sealed, PROBE_SEALED_MAX);
    *ret = session;
    return ERR_NONE;
}

struct verify_session *verify_free(struct verify_session *session)
{
    if (!session)
        return NULL;
    buf_free(&session->frame);
    buf_free(&session->sealed);
    free(session->net.payload);
    fingerprint_free(&session->print);
    crypto_wipe(session, sizeof(*session));
    free(session);
    return NULL;
}

enum verify_check verify_fail(struct verify_session *session, enum verify_result result, const char *format, ...)
{
    struct verify_report *report = &session->report;
    char text[sizeof(report->reason)];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    report->result = result;
    if (*session->step)
        snprintf(report->reason, sizeof(report->reason), "%s: %.*s", (*session->step)->kind,
                 (int)sizeof(report->reason) - 12, text);
    else
        snprintf(report->reason, sizeof(report->reason), "%s", text);
    if (session->now.kind[0] && report->step_count < VERIFY_STEPS_MAX)
        report->steps[report->step_count++] = session->now; /* is_passed is false */
    session->now.kind[0] = '\0';
    return VERIFY_CHECK_END;
}

/* -- asking -- */

static enum verify_next send_frame(struct verify_session *session, const struct probe_frame *frame, int64_t deadline_ns,
                                   struct verify_send *ret)
{
    buf_clear(&session->frame);
    if (!probe_frame_encode(frame, &session->frame)) {
        verify_fail(session, VERIFY_LOST, "the gateway is out of memory");
        return VERIFY_DONE;
    }
    session->has_work |= frame->type == PROBE_CHALLENGE;
    session->is_released |= frame->type == PROBE_RELEASE;
    session->deadline_ns = deadline_ns;
    session->is_asked = true;
    *ret = (struct verify_send){buf_str(&session->frame), deadline_ns, (*session->step)->is_slotted};
    return VERIFY_SEND;
}

/* What failed half-way may have left a device full: it is told to let go, whatever it answers. Not one that is late,
 * for it is still at work. */
static enum verify_next end(struct verify_session *session, struct verify_send *ret)
{
    const enum verify_result result = session->report.result;
    struct probe_frame frame = {.type = PROBE_RELEASE, .of.warm.gpu = session->options.gpu};
    if ((result != VERIFY_WRONG && result != VERIFY_LOST) || !session->has_work || session->is_released)
        return VERIFY_DONE;
    session->is_released = true;
    buf_clear(&session->frame);
    if (!probe_frame_encode(&frame, &session->frame))
        return VERIFY_DONE;
    *ret = (struct verify_send){buf_str(&session->frame), verify_deadline_ns(session, 0), false};
    return VERIFY_SEND;
}

/* The step's frame, or the next one's that has any; judges when there is none left. */
static enum verify_next go_on(struct verify_session *session, struct verify_send *ret)
{
    struct probe_frame frame;
    while (*session->step) {
        int64_t deadline_ns = 0;
        memset(&frame, 0, sizeof(frame));
        switch ((*session->step)->ask(session, &frame, &deadline_ns)) {
        case VERIFY_ASK_SEND:
            return send_frame(session, &frame, deadline_ns, ret);
        case VERIFY_ASK_SKIP:
            session->step++;
            break;
        case VERIFY_ASK_WAIT:
            return VERIFY_WAIT;
        case VERIFY_ASK_END:
            return end(session, ret);
        }
    }
    verify_judge(session);
    return VERIFY_DONE;
}

/* -- answers -- */

static void refused(struct verify_session *session, enum probe_failure code)
{
    const bool is_lease = session->options.purpose == VERIFY_LEASE;
    switch (code) {
    case PROBE_FAILURE_BUSY:
        verify_fail(session, VERIFY_LOST, "the GPU is busy");
        return;
    case PROBE_FAILURE_NO_MEMORY:
        if (is_lease) /* the job beside it may have grown */
            verify_fail(session, VERIFY_LOST, "too little memory is free");
        else if ((*session->step)->answer == PROBE_COMMIT && strcmp(session->now.kind, "fill") == 0)
            verify_fail(session, VERIFY_WRONG, "claims more memory than it can fill");
        else
            verify_fail(session, VERIFY_WRONG, "it has not the memory for it");
        return;
    case PROBE_FAILURE_DEVICE:
        verify_fail(session, VERIFY_WRONG, "the device failed");
        return;
    case PROBE_FAILURE_UNKNOWN:
        verify_fail(session, VERIFY_WRONG, "it does not know what it was asked for");
        return;
    case PROBE_FAILURE_BAD_FRAME:
        verify_fail(session, VERIFY_WRONG, "it did not understand the frame");
        return;
    }
    verify_fail(session, VERIFY_WRONG, "it failed");
}

static enum verify_next answered(struct verify_session *session, struct str answer, int64_t took_ns,
                                 struct verify_send *ret)
{
    const struct verify_step *step = *session->step;
    struct probe_frame frame;
    if (took_ns < 0 || took_ns > session->deadline_ns)
        verify_fail(session, VERIFY_LATE, "no answer within %d ms", (int)(session->deadline_ns / NS_PER_MS));
    else if (probe_frame_decode(answer, &frame))
        verify_fail(session, VERIFY_WRONG, "the answer is no frame of the protocol");
    else if (frame.type == PROBE_ERROR)
        refused(session, frame.of.error.code);
    else if (frame.type != step->answer)
        verify_fail(session, VERIFY_WRONG, "a frame of another type");
    else
        switch (step->check(session, &frame, answer, took_ns)) {
        case VERIFY_CHECK_NEXT:
            session->step++;
            return go_on(session, ret);
        case VERIFY_CHECK_AGAIN:
            return go_on(session, ret);
        case VERIFY_CHECK_END:
            break;
        }
    return end(session, ret);
}

/* -- calls -- */

enum verify_next verify_start(struct verify_session *session, struct verify_send *ret)
{
    const int64_t before_ns = thread_cpu_ns();
    assert(session->report.result == VERIFY_OPEN && !session->is_asked);
    enum verify_next next = go_on(session, ret);
    session->report.cpu_ns += thread_cpu_ns() - before_ns;
    return next;
}

enum verify_next verify_answer(struct verify_session *session, struct str answer, int64_t took_ns,
                               struct verify_send *ret)
{
    const int64_t before_ns = thread_cpu_ns();
    if (session->report.result != VERIFY_OPEN)
        return VERIFY_DONE;
    assert(session->is_asked);
    session->is_asked = false;
    enum verify_next next = answered(session, answer, took_ns, ret);
    session->report.cpu_ns += thread_cpu_ns() - before_ns;
    return next;
}

enum verify_next verify_resume(struct verify_session *session, struct verify_send *ret)
{
    const int64_t before_ns = thread_cpu_ns();
    if (session->report.result != VERIFY_OPEN)
        return VERIFY_DONE;
    assert(!session->is_asked);
    enum verify_next next = go_on(session, ret);
    session->report.cpu_ns += thread_cpu_ns() - before_ns;
    return next;
}

void verify_lose(struct verify_session *session)
{
    if (session->report.result == VERIFY_OPEN)
        verify_fail(session, VERIFY_LOST, "the link went");
}

const struct verify_report *verify_report(const struct verify_session *session)
{
    return &session->report;
}

enum error verify_verdict_frame(struct verify_session *session, struct str receipt, struct buf *to)
{
    const struct verify_report *report = &session->report;
    assert(report->result != VERIFY_OPEN && receipt.len <= PROBE_RECEIPT_MAX);
    const struct probe_frame frame = {.type = PROBE_VERDICT,
                                      .of.verdict = {.is_passed = report->result == VERIFY_PASSED,
                                                     .reason = str_of(report->reason),
                                                     .receipt = receipt}};
    return probe_frame_encode(&frame, to) ? ERR_NONE : ERR_NO_MEMORY;
}
