#include "gateway/usage_scan.h"

static void note_member(void *arg, const struct json_member *member)
{
    struct usage_scan *usage_scan = arg;
    if (str_eq(member->key, STR("error"))) {
        usage_scan->is_error = member->type != JS_NULL;
    } else if (str_eq(member->key, STR("usage"))) {
        usage_scan->usage_start = member->start;
        usage_scan->usage_end = member->end;
    }
}

void usage_scan_init(struct usage_scan *usage_scan)
{
    *usage_scan = (struct usage_scan){.is_error = false};
    json_scan_init(&usage_scan->scan, note_member, usage_scan);
}

static enum error judge(const struct usage_scan *usage_scan, enum error scanned)
{
    enum js_type root = usage_scan->scan.root;
    return scanned || (root != JS_NONE && root != JS_OBJECT) ? ERR_PROTOCOL : ERR_NONE;
}

enum error usage_scan_feed(struct usage_scan *usage_scan, struct str bytes)
{
    return judge(usage_scan, json_scan_feed(&usage_scan->scan, bytes));
}

enum error usage_scan_end(struct usage_scan *usage_scan, struct str text)
{
    enum error error = judge(usage_scan, json_scan_end(&usage_scan->scan));
    if (!error && usage_scan->usage_end > 0) {
        struct str usage = {text.ptr + usage_scan->usage_start, usage_scan->usage_end - usage_scan->usage_start};
        usage_read(json_value_of(usage), &usage_scan->usage);
    }
    return error;
}

void usage_read(struct json_value value, struct usage *ret)
{
    if (value.type != JS_OBJECT)
        return;
    int64_t prompt = 0, completion = 0, total = 0;
    bool any = false, both = false;
    struct json_walk walk = json_walk_of(value);
    struct str key;
    while (json_next_member(&walk, &key, &value)) {
        if (str_eq(key, STR("prompt_tokens")) || str_eq(key, STR("input_tokens")))
            any |= json_to_count(value, &prompt);
        else if (str_eq(key, STR("completion_tokens")) || str_eq(key, STR("output_tokens")))
            any |= both |= json_to_count(value, &completion);
        else if (str_eq(key, STR("total_tokens")))
            any |= json_to_count(value, &total);
    }
    if (!any)
        return;
    if (!both && total > prompt)
        completion = total - prompt;
    *ret = (struct usage){true, prompt, completion};
}
