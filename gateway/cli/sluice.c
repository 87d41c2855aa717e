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
     cmd_workers, false},
    {"worker", "show", "ID", "one worker: claimed and proven, each challenge, reputation with its parts",
     "Shows what a worker says it has beside what it has proven, the result of each challenge of its last\n"
     "receipt, and its reputation with the evidence that it is made of. -o json: the gateway's own rows.\n",
     cmd_worker_show, false},
    {"worker", "probe", "ID", "asks a worker for a proof now",
     "Has the gateway challenge the worker at once, and shows what the gateway answers. The receipt is then the\n"
     "first one of `sluice proof list`.\n",
     cmd_worker_probe, false},
    {"proof", "list", "WORKER", "receipts of a worker, newest first",
     "Lists the signed receipts of a worker's proofs. `-o json > FILE` keeps them for `sluice proof verify FILE`;\n"
     "-o name prints the SHA-256 of each.\n",
     cmd_proof_list, false},
    {"proof", "verify", "FILE", "checks receipts offline",
     "Checks signatures and the chain of each worker's receipts. FILE (- for stdin) holds one receipt, a JSON list\n"
     "of them, or what `sluice proof list -o json` printed. --key HEX takes only that gateway's key, else each\n"
     "receipt's own counts, which shows that it was not changed, but not by whom it was made.\n"
     "CHAIN: first, linked; start (the oldest here); gap (what it follows is missing); fork (told in two ways).\n"
     "Exit code 1 when any of them does not stand.\n",
     cmd_proof_verify, true},
    {"ban", "list", "", "keys and devices that are banned",
     "Lists the bans that last now, those that end first in front.\n", cmd_ban_list, false},
    {"ban", "lift", "ID", "ends a ban",
     "Forgets what is held against a key or device; its worker may be proven anew. ID: as `sluice ban list` shows\n"
     "it, or a worker's.\n",
     cmd_ban_lift, false},
};
#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static const char gateway_help[] =
    "  --gateway URL    default: SLUICE_GATEWAY, else http://127.0.0.1:8080\n"
    "  --key-file PATH  holds the key; default: SLUICE_ADMIN_KEY, else SLUICE_API_KEY\n"
    "  --curl           print the request for curl, with the key as a variable, and send nothing\n";
static const char verify_help[] = "  --key HEX        proof verify: the public key of the only gateway to believe\n";

/* command: of which; NULL: of all. */
static void options(const struct cli_command *command, FILE *to)
{
    fprintf(to,
            "\noptions:\n%s%s"
            "  -o FORM          table, wide, json or name; default: table\n"
            "  -h, --help       of a command: what it does; --version\n"
            "\n"
            "exit codes: 0 done, 1 failed or refused, 2 usage, 3 no answer from the gateway, 4 not authorised, 5 not "
            "found\n",
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
        fprintf(to, "  %-20s %s\n", words, command->summary);
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

static int count_args(const struct cli_command *command)
{
    int count = *command->args != '\0';
    for (const char *at = command->args; *at; at++)
        count += *at == ' ';
    return count;
}

/* -- options ----------------------------------------------------------------------------------------------------- */

static bool key_is_good(struct str key)
{
    bool is_good = key.len > 0;
    for (size_t i = 0; i < key.len; i++)
        is_good = is_good && key.ptr[i] > ' ' && key.ptr[i] < 0x7f;
    return is_good;
}

static int take_key(struct cli *cli)
{
    const char *admin = getenv("SLUICE_ADMIN_KEY"), *caller = getenv("SLUICE_API_KEY");
    bool has_admin = admin && *admin && !cli->key_file;
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

static enum parsed parse(int argc, char *argv[], struct cli *cli, const char **ret_gateway)
{
    static const struct option table[] = {
        {"gateway", required_argument, NULL, 'g'}, {"key-file", required_argument, NULL, 'f'},
        {"output", required_argument, NULL, 'o'},  {"curl", no_argument, NULL, 'c'},
        {"key", required_argument, NULL, 'k'},     {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'v'},       {0}};
    enum parsed parsed = PARSED_RUN;
    int id;
    opterr = 0;
    while ((id = getopt_long(argc, argv, ":o:h", table, NULL)) != -1) {
        if (id == 'h' || id == 'v')
            parsed = id == 'h' ? PARSED_HELP : PARSED_VERSION;
        else if (id == 'g')
            *ret_gateway = optarg;
        else if (id == 'f')
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
    if (count - own != count_args(command)) {
        fputs("usage: ", stderr);
        usage_line(command, stderr);
        fputs(" [options]\n", stderr);
        return CLI_USAGE;
    }
    if (cli->verify_key && command->run != cmd_proof_verify)
        return cli_fail(CLI_USAGE, "--key: only for proof verify; a key to a gateway comes by --key-file");
    cli->args = (const char *const *)(uintptr_t)(words + own);
    if (!command->is_offline) {
        int code = take_gateway(cli, gateway, room, sizeof(room));
        code = code ? code : take_key(cli);
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
