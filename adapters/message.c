/* What a network answered, for people: found in its answer, made harmless, with what to do about it. */
#include "adapters/network_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SAID_MAX 160
#define SECRET_LEAST 6 /* shorter ones could be any word */

static const char *advice_of(enum supply_error error)
{
    switch (error) {
    case SUPPLY_BAD_CREDENTIAL:
        return "check this network's credential in the configuration";
    case SUPPLY_QUOTA:
        return "raise the account's limit there, or ask for another GPU or region";
    case SUPPLY_NO_FUNDS:
        return "add funds to the account there";
    case SUPPLY_BAD_REQUEST:
        return "check the image and its arguments";
    case SUPPLY_NO_CAPACITY:
        return "take another offer, or try later";
    case SUPPLY_RATE_LIMITED:
        return "it is asked again later";
    case SUPPLY_TRANSIENT:
        return "try again later; if it lasts, see whether the network is up and its base_url is right";
    case SUPPLY_PRICE_MOVED:
        return "accept the new price, or take another offer";
    case SUPPLY_NOT_YET:
        return "it is asked again";
    case SUPPLY_UNKNOWN:
        return "take another offer; if it lasts, the network's interface may have changed";
    default:
        return NULL;
    }
}

/* -- an error body -- */

static struct str first_text(const json_t *json, const char *const *paths)
{
    for (; *paths; paths++) {
        struct str text = json_text_at(json, *paths);
        if (text.len)
            return text;
    }
    return (struct str){NULL, 0};
}

void message_explain(const struct adapter *adapter, const struct adapter_answer *answer, struct str *ret_code,
                     struct str *ret_said)
{
    if (adapter->explain) {
        adapter->explain(answer, ret_code, ret_said);
        return;
    }
    static const char *const codes[] = {"error.code", "code", "error", "reason", NULL};
    static const char *const texts[] = {"error.message",     "message", "msg",   "detail",
                                        "error.detail",      "title",   "error", "[0].message",
                                        "errors[0].message", NULL};
    if (answer->json) {
        *ret_code = first_text(answer->json, codes);
        *ret_said = first_text(answer->json, texts);
        return;
    }
    *ret_said = answer->body;
}

/* -- harmless text -- */

static size_t utf8_len(struct str s)
{
    static const unsigned char least[] = {0, 0, 0xc2, 0xe0, 0xf0};
    unsigned char c = (unsigned char)s.ptr[0];
    size_t len = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
    if (!len || len > s.len || (len > 1 && c < least[len]))
        return 0;
    for (size_t i = 1; i < len; i++)
        if (((unsigned char)s.ptr[i] & 0xc0) != 0x80)
            return 0;
    unsigned char second = len > 1 ? (unsigned char)s.ptr[1] : 0;
    bool is_bad = (c == 0xe0 && second < 0xa0) || (c == 0xed && second > 0x9f) || (c == 0xf0 && second < 0x90) ||
                  (c == 0xf4 && second > 0x8f) || (c == 0xc2 && second < 0xa0);
    return is_bad ? 0 : len;
}

/* How many bytes at the front of s are a secret of this network: some echo the key that they refuse. */
static size_t secret_len(const struct network *network, struct str s)
{
    for (size_t i = 0; i < network->credential->count; i++) {
        struct str secret = str_of(network->credential->pairs[i].value);
        if (secret.len >= SECRET_LEAST && str_starts(s, secret))
            return secret.len;
    }
    return 0;
}

static size_t put_harmless(const struct network *network, struct str said, char *to, size_t size)
{
    size_t at = 0;
    while (said.len && at + 5 < size) {
        size_t secret = secret_len(network, said), len = utf8_len(said);
        bool is_plain = len > 1 || (len && said.ptr[0] > ' ' && said.ptr[0] != 0x7f);
        if (secret) {
            memcpy(to + at, "***", 3);
            at += 3;
            len = secret;
        } else if (is_plain) {
            memcpy(to + at, said.ptr, len);
            at += len;
        } else {
            if (at && to[at - 1] != ' ')
                to[at++] = ' ';
            len = 1;
        }
        said = (struct str){said.ptr + len, said.len - len};
    }
    while (at && (to[at - 1] == ' ' || to[at - 1] == '.'))
        at--;
    return at;
}

void message_write(const struct network *network, enum supply_error error, int http_status, struct str said,
                   char ret[static SUPPLY_MESSAGE_MAX])
{
    char text[SAID_MAX];
    struct str trimmed = said;
    while (trimmed.len && (unsigned char)trimmed.ptr[0] <= ' ')
        trimmed = (struct str){trimmed.ptr + 1, trimmed.len - 1};
    bool is_page = trimmed.len && trimmed.ptr[0] == '<';
    size_t len = is_page ? 0 : put_harmless(network, trimmed, text, sizeof(text));
    if (!len && http_status)
        len = (size_t)snprintf(text, sizeof(text), "HTTP %d%s", http_status, is_page ? " with a page of HTML" : "");
    else if (!len)
        len = (size_t)snprintf(text, sizeof(text), "%s", supply_error_name(error));
    const char *advice = advice_of(error);
    int put = snprintf(ret, SUPPLY_MESSAGE_MAX, "%s (%s): %.*s%s%s", network->adapter->title, network->id, (int)len,
                       text, advice ? "; " : "", advice ? advice : "");
    if (put < 0)
        ret[0] = '\0';
}
