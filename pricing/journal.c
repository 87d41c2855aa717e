#include "pricing/journal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC UINT64_C(0x314c4e524a554c53) /* "SLUJRNL1" */
#define HEADER_BYTES ((size_t)4096)
#define SLOTS_MAX ((size_t)1 << 22)
#define SEQ_MAX (UINT64_C(1) << 62)

/* The first page. All but `released` is written once, `magic` last. */
struct header {
    uint64_t magic;
    uint64_t slot_bytes, slots;
    uint64_t sum;              /* of the three above */
    _Atomic uint64_t released; /* records with a seq up to this are settled; on a cache line of its own */
};

/* Record number `seq` (from 1) lies in slot (seq - 1) % slots. It is written, summed, and only then numbered: a process
 * killed in between leaves the slot with its former number, which is a released one. The sum is for what a crash of the
 * machine leaves, where pages reach the disk in any order. */
struct slot {
    _Atomic uint64_t seq;
    uint64_t sum;
    char owner[ID_TEXT_MAX];
    struct usage_record record;
};

struct journal {
    int fd;
    struct header *header;
    struct slot *slots;
    size_t slot_count, map_bytes;
    uint64_t next_seq;
    uint64_t first_new; /* seq of the first record appended by this process */
    uint64_t *found;    /* seqs of the records found at opening, in order; holes where records were torn */
    size_t found_at, found_count;
    size_t pending;
    char owner[ID_TEXT_MAX];
    char path[PATH_MAX];
};

static uint64_t mix(uint64_t state, uint64_t word)
{
    state = (state ^ word) * UINT64_C(0x9e3779b97f4a7c15);
    return state ^ (state >> 29);
}

/* Four lanes keep the multiplier busy. `len` is a multiple of 8. */
static uint64_t checksum(const void *bytes, size_t len, uint64_t seed)
{
    uint64_t lane[4] = {seed, seed + 1, seed + 2, seed + 3};
    const unsigned char *at = bytes;
    size_t words = len / 8;

    for (size_t i = 0; i < words; i++) {
        uint64_t word;
        memcpy(&word, at + i * 8, 8);
        lane[i & 3] = mix(lane[i & 3], word);
    }
    return mix(mix(lane[0], lane[1]), mix(lane[2], lane[3]));
}

static uint64_t slot_sum(const struct slot *slot, uint64_t seq)
{
    _Static_assert(offsetof(struct slot, record) == offsetof(struct slot, owner) + ID_TEXT_MAX, "summed as one run");
    _Static_assert((sizeof(struct slot) - offsetof(struct slot, owner)) % 8 == 0, "summed in words");
    return checksum(slot->owner, sizeof(*slot) - offsetof(struct slot, owner), seq);
}

static uint64_t header_sum(const struct header *header)
{
    uint64_t fixed[3] = {MAGIC, header->slot_bytes, header->slots};
    return checksum(fixed, sizeof(fixed), 1);
}

static struct slot *slot_of(const struct journal *journal, uint64_t seq)
{
    return &journal->slots[(seq - 1) % journal->slot_count];
}

#define HAS_END(text) (memchr((text), 0, sizeof(text)) != NULL)

/* The sum tells accidents; this tells a file that somebody made. */
static bool record_is_sound(const struct usage_record *record)
{
    return HAS_END(record->id) && HAS_END(record->tenant) && HAS_END(record->key) && HAS_END(record->worker) &&
           HAS_END(record->supplier) && HAS_END(record->network) && HAS_END(record->gpu) && HAS_END(record->model) &&
           record->id[0] && record->tenant[0] && record->at_ms >= 0 && record->price_usd_nano >= 0 &&
           record->gpu_ms >= 0 && record->cost_usd_nano >= 0 && record->loss_usd_nano >= 0 &&
           record->budget_period_ms >= 0 && record->take_rate_bps >= 0 && record->take_rate_bps <= 10000 &&
           record->outcome >= USAGE_COMPLETED && record->outcome <= USAGE_CHECKED && record->prompt_tokens >= 0 &&
           record->completion_tokens >= 0;
}

static int compare_seq(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

/* Lists the records that are whole and not released. */
static enum error find_records(struct journal *journal, size_t *ret_torn)
{
    uint64_t released = atomic_load_explicit(&journal->header->released, memory_order_acquire);
    uint64_t *found = NULL;
    size_t count = 0, room = 0, torn = 0;

    if (released >= SEQ_MAX)
        return ERR_MISMATCH;
    for (size_t i = 0; i < journal->slot_count; i++) {
        const struct slot *slot = &journal->slots[i];
        uint64_t seq = atomic_load_explicit(&slot->seq, memory_order_acquire);
        if (seq <= released)
            continue;
        if (seq - released > journal->slot_count || (seq - 1) % journal->slot_count != i ||
            slot->sum != slot_sum(slot, seq) || !HAS_END(slot->owner) || !record_is_sound(&slot->record)) {
            torn++;
            continue;
        }
        if (count == room) {
            room = room ? room * 2 : 64;
            uint64_t *more = realloc(found, room * sizeof(*found));
            if (!more) {
                free(found);
                return ERR_NO_MEMORY;
            }
            found = more;
        }
        found[count++] = seq;
    }
    if (count)
        qsort(found, count, sizeof(*found), compare_seq);
    journal->found = found;
    journal->found_count = journal->pending = count;
    /* A torn record keeps its bad slot until the ring comes round to it; a number is never used for two records. */
    journal->next_seq = journal->first_new = (count ? found[count - 1] : released) + 1;
    if (ret_torn)
        *ret_torn = torn;
    return ERR_NONE;
}

/* A new file, or one whose maker died before its header was whole. The blocks are reserved now: a full disk must show
 * here and not as a SIGBUS in journal_append. */
static enum error make_file(int fd, size_t slots)
{
    struct header header = {.slot_bytes = sizeof(struct slot), .slots = slots};
    size_t bytes = HEADER_BYTES + slots * sizeof(struct slot);

    if (ftruncate(fd, 0) || posix_fallocate(fd, 0, (off_t)bytes))
        return ERR_SYSTEM;
    header.sum = header_sum(&header);
    header.magic = MAGIC;
    return pwrite(fd, &header, sizeof(header), 0) == (ssize_t)sizeof(header) ? ERR_NONE : ERR_SYSTEM;
}

static enum error check_file(int fd, size_t *ret_slots)
{
    struct header header;
    struct stat info;

    if (fstat(fd, &info))
        return ERR_SYSTEM;
    if (!S_ISREG(info.st_mode) || (size_t)info.st_size < HEADER_BYTES ||
        pread(fd, &header, sizeof(header), 0) != (ssize_t)sizeof(header))
        return ERR_MISMATCH;
    if (header.magic != MAGIC || header.sum != header_sum(&header) || header.slot_bytes != sizeof(struct slot) ||
        header.slots < 1 || header.slots > SLOTS_MAX ||
        (size_t)info.st_size < HEADER_BYTES + header.slots * sizeof(struct slot))
        return ERR_MISMATCH;
    *ret_slots = header.slots;
    return ERR_NONE;
}

static bool is_unmade(int fd)
{
    uint64_t magic = 0;
    return pread(fd, &magic, sizeof(magic), 0) < (ssize_t)sizeof(magic) || magic == 0;
}

static enum error open_file(struct journal *journal, size_t slots)
{
    enum error error;

    journal->fd = open(journal->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (journal->fd < 0)
        return ERR_SYSTEM;
    if (flock(journal->fd, LOCK_EX | LOCK_NB))
        return errno == EWOULDBLOCK ? ERR_EXISTS : ERR_SYSTEM;
    if (is_unmade(journal->fd)) {
        error = make_file(journal->fd, slots);
        if (error)
            return error;
    }
    error = check_file(journal->fd, &journal->slot_count);
    if (error)
        return error;
    journal->map_bytes = HEADER_BYTES + journal->slot_count * sizeof(struct slot);
    void *map = mmap(NULL, journal->map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, journal->fd, 0);
    if (map == MAP_FAILED)
        return ERR_SYSTEM;
    journal->header = map;
    journal->slots = (struct slot *)(void *)((char *)map + HEADER_BYTES);
    return ERR_NONE;
}

enum error journal_open(const char *dir, const char *name, size_t slots, struct journal **ret, size_t *ret_torn)
{
    enum error error;
    struct journal *journal;
    int len;

    if (slots < 1 || slots > SLOTS_MAX)
        return ERR_BAD_INPUT;
    journal = calloc(1, sizeof(*journal));
    if (!journal)
        return ERR_NO_MEMORY;
    journal->fd = -1;
    len = snprintf(journal->path, sizeof(journal->path), "%s/usage-%s.journal", dir, name);
    error = len > 0 && (size_t)len < sizeof(journal->path) ? ERR_NONE : ERR_TOO_LARGE;
    if (!error)
        error = open_file(journal, slots);
    if (!error)
        error = find_records(journal, ret_torn);
    if (error) {
        journal_close(journal);
        return error;
    }
    *ret = journal;
    return ERR_NONE;
}

struct journal *journal_close(struct journal *journal)
{
    if (!journal)
        return NULL;
    if (journal->header)
        munmap(journal->header, journal->map_bytes);
    if (journal->fd >= 0)
        close(journal->fd);
    free(journal->found);
    free(journal);
    return NULL;
}

struct journal *journal_remove(struct journal *journal)
{
    assert(journal->pending == 0);
    unlink(journal->path); /* still locked: nobody else can be using it */
    return journal_close(journal);
}

void journal_set_owner(struct journal *journal, const char *gateway_id)
{
    snprintf(journal->owner, sizeof(journal->owner), "%s", gateway_id);
}

enum error journal_append(struct journal *journal, const struct usage_record *record)
{
    struct slot *slot;
    uint64_t seq = journal->next_seq;

    assert(record_is_sound(record));
    /* Not `pending`: torn records among the found ones keep their places until those before them are released. */
    if (seq - atomic_load_explicit(&journal->header->released, memory_order_relaxed) > journal->slot_count)
        return ERR_BUSY;
    slot = slot_of(journal, seq);
    memcpy(slot->owner, journal->owner, sizeof(slot->owner));
    slot->record = *record;
    slot->sum = slot_sum(slot, seq);
    atomic_store_explicit(&slot->seq, seq, memory_order_release);
    journal->next_seq = seq + 1;
    journal->pending++;
    return ERR_NONE;
}

bool journal_is_nearly_full(const struct journal *journal)
{
    uint64_t used = journal->next_seq - 1 - atomic_load_explicit(&journal->header->released, memory_order_relaxed);
    return journal->slot_count - used < (journal->slot_count + 7) / 8;
}

size_t journal_pending(const struct journal *journal)
{
    return journal->pending;
}

static uint64_t seq_at(const struct journal *journal, size_t i)
{
    size_t found_left = journal->found_count - journal->found_at;

    assert(i < journal->pending);
    return i < found_left ? journal->found[journal->found_at + i] : journal->first_new + (i - found_left);
}

const struct usage_record *journal_at(const struct journal *journal, size_t i)
{
    return &slot_of(journal, seq_at(journal, i))->record;
}

const char *journal_owner_at(const struct journal *journal, size_t i)
{
    return slot_of(journal, seq_at(journal, i))->owner;
}

void journal_release(struct journal *journal, size_t count)
{
    size_t found_left = journal->found_count - journal->found_at, from_found;
    uint64_t last;

    if (count == 0)
        return;
    last = seq_at(journal, count - 1);
    from_found = count < found_left ? count : found_left;
    journal->found_at += from_found;
    journal->first_new += count - from_found;
    journal->pending -= count;
    atomic_store_explicit(&journal->header->released, last, memory_order_release);
}
