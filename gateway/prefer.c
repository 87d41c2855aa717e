#include "gateway/prefer.h"

#include "core/money.h"

#define REGION_MAX 64
#define TAG_MAX 32
#define TAGS_MAX 16

bool prefer_is_region(struct str text)
{
    if (text.len == 0 || text.len > REGION_MAX)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        if (c < 0x20 || c == 0x7f)
            return false;
    }
    return true;
}

static bool is_tag(struct str tag)
{
    if (tag.len == 0 || tag.len > TAG_MAX)
        return false;
    for (size_t i = 0; i < tag.len; i++) {
        char c = tag.ptr[i];
        bool is_alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!is_alnum && c != '-' && c != '_' && c != '.' && c != ':')
            return false;
    }
    return true;
}

bool prefer_is_require(struct str text)
{
    size_t count = 0, from = 0;
    for (size_t i = 0; i <= text.len; i++) {
        if (i < text.len && text.ptr[i] != ',')
            continue;
        if (++count > TAGS_MAX || !is_tag(str_trim((struct str){text.ptr + from, i - from})))
            return false;
        from = i + 1;
    }
    return true;
}

bool prefer_parse(const struct prefer_headers *headers, struct dispatch_query *ret, struct api_error *ret_error)
{
    struct weights weights = weights_default();
    int64_t max_price = -1;
    if (headers->prefer.ptr && !weights_parse(headers->prefer, &weights)) {
        api_error_bad_request(ret_error, PREFER_HEADER_PREFER,
                              PREFER_HEADER_PREFER " must be price, latency, reputation, balanced, or weights such as "
                                                   "\"price=0.6,latency=0.3,reputation=0.1\".");
        return false;
    }
    if (headers->max_price.ptr && !money_parse(headers->max_price, &max_price)) {
        api_error_bad_request(ret_error, PREFER_HEADER_MAX_PRICE,
                              PREFER_HEADER_MAX_PRICE
                              " must be an amount in US dollars per GPU-hour such as \"1.20\".");
        return false;
    }
    if (headers->region.ptr && !prefer_is_region(headers->region)) {
        api_error_bad_request(ret_error, PREFER_HEADER_REGION,
                              PREFER_HEADER_REGION " must be the name of a region (1 to %d characters).", REGION_MAX);
        return false;
    }
    if (headers->require.ptr && !prefer_is_require(headers->require)) {
        api_error_bad_request(ret_error, PREFER_HEADER_REQUIRE,
                              PREFER_HEADER_REQUIRE " must be a list of at most %d tags such as \"gdpr,hipaa\".",
                              TAGS_MAX);
        return false;
    }
    ret->weights = weights;
    ret->max_price_usd_nano = max_price;
    ret->region = headers->region;
    ret->require = headers->require;
    return true;
}
