/* A network in a folder, for tests and demonstrations: fake_folder.h says what is in it. */
#include "adapters/fake_folder.h"
#include "adapters/fake_run.h"
#include "adapters/registry.h"
#include "core/clock.h"
#include "core/id.h"
#include "core/money.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOG_BYTES 65536

static bool fails_by(struct fake_turn *turn, const char *name, enum supply_error error, struct str said)
{
    if (!fake_fault(turn, name, call_tag(turn->call)))
        return false;
    adapter_fail(turn->call, error, said);
    return true;
}

static bool is_denied(struct fake_turn *turn)
{
    char path[FAKE_PATH_MAX], key[128] = "";
    int fd = fake_path(turn->fake, path, "", "key") ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return false;
    ssize_t len = read(fd, key, sizeof(key) - 1);
    close(fd);
    while (len > 0 && key[len - 1] == '\n')
        len--;
    const char *given = network_credential(call_network(turn->call), "api_key");
    return len > 0 && (!given || !str_eq(str_of(given), (struct str){key, (size_t)len}));
}

/* False: the call is over before anything was done. */
static bool before(struct fake_turn *turn)
{
    struct adapter_call *call = turn->call;
    if (is_denied(turn) || fake_fault(turn, "denied", call_tag(call)))
        adapter_fail(call, SUPPLY_BAD_CREDENTIAL, STR("unknown key"));
    else if (fails_by(turn, "drop_before", SUPPLY_TRANSIENT, STR("the connection broke")) ||
             fails_by(turn, "rate_limit", SUPPLY_RATE_LIMITED, STR("asked too often")) ||
             fails_by(turn, "error_500", SUPPLY_TRANSIENT, STR("internal error")))
        return false;
    else if (call_op(call) == ADAPTER_CREATE)
        return !(fails_by(turn, "no_capacity", SUPPLY_NO_CAPACITY, STR("this offer is gone")) ||
                 fails_by(turn, "quota", SUPPLY_QUOTA, STR("the account may have no more instances")) ||
                 fails_by(turn, "no_funds", SUPPLY_NO_FUNDS, STR("the account is empty")) ||
                 fails_by(turn, "bad_image", SUPPLY_BAD_REQUEST, STR("no such image")));
    else
        return true;
    return false;
}

/* It is done, but nobody hears of it. */
static bool is_lost(struct fake_turn *turn)
{
    return fails_by(turn, "drop_answer_after_effect", SUPPLY_TRANSIENT,
                    STR("the connection broke before it answered")) ||
           fails_by(turn, "garbage_body", SUPPLY_TRANSIENT, STR("it answered something that is no JSON")) ||
           fails_by(turn, "html_200", SUPPLY_TRANSIENT, STR("it answered something that is no JSON"));
}

/* -- instances -- */

static struct fake_process process_of(const json_t *made)
{
    return (struct fake_process){(pid_t)json_count_at(made, "pid"), json_count_at(made, "pid_start")};
}

static void instance_end(struct fake_turn *turn, json_t *made, const char *state, const char *reason)
{
    struct fake_process process = process_of(made);
    if (process.pid > 0)
        fake_process_kill(&process);
    json_object_set_new(made, "state", json_string(state));
    json_object_set_new(made, "reason", json_string(reason));
    if (!fake_instance_write(turn->fake, made))
        adapter_fail(turn->call, SUPPLY_TRANSIENT, STR("its folder cannot be written"));
}

/* One look moves it on. */
static void instance_look(struct fake_turn *turn, json_t *made)
{
    struct fake_process process = process_of(made);
    int64_t looks = json_count_at(made, "looks") + 1;
    bool is_pending = str_eq(json_text_at(made, "state"), STR("pending"));
    bool is_running = str_eq(json_text_at(made, "state"), STR("running"));
    json_object_set_new(made, "looks", json_integer(looks));
    if (fake_fault(turn, "vanish", json_text_at(made, "tag")))
        instance_end(turn, made, "gone", "vanished");
    else if (is_pending && json_true_at(made, "fails"))
        instance_end(turn, made, "failed", "OCI runtime create failed");
    else if ((is_pending || is_running) && process.pid > 0 && !fake_process_is_alive(&process))
        instance_end(turn, made, "failed", "its process has ended");
    else if (is_pending && !json_true_at(made, "is_stuck") && looks > turn->fake->boot_looks)
        json_object_set_new(made, "state", json_string("running"));
    if (!fake_instance_write(turn->fake, made) && !str_eq(json_text_at(made, "state"), STR("gone")))
        adapter_fail(turn->call, SUPPLY_TRANSIENT, STR("its folder cannot be written"));
}

static enum instance_state state_of(struct str text)
{
    enum instance_state state = INSTANCE_PENDING;
    while (state < INSTANCE_STATE_COUNT && !str_eq(text, str_of(instance_state_name(state))))
        state++;
    return state < INSTANCE_STATE_COUNT ? state : INSTANCE_FAILED;
}

static struct supply_instance instance_of(struct fake_turn *turn, const json_t *made,
                                          struct supply_endpoint endpoints[static SUPPLY_PORTS_MAX])
{
    struct supply_instance one = {.id = json_text_at(made, "id"),
                                  .tag = json_text_at(made, "tag"),
                                  .state = state_of(json_text_at(made, "state")),
                                  .reason = json_text_at(made, "reason"),
                                  .endpoints = endpoints,
                                  .price_usd_nano = json_count_at(made, "price_usd_nano"),
                                  .interruptible = json_true_at(made, "interruptible"),
                                  .created_at_ms = json_count_at(made, "created_ms"),
                                  .placement = json_text_at(made, "region")};
    size_t i;
    const json_t *port;
    json_array_foreach(json_object_get(made, "ports"), i, port)
    {
        if (one.state != INSTANCE_RUNNING || one.endpoint_count == SUPPLY_PORTS_MAX)
            break;
        uint16_t number = (uint16_t)json_integer_value(port);
        struct str url = adapter_text(turn->call, "http://%s:%u", turn->fake->runs ? "127.0.0.1" : "192.0.2.1", number);
        endpoints[one.endpoint_count++] = (struct supply_endpoint){number, url};
    }
    return one;
}

struct taken {
    struct str offer;
    int64_t count;
};

static bool count_taken(struct fake_turn *turn, json_t *made, void *ctx)
{
    (void)turn;
    struct taken *taken = ctx;
    taken->count += str_eq(json_text_at(made, "offer"), taken->offer);
    return true;
}

/* How many more of the offer can be had; -1: no end of them. */
static int64_t offer_left(struct fake_turn *turn, const json_t *offer)
{
    struct taken taken = {json_text_at(offer, "id"), 0};
    int64_t stock = json_count_at(offer, "stock");
    if (stock < 0)
        return -1;
    fake_instances_each(turn, count_taken, &taken);
    return stock > taken.count ? stock - taken.count : 0;
}

/* -- the operations -- */

static void do_check(struct fake_turn *turn)
{
    adapter_done(turn->call, NULL);
}

static void do_offers(struct fake_turn *turn)
{
    json_t *list = fake_read(turn->fake, "", "offers.json");
    size_t i;
    const json_t *row;
    if (!json_is_array(list))
        adapter_fail(turn->call, SUPPLY_TRANSIENT, STR("its offers.json is no list"));
    json_array_foreach(list, i, row)
    {
        int64_t left = offer_left(turn, row), gib = json_count_at(row, "vram_gib"), gpus = json_count_at(row, "gpus");
        if (left == 0)
            continue;
        struct adapter_offer offer = {.id = json_text_at(row, "id"),
                                      .gpu_raw = json_text_at(row, "gpu"),
                                      .vram_bytes = gib > 0 && gib < 4096 ? (uint64_t)gib << 30 : 0,
                                      .gpus = gpus > 0 && gpus < 4096 ? (uint32_t)gpus : 1,
                                      .available = left > 0 && left < UINT32_MAX ? (uint32_t)left : 0,
                                      .region = json_text_at(row, "region"),
                                      .country = json_text_at(row, "country"),
                                      .zone = json_text_at(row, "zone"),
                                      .machine = json_text_at(row, "machine"),
                                      .origin = json_text_at(row, "origin"),
                                      .is_priced = true,
                                      .interruptible = json_true_at(row, "interruptible"),
                                      .reliability = json_number_at(row, "reliability", -1)};
        offer.terms = (struct price_terms){
            json_decimal_at(turn->call, row, "price"), STR("USD"), PRICE_PER_GPU_HOUR, 1, 0, 0, false};
        adapter_offers(turn->call, &offer, 1);
    }
    if (!is_lost(turn))
        adapter_done(turn->call, NULL);
    json_decref(list);
}

static json_t *make_instance(struct fake_turn *turn, const json_t *offer, int64_t price)
{
    const struct supply_order *order = call_order(turn->call);
    char id[ID_TEXT_MAX];
    id_new("fi_", id);
    json_t *lag = fake_fault(turn, "list_lag", order->tag), *ports = json_array();
    int64_t listings = lag ? json_count_at(lag, "n") : 0;
    for (size_t i = 0; i < order->port_count; i++)
        json_array_append_new(ports, json_integer(order->ports[i]));
    return json_pack(
        "{s:s, s:s%, s:O, s:O, s:O?, s:i, s:I, s:b, s:s, s:s, s:i, s:I, s:b, s:b, s:I, s:s%, s:o}", "id", id, "tag",
        order->tag.ptr, order->tag.len, "offer", json_object_get(offer, "id"), "gpu", json_object_get(offer, "gpu"),
        "region", json_object_get(offer, "region"), "gpus", (int)order->gpus, "price_usd_nano", (json_int_t)price,
        "interruptible", (int)json_true_at(offer, "interruptible"), "state", "pending", "reason", "", "looks", 0, "lag",
        (json_int_t)(listings > 0 ? listings : 0), "is_stuck", fake_fault(turn, "stuck_pending", order->tag) != NULL,
        "fails", fake_fault(turn, "fails", order->tag) != NULL, "created_ms", (json_int_t)clock_wall_ms(), "image",
        order->image.ptr ? order->image.ptr : "", order->image.len, "ports", ports);
}

/* The price now, which a fault may have moved; false: refused for it. */
static bool price_now(struct fake_turn *turn, const json_t *offer, int64_t *ret)
{
    const struct supply_order *order = call_order(turn->call);
    json_t *moved = fake_fault(turn, "price_moved", order->tag);
    double factor = moved ? json_number_at(moved, "factor", 2) : 1;
    if (!money_parse(json_decimal_at(turn->call, offer, "price"), ret))
        *ret = 0;
    if (factor > 0 && factor < 1000)
        *ret = *ret / 1000 * (int64_t)llround(factor * 1000);
    bool is_refused = order->price_max_usd_nano >= 0 && *ret > order->price_max_usd_nano;
    return !is_refused && !(moved && json_true_at(moved, "refuse"));
}

static void create_from(struct fake_turn *turn, const json_t *offer)
{
    const struct supply_order *order = call_order(turn->call);
    struct fake_process process = {0, 0};
    char folder[FAKE_PATH_MAX];
    int64_t price;
    if (order->gpus != (uint32_t)json_count_at(offer, "gpus")) {
        adapter_fail(turn->call, SUPPLY_BAD_REQUEST, STR("this offer has another number of GPUs"));
        return;
    }
    if (!price_now(turn, offer, &price)) {
        adapter_fail(turn->call, SUPPLY_PRICE_MOVED, STR("the price has risen"));
        return;
    }
    json_t *made = make_instance(turn, offer, price);
    const char *id = json_string_value(json_object_get(made, "id"));
    bool is_made = made && fake_instance_write(turn->fake, made);
    if (is_made && turn->fake->runs && order->argc) {
        is_made = fake_path(turn->fake, folder, "run/", id) && !mkdir(folder, 0700) &&
                  fake_run(order, folder, &process) == ERR_NONE;
        json_object_set_new(made, "pid", json_integer(process.pid));
        json_object_set_new(made, "pid_start", json_integer(process.start_at));
        is_made = fake_instance_write(turn->fake, made) && is_made;
    }
    struct supply_endpoint endpoints[SUPPLY_PORTS_MAX];
    struct supply_instance one = instance_of(turn, made, endpoints);
    if (!is_made) {
        adapter_leftover(turn->call, one.id);
        adapter_fail(turn->call, SUPPLY_TRANSIENT, STR("it could not be started"));
    } else {
        adapter_uncertain(turn->call, true);
        if (!is_lost(turn))
            adapter_done(turn->call, &one);
    }
    json_decref(made);
}

static void do_create(struct fake_turn *turn)
{
    json_t *list = fake_read(turn->fake, "", "offers.json");
    size_t i;
    const json_t *row, *offer = NULL;
    json_array_foreach(list, i, row)
    {
        if (str_eq(json_text_at(row, "id"), call_order(turn->call)->offer))
            offer = row;
    }
    if (!offer || offer_left(turn, offer) == 0)
        adapter_fail(turn->call, SUPPLY_NO_CAPACITY, STR("this offer is gone"));
    else
        create_from(turn, offer);
    json_decref(list);
}

/* The instance that the call names; NULL: gone, and the call failed. */
static json_t *named(struct fake_turn *turn)
{
    json_t *made = fake_instance_read(turn->fake, call_instance(turn->call));
    if (!made)
        adapter_fail(turn->call, SUPPLY_NOT_FOUND, STR("no such instance"));
    return made;
}

static void do_describe(struct fake_turn *turn)
{
    struct supply_endpoint endpoints[SUPPLY_PORTS_MAX];
    json_t *made = named(turn);
    if (!made)
        return;
    instance_look(turn, made);
    struct supply_instance one = instance_of(turn, made, endpoints);
    if (!is_lost(turn))
        adapter_done(turn->call, &one);
    json_decref(made);
}

static bool list_one(struct fake_turn *turn, json_t *made, void *ctx)
{
    (void)ctx;
    struct supply_endpoint endpoints[SUPPLY_PORTS_MAX];
    int64_t lag = json_count_at(made, "lag");
    if (lag > 0) {
        json_object_set_new(made, "lag", json_integer(lag - 1));
        return fake_instance_write(turn->fake, made);
    }
    struct supply_instance one = instance_of(turn, made, endpoints);
    adapter_instances(turn->call, &one, 1);
    return true;
}

static void do_list(struct fake_turn *turn)
{
    fake_instances_each(turn, list_one, NULL);
    if (!is_lost(turn))
        adapter_done(turn->call, NULL);
}

static void do_logs(struct fake_turn *turn)
{
    char path[FAKE_PATH_MAX], name[ID_TEXT_MAX + 8], bytes[LOG_BYTES];
    json_t *made = named(turn);
    if (!made)
        return;
    snprintf(name, sizeof(name), "%s/log", json_string_value(json_object_get(made, "id")));
    int fd = fake_path(turn->fake, path, "run/", name) ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    ssize_t len = fd < 0 ? -1 : pread(fd, bytes, sizeof(bytes), (off_t)call_log_offset(turn->call));
    if (len > 0)
        adapter_logs(turn->call, (struct str){bytes, (size_t)len});
    if (fd >= 0)
        close(fd);
    adapter_done(turn->call, NULL);
    json_decref(made);
}

static void do_end(struct fake_turn *turn)
{
    bool is_stop = call_op(turn->call) == ADAPTER_STOP;
    if (fails_by(turn, "delete_refused", SUPPLY_NOT_YET, STR("it is still being made")))
        return;
    json_t *made = named(turn);
    if (!made)
        return;
    if (is_stop || !fake_fault(turn, "delete_ignored", json_text_at(made, "tag")))
        instance_end(turn, made, is_stop ? "stopped" : "gone", is_stop ? "stopped" : "terminated");
    if (!is_lost(turn))
        adapter_done(turn->call, NULL);
    json_decref(made);
}

static void run_turn(struct adapter_call *call)
{
    static void (*const todo[ADAPTER_OPS])(struct fake_turn *) = {do_check, do_offers, do_create, do_describe,
                                                                  do_list,  do_logs,   do_end,    do_end};
    struct fake_turn turn;
    if (!fake_turn_begin(&turn, call, run_turn))
        return;
    if (before(&turn))
        todo[call_op(call)](&turn);
    fake_turn_end(&turn);
}

const struct adapter adapter_fake = {
    .name = "fake",
    .title = "Fake network",
    .base_url = "dir://",
    .credentials = {"?api_key"},
    .options = {"dir", "run", "boot_looks"},
    .traits = ADAPTER_INTERRUPTIBLE,
    .settle_ms = 1000,
    .boot_ms = 60000,
    .state_size = sizeof(struct fake),
    .open = fake_open,
    .run = {run_turn, run_turn, run_turn, run_turn, run_turn, run_turn, run_turn, run_turn},
};
