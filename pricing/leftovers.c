/* settle_leftovers: journals of an earlier run that had more reactors. */
#include "pricing/settle.h"

#include "core/log.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_MAX_LEN 32
#define NAMES_MAX 1024 /* more reactors than that no gateway has */

struct leftovers {
    struct loop *loop;
    struct redis *redis;
    char dir[PATH_MAX], gateway_id[ID_TEXT_MAX];
    void (*done)(void *ctx);
    void *ctx;
    struct task next;
    struct settle_waiter waiter;
    struct journal *journal;
    struct settler *settler;
    size_t name_count, name_at;
    char names[NAMES_MAX][NAME_MAX_LEN];
};

/* "usage-<name>.journal" with a name that no reactor has now. */
static bool is_left_over(const char *file, size_t in_use, char ret_name[static NAME_MAX_LEN])
{
    struct str name = str_of(file), prefix = STR("usage-"), suffix = STR(".journal");
    int64_t number;

    if (!str_starts(name, prefix) || !str_ends(name, suffix) || name.len <= prefix.len + suffix.len)
        return false;
    name = (struct str){name.ptr + prefix.len, name.len - prefix.len - suffix.len};
    if (str_to_i64(name, &number) && number >= 0 && (uint64_t)number < in_use)
        return false;
    return str_copy(ret_name, NAME_MAX_LEN, name);
}

static void list_names(struct leftovers *left, size_t in_use)
{
    DIR *dir = opendir(left->dir);
    const struct dirent *entry;

    if (!dir)
        return;
    while (left->name_count < NAMES_MAX && (entry = readdir(dir)) != NULL)
        left->name_count += is_left_over(entry->d_name, in_use, left->names[left->name_count]);
    closedir(dir);
}

static void journal_settled(struct settle_waiter *waiter)
{
    struct leftovers *left = container_of(waiter, struct leftovers, waiter);

    left->settler = settler_free(left->settler);
    left->journal = journal_remove(left->journal);
    loop_defer(left->loop, &left->next);
}

/* Opens the next journal; one that another gateway uses, or that is none, is let be. */
static bool open_next(struct leftovers *left)
{
    size_t torn = 0;

    while (left->name_at < left->name_count) {
        const char *name = left->names[left->name_at++];
        enum error error = journal_open(left->dir, name, 1, &left->journal, &torn);
        if (error) {
            if (error != ERR_EXISTS)
                log_warn(NULL, "journal usage-%s is left alone: %s", name, error_text(error));
            continue;
        }
        log_info(NULL, "journal usage-%s of an earlier run: %zu records to settle, %zu torn", name,
                 journal_pending(left->journal), torn);
        error = settler_open(left->loop, left->redis, left->journal, left->gateway_id, &left->settler);
        if (!error)
            return true;
        log_warn(NULL, "journal usage-%s is left alone: %s", name, error_text(error));
        left->journal = journal_close(left->journal);
    }
    return false;
}

static void leftovers_next(struct task *task)
{
    struct leftovers *left = container_of(task, struct leftovers, next);

    if (open_next(left)) {
        left->waiter = (struct settle_waiter){.on_settled = journal_settled};
        settler_wait(left->settler, &left->waiter);
        return;
    }
    left->done(left->ctx);
    free(left);
}

void settle_leftovers(struct loop *loop, struct redis *redis, const char *dir, const char *gateway_id, size_t in_use,
                      void (*done)(void *ctx), void *ctx)
{
    struct leftovers *left = calloc(1, sizeof(*left));

    if (!left || !str_copy(left->dir, sizeof(left->dir), str_of(dir)) ||
        !str_copy(left->gateway_id, sizeof(left->gateway_id), str_of(gateway_id))) {
        log_error(NULL, "journals of earlier runs are not looked at: %s", error_text(ERR_NO_MEMORY));
        free(left);
        done(ctx);
        return;
    }
    left->loop = loop;
    left->redis = redis;
    left->done = done;
    left->ctx = ctx;
    left->next.run = leftovers_next;
    list_names(left, in_use);
    loop_defer(loop, &left->next);
}
