#include "base/pool.h"

#include "base/mem.h"
#include "base/stats.h"
#include "test.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HAS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define HAS_SANITIZER 1
#endif
#endif

static double
seconds(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void
sleep_ms(long ms)
{
    (void)nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

static scio_pool *
new_pool(size_t n_threads)
{
    scio_pool *pool = NULL;

    CHECK(scio_pool_new(n_threads, &pool, NULL) == SCIO_OK);
    return pool;
}

static scio_group *
new_group(scio_pool *pool, size_t max_parallel)
{
    scio_group *group = NULL;

    CHECK(scio_group_new(pool, max_parallel, &group, NULL) == SCIO_OK);
    return group;
}

static int64_t
live_threads(void)
{
    return scio_stats_get(SCIO_STAT_live_threads);
}

/* Waits, at most ten seconds, until the number of threads is what it should be. */
static bool
threads_become(int64_t n_threads)
{
    const double begin = seconds();

    while (live_threads() != n_threads && seconds() - begin < 10)
        sleep_ms(1);
    return live_threads() == n_threads;
}

/* --- a job that tells what happened to it --- */

enum { MAX_SLOTS = 64 };

typedef struct record {
    scio_group *group;
    atomic_int in_slot[MAX_SLOTS];
    atomic_int n_running, n_running_most, n_run, n_shared_slots, n_bad_slots;
    atomic_int is_held;      /* jobs wait until it is 0 */
    char order[64];          /* names of the jobs as they ran: for one slot only */
    pthread_t threads[2000]; /* who ran which */
} record;

typedef struct test_job {
    scio_job job;
    record *record;
    int sleep_us;
    char name;
} test_job;

static void
run_test_job(scio_job *job, size_t slot)
{
    test_job *const self = (test_job *)job;
    record *const r = self->record;
    const int n_running = atomic_fetch_add(&r->n_running, 1) + 1;
    int n_most = atomic_load(&r->n_running_most), n_run;

    while (n_running > n_most &&
           !atomic_compare_exchange_weak(&r->n_running_most, &n_most, n_running))
        continue;
    if (slot >= MAX_SLOTS || slot >= scio_group_n_slots(r->group))
        atomic_fetch_add(&r->n_bad_slots, 1);
    else if (atomic_fetch_add(&r->in_slot[slot], 1) != 0)
        atomic_fetch_add(&r->n_shared_slots, 1);
    while (atomic_load(&r->is_held))
        sleep_ms(1);
    if (self->sleep_us > 0)
        (void)nanosleep(&(struct timespec){0, self->sleep_us * 1000L}, NULL);
    if (slot < MAX_SLOTS)
        atomic_fetch_sub(&r->in_slot[slot], 1);
    atomic_fetch_sub(&r->n_running, 1);
    n_run = atomic_fetch_add(&r->n_run, 1);
    if (self->name != 0 && n_run < 60)
        r->order[n_run] = self->name;
    if (n_run < 2000)
        r->threads[n_run] = pthread_self();
}

static void
submit(test_job *job, record *r, char name, scio_priority priority)
{
    job->job.run = run_test_job;
    job->record = r;
    job->name = name;
    scio_group_submit(r->group, &job->job, priority);
}

static void
check_record(record *r, int n_run)
{
    CHECK(atomic_load(&r->n_run) == n_run);
    CHECK(atomic_load(&r->n_shared_slots) == 0);
    CHECK(atomic_load(&r->n_bad_slots) == 0);
    CHECK(atomic_load(&r->n_running) == 0);
}

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

TEST(groups_take_turns)
{
    static test_job long_jobs[20], short_jobs[2];
    static record r, other;
    scio_pool *pool = new_pool(1);
    static const char names[] = "aaaaaaaaaaaaaaaaaaaa";

    r.group = new_group(pool, 1);
    other.group = new_group(pool, 1);
    atomic_store(&r.is_held, 1);
    for (int i = 0; i < 20; i++)
        submit(&long_jobs[i], &r, names[i], SCIO_PRIORITY_HIGH);
    /* these two write into the order of the first group */
    for (int i = 0; i < 2; i++) {
        submit(&short_jobs[i], &other, 0, SCIO_PRIORITY_LOW);
    }
    atomic_store(&r.is_held, 0);
    scio_group_wait(other.group);
    /* the second of two has run after at most three of twenty, plus what ran while we woke up */
    CHECK(atomic_load(&other.n_run) == 2);
    scio_group_wait(r.group);
    check_record(&r, 20);
    scio_group_free(r.group);
    scio_group_free(other.group);
    scio_pool_free(pool);
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

static void *
wait_for_group(void *group)
{
    scio_group_wait(group);
    return NULL;
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

/* --- resizing --- */

TEST(a_pool_grows_at_once_and_shrinks_when_threads_fall_idle)
{
    static test_job jobs[8];
    static record r;
    scio_pool *pool = new_pool(1);
    scio_error err = SCIO_ERROR_INIT;

    r.group = new_group(pool, 8);
    CHECK(scio_group_n_slots(r.group) == 1);
    submit(&jobs[0], &r, 0, SCIO_PRIORITY_LOW);
    scio_group_wait(r.group);
    CHECK(live_threads() == 1);
    CHECK(scio_pool_resize(pool, 5, NULL) == SCIO_OK);
    CHECK(live_threads() == 5 && scio_pool_n_threads(pool) == 5);
    CHECK(scio_group_n_slots(r.group) == 1); /* as it was made */
    CHECK(scio_pool_resize(pool, 2, NULL) == SCIO_OK);
    CHECK(threads_become(2));
    CHECK(scio_pool_resize(pool, 3, NULL) == SCIO_OK); /* reuses the places of those that left */
    CHECK(live_threads() == 3);
    CHECK(scio_pool_resize(pool, 1025, &err) == SCIO_EINVAL);
    CHECK_STR(err.message, "1025 threads; the range is 0 to 1024");
    CHECK(scio_pool_n_threads(pool) == 3);
    scio_group_free(r.group);
    scio_pool_free(pool);
    CHECK(live_threads() == 0);
}

TEST(jobs_left_by_a_pool_that_shrank_to_nothing_run_in_the_caller)
{
    static test_job jobs[12];
    static record r;
    scio_pool *pool = new_pool(2);

    r.group = new_group(pool, 2);
    atomic_store(&r.is_held, 1);
    for (int i = 0; i < 10; i++)
        submit(&jobs[i], &r, 0, SCIO_PRIORITY_LOW);
    while (atomic_load(&r.n_running) < 2)
        sleep_ms(1);
    CHECK(scio_pool_resize(pool, 0, NULL) == SCIO_OK);
    CHECK(!scio_group_is_inline(r.group)); /* two workers are at work still */
    atomic_store(&r.is_held, 0);
    CHECK(threads_become(0));
    CHECK(scio_group_is_inline(r.group));
    CHECK(atomic_load(&r.n_run) == 2);
    CHECK(scio_group_help(r.group));
    scio_group_wait(r.group);
    check_record(&r, 10);
    for (int i = 2; i < 10; i++)
        CHECK(pthread_equal(r.threads[i], pthread_self()));
    submit(&jobs[10], &r, 0, SCIO_PRIORITY_LOW);
    CHECK(live_threads() == 0);
    /* and a pool that comes back finds what is queued */
    CHECK(scio_pool_resize(pool, 1, NULL) == SCIO_OK);
    CHECK(live_threads() == 1 && !scio_group_is_inline(r.group));
    scio_group_wait(r.group);
    check_record(&r, 11);
    CHECK(!pthread_equal(r.threads[10], pthread_self()));
    scio_group_free(r.group);
    scio_pool_free(pool);
}

TEST(who_waits_already_takes_over_when_the_last_worker_leaves)
{
    static test_job jobs[50];
    static record r;
    scio_pool *pool = new_pool(2);
    pthread_t thread;

    r.group = new_group(pool, 2);
    for (int i = 0; i < 50; i++) {
        jobs[i].sleep_us = 1000;
        submit(&jobs[i], &r, 0, SCIO_PRIORITY_LOW);
    }
    CHECK(pthread_create(&thread, NULL, wait_for_group, r.group) == 0);
    sleep_ms(5);
    CHECK(scio_pool_resize(pool, 0, NULL) == SCIO_OK);
    CHECK(pthread_join(thread, NULL) == 0);
    check_record(&r, 50);
    scio_group_free(r.group);
    scio_pool_free(pool);
}

TEST(groups_come_and_go_while_the_pool_is_resized_and_jobs_are_cancelled)
{
    static const size_t sizes[] = {3, 0, 1, 4, 0, 2};
    scio_pool *pool = new_pool(2);

    for (int round = 0; round < 120; round++) {
        static test_job jobs[3][12];
        static record records[3];
        size_t n_cancelled[3] = {0};

        memset(records, 0, sizeof records);
        for (size_t g = 0; g < 3; g++) {
            records[g].group = new_group(pool, g + 1);
            for (int i = 0; i < 12; i++)
                submit(&jobs[g][i], &records[g], 0, SCIO_PRIORITY_LOW);
        }
        CHECK(scio_pool_resize(pool, sizes[(size_t)round % 6], NULL) == SCIO_OK);
        n_cancelled[round % 3] = scio_group_cancel(records[round % 3].group);
        for (size_t g = 0; g < 3; g++) {
            scio_group_wait(records[g].group);
            check_record(&records[g], 12 - (int)n_cancelled[g]);
            scio_group_free(records[g].group);
        }
    }
    scio_pool_free(pool);
    CHECK(live_threads() == 0);
}

/* --- what the system sees --- */

static void
run_look_at_thread(scio_job *job, size_t slot)
{
    sigset_t mask;
    char name[16] = "";

    (void)job;
    (void)slot;
    CHECK(pthread_sigmask(SIG_SETMASK, NULL, &mask) == 0);
    CHECK(sigismember(&mask, SIGINT) == 1 && sigismember(&mask, SIGTERM) == 1);
    CHECK(sigismember(&mask, SIGCHLD) == 1 && sigismember(&mask, SIGALRM) == 1);
    CHECK(sigismember(&mask, SIGSEGV) == 0);
#ifdef __linux__
    CHECK(pthread_getname_np(pthread_self(), name, sizeof name) == 0);
    CHECK(strcmp(name, "scio-0") == 0);
#endif
}

TEST(workers_have_names_and_leave_signals_to_others)
{
    scio_job job = {run_look_at_thread, NULL};
    scio_pool *pool = new_pool(1);
    scio_group *group = new_group(pool, 1);
    sigset_t mask;

    scio_group_submit(group, &job, SCIO_PRIORITY_LOW);
    scio_group_wait(group);
    CHECK(pthread_sigmask(SIG_SETMASK, NULL, &mask) == 0);
    CHECK(sigismember(&mask, SIGINT) == 0); /* ours is as it was */
    scio_group_free(group);
    scio_pool_free(pool);
}

/* Exit code of a child that runs the function; -1 when it hung (20 s) or died. */
static int
in_child(int (*fn)(void))
{
    const double begin = seconds();
    const pid_t child = fork();
    int how = 0;
    pid_t ended;

    if (child == 0)
        _exit(fn());
    CHECK(child > 0);
    while ((ended = waitpid(child, &how, WNOHANG)) == 0 && seconds() - begin < 20)
        sleep_ms(2);
    if (ended != child) {
        (void)kill(child, SIGKILL);
        (void)waitpid(child, &how, 0);
        return -1;
    }
    return WIFEXITED(how) ? WEXITSTATUS(how) : -1;
}

#ifndef HAS_SANITIZER
static int
work_without_threads(void)
{
    static test_job jobs[5];
    static record r;
    const struct rlimit none = {1 << 20, 1 << 20}; /* no room for a stack */
    scio_pool *pool = new_pool(4);

    r.group = new_group(pool, 4);
    if (setrlimit(RLIMIT_AS, &none) != 0)
        return 2;
    for (int i = 0; i < 5; i++)
        submit(&jobs[i], &r, 0, SCIO_PRIORITY_LOW);
    if (live_threads() != 0 || !scio_group_is_inline(r.group))
        return 3;
    scio_group_wait(r.group);
    scio_group_free(r.group);
    scio_pool_free(pool);
    return atomic_load(&r.n_run) == 5 ? 0 : 4;
}

TEST(jobs_run_in_the_caller_when_the_system_gives_no_threads)
{
    CHECK(in_child(work_without_threads) == 0);
}
#endif

/* --- allocation failures --- */

static scio_status
do_nothing(void *context, size_t i_item, size_t slot, scio_error *err)
{
    (void)i_item;
    (void)slot;
    (void)err;
    if (context != NULL)
        atomic_fetch_add((atomic_int *)context, 1);
    return SCIO_OK;
}

TEST(every_failed_allocation_leaves_the_pool_as_it_was)
{
    scio_pool *pool = new_pool(2);

    for (int what = 0; what < 4; what++) {
        scio_status status;
        size_t k = 0;

        do {
            scio_pool *other = NULL;
            scio_group *group = NULL;
            atomic_int n_run = 0;

            scio_mem_fail_at(k++);
            if (what == 0)
                status = scio_pool_new(3, &other, NULL);
            else if (what == 1)
                status = scio_group_new(pool, 2, &group, NULL);
            else if (what == 2)
                status = scio_parallel_for(pool, 2, 10, do_nothing, &n_run, NULL, NULL);
            else
                status = scio_pool_resize(pool, 6, NULL);
            scio_mem_fail_at(SIZE_MAX);
            CHECK(status == SCIO_OK || status == SCIO_ENOMEM);
            CHECK(status == SCIO_OK || (other == NULL && group == NULL && n_run == 0));
            CHECK(scio_pool_n_threads(pool) == (what == 3 && status == SCIO_OK ? 6 : 2));
            scio_group_free(group);
            scio_pool_free(other);
        } while (status != SCIO_OK && k < 100);
        CHECK(status == SCIO_OK && k > 1);
    }
    CHECK(scio_parallel_for(pool, 6, 10, do_nothing, NULL, NULL, NULL) == SCIO_OK);
    scio_pool_free(pool);
    CHECK(live_threads() == 0);
}

/* --- the shared pool and forks --- */

static const char *threads_text;
static size_t threads_expected;

/* In a fresh child: the shared pool has the threads that SCIO_THREADS asks for, or is refused. */
static int
check_shared_threads(void)
{
    scio_error err = SCIO_ERROR_INIT;
    scio_pool *pool = NULL, *again = NULL;

    if (threads_text != NULL)
        setenv("SCIO_THREADS", threads_text, 1);
    else
        unsetenv("SCIO_THREADS");
    if (threads_expected == SIZE_MAX)
        return scio_pool_shared(&pool, &err) == SCIO_EINVAL && pool == NULL &&
                       strstr(err.message, threads_text) != NULL &&
                       strstr(err.message, "0 to 1024") != NULL
                   ? 0
                   : 1;
    if (scio_pool_shared(&pool, &err) != SCIO_OK || scio_pool_shared(&again, NULL) != SCIO_OK)
        return 2;
    if (pool != again)
        return 3;
    return threads_expected == 0 || scio_pool_n_threads(pool) == threads_expected - 1 ? 0 : 4;
}

TEST(the_shared_pool_has_the_threads_that_the_variable_asks_for)
{
    static const struct {
        const char *text;
        size_t n_threads; /* plus one; 0 = any */
    } cases[] = {{NULL, 0},
                 {"", 0},
                 {"0", 1},
                 {"3", 4},
                 {"1024", 1025},
                 {"1025", SIZE_MAX},
                 {"many", SIZE_MAX},
                 {"-1", SIZE_MAX},
                 {"4x", SIZE_MAX},
                 {" 4", SIZE_MAX},
                 {"99999999999999999999", SIZE_MAX}};

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        threads_text = cases[i].text;
        threads_expected = cases[i].n_threads;
        CHECK(in_child(check_shared_threads) == 0);
    }
}

static scio_pool *parent_pool;
static scio_group *parent_group;

/* With what the parent had: no hang, no crash.  With the shared pool: work as usual. */
static int
work_after_fork(void)
{
    static test_job job;
    record r = {.group = parent_group};
    scio_group *group = NULL;
    scio_pool *shared = NULL;
    atomic_int n_run = 0;
    bool is_fine = live_threads() == 0;

    submit(&job, &r, 0, SCIO_PRIORITY_LOW);
    scio_group_wait(parent_group);
    is_fine &= scio_group_wait_ms(parent_group, 1000);
    is_fine &= !scio_group_help(parent_group) && scio_group_cancel(parent_group) == 0;
    is_fine &= scio_group_is_inline(parent_group);
    is_fine &= scio_group_new(parent_pool, 2, &group, NULL) == SCIO_EINVAL && group == NULL;
    is_fine &= scio_pool_resize(parent_pool, 7, NULL) == SCIO_EINVAL;
    is_fine &= scio_parallel_n_slots(parent_pool, 4, 100) == 1;
    is_fine &= scio_parallel_for(parent_pool, 4, 50, do_nothing, &n_run, NULL, NULL) == SCIO_OK;
    is_fine &= n_run == 50;
    scio_group_free(parent_group);
    scio_pool_free(parent_pool);
    if (scio_pool_shared(&shared, NULL) != SCIO_OK)
        return 2;
    is_fine &= scio_parallel_for(shared, 4, 50, do_nothing, &n_run, NULL, NULL) == SCIO_OK;
    is_fine &= scio_parallel_for(NULL, 4, 50, do_nothing, &n_run, NULL, NULL) == SCIO_OK;
    is_fine &= n_run == 150;
    is_fine &= live_threads() == (int64_t)scio_pool_n_threads(shared);
    return is_fine ? 0 : 1;
}

static atomic_int is_busy;

/* Keeps the mutexes of both pools hot, so that a fork finds them locked now and then. */
static void *
keep_busy(void *argument)
{
    scio_pool *shared;

    (void)argument;
    while (atomic_load(&is_busy)) {
        CHECK(scio_pool_shared(&shared, NULL) == SCIO_OK);
        CHECK(scio_parallel_for(shared, 3, 5, do_nothing, NULL, NULL, NULL) == SCIO_OK);
        CHECK(scio_parallel_for(parent_pool, 2, 5, do_nothing, NULL, NULL, NULL) == SCIO_OK);
    }
    return NULL;
}

TEST(a_child_forked_in_the_middle_of_work_has_pools_of_its_own)
{
    static test_job jobs[4];
    static record r;
    scio_pool *shared = NULL;
    pthread_t thread;

    CHECK(scio_pool_shared(&shared, NULL) == SCIO_OK);
    CHECK(scio_pool_resize(shared, 3, NULL) == SCIO_OK);
    parent_pool = new_pool(2);
    r.group = parent_group = new_group(parent_pool, 1);
    atomic_store(&r.is_held, 1);
    for (int i = 0; i < 4; i++)
        submit(&jobs[i], &r, 0,
               SCIO_PRIORITY_LOW); /* one runs, three are queued, in the child too */
    while (atomic_load(&r.n_running) == 0)
        sleep_ms(1);
    atomic_store(&is_busy, 1);
    CHECK(pthread_create(&thread, NULL, keep_busy, NULL) == 0);
    for (int i = 0; i < 25; i++)
        CHECK(in_child(work_after_fork) == 0);
    atomic_store(&is_busy, 0);
    CHECK(pthread_join(thread, NULL) == 0);
    atomic_store(&r.is_held, 0);
    scio_group_wait(r.group); /* the parent's goes on as if nothing had been */
    check_record(&r, 4);
    scio_group_free(r.group);
    scio_pool_free(parent_pool);
    CHECK(scio_pool_resize(shared, 0, NULL) == SCIO_OK);
    CHECK(threads_become(0));
}

/* --- loops --- */

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

TEST(many_callers_loop_in_one_pool_at_once)
{
    pthread_t threads[4];

    parent_pool = new_pool(2);
    CHECK(scio_pool_shared(&(scio_pool *){NULL}, NULL) == SCIO_OK);
    atomic_store(&is_busy, 1);
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, keep_busy, NULL) == 0);
    sleep_ms(300);
    atomic_store(&is_busy, 0);
    for (int i = 0; i < 4; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    scio_pool_free(parent_pool);
}
