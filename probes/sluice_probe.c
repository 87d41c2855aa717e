/* sluice-probe: proves what GPUs a machine has. One program, one command a line of the table. */
#include "probes/bench_command.h"
#include "probes/check_command.h"
#include "probes/serve.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name, *help;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"serve", "answer a gateway's questions, as the child of sluice-worker", serve_command},
    {"claims", "print what the devices say of themselves", claims_command},
    {"check", "compare the devices' answers with the CPU's", check_command},
    {"bench", "measure the devices, beside datasheet and reference", bench_command},
};

static void help(FILE *to)
{
    fputs("usage: sluice-probe COMMAND [OPTIONS]\n", to);
    for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
        fprintf(to, "  %-8s %s\n", commands[i].name, commands[i].help);
    fputs("sluice-probe COMMAND --help tells a command's options. Exit codes: 0 done, 1 failed, 2 usage.\n", to);
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
        if (strcmp(name, commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    bool is_asked = strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0;
    help(is_asked ? stdout : stderr);
    return is_asked ? 0 : 2;
}
