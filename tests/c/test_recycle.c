/* Blocks that go round: sizes, bounds, and many threads at once. */
#include "test.h"

#include "base/buf.h"
#include "base/pool.h"
#include "base/recycle.h"
#include "base/stats.h"

#include <stdint.h>

TEST(capacities_hold_what_was_asked_and_at_most_an_eighth_more)
{
    for (size_t n = SCIO_RECYCLED_MIN_NBYTES; n < SCIO_RECYCLED_MAX_NBYTES; n += n / 7 + 1) {
        const size_t capacity = scio_recycle_capacity(n);

        CHECK(capacity >= n && capacity - n <= n / 8);
        CHECK(scio_recycle_capacity(capacity) == capacity);
    }
}

TEST(a_released_buffer_comes_back_for_the_next_of_its_size)
{
    const size_t nbytes = 300000;
    scio_buf *buf = NULL;
    void *before;

    if (!scio_recycle_is_for(nbytes, false))
        return; /* a build that must see each block die */
    CHECK(scio_buf_new(nbytes, &buf, NULL) == SCIO_OK);
    before = scio_buf_data(buf);
    memset(before, 7, nbytes);
    scio_buf_release(buf);
    CHECK(scio_recycle_held() >= nbytes);
    CHECK(scio_buf_new(nbytes + 1, &buf, NULL) == SCIO_OK);
    CHECK(scio_buf_data(buf) == before);
    scio_buf_release(buf);
    CHECK(scio_buf_new(2 * nbytes, &buf, NULL) == SCIO_OK);
    CHECK(scio_buf_data(buf) != before);
    scio_buf_release(buf);
}

TEST(what_waits_is_bounded_in_bytes_and_blocks)
{
    scio_buf *bufs[200];

    for (size_t i = 0; i < 200; i++)
        CHECK(scio_buf_new((size_t)1 << (16 + i % 9), &bufs[i], NULL) == SCIO_OK);
    for (size_t i = 0; i < 200; i++)
        scio_buf_release(bufs[i]);
    CHECK(scio_recycle_held() <= SCIO_RECYCLED_HELD_NBYTES);
    CHECK(scio_stats_get(SCIO_STAT_live_bufs) == 0);
}

TEST(buffers_of_a_batch_go_round_at_any_size_as_far_as_is_reserved)
{
    const size_t nbytes = (size_t)130 << 20; /* more than may wait by itself */
    scio_buf *buf = NULL, *kept = NULL;
    void *before;

    if (!scio_recycle_is_for(nbytes, true))
        return;
    CHECK(scio_recycle_limit() == SCIO_RECYCLED_HELD_NBYTES);
    CHECK(scio_buf_new_batch(nbytes, &buf, NULL) == SCIO_OK);
    scio_buf_release(buf);
    CHECK(scio_recycle_held() < nbytes); /* nothing reserved: it went */

    scio_buf_reserve(2 * nbytes);
    CHECK(scio_buf_new_batch(nbytes, &buf, NULL) == SCIO_OK);
    before = scio_buf_data(buf);
    ((char *)before)[nbytes - 1] = 7;
    scio_buf_release(buf);
    CHECK(scio_recycle_held() >= nbytes);
    CHECK(scio_buf_new(nbytes, &kept, NULL) == SCIO_OK); /* not a batch's: left alone */
    CHECK(scio_buf_data(kept) != before);
    scio_buf_release(kept);
    CHECK(scio_buf_new_batch(nbytes, &kept, NULL) == SCIO_OK);
    CHECK(scio_buf_data(kept) == before && ((char *)before)[nbytes - 1] == 7);

    /* a buffer that is kept is nobody else's */
    CHECK(scio_buf_new_batch(nbytes, &buf, NULL) == SCIO_OK);
    CHECK(scio_buf_data(buf) != before);
    scio_buf_release(kept);
    scio_buf_release(buf);
    CHECK(scio_recycle_held() >= 2 * nbytes && scio_recycle_held() <= scio_recycle_limit());
    scio_buf_unreserve(2 * nbytes);
    CHECK(scio_recycle_held() <= SCIO_RECYCLED_HELD_NBYTES); /* freed as soon as it is too much */
    CHECK(scio_recycle_limit() == SCIO_RECYCLED_HELD_NBYTES);
}

/* Blocks of an earlier size must not keep those of today out. */
TEST(what_waits_longest_makes_room)
{
    enum { N_BUFS = 70 };
    scio_buf *bufs[N_BUFS], *buf = NULL;
    void *before;

    if (!scio_recycle_is_for(100000, false))
        return;
    for (size_t i = 0; i < N_BUFS; i++) /* more of them than there are places */
        CHECK(scio_buf_new(70000, &bufs[i], NULL) == SCIO_OK);
    for (size_t i = 0; i < N_BUFS; i++)
        scio_buf_release(bufs[i]);
    for (size_t i = 0; i < 4; i++) /* and all that may wait, in bytes */
        CHECK(scio_buf_new((size_t)24 << 20, &bufs[i], NULL) == SCIO_OK);
    for (size_t i = 0; i < 4; i++)
        scio_buf_release(bufs[i]);
    CHECK(scio_buf_new((size_t)20 << 20, &buf, NULL) == SCIO_OK);
    before = scio_buf_data(buf);
    scio_buf_release(buf);
    CHECK(scio_recycle_held() <= SCIO_RECYCLED_HELD_NBYTES);
    CHECK(scio_buf_new((size_t)20 << 20, &buf, NULL) == SCIO_OK);
    CHECK(scio_buf_data(buf) == before);
    scio_buf_release(buf);
}

/* Each job writes its own number over its block and must find it there. */
static scio_status
use_blocks(void *context, size_t i_item, size_t slot, scio_error *err)
{
    (void)context;
    (void)slot;
    for (size_t k = 0; k < 50; k++) {
        const size_t nbytes = ((size_t)64 << 10) + (i_item * 31 + k) % 5 * 40000 +
                              (k % 16 == 0 ? (size_t)30 << 20 : 0); /* which evict the others */
        scio_buf *buf = NULL;
        size_t *words;

        SCIO_TRY(scio_buf_new(nbytes, &buf, err));
        words = scio_buf_data(buf);
        for (size_t i = 0; i < nbytes / sizeof *words; i += 64)
            words[i] = i_item * 1000 + k;
        for (size_t i = 0; i < nbytes / sizeof *words; i += 64)
            if (words[i] != i_item * 1000 + k)
                return scio_fail(err, SCIO_EBUG, "two owners of one block");
        scio_buf_release(buf);
    }
    return SCIO_OK;
}

TEST(many_threads_never_share_a_block)
{
    scio_pool *pool = NULL;
    scio_error err = SCIO_ERROR_INIT;

    CHECK(scio_pool_new(8, &pool, &err) == SCIO_OK);
    CHECK(scio_parallel_for(pool, 8, 200, use_blocks, NULL, NULL, &err) == SCIO_OK);
    CHECK_CLEAR(err.message);
    scio_pool_free(pool);
}
