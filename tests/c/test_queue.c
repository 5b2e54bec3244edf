#include "base/queue.h"

#include "base/mem.h"
#include "test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

static double
seconds(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static scio_queue *
new_queue(size_t capacity)
{
    scio_queue *queue = NULL;

    CHECK(scio_queue_new(capacity, &queue, NULL) == SCIO_OK);
    return queue;
}

TEST(items_put_in_any_order_are_taken_in_order)
{
    static const uint64_t order[] = {2, 0, 3, 1};
    int items[4] = {10, 11, 12, 13};
    scio_queue *queue = new_queue(4);
    void *item = NULL;

    for (size_t i = 0; i < 4; i++) {
        CHECK(scio_queue_put(queue, order[i], &items[order[i]], NULL) == SCIO_OK);
        if (i == 0) {
            CHECK(scio_queue_take(queue, 0, &item) == SCIO_TAKE_TIMEOUT);
            CHECK(item == NULL);
        }
    }
    for (int i = 0; i < 4; i++) {
        CHECK(scio_queue_take(queue, 0, &item) == SCIO_TAKE_ITEM);
        CHECK(item == &items[i]);
    }
    CHECK(scio_queue_take(queue, 0, &item) == SCIO_TAKE_TIMEOUT);
    scio_queue_free(queue, NULL);
}

TEST(null_is_an_item_like_any_other)
{
    scio_queue *queue = new_queue(1);
    int here;
    void *item = &here;

    CHECK(scio_queue_put(queue, 0, NULL, NULL) == SCIO_OK);
    CHECK(scio_queue_put(queue, 0, NULL, NULL) == SCIO_EBUG); /* the place is filled all the same */
    CHECK(scio_queue_take(queue, 0, &item) == SCIO_TAKE_ITEM);
    CHECK(item == NULL);
    scio_queue_free(queue, NULL);
}

TEST(the_window_moves_with_what_is_taken)
{
    scio_queue *queue = new_queue(2);
    scio_error err = SCIO_ERROR_INIT;
    int item = 0;
    void *taken;

    CHECK(scio_queue_has_room(queue, 0) && scio_queue_has_room(queue, 1));
    CHECK(!scio_queue_has_room(queue, 2) && !scio_queue_has_room(queue, UINT64_MAX));
    CHECK(scio_queue_put(queue, 2, &item, &err) == SCIO_EBUG);
    CHECK_STR(err.message, "item 2 put into a queue that holds 2 from 0 on");
    CHECK(scio_queue_put(queue, 1, &item, NULL) == SCIO_OK);
    CHECK(scio_queue_put(queue, 1, &item, NULL) == SCIO_EBUG);
    CHECK(scio_queue_put(queue, 0, &item, NULL) == SCIO_OK);
    CHECK(scio_queue_take(queue, 0, &taken) == SCIO_TAKE_ITEM);
    CHECK(scio_queue_has_room(queue, 2) && !scio_queue_has_room(queue, 0));
    CHECK(scio_queue_put(queue, 0, &item, NULL) == SCIO_EBUG);
    CHECK(scio_queue_put(queue, 2, &item, NULL) == SCIO_OK);
    scio_queue_free(queue, NULL);
}

TEST(the_end_comes_after_the_last_item)
{
    scio_queue *queue = new_queue(4);
    int item = 0;
    void *taken;

    CHECK(scio_queue_put(queue, 0, &item, NULL) == SCIO_OK);
    scio_queue_set_end(queue, 1);
    CHECK(scio_queue_take(queue, 0, &taken) == SCIO_TAKE_ITEM);
    CHECK(scio_queue_take(queue, 1000, &taken) == SCIO_TAKE_END);
    CHECK(scio_queue_take(queue, 1000, &taken) == SCIO_TAKE_END);
    scio_queue_free(queue, NULL);
}

TEST(a_cancelled_queue_gives_and_takes_nothing)
{
    scio_queue *queue = new_queue(4);
    int item = 0;
    void *taken;

    CHECK(scio_queue_put(queue, 0, &item, NULL) == SCIO_OK);
    scio_queue_cancel(queue);
    CHECK(scio_queue_take(queue, 1000, &taken) == SCIO_TAKE_CANCELLED);
    CHECK(scio_queue_put(queue, 1, &item, NULL) == SCIO_ECANCEL);
    scio_queue_free(queue, NULL);
}

static size_t n_dropped;

static void
drop(void *item)
{
    CHECK(item != NULL);
    n_dropped++;
}

TEST(what_is_still_inside_is_dropped_at_the_end)
{
    scio_queue *queue = new_queue(8);
    int item = 0;
    void *taken;

    for (uint64_t seq = 0; seq < 5; seq++)
        CHECK(scio_queue_put(queue, seq, &item, NULL) == SCIO_OK);
    CHECK(scio_queue_take(queue, 0, &taken) == SCIO_TAKE_ITEM);
    scio_queue_cancel(queue);
    n_dropped = 0;
    scio_queue_free(queue, drop);
    CHECK(n_dropped == 4);
    scio_queue_free(NULL, drop);
    CHECK(n_dropped == 4);
}

TEST(a_queue_of_no_places_is_refused)
{
    scio_queue *queue = NULL;
    scio_error err = SCIO_ERROR_INIT;

    CHECK(scio_queue_new(0, &queue, &err) == SCIO_EINVAL && queue == NULL);
    CHECK(scio_queue_new(SIZE_MAX / 4, &queue, NULL) == SCIO_ENOMEM && queue == NULL);
}

TEST(making_a_queue_fails_cleanly_at_every_allocation)
{
    scio_status status;
    size_t k = 0;

    do {
        scio_queue *queue = NULL;

        scio_mem_fail_at(k++);
        status = scio_queue_new(3, &queue, NULL);
        scio_mem_fail_at(SIZE_MAX);
        CHECK(status == SCIO_OK || (status == SCIO_ENOMEM && queue == NULL));
        scio_queue_free(queue, NULL);
    } while (status != SCIO_OK && k < 100);
    CHECK(status == SCIO_OK && k > 1);
}

TEST(take_waits_for_its_time_and_no_longer)
{
    scio_queue *queue = new_queue(1);
    void *item;
    double begin = seconds();

    CHECK(scio_queue_take(queue, 0, &item) == SCIO_TAKE_TIMEOUT);
    CHECK(seconds() - begin < 1);
    begin = seconds();
    CHECK(scio_queue_take(queue, 60, &item) == SCIO_TAKE_TIMEOUT);
    CHECK(seconds() - begin > 0.055 && seconds() - begin < 5);
    scio_queue_free(queue, NULL);
}

/* --- takers that sleep --- */

typedef struct taker {
    scio_queue *queue;
    scio_take answer;
    pthread_t thread;
} taker;

static void *
take_one(void *argument)
{
    taker *const t = argument;
    void *item;

    t->answer = scio_queue_take(t->queue, 60000, &item);
    return NULL;
}

TEST(end_and_cancel_wake_every_sleeping_taker)
{
    for (int i = 0; i < 2; i++) {
        scio_queue *queue = new_queue(4);
        const double begin = seconds();
        taker takers[3];

        for (size_t t = 0; t < 3; t++) {
            takers[t].queue = queue;
            CHECK(pthread_create(&takers[t].thread, NULL, take_one, &takers[t]) == 0);
        }
        (void)nanosleep(&(struct timespec){0, 20000000}, NULL);
        if (i == 0)
            scio_queue_set_end(queue, 0);
        else
            scio_queue_cancel(queue);
        for (size_t t = 0; t < 3; t++) {
            CHECK(pthread_join(takers[t].thread, NULL) == 0);
            CHECK(takers[t].answer == (i == 0 ? SCIO_TAKE_END : SCIO_TAKE_CANCELLED));
        }
        CHECK(seconds() - begin < 10);
        scio_queue_free(queue, NULL);
    }
}

TEST(takers_asleep_before_the_last_items_all_come_to_an_end)
{
    for (int round = 0; round < 50; round++) {
        scio_queue *queue = new_queue(4);
        int items[2], n_items = 0, n_ends = 0;
        taker takers[4];

        scio_queue_set_end(queue, 2);
        for (size_t t = 0; t < 4; t++) {
            takers[t].queue = queue;
            CHECK(pthread_create(&takers[t].thread, NULL, take_one, &takers[t]) == 0);
        }
        CHECK(scio_queue_put(queue, 1, &items[1], NULL) == SCIO_OK);
        CHECK(scio_queue_put(queue, 0, &items[0], NULL) == SCIO_OK);
        for (size_t t = 0; t < 4; t++) {
            CHECK(pthread_join(takers[t].thread, NULL) == 0);
            n_items += takers[t].answer == SCIO_TAKE_ITEM;
            n_ends += takers[t].answer == SCIO_TAKE_END;
        }
        CHECK(n_items == 2 && n_ends == 2);
        scio_queue_free(queue, NULL);
    }
}

/* --- makers and a taker --- */

enum { N_MADE = 5000, WINDOW = 7 };

typedef struct factory {
    scio_queue *queue;
    atomic_uint_fast64_t next;
    int items[N_MADE];
} factory;

static void *
make_items(void *argument)
{
    factory *const f = argument;

    for (;;) {
        const uint64_t seq = atomic_fetch_add(&f->next, 1);

        if (seq >= N_MADE)
            return NULL;
        while (!scio_queue_has_room(f->queue, seq))
            (void)nanosleep(&(struct timespec){0, 20000}, NULL);
        f->items[seq] = (int)seq * 3;
        CHECK(scio_queue_put(f->queue, seq, &f->items[seq], NULL) == SCIO_OK);
    }
}

TEST(many_makers_and_one_taker_keep_the_order)
{
    static factory f;
    pthread_t makers[4];
    void *item;

    f.queue = new_queue(WINDOW);
    scio_queue_set_end(f.queue, N_MADE);
    for (size_t i = 0; i < 4; i++)
        CHECK(pthread_create(&makers[i], NULL, make_items, &f) == 0);
    for (int i = 0; i < N_MADE; i++) {
        const scio_take take = scio_queue_take(f.queue, 60000, &item);

        CHECK(take == SCIO_TAKE_ITEM && item == &f.items[i]);
        if (take != SCIO_TAKE_ITEM)
            break;
        CHECK(*(int *)item == i * 3);
    }
    CHECK(scio_queue_take(f.queue, 60000, &item) == SCIO_TAKE_END);
    for (size_t i = 0; i < 4; i++)
        CHECK(pthread_join(makers[i], NULL) == 0);
    scio_queue_free(f.queue, NULL);
}
