/* Of the files of networks: networks.c (opening, the tick, views, what leases tell), networks_follow.c (what all
 * gateways share of a network), networks_poll.c (looking at its offers), networks_origin.c (who is behind them),
 * networks_market.c (the market, candidates), networks_reconcile.c (orphans). Control thread only.
 *
 * In Redis, for a network N: `sl:{net:N}:poller` who looks at it, with a life; `:offers` its offers by digest, and
 * `:changes` what changed of them, version by version; `:state` what all must know; `:origins` reputations;
 * `:orphans` what runs there and is nobody's. */
#ifndef SLUICE_GATEWAY_NETWORKS_PRIV_H
#define SLUICE_GATEWAY_NETWORKS_PRIV_H

#include "core/clock.h"
#include "gateway/breaker.h"
#include "gateway/control_priv.h"
#include "gateway/networks.h"
#include "gateway/offer_table.h"
#include "scheduler/reputation.h"

#define NETS_MAX 64
/* Of being poller, renewed each second: another takes over when a gateway has gone as long as three looks, within
 * these bounds. */
#define NET_LIFE_LEAST_S 3
#define NET_LIFE_MOST_S 10
#define NET_KEY_MAX (NETWORK_ID_MAX + 24)
#define NET_STREAM_ID_MAX 48
#define NET_ORIGIN_MAX 64
#define NET_ORIGINS_MAX 10000
#define MARKET_EVERY_NS (2 * NS_PER_S) /* it is built anew at most so often */
#define MARKET_SHARE 50                /* and takes at most one part in so many of a core */

enum net_key { NET_POLLER, NET_OFFERS, NET_STATE, NET_CHANGES, NET_ORIGINS, NET_ORPHANS, NET_KEYS };

/* Who is behind a network's offers, by name; open addressing. */
struct net_origin {
    char name[NET_ORIGIN_MAX]; /* "": a free place */
    struct reputation reputation;
};
struct net_origins {
    struct net_origin *places;
    size_t count, place_count;
    struct reputation all; /* what is held against the network itself */
};

/* What all gateways know of it, as the last answer told. */
struct net_shared {
    char poller[ID_TEXT_MAX]; /* "": nobody */
    int64_t polled_at_ms, looked_at_ms, error_at_ms, unknown_gpus, unpriced, orphans_ended, early, origins;
    char error[SUPPLY_MESSAGE_MAX]; /* of the last look; "": it went well */
    char breaker[BREAKER_TEXT_MAX];
    int64_t errors[SUPPLY_ERROR_COUNT]; /* of all gateways */
};

struct net_orphan_round; /* networks_reconcile.c */

struct net {
    struct networks *all;
    const struct settings_network *settings;
    const struct adapter *adapter;
    struct network *network; /* NULL until the installation is known */
    char keys[NET_KEYS][NET_KEY_MAX];
    struct sighting *sighting;
    struct offer_table table;
    struct net_origins origins;
    struct breaker breaker;
    int64_t blocked_until_ms; /* our account there is empty */
    struct net_shared shared;
    int64_t errors[SUPPLY_ERROR_COUNT]; /* of this gateway */
    bool was_fresh;                     /* when the market was built */

    /* networks_follow.c */
    bool is_asking, is_poller, is_synced; /* synced: the table is what Redis holds at `version` */
    bool is_reading, read_again;
    int64_t version;
    char last[NET_STREAM_ID_MAX];
    char cursor[24];    /* of the full read */
    int64_t early_told; /* how often this gateway asked for an early poll, as it was then */
    int64_t next_early_ns;

    /* networks_poll.c */
    struct adapter_call *call; /* of a poll or check */
    bool is_checking, is_ended, has_failed;
    enum supply_error outcome;
    char outcome_message[SUPPLY_MESSAGE_MAX];
    int64_t outcome_retry_ms;
    size_t unknown_gpus, unpriced;
    int64_t next_poll_ns, polled_ns;
    struct offer_digest *dirty; /* changed in the table, not yet in Redis */
    size_t dirty_count, dirty_cap, dirty_at;
    unsigned writes;

    /* networks_reconcile.c */
    struct net_orphan_round *round;
    int64_t next_reconcile_ns;
};

struct networks {
    struct control *control;
    struct loop *loop;
    struct redis *redis;
    struct http_client *http;
    struct rates rates;
    struct net *nets;
    size_t count;
    struct timer tick;
    bool is_shut, is_asking_installation, is_clearing;
    char installation[SUPPLY_INSTALLATION_MAX];

    /* networks_market.c */
    struct market *market;
    struct timer build;
    bool is_market_due;
    int64_t built_ns, build_took_ns;
};

/* -- networks.c -- */
struct str net_key(const struct net *net, enum net_key key);
struct net *networks_net(const struct networks *networks, const char *id);
/* After net->breaker has changed: the others hear of it, and the market of what cannot be had. */
void net_breaker_changed(struct net *net);
void net_count_error(struct net *net, enum supply_error error);
bool net_is_down(const struct net *net); /* nothing is to be had of it now, whatever it lists */
bool net_is_stale(const struct net *net);
void net_show_down(struct net *net); /* the same to who reads the market */

/* -- networks_follow.c -- */
void net_follow(struct net *net);
void net_read_all(struct net *net); /* the table is not what Redis holds: reads it anew */
void net_resign(struct net *net);

/* -- networks_poll.c -- */
void net_poll_tick(struct net *net); /* looks at the network when that is due and ours to do */
void net_poll_soon(struct net *net);
void net_poll_drop(struct net *net); /* another one looks now, or all ends */

/* -- networks_origin.c -- */
void net_origins_read(struct net *net);
void net_origin_note(struct net *net, const struct lease_candidate *candidate, enum supply_error error);
struct net_standing {
    double reputation, scores[REPUTATION_DIMENSIONS], completion; /* how likely a machine works out, (0, 1] */
};
struct net_standing net_standing_of_all(const struct net *net); /* of who is not known */
struct net_standing net_standing_of(const struct net *net, struct str origin, const struct net_standing *of_all);
void net_origins_free(struct net_origins *origins);

/* -- networks_market.c -- */
void networks_market_init(struct networks *networks);
void networks_market_changed(struct networks *networks); /* builds it anew, unhurried */

/* -- networks_reconcile.c -- */
void net_reconcile_tick(struct net *net);
void net_reconcile_drop(struct net *net);

#endif
