/* What is written reads back by our own parser; what fails is said once and for good. */
#include "h5write/writer.h"

#include "base/mem.h"
#include "base/stats.h"
#include "h5read/dataset.h"
#include "h5read/object.h"
#include "load/matrix.h"
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* A name in /tmp that nothing has. */
static void
make_path(char path[40])
{
    strcpy(path, "/tmp/scio-writer-XXXXXX");
    const int fd = mkstemp(path);
    CHECK(fd >= 0);
    (void)close(fd);
    (void)unlink(path);
}

static scio_h5_value
numbers(scio_dtype dtype, const void *data, uint64_t n_items)
{
    return (scio_h5_value){.dtype = dtype, .data = data, .rank = 1, .dims = {n_items}};
}

/* A file with every kind of thing; the space of /m/data and /m/indices is filled afterwards. */
static scio_status
write_all(const char *path, scio_error *err)
{
    const int64_t indptr[4] = {0, 2, 2, 5};
    const uint8_t truths[3] = {1, 0, 1};
    const char *const texts[3] = {"a", "", "gro\xc3\x9f"};
    const char *lone = "csr_matrix";
    const scio_h5_value text = {.texts = &lone};
    const scio_h5_value list = {.texts = texts, .rank = 1, .dims = {3}};
    const scio_h5_value grid = {
        .dtype = SCIO_F16, .data = "\0\x3c\0\x40", .rank = 2, .dims = {1, 2}};
    const scio_h5_value empty = {.dtype = SCIO_F32, .rank = 2, .dims = {0, 7}};
    uint64_t data_at = 0, indices_at = 0, nothing_at = 1;
    scio_h5_writer *writer = NULL;
    scio_status status = scio_h5_writer_new(path, &writer, err);

    if (status == SCIO_OK)
        status = scio_h5_writer_group(writer, "/m", false, err);
    if (status == SCIO_OK)
        status = scio_h5_writer_attr(writer, "/m", "encoding-type", &text, err);
    if (status == SCIO_OK)
        status = scio_h5_writer_attr(writer, "/m", "list", &list, err);
    const scio_h5_value pointers = numbers(SCIO_I64, indptr, 4),
                        flags = numbers(SCIO_BOOL, truths, 3);
    const scio_h5_value data = numbers(SCIO_U16, NULL, 5);
    const scio_h5_value none = numbers(SCIO_U16, NULL, 0);
    if (status == SCIO_OK)
        status = scio_h5_writer_dataset(writer, "/m/indptr", &pointers, NULL, err);
    if (status == SCIO_OK)
        status = scio_h5_writer_reserve(writer, "/m/data", &data, &data_at, err);
    if (status == SCIO_OK)
        status = scio_h5_writer_reserve(writer, "/m/indices", &data, &indices_at, err);
    if (status == SCIO_OK)
        status = scio_h5_writer_reserve(writer, "/m/none", &none, &nothing_at, err);
    if (status == SCIO_OK)
        status = scio_h5_writer_dataset(writer, "/new/group/flags", &flags, NULL, err);
    if (status == SCIO_OK)
        status = scio_h5_writer_dataset(writer, "/texts", &list, NULL, err);
    if (status == SCIO_OK)
        status = scio_h5_writer_dataset(writer, "/grid", &grid, NULL, err);
    if (status == SCIO_OK)
        status = scio_h5_writer_dataset(writer, "/empty", &empty, NULL, err);
    if (status == SCIO_OK)
        status = scio_h5_writer_close(writer, err);
    scio_h5_writer_free(writer);
    if (status != SCIO_OK)
        return status;
    CHECK(data_at % 64 == 0 && indices_at % 64 == 0 && data_at > 0 && nothing_at == 0);
    const uint16_t values[5] = {1, 2, 3, 4, 65535}, columns[5] = {0, 3, 1, 2, 4};
    const int fd = open(path, O_WRONLY);
    CHECK(pwrite(fd, values, sizeof values, (off_t)data_at) == sizeof values);
    CHECK(pwrite(fd, columns, sizeof columns, (off_t)indices_at) == sizeof columns);
    CHECK(close(fd) == 0);
    return SCIO_OK;
}

static uint64_t
address_of(scio_h5_file *file, const char *path)
{
    uint64_t address = 0;
    CHECK(scio_h5_resolve(file, scio_h5_file_superblock(file)->root, path, &address, NULL) ==
          SCIO_OK);
    return address;
}

static void
check_numbers(scio_h5_file *file, const char *path, scio_dtype dtype, const void *expected,
              uint64_t n_items)
{
    scio_h5_dataset *dataset = NULL;
    scio_error err = SCIO_ERROR_INIT;
    const uint64_t start[2] = {0, 0}, count[2] = {n_items, 1};
    char out[64];
    const size_t nbytes = (size_t)n_items * scio_dtype_itemsize(dtype);
    const scio_h5_read_options options = {.max_parallel = 0};

    CHECK(scio_h5_dataset_open(file, address_of(file, path), path, &dataset, &err) == SCIO_OK);
    if (dataset == NULL)
        return;
    CHECK(dataset->type->dtype == dtype && dataset->layout == SCIO_H5_CONTIGUOUS);
    CHECK(dataset->space.rank == 1 && dataset->space.n_items == n_items);
    CHECK(scio_h5_dataset_read(dataset, start, count, SCIO_DTYPE_NONE, out, nbytes, &options,
                               &err) == SCIO_OK);
    CHECK(memcmp(out, expected, nbytes) == 0);
    scio_h5_dataset_free(dataset);
}

TEST(everything_reads_back)
{
    char path[40];
    scio_error err = SCIO_ERROR_INIT;
    scio_source *source = NULL;
    scio_h5_file *file = NULL;
    const int64_t indptr[4] = {0, 2, 2, 5};
    const uint16_t values[5] = {1, 2, 3, 4, 65535};
    const int64_t rows[2] = {2, 0};
    scio_matrix *matrix = NULL;
    scio_csr csr;

    make_path(path);
    CHECK(write_all(path, &err) == SCIO_OK);
    if (err.code != SCIO_OK)
        printf("%s\n", err.message);
    CHECK(scio_source_open_file(path, &source, &err) == SCIO_OK);
    CHECK(scio_h5_file_open(source, NULL, &file, &err) == SCIO_OK);
    check_numbers(file, "/m/indptr", SCIO_I64, indptr, 4);
    check_numbers(file, "/m/data", SCIO_U16, values, 5);
    check_numbers(file, "/m/none", SCIO_U16, values, 0);
    check_numbers(file, "/new/group/flags", SCIO_BOOL, "\1\0\1", 3);
    CHECK(scio_matrix_map_sparse(file, address_of(file, "/m"), "/m", 3, 5, &matrix, &err) ==
          SCIO_OK);
    CHECK(scio_matrix_take(matrix, rows, 2, SCIO_I64, 0, NULL, &csr, &err) == SCIO_OK);
    CHECK(csr.nnz == 5 && ((int64_t *)scio_buf_data(csr.data))[2] == 65535 &&
          ((int32_t *)scio_buf_data(csr.indices))[2] == 4 &&
          ((int64_t *)scio_buf_data(csr.data))[4] == 2);
    scio_csr_clear(&csr);
    scio_matrix_release(matrix);
    scio_h5_file_release(file);
    scio_source_release(source);
    (void)unlink(path);
}

static size_t
read_file(const char *path, char *out, size_t n_room)
{
    const int fd = open(path, O_RDONLY);
    const ssize_t n = fd >= 0 ? read(fd, out, n_room) : 0;
    if (fd >= 0)
        (void)close(fd);
    return n > 0 ? (size_t)n : 0;
}

TEST(the_same_content_gives_the_same_bytes)
{
    static char bytes[2][1 << 16];
    size_t nbytes[2];
    for (size_t i = 0; i < 2; i++) {
        char path[40];
        scio_error err = SCIO_ERROR_INIT;
        make_path(path);
        CHECK(write_all(path, &err) == SCIO_OK);
        nbytes[i] = read_file(path, bytes[i], sizeof bytes[i]);
        (void)unlink(path);
        if (i == 0)
            (void)sleep(1); /* times are in seconds */
    }
    CHECK(nbytes[0] > 1000 && nbytes[0] == nbytes[1] && memcmp(bytes[0], bytes[1], nbytes[0]) == 0);
}

TEST(an_existing_file_is_not_touched)
{
    char path[40];
    scio_error err = SCIO_ERROR_INIT;
    scio_h5_writer *writer = NULL;
    struct stat st;

    make_path(path);
    const int fd = open(path, O_WRONLY | O_CREAT, 0600);
    CHECK(fd >= 0 && write(fd, "old", 3) == 3 && close(fd) == 0);
    CHECK(scio_h5_writer_new(path, &writer, &err) == SCIO_EWRITE && writer == NULL);
    CHECK(err.saved_errno == EEXIST && stat(path, &st) == 0 && st.st_size == 3);
    (void)unlink(path);
}

TEST(a_user_block_stands_in_front)
{
    char path[40], block[SCIO_H5_USER_BLOCK_NBYTES], signature[8], long_mark[600] = {0};
    scio_error err = SCIO_ERROR_INIT;
    scio_h5_writer *writer = NULL;
    const scio_h5_value value = numbers(SCIO_F64, "abcdefgh", 1);

    make_path(path);
    CHECK(scio_h5_writer_new_marked(path, "MuData (1)", &writer, &err) == SCIO_OK);
    CHECK(scio_h5_writer_dataset(writer, "/x", &value, NULL, &err) == SCIO_OK);
    CHECK(scio_h5_writer_close(writer, &err) == SCIO_OK);
    scio_h5_writer_free(writer);
    const int fd = open(path, O_RDONLY);
    CHECK(pread(fd, block, sizeof block, 0) == (ssize_t)sizeof block);
    CHECK(memcmp(block, "MuData (1)", 10) == 0);
    for (size_t i = 10; i < sizeof block; i++)
        CHECK(block[i] == 0);
    CHECK(pread(fd, signature, 8, sizeof block) == 8 &&
          memcmp(signature, "\x89HDF\r\n\x1a\n", 8) == 0);
    (void)close(fd);
    (void)unlink(path);
    memset(long_mark, 'x', SCIO_H5_USER_BLOCK_NBYTES);
    writer = NULL;
    CHECK(scio_h5_writer_new_marked(path, long_mark, &writer, &err) == SCIO_EINVAL);
    CHECK(writer == NULL && access(path, F_OK) != 0);
}

TEST(the_first_failure_comes_back_from_every_later_call)
{
    char path[40];
    scio_error first = SCIO_ERROR_INIT, later = SCIO_ERROR_INIT;
    scio_h5_writer *writer = NULL;
    const scio_h5_value value = numbers(SCIO_U8, "x", 1);

    make_path(path);
    CHECK(scio_h5_writer_new(path, &writer, &first) == SCIO_OK);
    CHECK(scio_h5_writer_dataset(writer, "/x", &value, NULL, &first) == SCIO_OK);
    CHECK(scio_h5_writer_dataset(writer, "/x", &value, NULL, &first) == SCIO_EWRITE); /* again */
    CHECK_STR(first.message, path);
    CHECK_STR(first.message, "/x");
    CHECK_STR(first.message, "libhdf5 says");
    CHECK(scio_h5_writer_group(writer, "/sound", false, &later) == SCIO_EWRITE);
    CHECK(strcmp(first.message, later.message) == 0);
    CHECK(scio_h5_writer_close(writer, NULL) == SCIO_EWRITE);
    scio_h5_writer_free(writer);
    (void)unlink(path);
}

TEST(wrong_values_are_refused)
{
    char path[40];
    const scio_h5_value text = {.texts = NULL, .rank = 1, .dims = {1}};
    const scio_h5_value huge = {.dtype = SCIO_U8, .rank = 2, .dims = {UINT64_MAX, 3}};
    uint64_t offset;
    scio_h5_writer *writer = NULL;
    scio_error err = SCIO_ERROR_INIT;

    make_path(path);
    CHECK(scio_h5_writer_new(path, &writer, &err) == SCIO_OK);
    CHECK(scio_h5_writer_reserve(writer, "/t", &text, &offset, &err) == SCIO_EINVAL);
    CHECK(scio_h5_writer_reserve(writer, "/h", &huge, &offset, NULL) == SCIO_EINVAL);
    scio_h5_writer_free(writer);
    (void)unlink(path);
}

/* Every file size is once the limit: whichever write or truncation meets it fails. */
static int
child_with_limit(rlim_t limit)
{
    char path[40];
    scio_error err = SCIO_ERROR_INIT;
    const struct rlimit limits = {limit, limit};

    (void)signal(SIGXFSZ, SIG_IGN);
    make_path(path);
    if (setrlimit(RLIMIT_FSIZE, &limits) != 0)
        return 1;
    const scio_status status = write_all(path, &err);
    (void)unlink(path);
    if (status == SCIO_OK)
        return 11;
    return status == SCIO_EWRITE && err.saved_errno == EFBIG && strstr(err.message, path) != NULL
               ? 10
               : 2;
}

TEST(a_write_that_fails_anywhere_is_an_error_and_no_crash)
{
    int n_failed = 0, n_passed = 0;

    (void)fflush(stdout);
    for (rlim_t limit = 0; limit < 24000; limit += 389) {
        const pid_t child = fork();
        int state = 0;
        if (child == 0) /* exit, not _exit: what libhdf5 does at the end is what is asked */
            exit(child_with_limit(limit));
        CHECK(child > 0 && waitpid(child, &state, 0) == child);
        CHECK(WIFEXITED(state) && (WEXITSTATUS(state) == 10 || WEXITSTATUS(state) == 11));
        n_failed += WIFEXITED(state) && WEXITSTATUS(state) == 10;
        n_passed += WIFEXITED(state) && WEXITSTATUS(state) == 11;
    }
    CHECK(n_failed > 10 && n_passed > 10);
}

TEST(a_forked_child_cannot_write_and_harms_nothing)
{
    char path[40];
    scio_error err = SCIO_ERROR_INIT;
    scio_h5_writer *writer = NULL;
    int state = 0;

    make_path(path);
    CHECK(scio_h5_writer_new(path, &writer, &err) == SCIO_OK);
    (void)fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        const bool is_refused = scio_h5_writer_group(writer, "/g", false, NULL) == SCIO_EINVAL;
        scio_h5_writer_free(writer);
        _exit(is_refused ? 0 : 1);
    }
    CHECK(child > 0 && waitpid(child, &state, 0) == child && WIFEXITED(state) &&
          WEXITSTATUS(state) == 0);
    CHECK(scio_h5_writer_group(writer, "/g", false, &err) == SCIO_OK);
    CHECK(scio_h5_writer_close(writer, &err) == SCIO_OK);
    scio_h5_writer_free(writer);
    (void)unlink(path);
}

TEST(every_allocation_may_fail)
{
    char path[40];
    size_t k = 0;

    make_path(path);
    for (scio_status status = SCIO_ENOMEM; status != SCIO_OK && k < 100; k++) {
        scio_error err = SCIO_ERROR_INIT;
        scio_mem_fail_at(k);
        status = write_all(path, &err);
        scio_mem_fail_at(SIZE_MAX);
        /* the driver's own memory is asked for by libhdf5, which says it in its way */
        CHECK(status == SCIO_OK || status == SCIO_ENOMEM || status == SCIO_EWRITE);
        (void)unlink(path);
    }
    CHECK(k > 2 && k < 100);
}
