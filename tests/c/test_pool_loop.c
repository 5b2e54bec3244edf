#include "pool_testing.h"

typedef struct loop_test {
    atomic_int counts[3000];
    atomic_int in_slot[MAX_SLOTS];
    atomic_int n_bad_slots, n_run;
    size_t n_slots;
    size_t fail_from, fail_every; /* items that fail: from the first, every such many after it */
    int cancel;                   /* set by the item 100 when cancel_at_100 */
    bool cancel_at_100, is_silent;
    scio_pool *pool; /* for loops inside loops */
} loop_test;

static scio_status
count_item(void *context, size_t i_item, size_t slot, scio_error *err)
{
    loop_test *const t = context;

    atomic_fetch_add(&t->n_run, 1);
    if (slot >= t->n_slots || atomic_fetch_add(&t->in_slot[slot], 1) != 0)
        atomic_fetch_add(&t->n_bad_slots, 1);
    atomic_fetch_add(&t->counts[i_item], 1);
    if (i_item % 64 == 5)
        (void)nanosleep(&(struct timespec){0, 100000}, NULL);
    if (i_item == 100 && t->cancel_at_100)
        __atomic_store_n(&t->cancel, 1, __ATOMIC_RELAXED);
    atomic_fetch_sub(&t->in_slot[slot], 1);
    if (t->fail_every == 0 || i_item < t->fail_from || (i_item - t->fail_from) % t->fail_every != 0)
        return SCIO_OK;
    if (t->is_silent)
        return SCIO_ECORRUPT;
    return scio_fail(err, SCIO_ECORRUPT, "item %zu is bad", i_item);
}

TEST(a_loop_runs_every_item_once_for_any_number_of_threads)
{
    for (size_t n_threads = 0; n_threads < 5; n_threads++) {
        for (size_t max_parallel = 0; max_parallel < 8; max_parallel += 3) {
            static loop_test t;
            scio_pool *pool = new_pool(n_threads);
            bool is_once = true;

            memset(&t, 0, sizeof t);
            t.n_slots = scio_parallel_n_slots(pool, max_parallel, 3000);
            CHECK(t.n_slots >= 1 && t.n_slots <= (n_threads > 0 ? n_threads : 1));
            CHECK(t.n_slots <= (max_parallel > 0 ? max_parallel : 1));
            CHECK(scio_parallel_for(pool, max_parallel, 3000, count_item, &t, NULL, NULL) ==
                  SCIO_OK);
            for (size_t i = 0; i < 3000; i++)
                is_once &= atomic_load(&t.counts[i]) == 1;
            CHECK(is_once && atomic_load(&t.n_bad_slots) == 0);
            scio_pool_free(pool);
        }
    }
}

TEST(a_loop_of_few_items_needs_few_slots)
{
    scio_pool *pool = new_pool(4);
    static loop_test t;

    t.n_slots = 1;
    CHECK(scio_parallel_n_slots(pool, 9, 0) == 1);
    CHECK(scio_parallel_n_slots(pool, 9, 1) == 1);
    CHECK(scio_parallel_n_slots(pool, 9, 2) == 2);
    CHECK(scio_parallel_for(pool, 9, 0, count_item, &t, NULL, NULL) == SCIO_OK);
    CHECK(atomic_load(&t.n_run) == 0);
    CHECK(scio_parallel_for(pool, 9, 1, count_item, &t, NULL, NULL) == SCIO_OK);
    CHECK(atomic_load(&t.n_run) == 1 && live_threads() == 0); /* in the caller */
    scio_pool_free(pool);
}

TEST(the_lowest_item_that_fails_is_reported_whatever_the_threads)
{
    for (size_t n_threads = 0; n_threads < 8; n_threads += n_threads == 0 ? 1 : 3) {
        scio_pool *pool = new_pool(n_threads);

        for (int round = 0; round < 40; round++) {
            static loop_test t;
            scio_error err = SCIO_ERROR_INIT;
            char expected[40];

            memset(&t, 0, sizeof t);
            t.n_slots = n_threads + 1;
            t.fail_from = 5 + 64 * (size_t)(round % 9); /* one that sleeps before it fails */
            t.fail_every = 1;
            CHECK(scio_parallel_for(pool, 8, 3000, count_item, &t, NULL, &err) == SCIO_ECORRUPT);
            (void)snprintf(expected, sizeof expected, "item %zu is bad", t.fail_from);
            CHECK(strcmp(err.message, expected) == 0);
            CHECK(atomic_load(&t.n_run) <= (int)t.fail_from + 100); /* the rest was skipped */
        }
        scio_pool_free(pool);
    }
}

TEST(an_item_that_fails_without_a_word_gets_one)
{
    scio_pool *pool = new_pool(2);
    static loop_test t;
    scio_error err = SCIO_ERROR_INIT;

    t.n_slots = 2;
    t.fail_from = 7;
    t.fail_every = 10000;
    t.is_silent = true;
    CHECK(scio_parallel_for(pool, 2, 50, count_item, &t, NULL, &err) == SCIO_ECORRUPT);
    CHECK(strcmp(err.message, "item 7 failed") == 0);
    CHECK(scio_parallel_for(pool, 2, 50, count_item, &t, NULL, NULL) == SCIO_ECORRUPT);
    scio_pool_free(pool);
}

TEST(a_loop_stops_when_it_is_cancelled)
{
    for (size_t n_threads = 0; n_threads < 4; n_threads++) {
        scio_pool *pool = new_pool(n_threads);
        static loop_test t;
        scio_error err = SCIO_ERROR_INIT;

        memset(&t, 0, sizeof t);
        t.n_slots = n_threads + 1;
        t.cancel_at_100 = true;
        CHECK(scio_parallel_for(pool, 4, 3000, count_item, &t, &t.cancel, &err) == SCIO_ECANCEL);
        CHECK(strcmp(err.message, "cancelled") == 0);
        CHECK(atomic_load(&t.n_run) >= 101 - (int)n_threads && atomic_load(&t.n_run) < 2000);
        memset(&t.n_run, 0, sizeof t.n_run);
        CHECK(scio_parallel_for(pool, 4, 3000, count_item, &t, &t.cancel, NULL) == SCIO_ECANCEL);
        CHECK(atomic_load(&t.n_run) == 0);
        scio_pool_free(pool);
    }
}

static scio_status
loop_inside(void *context, size_t i_item, size_t slot, scio_error *err)
{
    loop_test *const t = context;
    static loop_test inner[MAX_SLOTS];

    (void)i_item;
    inner[slot].n_slots = MAX_SLOTS;
    if (scio_parallel_n_slots(t->pool, 4, 20) != 1)
        atomic_fetch_add(&t->n_bad_slots, 1);
    return scio_parallel_for(t->pool, 4, 20, count_item, &inner[slot], NULL, err);
}

TEST(a_loop_inside_a_loop_of_the_same_pool_runs_in_its_worker)
{
    static loop_test t;

    t.pool = new_pool(3);
    CHECK(scio_parallel_for(t.pool, 3, 200, loop_inside, &t, NULL, NULL) == SCIO_OK);
    CHECK(atomic_load(&t.n_bad_slots) == 0);
    scio_pool_free(t.pool);
}

static scio_status
loop_in_other_pool(void *context, size_t i_item, size_t slot, scio_error *err)
{
    loop_test *const t = context;

    (void)i_item;
    (void)slot;
    if (scio_parallel_n_slots(t->pool, 2, 20) != 2) /* parallel still: the pool is another one */
        atomic_fetch_add(&t->n_bad_slots, 1);
    return scio_parallel_for(t->pool, 2, 20, do_nothing, &t->n_run, NULL, err);
}

TEST(a_loop_inside_a_job_of_another_pool_is_parallel)
{
    static loop_test t;
    scio_pool *outer = new_pool(2);

    t.pool = new_pool(2);
    CHECK(scio_parallel_for(outer, 2, 100, loop_in_other_pool, &t, NULL, NULL) == SCIO_OK);
    CHECK(atomic_load(&t.n_bad_slots) == 0 && atomic_load(&t.n_run) == 2000);
    scio_pool_free(outer);
    scio_pool_free(t.pool);
}

static atomic_int is_resizing;

static void *
keep_resizing(void *pool)
{
    for (size_t n = 0; atomic_load(&is_resizing); n++)
        CHECK(scio_pool_resize(pool, n % 5, NULL) == SCIO_OK);
    return NULL;
}

/* Callers size their scratch by n_slots and pass it on; a resize in between must not matter. */
TEST(slots_stay_below_what_was_promised_while_the_pool_is_resized)
{
    scio_pool *pool = new_pool(4);
    pthread_t thread;

    atomic_store(&is_resizing, 1);
    CHECK(pthread_create(&thread, NULL, keep_resizing, pool) == 0);
    for (int round = 0; round < 300; round++) {
        static loop_test t;

        memset(&t, 0, sizeof t);
        t.n_slots = scio_parallel_n_slots(pool, 8, 60);
        CHECK(scio_parallel_for(pool, t.n_slots, 60, count_item, &t, NULL, NULL) == SCIO_OK);
        CHECK(atomic_load(&t.n_run) == 60 && atomic_load(&t.n_bad_slots) == 0);
    }
    atomic_store(&is_resizing, 0);
    CHECK(pthread_join(thread, NULL) == 0);
    scio_pool_free(pool);
    CHECK(live_threads() == 0);
}
