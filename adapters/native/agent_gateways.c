/* The set of gateways, as registration and the gateways themselves tell it, and the links that follow from it. */
#include "adapters/native/agent_priv.h"

#include <stdlib.h>
#include <string.h>

static struct agent_gateway *find(struct agent *agent, const char *id)
{
    for (size_t i = 0; i < agent->gateway_count; i++)
        if (!strcmp(agent->gateways[i]->id, id))
            return agent->gateways[i];
    return NULL;
}

/* "host:port", "[v6]:port". A wildcard address is the host that answered the registration. */
static bool read_address(const struct agent *agent, struct str text, struct agent_gateway *gateway)
{
    int64_t port;
    size_t colon = text.len;
    while (colon > 0 && text.ptr[colon - 1] != ':')
        colon--;
    if (colon < 2)
        return false;
    struct str host = {text.ptr, colon - 1}, number = {text.ptr + colon, text.len - colon};
    if (host.len > 2 && host.ptr[0] == '[' && host.ptr[host.len - 1] == ']')
        host = (struct str){host.ptr + 1, host.len - 2};
    if (str_eq(host, STR("0.0.0.0")) || str_eq(host, STR("::")) || str_eq(host, STR("*")))
        host = str_of(agent->gateway_host);
    return str_to_i64(number, &port) && port > 0 && port < 65536 && host.len > 0 &&
           str_copy(gateway->host, sizeof(gateway->host), host) &&
           str_copy(gateway->port, sizeof(gateway->port), number);
}

static bool read_gateway(const struct agent *agent, json_t *entry, struct agent_gateway *ret)
{
    const char *id = NULL, *address = NULL;
    json_int_t links = 0;
    int tls = 1;
    memset(ret, 0, sizeof(*ret));
    if (json_unpack(entry, "{s:s, s:s, s:I, s?b}", "id", &id, "address", &address, "links", &links, "tls", &tls) != 0)
        return false;
    const char *pin = json_string_value(json_object_get(entry, "pin"));
    ret->is_listed = true;
    ret->tls = tls != 0;
    ret->link_count = links > AGENT_LINKS_MAX ? AGENT_LINKS_MAX : (size_t)(links < 0 ? 0 : links);
    return *id && str_copy(ret->id, sizeof(ret->id), str_of(id)) && read_address(agent, str_of(address), ret) &&
           (!pin || !*pin || crypto_unhex(str_of(pin), ret->pin, sizeof(ret->pin)));
}

static void dial_all(struct agent_gateway *gateway)
{
    for (size_t i = 0; i < gateway->link_count; i++)
        if (gateway->links[i])
            agent_link_dial(gateway->links[i]);
}

/* Brings the links in line with the wanted count. Links too many end when their calls have. */
static void fit_links(struct agent *agent, struct agent_gateway *gateway)
{
    for (size_t i = 0; i < AGENT_LINKS_MAX; i++) {
        struct agent_link *link = gateway->links[i];
        bool is_wanted = gateway->is_listed && i < gateway->link_count;
        if (is_wanted && !link && (link = gateway->links[i] = agent_link_new(agent, gateway)))
            agent_link_dial(link);
        else if (!is_wanted && link && link->state == LINK_UP) {
            agent_status_end(link);
            h2_shutdown(link->h2);
        } else if (!is_wanted && link)
            gateway->links[i] = agent_link_free(link);
    }
}

static void apply(struct agent *agent, const struct agent_gateway *told)
{
    struct agent_gateway *gateway = find(agent, told->id);
    bool has_moved = false;
    if (!gateway) {
        if (agent->gateway_count == AGENT_GATEWAYS_MAX || !(gateway = calloc(1, sizeof(*gateway))))
            return;
        *gateway = *told;
        agent->gateways[agent->gateway_count++] = gateway;
    } else {
        has_moved = strcmp(gateway->host, told->host) || strcmp(gateway->port, told->port) ||
                    gateway->tls != told->tls || memcmp(gateway->pin, told->pin, sizeof(told->pin));
        memcpy(gateway->host, told->host, sizeof(told->host));
        memcpy(gateway->port, told->port, sizeof(told->port));
        memcpy(gateway->pin, told->pin, sizeof(told->pin));
        gateway->tls = told->tls;
        gateway->is_listed = true;
        gateway->link_count = told->link_count;
    }
    fit_links(agent, gateway);
    if (has_moved)
        dial_all(gateway);
}

bool agent_gateways_set(struct agent *agent, const json_t *list)
{
    size_t count = json_array_size(list);
    if (!json_is_array(list) || count > AGENT_GATEWAYS_MAX)
        return false;
    struct agent_gateway *told = calloc(count + 1, sizeof(*told));
    bool is_good = told != NULL;
    for (size_t i = 0; is_good && i < count; i++)
        is_good = read_gateway(agent, json_array_get(list, i), &told[i]);
    if (is_good) {
        for (size_t i = 0; i < agent->gateway_count; i++)
            agent->gateways[i]->is_listed = false;
        for (size_t i = 0; i < count; i++)
            apply(agent, &told[i]);
        for (size_t i = 0; i < agent->gateway_count; i++)
            if (!agent->gateways[i]->is_listed)
                fit_links(agent, agent->gateways[i]);
    }
    free(told);
    return is_good;
}

void agent_links_dial(struct agent *agent)
{
    for (size_t i = 0; i < agent->gateway_count; i++)
        if (agent->gateways[i]->is_listed)
            dial_all(agent->gateways[i]);
}

static bool has_link(const struct agent_gateway *gateway)
{
    for (size_t i = 0; i < AGENT_LINKS_MAX; i++)
        if (gateway->links[i])
            return true;
    return false;
}

void agent_links_watch(struct agent *agent)
{
    for (size_t i = 0; i < agent->gateway_count; i++) {
        struct agent_gateway *gateway = agent->gateways[i];
        for (size_t k = 0; k < AGENT_LINKS_MAX; k++) {
            struct agent_link *link = gateway->links[k];
            if (link && link->state != LINK_UP && (!gateway->is_listed || k >= gateway->link_count))
                gateway->links[k] = agent_link_free(link);
            else if (link)
                agent_link_watch(link);
        }
        if (!gateway->is_listed && !has_link(gateway)) {
            free(gateway);
            agent->gateways[i--] = agent->gateways[--agent->gateway_count];
        }
    }
}

void agent_links_renew(struct agent *agent)
{
    for (size_t i = 0; i < agent->gateway_count; i++) {
        for (size_t k = 0; k < AGENT_LINKS_MAX; k++) {
            struct agent_link *link = agent->gateways[i]->links[k];
            if (link && link->state == LINK_UP) {
                agent_status_end(link);
                h2_shutdown(link->h2);
            }
        }
    }
}

void agent_links_shutdown(struct agent *agent)
{
    agent_links_renew(agent);
    for (size_t i = 0; i < agent->gateway_count; i++)
        for (size_t k = 0; k < AGENT_LINKS_MAX; k++)
            if (agent->gateways[i]->links[k] && agent->gateways[i]->links[k]->state != LINK_UP)
                agent->gateways[i]->links[k] = agent_link_free(agent->gateways[i]->links[k]);
}

size_t agent_links_open(const struct agent *agent)
{
    size_t open = 0;
    for (size_t i = 0; i < agent->gateway_count; i++)
        for (size_t k = 0; k < AGENT_LINKS_MAX; k++)
            open += agent->gateways[i]->links[k] && agent->gateways[i]->links[k]->state == LINK_UP;
    return open;
}

void agent_links_free(struct agent *agent)
{
    while (agent->gateway_count > 0) {
        struct agent_gateway *gateway = agent->gateways[--agent->gateway_count];
        for (size_t k = 0; k < AGENT_LINKS_MAX; k++)
            gateway->links[k] = agent_link_free(gateway->links[k]);
        free(gateway);
    }
}
