/* Whatever a network says: a name that comes out is the catalogue's, agrees with the memory that was told, and is the
 * same when it is asked again by that name. */
#include "tests/fuzz/fuzz.h"

#include "probes/catalogue_priv.h"
#include "probes/gpu_names.h"
#include "probes/gpu_names_priv.h"

#include <string.h>

/* Bytes that stand for words, so that names come about more often than by chance. */
static size_t spell(const uint8_t *data, size_t size, char text[static 256])
{
    size_t models, len = 0;
    const struct gpu_model *rows = gpu_models(&models);
    for (size_t i = 0; i < size && len < 200; i++) {
        if (data[i] < 128) {
            text[len++] = (char)data[i];
            continue;
        }
        static const char *const words[] = {"SXM5",   "PCIe", "80GB", "-MIG-", "1g.5gb",
                                            " 40 GB", "8x",   "-4Q",  "HBM3",  " "};
        size_t words_count = sizeof(words) / sizeof(words[0]), which = data[i] - 128u;
        const char *word = which < words_count ? words[which] : rows[(which * 7 + i) % models].words;
        size_t word_len = strlen(word);
        memcpy(text + len, word, word_len);
        len += word_len;
    }
    return len;
}

static void check(struct str raw, struct str form, uint64_t vram_bytes)
{
    struct gpu_identity got, again;
    size_t rows, found = 0;
    memset(&got, 0xee, sizeof(got));
    bool is_known = gpu_identify(raw, form, vram_bytes, &got);
    CHECK(is_known == (got.name[0] != '\0'));
    CHECK(got.fraction_ppm <= GPU_WHOLE_PPM);
    if (!is_known) {
        CHECK(got.fraction_ppm == 0 && got.vram_gib == 0);
        return;
    }
    CHECK(got.is_slice || got.fraction_ppm == GPU_WHOLE_PPM);
    const struct catalogue_row *built_in = catalogue_built_in(&rows);
    for (size_t i = 0; i < rows; i++)
        found += strcmp(built_in[i].class.name, got.name) == 0;
    CHECK(found == 1);
    CHECK(gpu_identify(str_of(got.name), STR(""), got.is_slice ? 0 : vram_bytes, &again));
    CHECK(strcmp(again.name, got.name) == 0 && again.vram_gib == got.vram_gib && !again.is_slice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint64_t gib[] = {0, 0, 8, 16, 24, 40, 48, 64, 80, 94, 96, 128, 141, 180, 192, 288};
    char text[256];
    uint64_t vram_bytes = gib[fuzz_byte(&data, &size) % 16] << 30;
    check((struct str){(const char *)data, size}, STR(""), vram_bytes);
    size_t len = spell(data, size, text), at = fuzz_cut(&data, &size, len);
    check((struct str){text, len}, STR(""), vram_bytes);
    check((struct str){text, at}, (struct str){text + at, len - at}, vram_bytes);
    return 0;
}
