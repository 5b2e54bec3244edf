/* One relaxed atomic per counter, each on a cache line of its own so that threads which count
 * different things do not disturb each other. */
#include "base/stats.h"

#include <stdatomic.h>
#include <stddef.h>

typedef struct counter {
    _Alignas(64) _Atomic int64_t value;
} counter;

static counter counters[SCIO_N_STATS];

static const char *const names[SCIO_N_STATS] = {
#define STATS_NAME(name, meaning) #name,
    SCIO_STATS_LIST(STATS_NAME)
#undef STATS_NAME
};

static const char *const meanings[SCIO_N_STATS] = {
#define STATS_MEANING(name, meaning) meaning,
    SCIO_STATS_LIST(STATS_MEANING)
#undef STATS_MEANING
};

void
scio_stats_add(scio_stat which, int64_t amount)
{
    atomic_fetch_add_explicit(&counters[which].value, amount, memory_order_relaxed);
}

int64_t
scio_stats_get(scio_stat which)
{
    return atomic_load_explicit(&counters[which].value, memory_order_relaxed);
}

void
scio_stats_read(scio_stats *out)
{
#define STATS_READ(name, meaning) out->name = scio_stats_get(SCIO_STAT_##name);
    SCIO_STATS_LIST(STATS_READ)
#undef STATS_READ
}

const char *
scio_stats_name(scio_stat which)
{
    return which < SCIO_N_STATS ? names[which] : "";
}

const char *
scio_stats_meaning(scio_stat which)
{
    return which < SCIO_N_STATS ? meanings[which] : "";
}
