/* Superblocks, the search for them, and reads inside their limits. */
#include "h5_image.h"

#include <pthread.h>

static image im;

static scio_status
open_im(scio_error *err)
{
    scio_h5_file *file = NULL;
    const scio_status status = image_open_with(&im, NULL, &file, err);

    scio_h5_file_release(file);
    return status;
}

static void
make_old(unsigned version)
{
    image_old_superblock(&im, version, 8, 8, 96);
    image_zeros(&im, 100);
    image_finish(&im);
}

static void
make_new(unsigned version)
{
    image_new_superblock(&im, version, 8, 8, 48);
    image_zeros(&im, 100);
    image_finish(&im);
}

/* A changed byte of a checked superblock. */
static void
set_new(unsigned version, size_t at, size_t width, uint64_t value)
{
    make_new(version);
    image_patch(&im, at, width, value);
    image_resum(&im, 0, 44);
}

static void
set_old(size_t at, size_t width, uint64_t value)
{
    make_old(0);
    image_patch(&im, at, width, value);
}

TEST(versions_0_to_3_open_and_say_what_they_hold)
{
    for (unsigned version = 0; version <= 3; version++) {
        const scio_h5_superblock *s;
        scio_h5_file *file;

        if (version < 2)
            make_old(version);
        else
            make_new(version);
        file = image_open(&im);
        s = scio_h5_file_superblock(file);
        CHECK(s->version == version && s->base == 0 && s->end == im.nbytes);
        CHECK(s->root == (version < 2 ? 96 : 48));
        CHECK(s->offset_nbytes == 8 && s->length_nbytes == 8);
        CHECK(s->chunk_k == 32 && s->group_leaf_k == 4 && s->group_internal_k == 16);
        scio_h5_file_release(file);
    }
}

TEST(all_widths_of_2_4_and_8_open)
{
    const unsigned widths[] = {2, 4, 8};

    for (size_t i = 0; i < 18; i++) {
        const unsigned o = widths[i % 3], l = widths[i / 3 % 3];
        scio_h5_file *file;

        if (i < 9)
            image_old_superblock(&im, 1, o, l, 30);
        else
            image_new_superblock(&im, 2, o, l, 20);
        image_finish(&im);
        file = image_open(&im);
        CHECK(scio_h5_file_superblock(file)->offset_nbytes == o);
        CHECK(scio_h5_file_superblock(file)->length_nbytes == l);
        CHECK(scio_h5_file_superblock(file)->root == (i < 9 ? 30u : 20u));
        scio_h5_file_release(file);
    }
}

TEST(the_signature_is_found_behind_512_1024_and_4096_bytes_only)
{
    const size_t places[] = {512, 1024, 4096, 768, 1536, 511};
    static image moved;

    make_new(2);
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        scio_h5_file *file = NULL;
        scio_error err = SCIO_ERROR_INIT;

        memset(&moved, 0, sizeof moved);
        image_zeros(&moved, places[i]);
        image_bytes(&moved, im.data, im.nbytes);
        if (i >= 3) {
            CHECK(image_open_with(&moved, NULL, &file, &err) == SCIO_EFORMAT);
            continue;
        }
        CHECK(image_open_with(&moved, NULL, &file, &err) == SCIO_OK);
        if (file == NULL)
            continue;
        /* The stored base of 0 is stale: the place of the signature counts. */
        CHECK(scio_h5_file_superblock(file)->base == places[i]);
        CHECK(scio_h5_file_superblock(file)->end == places[i] + im.nbytes);
        scio_h5_file_release(file);
    }
}

TEST(a_user_block_that_the_superblock_knows_opens_too)
{
    make_old(0);
    memmove(im.data + 512, im.data, im.nbytes);
    memset(im.data, ' ', 512);
    im.nbytes += 512;
    image_patch(&im, 512 + 24, 8, 512);
    image_patch(&im, 512 + 40, 8, im.nbytes);
    scio_h5_file *file = image_open(&im);
    uint8_t signature[4];

    CHECK(scio_h5_file_superblock(file)->base == 512);
    CHECK(scio_h5_file_superblock(file)->end == im.nbytes);
    CHECK(scio_h5_read(file, 0, 4, signature, NULL) == SCIO_OK && signature[1] == 'H');
    scio_h5_file_release(file);
}

TEST(one_byte_less_is_truncated_and_more_is_ignored)
{
    for (unsigned version = 0; version <= 3; version++) {
        if (version < 2)
            make_old(version);
        else
            make_new(version);
        image_text(&im, "tail");
        scio_h5_file *file = image_open(&im);
        uint8_t byte;

        CHECK(scio_h5_file_superblock(file)->end == im.nbytes - 4);
        CHECK_FAILS(scio_h5_read(file, im.nbytes - 4, 1, &byte, &err), SCIO_ECORRUPT,
                    "beyond the end");
        scio_h5_file_release(file);
        im.nbytes -= 5;
        CHECK_FAILS(open_im(&err), SCIO_ECORRUPT, "truncated: ");
    }
}

TEST(a_truncated_file_opens_to_be_salvaged_and_is_read_to_its_end)
{
    scio_h5_limits limits;

    scio_h5_limits_default(&limits);
    CHECK(!limits.is_salvage);
    limits.is_salvage = true;
    for (unsigned version = 0; version <= 3; version++) {
        scio_h5_file *file = NULL;
        uint64_t end;
        uint8_t byte;

        if (version < 2)
            make_old(version);
        else
            make_new(version);
        end = im.nbytes;
        im.nbytes -= 5;
        CHECK(image_open_with(&im, &limits, &file, NULL) == SCIO_OK);
        CHECK(scio_h5_file_superblock(file)->end == end);
        CHECK(scio_h5_read(file, end - 6, 1, &byte, NULL) == SCIO_OK);
        CHECK_FAILS(scio_h5_read(file, end - 5, 1, &byte, &err), SCIO_ECORRUPT, "truncated: ");
        CHECK(scio_h5_skips(file, SCIO_ECORRUPT) && scio_h5_skips(file, SCIO_EUNSUPPORTED));
        CHECK(!scio_h5_skips(file, SCIO_OK) && !scio_h5_skips(file, SCIO_ENOMEM));
        scio_h5_file_release(file);
    }
}

TEST(every_truncation_of_a_superblock_is_an_error)
{
    for (unsigned version = 0; version <= 3; version++) {
        if (version < 2)
            make_old(version);
        else
            make_new(version);
        for (size_t n = im.nbytes; n-- > 0;) {
            scio_error err = SCIO_ERROR_INIT;

            im.nbytes = n;
            CHECK(open_im(&err) == (n < 8 ? SCIO_EFORMAT : SCIO_ECORRUPT));
        }
    }
}

TEST(fields_of_old_superblocks_are_checked)
{
    set_old(8, 1, 4);
    CHECK_FAILS(open_im(&err), SCIO_EUNSUPPORTED, "version 4, read are 0 to 3");
    set_old(9, 1, 1);
    CHECK_FAILS(open_im(&err), SCIO_EUNSUPPORTED, "byte 9: free space has version 1");
    set_old(10, 1, 1);
    CHECK_FAILS(open_im(&err), SCIO_EUNSUPPORTED, "root entry has version 1");
    set_old(12, 1, 1);
    CHECK_FAILS(open_im(&err), SCIO_EUNSUPPORTED, "shared header has version 1");
    set_old(13, 1, 16);
    CHECK_FAILS(open_im(&err), SCIO_EUNSUPPORTED, "offsets of 16 bytes, read are 2, 4 and 8");
    set_old(13, 1, 0);
    CHECK_FAILS(open_im(&err), SCIO_ECORRUPT, "offsets of 0 bytes, expected 2, 4 or 8");
    set_old(14, 1, 32);
    CHECK_FAILS(open_im(&err), SCIO_EUNSUPPORTED, "lengths of 32 bytes");
    set_old(14, 1, 9);
    CHECK_FAILS(open_im(&err), SCIO_ECORRUPT, "lengths of 9 bytes");
    set_old(16, 2, 0);
    CHECK_FAILS(open_im(&err), SCIO_ECORRUPT, "group leaf K is 0");
    set_old(18, 2, 0);
    CHECK_FAILS(open_im(&err), SCIO_ECORRUPT, "group internal K is 0");
    set_old(20, 4, 8);
    CHECK_FAILS(open_im(&err), SCIO_ECORRUPT, "consistency flags 0x08");
    set_old(20, 4, 5); /* old versions ignore the marks of writers */
    CHECK(open_im(NULL) == SCIO_OK);
    set_old(24, 8, 1000);
    CHECK_FAILS(open_im(&err), SCIO_ECORRUPT, "with base 1000");
    set_old(40, 8, UNDEFINED);
    CHECK_FAILS(open_im(&err), SCIO_ECORRUPT, "end of file");
    set_old(64, 8, 196);
    CHECK_FAILS(open_im(&err), SCIO_ECORRUPT, "root group at address 196, the file ends at 196");
    set_old(64, 8, UNDEFINED);
    CHECK_FAILS(open_im(&err), SCIO_ECORRUPT, "root group at address");
    make_old(1);
    image_patch(&im, 24, 2, 0);
    CHECK_FAILS(open_im(&err), SCIO_ECORRUPT, "chunk K is 0");
}

TEST(a_driver_block_names_its_driver)
{
    set_old(48, 8, 100);
    memcpy(im.data + 108, "NCSAfami", 8);
    CHECK_FAILS(open_im(&err), SCIO_EUNSUPPORTED, "driver \"NCSAfami\"");
    set_old(48, 8, 1 << 20);
    CHECK_FAILS(open_im(&err), SCIO_ECORRUPT, "beyond the end");
}

TEST(fields_of_new_superblocks_are_checked)
{
    make_new(2);
    im.data[40] ^= 1;
    CHECK_FAILS(open_im(&err), SCIO_ECORRUPT, "superblock at byte 0: checksum");
    set_new(2, 9, 1, 16);
    CHECK_FAILS(open_im(&err), SCIO_EUNSUPPORTED, "offsets of 16 bytes");
    set_new(2, 10, 1, 3);
    CHECK_FAILS(open_im(&err), SCIO_ECORRUPT, "lengths of 3 bytes");
    set_new(2, 36, 8, 148);
    CHECK_FAILS(open_im(&err), SCIO_ECORRUPT, "root group at address 148");
    set_new(2, 20, 8, 60); /* an extension that is no header */
    CHECK_FAILS(open_im(&err), SCIO_ECORRUPT, "superblock extension: object at address 60");
    set_new(3, 8, 1, 4);
    CHECK_FAILS(open_im(&err), SCIO_EUNSUPPORTED, "version 4");
}

TEST(a_file_marked_by_a_writer_is_refused_from_version_3_on)
{
    set_new(3, 11, 1, 1);
    CHECK_FAILS(open_im(&err), SCIO_EUNSUPPORTED, "h5clear -s");
    set_new(3, 11, 1, 4);
    CHECK_FAILS(open_im(&err), SCIO_EUNSUPPORTED, "h5clear -s");
    set_new(3, 11, 1, 5);
    CHECK_FAILS(open_im(&err), SCIO_EUNSUPPORTED, "h5clear -s");
    set_new(3, 11, 1, 2);
    CHECK(open_im(NULL) == SCIO_OK);
    set_new(3, 11, 1, 8);
    CHECK_FAILS(open_im(&err), SCIO_ECORRUPT, "consistency flags 0x08");
    set_new(2, 11, 1, 5);
    CHECK(open_im(NULL) == SCIO_OK);
}

/* A superblock 2 whose extension has one message. */
static void
make_extension(unsigned type, const void *data, size_t nbytes)
{
    image_new_superblock(&im, 2, 8, 8, 48);
    image_patch(&im, 20, 8, image_header_v2(&im));
    image_message_v2(&im, type, 0, data, nbytes);
    image_header_v2_end(&im);
    image_finish(&im);
}

TEST(the_extension_gives_the_sizes_of_trees)
{
    const uint8_t k_values[] = {0, 7, 0, 5, 0, 3, 0};
    const uint8_t zero[] = {0, 7, 0, 0, 0, 3, 0};
    scio_h5_file *file;

    make_extension(0x13, k_values, sizeof k_values);
    file = image_open(&im);
    CHECK(scio_h5_file_superblock(file)->chunk_k == 7);
    CHECK(scio_h5_file_superblock(file)->group_internal_k == 5);
    CHECK(scio_h5_file_superblock(file)->group_leaf_k == 3);
    scio_h5_file_release(file);
    make_extension(0x13, zero, sizeof zero);
    CHECK_FAILS(open_im(&err), SCIO_ECORRUPT, "group internal K is 0");
    make_extension(0x13, k_values, 4);
    CHECK_FAILS(open_im(&err), SCIO_ECORRUPT, "K values");
    make_extension(0x13, "\1\7\0\5\0\3", 7);
    CHECK_FAILS(open_im(&err), SCIO_EUNSUPPORTED, "version 1");
}

TEST(drivers_and_cache_images_in_the_extension_are_refused)
{
    make_extension(0x14, "\0NCSAmult\0\0", 11);
    CHECK_FAILS(open_im(&err), SCIO_EUNSUPPORTED, "driver \"NCSAmult\"");
    make_extension(0x14, "\0", 1);
    CHECK_FAILS(open_im(&err), SCIO_EUNSUPPORTED, "driver \"\"");
    make_extension(0x18, "\0", 1);
    CHECK_FAILS(open_im(&err), SCIO_EUNSUPPORTED, "metadata cache image");
    make_extension(0x17, "\0", 1); /* where free space is kept: nothing to know */
    CHECK(open_im(NULL) == SCIO_OK);
}

TEST(a_file_of_another_kind_is_named)
{
    static const struct {
        size_t nbytes;
        const char *bytes, *text;
    } files[] = {
        {0, "", "an empty file"},
        {4, "\x1f\x8b\x08\x00", "a gzip-compressed file (gunzip it first)"},
        {4, "PK\x03\x04", "a zip archive"},
        {4, "\x28\xb5\x2f\xfd", "a zstd-compressed file"},
        {4, "BZh9", "a bzip2-compressed file"},
        {6, "\xfd\x37zXZ", "an xz-compressed file"},
        {7, "\x93NUMPY\x01", "a NumPy .npy file"},
        {4, "PAR1", "a Parquet file"},
        {16, "SQLite format 3", "an SQLite database"},
        {4, "\x80\x04\x95\x01", "a Python pickle"},
        {22, "\n <!DOCTYPE HTML>\n<p>x", "an HTML page"},
        {14, "\xef\xbb\xbf<html>x</p>", "an HTML page"},
        {6, "<?xml ", "an XML file"},
        {39, "version https://git-lfs.github.com/spec", "a Git LFS pointer"},
        {8, "cell,x\r\n", "a text file"},
        {6, "gr\xc3\xbcn\n", "a text file"},
        {5, "\x89HDF\n", "transfer in text mode"},
        {8, "\x89HDF\n\x1a\n", "transfer in text mode"},
        {3, "\0\0\0", "a file of zeros"},
        {4, "\x07\x01\x80\xff", "binary data"},
    };

    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        memset(&im, 0, sizeof im);
        image_bytes(&im, files[i].bytes, files[i].nbytes);
        CHECK_FAILS(open_im(&err), SCIO_EFORMAT, files[i].text);
        CHECK_FAILS(open_im(&err), SCIO_EFORMAT, "not an HDF5 file: it looks like ");
    }
    memset(&im, 0, sizeof im);
    image_text(&im, "name");
    image_zeros(&im, 253);
    image_text(&im, "ustar");
    CHECK_FAILS(open_im(&err), SCIO_EFORMAT, "a tar archive");
}

TEST(reads_stay_between_base_and_end)
{
    scio_h5_file *file;
    uint8_t bytes[64];

    make_new(2);
    file = image_open(&im);
    CHECK(scio_h5_read(file, 0, 64, bytes, NULL) == SCIO_OK);
    CHECK(memcmp(bytes, im.data, 64) == 0);
    CHECK(scio_h5_read(file, im.nbytes, 0, bytes, NULL) == SCIO_OK);
    CHECK_FAILS(scio_h5_read(file, im.nbytes - 3, 4, bytes, &err), SCIO_ECORRUPT,
                "4 bytes at address 145 + base 0 reach beyond the end of the file at byte 148");
    CHECK_FAILS(scio_h5_read(file, UNDEFINED, 1, bytes, &err), SCIO_ECORRUPT, "undefined");
    CHECK_FAILS(scio_h5_check_range(file, UINT64_MAX - 1, 8, &err), SCIO_ECORRUPT,
                "beyond the end");
    CHECK_FAILS(scio_h5_check_range(file, 8, UINT64_MAX, &err), SCIO_ECORRUPT, "beyond the end");
    scio_h5_file_release(file);
}

TEST(opening_survives_every_failing_allocation)
{
    const uint8_t k_values[] = {0, 7, 0, 5, 0, 3, 0};
    scio_status status;

    make_extension(0x13, k_values, sizeof k_values);
    CHECK_EVERY_ALLOCATION(status = open_im(NULL), status);
}

TEST(a_file_lives_until_the_last_release)
{
    scio_h5_file *file;
    scio_h5_limits limits;

    make_old(0);
    scio_h5_limits_default(&limits);
    limits.n_members = 5;
    CHECK(image_open_with(&im, &limits, &file, NULL) == SCIO_OK);
    CHECK(scio_h5_file_limits(file)->n_members == 5);
    CHECK(scio_h5_file_retain(file) == file);
    scio_h5_file_release(file);
    CHECK(scio_source_nbytes(scio_h5_file_source(file)) == im.nbytes);
    scio_h5_file_release(file);
    scio_h5_file_release(NULL);
    CHECK(scio_h5_file_retain(NULL) == NULL);
}

static scio_status
read_zeros(void *context, uint64_t offset, size_t nbytes, void *dst, scio_error *err)
{
    (void)context;
    (void)offset;
    (void)err;
    memset(dst, 0, nbytes);
    return SCIO_OK;
}

TEST(the_search_ends_in_a_source_of_any_size)
{
    scio_source *source = NULL;
    scio_h5_file *file = NULL;

    CHECK(scio_source_from_callback(UINT64_MAX, "endless", read_zeros, NULL, NULL, &source, NULL) ==
          SCIO_OK);
    CHECK_FAILS(scio_h5_file_open(source, NULL, &file, &err), SCIO_EFORMAT, "a file of zeros");
    scio_source_release(source);
}

/* ---- the cache of blocks ---- */

typedef struct remote {
    uint8_t *data;
    size_t nbytes;
    size_t n_requests;
    bool is_broken;
} remote;

static scio_status
read_remote(void *context, uint64_t offset, size_t nbytes, void *dst, scio_error *err)
{
    remote *const r = context;

    if (r->is_broken)
        return scio_fail(err, SCIO_EIO, "connection lost");
    (void)__atomic_add_fetch(&r->n_requests, 1, __ATOMIC_RELAXED);
    memcpy(dst, r->data + offset, nbytes);
    return SCIO_OK;
}

/* 5 MiB: a superblock, then bytes that can be told from their position. */
static scio_h5_file *
open_remote(remote *r)
{
    scio_h5_file *file = NULL;
    scio_source *source = NULL;

    r->nbytes = (size_t)5 << 20;
    r->n_requests = 0;
    r->is_broken = false;
    r->data = malloc(r->nbytes);
    for (size_t i = 0; i < r->nbytes; i++)
        r->data[i] = (uint8_t)(i * 31 + (i >> 8) * 7 + (i >> 16));
    image_old_superblock(&im, 0, 8, 8, 4096);
    image_patch(&im, im.end_at, 8, r->nbytes);
    memcpy(r->data, im.data, im.nbytes);
    CHECK(scio_source_from_callback(r->nbytes, "remote", read_remote, NULL, r, &source, NULL) ==
          SCIO_OK);
    CHECK(scio_h5_file_open(source, NULL, &file, NULL) == SCIO_OK);
    scio_source_release(source);
    return file;
}

TEST(small_reads_of_a_remote_file_share_requests)
{
    remote r;
    scio_h5_file *file = open_remote(&r);
    uint8_t bytes[600];

    CHECK(r.n_requests == 1);
    for (uint64_t at = 0; at < (1u << 20); at += 512) {
        CHECK(scio_h5_read(file, at, sizeof bytes, bytes, NULL) == SCIO_OK);
        CHECK(memcmp(bytes, r.data + at, sizeof bytes) == 0);
    }
    CHECK(r.n_requests == 5);
    scio_h5_file_release(file);
    free(r.data);
}

TEST(large_reads_go_past_the_cache)
{
    remote r;
    scio_h5_file *file = open_remote(&r);
    const size_t nbytes = (size_t)1 << 20;
    uint8_t *bytes = malloc(nbytes);

    CHECK(scio_h5_read(file, 1000, nbytes, bytes, NULL) == SCIO_OK && r.n_requests == 2);
    CHECK(memcmp(bytes, r.data + 1000, nbytes) == 0);
    free(bytes);
    scio_h5_file_release(file);
    free(r.data);
}

TEST(a_failed_read_is_not_remembered)
{
    remote r;
    scio_h5_file *file = open_remote(&r);
    uint8_t bytes[8];

    r.is_broken = true;
    CHECK_FAILS(scio_h5_read(file, 1 << 20, 8, bytes, &err), SCIO_EIO, "connection lost");
    r.is_broken = false;
    CHECK(scio_h5_read(file, 1 << 20, 8, bytes, NULL) == SCIO_OK);
    CHECK(memcmp(bytes, r.data + (1 << 20), 8) == 0);
    scio_h5_file_release(file);
    free(r.data);
}

typedef struct reader {
    scio_h5_file *file;
    const remote *r;
    uint64_t seed;
    bool is_wrong;
} reader;

static void *
run_reader(void *context)
{
    reader *const w = context;
    uint8_t bytes[5000];

    for (int i = 0; i < 3000; i++) {
        w->seed = w->seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
        const uint64_t at = (w->seed >> 33) % (w->r->nbytes - sizeof bytes);
        const size_t nbytes = (size_t)(w->seed >> 20) % sizeof bytes;

        w->is_wrong = w->is_wrong || scio_h5_read(w->file, at, nbytes, bytes, NULL) != SCIO_OK ||
                      memcmp(bytes, w->r->data + at, nbytes) != 0;
    }
    return NULL;
}

TEST(threads_that_read_at_once_see_the_file_s_bytes)
{
    remote r;
    scio_h5_file *file = open_remote(&r);
    pthread_t threads[4];
    reader readers[4];

    for (size_t i = 0; i < 4; i++) {
        readers[i] = (reader){file, &r, i, false};
        CHECK(pthread_create(&threads[i], NULL, run_reader, &readers[i]) == 0);
    }
    for (size_t i = 0; i < 4; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
        CHECK(!readers[i].is_wrong);
    }
    scio_h5_file_release(file);
    free(r.data);
}
