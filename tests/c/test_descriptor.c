/* More files than descriptors: closed and opened again behind the readers' backs. */
#include "base/source.h"
#include "base/stats.h"
#include "test.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { N_FILES = 64, N_THREADS = 4, N_READS = 3000, LIMIT = 40 };

typedef struct files {
    char folder[64];
    scio_source *sources[N_FILES];
} files;

static void
path_of(const files *f, int i, char *out, size_t n_room)
{
    (void)snprintf(out, n_room, "%s/%d", f->folder, i);
}

static void
write_file(const char *path, int value)
{
    FILE *const file = fopen(path, "wb");

    CHECK(file != NULL);
    CHECK(fwrite(&value, sizeof value, 1, file) == 1);
    CHECK(fclose(file) == 0);
}

static void
limit_descriptors(rlim_t n)
{
    struct rlimit limit;

    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = n;
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

static int
n_descriptors(void)
{
    DIR *const folder = opendir("/proc/self/fd");
    int n = -3; /* itself, "." and ".." */

    CHECK(folder != NULL);
    while (readdir(folder) != NULL)
        n++;
    (void)closedir(folder);
    return n;
}

static void
open_files(files *f)
{
    char path[96];

    (void)snprintf(f->folder, sizeof f->folder, "/tmp/scio-descriptors-XXXXXX");
    CHECK(mkdtemp(f->folder) != NULL);
    for (int i = 0; i < N_FILES; i++) {
        path_of(f, i, path, sizeof path);
        write_file(path, i);
        CHECK(scio_source_open_file(path, &f->sources[i], NULL) == SCIO_OK);
    }
}

static void
close_files(files *f)
{
    char path[96];

    for (int i = 0; i < N_FILES; i++) {
        scio_source_release(f->sources[i]);
        path_of(f, i, path, sizeof path);
        (void)unlink(path);
    }
    CHECK(rmdir(f->folder) == 0);
}

static bool
reads(const files *f, int i)
{
    int value = -1;

    return scio_source_read(f->sources[i], 0, sizeof value, &value, NULL) == SCIO_OK && value == i;
}

static void *
read_many(void *argument)
{
    const files *const f = argument;
    unsigned state = (unsigned)(uintptr_t)&state; /* another order in each thread */
    size_t n_wrong = 0;

    for (int k = 0; k < N_READS; k++) {
        const int i = (int)((state = state * 1664525u + 1013904223u) >> 16) % N_FILES;
        n_wrong += reads(f, i) ? 0 : 1;
        n_wrong += scio_source_check_unchanged(f->sources[i], NULL) == SCIO_OK ? 0 : 1;
        scio_source_advise(f->sources[i], 0, 4);
    }
    return (void *)n_wrong;
}

TEST(threads_read_more_files_than_there_are_descriptors)
{
    const int n_before = n_descriptors();
    pthread_t threads[N_THREADS];
    files f = {0};

    limit_descriptors(LIMIT);
    open_files(&f);
    CHECK(n_descriptors() - n_before <= LIMIT / 2);
    for (int t = 0; t < N_THREADS; t++)
        CHECK(pthread_create(&threads[t], NULL, read_many, &f) == 0);
    for (int t = 0; t < N_THREADS; t++) {
        void *n_wrong = NULL;
        CHECK(pthread_join(threads[t], &n_wrong) == 0);
        CHECK(n_wrong == NULL);
    }
    CHECK(n_descriptors() - n_before <= LIMIT / 2 + N_THREADS);
    for (int i = 0; i < N_FILES; i++) {
        scio_buf *buf = NULL;
        CHECK(scio_source_map(f.sources[i], 0, sizeof i, &buf, NULL) == SCIO_OK);
        CHECK(memcmp(scio_buf_data(buf), &i, sizeof i) == 0);
        scio_buf_release(buf);
    }
    close_files(&f);
    CHECK(n_descriptors() == n_before);
    limit_descriptors(1024);
}

TEST(when_others_take_all_descriptors_idle_files_give_theirs)
{
    int taken[LIMIT], n_taken = 0;
    files f = {0};

    limit_descriptors(LIMIT);
    open_files(&f);
    while (n_taken < LIMIT && (taken[n_taken] = open("/dev/null", O_RDONLY)) >= 0)
        n_taken++;
    CHECK(n_taken > 0 && n_taken < LIMIT);
    for (int i = 0; i < N_FILES; i++)
        CHECK(reads(&f, i));
    while (n_taken > 0)
        (void)close(taken[--n_taken]);
    close_files(&f);
    limit_descriptors(1024);
}

TEST(a_file_that_was_replaced_while_it_was_closed_is_refused)
{
    char path[96], other[96];
    scio_error err = SCIO_ERROR_INIT;
    files f = {0};
    int value;

    limit_descriptors(LIMIT);
    open_files(&f); /* the first ones are closed again */
    path_of(&f, 0, path, sizeof path);
    path_of(&f, N_FILES, other, sizeof other);
    write_file(other, 77);
    CHECK(rename(other, path) == 0);
    CHECK(scio_source_read(f.sources[0], 0, sizeof value, &value, &err) == SCIO_EFORMAT);
    CHECK(strstr(err.message, "changed while open: replaced") != NULL);
    path_of(&f, 1, path, sizeof path);
    CHECK(unlink(path) == 0);
    err = (scio_error)SCIO_ERROR_INIT;
    CHECK(scio_source_read(f.sources[1], 0, sizeof value, &value, &err) == SCIO_EIO);
    CHECK(strstr(err.message, path) != NULL);
    close_files(&f);
    limit_descriptors(1024);
}

/* The lock is free in a child even when a thread of the parent held it. */
TEST(a_forked_child_reads_and_closes)
{
    pthread_t thread;
    files f = {0};
    void *n_wrong = NULL;

    limit_descriptors(LIMIT);
    open_files(&f);
    CHECK(pthread_create(&thread, NULL, read_many, &f) == 0);
    for (int k = 0; k < 20; k++) {
        const pid_t pid = fork();
        int status = -1;

        if (pid == 0) {
            bool is_right = true;
            (void)alarm(20);
            for (int i = 0; i < N_FILES; i++) {
                is_right = is_right && reads(&f, i);
                scio_source_release(f.sources[i]);
            }
            _exit(is_right ? 0 : 3);
        }
        CHECK(waitpid(pid, &status, 0) == pid);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    CHECK(pthread_join(thread, &n_wrong) == 0);
    CHECK(n_wrong == NULL);
    close_files(&f);
    limit_descriptors(1024);
}
