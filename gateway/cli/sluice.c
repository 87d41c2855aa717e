/* sluice: the command line of a gateway. */
#include "core/crypto.h"
#include "gateway/cli/cli.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SLUICE_VERSION "0.1.0"

static const struct cli_command commands[] = {
    {"workers", NULL, "", "workers and their state",
     "Lists all workers: what they claim, what they have proven, their reputation and load.\n"
     "-o wide adds names, suppliers, drivers and times; -o name prints ids alone.\n",
     cmd_workers, false, false, NULL},
    {"worker", "show", "ID", "one worker: claimed and proven, each challenge, reputation with its parts",
     "Shows what a worker says it has beside what it has proven, the result of each challenge of its last\n"
     "receipt, and its reputation with the evidence that it is made of. -o json: the gateway's own rows.\n",
     cmd_worker_show, false, false, NULL},
    {"worker", "probe", "ID", "asks a worker for a proof now",
     "Has the gateway challenge the worker at once, and shows what the gateway answers. The receipt is then the\n"
     "first one of `sluice proof list`.\n",
     cmd_worker_probe, false, false, NULL},
    {"proof", "list", "WORKER", "receipts of a worker, newest first",
     "Lists the signed receipts of a worker's proofs. `-o json > FILE` keeps them for `sluice proof verify FILE`;\n"
     "-o name prints the SHA-256 of each.\n",
     cmd_proof_list, false, false, NULL},
    {"proof", "verify", "FILE", "checks receipts offline",
     "Checks signatures and the chain of each worker's receipts. FILE (- for stdin) holds one receipt, a JSON list\n"
     "of them, or what `sluice proof list -o json` printed. --key HEX takes only that gateway's key, else each\n"
     "receipt's own counts, which shows that it was not changed, but not by whom it was made.\n"
     "CHAIN: first, linked; start (the oldest here); gap (what it follows is missing); fork (told in two ways).\n"
     "Exit code 1 when any of them does not stand.\n",
     cmd_proof_verify, true, false, NULL},
    {"ban", "list", "", "keys and devices that are banned",
     "Lists the bans that last now, those that end first in front.\n", cmd_ban_list, false, false, NULL},
    {"ban", "lift", "ID", "ends a ban",
     "Forgets what is held against a key or device; its worker may be proven anew. ID: as `sluice ban list` shows\n"
     "it, or a worker's.\n",
     cmd_ban_lift, false, false, NULL},
    {"offers", NULL, "", "what can be rented now, over all networks, best first",
     "Lists offers of all networks in one table, best first. --explain adds what the score is made of: 0 is best,\n"
     "each part weighted by --prefer.\n",
     cmd_offers, false, true, cli_offers_options},
    {"launch", NULL, "[-- COMMAND...]", "rents GPUs and runs a container on them",
     "Shows the price, asks, launches, and waits until the container runs, telling each attempt that failed; Ctrl-C\n"
     "ends the waiting, not the lease. Behind -- comes what the container runs in place of its own command.\n"
     "  sluice launch --gpu RTX4090 --image ghcr.io/x/y:1 --port 8000 --max-price 0.50 --retry-until-up\n",
     cmd_launch, false, true, cli_launch_options},
    {"ps", NULL, "", "leases", "Lists leases that are not over, newest first. -o wide adds images, offers and times.\n",
     cmd_ps, false, true, cli_ps_options},
    {"logs", NULL, "ID", "what a lease's machine has written",
     "Prints the logs of what runs for a lease now. -f goes on until the lease is over.\n", cmd_logs, false, true,
     cli_logs_options},
    {"down", NULL, "ID...", "ends leases",
     "Ends leases, whatever they are doing, and waits until nothing is left of them; what they still held returns.\n"
     "Again is harmless. Asks before it ends several on a terminal.\n",
     cmd_down, false, true, cli_down_options},
    {"networks", NULL, "", "the networks that supply comes from, and how they are",
     "Lists networks with their state, what they offer, and what went wrong last. -o wide adds the breaker, the "
     "counts\n"
     "of errors by class, GPUs with names that nobody knows, and what the network lacks.\n",
     cmd_networks, false, false, NULL},
};
#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static const char gateway_help[] =
    "  --gateway URL          default: SLUICE_GATEWAY, else http://127.0.0.1:8080\n"
    "  --key-file PATH        holds the key; default: SLUICE_ADMIN_KEY, else SLUICE_API_KEY\n"
    "  --curl                 print the request for curl, with the key as a variable, and send nothing\n";
static const char verify_help[] =
    "  --key HEX              proof verify: the public key of the only gateway to believe\n";

/* command: of which; NULL: of all. */
static void options(const struct cli_command *command, FILE *to)
{
    fputs("\noptions:\n", to);
    for (const struct cli_option *option = command ? command->options : NULL; option && option->name; option++) {
        char words[64];
        snprintf(words, sizeof(words), "%c%c%s--%s%s%s", option->letter ? '-' : ' ',
                 option->letter ? option->letter : ' ', option->letter ? ", " : "", option->name,
                 option->value ? " " : "", option->value ? option->value : "");
        fprintf(to, "  %-22s %s\n", words + (option->letter ? 0 : 2), option->help);
    }
    fprintf(to,
            "%s%s"
            "  -o FORM                table, wide, json or name; default: table\n"
            "  -h, --help             of a command: what it does; --version\n"
            "\n"
            "exit codes: 0 done, 1 failed or refused, 2 usage, 3 no answer from the gateway, 4 not authorised, 5 not "
            "found,\n            130 stopped waiting by Ctrl-C\n",
            command && command->is_offline ? "" : gateway_help, !command || command->is_offline ? verify_help : "");
}

static void usage_line(const struct cli_command *command, FILE *to)
{
    fprintf(to, "sluice %s%s%s%s%s", command->noun, command->verb ? " " : "", command->verb ? command->verb : "",
            *command->args ? " " : "", command->args);
}

/* noun: only its commands; NULL: all. */
static void usage(const char *noun, FILE *to)
{
    fputs("usage: sluice COMMAND [ARGUMENT] [options]\n\ncommands:\n", to);
    for (size_t i = 0; i < COMMANDS; i++) {
        const struct cli_command *command = &commands[i];
        char words[64];
        if (noun && strcmp(noun, command->noun) != 0)
            continue;
        snprintf(words, sizeof(words), "%s%s%s%s%s", command->noun, command->verb ? " " : "",
                 command->verb ? command->verb : "", *command->args ? " " : "", command->args);
        fprintf(to, "  %-22s %s\n", words, command->summary);
    }
    options(NULL, to);
}

static const struct cli_command *find_command(char *const words[], int count)
{
    for (size_t i = 0; i < COMMANDS; i++) {
        const struct cli_command *command = &commands[i];
        if (count > 0 && !strcmp(command->noun, words[0]) &&
            (!command->verb || (count > 1 && !strcmp(command->verb, words[1]))))
            return command;
    }
    return NULL;
}

static bool is_noun(const char *word)
{
    for (size_t i = 0; i < COMMANDS; i++)
        if (!strcmp(commands[i].noun, word))
            return true;
    return false;
}

static bool count_is_good(const struct cli_command *command, int given)
{
    int count = *command->args != '\0';
    for (const char *at = command->args; *at; at++)
        count += *at == ' ';
    if (!strstr(command->args, "..."))
        return given == count;
    return *command->args == '[' || given >= count;
}

/* -- options ----------------------------------------------------------------------------------------------------- */

static bool key_is_good(struct str key)
{
    bool is_good = key.len > 0;
    for (size_t i = 0; i < key.len; i++)
        is_good = is_good && key.ptr[i] > ' ' && key.ptr[i] < 0x7f;
    return is_good;
}

static int take_key(struct cli *cli, bool is_callers)
{
    const char *admin = getenv("SLUICE_ADMIN_KEY"), *caller = getenv("SLUICE_API_KEY");
    bool has_admin = admin && *admin && !cli->key_file && !(is_callers && caller && *caller);
    char bytes[sizeof(cli->key) + 2];
    struct str key = str_of(has_admin ? admin : caller ? caller : "");
    cli->key_variable = has_admin ? "SLUICE_ADMIN_KEY" : "SLUICE_API_KEY";
    if (cli->is_curl)
        return CLI_OK; /* it is not needed */
    if (cli->key_file) {
        int fd = open(cli->key_file, O_RDONLY | O_CLOEXEC);
        ssize_t len = fd >= 0 ? read(fd, bytes, sizeof(bytes)) : -1;
        int error = errno;
        if (fd >= 0)
            close(fd);
        if (len < 0)
            return cli_fail(CLI_USAGE, "--key-file: cannot read %s: %s", cli->key_file, strerror(error));
        key = (struct str){bytes, (size_t)len};
        while (key.len && (key.ptr[key.len - 1] == '\n' || key.ptr[key.len - 1] == '\r'))
            key.len--;
    }
    bool is_good = key.len == 0 ? !cli->key_file : key_is_good(key) && str_copy(cli->key, sizeof(cli->key), key);
    crypto_wipe(bytes, sizeof(bytes));
    if (!is_good)
        return cli_fail(CLI_USAGE, "%s: empty, too long, or with characters that no key has",
                        cli->key_file ? "--key-file" : cli->key_variable);
    return CLI_OK;
}

static int take_gateway(struct cli *cli, const char *text, char *room, size_t size)
{
    CURLU *url = curl_url();
    char *scheme = NULL, *user = NULL;
    struct str value = str_of(text);
    while (value.len && value.ptr[value.len - 1] == '/')
        value.len--;
    bool is_good = url && str_copy(room, size, value) && !curl_url_set(url, CURLUPART_URL, room, 0) &&
                   !curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) &&
                   (!strcmp(scheme, "http") || !strcmp(scheme, "https")) &&
                   curl_url_get(url, CURLUPART_USER, &user, 0) != CURLUE_OK && !strpbrk(room, "?#");
    curl_free(scheme);
    curl_free(user);
    curl_url_cleanup(url);
    cli->gateway = room;
    return is_good ? CLI_OK : cli_fail(CLI_USAGE, "--gateway: want http://host:port, not \"%s\"", text);
}

static bool take_output(struct cli *cli, const char *text)
{
    static const char *const names[] = {"table", "wide", "json", "name"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (!strcmp(text, names[i])) {
            cli->output = (enum cli_output)i;
            return true;
        }
    return false;
}

enum parsed { PARSED_RUN, PARSED_HELP, PARSED_VERSION, PARSED_BAD };

#define OWN_OPTION 0x100 /* getopt's value of the first of the commands' own ones */
#define OPTIONS_MAX 96

static const struct option general[] = {
    {"gateway", required_argument, NULL, 'g'}, {"key-file", required_argument, NULL, 'K'},
    {"output", required_argument, NULL, 'o'},  {"curl", no_argument, NULL, 'c'},
    {"key", required_argument, NULL, 'k'},     {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'v'}};
#define GENERAL (sizeof(general) / sizeof(general[0]))

static const struct cli_option *find_option(const struct cli_option *options, const char *name)
{
    for (; options && options->name; options++)
        if (!strcmp(options->name, name))
            return options;
    return NULL;
}

static bool has_option(const struct cli_command *command, const char *name)
{
    return find_option(command->options, name) != NULL;
}

/* All commands' options for getopt, because the command is known only when they are parsed; each name once. letters:
 * ":o:h" and theirs. Gives how many. */
static size_t all_options(struct option table[static OPTIONS_MAX], const struct cli_option *of[static OPTIONS_MAX],
                          char letters[static OPTIONS_MAX])
{
    size_t count = GENERAL, letter_count = strlen(letters);
    memcpy(table, general, sizeof(general));
    for (size_t i = 0; i < COMMANDS; i++)
        for (const struct cli_option *option = commands[i].options; option && option->name; option++) {
            bool is_new = true;
            for (size_t j = GENERAL; j < count; j++)
                is_new = is_new && strcmp(table[j].name, option->name) != 0;
            if (!is_new || count == OPTIONS_MAX - 1)
                continue;
            of[count] = option;
            table[count] = (struct option){option->name, option->value ? required_argument : no_argument, NULL,
                                           OWN_OPTION + (int)count};
            count++;
            if (option->letter && letter_count < OPTIONS_MAX - 1)
                letters[letter_count++] = option->letter;
        }
    table[count] = (struct option){0};
    letters[letter_count] = '\0';
    return count;
}

static bool take_own(struct cli *cli, const struct cli_option *option, const char *value)
{
    if (cli->given_count == CLI_GIVEN_MAX) {
        cli_fail(0, "too many options");
        return false;
    }
    cli->given[cli->given_count++] = (struct cli_given){option->name, option->value ? value : ""};
    return true;
}

static enum parsed parse(int argc, char *argv[], struct cli *cli, const char **ret_gateway)
{
    struct option table[OPTIONS_MAX];
    const struct cli_option *of[OPTIONS_MAX];
    char letters[OPTIONS_MAX] = ":o:h";
    size_t count = all_options(table, of, letters);
    enum parsed parsed = PARSED_RUN;
    int id;
    opterr = 0;
    while ((id = getopt_long(argc, argv, letters, table, NULL)) != -1) {
        for (size_t i = GENERAL; i < count; i++)
            if (id == of[i]->letter && id != 0)
                id = OWN_OPTION + (int)i;
        if (id >= OWN_OPTION) {
            if (!take_own(cli, of[id - OWN_OPTION], optarg))
                return PARSED_BAD;
        } else if (id == 'h' || id == 'v')
            parsed = id == 'h' ? PARSED_HELP : PARSED_VERSION;
        else if (id == 'g')
            *ret_gateway = optarg;
        else if (id == 'K')
            cli->key_file = optarg;
        else if (id == 'c')
            cli->is_curl = true;
        else if (id == 'k')
            cli->verify_key = optarg;
        else if (id != 'o' || !take_output(cli, optarg)) {
            cli_fail(0,
                     id == ':'   ? "%s: its value is missing"
                     : id == 'o' ? "-o: table, wide, json or name, not %s"
                                 : "%s: no such option",
                     id == 'o' ? optarg : argv[optind - 1]);
            return PARSED_BAD;
        }
    }
    return parsed;
}

static int help(char *const words[], int count)
{
    const struct cli_command *command = find_command(words, count);
    if (!command) {
        usage(count > 0 && is_noun(words[0]) ? words[0] : NULL, stdout);
        return CLI_OK;
    }
    fputs("usage: ", stdout);
    usage_line(command, stdout);
    printf(" [options]\n\n%s", command->help);
    options(command, stdout);
    return CLI_OK;
}

static int run(struct cli *cli, char *words[], int count, const char *gateway)
{
    char room[512];
    const struct cli_command *command = find_command(words, count);
    if (!command) {
        if (count > 0)
            cli_fail(0, "no command \"%s%s%s\"", words[0], count > 1 ? " " : "", count > 1 ? words[1] : "");
        usage(count > 0 && is_noun(words[0]) ? words[0] : NULL, stderr);
        return CLI_USAGE;
    }
    int own = command->verb ? 2 : 1;
    if (!count_is_good(command, count - own)) {
        fputs("usage: ", stderr);
        usage_line(command, stderr);
        fputs(" [options]\n", stderr);
        return CLI_USAGE;
    }
    if (cli->verify_key && command->run != cmd_proof_verify)
        return cli_fail(CLI_USAGE, "--key: only for proof verify; a key to a gateway comes by --key-file");
    for (size_t i = 0; i < cli->given_count; i++)
        if (!has_option(command, cli->given[i].name))
            return cli_fail(CLI_USAGE, "--%s: not an option of \"sluice %s\"", cli->given[i].name, command->noun);
    cli->args = (const char *const *)(uintptr_t)(words + own);
    cli->arg_count = (size_t)(count - own);
    if (!command->is_offline) {
        int code = take_gateway(cli, gateway, room, sizeof(room));
        code = code ? code : take_key(cli, command->is_callers);
        if (code)
            return code;
    } else if (cli->is_curl) {
        return cli_fail(CLI_USAGE, "--curl: this command sends nothing");
    }
    return command->run(cli);
}

int main(int argc, char *argv[])
{
    static struct cli cli;
    const char *gateway = getenv("SLUICE_GATEWAY");
    int code = CLI_USAGE;
    gateway = gateway && *gateway ? gateway : "http://127.0.0.1:8080";
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return CLI_FAILED;
    switch (parse(argc, argv, &cli, &gateway)) {
    case PARSED_HELP:
        code = help(argv + optind, argc - optind);
        break;
    case PARSED_VERSION:
        puts("sluice " SLUICE_VERSION);
        code = CLI_OK;
        break;
    case PARSED_BAD:
        break;
    case PARSED_RUN:
        code = run(&cli, argv + optind, argc - optind, gateway);
        break;
    }
    if (code == CLI_OK && (fflush(stdout) != 0 || ferror(stdout)))
        code = cli_fail(CLI_FAILED, "the output cannot be written");
    crypto_wipe(cli.key, sizeof(cli.key));
    curl_global_cleanup();
    return code;
}
