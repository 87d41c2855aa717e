/* The gateway's configuration file. Every key has a default. */
#ifndef SLUICE_GATEWAY_SETTINGS_H
#define SLUICE_GATEWAY_SETTINGS_H

#include "core/config.h"
#include "pricing/rates.h"

enum settings_probe { PROBE_REQUIRED, PROBE_REPORT, PROBE_OFF };
enum settings_mismatch { MISMATCH_RECLASS, MISMATCH_SUSPEND };
enum settings_settle { SETTLE_JOURNAL, SETTLE_REDIS };

struct settings_take_rate {
    char *supplier; /* "*" for all others */
    int64_t bps;
};

struct settings_rate {
    char *currency, *usd;
};

struct settings_network {
    char *id, *adapter, *base_url;
    struct config_map credential; /* secrets, resolved */
    struct config_map options;    /* plain texts */
    int64_t poll_s, offers_ttl_s; /* offers_ttl_s 0: see settings_offers_ttl_ms */
    int64_t markup_bps, reconcile_s, orphan_grace_s;
    int probe;                               /* enum settings_probe */
    int64_t max_price_per_gpu_hour_usd_nano; /* -1: none */
};

struct settings {
    struct config_address listen;
    char *public_url; /* "": by the listen address */
    char *data_dir;
    int64_t threads;                      /* 0: one reactor a core */
    char *redis_url;                      /* "": embedded */
    struct config_address link_listen;    /* host "": the listen address with port 0 */
    struct config_address link_advertise; /* host "": as link_listen came out */
    char *link_tls_cert, *link_tls_key;   /* PEM files; both or none */
    struct {
        int64_t body_bytes, header_bytes, queue_per_model, queue_wait_ms, head_ms, body_min_bps, write_stall_ms,
            connections_max;
    } limits;
    struct {
        char *catalogue;
        int admission; /* enum settings_probe */
        int mismatch;  /* enum settings_mismatch */
        int64_t reprobe_min_s, reprobe_max_s;
        char *check_answers; /* decimal; see settings_check_answers_bps */
        int64_t newcomer_exposure_usd_nano;
        int canaries, slot; /* 0: off, 1: on */
    } probes;
    struct {
        int settle;                    /* enum settings_settle */
        struct config_list take_rates; /* of struct settings_take_rate */
    } pricing;
    struct {
        int64_t slice_ms, watch_ms, boot_poll_ms, probing_ms, grace_ms, retry_ms, silent_ms, seek_ms;
        int64_t max_open;        /* a tenant; 0: no limit */
    } leases;                    /* see scheduler/lease.h */
    struct config_map aliases;   /* model -> model */
    char *metrics_token;         /* secret; NULL when not given */
    int log_level;               /* enum log_level */
    struct config_list networks; /* of struct settings_network */
    struct config_list rates;    /* of struct settings_rate */
};

/* path NULL: the defaults alone. error is at least CONFIG_ERROR_MAX bytes. On error ret holds nothing. */
MUST_CHECK enum error settings_load(const char *path, struct settings *ret, char error[static CONFIG_ERROR_MAX]);
/* One scalar by its key ("listen", "redis.url"), from the command line option `option`. */
MUST_CHECK enum error settings_set(struct settings *settings, const char *key, const char *value, const char *option,
                                   char error[static CONFIG_ERROR_MAX]);
/* What depends on several keys; settings_load has done it, so call it after settings_set. */
MUST_CHECK enum error settings_check(const struct settings *settings, char error[static CONFIG_ERROR_MAX]);
/* Appends the reference of all keys, which deploy/sluice.yaml holds. */
MUST_CHECK bool settings_reference(struct buf *to);
void settings_free(struct settings *settings); /* what it owns; accepts NULL */

/* How many of 10,000 answers are checked on another worker: 0 .. 3000. */
int64_t settings_check_answers_bps(const struct settings *settings);
/* The rates of the file; networks may add to them. */
void settings_rates(const struct settings *settings, struct rates *ret);
/* How long a network's offers are sold after they were seen. */
int64_t settings_offers_ttl_ms(const struct settings_network *network);
/* The supplier's take rate in basis points: its own row, else the row "*", else 0. */
int64_t settings_take_bps(const struct settings *settings, struct str supplier);

#endif
