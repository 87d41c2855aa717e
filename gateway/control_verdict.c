/* What a run means: one verdict over all devices of a worker, stored in one step with its receipts, then told. */
#include "gateway/control_proof.h"

#include "core/clock.h"
#include "core/log.h"
#include "probes/receipt.h"
#include "scheduler/identity_store.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOST_RUNS_MAX 5 /* in a row; then no answer counts as one that is too late */

struct control_verdict {
    enum admission_event event;
    char reason[128];
    struct admission admission; /* to be stored */
    struct worker_proof proof;
    bool has_proof; /* it passed: proof is to be stored */
    struct reputation_evidence evidence;
    bool has_evidence;
    struct str receipts[PROBE_DEVICES_MAX];
    struct buf texts[PROBE_DEVICES_MAX];
    size_t receipt_count;
};

/* -- who it is --------------------------------------------------------------------------------------------------- */

static bool is_zero(const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (bytes[i])
            return false;
    return true;
}

static void add_identity(struct identity *list, size_t *count, enum identity_kind kind, const void *bytes, size_t len)
{
    if (*count == IDENTITIES_MAX)
        return;
    list[*count].kind = kind;
    identity_digest(kind, (struct str){bytes, len}, list[*count].digest);
    ++*count;
}

/* Proven before by this worker with this key. UUIDs are no secrets: what others did under its name, while it was away
 * say, is not held against it. What it did itself is held against its key as well. */
static bool is_its_own(const struct probe_run *run, const struct verify_report *report)
{
    const struct registry_entry *entry = run_entry(run);
    char key[2 * sizeof(report->worker_key) + 1], uuid[IDENTITY_DIGEST_MAX];
    if (!entry || !entry->record.admission.admitted_at_ms)
        return false;
    crypto_hex(report->worker_key, sizeof(report->worker_key), key);
    identity_digest(IDENTITY_UUID, (struct str){(const char *)report->claim.uuid, sizeof(report->claim.uuid)}, uuid);
    return !strcmp(entry->record.proof.worker_key, key) && !strcmp(entry->record.proof.uuid_sha256, uuid);
}

size_t control_identities(const struct probe_run *run, bool to_learn, struct identity ret[static IDENTITIES_MAX])
{
    size_t count = 0;
    for (unsigned i = 0; i < run->device_count; i++) {
        const struct verify_report *report = run_report(run, i);
        if (!report || !report->has_hello)
            continue;
        if (count == 0)
            add_identity(ret, &count, IDENTITY_KEY, report->worker_key, sizeof(report->worker_key));
        /* Machines without a GPU are nobody's scarce goods: a new one costs nothing, and one may bear many. */
        if (is_zero(report->claim.uuid, sizeof(report->claim.uuid)))
            continue;
        if (!to_learn || !is_its_own(run, report))
            add_identity(ret, &count, IDENTITY_UUID, report->claim.uuid, sizeof(report->claim.uuid));
        if (i == 0)
            add_identity(ret, &count, IDENTITY_HOST, report->host_id, sizeof(report->host_id));
    }
    return count;
}

static void uuid_digest(const struct verify_report *report, char ret[static IDENTITY_DIGEST_MAX])
{
    ret[0] = 0;
    if (!is_zero(report->claim.uuid, sizeof(report->claim.uuid)))
        identity_digest(IDENTITY_UUID, (struct str){(const char *)report->claim.uuid, sizeof(report->claim.uuid)}, ret);
}

/* Another linked worker that has proven to be this very device. */
static const struct registry_entry *twin_of(const struct probe_run *run, const char *uuid_sha256)
{
    const struct registry *registry = run->control->registry;
    for (size_t i = 0; uuid_sha256[0] && i < registry_count(registry); i++) {
        const struct registry_entry *entry = registry_at(registry, i);
        if (entry->worker != run->worker && entry->links > 0 && admission_is_ready(&entry->record.admission) &&
            !strcmp(entry->record.proof.uuid_sha256, uuid_sha256))
            return entry;
    }
    return NULL;
}

/* Two devices of this worker that say to be one. */
static bool has_twins(const struct probe_run *run)
{
    for (unsigned i = 1; i < run->device_count; i++) {
        const struct verify_report *one = run_report(run, i);
        bool is_known = one && one->has_hello && !is_zero(one->claim.uuid, sizeof(one->claim.uuid));
        for (unsigned k = 0; is_known && k < i; k++) {
            const struct verify_report *other = run_report(run, k);
            if (other && other->has_hello && memcmp(one->claim.uuid, other->claim.uuid, sizeof(one->claim.uuid)) == 0)
                return true;
        }
    }
    return false;
}

/* Another key, device or driver than those that were proven, or more devices, which a check of what memory they leave
 * free would make count as much as the admitted ones. Of several devices the summary holds one: its key and
 * driver are all of theirs, its UUID is not. */
static bool is_another(const struct probe_run *run, const struct worker_proof *proof,
                       const struct verify_report *report, const char *uuid_sha256)
{
    char key[sizeof(proof->worker_key)];
    crypto_hex(report->worker_key, sizeof(report->worker_key), key);
    return report->purpose != VERIFY_ADMISSION && proof->at_ms &&
           (run->device_count > proof->devices || strcmp(proof->worker_key, key) != 0 ||
            strcmp(proof->driver, report->claim.driver) != 0 ||
            (run->device_count == 1 && strcmp(proof->uuid_sha256, uuid_sha256) != 0));
}

void control_identified(struct probe_run *run, const struct identity_memory *memory)
{
    const struct registry_entry *entry = run_entry(run);
    const struct worker_proof *proof = entry ? &entry->record.proof : NULL;
    int64_t now_ms = clock_wall_ms();
    if (has_twins(run))
        snprintf(run->refusal, sizeof(run->refusal), "two of its GPUs are the same one");
    for (unsigned i = 0; entry && i < run->device_count; i++) {
        const struct verify_report *report = run_report(run, i);
        char digest[IDENTITY_DIGEST_MAX];
        if (!report || !report->has_hello)
            continue;
        uuid_digest(report, digest);
        if (twin_of(run, digest))
            snprintf(run->refusal, sizeof(run->refusal), "this GPU is already another worker's");
        run->has_changed |= is_another(run, proof, report, digest);
        if (memcmp(report->worker_key, run_report(run, 0)->worker_key, sizeof(report->worker_key)) != 0)
            snprintf(run->refusal, sizeof(run->refusal), "its devices sign with several keys");
    }
    if (memory->banned_until_ms > now_ms)
        snprintf(run->refusal, sizeof(run->refusal), "banned: %s", memory->reason);
    bool has_bad = false;
    for (int i = 0; i < REPUTATION_DIMENSIONS; i++)
        has_bad |= memory->bad[i] > 0;
    if (entry && has_bad && run->purpose == VERIFY_ADMISSION &&
        worker_store_inherit(run->control->redis, str_of(run->worker->id), memory->bad, control_forget, NULL) !=
            ERR_NONE)
        snprintf(run->refusal, sizeof(run->refusal), "what is known of this machine cannot be read now");
}

/* -- deciding ---------------------------------------------------------------------------------------------------- */

/* Worse is more. */
static int badness(enum verify_result result)
{
    switch (result) {
    case VERIFY_PASSED:
        return 0;
    case VERIFY_SLOW:
        return 1;
    case VERIFY_OPEN:
    case VERIFY_LOST:
        return 2;
    case VERIFY_LATE:
        return 3;
    case VERIFY_WRONG:
        break;
    }
    return 4;
}

static double or_1(double value)
{
    return value > 0 ? value : 1;
}

/* Of what every device of a run is measured for. */
static double strength(const struct proven *proven)
{
    return or_1(proven->vram_gib) * or_1(proven->pass_gbps) * or_1(proven->chain_tops);
}

bool control_is_worse(const struct verify_report *report, const struct verify_report *than)
{
    if (report->result != than->result)
        return badness(report->result) > badness(than->result);
    if (report->result == VERIFY_PASSED && report->proven_class != than->proven_class)
        return strength(&report->proven) < strength(&than->proven);
    return report->ratio < than->ratio;
}

/* The device that tells of all. NULL: none was opened. */
static const struct verify_report *worst_report(const struct probe_run *run)
{
    const struct verify_report *worst = NULL;
    for (unsigned i = 0; i < run->device_count; i++) {
        const struct verify_report *report = run_report(run, i);
        if (report && (!worst || control_is_worse(report, worst)))
            worst = report;
    }
    return worst;
}

static void summarise(struct control_verdict *verdict, const struct probe_run *run, const struct verify_report *report,
                      const struct registry_entry *entry)
{
    const struct worker_proof *before = &entry->record.proof;
    struct worker_proof *proof = &verdict->proof;
    const struct gpu_class *claimed = catalogue_find(run->control->catalogue, str_of(entry->record.gpu));
    *proof = *before;
    proof->at_ms = clock_wall_ms();
    proof->purpose = report->purpose;
    snprintf(proof->driver, sizeof(proof->driver), "%s", report->claim.driver);
    crypto_hex(report->worker_key, sizeof(report->worker_key), proof->worker_key);
    crypto_hex(report->exchange_key, sizeof(report->exchange_key), proof->exchange_key);
    if (!is_zero(report->chain_root, sizeof(report->chain_root)))
        crypto_hex(report->chain_root, sizeof(report->chain_root), proof->chain_root);
    uuid_digest(report, proof->uuid_sha256);
    proof->devices = run->device_count;
    verdict->has_proof = true;
    if (report->purpose == VERIFY_LEASE)
        return; /* small work beside a job says nothing of the class */
    const struct gpu_class *class = report->proven_class;
    if (report->purpose == VERIFY_ADMISSION || (class && strcmp(class->name, proof->gpu) != 0)) {
        snprintf(proof->gpu, sizeof(proof->gpu), "%s", class ? class->name : "unknown");
        proof->proven = report->proven;
        proof->class_vram_gib = class ? class->vram_gib : 0;
        proof->ratio = report->ratio;
        proof->performance = report->performance;
        proof->claimed_performance = claimed ? proven_performance(claimed, &report->proven) : 1;
    }
    if (report->purpose == VERIFY_SPOT) {
        proof->proven.pass_gbps = report->proven.pass_gbps > 0 ? report->proven.pass_gbps : proof->proven.pass_gbps;
        proof->proven.chain_tops = report->proven.chain_tops > 0 ? report->proven.chain_tops : proof->proven.chain_tops;
        proof->ratio = report->ratio;
    }
}

/* What a device showed of its memory is believed for so long. Who says ever after that it is in use is still asked for
 * products, but its name for hardware fades, until its memory is free for a whole proof again. */
#define MEMORY_BELIEVED_MS (INT64_C(7) * 24 * 3600 * 1000)

struct reputation_evidence control_good_evidence(const struct verify_report *report, int64_t admitted_at_ms,
                                                 int64_t now_ms)
{
    struct reputation_evidence evidence = reputation_of_proof(report->purpose, report->credit, report->rtt_ns > 0);
    if (report->purpose == VERIFY_LEASE && now_ms - admitted_at_ms > MEMORY_BELIEVED_MS)
        evidence.good[REPUTATION_HARDWARE] = 0;
    return evidence;
}

static void judge_passed(struct control_verdict *verdict, const struct probe_run *run,
                         const struct verify_report *report, const struct registry_entry *entry)
{
    summarise(verdict, run, report, entry);
    verdict->event = ADMISSION_PROBE_GOOD;
    verdict->evidence = control_good_evidence(report, run->claim.admitted_at_ms, clock_wall_ms());
    const char *claimed = entry->record.gpu, *gpu = verdict->proof.gpu;
    if (run->control->settings->probes.mismatch == MISMATCH_SUSPEND && strcmp(claimed, gpu) != 0) {
        verdict->event = ADMISSION_PROBE_SLOW;
        snprintf(verdict->reason, sizeof(verdict->reason), "claims %s, proves %s", claimed, gpu);
    }
}

/* Registered as another machine since the run began: what was proven is not what it now says. */
static bool is_declared_anew(const struct probe_run *run, const struct registry_entry *entry)
{
    return strcmp(run->declared_gpu, entry->record.gpu) != 0 || run->declared_gpus != entry->record.gpus;
}

static void judge(struct control_verdict *verdict, struct probe_run *run, struct registry_entry *entry)
{
    const struct verify_report *report = worst_report(run);
    enum verify_result result = report && !run->is_lost ? report->result : VERIFY_LOST;
    if (run->has_changed || (result == VERIFY_PASSED && is_declared_anew(run, entry))) {
        verdict->event = ADMISSION_CHANGED;
        return;
    }
    if (run->refusal[0]) {
        verdict->event = ADMISSION_PROBE_LATE; /* suspended, and tried again later; no evidence of anything */
        snprintf(verdict->reason, sizeof(verdict->reason), "%s", run->refusal);
        return;
    }
    if (report && report->is_occupied) {
        verdict->event = ADMISSION_PROBE_LATE; /* suspended, and tried again later; no evidence of anything */
        snprintf(verdict->reason, sizeof(verdict->reason), "%s", report->reason);
        return;
    }
    entry->lost_runs = result == VERIFY_LOST || result == VERIFY_OPEN ? entry->lost_runs + 1 : 0;
    if (entry->lost_runs > LOST_RUNS_MAX)
        result = VERIFY_LATE;
    if (report)
        snprintf(verdict->reason, sizeof(verdict->reason), "%s", report->reason);
    verdict->has_evidence = result != VERIFY_LOST && result != VERIFY_OPEN;
    switch (result) {
    case VERIFY_PASSED:
        judge_passed(verdict, run, report, entry);
        break;
    case VERIFY_SLOW:
        verdict->event = ADMISSION_PROBE_SLOW;
        verdict->evidence = reputation_of_proof(report->purpose, report->credit, report->rtt_ns > 0);
        break;
    case VERIFY_WRONG:
        verdict->event = ADMISSION_PROBE_WRONG;
        verdict->evidence = reputation_of_wrong(report->purpose);
        break;
    case VERIFY_LATE:
        verdict->event = ADMISSION_PROBE_LATE;
        verdict->evidence = reputation_of_late(report->purpose);
        break;
    case VERIFY_LOST:
    case VERIFY_OPEN:
        verdict->event = ADMISSION_PROBE_LOST;
        break;
    }
}

/* -- receipts ---------------------------------------------------------------------------------------------------- */

static bool is_worth_a_receipt(const struct verify_report *report)
{
    return report && report->has_hello && report->result != VERIFY_LOST && report->result != VERIFY_OPEN;
}

/* One a device, each naming the one before it. */
static void make_receipts(struct control_verdict *verdict, const struct probe_run *run,
                          const struct registry_entry *entry)
{
    struct receipt_facts facts = {
        .worker = str_of(run->worker->id), .gateway = str_of(run->control->gateway->id), .at_ms = clock_wall_ms()};
    memcpy(facts.previous, entry->record.proof.receipt_sha256, sizeof(facts.previous));
    for (unsigned i = 0; i < run->device_count; i++) {
        const struct verify_report *report = run_report(run, i);
        struct buf *text = &verdict->texts[verdict->receipt_count];
        facts.gpu = i;
        buf_init(text, RECEIPT_MAX);
        if (!is_worth_a_receipt(report))
            continue;
        facts.purpose = report->purpose;
        if (receipt_make(&facts, report, run->control->proof_key, text) != ERR_NONE) {
            log_error(&(struct log_ctx){.worker = run->worker->id}, "cannot make a receipt");
            buf_free(text);
            return;
        }
        verdict->receipts[verdict->receipt_count++] = buf_str(text);
        crypto_sha256_hex(buf_str(text), facts.previous);
    }
    if (verdict->receipt_count > 0)
        memcpy(verdict->proof.receipt_sha256, facts.previous, sizeof(facts.previous));
}

/* -- storing and telling ----------------------------------------------------------------------------------------- */

void control_forget(void *ctx, enum error error)
{
    (void)ctx;
    (void)error; /* one piece of evidence more or less; the next proof tells again */
}

static void on_failure_noted(void *ctx, enum error error, const struct identity_memory *memory)
{
    (void)ctx;
    (void)memory;
    if (error)
        log_warn(NULL, "cannot remember whose proof was wrong: %s", error_text(error));
}

static void note_evidence(struct probe_run *run)
{
    struct control *control = run->control;
    struct control_verdict *verdict = run->verdict;
    struct str id = str_of(run->worker->id);
    if (!verdict->has_evidence)
        return;
    if (worker_store_reputation(control->redis, id, &verdict->evidence, control_forget, NULL) != ERR_NONE)
        log_debug(NULL, "reputation not told");
    if (verdict->event != ADMISSION_PROBE_WRONG)
        return;
    struct identity identities[IDENTITIES_MAX];
    size_t count = control_identities(run, false, identities);
    bool is_banned = verdict->admission.bans > run->claim.bans;
    if (count > 0 && identity_store_fail(control->redis, identities, count, &verdict->evidence,
                                         is_banned ? verdict->reason : NULL, id, on_failure_noted, NULL) != ERR_NONE)
        on_failure_noted(NULL, ERR_BUSY, NULL);
}

static void log_verdict(const struct probe_run *run)
{
    const struct control_verdict *verdict = run->verdict;
    struct log_ctx log = {.worker = run->worker->id};
    int64_t took_ms = (loop_now(run->control->loop) - run->started_ns) / NS_PER_MS;
    if (verdict->event == ADMISSION_PROBE_GOOD)
        log_info(&log, "proven as %s in %" PRId64 " ms", verdict->proof.gpu, took_ms);
    else if (verdict->event == ADMISSION_PROBE_LOST)
        log_info(&log, "a proof was lost on the way");
    else if (verdict->event == ADMISSION_CHANGED)
        log_info(&log, "its key, GPU or driver changed: it is admitted anew");
    else if (verdict->admission.state == ADMISSION_SUSPENDED)
        log_warn(&log, "suspended: %s", verdict->admission.reason);
    else
        log_warn(&log, "slower than its class: %s", verdict->reason);
}

static void tell_devices(struct probe_run *run)
{
    size_t next = 0;
    for (unsigned i = 0; i < run->device_count; i++) {
        const struct verify_report *report = run_report(run, i);
        struct proof_device *device = &run->devices[i];
        struct str receipt = STR("");
        if (is_worth_a_receipt(report) && next < run->verdict->receipt_count)
            receipt = run->verdict->receipts[next++];
        if (report && report->has_hello && report->result != VERIFY_LATE &&
            (report->result != VERIFY_LOST || report->is_occupied) && !run->control->is_shut)
            proof_session_tell(device->session, receipt);
        else
            device->state = DEVICE_TOLD;
    }
}

static void run_close(struct probe_run *run)
{
    for (unsigned i = 0; i < run->device_count; i++)
        run->devices[i].state = DEVICE_TOLD;
}

static void on_stored(void *ctx, enum error error)
{
    struct probe_run *run = ctx;
    struct control *control = run->control;
    struct control_verdict *verdict = run->verdict;
    struct registry_entry *entry = run_entry(run);
    if (error == ERR_NONE && entry) {
        entry->record.admission = verdict->admission;
        if (verdict->has_proof)
            entry->record.proof = verdict->proof;
        else if (verdict->receipt_count > 0)
            memcpy(entry->record.proof.receipt_sha256, verdict->proof.receipt_sha256,
                   sizeof(entry->record.proof.receipt_sha256));
        if (verdict->event == ADMISSION_PROBE_GOOD && worst_report(run)->purpose == VERIFY_LEASE)
            entry->lease_self = worst_report(run)->proven;
        log_verdict(run);
        control_market_check(control, entry);
        control_market_changed(control, verdict->event == ADMISSION_PROBE_GOOD);
    } else if (entry && !control->is_shut) {
        log_warn(&(struct log_ctx){.worker = run->worker->id}, "cannot store what came of a proof: %s",
                 error_text(error));
        control_load_worker(control, str_of(run->worker->id));
    }
    if (error == ERR_NONE) {
        note_evidence(run);
        tell_devices(run);
    } else {
        if ((error == ERR_MISMATCH || error == ERR_NOT_FOUND) && verdict->event == ADMISSION_PROBE_WRONG)
            note_evidence(run); /* registering anew in time makes no wrong answer undone */
        run_close(run);
    }
    if (entry)
        entry->probe = NULL; /* another may start while this one's worker is told */
    run_release(run);
}

static void decide(struct probe_run *run, struct registry_entry *entry)
{
    struct control *control = run->control;
    struct control_verdict *verdict = run->verdict;
    const struct admission_policy policy = control_admission_policy(control);
    struct reputation reputation = entry->record.reputation;
    const struct verify_report *worst = worst_report(run);
    int64_t now_ms = clock_wall_ms();
    verdict->proof = entry->record.proof;
    judge(verdict, run, entry);
    make_receipts(verdict, run, entry);
    reputation_add(&reputation, &verdict->evidence, now_ms);
    const struct admission_news news = {.event = verdict->event,
                                        .now_ms = now_ms,
                                        .random = control_fresh_bits(),
                                        .gateway = control_gateway_hash(control),
                                        .lost = entry->lost_runs,
                                        .score = reputation_bound(&reputation, now_ms),
                                        .purpose = worst ? worst->purpose : VERIFY_LEASE,
                                        .reason = str_of(verdict->reason)};
    verdict->admission = run->claim;
    (void)admission_step(&verdict->admission, &news, &policy);
    if (verdict->event == ADMISSION_PROBE_GOOD)
        verdict->admission.last_probe_took_ms = (loop_now(control->loop) - run->started_ns) / NS_PER_MS;
}

void control_verdict_free(struct control_verdict *verdict)
{
    for (size_t i = 0; verdict && i < PROBE_DEVICES_MAX; i++)
        buf_free(&verdict->texts[i]);
    free(verdict);
}

static void count_proofs(const struct probe_run *run)
{
    for (unsigned i = 0; i < run->device_count; i++) {
        const struct verify_report *report = run_report(run, i);
        if (!report || report->result == VERIFY_OPEN)
            continue;
        run->control->proofs[report->result - VERIFY_PASSED]++;
        run->control->proof_cpu_ns += report->cpu_ns;
    }
}

void control_verdict(struct probe_run *run)
{
    struct control *control = run->control;
    struct registry_entry *entry = run_entry(run);
    count_proofs(run);
    run_hold(run);
    run->verdict = calloc(1, sizeof(*run->verdict));
    if (!entry || control->is_shut || !run->verdict) {
        run_close(run);
        run_release(run);
        return;
    }
    decide(run, entry);
    const struct worker_verdict stored = {.admission = &run->verdict->admission,
                                          .proof = run->verdict->has_proof ? &run->verdict->proof : NULL,
                                          .receipts = run->verdict->receipts,
                                          .receipt_count = run->verdict->receipt_count,
                                          .previous = str_of(entry->record.proof.receipt_sha256)};
    if (worker_store_prove(control->redis, str_of(run->worker->id), run->claim.token, &stored, on_stored, run) ==
        ERR_NONE)
        return;
    run_close(run); /* another try comes when the claim has run out */
    run_release(run);
}
