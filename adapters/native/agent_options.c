#include "adapters/native/agent.h"
#include "core/clock.h"
#include "core/crypto.h"
#include "core/money.h"
#include "scheduler/worker_store.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CAPITALS "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

const char agent_usage[] =
    "usage: sluice-worker --gateway URL --token T --upstream URL --price USD [options]\n"
    "\n"
    "  --gateway URL        a gateway, as http://host:port; repeat for more to try\n"
    "  --token T            enrolment token; env:NAME or file:PATH keep it out of the process list\n"
    "  --upstream URL       the OpenAI-compatible server on this machine, as http://127.0.0.1:8000\n"
    "  --price USD          asking price of one GPU for an hour, as 1.20\n"
    "  --gpu NAME           as nvidia/h100-sxm-80, or cpu; default: what the probe finds\n"
    "  --gpus N             GPUs behind the upstream; default: what the probe finds, 1 with --gpu\n"
    "  --slots N            calls at a time; default 8\n"
    "  --region NAME        as eu-west\n"
    "  --tags LIST          compliance tags, as gdpr,hipaa\n"
    "  --name TEXT          default: the host's name\n"
    "  --upstream-key KEY   env:NAME or file:PATH of the key that the upstream wants\n"
    "  --state-dir DIR      identity; default: a folder per upstream below ~/.local/state/sluice-worker\n"
    "  --ca FILE            CAs that vouch for the gateways, PEM; default: the system's\n"
    "  --probe PATH         the program that proves this machine; default: sluice-probe beside this one, or in PATH\n"
    "  --probe-user NAME    whom it runs as, when this program runs as root\n"
    "  --lease ID           a leased machine: no upstream and no price; it proves itself, and when its gateway says "
    "so\n"
    "                       runs what follows \"--\" (--lease ID -- COMMAND ARGS...), with the options below\n"
    "  --orphan-s N         without a gateway for so long it ends the command and itself; default 900\n"
    "  --command-user NAME  whom the command runs as, when this program runs as root\n"
    "  --no-probe           without a probe: nothing will be proven\n"
    "  --delay-ms N         wait this long before each answer\n"
    "  --drain-s N          longest wait for running calls after SIGTERM; default 60\n"
    "  --help, --version\n"
    "\n"
    "SLUICE_GATEWAY, SLUICE_TOKEN and SLUICE_LEASE in the environment stand in for those options.\n";

enum option_id {
    OPTION_GATEWAY = 1,
    OPTION_TOKEN,
    OPTION_UPSTREAM,
    OPTION_PRICE,
    OPTION_GPU,
    OPTION_GPUS,
    OPTION_SLOTS,
    OPTION_REGION,
    OPTION_TAGS,
    OPTION_NAME,
    OPTION_UPSTREAM_KEY,
    OPTION_STATE_DIR,
    OPTION_PROBE,
    OPTION_PROBE_USER,
    OPTION_DELAY_MS,
    OPTION_DRAIN_S,
    OPTION_CA,
    OPTION_LEASE,
    OPTION_ORPHAN_S,
    OPTION_COMMAND_USER,
    OPTION_NO_PROBE,
    OPTION_HELP,
    OPTION_VERSION,
};

static const struct option option_table[] = {
    {"gateway", required_argument, NULL, OPTION_GATEWAY},
    {"token", required_argument, NULL, OPTION_TOKEN},
    {"upstream", required_argument, NULL, OPTION_UPSTREAM},
    {"price", required_argument, NULL, OPTION_PRICE},
    {"gpu", required_argument, NULL, OPTION_GPU},
    {"gpus", required_argument, NULL, OPTION_GPUS},
    {"slots", required_argument, NULL, OPTION_SLOTS},
    {"region", required_argument, NULL, OPTION_REGION},
    {"tags", required_argument, NULL, OPTION_TAGS},
    {"name", required_argument, NULL, OPTION_NAME},
    {"upstream-key", required_argument, NULL, OPTION_UPSTREAM_KEY},
    {"state-dir", required_argument, NULL, OPTION_STATE_DIR},
    {"probe", required_argument, NULL, OPTION_PROBE},
    {"probe-user", required_argument, NULL, OPTION_PROBE_USER},
    {"delay-ms", required_argument, NULL, OPTION_DELAY_MS},
    {"drain-s", required_argument, NULL, OPTION_DRAIN_S},
    {"ca", required_argument, NULL, OPTION_CA},
    {"lease", required_argument, NULL, OPTION_LEASE},
    {"orphan-s", required_argument, NULL, OPTION_ORPHAN_S},
    {"command-user", required_argument, NULL, OPTION_COMMAND_USER},
    {"no-probe", no_argument, NULL, OPTION_NO_PROBE},
    {"help", no_argument, NULL, OPTION_HELP},
    {"version", no_argument, NULL, OPTION_VERSION},
    {NULL, 0, NULL, 0},
};

struct parse {
    struct agent_options *options;
    char *message;
    size_t message_size;
    bool has_price;
};

PRINTF_LIKE(2, 3) static bool complain(struct parse *parse, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(parse->message, parse->message_size, format, args);
    va_end(args);
    return false;
}

/* A secret: env:NAME, file:PATH, or (for the token) the text itself. */
static bool take_secret(struct parse *parse, const char *option, const char *text, bool may_be_literal, char *ret,
                        size_t size)
{
    struct str value = str_of(text);
    char bytes[2048];
    if (str_starts(value, STR("env:"))) {
        value = str_of(getenv(text + 4));
        if (!value.ptr)
            return complain(parse, "%s: the environment has no %s", option, text + 4);
    } else if (str_starts(value, STR("file:"))) {
        int fd = open(text + 5, O_RDONLY | O_CLOEXEC);
        ssize_t len = fd >= 0 ? read(fd, bytes, sizeof(bytes)) : -1;
        int error = errno;
        if (fd >= 0)
            close(fd);
        if (len < 0)
            return complain(parse, "%s: cannot read %s: %s", option, text + 5, strerror(error));
        value = (struct str){bytes, (size_t)len};
        while (value.len && (value.ptr[value.len - 1] == '\n' || value.ptr[value.len - 1] == '\r'))
            value.len--;
    } else if (!may_be_literal) {
        return complain(parse, "%s: write env:NAME or file:PATH, never the secret itself", option);
    }
    bool is_good = value.len > 0;
    for (size_t i = 0; i < value.len; i++)
        is_good = is_good && value.ptr[i] > ' ' && value.ptr[i] < 0x7f;
    is_good = is_good && str_copy(ret, size, value);
    crypto_wipe(bytes, sizeof(bytes));
    return is_good || complain(parse, "%s: empty, too long, or with characters that a secret cannot have", option);
}

static bool take_int(struct parse *parse, const char *option, const char *text, int64_t least, int64_t most,
                     int64_t *ret)
{
    int64_t value;
    if (!str_to_i64(str_of(text), &value) || value < least || value > most)
        return complain(parse, "%s: a whole number from %lld to %lld, not \"%s\"", option, (long long)least,
                        (long long)most, text);
    *ret = value;
    return true;
}

/* GPU names, regions, tags: small letters, digits, and the characters in also. */
static bool take_word(struct parse *parse, const char *option, const char *text, const char *also, char *ret,
                      size_t size)
{
    for (const char *at = text; *at; at++)
        if (!((*at >= 'a' && *at <= 'z') || (*at >= '0' && *at <= '9') || strchr(also, *at)))
            return complain(parse, "%s: \"%c\" cannot be in it", option, *at);
    return (*text && str_copy(ret, size, str_of(text))) || complain(parse, "%s: empty or too long", option);
}

/* http or https, a host, and (for the upstream) a path; no credentials, query or fragment. */
static bool take_url(struct parse *parse, const char *option, const char *text, bool may_have_path, char *ret,
                     size_t size)
{
    CURLU *url = curl_url();
    char *scheme = NULL, *host = NULL, *path = NULL, *rest = NULL;
    bool is_good = url && !curl_url_set(url, CURLUPART_URL, text, 0) &&
                   !curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) && !curl_url_get(url, CURLUPART_HOST, &host, 0) &&
                   !curl_url_get(url, CURLUPART_PATH, &path, 0) &&
                   (!strcmp(scheme, "http") || !strcmp(scheme, "https")) && *host;
    const CURLUPart forbidden[] = {CURLUPART_USER, CURLUPART_PASSWORD, CURLUPART_QUERY, CURLUPART_FRAGMENT};
    for (size_t i = 0; is_good && i < sizeof(forbidden) / sizeof(forbidden[0]); i++) {
        is_good = curl_url_get(url, forbidden[i], &rest, 0) != CURLUE_OK;
        curl_free(rest);
        rest = NULL;
    }
    if (is_good && !may_have_path)
        is_good = !strcmp(path, "/");
    struct str value = str_of(text);
    if (is_good) {
        while (value.len && value.ptr[value.len - 1] == '/')
            value.len--;
        if (may_have_path && str_ends(value, STR("/v1")))
            value.len -= 3;
        is_good = str_copy(ret, size, value);
    }
    curl_free(scheme);
    curl_free(host);
    curl_free(path);
    curl_url_cleanup(url);
    return is_good || complain(parse, "%s: want http://host:port, not \"%s\"", option, text);
}

static bool take_name(struct parse *parse, const char *text)
{
    for (const char *at = text; *at; at++)
        if ((unsigned char)*at < 0x20 || *at == 0x7f)
            return complain(parse, "--name: control characters");
    return (*text && str_copy(parse->options->name, sizeof(parse->options->name), str_of(text))) ||
           complain(parse, "--name: empty or longer than %zu bytes", sizeof(parse->options->name) - 1);
}

/* The whole path, for the probe may start in another folder. */
static bool is_program(const char *path, char ret[static PATH_MAX])
{
    struct stat about;
    if (!realpath(path, ret) || stat(ret, &about) != 0 || access(ret, X_OK) != 0)
        return false;
    errno = EISDIR;
    return S_ISREG(about.st_mode);
}

static bool take_probe(struct parse *parse, const char *text)
{
    char path[PATH_MAX];
    if (!is_program(text, path))
        return complain(parse, "--probe: cannot run %s: %s", text, strerror(errno));
    return str_copy(parse->options->probe, sizeof(parse->options->probe), str_of(path)) ||
           complain(parse, "--probe: a path that is too long");
}

static bool take_user(struct parse *parse, const char *option, const char *text, uid_t *ret_uid, gid_t *ret_gid)
{
    char bytes[4096];
    struct passwd entry, *found = NULL;
    if (geteuid() != 0)
        return complain(parse, "%s: only root can run a program as somebody else", option);
    if (getpwnam_r(text, &entry, bytes, sizeof(bytes), &found) != 0 || !found)
        return complain(parse, "%s: no user %s on this machine", option, text);
    *ret_uid = entry.pw_uid;
    *ret_gid = entry.pw_gid;
    return true;
}

bool agent_probe_default(struct agent_options *options, char *ret_message, size_t message_size)
{
    char beside[PATH_MAX], path[PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", beside, sizeof(beside));
    struct str folder = {beside, len > 0 && (size_t)len < sizeof(beside) ? (size_t)len : 0}, rest = folder;
    while (folder.len && folder.ptr[folder.len - 1] != '/')
        folder.len--;
    rest = str_of(getenv("PATH"));
    for (; folder.ptr; folder = str_next(&rest, ':')) {
        char at[PATH_MAX];
        int at_len = snprintf(at, sizeof(at), STR_FMT "/sluice-probe", STR_ARG(folder));
        if (folder.len && (size_t)at_len < sizeof(at) && is_program(at, path) &&
            str_copy(options->probe, sizeof(options->probe), str_of(path)))
            return true;
    }
    snprintf(ret_message, message_size, "no sluice-probe beside this program or in PATH: give --probe");
    return false;
}

static bool take_option(struct parse *parse, int id, const char *text)
{
    struct agent_options *options = parse->options;
    int64_t number = 0;
    bool is_good = true;
    switch ((enum option_id)id) {
    case OPTION_GATEWAY:
        if (options->gateway_count == AGENT_URLS_MAX)
            return complain(parse, "--gateway: at most %d", AGENT_URLS_MAX);
        return take_url(parse, "--gateway", text, false, options->gateways[options->gateway_count++],
                        sizeof(options->gateways[0]));
    case OPTION_TOKEN:
        return take_secret(parse, "--token", text, true, options->token, sizeof(options->token));
    case OPTION_UPSTREAM:
        return take_url(parse, "--upstream", text, true, options->upstream, sizeof(options->upstream));
    case OPTION_PRICE:
        parse->has_price = money_parse(str_of(text), &options->price_usd_nano);
        return parse->has_price || complain(parse, "--price: want US dollars as 1.20, not \"%s\"", text);
    case OPTION_GPU:
        return take_word(parse, "--gpu", text, "/.-", options->gpu, sizeof(options->gpu));
    case OPTION_GPUS:
        is_good = take_int(parse, "--gpus", text, 1, AGENT_GPUS_MAX, &number);
        options->gpus = (int)number;
        return is_good;
    case OPTION_SLOTS:
        is_good = take_int(parse, "--slots", text, 1, AGENT_SLOTS_MAX, &number);
        options->slots = (int)number;
        return is_good;
    case OPTION_REGION:
        return take_word(parse, "--region", text, CAPITALS "-_.", options->region, sizeof(options->region));
    case OPTION_TAGS:
        return take_word(parse, "--tags", text, CAPITALS ",-_.", options->tags, sizeof(options->tags));
    case OPTION_NAME:
        return take_name(parse, text);
    case OPTION_UPSTREAM_KEY:
        return take_secret(parse, "--upstream-key", text, false, options->upstream_key, sizeof(options->upstream_key));
    case OPTION_STATE_DIR:
        return (*text && str_copy(options->state_dir, sizeof(options->state_dir), str_of(text))) ||
               complain(parse, "--state-dir: empty or too long");
    case OPTION_CA:
        return (access(text, R_OK) == 0 && str_copy(options->ca, sizeof(options->ca), str_of(text))) ||
               complain(parse, "--ca: cannot read %s", text);
    case OPTION_PROBE:
        return take_probe(parse, text);
    case OPTION_PROBE_USER:
        options->has_probe_user = take_user(parse, "--probe-user", text, &options->probe_uid, &options->probe_gid);
        return options->has_probe_user;
    case OPTION_LEASE:
        return take_word(parse, "--lease", text, "_.", options->lease, sizeof(options->lease));
    case OPTION_ORPHAN_S:
        is_good = take_int(parse, "--orphan-s", text, 1, 86400, &number);
        options->orphan_ns = number * NS_PER_S;
        return is_good;
    case OPTION_COMMAND_USER:
        options->has_command_user =
            take_user(parse, "--command-user", text, &options->command_uid, &options->command_gid);
        return options->has_command_user;
    case OPTION_NO_PROBE:
        options->no_probe = true;
        return true;
    case OPTION_DELAY_MS:
        is_good = take_int(parse, "--delay-ms", text, 0, 600000, &number);
        options->delay_ns = number * NS_PER_MS;
        return is_good;
    case OPTION_DRAIN_S:
        is_good = take_int(parse, "--drain-s", text, 0, 86400, &number);
        options->drain_ns = number * NS_PER_S;
        return is_good;
    case OPTION_HELP:
    case OPTION_VERSION:
        break;
    }
    return true;
}

/* Each upstream its own folder, so that two agents on one host never share an identity. */
static bool default_state_dir(struct parse *parse)
{
    struct agent_options *options = parse->options;
    const char *base = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    char hash[SHA256_HEX];
    crypto_sha256_hex(str_of(options->lease[0] ? options->lease : options->upstream), hash);
    bool has_base = base && *base == '/';
    if (!has_base && (!home || *home != '/'))
        return complain(parse, "no home directory for the worker's identity: give --state-dir");
    int len = snprintf(options->state_dir, sizeof(options->state_dir), "%s%s/sluice-worker/%.16s",
                       has_base ? base : home, has_base ? "" : "/.local/state", hash);
    return (size_t)len < sizeof(options->state_dir) || complain(parse, "the path of the home directory is too long");
}

/* Options that the environment may give. */
static bool take_environment(struct parse *parse)
{
    struct agent_options *options = parse->options;
    const char *gateway = getenv("SLUICE_GATEWAY"), *token = getenv("SLUICE_TOKEN"), *lease = getenv("SLUICE_LEASE");
    return (options->gateway_count > 0 || !gateway || take_option(parse, OPTION_GATEWAY, gateway)) &&
           (options->token[0] || !token || take_option(parse, OPTION_TOKEN, token)) &&
           (options->lease[0] || !lease || take_option(parse, OPTION_LEASE, lease));
}

/* A leased machine serves nobody and has no price. */
static bool complete_lease(struct parse *parse)
{
    struct agent_options *options = parse->options;
    if (options->upstream[0] || parse->has_price)
        return complain(parse, "--lease goes without --upstream and --price");
    options->slots = 1;
    if (options->orphan_ns == 0)
        options->orphan_ns = 900 * NS_PER_S;
    return !options->no_probe || options->gpu[0] ||
           str_copy(options->gpu, sizeof(options->gpu), STR(WORKER_GPU_UNPROVEN));
}

static bool complete(struct parse *parse)
{
    struct agent_options *options = parse->options;
    const char *fault = getenv("SLUICE_WORKER_FAULT");
    if (!take_environment(parse) || (options->lease[0] && !complete_lease(parse)))
        return false;
    if (!options->lease[0] && (options->command || options->orphan_ns || options->has_command_user))
        return complain(parse, "commands, --orphan-s and --command-user are of --lease");
    if (options->gateway_count == 0)
        return complain(parse, "--gateway is missing");
    if (!options->token[0])
        return complain(parse, "--token is missing");
    if (!options->lease[0] && !options->upstream[0])
        return complain(parse, "--upstream is missing");
    if (!options->lease[0] && !parse->has_price)
        return complain(parse, "--price is missing");
    if (!options->name[0] && (gethostname(options->name, sizeof(options->name) - 1) != 0 || !options->name[0]) &&
        !str_copy(options->name, sizeof(options->name), STR("worker")))
        return false;
    if (fault && *fault) {
        options->wrong_proof = !strcmp(fault, "wrong-proof");
        options->late_proof = !strcmp(fault, "late-proof");
        if (!options->wrong_proof && !options->late_proof)
            return complain(parse, "SLUICE_WORKER_FAULT: wrong-proof or late-proof, not \"%s\"", fault);
    }
    if (options->gpus == 0 && options->gpu[0])
        options->gpus = 1;
    return options->state_dir[0] || default_state_dir(parse);
}

enum agent_parsed agent_options_parse(int argc, char *const argv[], struct agent_options *ret, char *ret_message,
                                      size_t message_size)
{
    struct agent_options options = {.slots = 8, .drain_ns = 60 * NS_PER_S};
    struct parse parse = {.options = &options, .message = ret_message, .message_size = message_size};
    int id;
    *ret_message = '\0';
    opterr = 0;
    optind = 0; /* start afresh */
    while ((id = getopt_long(argc, argv, ":", option_table, NULL)) != -1) {
        if (id == OPTION_HELP)
            return AGENT_HELP;
        if (id == OPTION_VERSION)
            return AGENT_VERSION;
        if (id == ':' || id == '?') {
            complain(&parse, id == ':' ? "%s: its value is missing" : "%s: no such option", argv[optind - 1]);
            return AGENT_BAD;
        }
        if (!take_option(&parse, id, optarg))
            return AGENT_BAD;
    }
    if (optind < argc && (strcmp(argv[optind - 1], "--") != 0 || !*argv[optind])) {
        complain(&parse, "\"%s\": options only, or a lease's command behind \"--\"", argv[optind]);
        return AGENT_BAD;
    }
    if (optind < argc)
        options.command = argv + optind;
    if (!complete(&parse))
        return AGENT_BAD;
    *ret = options;
    return AGENT_RUN;
}
