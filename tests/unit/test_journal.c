#include "pricing/journal.h"

#include "core/clock.h"
#include "core/crypto.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#define SLOTS 64
#define PAGE 4096

static char dir[] = "/tmp/sluice-journal-XXXXXX";
static char path[sizeof(dir) + 32];

static struct usage_record record_of(uint64_t n)
{
    struct usage_record record = {.at_ms = 1790000000000 + (int64_t)n,
                                  .price_usd_nano = 1200000000,
                                  .gpu_ms = (int64_t)n,
                                  .cost_usd_nano = (int64_t)(n * 7),
                                  .take_rate_bps = 1000,
                                  .outcome = USAGE_COMPLETED};
    snprintf(record.id, sizeof(record.id), "use_%llu", (unsigned long long)n);
    snprintf(record.tenant, sizeof(record.tenant), "ten_%llu", (unsigned long long)(n % 3));
    snprintf(record.model, sizeof(record.model), "model-%llu", (unsigned long long)n);
    return record;
}

static void append(struct journal *journal, uint64_t n)
{
    struct usage_record record = record_of(n);
    assert_int_equal(journal_append(journal, &record), ERR_NONE);
}

static void expect_at(const struct journal *journal, size_t i, uint64_t n)
{
    struct usage_record record = record_of(n);
    assert_memory_equal(journal_at(journal, i), &record, sizeof(record));
}

static struct journal *reopen(size_t expect_pending, size_t expect_torn)
{
    struct journal *journal = NULL;
    size_t torn = 99;
    assert_int_equal(journal_open(dir, "t", SLOTS, &journal, &torn), ERR_NONE);
    assert_int_equal(journal_pending(journal), expect_pending);
    assert_int_equal(torn, expect_torn);
    return journal;
}

static int fresh(void **state)
{
    (void)state;
    unlink(path);
    return 0;
}

static void keeps_order_over_reopening(void **state)
{
    struct journal *journal = reopen(0, 0);
    uint64_t next = 1, oldest = 1;

    (void)state;
    /* Round the ring many times, with what waits carried over closing. */
    for (int lap = 0; lap < 300; lap++) {
        journal_set_owner(journal, lap % 2 ? "gwy_odd" : "gwy_even");
        for (int i = 0; i < 11; i++)
            append(journal, next++);
        for (size_t i = 0; i < journal_pending(journal); i++)
            expect_at(journal, i, oldest + i);
        assert_string_equal(journal_owner_at(journal, journal_pending(journal) - 1), lap % 2 ? "gwy_odd" : "gwy_even");
        size_t release = journal_pending(journal) > 40 ? 33 : 7;
        journal_release(journal, release);
        oldest += release;
        if (lap % 3 == 0) {
            journal_close(journal);
            journal = reopen(next - oldest, 0);
        }
    }
    journal_close(journal);
}

static void full_is_busy(void **state)
{
    struct journal *journal = reopen(0, 0);
    struct usage_record record = record_of(1);

    (void)state;
    for (int i = 0; i < SLOTS; i++) {
        assert_int_equal(journal_is_nearly_full(journal), i > SLOTS - SLOTS / 8);
        append(journal, (uint64_t)i);
    }
    assert_int_equal(journal_append(journal, &record), ERR_BUSY);
    assert_true(journal_is_nearly_full(journal));
    journal_close(journal);
    journal = reopen(SLOTS, 0);
    assert_int_equal(journal_append(journal, &record), ERR_BUSY);
    journal_release(journal, 1);
    append(journal, 1000);
    expect_at(journal, SLOTS - 1, 1000);
    expect_at(journal, 0, 1);
    journal_close(journal);
}

static void second_process_is_refused(void **state)
{
    struct journal *journal = reopen(0, 0), *other = NULL;

    (void)state;
    assert_int_equal(journal_open(dir, "t", SLOTS, &other, NULL), ERR_EXISTS);
    assert_null(other);
    journal = journal_close(journal);
    journal = reopen(0, 0);
    journal_remove(journal);
    assert_int_equal(access(path, F_OK), -1);
}

/* A child appends and is killed at an arbitrary instruction; it tells through shared memory which appends returned and
 * which began. Every record that was appended is there, whole, and at most the one begun besides. */
static void killed_process_loses_nothing(void **state)
{
    volatile uint64_t *told = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint64_t released = 0, last = 0;

    (void)state;
    assert_ptr_not_equal(told, MAP_FAILED);
    for (int round = 0; round < 60; round++) {
        uint16_t random;
        told[0] = told[1] = last;
        told[2] = released;
        pid_t child = fork();
        if (child == 0) {
            struct journal *journal;
            if (journal_open(dir, "t", SLOTS, &journal, NULL))
                _exit(1);
            for (uint64_t n = last + 1;; n++) {
                struct usage_record record = record_of(n);
                while (journal_pending(journal) > SLOTS / 2) {
                    told[2]++;
                    journal_release(journal, 1);
                }
                told[0] = n;
                if (journal_append(journal, &record))
                    _exit(1);
                told[1] = n;
            }
        }
        assert_true(child > 0);
        crypto_random(&random, sizeof(random));
        while (told[1] == last) /* it has begun */
            usleep(50);
        usleep(random % 512);
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, NULL, 0), child);

        struct journal *journal = NULL;
        size_t torn = 0;
        assert_int_equal(journal_open(dir, "t", SLOTS, &journal, &torn), ERR_NONE);
        assert_int_equal(torn, 0);
        size_t pending = journal_pending(journal);
        assert_true(pending > 0);
        /* One more may have been announced as released than was, and one more begun than told as done. */
        uint64_t first = (uint64_t)journal_at(journal, 0)->gpu_ms;
        assert_in_range(first, told[2], told[2] + 1);
        for (size_t i = 0; i < pending; i++)
            expect_at(journal, i, first + i);
        last = first + pending - 1;
        assert_in_range(last, told[1], told[0]);
        released = first - 1;
        journal_close(journal);
    }
    munmap((void *)(uintptr_t)told, PAGE);
}

static size_t file_size(int fd)
{
    struct stat info;
    assert_int_equal(fstat(fd, &info), 0);
    return (size_t)info.st_size;
}

/* What a crash of the machine may leave: some pages old, some new. Whole records survive, torn ones are counted. */
static void torn_records_are_skipped(void **state)
{
    struct journal *journal = reopen(0, 0);
    char byte;

    (void)state;
    for (uint64_t n = 1; n <= 10; n++)
        append(journal, n);
    journal_close(journal);

    int fd = open(path, O_RDWR);
    size_t slot = (file_size(fd) - PAGE) / SLOTS;
    off_t in_fourth = (off_t)(PAGE + 3 * slot + slot / 2), in_tenth = (off_t)(PAGE + 9 * slot + slot - 1);
    assert_int_equal(pread(fd, &byte, 1, in_fourth), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, in_fourth), 1);
    assert_int_equal(pread(fd, &byte, 1, in_tenth), 1);
    byte ^= 0x40;
    assert_int_equal(pwrite(fd, &byte, 1, in_tenth), 1);
    close(fd);

    journal = reopen(8, 2);
    expect_at(journal, 2, 3);
    expect_at(journal, 3, 5);
    expect_at(journal, 7, 9);
    append(journal, 77); /* lies where the torn tenth lay */
    expect_at(journal, 8, 77);
    journal_release(journal, 3);
    expect_at(journal, 0, 5);
    journal_release(journal, 6);
    assert_int_equal(journal_pending(journal), 0);
    append(journal, 78);
    expect_at(journal, 0, 78);
    journal_close(journal);
    journal_close(reopen(1, 0));
}

/* Random damage anywhere: opening never crashes, and what it shows is sound. */
static void damaged_files_do_no_harm(void **state)
{
    struct journal *journal = reopen(0, 0);
    char *whole;

    (void)state;
    for (uint64_t n = 1; n <= 40; n++)
        append(journal, n);
    journal_release(journal, 5);
    journal_close(journal);
    int fd = open(path, O_RDWR);
    size_t size = file_size(fd);
    whole = malloc(size);
    assert_non_null(whole);
    assert_int_equal(pread(fd, whole, size, 0), (ssize_t)size);
    for (int round = 0; round < 400; round++) {
        uint32_t random[34];
        size_t cut = size;
        crypto_random(random, sizeof(random));
        assert_int_equal(pwrite(fd, whole, size, 0), (ssize_t)size);
        for (size_t i = 0; i < random[0] % 32; i++) {
            size_t at = random[i + 2] % (round % 4 ? size : 64);
            assert_int_equal(pwrite(fd, &random[i + 1], 1, (off_t)at), 1);
        }
        if (random[1] % 4 == 0) {
            cut = random[33] % size;
            assert_int_equal(ftruncate(fd, (off_t)cut), 0);
        }
        struct journal *damaged = NULL;
        enum error error = journal_open(dir, "t", SLOTS, &damaged, NULL);
        assert_true(error == ERR_NONE || error == ERR_MISMATCH);
        if (error)
            continue;
        for (size_t i = 0; i < journal_pending(damaged); i++)
            assert_int_equal(journal_at(damaged, i)->take_rate_bps, 1000);
        journal_release(damaged, journal_pending(damaged));
        journal_close(damaged);
    }
    close(fd);
    free(whole);
}

static void half_made_file_is_made_anew(void **state)
{
    (void)state;
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    assert_int_equal(ftruncate(fd, 3 * PAGE), 0);
    close(fd);
    struct journal *journal = reopen(0, 0);
    append(journal, 1);
    journal_close(journal);
    journal_close(reopen(1, 0));
}

static void tells_append_cost(void **state)
{
    struct journal *journal = NULL;
    struct usage_record record = record_of(12345);
    int64_t start;
    enum { COUNT = 200000, RING = 4096 };

    (void)state;
    assert_int_equal(journal_open(dir, "t", RING, &journal, NULL), ERR_NONE);
    start = clock_mono_ns();
    for (int i = 0; i < COUNT; i++) {
        if (journal_pending(journal) == RING)
            journal_release(journal, RING);
        assert_true(journal_append(journal, &record) == ERR_NONE);
    }
    print_message("append: %lld ns\n", (long long)((clock_mono_ns() - start) / COUNT));
    journal_close(journal);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(keeps_order_over_reopening, fresh),
        cmocka_unit_test_setup(full_is_busy, fresh),
        cmocka_unit_test_setup(second_process_is_refused, fresh),
        cmocka_unit_test_setup(killed_process_loses_nothing, fresh),
        cmocka_unit_test_setup(torn_records_are_skipped, fresh),
        cmocka_unit_test_setup(damaged_files_do_no_harm, fresh),
        cmocka_unit_test_setup(half_made_file_is_made_anew, fresh),
        cmocka_unit_test_setup(tells_append_cost, fresh),
    };
    if (!mkdtemp(dir))
        return 1;
    snprintf(path, sizeof(path), "%s/usage-t.journal", dir);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    rmdir(dir);
    return failed;
}
