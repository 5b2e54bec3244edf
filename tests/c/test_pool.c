#include "base/pool.h"

#include "base/mem.h"
#include "pool_testing.h"

#include <sys/resource.h>

/* ThreadSanitizer ends a child that starts threads, unless told; it asks this function, which must
 * be visible. */
#pragma GCC visibility push(default)
const char *__tsan_default_options(void);
#pragma GCC visibility pop

const char *
__tsan_default_options(void)
{
    return "die_after_fork=0";
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

/* Nobody's limit of one process leaves no room for a thread beside it; root has no limit. */
static int
work_without_threads(void)
{
    static test_job jobs[5];
    static record r;
    const struct rlimit one = {1, 1};
    scio_pool *pool = new_pool(4);

    r.group = new_group(pool, 4);
    if (setrlimit(RLIMIT_NPROC, &one) != 0 || (geteuid() == 0 && setuid(65534) != 0))
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

/* --- allocation failures --- */

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
