/* The commands around a prover: their options, the agent's own requests, the JSON of claims. */
#include "core/crypto.h"
#include "probes/serve.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#define EXIT_FAILED 1
#define EXIT_USAGE 2
#define HOST_LABEL "sluice host 1"
#define CONTEXT_MAX 512
#define COMMANDS_HELP_FAULTS                                                                                      \
    "  SLUICE_PROBE_FAULT=wrong-proof|late-proof|silent|garbage|oversize in the environment makes this a prover " \
    "that\n"                                                                                                      \
    "  fails in that way: a switch for tests of gateways, nothing else.\n"

const struct probe_backend_ops *serve_backend(struct str name)
{
    bool is_auto = str_eq(name, STR("auto"));
    if ((is_auto || str_eq(name, STR("cuda"))) && probe_backend_cuda.count() > 0)
        return &probe_backend_cuda;
    return is_auto || str_eq(name, STR("cpu")) ? &probe_backend_cpu : NULL;
}

/* -- the agent's own requests -- */

static bool put_json(json_t *json, struct buf *answer)
{
    char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
    bool ok = text && buf_append_str(answer, str_of(text));
    if (text)
        crypto_wipe(text, strlen(text));
    free(text);
    json_decref(json);
    return ok;
}

static json_t *json_of_claim(unsigned index, const struct probe_claim *claim)
{
    char uuid[2 * sizeof(claim->uuid) + 1], pci[16], subsystem[16], cc[16];
    crypto_hex(claim->uuid, sizeof(claim->uuid), uuid);
    snprintf(pci, sizeof(pci), "%04x:%04x", claim->pci_vendor, claim->pci_device);
    snprintf(subsystem, sizeof(subsystem), "%08x", claim->pci_subsystem);
    snprintf(cc, sizeof(cc), "%u.%u", claim->cc_major, claim->cc_minor);
    return json_pack("{s:I, s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:b}", "gpu",
                     (json_int_t)index, "name", claim->name, "driver", claim->driver, "uuid", uuid, "pci", pci,
                     "pci_subsystem", subsystem, "compute_capability", cc, "vram_bytes", (json_int_t)claim->vram_bytes,
                     "free_bytes", (json_int_t)claim->free_bytes, "l2_bytes", (json_int_t)claim->l2_bytes, "sms",
                     (json_int_t)claim->sms, "smids_seen", (json_int_t)claim->smids_seen, "bus_bits",
                     (json_int_t)claim->bus_bits, "clock_sm_mhz", (json_int_t)claim->clock_sm_mhz, "clock_memory_mhz",
                     (json_int_t)claim->clock_memory_mhz, "ecc", claim->ecc, "mig", claim->mig);
}

static json_t *json_of_claims(struct prover *prover)
{
    struct probe_claim claims[PROBE_DEVICES_MAX];
    unsigned count = prover_claims(prover, claims);
    json_t *list = json_array();
    for (unsigned i = 0; i < count; i++)
        json_array_append_new(list, json_of_claim(i, &claims[i]));
    return json_pack("{s:o}", "claims", list);
}

static bool unhex_all(const char *hex, uint8_t *ret, size_t max, size_t *ret_len)
{
    size_t len = strlen(hex);
    if (len % 2 != 0 || len / 2 > max || !crypto_unhex((struct str){hex, len}, ret, len / 2))
        return false;
    *ret_len = len / 2;
    return true;
}

static json_t *json_of_error(const char *text)
{
    return json_pack("{s:s}", "error", text);
}

static json_t *unseal(struct prover *prover, json_t *request)
{
    const char *op, *context_hex, *sealed_hex;
    json_int_t gpu;
    uint8_t context[CONTEXT_MAX], sealed[PROBE_SEALED_MAX];
    char hex[2 * SEAL_TEXT_MAX + 1];
    size_t context_len, sealed_len;
    struct buf text;
    if (json_unpack_ex(request, NULL, JSON_STRICT, "{s:s, s:I, s:s, s:s}", "op", &op, "gpu", &gpu, "context",
                       &context_hex, "sealed", &sealed_hex) != 0 ||
        gpu < 0 || gpu >= PROBE_DEVICES_MAX || !unhex_all(context_hex, context, sizeof(context), &context_len) ||
        !unhex_all(sealed_hex, sealed, sizeof(sealed), &sealed_len))
        return json_of_error("unseal wants gpu, context and sealed, the last two as hexadecimal");
    buf_init(&text, SEAL_TEXT_MAX);
    enum error error = prover_unseal(prover, (unsigned)gpu, (struct str){(char *)context, context_len},
                                     (struct str){(char *)sealed, sealed_len}, &text);
    json_t *answer = NULL;
    if (error == ERR_NONE) {
        crypto_hex((uint8_t *)text.ptr, text.len, hex);
        answer = json_pack("{s:s}", "text", hex);
        crypto_wipe(hex, sizeof(hex));
    } else {
        answer = json_of_error(error_text(error));
    }
    if (text.ptr)
        crypto_wipe(text.ptr, text.cap);
    buf_free(&text);
    return answer;
}

enum error serve_local(struct prover *prover, struct str request, struct buf *answer)
{
    json_t *root = json_loadb(request.ptr, request.len, JSON_REJECT_DUPLICATES, NULL), *reply;
    const char *op = json_string_value(json_object_get(root, "op"));
    if (op && strcmp(op, "unseal") == 0)
        reply = unseal(prover, root);
    else if (op && strcmp(op, "claims") == 0 && json_object_size(root) == 1)
        reply = json_of_claims(prover);
    else
        reply = json_of_error("not a request that is known here");
    json_decref(root);
    return put_json(reply, answer) ? ERR_NONE : ERR_NO_MEMORY;
}

/* -- commands -- */

static struct str read_machine_id(char *to, size_t size)
{
    int fd = open("/etc/machine-id", O_RDONLY | O_CLOEXEC);
    ssize_t got = fd >= 0 ? read(fd, to, size) : -1;
    if (fd >= 0)
        close(fd);
    struct str text = {to, got > 0 ? (size_t)got : 0};
    while (text.len > 0 && (text.ptr[text.len - 1] == '\n' || text.ptr[text.len - 1] == ' '))
        text.len--;
    if (text.len > 0 || gethostname(to, size - 1) != 0)
        return text;
    to[size - 1] = '\0';
    return str_of(to);
}

static void host_id_make(uint8_t ret[static 32])
{
    char text[sizeof(HOST_LABEL) + 256] = HOST_LABEL;
    struct str id = read_machine_id(text + sizeof(HOST_LABEL) - 1, 256);
    crypto_sha256((struct str){text, sizeof(HOST_LABEL) - 1 + id.len}, ret);
}

/* The process holds keys: no trace of its memory may reach a disk or a debugger, and nothing it starts may gain. */
static bool drop_what_is_not_needed(void)
{
    const struct rlimit none = {0, 0};
    signal(SIGPIPE, SIG_IGN);
    return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0 && setrlimit(RLIMIT_CORE, &none) == 0 &&
           prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
}

struct command {
    const struct probe_backend_ops *backend;
    const char *key_path; /* NULL: a key in memory */
    bool is_json;
};

static const char serve_help[] =
    "usage: sluice-probe serve [--backend auto|cpu|cuda] [--key FILE]\n"
    "  Answers a gateway's questions about this machine's devices: frames on stdin, answers on stdout "
    "(probes/serve.h).\n"
    "  --backend  auto (the default) is cuda where there is a device for it, else cpu\n"
    "  --key      the worker's key, made if it is not there; the default is a key in memory\n" COMMANDS_HELP_FAULTS;
static const char claims_help[] = "usage: sluice-probe claims [--backend auto|cpu|cuda] [--json]\n"
                                  "  Prints what this machine's devices say of themselves.\n";

/* -1, or the exit code. */
static int command_parse(int argc, char **argv, const char *help, struct command *ret)
{
    static const struct option all[] = {{"backend", required_argument, NULL, 'b'},
                                        {"key", required_argument, NULL, 'k'},
                                        {"json", no_argument, NULL, 'j'},
                                        {"help", no_argument, NULL, 'h'},
                                        {0}};
    bool is_serve = help == serve_help, is_wrong = false;
    const char *backend = "auto";
    int option;
    optind = 1;
    while ((option = getopt_long(argc, argv, "h", all, NULL)) != -1) {
        if (option == 'h') {
            fputs(help, stdout);
            return EXIT_SUCCESS;
        }
        if (option == 'b')
            backend = optarg;
        else if (option == 'k' && is_serve)
            ret->key_path = optarg;
        else if (option == 'j' && !is_serve)
            ret->is_json = true;
        else
            is_wrong = true;
    }
    if (is_wrong || optind != argc) {
        fputs(help, stderr);
        return EXIT_USAGE;
    }
    ret->backend = serve_backend(str_of(backend));
    if (!ret->backend) {
        bool is_known = strcmp(backend, "cuda") == 0;
        fprintf(stderr, "sluice-probe: %s\n", is_known ? "no device for cuda here" : "--backend: auto, cpu or cuda");
        return is_known ? EXIT_FAILED : EXIT_USAGE;
    }
    return -1;
}

static enum error prover_make(const struct command *command, struct signing_key **ret_key, struct prover **ret)
{
    struct prover_options options = {.backend = command->backend, .devices = command->backend->count()};
    if (options.devices > PROBE_DEVICES_MAX)
        options.devices = PROBE_DEVICES_MAX;
    enum error error = command->key_path ? signing_key_load(command->key_path, ret_key) : signing_key_new(ret_key);
    if (error != ERR_NONE) {
        fprintf(stderr, "sluice-probe: %s: %s\n", command->key_path ? command->key_path : "a key", error_text(error));
        return error;
    }
    options.key = *ret_key;
    host_id_make(options.host_id);
    error = prover_open(&options, ret);
    if (error != ERR_NONE)
        fprintf(stderr, "sluice-probe: the devices cannot be opened: %s\n", error_text(error));
    return error;
}

int serve_command(int argc, char **argv)
{
    struct command command = {0};
    struct signing_key *key = NULL;
    struct prover *prover = NULL;
    struct serve_options options = {.in = STDIN_FILENO, .out = STDOUT_FILENO};
    int code = command_parse(argc, argv, serve_help, &command);
    if (code >= 0)
        return code;
    const char *fault = getenv("SLUICE_PROBE_FAULT");
    if (fault && !serve_fault_parse(str_of(fault), &options.fault)) {
        fputs("sluice-probe: SLUICE_PROBE_FAULT: no such fault\n", stderr);
        return EXIT_USAGE;
    }
    code = EXIT_FAILED;
    if (!drop_what_is_not_needed()) {
        perror("sluice-probe: cannot drop what is not needed");
    } else if (prover_make(&command, &key, &prover) == ERR_NONE) {
        options.prover = prover;
        options.threads = command.backend->count() + 2;
        enum error error = serve_run(&options);
        if (error != ERR_NONE)
            fprintf(stderr, "sluice-probe: input: %s\n", error_text(error));
        else
            code = EXIT_SUCCESS;
    }
    prover_free(prover);
    signing_key_free(key);
    return code;
}

static void print_claims(struct prover *prover)
{
    struct probe_claim claims[PROBE_DEVICES_MAX];
    unsigned count = prover_claims(prover, claims);
    for (unsigned i = 0; i < count; i++) {
        const struct probe_claim *claim = &claims[i];
        printf("%u: %s, %.0f MiB (%.0f free)", i, claim->name[0] ? claim->name : "a device that failed",
               (double)claim->vram_bytes / (1 << 20), (double)claim->free_bytes / (1 << 20));
        if (claim->sms > 0)
            printf(", %u SMs, compute capability %u.%u, driver %s", claim->sms, claim->cc_major, claim->cc_minor,
                   claim->driver);
        puts("");
    }
}

int claims_command(int argc, char **argv)
{
    struct command command = {0};
    struct signing_key *key = NULL;
    struct prover *prover = NULL;
    int code = command_parse(argc, argv, claims_help, &command);
    if (code >= 0)
        return code;
    code = EXIT_FAILED;
    if (prover_make(&command, &key, &prover) == ERR_NONE) {
        char *text = NULL;
        json_t *claims = command.is_json ? json_of_claims(prover) : NULL;
        if (!command.is_json)
            print_claims(prover);
        else if ((text = json_dumps(claims, JSON_INDENT(2))))
            puts(text);
        code = (!command.is_json || text) && fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILED;
        free(text);
        json_decref(claims);
    }
    prover_free(prover);
    signing_key_free(key);
    return code;
}
