/* What canaries ask, and the text that is kept of one. */
#include "gateway/canary.h"

#include <jansson.h>
#include <stdlib.h>

static const char *const systems[] = {
    NULL, NULL, "You are a helpful assistant.", "Answer briefly.", "You are a precise assistant. Keep answers short.",
};
/* $ and & are two subjects, # is a number. */
static const char *const questions[] = {
    "What is the main difference between $ and &?",
    "Write one sentence about $ for a brochure.",
    "List # facts about $.",
    "Give me a short title for an essay on $ and &.",
    "Explain $ to a child in two sentences.",
    "I have # minutes to prepare a talk on $. What should I start with?",
    "Translate to French: \\\"$ and & are older than they look.\\\"",
    "Which came first, $ or &? Why?",
    "Summarize in ten words why $ matters for &.",
    "Someone says that $ has nothing to do with &. Is that right?",
    "Continue the story: \\\"On day # they finally understood $.\\\"",
    "What would you ask an expert on $?",
};
static const char *const subjects[] = {"bridge building",
                                       "sourdough bread",
                                       "the Baltic Sea",
                                       "double-entry bookkeeping",
                                       "solar panels",
                                       "chess",
                                       "city trams",
                                       "photosynthesis",
                                       "paper making",
                                       "the printing press",
                                       "migraine",
                                       "jazz",
                                       "glaciers",
                                       "public libraries",
                                       "honey bees",
                                       "container shipping",
                                       "sleep",
                                       "volcanoes",
                                       "watch making",
                                       "the Silk Road",
                                       "football",
                                       "vaccination",
                                       "rent control",
                                       "opera",
                                       "wind turbines",
                                       "medieval castles",
                                       "tea",
                                       "databases",
                                       "long walks",
                                       "porcelain",
                                       "earthquakes",
                                       "railway timetables"};

#define COUNT(list) (sizeof(list) / sizeof(*(list)))

/* Takes the next choice of `count` off the random bits. */
static size_t draw(uint64_t *random, size_t count)
{
    size_t chosen = (size_t)(*random % count);
    *random /= count;
    return chosen;
}

static bool fill(const char *question, const char *first, const char *second, int number, struct buf *ret)
{
    bool ok = true;
    for (const char *at = question; ok && *at; at++)
        ok = *at == '$'   ? buf_append_str(ret, str_of(first))
             : *at == '&' ? buf_append_str(ret, str_of(second))
             : *at == '#' ? buf_printf(ret, "%d", number)
                          : buf_append(ret, at, 1);
    return ok;
}

bool canary_question(struct str model, uint64_t random, struct buf *ret)
{
    static const char *const zeros[] = {"0", "0.0"};
    const char *system = systems[draw(&random, COUNT(systems))];
    const char *question = questions[draw(&random, COUNT(questions))];
    size_t first = draw(&random, COUNT(subjects)), second = first + 1 + draw(&random, COUNT(subjects) - 1);
    int number = 2 + (int)draw(&random, 8), tokens = 16 + 8 * (int)draw(&random, 5);
    const char *zero = zeros[draw(&random, COUNT(zeros))];
    bool ok = buf_printf(ret, "{\"model\":") && json_quote(ret, model) && buf_printf(ret, ",\"messages\":[");
    if (ok && system)
        ok = buf_printf(ret, "{\"role\":\"system\",\"content\":\"%s\"},", system);
    ok = ok && buf_printf(ret, "{\"role\":\"user\",\"content\":\"") &&
         fill(question, subjects[first], subjects[second % COUNT(subjects)], number, ret);
    return ok && buf_printf(ret, "\"}],\"temperature\":%s,\"max_tokens\":%d}", zero, tokens);
}

bool canary_write(struct str question, struct str answer, struct str worker, struct str supplier, struct buf *ret)
{
    json_t *all = json_pack("{s:s%, s:s%, s:s%, s:s%}", "question", question.ptr, question.len, "answer", answer.ptr,
                            answer.len, "worker", worker.ptr, worker.len, "supplier", supplier.ptr, supplier.len);
    char *text = all ? json_dumps(all, JSON_COMPACT) : NULL;
    bool ok = text && buf_append_str(ret, str_of(text));
    json_decref(all);
    free(text);
    return ok;
}

static struct str text_of(const json_t *all, const char *name)
{
    const json_t *text = json_object_get(all, name);
    return (struct str){json_string_value(text), json_string_length(text)};
}

bool canary_read(struct str text, struct answer_check *check)
{
    json_t *all = json_loadb(text.ptr, text.len, 0, NULL);
    struct str question = text_of(all, "question"), answer = text_of(all, "answer");
    struct check_ask *peer = &check->asks[CHECK_PEER];
    buf_init(&peer->answer, answer_limits_default().replay_max);
    bool ok = question.ptr && answer.ptr && answer_is_determined(check->kind, question) &&
              json_scan_all(answer, NULL, NULL) == ERR_NONE && check_may_hold(check, question.len + answer.len) &&
              buf_append_str(&check->plain, question) && buf_append_str(&peer->answer, answer) &&
              str_copy(peer->record.worker, sizeof(peer->record.worker), text_of(all, "worker")) &&
              str_copy(peer->record.supplier, sizeof(peer->record.supplier), text_of(all, "supplier"));
    ok = ok && peer->record.worker[0] && peer->record.supplier[0];
    peer->is_good = ok;
    json_decref(all);
    return ok;
}
