/* Scalars that come from people are written in double quotes with all but plain ASCII as escapes: nothing in them is
 * YAML then, whatever parser reads it.
 *
 * Providers run the service in Kubernetes, which replaces $(NAME) in commands and environment and makes one $ of two:
 * each $ is doubled. */
#include "adapters/akash_sdl.h"

#include <inttypes.h>
#include <string.h>

#define POINT_MAX 0x10ffff
#define TOO_LONG "image, command and environment are too long"

/* Keeps what went wrong first; nothing is written after it. */
struct writer {
    struct buf *to;
    const char *wrong;
};

#define PUT(writer, ...)                                                \
    do {                                                                \
        if (!(writer)->wrong && !buf_printf((writer)->to, __VA_ARGS__)) \
            (writer)->wrong = TOO_LONG;                                 \
    } while (0)

/* The code point at the start of *rest, which is cut off; -1: no UTF-8. */
static int32_t next_point(struct str *rest)
{
    const unsigned char *at = (const unsigned char *)rest->ptr;
    size_t len = at[0] < 0x80 ? 1 : at[0] >= 0xc2 && at[0] < 0xe0 ? 2 : (at[0] & 0xf0) == 0xe0 ? 3 : 4;
    static const int32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    static const unsigned char mask[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    if (len > rest->len || (at[0] >= 0x80 && at[0] < 0xc2) || at[0] > 0xf4)
        return -1;
    int32_t point = at[0] & mask[len];
    for (size_t i = 1; i < len; i++) {
        if ((at[i] & 0xc0) != 0x80)
            return -1;
        point = point << 6 | (at[i] & 0x3f);
    }
    if (point < least[len] || point > POINT_MAX || (point >= 0xd800 && point < 0xe000))
        return -1;
    rest->ptr += len;
    rest->len -= len;
    return point;
}

static void put_text(struct writer *writer, struct str text, bool doubles_dollars)
{
    while (text.len && !writer->wrong) {
        int32_t point = next_point(&text);
        if (point <= 0)
            writer->wrong = "image, command and environment must be UTF-8 text without NUL";
        else if (point == '"' || point == '\\')
            PUT(writer, "\\%c", (char)point);
        else if (point == '$' && doubles_dollars)
            PUT(writer, "$$");
        else if (point == '\n')
            PUT(writer, "\\n");
        else if (point >= ' ' && point < 0x7f)
            PUT(writer, "%c", (char)point);
        else
            PUT(writer, "\\U%08" PRIX32, (uint32_t)point);
    }
}

static void put_quoted(struct writer *writer, struct str text)
{
    PUT(writer, "\"");
    put_text(writer, text, false);
    PUT(writer, "\"");
}

static void put_service(struct writer *writer, const struct supply_order *order)
{
    PUT(writer, "version: \"2.0\"\nservices:\n  " STR_FMT ":\n    image: ", STR_ARG(order->tag));
    put_quoted(writer, order->image);
    if (order->argc)
        PUT(writer, "\n    command:");
    for (size_t i = 0; i < order->argc; i++) {
        PUT(writer, "\n      - \"");
        put_text(writer, order->argv[i], true);
        PUT(writer, "\"");
    }
    if (order->env_count)
        PUT(writer, "\n    env:");
    for (size_t i = 0; i < order->env_count && !writer->wrong; i++) {
        const struct supply_pair *pair = &order->env[i];
        if (!pair->key.len || memchr(pair->key.ptr, '=', pair->key.len))
            writer->wrong = "a variable needs a name without '='";
        PUT(writer, "\n      - \"");
        put_text(writer, pair->key, false);
        PUT(writer, "=");
        put_text(writer, pair->value, true);
        PUT(writer, "\"");
    }
    PUT(writer, "\n    expose:\n");
}

static void put_expose(struct writer *writer, const struct supply_order *order)
{
    static const uint16_t idle = AKASH_IDLE_PORT;
    const uint16_t *ports = order->port_count ? order->ports : &idle;
    for (size_t i = 0; i < (order->port_count ? order->port_count : 1); i++)
        PUT(writer, "      - port: %u\n        as: %u\n        proto: tcp\n        to:\n          - global: true\n",
            ports[i], ports[i]);
}

static void put_gpu(struct writer *writer, const struct akash_ask *ask)
{
    PUT(writer,
        "        gpu:\n          units: %" PRIu32 "\n          attributes:\n            vendor:\n              ",
        ask->order->gpus);
    put_quoted(writer, ask->vendor);
    PUT(writer, ":\n                - model: ");
    put_quoted(writer, ask->model);
    if (ask->ram.len) {
        PUT(writer, "\n                  ram: ");
        put_quoted(writer, ask->ram);
    }
    if (ask->interface.len) {
        PUT(writer, "\n                  interface: ");
        put_quoted(writer, ask->interface);
    }
    PUT(writer, "\n");
}

/* The tag stands without quotes. */
static bool is_name(struct str text)
{
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (!((c >= 'a' && c <= 'z') || (i > 0 && ((c >= '0' && c <= '9') || c == '-'))))
            return false;
    }
    return text.len > 0 && text.len < SUPPLY_TAG_MAX && text.ptr[text.len - 1] != '-';
}

const char *akash_sdl_write(const struct akash_ask *ask, struct buf *to)
{
    struct str name = ask->order->tag;
    struct writer writer = {.to = to, .wrong = is_name(name) ? NULL : "the tag cannot name a service"};
    put_service(&writer, ask->order);
    put_expose(&writer, ask->order);
    PUT(&writer, "profiles:\n  compute:\n    " STR_FMT ":\n      resources:\n", STR_ARG(name));
    PUT(&writer, "        cpu:\n          units: %" PRId64 "\n        memory:\n          size: %" PRId64 "Gi\n",
        ask->cpu_units, ask->memory_gib);
    PUT(&writer, "        storage:\n          size: %" PRId64 "Gi\n", ask->order->disk_gib);
    put_gpu(&writer, ask);
    PUT(&writer, "  placement:\n    any:\n      pricing:\n        " STR_FMT ":\n          denom: uact\n",
        STR_ARG(name));
    PUT(&writer, "          amount: %" PRId64 "\ndeployment:\n  " STR_FMT ":\n    any:\n      profile: " STR_FMT "\n",
        ask->uact_per_block, STR_ARG(name), STR_ARG(name));
    PUT(&writer, "      count: 1\n");
    return writer.wrong;
}
