/* Chunked datasets: our reader gives back what was appended; neither the cuts between appends nor
 * the threads show in the file; what fails is said once and for good. */
#include "h5write/chunked.h"

#include "base/mem.h"
#include "base/pool.h"
#include "h5read/dataset.h"
#include "h5read/object.h"
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { N_ROWS = 1003, N_COLUMNS = 37, N_ITEMS = N_ROWS * N_COLUMNS };

static void
make_path(char path[40])
{
    strcpy(path, "/tmp/scio-chunked-XXXXXX");
    const int fd = mkstemp(path);
    CHECK(fd >= 0);
    (void)close(fd);
    (void)unlink(path);
}

/* 32-bit small counts. */
static int32_t *
make_grid(void)
{
    int32_t *const grid = malloc(N_ITEMS * sizeof *grid);
    uint32_t state = 7;

    for (size_t i = 0; i < N_ITEMS; i++) {
        state = state * 1664525u + 1013904223u;
        grid[i] = (int32_t)(state >> 24) * (state % 3 == 0);
    }
    return grid;
}

static scio_h5_chunked_spec
spec_of(uint64_t n_rows, uint64_t chunk_rows, uint64_t chunk_columns)
{
    return (scio_h5_chunked_spec){
        .element = {.kind = SCIO_H5_ITEM_NUMBER, .dtype = SCIO_I32, .nbytes = 4},
        .rank = 2,
        .dims = {n_rows, N_COLUMNS},
        .max_dims = {SCIO_H5_UNLIMITED, N_COLUMNS},
        .chunk_dims = {chunk_rows, chunk_columns},
        .shuffle = true,
        .level = 1};
}

/* A file with one dataset, appended in cuts of n_each rows and then finished by the writer. */
static scio_status
write_grid(const char *path, const scio_h5_chunked_spec *spec, const int32_t *grid, uint64_t n_each,
           size_t max_parallel, const volatile int *cancel, scio_error *err)
{
    scio_h5_writer *writer = NULL;
    scio_h5_chunked *chunked = NULL;
    scio_status status = scio_h5_writer_new(path, &writer, err);

    if (status == SCIO_OK)
        status = scio_h5_chunked_new(writer, "/g/x", spec, &chunked, err);
    for (uint64_t i = 0; status == SCIO_OK && i < N_ROWS; i += n_each) {
        const uint64_t n = N_ROWS - i < n_each ? N_ROWS - i : n_each;
        status =
            scio_h5_chunked_append(chunked, grid + i * N_COLUMNS, n, max_parallel, cancel, err);
    }
    if (status == SCIO_OK)
        status = scio_h5_writer_close(writer, err);
    scio_h5_writer_free(writer);
    return status;
}

/* The dataset of write_grid, by our reader. */
static void
check_grid(const char *path, const int32_t *expected)
{
    const uint64_t start[2] = {0, 0}, count[2] = {N_ROWS, N_COLUMNS};
    const scio_h5_read_options options = {.max_parallel = 0};
    int32_t *const out = calloc(N_ITEMS, sizeof *out);
    scio_error err = SCIO_ERROR_INIT;
    scio_source *source = NULL;
    scio_h5_file *file = NULL;
    scio_h5_dataset *dataset = NULL;
    uint64_t address = 0;

    CHECK(scio_source_open_file(path, &source, &err) == SCIO_OK &&
          scio_h5_file_open(source, NULL, &file, &err) == SCIO_OK);
    CHECK(scio_h5_resolve(file, scio_h5_file_superblock(file)->root, "/g/x", &address, &err) ==
          SCIO_OK);
    CHECK(scio_h5_dataset_open(file, address, "/g/x", &dataset, &err) == SCIO_OK);
    if (dataset != NULL) {
        CHECK(dataset->layout == SCIO_H5_CHUNKED && dataset->space.rank == 2);
        CHECK(scio_h5_dataset_read(dataset, start, count, SCIO_DTYPE_NONE, out,
                                   N_ITEMS * sizeof *out, &options, &err) == SCIO_OK);
    }
    CHECK_CLEAR(err.message);
    CHECK(memcmp(out, expected, N_ITEMS * sizeof *out) == 0);
    scio_h5_dataset_free(dataset);
    scio_h5_file_release(file);
    scio_source_release(source);
    free(out);
}

/* ---- forks come first: before this process has threads, which sanitizers want so ---- */

/* Every file size is once the limit: whichever write or truncation meets it fails. */
static int
child_with_limit(const int32_t *grid, rlim_t limit)
{
    const scio_h5_chunked_spec spec = spec_of(SCIO_H5_UNLIMITED, 16, 10);
    const struct rlimit limits = {limit, limit};
    scio_error err = SCIO_ERROR_INIT;
    char path[40];

    (void)signal(SIGXFSZ, SIG_IGN);
    make_path(path);
    if (setrlimit(RLIMIT_FSIZE, &limits) != 0)
        return 1;
    const scio_status status = write_grid(path, &spec, grid, 100, 2, NULL, &err);
    (void)unlink(path);
    if (status == SCIO_OK)
        return 11;
    return status == SCIO_EWRITE && err.saved_errno == EFBIG && strstr(err.message, path) != NULL
               ? 10
               : 2;
}

TEST(a_write_that_fails_anywhere_is_an_error_and_no_crash)
{
    int32_t *const grid = make_grid();
    int n_failed = 0, n_passed = 0;

    (void)fflush(stdout);
    for (rlim_t limit = 0; limit < 110000; limit += 4999) {
        const pid_t child = fork();
        int state = 0;
        if (child == 0) /* exit, not _exit: what libhdf5 does at the end is what is asked */
            exit(child_with_limit(grid, limit));
        CHECK(child > 0 && waitpid(child, &state, 0) == child);
        CHECK(WIFEXITED(state) && (WEXITSTATUS(state) == 10 || WEXITSTATUS(state) == 11));
        n_failed += WIFEXITED(state) && WEXITSTATUS(state) == 10;
        n_passed += WIFEXITED(state) && WEXITSTATUS(state) == 11;
    }
    CHECK(n_failed > 5 && n_passed > 3);
    free(grid);
}

/* Where a sanitizer does not follow threads of a child whose parent has some, the parent has none.
 */
#ifdef __SANITIZE_THREAD__
#define PARENT_THREADS 0
#else
#define PARENT_THREADS SIZE_MAX
#endif

TEST(a_forked_child_cannot_append_and_may_write_its_own)
{
    int32_t *const grid = make_grid();
    const scio_h5_chunked_spec spec = spec_of(SCIO_H5_UNLIMITED, 16, 10);
    scio_h5_writer *writer = NULL;
    scio_h5_chunked *chunked = NULL;
    char path[40], own[40];
    int state = 0;

    make_path(path);
    make_path(own);
    CHECK(scio_h5_writer_new(path, &writer, NULL) == SCIO_OK);
    CHECK(scio_h5_chunked_new(writer, "/g/x", &spec, &chunked, NULL) == SCIO_OK);
    CHECK(scio_h5_chunked_append(chunked, grid, 500, PARENT_THREADS, NULL, NULL) == SCIO_OK);
    (void)fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        const bool is_refused =
            scio_h5_chunked_append(chunked, grid, 500, SIZE_MAX, NULL, NULL) == SCIO_EINVAL &&
            scio_h5_chunked_finish(chunked, NULL, NULL) == SCIO_EINVAL;
        scio_h5_writer_free(writer);
        _exit(is_refused && write_grid(own, &spec, grid, 500, 2, NULL, NULL) == SCIO_OK ? 0 : 1);
    }
    CHECK(child > 0 && waitpid(child, &state, 0) == child && WIFEXITED(state) &&
          WEXITSTATUS(state) == 0);
    CHECK(scio_h5_chunked_append(chunked, grid + 500 * N_COLUMNS, N_ROWS - 500, SIZE_MAX, NULL,
                                 NULL) == SCIO_OK);
    CHECK(scio_h5_writer_close(writer, NULL) == SCIO_OK);
    scio_h5_writer_free(writer);
    check_grid(path, grid);
    check_grid(own, grid);
    (void)unlink(path);
    (void)unlink(own);
    free(grid);
}

static size_t
read_file(const char *path, uint8_t *out, size_t n_room)
{
    const int fd = open(path, O_RDONLY);
    const ssize_t n = fd >= 0 ? read(fd, out, n_room) : 0;
    if (fd >= 0)
        (void)close(fd);
    return n > 0 ? (size_t)n : 0;
}

TEST(rows_come_back_whatever_the_chunks)
{
    static const uint64_t chunks[][2] = {{1, 37}, {64, 37}, {64, 10}, {1003, 1}, {5000, 50}};
    int32_t *const grid = make_grid();
    char path[40];

    for (size_t i = 0; i < sizeof chunks / sizeof chunks[0]; i++) {
        for (int level = -1; level < 2; level++) {
            scio_h5_chunked_spec spec =
                spec_of(i % 2 ? N_ROWS : SCIO_H5_UNLIMITED, chunks[i][0], chunks[i][1]);
            scio_error err = SCIO_ERROR_INIT;

            spec.level = level;
            spec.shuffle = level > 0;
            spec.fletcher32 = i % 2 == 0;
            make_path(path);
            CHECK(write_grid(path, &spec, grid, 100, SIZE_MAX, NULL, &err) == SCIO_OK);
            CHECK_CLEAR(err.message);
            check_grid(path, grid);
            (void)unlink(path);
        }
    }
    free(grid);
}

TEST(neither_threads_nor_cuts_show)
{
    static uint8_t bytes[2][1 << 18];
    static const size_t threads[] = {0, 1, 2, 7, SIZE_MAX};
    static const uint64_t cuts[] = {N_ROWS, 1, 64, 65, 999};
    const scio_h5_chunked_spec spec = spec_of(SCIO_H5_UNLIMITED, 16, 10);
    int32_t *const grid = make_grid();
    size_t nbytes[2] = {0, 0};
    scio_pool *pool = NULL;
    char path[40];

    CHECK(scio_pool_shared(&pool, NULL) == SCIO_OK && scio_pool_resize(pool, 7, NULL) == SCIO_OK);
    for (size_t i = 0; i < 5; i++) {
        make_path(path);
        CHECK(write_grid(path, &spec, grid, cuts[i], threads[i], NULL, NULL) == SCIO_OK);
        nbytes[i > 0] = read_file(path, bytes[i > 0], sizeof bytes[0]);
        (void)unlink(path);
        CHECK(nbytes[0] > 10000 && nbytes[0] < sizeof bytes[0]);
        if (i > 0)
            CHECK(nbytes[0] == nbytes[1] && memcmp(bytes[0], bytes[1], nbytes[0]) == 0);
    }
    free(grid);
}

TEST(datasets_grow_side_by_side)
{
    const scio_h5_chunked_spec spec = spec_of(SCIO_H5_UNLIMITED, 64, 10);
    int32_t *const grid = make_grid();
    scio_h5_chunked *a = NULL, *b = NULL;
    scio_error err = SCIO_ERROR_INIT;
    scio_h5_writer *writer = NULL;
    uint64_t stored[2] = {0, 0};
    char path[40];

    make_path(path);
    CHECK(scio_h5_writer_new(path, &writer, &err) == SCIO_OK);
    CHECK(scio_h5_chunked_new(writer, "/a", &spec, &a, &err) == SCIO_OK);
    CHECK(scio_h5_chunked_new(writer, "/g/x", &spec, &b, &err) == SCIO_OK);
    for (uint64_t i = 0; i < N_ROWS; i += 17) {
        const uint64_t n = N_ROWS - i < 17 ? N_ROWS - i : 17;
        CHECK(scio_h5_chunked_append(a, grid + i * N_COLUMNS, n, SIZE_MAX, NULL, &err) == SCIO_OK);
        CHECK(scio_h5_chunked_append(b, grid + i * N_COLUMNS, n, SIZE_MAX, NULL, &err) == SCIO_OK);
    }
    CHECK(scio_h5_chunked_finish(a, &stored[0], &err) == SCIO_OK);
    CHECK(scio_h5_chunked_finish(b, &stored[1], &err) == SCIO_OK);
    CHECK(stored[0] == stored[1] && stored[0] > 1000 && stored[0] < N_ITEMS * 4 / 2);
    CHECK(scio_h5_writer_close(writer, &err) == SCIO_OK);
    CHECK_CLEAR(err.message);
    scio_h5_writer_free(writer);
    check_grid(path, grid);
    (void)unlink(path);
    free(grid);
}

TEST(wrong_specs_are_refused_and_harm_nothing)
{
    const scio_h5_chunked_spec sound = spec_of(10, 4, 4);
    scio_h5_chunked_spec specs[9];
    static const char *const messages[9] = {"rank 0",         "rank 9",     "level 10",
                                            "chunks[1] is 0", "shape[1]",   "maxshape[0] is 9",
                                            "text of any",    "more items", "a chunk of"};
    scio_h5_writer *writer = NULL;
    scio_h5_chunked *chunked = NULL;
    char path[40];

    for (size_t i = 0; i < 9; i++)
        specs[i] = sound;
    specs[0].rank = 0;
    specs[1].rank = 9;
    specs[2].level = 10;
    specs[3].chunk_dims[1] = 0;
    specs[4].dims[1] = SCIO_H5_UNLIMITED;
    specs[5].max_dims[0] = 9;
    specs[6].element.kind = SCIO_H5_ITEM_TEXT;
    specs[7].dims[0] = specs[7].max_dims[0] = UINT64_MAX / 2;
    specs[8].dims[1] = specs[8].max_dims[1] = 70000;
    specs[8].chunk_dims[0] = specs[8].chunk_dims[1] = 70000;
    make_path(path);
    CHECK(scio_h5_writer_new(path, &writer, NULL) == SCIO_OK);
    for (size_t i = 0; i < 9; i++) {
        scio_error err = SCIO_ERROR_INIT;
        const scio_status status = scio_h5_chunked_new(writer, "/x", &specs[i], &chunked, &err);
        CHECK(status == SCIO_EINVAL || (i == 6 && status == SCIO_ETYPE));
        CHECK(chunked == NULL);
        CHECK_STR(err.message, messages[i]);
        CHECK_STR(err.message, path);
    }
    CHECK(scio_h5_chunked_new(writer, "/x", &sound, &chunked, NULL) == SCIO_OK);
    scio_h5_writer_free(writer);
    (void)unlink(path);
}

TEST(rows_are_counted)
{
    int32_t *const grid = make_grid();
    const scio_h5_chunked_spec spec = spec_of(10, 4, 4);
    scio_error err = SCIO_ERROR_INIT, few = SCIO_ERROR_INIT;
    scio_h5_writer *writer = NULL;
    scio_h5_chunked *chunked = NULL;
    char path[40];

    make_path(path);
    CHECK(scio_h5_writer_new(path, &writer, NULL) == SCIO_OK);
    CHECK(scio_h5_chunked_new(writer, "/x", &spec, &chunked, NULL) == SCIO_OK);
    CHECK(scio_h5_chunked_append(chunked, grid, 9, 0, NULL, NULL) == SCIO_OK);
    CHECK(scio_h5_chunked_append(chunked, grid, 2, 0, NULL, &err) == SCIO_EINVAL);
    CHECK_STR(err.message, "2 rows after 9 are more than the 10");
    CHECK(scio_h5_chunked_append(chunked, grid, UINT64_MAX - 4, 0, NULL, NULL) == SCIO_EINVAL);
    CHECK(scio_h5_writer_close(writer, &few) == SCIO_EINVAL); /* the first failure was harmless */
    CHECK_STR(few.message, "9 rows were appended to a dataset of 10");
    CHECK(scio_h5_writer_close(writer, NULL) == SCIO_EINVAL);
    scio_h5_writer_free(writer);
    (void)unlink(path);
    free(grid);
}

TEST(a_cancelled_append_is_the_end)
{
    const scio_h5_chunked_spec spec = spec_of(SCIO_H5_UNLIMITED, 4, 37);
    int32_t *const grid = make_grid();
    const volatile int cancel = 1;
    scio_error err = SCIO_ERROR_INIT;
    char path[40];

    for (size_t threads = 0; threads < 3; threads += 2) {
        make_path(path);
        CHECK(write_grid(path, &spec, grid, 500, threads, &cancel, &err) == SCIO_EWRITE);
        CHECK_STR(err.message, "interrupted");
        (void)unlink(path);
    }
    free(grid);
}

TEST(every_allocation_may_fail)
{
    const scio_h5_chunked_spec spec = spec_of(SCIO_H5_UNLIMITED, 64, 10);
    int32_t *const grid = make_grid();
    size_t k = 0;
    char path[40];

    make_path(path);
    for (scio_status status = SCIO_ENOMEM; status != SCIO_OK && k < 200; k++) {
        scio_mem_fail_at(k);
        status = write_grid(path, &spec, grid, 100, 0, NULL, NULL);
        scio_mem_fail_at(SIZE_MAX);
        /* the driver's own memory is asked for by libhdf5, which says it in its way */
        CHECK(status == SCIO_OK || status == SCIO_ENOMEM || status == SCIO_EWRITE);
        if (status == SCIO_OK)
            check_grid(path, grid);
        (void)unlink(path);
    }
    CHECK(k > 10 && k < 200);
    free(grid);
}
