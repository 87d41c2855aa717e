/* Opening a journal that somebody else wrote. First byte: bit 0 the rest is the whole file, else it is laid over the
 * slots of a good one; bit 1 gives each slot a right sum, so that the checks behind it are reached; bit 2 what was
 * released before. Whatever opens must read as sound records and take new ones. */
#include "pricing/journal.c"

#include <stdint.h>

#define SLOTS 4

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool condition)
{
    if (!condition)
        abort();
}

static const char *folder(void)
{
    static char dir[] = "/tmp/sluice-fuzz-XXXXXX";
    static bool is_made;
    if (!is_made)
        expect(mkdtemp(dir) != NULL);
    is_made = true;
    return dir;
}

static void write_file(const char *path, const void *bytes, size_t len)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    expect(fd >= 0 && write(fd, bytes, len) == (ssize_t)len);
    close(fd);
}

static void use(struct journal *journal)
{
    struct usage_record record = {.id = "use_x", .tenant = "ten_x", .outcome = USAGE_COMPLETED};
    size_t pending = journal_pending(journal);

    for (size_t i = 0; i < pending; i++) {
        const struct usage_record *found = journal_at(journal, i);
        expect(strlen(found->model) < USAGE_MODEL_MAX && strlen(journal_owner_at(journal, i)) < ID_TEXT_MAX);
        expect(found->cost_usd_nano >= 0 && found->take_rate_bps <= 10000);
    }
    if (pending > 1)
        journal_release(journal, 1 + pending / 2);
    enum error error = journal_append(journal, &record);
    expect(error == ERR_NONE || error == ERR_BUSY);
    if (!error)
        expect(!strcmp(journal_at(journal, journal_pending(journal) - 1)->id, "use_x"));
    journal_release(journal, journal_pending(journal));
    expect(journal_append(journal, &record) == ERR_NONE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char file[HEADER_BYTES + SLOTS * sizeof(struct slot)];
    char path[64];
    struct journal *journal = NULL;
    size_t len = sizeof(file);

    if (size < 1)
        return 0;
    snprintf(path, sizeof(path), "%s/usage-f.journal", folder());
    memset(file, 0, sizeof(file));
    if (data[0] & 1) {
        len = size - 1 < sizeof(file) ? size - 1 : sizeof(file);
        memcpy(file, data + 1, len);
    } else {
        struct header *header = (struct header *)(void *)file;
        struct slot *slots = (struct slot *)(void *)(file + HEADER_BYTES);
        *header = (struct header){.magic = MAGIC, .slot_bytes = sizeof(struct slot), .slots = SLOTS};
        header->sum = header_sum(header);
        atomic_store(&header->released, data[0] & 4 ? data[0] : 0);
        memcpy(slots, data + 1, size - 1 < SLOTS * sizeof(struct slot) ? size - 1 : SLOTS * sizeof(struct slot));
        for (size_t i = 0; i < SLOTS && data[0] & 2; i++) {
            atomic_store(&slots[i].seq, atomic_load(&header->released) + 1 + i); /* each in its place, when aligned */
            slots[i].sum = slot_sum(&slots[i], atomic_load(&slots[i].seq));
        }
    }
    write_file(path, file, len);
    enum error error = journal_open(folder(), "f", SLOTS, &journal, NULL);
    expect(error == ERR_NONE || error == ERR_MISMATCH);
    if (!error)
        use(journal);
    journal_close(journal);
    unlink(path);
    return 0;
}
