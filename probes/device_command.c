#include "probes/device_command.h"

#include "core/log.h"
#include "probes/serve.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

enum { EXIT_DONE = 0, EXIT_NO_DEVICE = 1, EXIT_WRONG_USE = 2, GO_ON = -1 };

static int usage(const char *why)
{
    fprintf(stderr, "sluice-probe: %s (--help tells the options)\n", why);
    return EXIT_WRONG_USE;
}

int device_command_parse(int argc, char **argv, const char *help, struct device_command *ret)
{
    static const struct option options[] = {{"backend", required_argument, NULL, 'b'},
                                            {"gpu", required_argument, NULL, 'g'},
                                            {"json", no_argument, NULL, 'j'},
                                            {"full", no_argument, NULL, 'f'},
                                            {"row", no_argument, NULL, 'r'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    const char *backend = "auto";
    int64_t gpu = -1;
    struct device_command command = {0};
    log_init("sluice-probe", LOG_WARN);
    optind = 1;
    opterr = 0;
    for (int option; (option = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        switch (option) {
        case 'b':
            backend = optarg;
            break;
        case 'g':
            if (!str_to_i64(str_of(optarg), &gpu) || gpu < 0 || gpu >= PROBE_DEVICES_MAX)
                return usage("--gpu: the number of a device, from 0");
            break;
        case 'j':
            command.is_json = true;
            break;
        case 'f':
            command.is_full = true;
            break;
        case 'r':
            command.is_row = true;
            break;
        case 'h':
            fputs(help, stdout);
            return EXIT_DONE;
        default:
            return usage("an option that it does not have");
        }
    }
    if (optind != argc)
        return usage("it takes options only");
    if (strcmp(backend, "auto") != 0 && strcmp(backend, "cpu") != 0 && strcmp(backend, "cuda") != 0)
        return usage("--backend: auto, cpu or cuda");
    command.backend = serve_backend(str_of(backend));
    command.end = command.backend != NULL ? command.backend->count() : 0;
    if (gpu >= 0)
        command.first = (unsigned)gpu;
    if (command.first >= command.end) {
        fputs("sluice-probe: no such device here\n", stderr);
        return EXIT_NO_DEVICE;
    }
    if (gpu >= 0)
        command.end = command.first + 1;
    *ret = command;
    return GO_ON;
}
