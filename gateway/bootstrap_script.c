/* The script of a leased machine. It takes what it finds (curl, wget, python3, bash; sha256sum, openssl, python3), for
 * an image is its tenant's and may have little. */
#include "gateway/bootstrap.h"
#include "gateway/bootstrap_priv.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define ORPHAN_S 900

/* Tries end within about two minutes where nothing answers: the lease then fails over. An image may have no fetcher at
 * all: bash speaks HTTP by itself, and with root's rights a package manager brings curl. Certificates are not looked at
 * here, for an image may have no CAs: what comes is held against the digests of this script, and nothing but an address
 * goes out. The worker, which sends its token, gets the CAs that it needs. */
static const char head_text[] =
    "say() { echo \"sluice: $*\" >&2; }\n"
    "die() { say \"$*\"; exit 1; }\n"
    "has() { command -v \"$1\" >/dev/null 2>&1; }\n"
    "get() {\n"
    "  if has curl; then curl -kfsSL --connect-timeout 10 -m 300 -o \"$2\" \"$1\"\n"
    "  elif has wget; then wget -q -T 30 --no-check-certificate -O \"$2\" \"$1\" || wget -q -O \"$2\" \"$1\"\n"
    "  elif has python3; then python3 -c 'import sys,ssl,urllib.request as u\n"
    "c=ssl.create_default_context(); c.check_hostname=False; c.verify_mode=ssl.CERT_NONE\n"
    "open(sys.argv[2],\"wb\").write(u.urlopen(sys.argv[1],timeout=60,context=c).read())' \"$1\" \"$2\"\n"
    "  elif has bash && [ \"${1#http:}\" != \"$1\" ]; then bash -c 'u=${1#http://}; h=${u%%/*}; p=${h##*:}\n"
    "[ \"$p\" = \"$h\" ] && p=80; exec 3<>\"/dev/tcp/${h%:*}/$p\" || exit 1\n"
    "printf \"GET /%s HTTP/1.0\\r\\nHost: %s\\r\\n\\r\\n\" \"${u#*/}\" \"$h\" >&3; read -r v s r <&3; [ \"$s\" = 200 ] "
    "|| exit 1\n"
    "while read -r l <&3 && [ ${#l} -gt 1 ]; do :; done; cat <&3 >\"$2\"' sh \"$1\" \"$2\"\n"
    "  elif has apt-get; then (apt-get update && apt-get install -y curl ca-certificates) >/dev/null 2>&1; false\n"
    "  else echo \"there is no curl, wget or python3\"; false; fi\n"
    "}\n"
    "sum() {\n"
    "  if has sha256sum; then sha256sum \"$1\"\n"
    "  elif has openssl; then openssl dgst -sha256 -r \"$1\"\n"
    "  else python3 -c 'import sys,hashlib as h\n"
    "print(h.sha256(open(sys.argv[1],\"rb\").read()).hexdigest(),\"\")' \"$1\"; fi\n"
    "}\n"
    "is() { [ -f \"$1\" ] && s=$(sum \"$1\") && [ \"${s%% *}\" = \"$2\" ]; }\n"
    "need() {\n"
    "  for w in 1 2 4 8 16 x; do\n"
    "    is \"$1\" \"$3\" || { rm -f \"$1\"; e=$(get \"$2\" \"$1\" 2>&1); }\n"
    "    is \"$1\" \"$3\" && chmod 700 \"$1\" && return\n"
    "    [ -s \"$1\" ] && e=\"what came is not what it should be\"\n"
    "    [ $w = x ] || sleep $w\n"
    "  done\n"
    "  rm -f \"$1\"; die \"cannot fetch ${1##*/} from $g: $e\"\n"
    "}\n"
    "has sha256sum || has openssl || has python3 || die \"needs sha256sum, openssl or python3 to check its worker\"\n"
    "[ \"${SLUICE_TOKEN:-}\" ] || die \"SLUICE_TOKEN is not set\"\n"
    "d=\n"
    "for p in \"${TMPDIR:-/tmp}\" /var/tmp /dev/shm \"${HOME:-/root}\" .; do\n"
    "  p=$p/.sluice-$l; mkdir -m 700 \"$p\" 2>/dev/null; [ -O \"$p\" ] || continue\n"
    "  echo exit 0 >\"$p/try\" && chmod 700 \"$p/try\" && \"$p/try\" && d=$p && break\n"
    "done 2>/dev/null\n"
    "[ \"$d\" ] || die \"no folder where it can write and run a program\"\n";

/* -- words ------------------------------------------------------------------------------------------------------- */

bool bootstrap_quote(struct str word, struct buf *to)
{
    if (word.len > 0 && memchr(word.ptr, 0, word.len))
        return false;
    if (!buf_append(to, "'", 1))
        return false;
    for (size_t i = 0; i < word.len; i++) {
        bool fits = word.ptr[i] == '\'' ? buf_append(to, "'\\''", 4) : buf_append(to, word.ptr + i, 1);
        if (!fits)
            return false;
    }
    return buf_append(to, "'", 1);
}

static bool put_word(struct buf *to, struct str word)
{
    return buf_append(to, " ", 1) && bootstrap_quote(word, to);
}

static bool is_name(struct str name)
{
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
        if (!is_letter && !(i > 0 && c >= '0' && c <= '9'))
            return false;
    }
    return name.len > 0;
}

/* -- what is checked --------------------------------------------------------------------------------------------- */

static bool has_nul(struct str text)
{
    return text.len > 0 && memchr(text.ptr, 0, text.len);
}

static bool is_lease(struct str lease)
{
    for (size_t i = 0; i < lease.len; i++) {
        char c = lease.ptr[i];
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.'))
            return false;
    }
    return lease.len > 0 && lease.len < WORKER_LEASE_MAX;
}

static enum error check(const struct bootstrap_want *want)
{
    const struct door_want *door = want->door;
    size_t bytes = door->image.len;
    if (door->command_count > DOOR_WORDS_MAX || door->env_count > DOOR_PAIRS_MAX || door->port_count > DOOR_PORTS_MAX)
        return ERR_TOO_LARGE;
    bool is_good = is_lease(want->lease) && want->url.len > 0 && !has_nul(want->url) && !has_nul(door->image) &&
                   (door->kind == DOOR_CONTAINER || (door->image.len > 0 && door->image.ptr[0] != '-')) &&
                   (door->command_count == 0 || door->command[0].len > 0);
    for (size_t i = 0; i < door->command_count; i++) {
        is_good = is_good && !has_nul(door->command[i]);
        bytes += door->command[i].len;
    }
    for (size_t i = 0; i < door->env_count; i++) {
        is_good = is_good && is_name(door->env[i].name) && !has_nul(door->env[i].value);
        bytes += door->env[i].name.len + door->env[i].value.len;
    }
    for (size_t i = 0; i < door->port_count; i++)
        is_good = is_good && door->ports[i].port > 0;
    if (!is_good)
        return ERR_BAD_INPUT;
    return bytes > DOOR_TEXT_MAX ? ERR_TOO_LARGE : ERR_NONE;
}

/* -- parts ------------------------------------------------------------------------------------------------------- */

static enum error put_file(struct bootstrap *bootstrap, const struct bootstrap_want *want, const char *file,
                           struct buf *to)
{
    char signature[SECRET_TEXT_MAX], query[WORKER_LEASE_MAX + SECRET_TEXT_MAX + 96];
    const char *program, *sha256;
    if (!bootstrap_program(bootstrap, file, &program, &sha256) ||
        !bootstrap_sign(bootstrap, str_of(file), want->lease, want->expires_at_s, signature))
        return ERR_UNREACHABLE;
    snprintf(query, sizeof(query), "/worker/v1/bootstrap/%s?lease=" STR_FMT "&expires=%" PRId64 "&sig=%s", file,
             STR_ARG(want->lease), want->expires_at_s, signature);
    return buf_printf(to, "need \"$d/%s\" \"$g\"'%s' %s\n", program, query, sha256) ? ERR_NONE : ERR_TOO_LARGE;
}

static bool needs_ca(const struct bootstrap *bootstrap, const struct bootstrap_want *want)
{
    const char *name, *sha256;
    return str_starts(want->url, STR("https:")) && bootstrap_program(bootstrap, "ca", &name, &sha256);
}

static bool put_worker(const struct bootstrap *bootstrap, const struct bootstrap_want *want, struct buf *to)
{
    const struct door_want *door = want->door;
    int64_t orphan_s = door->orphan_s > 0 ? door->orphan_s : ORPHAN_S;
    return buf_printf(
        to,
        "\"$d/sluice-worker\" --gateway \"$g\" --token env:SLUICE_TOKEN --lease \"$l\" --orphan-s %" PRId64
        " --state-dir \"$d/state\"%s%s",
        orphan_s, needs_ca(bootstrap, want) ? " --ca \"$d/ca.pem\"" : "", door->without_probe ? " --no-probe" : "");
}

static bool put_command(const struct door_want *door, struct buf *to)
{
    bool fits = true;
    for (size_t i = 0; i < door->command_count && fits; i++)
        fits = put_word(to, door->command[i]);
    return fits;
}

static bool put_container(const struct bootstrap *bootstrap, const struct bootstrap_want *want, struct buf *to)
{
    return buf_append_str(to, STR("exec ")) && put_worker(bootstrap, want, to) &&
           (want->door->command_count == 0 || buf_append_str(to, STR(" --"))) && put_command(want->door, to) &&
           buf_append_str(to, STR("\n"));
}

/* The image is fetched while the machine is proven. When the worker ends, nothing of the tenant's is left running, and
 * when nobody owns the machine any more (AGENT_ORPHANED) it turns itself off. */
static bool put_machine(const struct bootstrap *bootstrap, const struct bootstrap_want *want, struct buf *to)
{
    const struct door_want *door = want->door;
    bool fits =
        buf_append_str(to, STR("i=")) && bootstrap_quote(door->image, to) &&
        buf_append_str(to, STR("\nfor w in 1 2 3 4 5 6 7 8 9 10 11 12; do docker info >/dev/null 2>&1 && break; "
                               "sleep 5; done\nhas docker || die \"this machine has no docker\"\n"
                               "docker pull \"$i\" >/dev/null 2>&1 &\n"
                               "if [ -e /dev/nvidiactl ]; then set -- --gpus all; else set --; fi\n")) &&
        put_worker(bootstrap, want, to) &&
        buf_append_str(to, STR(" -- docker run --rm --name \"sluice-$l\" --ipc=host \"$@\""));
    for (size_t i = 0; i < door->port_count && fits; i++)
        fits = buf_printf(to, " -p %u:%u/%s", (unsigned)door->ports[i].port, (unsigned)door->ports[i].port,
                          door->ports[i].is_udp ? "udp" : "tcp");
    for (size_t i = 0; i < door->env_count && fits; i++) {
        struct buf pair;
        buf_init(&pair, DOOR_TEXT_MAX + 2);
        fits = buf_append_str(&pair, door->env[i].name) && buf_append(&pair, "=", 1) &&
               buf_append_str(&pair, door->env[i].value) && buf_append_str(to, STR(" -e")) &&
               put_word(to, buf_str(&pair));
        buf_free(&pair);
    }
    return fits && buf_append_str(to, STR(" \"$i\"")) && put_command(door, to) &&
           buf_append_str(to, STR("\nr=$?\ndocker rm -f \"sluice-$l\" >/dev/null 2>&1\n"
                                  "[ $r = 4 ] && shutdown -h now\nexit $r\n"));
}

enum error bootstrap_script(struct bootstrap *bootstrap, const struct bootstrap_want *want, struct buf *to)
{
    enum error error = check(want);
    if (error)
        return error;
    if (!buf_append_str(to, STR("g=")) || !bootstrap_quote(want->url, to) || !buf_append_str(to, STR(" l=")) ||
        !bootstrap_quote(want->lease, to) || !buf_append_str(to, STR("\n")) ||
        !buf_append(to, head_text, sizeof(head_text) - 1))
        return ERR_TOO_LARGE;
    error = put_file(bootstrap, want, "worker", to);
    if (!error && !want->door->without_probe)
        error = put_file(bootstrap, want, "probe", to);
    if (!error && needs_ca(bootstrap, want))
        error = put_file(bootstrap, want, "ca", to);
    if (error)
        return error;
    bool fits =
        buf_append_str(to, STR("\"$d/sluice-worker\" --version >/dev/null 2>&1 || die \"this image cannot run our "
                               "worker: it needs x86-64 and glibc 2.34 or later\"\n"));
    if (fits && want->door->kind == DOOR_CONTAINER)
        fits = put_container(bootstrap, want, to);
    else if (fits)
        fits = put_machine(bootstrap, want, to);
    return fits ? ERR_NONE : ERR_TOO_LARGE;
}

enum error bootstrap_user_data(struct bootstrap *bootstrap, const struct bootstrap_want *want, struct buf *to)
{
    if (!buf_append_str(to, STR("#!/bin/sh\nSLUICE_TOKEN=")) || !bootstrap_quote(want->token, to) ||
        !buf_append_str(to, STR("\nexport SLUICE_TOKEN\n")))
        return ERR_TOO_LARGE;
    return bootstrap_script(bootstrap, want, to);
}
