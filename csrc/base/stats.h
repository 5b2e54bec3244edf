/* Counters of the process: relaxed atomics, cheap enough to stay on; tests read them. */
#ifndef SCIO_BASE_STATS_H
#define SCIO_BASE_STATS_H

#include <stdint.h>

/* X(name, meaning) */
#define SCIO_STATS_LIST(X)                                                                         \
    X(live_bufs, "scio_buf objects alive now")                                                     \
    X(live_buf_nbytes, "bytes they hold")                                                          \
    X(live_sources, "open sources")                                                                \
    X(live_threads, "threads of all pools")                                                        \
    X(nbytes_read, "bytes read from sources")                                                      \
    X(n_reads, "read calls on sources")                                                            \
    X(chunks_decoded, "HDF5 chunks decoded")                                                       \
    X(nbytes_decoded, "bytes that came out of the pipeline")                                       \
    X(direct_chunks, "chunks inflated straight into the destination")                              \
    X(coalesced_reads, "reads that fetched several chunks at once")                                \
    X(fast_rows, "rows that took a kernel's fast path")                                            \
    X(general_rows, "rows that took the general path")

typedef struct scio_stats {
#define SCIO_STATS_FIELD(name, meaning) int64_t name;
    SCIO_STATS_LIST(SCIO_STATS_FIELD)
#undef SCIO_STATS_FIELD
} scio_stats;

typedef enum scio_stat {
#define SCIO_STATS_ENUM(name, meaning) SCIO_STAT_##name,
    SCIO_STATS_LIST(SCIO_STATS_ENUM)
#undef SCIO_STATS_ENUM
        SCIO_N_STATS
} scio_stat;

void scio_stats_add(scio_stat which, int64_t amount);
int64_t scio_stats_get(scio_stat which);
void scio_stats_read(scio_stats *out);
const char *scio_stats_name(scio_stat which);
const char *scio_stats_meaning(scio_stat which);

#endif
