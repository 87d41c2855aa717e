/* sluice ban list, ban lift. */
#include "gateway/cli/http.h"
#include "gateway/cli/table.h"

#include <stdio.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define CELL_WIDTH 64 /* of a SHA-256 */

int cmd_ban_list(struct cli *cli)
{
    static const char *const heads[] = {"ID", "KIND", "WORKER", "UNTIL", ">BANS", "REASON", "SINCE"};
    json_t *list = NULL, *ban;
    char at[CLI_TIME_MAX];
    size_t i, columns = cli->output == CLI_WIDE ? COUNT(heads) : COUNT(heads) - 1;
    int code = http_list(cli, "/api/v1/admin/bans", 0, &list);
    if (code || !list)
        return code;
    if (cli->output == CLI_JSON) {
        code = cli_print_json(list);
        json_decref(list);
        return code;
    }
    struct table *table = cli->output == CLI_NAME ? table_new(1, NULL, 0) : table_new(columns, heads, CELL_WIDTH);
    json_array_foreach(json_object_get(list, "data"), i, ban)
    {
        table_text(table, cli_text(ban, "id"));
        if (cli->output == CLI_NAME)
            continue;
        table_text(table, cli_text(ban, "kind"));
        table_text(table, cli_text(ban, "worker"));
        table_text(table, str_of(cli_time(ban, "until_at", at)));
        table_printf(table, "%.0f", cli_number(ban, "bans"));
        table_text(table, cli_text(ban, "reason"));
        if (cli->output == CLI_WIDE)
            table_text(table, str_of(cli_time(ban, "at", at)));
    }
    if (!table_print(table, stdout))
        code = cli_fail(CLI_FAILED, "out of memory, or the output cannot be written");
    table_free(table);
    json_decref(list);
    return code;
}

int cmd_ban_lift(struct cli *cli)
{
    char path[CLI_PATH_MAX];
    json_t *answer = NULL;
    if (!http_path(path, "/api/v1/admin/bans/", cli->args[0], ""))
        return cli_fail(CLI_USAGE, "an id that is too long");
    int code = http_call(cli, "DELETE", path, &answer);
    if (!code && cli->output == CLI_JSON && answer)
        code = cli_print_json(answer);
    else if (!code && !cli->is_curl)
        printf("lifted\n");
    json_decref(answer);
    return code;
}
