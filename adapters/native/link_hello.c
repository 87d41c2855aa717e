#include "adapters/native/link_hello.h"

#include <stdio.h>
#include <string.h>

#define REACTORS_MAX 4096

static bool is_word(struct str word, size_t max)
{
    if (word.len == 0 || word.len > max)
        return false;
    for (size_t i = 0; i < word.len; i++)
        if (word.ptr[i] <= ' ' || word.ptr[i] > '~')
            return false;
    return true;
}

static bool is_boot(struct str boot)
{
    if (boot.len == 0 || boot.len > LINK_BOOT_MAX)
        return false;
    for (size_t i = 0; i < boot.len; i++) {
        char c = boot.ptr[i];
        if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-'))
            return false;
    }
    return true;
}

bool link_hello_parse(struct str line, struct link_hello *ret)
{
    struct str rest = line, magic = str_next(&rest, ' ');
    struct link_hello hello;
    hello.worker = str_next(&rest, ' ');
    hello.secret = str_next(&rest, ' ');
    hello.boot = rest;
    if (line.len >= LINK_HELLO_MAX || !str_eq(magic, STR("SLUICE-LINK/1")) || !is_word(hello.worker, LINK_HELLO_MAX) ||
        !is_word(hello.secret, LINK_HELLO_MAX) || !is_boot(hello.boot))
        return false;
    *ret = hello;
    return true;
}

bool link_hello_write(const struct link_hello *hello, char ret[static LINK_HELLO_MAX], size_t *ret_len)
{
    if (!is_word(hello->worker, LINK_HELLO_MAX) || !is_word(hello->secret, LINK_HELLO_MAX) || !is_boot(hello->boot))
        return false;
    int len = snprintf(ret, LINK_HELLO_MAX, "SLUICE-LINK/1 " STR_FMT " " STR_FMT " " STR_FMT "\n",
                       STR_ARG(hello->worker), STR_ARG(hello->secret), STR_ARG(hello->boot));
    if (len < 0 || len >= LINK_HELLO_MAX)
        return false;
    *ret_len = (size_t)len;
    return true;
}

bool link_answer_parse(struct str line, struct link_answer *ret)
{
    struct str rest = line, verdict = str_next(&rest, ' ');
    int64_t reactor = 0;
    if (line.len >= LINK_ANSWER_MAX || !is_word(rest, LINK_ANSWER_MAX))
        return false;
    if (str_eq(verdict, STR("OK")) && str_to_i64(rest, &reactor) && reactor >= 0 && reactor < REACTORS_MAX) {
        *ret = (struct link_answer){.is_taken = true, .reactor = (unsigned)reactor};
        return true;
    }
    if (!str_eq(verdict, STR("NO")))
        return false;
    *ret = (struct link_answer){.reason = rest};
    return true;
}

bool link_answer_write(const struct link_answer *answer, char ret[static LINK_ANSWER_MAX], size_t *ret_len)
{
    int len = answer->is_taken ? snprintf(ret, LINK_ANSWER_MAX, "OK %u\n", answer->reactor)
                               : snprintf(ret, LINK_ANSWER_MAX, "NO " STR_FMT "\n", STR_ARG(answer->reason));
    if (len < 0 || len >= LINK_ANSWER_MAX)
        return false;
    *ret_len = (size_t)len;
    return true;
}
