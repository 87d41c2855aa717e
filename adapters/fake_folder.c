#include "adapters/fake_folder.h"
#include "core/clock.h"
#include "core/id.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCK_RETRY_NS (3 * NS_PER_MS)
#define INSTANCES_MAX 100000

/* The default offers: names, prices and places as they are found in the field; the last two are this machine. */
static const struct {
    const char *id, *gpu, *price, *region, *country;
    int gpus, stock, interruptible;
} standard[] = {
    {"rtx4090-1", "NVIDIA GeForce RTX 4090", "0.34", "eu-north", "SE", 1, 8, 0},
    {"rtx4090-spot", "NVIDIA GeForce RTX 4090", "0.18", "eu-north", "SE", 1, 8, 1},
    {"rtx4090-4", "NVIDIA GeForce RTX 4090", "0.36", "us-east", "US", 4, 2, 0},
    {"rtx3090-1", "NVIDIA GeForce RTX 3090", "0.19", "eu-east", "PL", 1, 16, 0},
    {"l4-1", "NVIDIA L4", "0.43", "eu-west", "NL", 1, 8, 0},
    {"l40s-1", "NVIDIA L40S", "0.79", "us-west", "US", 1, 4, 0},
    {"a100-1", "NVIDIA A100-SXM4-80GB", "1.19", "us-east", "US", 1, 4, 0},
    {"a100-8", "NVIDIA A100-SXM4-80GB", "1.14", "us-east", "US", 8, 1, 0},
    {"h100-1", "NVIDIA H100 80GB HBM3", "2.49", "eu-west", "DE", 1, 4, 0},
    {"h100-8", "NVIDIA H100 80GB HBM3", "2.29", "eu-west", "DE", 8, 1, 0},
    {"h200-8", "NVIDIA H200", "2.99", "us-east", "US", 8, 1, 0},
    {"b200-8", "NVIDIA B200", "3.99", "us-east", "US", 8, 1, 0},
    {"cpu-1", "cpu", "0.02", "local", "", 1, 16, 0},
    {"cpu-spot", "cpu", "0.01", "local", "", 1, 16, 1},
};

/* -- files -- */

bool fake_path(const struct fake *fake, char ret[static FAKE_PATH_MAX], const char *folder, const char *name)
{
    return snprintf(ret, FAKE_PATH_MAX, "%s/%s%s", fake->dir, folder, name) < FAKE_PATH_MAX;
}

json_t *fake_read(const struct fake *fake, const char *folder, const char *name)
{
    char path[FAKE_PATH_MAX];
    return fake_path(fake, path, folder, name) ? json_load_file(path, 0, NULL) : NULL;
}

static bool fake_write(const struct fake *fake, const char *folder, const char *name, const json_t *json)
{
    char path[FAKE_PATH_MAX], next[FAKE_PATH_MAX];
    return fake_path(fake, path, folder, name) && fake_path(fake, next, "", ".next") &&
           json_dump_file(json, next, JSON_INDENT(1)) == 0 && rename(next, path) == 0;
}

static bool is_id(struct str id)
{
    for (size_t i = 0; i < id.len; i++)
        if (!((id.ptr[i] >= 'a' && id.ptr[i] <= 'z') || (id.ptr[i] >= '0' && id.ptr[i] <= '9') || id.ptr[i] == '_'))
            return false;
    return id.len > 0 && id.len < ID_TEXT_MAX;
}

json_t *fake_instance_read(const struct fake *fake, struct str id)
{
    char name[ID_TEXT_MAX + 8];
    if (!is_id(id) || snprintf(name, sizeof(name), STR_FMT ".json", STR_ARG(id)) >= (int)sizeof(name))
        return NULL;
    return fake_read(fake, "instances/", name);
}

bool fake_instance_write(const struct fake *fake, json_t *made)
{
    char name[ID_TEXT_MAX + 8], from[FAKE_PATH_MAX];
    snprintf(name, sizeof(name), "%s.json", json_string_value(json_object_get(made, "id")));
    bool is_gone = str_eq(json_text_at(made, "state"), STR("gone"));
    if (is_gone)
        json_object_set_new(made, "ended_ms", json_integer(clock_wall_ms()));
    if (!fake_write(fake, is_gone ? "ended/" : "instances/", name, made))
        return false;
    return !is_gone || !fake_path(fake, from, "instances/", name) || unlink(from) == 0;
}

static bool offers_write(const struct fake *fake)
{
    json_t *list = json_array();
    for (size_t i = 0; i < sizeof(standard) / sizeof(standard[0]); i++)
        json_array_append_new(list, json_pack("{s:s, s:s, s:i, s:s, s:s, s:s, s:i, s:b}", "id", standard[i].id, "gpu",
                                              standard[i].gpu, "gpus", standard[i].gpus, "price", standard[i].price,
                                              "region", standard[i].region, "country", standard[i].country, "stock",
                                              standard[i].stock, "interruptible", standard[i].interruptible));
    bool is_written = fake_write(fake, "", "offers.json", list);
    json_decref(list);
    return is_written;
}

const char *fake_open(struct network *network)
{
    struct fake *fake = network_state(network);
    const char *dir = network_option(network, "dir"), *base = network_base_url(network);
    const char *run = network_option(network, "run"), *looks = network_option(network, "boot_looks");
    static const char *const folders[] = {"", "instances", "ended", "run"};
    char path[FAKE_PATH_MAX];
    if (!dir)
        dir = strncmp(base, "dir://", 6) == 0 ? base + 6 : "";
    if (!dir[0] || !str_copy(fake->dir, sizeof(fake->dir), str_of(dir)))
        return "base_url is dir://PATH, the folder that stands for the network";
    fake->boot_looks = 1;
    if (looks && (!str_to_i64(str_of(looks), &fake->boot_looks) || fake->boot_looks < 0))
        return "boot_looks is a number";
    fake->runs = run && !strcmp(run, "true");
    for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++)
        if (!fake_path(fake, path, folders[i], "") || (mkdir(path, 0700) && errno != EEXIST))
            return "its folder cannot be made";
    if (!fake_path(fake, path, "", "offers.json") || (access(path, F_OK) && !offers_write(fake)))
        return "its offers.json cannot be written";
    return NULL;
}

/* -- what goes wrong -- */

static bool strikes(const json_t *fault, const char *name, enum adapter_op op, struct str tag)
{
    struct str on = json_text_at(fault, "op"), only = json_text_at(fault, "tag");
    double chance = json_number_at(fault, "probability", 1);
    const json_t *count = json_object_get(fault, "count");
    uint32_t dice;
    if (!str_eq(json_text_at(fault, "fault"), str_of(name)) || (count && json_integer_value(count) == 0) ||
        (on.len && !str_eq(on, str_of(adapter_op_name(op)))) || (only.len && !str_eq(only, tag)))
        return false;
    return chance >= 1 || (getrandom(&dice, sizeof(dice), 0) == sizeof(dice) && dice < chance * 4294967295.0);
}

json_t *fake_fault(struct fake_turn *turn, const char *name, struct str tag)
{
    size_t i;
    json_t *fault;
    json_array_foreach(turn->faults, i, fault)
    {
        if (!strikes(fault, name, call_op(turn->call), tag))
            continue;
        const json_t *count = json_object_get(fault, "count");
        json_int_t left = count ? json_integer_value(count) : 1;
        json_object_set_new(fault, "count", json_integer(left > 0 ? left - 1 : left));
        turn->is_changed = true;
        return fault;
    }
    return NULL;
}

void fake_instances_each(struct fake_turn *turn, bool (*each)(struct fake_turn *turn, json_t *made, void *ctx),
                         void *ctx)
{
    char path[FAKE_PATH_MAX];
    DIR *dir = fake_path(turn->fake, path, "instances", "") ? opendir(path) : NULL;
    const struct dirent *entry;
    for (size_t i = 0; dir && i < INSTANCES_MAX && (entry = readdir(dir)); i++) {
        json_t *made =
            str_ends(str_of(entry->d_name), STR(".json")) ? fake_read(turn->fake, "instances/", entry->d_name) : NULL;
        bool goes_on = !made || each(turn, made, ctx);
        json_decref(made);
        if (!goes_on)
            break;
    }
    if (dir)
        closedir(dir);
}

bool fake_turn_begin(struct fake_turn *turn, struct adapter_call *call, void (*run)(struct adapter_call *call))
{
    struct fake *fake = network_state(call_network(call));
    bool *has_waited = adapter_memory(call, sizeof(*has_waited));
    char path[FAKE_PATH_MAX];
    *turn = (struct fake_turn){.call = call, .fake = fake};
    turn->lock = fake_path(fake, path, "", ".lock") ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (turn->lock < 0 || !has_waited) {
        adapter_fail(call, SUPPLY_TRANSIENT, STR("its folder cannot be written"));
        return false;
    }
    if (flock(turn->lock, LOCK_EX | LOCK_NB)) {
        close(turn->lock);
        adapter_later(call, LOCK_RETRY_NS, run);
        return false;
    }
    turn->faults = fake_read(fake, "", "faults.json");
    json_t *slow = *has_waited ? NULL : fake_fault(turn, "latency_ms", call_tag(call));
    *has_waited = true;
    if (!slow)
        return true;
    adapter_later(call, (int64_t)json_number_at(slow, "ms", 200) * NS_PER_MS, run);
    fake_turn_end(turn);
    return false;
}

void fake_turn_end(struct fake_turn *turn)
{
    if (turn->is_changed && !fake_write(turn->fake, "", "faults.json", turn->faults))
        adapter_fail(turn->call, SUPPLY_TRANSIENT, STR("its folder cannot be written"));
    json_decref(turn->faults);
    close(turn->lock);
}
