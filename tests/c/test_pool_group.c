#include "base/mem.h"
#include "pool_testing.h"

/* --- groups served by workers --- */

TEST(every_job_runs_once_in_a_slot_of_its_own)
{
    enum { N_JOBS = 600 };
    static test_job jobs[N_JOBS];
    static record r;
    scio_pool *pool = new_pool(4);

    CHECK(live_threads() == 0); /* none before the first job */
    r.group = new_group(pool, 3);
    CHECK(scio_group_n_slots(r.group) == 3 && !scio_group_is_inline(r.group));
    for (int i = 0; i < N_JOBS; i++) {
        jobs[i].sleep_us = i % 50 == 0 ? 1000 : 0;
        submit(&jobs[i], &r, 0, i % 3 == 0 ? SCIO_PRIORITY_HIGH : SCIO_PRIORITY_LOW);
    }
    CHECK(live_threads() == 4);
    scio_group_wait(r.group);
    check_record(&r, N_JOBS);
    CHECK(atomic_load(&r.n_running_most) <= 3);
    scio_group_free(r.group);
    scio_pool_free(pool);
    CHECK(live_threads() == 0);
}

TEST(a_group_uses_as_many_slots_as_it_may)
{
    static test_job jobs[3];
    static record r;
    scio_pool *pool = new_pool(4);
    const double begin = seconds();

    r.group = new_group(pool, SIZE_MAX);
    CHECK(scio_group_n_slots(r.group) == 4);
    atomic_store(&r.is_held, 1);
    for (int i = 0; i < 3; i++)
        submit(&jobs[i], &r, 0, SCIO_PRIORITY_LOW);
    while (atomic_load(&r.n_running) < 3 && seconds() - begin < 10)
        sleep_ms(1);
    CHECK(atomic_load(&r.n_running) == 3); /* all at once: no wake-up was lost */
    CHECK(!scio_group_wait_ms(r.group, 20));
    atomic_store(&r.is_held, 0);
    CHECK(scio_group_wait_ms(r.group, 10000));
    check_record(&r, 3);
    scio_group_free(r.group);
    scio_pool_free(pool);
}

/* One thread, so that the order is the pool's: the first job is held until all are queued. */
TEST(high_goes_before_low_and_first_in_is_first_out)
{
    static test_job jobs[7];
    static record r;
    scio_pool *pool = new_pool(1);

    r.group = new_group(pool, 1);
    atomic_store(&r.is_held, 1);
    submit(&jobs[0], &r, '-', SCIO_PRIORITY_LOW);
    while (atomic_load(&r.n_running) == 0)
        sleep_ms(1);
    submit(&jobs[1], &r, 'd', SCIO_PRIORITY_LOW);
    submit(&jobs[2], &r, 'a', SCIO_PRIORITY_HIGH);
    submit(&jobs[3], &r, 'e', SCIO_PRIORITY_LOW);
    submit(&jobs[4], &r, 'b', SCIO_PRIORITY_HIGH);
    submit(&jobs[5], &r, 'c', SCIO_PRIORITY_HIGH);
    submit(&jobs[6], &r, 'f', SCIO_PRIORITY_LOW);
    atomic_store(&r.is_held, 0);
    scio_group_wait(r.group);
    CHECK(strcmp(r.order, "-abcdef") == 0);
    scio_group_free(r.group);
    scio_pool_free(pool);
}

/* All jobs note their names in one record, run by one worker; the first is held until all are
 * queued. With two slots the first group waits in line, with one it comes back when its job has
 * run. */
TEST(groups_take_turns)
{
    static const char *const orders[] = {"abababaaaaaaa", "aabababaaaaaa"};

    for (size_t n_slots = 1; n_slots <= 2; n_slots++) {
        static test_job jobs[10], other_jobs[3];
        scio_pool *pool = new_pool(n_slots);
        scio_group *other = new_group(pool, n_slots);
        record r = {.group = new_group(pool, n_slots), .is_held = 1};

        CHECK(scio_pool_resize(pool, 1, NULL) == SCIO_OK);
        for (int i = 0; i < 10; i++)
            submit(&jobs[i], &r, 'a', SCIO_PRIORITY_HIGH);
        while (atomic_load(&r.n_running) == 0)
            sleep_ms(1);
        for (int i = 0; i < 3; i++) { /* priorities count within a group only */
            other_jobs[i] = (test_job){{run_test_job, NULL}, &r, 0, 'b'};
            scio_group_submit(other, &other_jobs[i].job, SCIO_PRIORITY_LOW);
        }
        atomic_store(&r.is_held, 0);
        scio_group_wait(other);
        scio_group_wait(r.group);
        CHECK(strcmp(r.order, orders[n_slots - 1]) == 0);
        scio_group_free(r.group);
        scio_group_free(other);
        scio_pool_free(pool);
    }
}

TEST(cancel_drops_what_is_queued_and_lets_run_what_runs)
{
    static test_job jobs[10];
    static record r;
    scio_pool *pool = new_pool(2);

    r.group = new_group(pool, 2);
    atomic_store(&r.is_held, 1);
    for (int i = 0; i < 10; i++)
        submit(&jobs[i], &r, 0, SCIO_PRIORITY_LOW);
    while (atomic_load(&r.n_running) < 2)
        sleep_ms(1);
    CHECK(scio_group_cancel(r.group) == 8);
    CHECK(scio_group_cancel(r.group) == 0);
    CHECK(!scio_group_wait_ms(r.group, 5));
    atomic_store(&r.is_held, 0);
    scio_group_wait(r.group);
    check_record(&r, 2);
    submit(&jobs[5], &r, 0, SCIO_PRIORITY_LOW); /* the group is as good as new */
    scio_group_wait(r.group);
    check_record(&r, 3);
    scio_group_free(r.group);
    scio_pool_free(pool);
}

TEST(free_cancels_and_waits_for_what_runs)
{
    static test_job jobs[40];
    static record r;
    scio_pool *pool = new_pool(2);

    r.group = new_group(pool, 2);
    for (int i = 0; i < 40; i++) {
        jobs[i].sleep_us = 2000;
        submit(&jobs[i], &r, 0, SCIO_PRIORITY_LOW);
    }
    sleep_ms(5);
    scio_group_free(r.group);
    CHECK(atomic_load(&r.n_running) == 0);
    CHECK(atomic_load(&r.n_run) < 40);
    scio_group_free(NULL);
    scio_pool_free(pool);
    scio_pool_free(NULL);
}

/* --- inline groups --- */

TEST(an_inline_group_runs_in_the_thread_that_waits_or_helps)
{
    for (int i = 0; i < 2; i++) {
        scio_pool *pool = new_pool(i == 0 ? 0 : 2);
        static test_job jobs[6];
        record r = {.group = new_group(pool, i == 0 ? 8 : 0)};

        CHECK(scio_group_is_inline(r.group) && scio_group_n_slots(r.group) == 1);
        CHECK(!scio_group_help(r.group));
        for (int k = 0; k < 3; k++)
            submit(&jobs[k], &r, (char)('a' + k), SCIO_PRIORITY_LOW);
        submit(&jobs[3], &r, 'x', SCIO_PRIORITY_HIGH);
        CHECK(live_threads() == 0 && atomic_load(&r.n_run) == 0);
        CHECK(scio_group_help(r.group));
        CHECK(strcmp(r.order, "x") == 0);
        CHECK(scio_group_cancel(r.group) == 3);
        CHECK(!scio_group_help(r.group));
        submit(&jobs[4], &r, 'y', SCIO_PRIORITY_LOW);
        submit(&jobs[5], &r, 'z', SCIO_PRIORITY_LOW);
        scio_group_wait(r.group);
        CHECK(strcmp(r.order, "xyz") == 0);
        for (int k = 0; k < 3; k++)
            CHECK(pthread_equal(r.threads[k], pthread_self()));
        scio_group_free(r.group);
        scio_pool_free(pool);
    }
}

TEST(an_inline_wait_with_a_limit_runs_jobs_until_the_time_is_over)
{
    static test_job jobs[5];
    scio_pool *pool = new_pool(0);
    record r = {.group = new_group(pool, 1)};

    CHECK(scio_group_wait_ms(r.group, 0)); /* idle */
    for (int i = 0; i < 5; i++) {
        jobs[i].sleep_us = 30000;
        submit(&jobs[i], &r, 0, SCIO_PRIORITY_LOW);
    }
    CHECK(!scio_group_wait_ms(r.group, 45));
    CHECK(atomic_load(&r.n_run) >= 1 && atomic_load(&r.n_run) <= 2);
    CHECK(!scio_group_wait_ms(r.group, 0)); /* goes on by one, so that polling comes to an end */
    CHECK(atomic_load(&r.n_run) <= 3);
    CHECK(scio_group_wait_ms(r.group, 10000));
    check_record(&r, 5);
    scio_group_free(r.group);
    scio_pool_free(pool);
}

TEST(several_threads_wait_for_one_inline_group_that_another_fills)
{
    static test_job jobs[300];
    static record r;
    scio_pool *pool = new_pool(0);
    pthread_t threads[3];

    r.group = new_group(pool, 1);
    for (int i = 0; i < 300; i++) {
        submit(&jobs[i], &r, 0, SCIO_PRIORITY_LOW);
        if (i % 100 == 0)
            CHECK(pthread_create(&threads[i / 100], NULL, wait_for_group, r.group) == 0);
    }
    for (int i = 0; i < 3; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    scio_group_wait(r.group); /* in case they found it idle between two jobs */
    check_record(&r, 300);
    scio_group_free(r.group);
    scio_pool_free(pool);
}

/* --- jobs with a life of their own --- */

typedef struct chain_job {
    scio_job job;
    scio_group *group;
    atomic_int *n_left;
    bool is_freed_by_itself;
} chain_job;

static void
run_chain_job(scio_job *job, size_t slot)
{
    chain_job *const self = (chain_job *)job;

    (void)slot;
    if (atomic_fetch_sub(self->n_left, 1) > 1)
        scio_group_submit(self->group, job, SCIO_PRIORITY_LOW);
    else if (self->is_freed_by_itself)
        scio_mem_free(self);
}

TEST(a_job_may_queue_itself_again_and_free_itself_at_last)
{
    for (size_t n_threads = 0; n_threads < 3; n_threads++) {
        scio_pool *pool = new_pool(n_threads);
        scio_group *group = new_group(pool, 2);
        atomic_int n_left = 500;
        chain_job *job = NULL;

        CHECK(scio_mem_zalloc(1, sizeof *job, &job, NULL) == SCIO_OK);
        *job = (chain_job){{run_chain_job, NULL}, group, &n_left, true};
        scio_group_submit(group, &job->job, SCIO_PRIORITY_LOW);
        scio_group_wait(group);
        CHECK(atomic_load(&n_left) == 0);
        scio_group_free(group);
        scio_pool_free(pool);
    }
}

typedef struct nest_job {
    scio_job job;
    scio_pool *pool;
    int depth;
    atomic_int *n_run;
} nest_job;

/* Waits in a worker for a group of the same pool, several levels deep. */
static void
run_nest_job(scio_job *job, size_t slot)
{
    nest_job *const self = (nest_job *)job;

    (void)slot;
    atomic_fetch_add(self->n_run, 1);
    if (self->depth > 0) {
        scio_group *group = new_group(self->pool, 2);
        nest_job children[3];

        for (int i = 0; i < 3; i++) {
            children[i] =
                (nest_job){{run_nest_job, NULL}, self->pool, self->depth - 1, self->n_run};
            scio_group_submit(group, &children[i].job, SCIO_PRIORITY_LOW);
        }
        scio_group_wait(group);
        scio_group_free(group);
    }
}

TEST(workers_that_wait_for_groups_of_their_own_pool_do_not_starve)
{
    for (size_t n_threads = 1; n_threads < 4; n_threads++) {
        scio_pool *pool = new_pool(n_threads);
        scio_group *group = new_group(pool, n_threads);
        atomic_int n_run = 0;
        nest_job jobs[8];

        for (int i = 0; i < 8; i++) {
            jobs[i] = (nest_job){{run_nest_job, NULL}, pool, 3, &n_run};
            scio_group_submit(group, &jobs[i].job, SCIO_PRIORITY_LOW);
        }
        scio_group_wait(group);
        CHECK(atomic_load(&n_run) == 8 * (1 + 3 + 9 + 27));
        scio_group_free(group);
        scio_pool_free(pool);
    }
}

typedef struct stuck_job {
    scio_job job;
    atomic_int *n_inside, *is_held;
} stuck_job;

static void
run_stuck_job(scio_job *job, size_t slot)
{
    stuck_job *const self = (stuck_job *)job;

    (void)slot;
    atomic_fetch_add(self->n_inside, 1);
    while (atomic_load(self->is_held) != 0)
        sleep_ms(1);
    atomic_fetch_sub(self->n_inside, 1);
}

/* The pool works on with as many threads as before, and has no more when the jobs have ended. */
TEST(workers_of_an_abandoned_group_are_replaced)
{
    for (size_t n_threads = 1; n_threads < 4; n_threads++) {
        const int64_t n_before = live_threads();
        scio_pool *pool = new_pool(n_threads);
        scio_group *stuck = new_group(pool, n_threads), *other;
        atomic_int n_inside = 0, is_held = 1, n_run = 0;
        stuck_job jobs[6];
        nest_job more[8];

        for (int i = 0; i < 6; i++) {
            jobs[i] = (stuck_job){{run_stuck_job, NULL}, &n_inside, &is_held};
            scio_group_submit(stuck, &jobs[i].job, SCIO_PRIORITY_LOW);
        }
        while (atomic_load(&n_inside) < (int)n_threads)
            sleep_ms(1);
        CHECK(!scio_group_wait_ms(stuck, 1));
        scio_group_abandon(stuck);
        scio_group_abandon(stuck); /* counted once */
        CHECK(scio_pool_n_threads(pool) == n_threads);
        CHECK(live_threads() == n_before + 2 * (int64_t)n_threads);
        other = new_group(pool, n_threads);
        for (int i = 0; i < 8; i++) {
            more[i] = (nest_job){{run_nest_job, NULL}, pool, 1, &n_run};
            scio_group_submit(other, &more[i].job, SCIO_PRIORITY_LOW);
        }
        scio_group_wait(other);
        CHECK(atomic_load(&n_run) == 8 * 4);
        CHECK(scio_pool_resize(pool, n_threads + 1, NULL) == SCIO_OK);
        CHECK(live_threads() == n_before + 2 * (int64_t)n_threads + 1);
        atomic_store(&is_held, 0);
        CHECK(scio_group_wait_ms(stuck, 10000));
        CHECK(atomic_load(&n_inside) == 0);
        scio_group_free(stuck);
        CHECK(threads_become(n_before + (int64_t)n_threads + 1));
        scio_group_free(other);
        scio_pool_free(pool);
        CHECK(live_threads() == n_before);
    }
}
