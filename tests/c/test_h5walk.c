/* Whole files: what the library wrote is read, and no change of a byte leads anywhere but to an
 * error.
 *
 * The files are the seeds of fuzz_h5file (tools/make_fuzz_corpus_h5.py). */
#include "base/stats.h"
#include "h5_walk.h"
#include "test.h"

#include <time.h>

#define CORPUS "tests/fuzz/corpus/h5file/"

enum { MAX_FILE_NBYTES = 10000, DATA_NBYTES = 1 << 18 };

static const struct {
    const char *name;
    size_t n_objects, n_links, n_attrs, n_errors;
} files[] = {
    /* the errors: dangling, circular and external links */
    {"continued", 6, 5, 9, 0},  {"continued_v18", 6, 5, 9, 0},  {"deep", 2, 15, 0, 0},
    {"extension", 4, 10, 0, 3}, {"frame", 5, 4, 2, 0},          {"frame_userblock", 5, 4, 2, 0},
    {"frame_v18", 5, 4, 2, 0},  {"indexes_latest", 8, 7, 0, 0}, {"indexes_v110", 8, 7, 0, 0},
    {"links", 4, 10, 0, 3},     {"many", 1, 12, 10, 12},        {"many_o4_l8", 1, 12, 10, 12},
    {"matrix", 4, 3, 0, 0},     {"spaces", 6, 5, 3, 0},         {"spaces_v18", 6, 5, 3, 0},
    {"tracked", 2, 4, 10, 3},   {"types", 16, 15, 1, 0},        {"types_latest", 16, 15, 1, 0},
};
enum { N_FILES = sizeof files / sizeof *files };

static uint8_t original[MAX_FILE_NBYTES], changed[MAX_FILE_NBYTES];
static h5_walk walked;

static size_t
load(const char *name)
{
    char path[128];
    FILE *stream;
    size_t nbytes;

    (void)snprintf(path, sizeof path, CORPUS "%s.h5", name);
    stream = fopen(path, "rb");
    if (stream == NULL) {
        printf("%s is not there\n", path);
        exit(EXIT_FAILURE);
    }
    nbytes = fread(original, 1, sizeof original, stream);
    (void)fclose(stream);
    return nbytes;
}

/* The first nbytes of `changed`, from memory that ends there, so that a sanitizer sees a byte more.
 */
static scio_status
walk_changed(size_t nbytes, size_t data_nbytes)
{
    uint8_t *const exact = malloc(nbytes == 0 ? 1 : nbytes);
    scio_error err = SCIO_ERROR_INIT;
    scio_status status;

    memcpy(exact, changed, nbytes);
    status = walk_image(exact, nbytes, data_nbytes, &walked, &err);
    CHECK(status == SCIO_OK || (err.message[0] != '\0' && err.code == status));
    CHECK(status != SCIO_EBUG);
    free(exact);
    return status;
}

TEST(every_file_of_the_corpus_is_read)
{
    for (size_t i = 0; i < N_FILES; i++) {
        const size_t nbytes = load(files[i].name);
        uint64_t digest;

        memcpy(changed, original, nbytes);
        CHECK(walk_changed(nbytes, 0) == SCIO_OK);
        if (walked.n_objects != files[i].n_objects || walked.n_links != files[i].n_links ||
            walked.n_attrs != files[i].n_attrs || walked.n_errors != files[i].n_errors) {
            test_has_failed = true;
            printf("%s: %zu objects, %zu links, %zu attributes, %zu errors\n", files[i].name,
                   walked.n_objects, walked.n_links, walked.n_attrs, walked.n_errors);
        }
        CHECK(walk_changed(nbytes, DATA_NBYTES) == SCIO_OK && walked.n_read <= walked.n_objects);
        digest = walked.digest;
        CHECK(walk_changed(nbytes, DATA_NBYTES) == SCIO_OK && walked.digest == digest);
    }
}

TEST(a_file_cut_anywhere_does_not_open)
{
    for (size_t i = 0; i < N_FILES; i++) {
        const size_t nbytes = load(files[i].name);

        memcpy(changed, original, nbytes);
        for (size_t n = 0; n < nbytes; n += n < 1100 ? 1 : 61) {
            const scio_status status = walk_changed(n, 0);

            CHECK(status == SCIO_ECORRUPT || status == SCIO_EFORMAT);
        }
    }
}

/* Values that break something: nothing, all, one more, one less, a bit. */
static void
change(size_t at, size_t nbytes, unsigned kind)
{
    switch (kind % 6) {
    case 0:
        changed[at] = 0;
        break;
    case 1:
        changed[at] = 0xff;
        break;
    case 2:
        changed[at]++;
        break;
    case 3:
        changed[at]--;
        break;
    case 4:
        changed[at] ^= (uint8_t)(1u << (at % 8));
        break;
    default: /* a field of up to 8 bytes: all ones */
        for (size_t k = at; k < at + 8 && k < nbytes; k++)
            changed[k] = 0xff;
    }
}

static double
seconds(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

TEST(a_changed_byte_gives_an_error_or_another_file_in_little_time)
{
    size_t n_variants = 0, n_opened = 0;
    double slowest = 0;

    for (size_t i = 0; i < N_FILES; i++) {
        const size_t nbytes = load(files[i].name);

        /* Every byte of the small head of the file, some of the rest; kinds in turn. */
        for (size_t at = 0; at < nbytes; at += at < 200 ? 1 : 7) {
            double start;

            memcpy(changed, original, nbytes);
            change(at, nbytes, (unsigned)(at + i));
            start = seconds();
            n_opened += walk_changed(nbytes, 4096) == SCIO_OK;
            start = seconds() - start;
            slowest = start > slowest ? start : slowest;
            n_variants++;
        }
    }
    CHECK(n_variants > 10000 && n_opened > n_variants / 2);
    CHECK(slowest < 2); /* the whole file takes well under a millisecond */
}

static void
check_allocations(const char *name, size_t data_nbytes)
{
    const size_t nbytes = load(name);
    const int64_t n_bufs = scio_stats_get(SCIO_STAT_live_bufs);
    scio_status status = SCIO_OK;
    size_t n_errors = 0, expected_errors, k = 0;

    memcpy(changed, original, nbytes);
    CHECK(walk_changed(nbytes, data_nbytes) == SCIO_OK);
    expected_errors = walked.n_errors;
    do { /* the walk goes on after an error: it is over when none is added */
        scio_mem_fail_at(k);
        status = walk_changed(nbytes, data_nbytes);
        scio_mem_fail_at(SIZE_MAX);
        n_errors = walked.n_errors;
        CHECK(status == SCIO_OK || status == SCIO_ENOMEM);
        CHECK(scio_stats_get(SCIO_STAT_live_bufs) == n_bufs);
        k += k < 100 ? 1 : 3;
    } while ((status != SCIO_OK || n_errors != expected_errors) && k < 20000);
    CHECK(k > 10 && k < 20000);
    CHECK(scio_stats_get(SCIO_STAT_live_sources) == 0);
}

TEST(walks_survive_every_failing_allocation)
{
    check_allocations("frame", 0);
    check_allocations("tracked", 0);
    check_allocations("types_latest", 0);
    check_allocations("links", 0);
    check_allocations("many", 0);
}
