/* A session is in one place at a time: with a verify thread (in_pool), with the reactor (between send and back), or
 * with the control thread, which moves it on. */
#include "gateway/proof_session.h"

#include "core/clock.h"
#include "core/log.h"

#include <nghttp2/nghttp2.h>
#include <stdlib.h>

#define RESUME_NS (20 * NS_PER_MS)
#define VERDICT_DEADLINE_NS (5 * NS_PER_S)

enum step { STEP_START, STEP_ANSWER, STEP_RESUME };

enum reply { REPLY_WHOLE, REPLY_LATE, REPLY_LOST };

struct proof_session {
    struct loop *loop;
    struct verify_pool *pool;
    struct worker *worker; /* a reference */
    const struct proof_events *events;
    void *ctx;
    struct verify_session *verify;
    struct verify_job job;
    struct timer resume;
    const bool *is_over;
    enum step step;
    enum verify_next next;
    struct verify_send send;
    enum { HELD_NOT, HELD_HELLO, HELD_SLOT } held;
    bool was_hello_told, is_last; /* is_last: the verdict is on its way */
    bool is_asking;               /* a frame is on its way to the worker and back */
    struct buf verdict;

    /* the reactor's, from run_send to on_back */
    struct reactor *reactor;
    struct h2_stream *stream;
    struct timer deadline;
    struct buf answer;
    int64_t sent_ns, took_ns;
    enum reply reply;
    int status;
    bool is_late, is_too_large;
};

static void session_send(struct proof_session *session);

/* -- on a verify thread ------------------------------------------------------------------------------------------ */

static void job_run(struct verify_job *job)
{
    struct proof_session *session = container_of(job, struct proof_session, job);
    switch (session->step) {
    case STEP_START:
        session->next = verify_start(session->verify, &session->send);
        break;
    case STEP_ANSWER:
        session->next = verify_answer(session->verify, buf_str(&session->answer),
                                      session->reply == REPLY_LATE ? -1 : session->took_ns, &session->send);
        break;
    case STEP_RESUME:
        session->next = verify_resume(session->verify, &session->send);
        break;
    }
}

/* -- on the control thread --------------------------------------------------------------------------------------- */

static void session_done(struct proof_session *session)
{
    session->held = HELD_NOT;
    session->events->on_done(session->ctx, session);
}

static void session_lost(struct proof_session *session)
{
    verify_lose(session->verify);
    session_done(session);
}

static void session_move(struct proof_session *session)
{
    switch (session->next) {
    case VERIFY_SEND:
        if (verify_report(session->verify)->has_hello && !session->was_hello_told) {
            session->was_hello_told = true;
            session->held = HELD_HELLO;
            session->events->on_hello(session->ctx, session);
        } else if (session->send.is_slotted) {
            session->held = HELD_SLOT;
            session->events->on_slotted(session->ctx, session);
        } else {
            session_send(session);
        }
        break;
    case VERIFY_WAIT:
        timer_set(session->loop, &session->resume, loop_now(session->loop) + RESUME_NS);
        break;
    case VERIFY_DONE:
        session_done(session);
        break;
    }
}

static void job_done(struct verify_job *job, enum error error)
{
    struct proof_session *session = container_of(job, struct proof_session, job);
    if (error)
        session_lost(session);
    else
        session_move(session);
}

static void session_compute(struct proof_session *session, enum step step)
{
    session->step = step;
    if (verify_pool_give(session->pool, &session->job) != ERR_NONE) {
        /* The queue is full: a little later. What came of the last frame is kept. */
        timer_set(session->loop, &session->resume, loop_now(session->loop) + RESUME_NS);
    }
}

static void on_resume(struct timer *timer)
{
    struct proof_session *session = container_of(timer, struct proof_session, resume);
    session_compute(session, session->next == VERIFY_WAIT ? STEP_RESUME : session->step);
}

static void on_back(void *arg)
{
    struct proof_session *session = arg;
    session->is_asking = false;
    if (session->is_last)
        session->events->on_told(session->ctx, session);
    else if (session->reply == REPLY_LOST)
        session_lost(session);
    else
        session_compute(session, STEP_ANSWER);
}

/* -- on the reactor ---------------------------------------------------------------------------------------------- */

static void return_back(struct proof_session *session, enum reply reply)
{
    timer_clear(session->reactor->loop, &session->deadline);
    session->reply = reply;
    if (loop_post(session->loop, on_back, session) != ERR_NONE)
        log_error(&(struct log_ctx){.worker = session->worker->id}, "no memory to tell of a proof");
}

static void on_head(void *ctx, int status, const struct h2_header *headers, size_t count)
{
    struct proof_session *session = ctx;
    (void)headers;
    (void)count;
    session->status = status;
}

static void on_data(void *ctx, struct str bytes)
{
    struct proof_session *session = ctx;
    h2_stream_consumed(session->stream, bytes.len);
    if (!session->is_too_large && !buf_append_str(&session->answer, bytes)) {
        session->is_too_large = true;
        h2_stream_cancel(session->stream, NGHTTP2_CANCEL);
    }
}

static void on_finished(void *ctx)
{
    struct proof_session *session = ctx;
    session->took_ns = clock_mono_ns() - session->sent_ns;
}

/* An answer that is no frame (another status, too large, torn) goes to the verifier as an empty one: wrong. */
static void on_end(void *ctx, enum h2_end end)
{
    struct proof_session *session = ctx;
    session->stream = NULL;
    bool is_late =
        session->is_late || (end == H2_END_OK && session->took_ns > session->send.deadline_ns && !session->is_last);
    if (end == H2_END_REFUSED || end == H2_END_CLOSED || (end == H2_END_OK && session->status == 503)) {
        return_back(session, REPLY_LOST);
    } else if (is_late) {
        return_back(session, REPLY_LATE);
    } else {
        if (end != H2_END_OK || session->status != 200)
            buf_clear(&session->answer);
        return_back(session, REPLY_WHOLE);
    }
}

static void on_deadline(struct timer *timer)
{
    struct proof_session *session = container_of(timer, struct proof_session, deadline);
    session->is_late = true;
    h2_stream_cancel(session->stream, NGHTTP2_CANCEL);
}

static void run_send(void *arg)
{
    static const struct h2_stream_ops ops = {
        .on_head = on_head, .on_data = on_data, .on_finished = on_finished, .on_end = on_end};
    static const struct h2_header headers[] = {{{"content-type", 12}, {"application/octet-stream", 24}}};
    struct proof_session *session = arg;
    struct str frame = session->is_last ? buf_str(&session->verdict) : session->send.frame;
    int64_t deadline_ns = session->is_last ? VERDICT_DEADLINE_NS : session->send.deadline_ns;
    const struct h2_request request = {
        .method = STR("POST"), .path = STR("/sluice/probe"), .headers = headers, .header_count = 1, .body = frame};
    session->sent_ns = clock_mono_ns();
    if (session->send.is_slotted && !session->is_last)
        log_debug(&(struct log_ctx){.worker = session->worker->id}, "challenged in its slot");
    if (hub_request(session->reactor->hub, session->worker, &request, &ops, session, &session->stream) != ERR_NONE) {
        return_back(session, REPLY_LOST);
        return;
    }
    timer_set(session->reactor->loop, &session->deadline, session->sent_ns + deadline_ns);
}

/* -- calls ------------------------------------------------------------------------------------------------------- */

static void session_send(struct proof_session *session)
{
    buf_clear(&session->answer);
    session->status = 0;
    session->took_ns = 0;
    session->is_late = session->is_too_large = false;
    session->is_asking = !*session->is_over && loop_post(session->reactor->loop, run_send, session) == ERR_NONE;
    if (session->is_asking)
        return;
    if (session->is_last)
        session->events->on_told(session->ctx, session);
    else
        session_lost(session);
}

enum error proof_session_open(const struct proof_session_options *options, struct proof_session **ret)
{
    struct proof_session *session = calloc(1, sizeof(*session));
    if (!session)
        return ERR_NO_MEMORY;
    enum error error = verify_open(options->verify, &session->verify);
    if (error) {
        free(session);
        return error;
    }
    session->loop = options->loop;
    session->is_over = options->is_over;
    session->pool = options->pool;
    session->reactor = options->reactor;
    session->worker = worker_ref(options->worker);
    session->events = options->events;
    session->ctx = options->ctx;
    session->job.run = job_run;
    session->job.done = job_done;
    session->resume.on_due = on_resume;
    session->deadline.on_due = on_deadline;
    buf_init(&session->answer, PROBE_FRAME_MAX);
    buf_init(&session->verdict, PROBE_FRAME_MAX);
    session_compute(session, STEP_START);
    *ret = session;
    return ERR_NONE;
}

void proof_session_go_on(struct proof_session *session)
{
    bool was_for_hello = session->held == HELD_HELLO;
    session->held = HELD_NOT;
    if (was_for_hello)
        session_move(session); /* the same frame may be for the slot too */
    else
        session_send(session);
}

void proof_session_lose(struct proof_session *session)
{
    session_lost(session);
}

bool proof_session_is_asking(const struct proof_session *session)
{
    return session->is_asking;
}

const struct verify_report *proof_session_report(const struct proof_session *session)
{
    return verify_report(session->verify);
}

void proof_session_tell(struct proof_session *session, struct str receipt)
{
    session->is_last = true;
    if (verify_verdict_frame(session->verify, receipt, &session->verdict) != ERR_NONE)
        session->events->on_told(session->ctx, session);
    else
        session_send(session);
}

struct proof_session *proof_session_free(struct proof_session *session)
{
    if (!session)
        return NULL;
    timer_clear(session->loop, &session->resume);
    verify_free(session->verify);
    worker_unref(session->worker);
    buf_free(&session->answer);
    buf_free(&session->verdict);
    free(session);
    return NULL;
}
