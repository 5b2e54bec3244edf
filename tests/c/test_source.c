#include "base/source.h"

#include "base/mem.h"
#include "base/pool.h"
#include "base/stats.h"
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* A directory of its own for each test, below TMPDIR or /tmp. */
typedef struct place {
    char directory[256];
    char path[300];
} place;

static void
write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "wb");

    CHECK(file != NULL);
    if (file == NULL)
        return;
    CHECK(fwrite(text, 1, strlen(text), file) == strlen(text));
    CHECK(fclose(file) == 0);
}

static void
place_init(place *p, const char *text)
{
    const char *root = getenv("TMPDIR");

    (void)snprintf(p->directory, sizeof p->directory, "%s/scio_source_XXXXXX",
                   root != NULL ? root : "/tmp");
    CHECK(mkdtemp(p->directory) != NULL);
    (void)snprintf(p->path, sizeof p->path, "%s/file", p->directory);
    if (text != NULL)
        write_file(p->path, text);
}

static void
place_clear(place *p)
{
    (void)unlink(p->path);
    CHECK(rmdir(p->directory) == 0);
}

/* The modification time of the file moved by `seconds`, whatever the clock's resolution. */
static void
move_mtime(const char *path, int seconds)
{
    struct timespec times[2];
    struct stat st;

    CHECK(stat(path, &st) == 0);
    times[0] = st.st_atim;
    times[1] = st.st_mtim;
    times[1].tv_sec += seconds;
    CHECK(utimensat(AT_FDCWD, path, times, 0) == 0);
}

TEST(a_file_is_read_at_any_offset_and_counted)
{
    const int64_t n_sources = scio_stats_get(SCIO_STAT_live_sources);
    const int64_t n_reads = scio_stats_get(SCIO_STAT_n_reads);
    const int64_t n_bytes = scio_stats_get(SCIO_STAT_nbytes_read);
    scio_source *source = NULL;
    char got[8] = {0};
    place p;

    place_init(&p, "0123456789");
    CHECK(scio_source_open_file(p.path, &source, NULL) == SCIO_OK);
    CHECK(scio_source_nbytes(source) == 10);
    CHECK(strcmp(scio_source_name(source), p.path) == 0);
    CHECK(scio_stats_get(SCIO_STAT_live_sources) == n_sources + 1);
    CHECK(scio_source_read(source, 3, 4, got, NULL) == SCIO_OK);
    CHECK(memcmp(got, "3456", 5) == 0);
    CHECK(scio_source_read(source, 9, 1, got, NULL) == SCIO_OK && got[0] == '9');
    CHECK(scio_source_read(source, 10, 0, got, NULL) == SCIO_OK);
    CHECK(scio_stats_get(SCIO_STAT_n_reads) == n_reads + 3);
    CHECK(scio_stats_get(SCIO_STAT_nbytes_read) == n_bytes + 5);
    scio_source_advise(source, 0, 10);
    scio_source_advise(source, 5, UINT64_MAX);
    scio_source_advise(source, 50, 1);
    CHECK(scio_source_retain(source) == source);
    scio_source_release(source);
    CHECK(scio_source_read(source, 0, 1, got, NULL) == SCIO_OK && got[0] == '0');
    scio_source_release(source);
    CHECK(scio_stats_get(SCIO_STAT_live_sources) == n_sources);
    place_clear(&p);
}

/* Message of reading [offset, offset + nbytes) of ten bytes; "" when it works. */
static void
check_range(scio_source *source, uint64_t offset, size_t nbytes, const char *message)
{
    scio_error err = SCIO_ERROR_INIT;
    char got[16];

    CHECK(scio_source_read(source, offset, nbytes, got, &err) == SCIO_ECORRUPT);
    CHECK_STR(err.message, message);
}

TEST(reads_beyond_the_end_are_truncation_whatever_the_numbers)
{
    scio_buf *buf = NULL;
    scio_source *file = NULL, *memory = NULL;
    place p;

    place_init(&p, "0123456789");
    CHECK(scio_buf_new(10, &buf, NULL) == SCIO_OK);
    CHECK(scio_source_from_buf(buf, "memory", &memory, NULL) == SCIO_OK);
    CHECK(scio_source_open_file(p.path, &file, NULL) == SCIO_OK);
    for (int i = 0; i < 2; i++) {
        scio_source *source = i == 0 ? file : memory;

        check_range(source, 9, 2, "truncated: bytes 9 to 11 wanted, the file has 10");
        check_range(source, 11, 0, "truncated: bytes 11 to 11 wanted, the file has 10");
        check_range(source, 4, SIZE_MAX, "truncated: bytes 4 to 18446744073709551615 wanted");
        check_range(source, UINT64_MAX, 1, "truncated: bytes 18446744073709551615 to");
        check_range(source, UINT64_MAX - 3, SIZE_MAX - 3, "the file has 10");
    }
    scio_source_release(file);
    scio_source_release(memory);
    scio_buf_release(buf);
    place_clear(&p);
}

TEST(what_is_no_regular_file_is_refused_with_its_errno)
{
    scio_source *source = NULL;
    place p;

    place_init(&p, NULL);
    for (int i = 0; i < 4; i++) {
        static const int expected[] = {ENOENT, EISDIR, ESPIPE, ESPIPE};
        const char *paths[] = {p.path, p.directory, p.path, "/dev/null"};
        scio_error err = SCIO_ERROR_INIT;

        if (i == 2) /* opening a FIFO that nobody writes to must not wait */
            CHECK(mkfifo(p.path, 0600) == 0);
        CHECK(scio_source_open_file(paths[i], &source, &err) == SCIO_EIO);
        CHECK(source == NULL);
        CHECK(err.saved_errno == expected[i]);
        CHECK_STR(err.message, paths[i]);
    }
    place_clear(&p);
}

TEST(an_empty_file_is_a_source_of_nothing)
{
    scio_source *source = NULL;
    char got;
    place p;

    place_init(&p, "");
    CHECK(scio_source_open_file(p.path, &source, NULL) == SCIO_OK);
    CHECK(scio_source_nbytes(source) == 0);
    CHECK(scio_source_read(source, 0, 0, &got, NULL) == SCIO_OK);
    CHECK(scio_source_read(source, 0, 1, &got, NULL) == SCIO_ECORRUPT);
    scio_source_release(source);
    place_clear(&p);
}

TEST(a_file_cut_short_while_open_is_truncated_not_read_as_zeros)
{
    scio_error err = SCIO_ERROR_INIT;
    scio_source *source = NULL;
    char got[10];
    place p;

    place_init(&p, "0123456789");
    CHECK(scio_source_open_file(p.path, &source, NULL) == SCIO_OK);
    CHECK(truncate(p.path, 6) == 0);
    CHECK(scio_source_read(source, 2, 8, got, &err) == SCIO_ECORRUPT);
    CHECK_STR(err.message, "truncated while open: bytes 2 to 10 wanted");
    scio_source_release(source);
    place_clear(&p);
}

/* Changes to a file of ten bytes; each is found out by check_unchanged with the message. */
typedef enum change { TOUCH, GROW, SHRINK, REPLACE, VANISH, N_CHANGES } change;

static void
change_file(const place *p, change which)
{
    char other[320];

    (void)snprintf(other, sizeof other, "%s/other", p->directory);
    switch (which) {
    case TOUCH:
        move_mtime(p->path, 1);
        break;
    case GROW:
        write_file(p->path, "0123456789a");
        break;
    case SHRINK:
        CHECK(truncate(p->path, 9) == 0);
        break;
    case REPLACE:
        write_file(other, "0123456789");
        CHECK(rename(other, p->path) == 0);
        break;
    default:
        CHECK(unlink(p->path) == 0);
        break;
    }
}

TEST(every_change_of_an_open_file_is_noticed)
{
    static const char *const messages[N_CHANGES] = {
        "changed while open: written to",
        "changed while open: it had 10 bytes and now has 11",
        "changed while open: it had 10 bytes and now has 9",
        "changed while open: replaced by another file",
        "changed while open: vanished",
    };

    for (int i = 0; i < N_CHANGES; i++) {
        scio_error err = SCIO_ERROR_INIT;
        scio_source *source = NULL;
        place p;

        place_init(&p, "0123456789");
        CHECK(scio_source_open_file(p.path, &source, NULL) == SCIO_OK);
        CHECK(scio_source_check_unchanged(source, NULL) == SCIO_OK);
        change_file(&p, (change)i);
        CHECK(scio_source_check_unchanged(source, &err) == SCIO_EFORMAT);
        CHECK_STR(err.message, messages[i]);
        CHECK_STR(err.message, p.path);
        scio_source_release(source);
        place_clear(&p);
    }
}

TEST(a_relative_path_is_still_found_after_chdir)
{
    char before[4096];
    scio_source *source = NULL;
    place p;

    place_init(&p, "0123456789");
    CHECK(getcwd(before, sizeof before) != NULL);
    CHECK(chdir(p.directory) == 0);
    CHECK(scio_source_open_file("file", &source, NULL) == SCIO_OK);
    CHECK(chdir("/") == 0);
    CHECK(scio_source_check_unchanged(source, NULL) == SCIO_OK);
    CHECK(strcmp(scio_source_name(source), "file") == 0);
    CHECK(chdir(before) == 0);
    scio_source_release(source);
    place_clear(&p);
}

TEST(identity_is_size_mtime_and_inode_of_a_file_and_zeros_of_others)
{
    uint64_t identity[3] = {1, 1, 1};
    scio_source *source = NULL;
    scio_buf *buf = NULL;
    struct stat st;
    place p;

    place_init(&p, "0123456789");
    CHECK(stat(p.path, &st) == 0);
    CHECK(scio_source_open_file(p.path, &source, NULL) == SCIO_OK);
    scio_source_identity(source, identity);
    CHECK(identity[0] == 10 && identity[2] == (uint64_t)st.st_ino);
    CHECK(identity[1] == (uint64_t)st.st_mtim.tv_sec * 1000000000u + (uint64_t)st.st_mtim.tv_nsec);
    scio_source_release(source);
    CHECK(scio_buf_new(7, &buf, NULL) == SCIO_OK);
    CHECK(scio_source_from_buf(buf, "memory", &source, NULL) == SCIO_OK);
    scio_source_identity(source, identity);
    CHECK(identity[0] == 0 && identity[1] == 0 && identity[2] == 0);
    CHECK(scio_source_check_unchanged(source, NULL) == SCIO_OK);
    scio_source_release(source);
    scio_buf_release(buf);
    place_clear(&p);
}

TEST(a_source_of_memory_holds_its_buffer)
{
    scio_source *source = NULL;
    scio_buf *buf = NULL;
    char got[3];

    CHECK(scio_buf_new(5, &buf, NULL) == SCIO_OK);
    memcpy(scio_buf_data(buf), "abcde", 5);
    CHECK(scio_source_from_buf(buf, "memory", &source, NULL) == SCIO_OK);
    CHECK(scio_buf_n_refs(buf) == 2);
    scio_buf_release(buf);
    CHECK(scio_source_read(source, 2, 3, got, NULL) == SCIO_OK);
    CHECK(memcmp(got, "cde", 3) == 0);
    scio_source_release(source);
    scio_source_release(NULL);
    CHECK(scio_source_retain(NULL) == NULL);
}

typedef struct remote {
    int n_reads, n_releases;
    scio_status answer;
    bool is_silent;
} remote;

static scio_status
remote_read(void *context, uint64_t offset, size_t nbytes, void *dst, scio_error *err)
{
    remote *const r = context;

    r->n_reads++;
    if (r->answer != SCIO_OK)
        return r->is_silent ? r->answer : scio_fail(err, r->answer, "the server said no");
    for (size_t i = 0; i < nbytes; i++)
        ((unsigned char *)dst)[i] = (unsigned char)(offset + i);
    return SCIO_OK;
}

static void
remote_release(void *context)
{
    ((remote *)context)->n_releases++;
}

TEST(a_callback_is_asked_for_exact_ranges_and_released_once)
{
    remote r = {0, 0, SCIO_OK, false};
    scio_error err = SCIO_ERROR_INIT;
    scio_source *source = NULL;
    unsigned char got[4];

    CHECK(scio_source_from_callback(100, "s3://b/k", remote_read, remote_release, &r, &source,
                                    NULL) == SCIO_OK);
    CHECK(scio_source_read(source, 96, 4, got, NULL) == SCIO_OK);
    CHECK(got[0] == 96 && got[3] == 99);
    CHECK(scio_source_read(source, 97, 4, got, NULL) == SCIO_ECORRUPT);
    CHECK(scio_source_read(source, 97, 0, got, NULL) == SCIO_OK);
    CHECK(r.n_reads == 1); /* what is out of range or empty is not asked for */
    r.answer = SCIO_EIO;
    CHECK(scio_source_read(source, 0, 4, got, &err) == SCIO_EIO);
    CHECK(strcmp(err.message, "the server said no") == 0);
    err.code = SCIO_OK;
    r.is_silent = true;
    CHECK(scio_source_read(source, 0, 4, got, &err) == SCIO_EIO);
    CHECK(strcmp(err.message, "reading bytes 0 to 4 failed") == 0);
    scio_source_advise(source, 0, 4);
    CHECK(r.n_releases == 0);
    scio_source_release(source);
    CHECK(r.n_releases == 1);
}

TEST(opening_fails_cleanly_at_every_allocation)
{
    const int64_t n_sources = scio_stats_get(SCIO_STAT_live_sources);
    const int64_t n_bufs = scio_stats_get(SCIO_STAT_live_bufs);
    remote r = {0, 0, SCIO_OK, false};
    scio_buf *buf = NULL;
    place p;

    place_init(&p, "0123456789");
    CHECK(scio_buf_new(10, &buf, NULL) == SCIO_OK);
    for (int i = 0; i < 3; i++) {
        scio_status status;
        size_t k = 0;

        do {
            scio_source *source = NULL;

            scio_mem_fail_at(k++);
            if (i == 0)
                status = scio_source_open_file(p.path, &source, NULL);
            else if (i == 1)
                status = scio_source_from_buf(buf, "memory", &source, NULL);
            else
                status = scio_source_from_callback(1, "remote", remote_read, remote_release, &r,
                                                   &source, NULL);
            scio_mem_fail_at(SIZE_MAX);
            CHECK(status == SCIO_OK || (status == SCIO_ENOMEM && source == NULL));
            CHECK(status == SCIO_OK || scio_buf_n_refs(buf) == 1);
            CHECK(r.n_releases == 0);
            scio_source_release(source);
        } while (status != SCIO_OK && k < 100);
        CHECK(status == SCIO_OK && k > 1);
    }
    CHECK(r.n_releases == 1);
    scio_buf_release(buf);
    CHECK(scio_stats_get(SCIO_STAT_live_sources) == n_sources);
    CHECK(scio_stats_get(SCIO_STAT_live_bufs) == n_bufs);
    place_clear(&p);
}

static scio_status
read_one(void *context, size_t i_item, size_t slot, scio_error *err)
{
    unsigned char got[3];

    (void)slot;
    SCIO_TRY(scio_source_read(context, i_item % 8, 3, got, err));
    if (got[0] != '0' + i_item % 8 || got[2] != got[0] + 2)
        return scio_fail(err, SCIO_ECORRUPT, "item %zu read something else", i_item);
    return SCIO_OK;
}

TEST(many_threads_read_one_file)
{
    scio_source *source = NULL;
    scio_pool *pool = NULL;
    place p;

    place_init(&p, "0123456789");
    CHECK(scio_pool_new(4, &pool, NULL) == SCIO_OK);
    CHECK(scio_source_open_file(p.path, &source, NULL) == SCIO_OK);
    CHECK(scio_parallel_for(pool, 4, 4000, read_one, source, NULL, NULL) == SCIO_OK);
    scio_source_release(source);
    scio_pool_free(pool);
    place_clear(&p);
}
