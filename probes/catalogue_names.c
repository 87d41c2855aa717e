/* What drivers call devices, and what else they say of them. */
#include "probes/catalogue_priv.h"
#include "probes/backend.h"

#define VRAM_SLACK 0.07
#define PCI_VENDOR_NVIDIA 0x10de

static struct str next_word(struct str *rest)
{
    while (rest->len && (*rest->ptr == ' ' || *rest->ptr == '-')) {
        rest->ptr++;
        rest->len--;
    }
    struct str word = {rest->ptr, 0};
    while (word.len < rest->len && word.ptr[word.len] != ' ' && word.ptr[word.len] != '-')
        word.len++;
    rest->ptr += word.len;
    rest->len -= word.len;
    return word;
}

/* All words of both, in order: what follows a model's name makes it another ("D", "Ti", "Laptop GPU"). */
static bool is_same_name(struct str a, struct str b)
{
    struct str of_a, of_b;
    do {
        of_a = next_word(&a);
        of_b = next_word(&b);
        if (!str_eq_nocase(of_a, of_b))
            return false;
    } while (of_a.len);
    return true;
}

static struct str without_brand(struct str name)
{
    static const struct str brands[] = {{"NVIDIA", 6}, {"Tesla", 5}, {"GeForce", 7}, {"Quadro", 6}};
    struct str rest = name;
    for (size_t i = 0; i < sizeof(brands) / sizeof(brands[0]); i++) {
        struct str after = rest;
        if (str_eq_nocase(next_word(&after), brands[i]))
            rest = after;
    }
    return rest;
}

static bool has_name(const struct catalogue_row *row, struct str bare)
{
    struct str rest = str_of(row->driver_names), name;
    if (bare.len == 0 || rest.len == 0)
        return false;
    while (name = str_next(&rest, '|'), name.ptr) {
        if (is_same_name(name, bare))
            return true;
    }
    return false;
}

static double gib(uint64_t bytes)
{
    return (double)bytes / (1 << 30);
}

static bool fits_memory(const struct catalogue_row *row, uint64_t vram_bytes)
{
    if (!row->class.has_floor) /* it offers what it likes */
        return true;
    if (vram_bytes == 0)
        return !row->is_one_of_sizes;
    double ratio = gib(vram_bytes) / row->class.vram_gib;
    return ratio >= 1 - VRAM_SLACK && ratio <= 1 + VRAM_SLACK;
}

const struct gpu_class *catalogue_of_driver_name(const struct catalogue *catalogue, struct str driver_name,
                                                 uint64_t vram_bytes)
{
    struct str bare = without_brand(driver_name);
    for (size_t i = 0; i < catalogue->count; i++) {
        const struct catalogue_row *row = &catalogue->rows[i];
        if (has_name(row, bare) && fits_memory(row, vram_bytes))
            return &row->class;
    }
    return NULL;
}

static bool lists_device(const struct gpu_class *class, uint16_t device)
{
    size_t count = sizeof(class->pci_devices) / sizeof(class->pci_devices[0]);
    for (size_t i = 0; i < count && class->pci_devices[i]; i++) {
        if (class->pci_devices[i] == device)
            return true;
    }
    return false;
}

static const char *class_contradiction(const struct gpu_class *class, const struct probe_claim *claim)
{
    if (claim->pci_vendor && str_starts(str_of(class->name), STR("nvidia/")) && claim->pci_vendor != PCI_VENDOR_NVIDIA)
        return "its PCI vendor is not its name's";
    if (claim->pci_device && class->pci_devices[0] && !lists_device(class, claim->pci_device))
        return "its PCI device is not its name's";
    if (claim->cc_major && class->cc_major &&
        (claim->cc_major != class->cc_major || claim->cc_minor != class->cc_minor))
        return "its compute capability is not its name's";
    if (claim->sms && class->sms && claim->sms != class->sms)
        return "its number of multiprocessors is not its name's";
    if (claim->l2_bytes && class->l2_bytes && claim->l2_bytes < class->l2_bytes / 2)
        return "its cache is a part of its name's";
    return NULL;
}

const char *claim_contradiction(const struct catalogue *catalogue, const struct probe_claim *claim)
{
    if (claim->mig)
        return "it is divided into instances (MIG)";
    if (claim->smids_seen && claim->sms && (claim->smids_seen > claim->sms || claim->smids_seen < claim->sms / 2))
        return "its kernels saw another number of multiprocessors than it tells of";
    if (claim->free_bytes > claim->vram_bytes)
        return "it tells of more free memory than it has";
    struct str name = str_of(claim->name);
    const struct gpu_class *class = catalogue_of_driver_name(catalogue, name, claim->vram_bytes);
    if (class)
        return class_contradiction(class, claim);
    /* More memory than a name has must be proven all the same; less is a slice under its parent's name. */
    struct str bare = without_brand(name);
    for (size_t i = 0; i < catalogue->count && claim->vram_bytes; i++) {
        const struct catalogue_row *row = &catalogue->rows[i];
        if (has_name(row, bare) && !row->is_one_of_sizes &&
            gib(claim->vram_bytes) < (1 - VRAM_SLACK) * row->class.vram_gib)
            return "it has less memory than its name has";
    }
    return NULL;
}
