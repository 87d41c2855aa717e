/* Receipts from anybody. First byte even: the rest is a text that nobody has signed; odd: the rest changes a right one
 * (pairs of a place and a byte), and only the unchanged one may pass. Then a list of texts, cut at newlines. */
#include "probes/receipt.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

static struct buf right;

static void make_right(void)
{
    struct signing_key *key;
    static struct verify_report report = {.result = VERIFY_PASSED, .ratio = 0.97, .step_count = 3};
    struct receipt_facts facts = {STR("wrk_1"), STR("gw_1"), 0, VERIFY_SPOT, 1763770000123, ""};
    buf_init(&right, RECEIPT_MAX);
    CHECK(signing_key_new(&key) == ERR_NONE);
    CHECK(receipt_make(&facts, &report, key, &right) == ERR_NONE);
    key = signing_key_free(key);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct receipt_row rows[64];
    static char changed[RECEIPT_MAX];
    struct receipt_view view;
    struct str texts[64], rest;
    size_t count = 0;
    if (!right.ptr)
        make_right();
    if (fuzz_byte(&data, &size) % 2 == 0) {
        CHECK(receipt_check((struct str){(const char *)data, size}, NULL, &view) != ERR_NONE);
        rest = (struct str){(const char *)data, size};
        while (count < 64 && (texts[count] = str_next(&rest, '\n')).ptr)
            count++;
        CHECK(receipt_log_check(texts, count, NULL, rows) == count);
        return 0;
    }
    memcpy(changed, right.ptr, right.len);
    for (; size >= 3; data += 3, size -= 3)
        changed[(data[0] | (size_t)data[1] << 8) % right.len] = (char)data[2];
    bool is_same = !memcmp(changed, right.ptr, right.len);
    CHECK((receipt_check((struct str){changed, right.len}, NULL, &view) == ERR_NONE) == is_same);
    return 0;
}
