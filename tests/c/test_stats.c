#include "base/stats.h"

#include "base/pool.h"
#include "test.h"

TEST(add_get_and_read_agree)
{
    const int64_t before = scio_stats_get(SCIO_STAT_fast_rows);
    scio_stats all;

    scio_stats_add(SCIO_STAT_fast_rows, 40);
    scio_stats_add(SCIO_STAT_fast_rows, -3);
    CHECK(scio_stats_get(SCIO_STAT_fast_rows) == before + 37);
    scio_stats_read(&all);
    CHECK(all.fast_rows == before + 37);
    CHECK(all.general_rows == scio_stats_get(SCIO_STAT_general_rows));
}

TEST(every_counter_has_a_name_and_a_meaning)
{
    for (int i = 0; i < SCIO_N_STATS; i++) {
        CHECK(strlen(scio_stats_name((scio_stat)i)) > 3);
        CHECK(strlen(scio_stats_meaning((scio_stat)i)) > 3);
    }
    CHECK(strcmp(scio_stats_name(SCIO_STAT_live_bufs), "live_bufs") == 0);
    CHECK(strcmp(scio_stats_meaning(SCIO_STAT_n_reads), "read calls on sources") == 0);
    CHECK(strcmp(scio_stats_name(SCIO_N_STATS), "") == 0);
    CHECK(strcmp(scio_stats_meaning(SCIO_N_STATS), "") == 0);
}

static scio_status
add_one(void *context, size_t i_item, size_t slot, scio_error *err)
{
    (void)context;
    (void)i_item;
    (void)slot;
    (void)err;
    scio_stats_add(SCIO_STAT_coalesced_reads, 1);
    return SCIO_OK;
}

TEST(no_count_is_lost_between_threads)
{
    const int64_t before = scio_stats_get(SCIO_STAT_coalesced_reads);
    scio_pool *pool = NULL;

    CHECK(scio_pool_new(4, &pool, NULL) == SCIO_OK);
    CHECK(scio_parallel_for(pool, 4, 20000, add_one, NULL, NULL, NULL) == SCIO_OK);
    CHECK(scio_stats_get(SCIO_STAT_coalesced_reads) == before + 20000);
    scio_pool_free(pool);
}
