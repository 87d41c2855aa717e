/* sluice launch: the price is shown and agreed to, then a lease is made and waited for. */
#include "core/clock.h"
#include "gateway/cli/http.h"
#include "gateway/cli/lease.h"
#include "gateway/cli/table.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define LOOK_MS 1000
#define SILENT_MOST 60 /* looks in a row that got no answer */
#define CELL_WIDTH 40

const struct cli_option cli_launch_options[] = {
    {"gpu", "NAME", "canonical (nvidia/rtx4090-24) or short (RTX4090)", 0},
    {"count", "N", "GPUs; default: 1", 0},
    {"image", "REF", "of the container: ghcr.io/x/y:1", 0},
    {"port", "N", "reachable from outside; several times", 0},
    {"env", "K=V", "a variable; K alone takes it from here; several times", 0},
    {"max-price", "USD", "at most, a GPU-hour", 0},
    {"region", "NAME", "only there", 0},
    {"network", "ID", "only of this network", 0},
    {"offer", "ID", "only this offer", 0},
    {"require", "TAGS", "all of these, such as gdpr,hipaa", 0},
    {"prefer", "WISH", "price, latency, reputation, balanced, or weights", 0},
    {"spot", NULL, "it may be interruptible", 0},
    {"disk", "GIB", "default: 20", 0},
    {"max-duration", "TIME", "ends by itself after 90s, 30m, 12h or 7d of running", 0},
    {"deadline", "TIME", "fails if it does not run by then", 0},
    {"retry-until-up", NULL, "where nothing can be had, wait and look again", 0},
    {"no-recover", NULL, "if the machine is lost, that is the end: do not go on with another", 0},
    {"detach", NULL, "do not wait until it runs", 'd'},
    {"dry-run", NULL, "tell the price and what would be tried, make nothing", 0},
    {"explain", NULL, "with --dry-run: what each score is made of", 0},
    {"yes", NULL, "spend without asking", 'y'},
    {NULL, NULL, NULL, 0}};

/* -- the request ------------------------------------------------------------------------------------------------- */

static bool add_number(const struct cli *cli, json_t *body, const char *option, const char *field, int *code)
{
    const char *text = cli_given(cli, option);
    int64_t value;
    if (!text)
        return true;
    if (str_to_i64(str_of(text), &value))
        return json_object_set_new(body, field, json_integer(value)) == 0;
    *code = cli_fail(CLI_USAGE, "--%s: a whole number, not %s", option, text);
    return false;
}

/* "90s", "30m", "12h", "7d", or seconds alone. */
static bool parse_span(struct str text, int64_t *ret_s)
{
    int64_t unit = 1, value;
    if (text.len > 1) {
        char last = text.ptr[text.len - 1];
        unit = last == 's' ? 1 : last == 'm' ? 60 : last == 'h' ? 3600 : last == 'd' ? 86400 : 0;
        text.len -= unit != 0;
        unit = unit ? unit : 1;
    }
    return str_to_i64(text, &value) && value > 0 && !__builtin_mul_overflow(value, unit, ret_s);
}

static bool add_span(const struct cli *cli, json_t *body, const char *option, const char *field, int *code)
{
    const char *text = cli_given(cli, option);
    int64_t seconds;
    if (!text)
        return true;
    if (parse_span(str_of(text), &seconds))
        return json_object_set_new(body, field, json_integer(seconds)) == 0;
    *code = cli_fail(CLI_USAGE, "--%s: a time such as 90s, 30m, 12h or 7d, not %s", option, text);
    return false;
}

static bool add_env(const struct cli *cli, json_t *body, int *code)
{
    json_t *env = json_object();
    const char *given;
    bool fits = env != NULL;
    for (size_t at = 0; fits && (given = cli_given_next(cli, "env", &at)) != NULL;) {
        struct str rest = str_of(given), name = str_next(&rest, '=');
        char text[129];
        const char *value = rest.ptr;
        if (!str_copy(text, sizeof(text), name) || !text[0] || (!value && !(value = getenv(text)))) {
            *code =
                cli_fail(CLI_USAGE, "--env %.64s: want NAME=VALUE, or the NAME of a variable that is set here", given);
            fits = false;
        } else {
            fits = json_object_set_new(env, text, json_string(value)) == 0;
        }
    }
    fits = fits && (json_object_size(env) == 0 || json_object_set(body, "env", env) == 0);
    json_decref(env);
    return fits;
}

static bool add_ports(const struct cli *cli, json_t *body, int *code)
{
    json_t *ports = json_array();
    const char *given;
    int64_t port;
    bool fits = ports != NULL;
    for (size_t at = 0; fits && (given = cli_given_next(cli, "port", &at)) != NULL;) {
        fits = str_to_i64(str_of(given), &port) && json_array_append_new(ports, json_integer(port)) == 0;
        if (!fits)
            *code = cli_fail(CLI_USAGE, "--port: a number, not %s", given);
    }
    fits = fits && (json_array_size(ports) == 0 || json_object_set(body, "ports", ports) == 0);
    json_decref(ports);
    return fits;
}

static bool add_command(const struct cli *cli, json_t *body)
{
    json_t *command = json_array();
    bool fits = command != NULL;
    for (size_t i = 0; fits && i < cli->arg_count; i++)
        fits = json_array_append_new(command, json_string(cli->args[i])) == 0;
    fits = fits && (cli->arg_count == 0 || json_object_set(body, "command", command) == 0);
    json_decref(command);
    return fits;
}

/* NULL with *code set. */
static json_t *body_of(const struct cli *cli, int *code)
{
    static const char *const texts[][2] = {
        {"gpu", "gpu"},     {"image", "image"},     {"region", "region"}, {"network", "network"},
        {"offer", "offer"}, {"require", "require"}, {"prefer", "prefer"}, {"max-price", "max_price_per_gpu_hour_usd"}};
    static const char *const flags[][2] = {{"spot", "interruptible"}, {"retry-until-up", "retry_until_up"}};
    json_t *body = json_object();
    bool fits = body != NULL;
    *code = CLI_OK;
    if (!cli_given(cli, "gpu") || !cli_given(cli, "image")) {
        *code = cli_fail(CLI_USAGE, "launch: --gpu and --image are needed (sluice launch --help)");
        fits = false;
    }
    for (size_t i = 0; fits && i < COUNT(texts); i++)
        if (cli_given(cli, texts[i][0]))
            fits = json_object_set_new(body, texts[i][1], json_string(cli_given(cli, texts[i][0]))) == 0;
    for (size_t i = 0; fits && i < COUNT(flags); i++)
        if (cli_given(cli, flags[i][0]))
            fits = json_object_set_new(body, flags[i][1], json_true()) == 0;
    if (fits && cli_given(cli, "no-recover"))
        fits = json_object_set_new(body, "recover", json_false()) == 0;
    fits = fits && add_number(cli, body, "count", "count", code) && add_number(cli, body, "disk", "disk_gib", code) &&
           add_span(cli, body, "max-duration", "max_duration_s", code) &&
           add_span(cli, body, "deadline", "deadline_s", code) && add_env(cli, body, code) &&
           add_ports(cli, body, code) && add_command(cli, body);
    if (fits)
        return body;
    if (!*code)
        *code = cli_fail(CLI_FAILED, "out of memory, or an option is no UTF-8");
    json_decref(body);
    return NULL;
}

/* -- the price --------------------------------------------------------------------------------------------------- */

static int show_quote(const struct cli *cli, const json_t *quote)
{
    static const char *const heads[] = {"OFFER",    "NETWORK", "GPU",         ">COUNT",        "REGION",
                                        ">$/GPU-H", ">SCORE",  ">PRICE PART", ">LATENCY PART", ">REPUTATION PART"};
    static const char *const parts[] = {"price", "latency", "reputation"};
    bool is_explained = cli_given(cli, "explain") != NULL;
    json_t *candidate;
    size_t i;
    if (cli->output == CLI_JSON)
        return cli_print_json(quote);
    if (cli->output == CLI_NAME) {
        printf("%s\n", cli_text(quote, "id").ptr);
        return CLI_OK;
    }
    struct table *table = table_new(is_explained ? COUNT(heads) : 7, heads, cli->output == CLI_WIDE ? 0 : CELL_WIDTH);
    json_array_foreach(json_object_get(quote, "candidates"), i, candidate)
    {
        table_text(table, cli_text(candidate, "offer"));
        table_text(table, cli_text(candidate, "network"));
        table_text(table, cli_text(candidate, "gpu"));
        table_printf(table, "%.0f", cli_number(candidate, "gpus"));
        table_text(table, cli_text(candidate, "region"));
        table_text(table, cli_text(candidate, "price_per_gpu_hour_usd"));
        table_printf(table, "%.4f", cli_number(candidate, "score"));
        for (size_t p = 0; is_explained && p < COUNT(parts); p++) {
            const json_t *part = json_object_get(json_object_get(candidate, "parts"), parts[p]);
            if (json_is_number(part))
                table_printf(table, "%.4f", json_number_value(part));
            else
                table_text(table, STR(""));
        }
    }
    int code = table_print(table, stdout) ? CLI_OK : cli_fail(CLI_FAILED, "the output cannot be written");
    table_free(table);
    return code;
}

/* Is it agreed to spend? On a terminal somebody is asked. */
static int agree(const struct cli *cli, const json_t *quote)
{
    const char *cap = cli_given(cli, "max-price");
    char answer[16] = "";
    if (cli_given(cli, "yes"))
        return CLI_OK;
    if (isatty(STDIN_FILENO) != 1)
        return cli_fail(CLI_USAGE, "launch spends money: --yes agrees to it (--dry-run tells the price)");
    if (quote)
        cli_fail(0, "%.0f x %.60s on %.60s at $%.30s a GPU-hour", cli_number(quote, "count"),
                 cli_text(quote, "gpu").ptr, cli_text(quote, "network").ptr,
                 cli_text(quote, "price_per_gpu_hour_usd").ptr);
    else
        cli_fail(0, "nothing fits now; it will be looked for");
    cli_fail(0, "%s%.30s", cap ? "others up to $" : "nothing dearer", cap ? cap : "");
    fputs("Launch? [y/N] ", stderr);
    if (!fgets(answer, sizeof(answer), stdin) || (answer[0] != 'y' && answer[0] != 'Y'))
        return cli_fail(CLI_FAILED, "not launched");
    return CLI_OK;
}

/* -- waiting ----------------------------------------------------------------------------------------------------- */

static volatile sig_atomic_t was_interrupted;

static void on_interrupt(int signal)
{
    (void)signal;
    was_interrupted = 1;
}

struct waiting {
    char state[24], reason[320];
    size_t attempts_told; /* whose failure was told */
};

/* What is new since the last look, on stderr, with the text made harmless by cli_fail. */
static void tell(struct waiting *waiting, const json_t *lease)
{
    const json_t *attempts = json_object_get(lease, "attempts");
    for (size_t i = waiting->attempts_told; i < json_array_size(attempts); i++) {
        const json_t *attempt = json_array_get(attempts, i);
        struct str class = cli_text(attempt, "error");
        if (class.len == 0)
            break;
        cli_fail(0, "  %.60s %.80s: %.40s: %.320s", cli_text(attempt, "network").ptr, cli_text(attempt, "offer").ptr,
                 class.ptr, cli_text(attempt, "message").ptr);
        waiting->attempts_told = i + 1;
    }
    struct str state = cli_text(lease, "state"), reason = cli_text(lease, "reason");
    if (str_eq(state, str_of(waiting->state)) && str_eq(reason, str_of(waiting->reason)))
        return;
    const json_t *last = lease_last_attempt(lease);
    bool has_place = last && !lease_row_is_over(lease) && !cli_text(last, "error").len;
    cli_fail(0, "%.24s%s%.60s%s%.320s", state.ptr, has_place ? " on " : "",
             has_place ? cli_text(last, "network").ptr : "", reason.len ? ": " : "", reason.ptr);
    (void)!str_copy(waiting->state, sizeof(waiting->state), state);
    (void)!str_copy(waiting->reason, sizeof(waiting->reason), reason);
}

/* Looks until it is active or over. *lease: the newest; CLI_OK when it is active. */
static int wait_until_up(struct cli *cli, const char *id, json_t **lease)
{
    struct waiting waiting = {.attempts_told = 0};
    char path[CLI_PATH_MAX];
    int silent = 0;
    if (!http_path(path, "/api/v1/leases/", id, ""))
        return cli_fail(CLI_FAILED, "the gateway's id is too long");
    while (!was_interrupted) {
        json_t *now = NULL;
        tell(&waiting, *lease);
        if (!strcmp(waiting.state, "active"))
            return CLI_OK;
        if (lease_row_is_over(*lease) || !strcmp(waiting.state, "stopping"))
            return CLI_FAILED;
        struct timespec pause = {.tv_sec = LOOK_MS / 1000, .tv_nsec = LOOK_MS % 1000 * NS_PER_MS};
        nanosleep(&pause, NULL);
        int code = was_interrupted ? CLI_OK : http_call(cli, "GET", path, &now);
        if (code && (code != CLI_UNREACHABLE || ++silent >= SILENT_MOST))
            return code;
        if (now) {
            silent = 0;
            json_decref(*lease);
            *lease = now;
        }
    }
    return cli_fail(CLI_INTERRUPTED, "%.40s goes on: sluice ps shows it, sluice down %.40s ends it", id, id);
}

static int show_lease(const struct cli *cli, const json_t *lease)
{
    struct table *table;
    const json_t *endpoint;
    size_t i;
    if (cli->output == CLI_JSON)
        return cli_print_json(lease);
    table = table_new(cli->output == CLI_NAME ? 1 : 2, NULL, 0);
    if (cli->output != CLI_NAME)
        table_text(table, STR("lease"));
    table_text(table, cli_text(lease, "id"));
    if (cli->output != CLI_NAME) {
        table_text(table, STR("state"));
        table_text(table, cli_text(lease, "state"));
        table_text(table, STR("price $/GPU-h"));
        table_text(table, cli_text(lease, "price_per_gpu_hour_usd"));
        json_array_foreach((json_t *)(uintptr_t)json_object_get(lease, "endpoints"), i, endpoint)
        {
            table_printf(table, "port %.0f", cli_number(endpoint, "port"));
            table_text(table, cli_text(endpoint, "url"));
        }
    }
    int code = table_print(table, stdout) ? CLI_OK : cli_fail(CLI_FAILED, "the output cannot be written");
    table_free(table);
    return code;
}

/* -- the command ------------------------------------------------------------------------------------------------- */

/* Without a cap what was shown is the cap; without a quote there is none. */
static bool hold_to_quote(const struct cli *cli, json_t *body, const json_t *quote)
{
    if (!quote || cli_given(cli, "max-price"))
        return true;
    return json_object_set_new(body, "quote", json_string(cli_text(quote, "id").ptr)) == 0;
}

static int launch(struct cli *cli, json_t *body)
{
    struct sigaction action = {.sa_handler = on_interrupt};
    json_t *lease = NULL;
    char id[64];
    int code = http_send(cli, "POST", "/api/v1/leases", body, &lease);
    if (code || !lease)
        return code;
    if (!str_copy(id, sizeof(id), cli_text(lease, "id")) || !id[0]) {
        json_decref(lease);
        return cli_fail(CLI_FAILED, "%s does not answer as a gateway does", cli->gateway);
    }
    if (!cli_given(cli, "detach")) {
        cli_fail(0, "%s", id);
        sigaction(SIGINT, &action, NULL);
        code = wait_until_up(cli, id, &lease);
    }
    if (code != CLI_INTERRUPTED && code != CLI_UNREACHABLE) {
        int shown = show_lease(cli, lease);
        code = code ? code : shown;
    }
    json_decref(lease);
    return code;
}

int cmd_launch(struct cli *cli)
{
    int code;
    json_t *quote = NULL, *body = body_of(cli, &code);
    bool is_dry = cli_given(cli, "dry-run") != NULL, will_retry = cli_given(cli, "retry-until-up") != NULL;
    if (!body)
        return code;
    if (cli->is_curl) {
        code = http_send(cli, "POST", is_dry ? "/api/v1/quotes" : "/api/v1/leases", body, &quote);
        json_decref(body);
        return code;
    }
    if (is_dry || !cli_given(cli, "yes") || !cli_given(cli, "max-price")) {
        code = http_send(cli, "POST", "/api/v1/quotes", body, &quote);
        if (code == CLI_FAILED && will_retry && !is_dry && cli_given(cli, "max-price"))
            code = CLI_OK; /* nothing fits now; the cap is agreed to */
    }
    if (!code && is_dry)
        code = show_quote(cli, quote);
    else if (!code) {
        code = agree(cli, quote);
        if (!code && !hold_to_quote(cli, body, quote))
            code = cli_fail(CLI_FAILED, "out of memory");
        if (!code)
            code = launch(cli, body);
    }
    json_decref(quote);
    json_decref(body);
    return code;
}
