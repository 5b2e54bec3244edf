#include "codec_testing.h"

#include "base/mem.h"
#include "base/stats.h"

#include <libdeflate.h>
#include <pthread.h>

static scio_status
decode_pipeline(const fixture *f, scio_decoder *decoder, const uint8_t *in, size_t in_nbytes,
                uint8_t *out, size_t out_capacity, size_t *out_nbytes, scio_error *err)
{
    *out_nbytes = out_capacity; /* exactly, or an error */
    return scio_pipeline_decode(&f->pipeline, f->filter_mask, decoder, in, in_nbytes, out,
                                out_capacity, err);
}

/* Whether this build has the libraries: the check knows, but for Blosc's inner codec, which only
 * the chunk tells. */
static bool
is_built(const fixture *f)
{
    bool has_codec = scio_pipeline_check(&f->pipeline, f->filter_mask, NULL) == SCIO_OK;

    for (size_t i = 0; i < f->pipeline.n_filters; i++) {
        const scio_filter *filter = &f->pipeline.filters[i];
        const uint32_t codec = filter->id == SCIO_FILTER_BLOSC ? filter->client[6] : 0;

        if (codec == 1 || codec == 2)
            has_codec = has_codec && scio_filter_is_supported(SCIO_FILTER_LZ4);
        if (codec == 5)
            has_codec = has_codec && scio_filter_is_supported(SCIO_FILTER_ZSTD);
    }
    return has_codec;
}

static bool
is_masked(const fixture *f)
{
    return f->filter_mask != 0;
}

TEST(pipeline_undoes_chains_that_hdf5_wrote)
{
    CHECK(check_fixtures("pipeline", decode_pipeline, is_built, 200) >= 19);
}

TEST(pipeline_skips_filters_that_the_mask_names)
{
    CHECK(check_fixtures("lzf", decode_pipeline, is_masked, 20) == 4);
    CHECK(check_fixtures("blosc", decode_pipeline, is_masked, 20) > 4);
    CHECK(check_fixtures("pipeline", decode_pipeline, is_masked, 20) == 1);
}

TEST(pipeline_gives_the_same_bytes_in_a_decoder_that_met_other_chunks_before)
{
    static const char *const families[] = {"pipeline", "blosc", "bitshuffle", "deflate",
                                           "lzf",      "lz4",   "zstd"};
    fixture_set sets[7];
    random_source r = {11, 0};
    scio_decoder *decoder = NULL;

    CHECK(scio_decoder_new(&decoder, NULL) == SCIO_OK);
    for (size_t k = 0; k < 7; k++)
        sets[k] = fixtures_load(families[k]);
    for (size_t round = 0; round < 3000; round++) {
        const fixture_set *set = &sets[random_below(&r, 7)];
        const fixture *f = &set->cases[random_below(&r, set->n_cases)];
        const bool is_cut = random_below(&r, 3) == 0; /* errors must not spoil what comes after */
        uint8_t *out;

        if (!is_built(f))
            continue;
        scio_decoder_set_deflate_engine(decoder, round % 2 != 0 ? SCIO_DEFLATE_ISAL
                                                                : SCIO_DEFLATE_LIBDEFLATE);
        out = malloc(f->raw_nbytes);
        CHECK(scio_pipeline_decode(&f->pipeline, f->filter_mask, decoder, f->stored,
                                   f->stored_nbytes - is_cut, out, f->raw_nbytes,
                                   NULL) == (is_cut ? SCIO_ECORRUPT : SCIO_OK));
        CHECK(is_cut || memcmp(out, f->raw, f->raw_nbytes) == 0);
        free(out);
    }
    for (size_t k = 0; k < 7; k++)
        fixtures_free(&sets[k]);
    scio_decoder_free(decoder);
}

static void *
decode_all(void *is_right)
{
    static const char *const families[] = {"pipeline", "blosc", "bitshuffle", "deflate", "zstd"};
    scio_decoder *decoder = NULL;
    bool is_same = scio_decoder_new(&decoder, NULL) == SCIO_OK;

    for (size_t k = 0; k < 5; k++) {
        fixture_set set = fixtures_load(families[k]);

        for (size_t i = 0; i < set.n_cases; i++) {
            const fixture *f = &set.cases[i];
            uint8_t *out = malloc(f->raw_nbytes);

            if (is_built(f))
                is_same =
                    is_same &&
                    scio_pipeline_decode(&f->pipeline, f->filter_mask, decoder, f->stored,
                                         f->stored_nbytes, out, f->raw_nbytes, NULL) == SCIO_OK &&
                    memcmp(out, f->raw, f->raw_nbytes) == 0;
            free(out);
        }
        fixtures_free(&set);
    }
    scio_decoder_free(decoder);
    *(bool *)is_right = is_same;
    return NULL;
}

TEST(pipeline_runs_in_threads_that_have_a_decoder_each)
{
    pthread_t threads[3];
    bool is_right[3] = {false, false, false};

    for (size_t k = 0; k < 3; k++)
        CHECK(pthread_create(&threads[k], NULL, decode_all, &is_right[k]) == 0);
    for (size_t k = 0; k < 3; k++) {
        CHECK(pthread_join(threads[k], NULL) == 0);
        CHECK(is_right[k]);
    }
}

/* ---- planes ---- */

/* The general path is the oracle: planes, unshuffled here, are what it gives. */
static void
check_planes(const fixture *f, scio_decoder *decoder, size_t *n_planed)
{
    guarded out = guarded_new(f->raw_nbytes);
    uint8_t *to = guarded_end(&out, f->raw_nbytes), *plain = malloc(f->raw_nbytes);
    size_t itemsize = 0;

    CHECK(scio_pipeline_decode_planes(&f->pipeline, f->filter_mask, decoder, f->stored,
                                      f->stored_nbytes, to, f->raw_nbytes, &itemsize,
                                      NULL) == SCIO_OK);
    CHECK(itemsize >= 1 && f->raw_nbytes % itemsize == 0);
    if (itemsize == 1) {
        CHECK(memcmp(to, f->raw, f->raw_nbytes) == 0);
    } else {
        CHECK(f->pipeline.filters[0].id == SCIO_FILTER_SHUFFLE);
        CHECK(itemsize == f->pipeline.filters[0].client[0]);
        CHECK(memcmp(to, f->raw, f->raw_nbytes) != 0);
        CHECK(scio_unshuffle(to, f->raw_nbytes, itemsize, plain, NULL) == SCIO_OK);
        CHECK(memcmp(plain, f->raw, f->raw_nbytes) == 0);
        ++*n_planed;
    }
    guarded_free(&out);
    free(plain);
}

TEST(pipeline_planes_are_the_chunk_before_a_first_shuffle_is_undone)
{
    fixture_set set = fixtures_load("pipeline");
    scio_decoder *decoder = NULL;
    size_t n_planed = 0;

    CHECK(scio_decoder_new(&decoder, NULL) == SCIO_OK);
    for (size_t i = 0; i < set.n_cases; i++)
        if (is_built(&set.cases[i]))
            check_planes(&set.cases[i], decoder, &n_planed);
    CHECK(n_planed >= 11);
    scio_decoder_free(decoder);
    fixtures_free(&set);
}

static scio_pipeline
pipeline_of(const uint16_t *ids, size_t n_filters)
{
    scio_pipeline p = {n_filters, {{0}}};

    for (size_t i = 0; i < n_filters; i++) {
        p.filters[i].id = ids[i];
        p.filters[i].n_client = 1;
        p.filters[i].client[0] = 4;
    }
    return p;
}

TEST(pipeline_planes_are_plain_elements_where_planes_would_not_be_whole)
{
    const scio_pipeline shuffle = pipeline_of((const uint16_t[]){SCIO_FILTER_SHUFFLE}, 1);
    const scio_pipeline shuffles =
        pipeline_of((const uint16_t[]){SCIO_FILTER_SHUFFLE, SCIO_FILTER_SHUFFLE}, 2);
    const uint8_t planes[9] = {0, 4, 1, 5, 2, 6, 3, 7, 8};
    uint8_t out[9];
    size_t itemsize = 0;
    scio_decoder *decoder = NULL;

    CHECK(scio_decoder_new(&decoder, NULL) == SCIO_OK);
    /* a byte beyond the last element */
    CHECK(scio_pipeline_decode_planes(&shuffle, 0, decoder, planes, 9, out, 9, &itemsize, NULL) ==
          SCIO_OK);
    CHECK(itemsize == 1 && memcmp(out, "\0\1\2\3\4\5\6\7\x08", 9) == 0);
    /* whole planes */
    CHECK(scio_pipeline_decode_planes(&shuffle, 0, decoder, planes, 8, out, 8, &itemsize, NULL) ==
          SCIO_OK);
    CHECK(itemsize == 4 && memcmp(out, planes, 8) == 0);
    /* one element, a skipped filter, no filter */
    CHECK(scio_pipeline_decode_planes(&shuffle, 0, decoder, planes, 4, out, 4, &itemsize, NULL) ==
          SCIO_OK);
    CHECK(itemsize == 1 && memcmp(out, planes, 4) == 0);
    CHECK(scio_pipeline_decode_planes(&shuffle, 1, decoder, planes, 8, out, 8, &itemsize, NULL) ==
          SCIO_OK);
    CHECK(itemsize == 1 && memcmp(out, planes, 8) == 0);
    /* only the first filter is left standing, the second one is undone */
    CHECK(scio_pipeline_decode_planes(&shuffles, 0, decoder, planes, 8, out, 8, &itemsize, NULL) ==
          SCIO_OK);
    CHECK(itemsize == 4 && memcmp(out, "\0\1\2\3\4\5\6\7", 8) == 0);
    CHECK(scio_pipeline_decode_planes(&shuffle, 0, decoder, planes, 8, out, 9, &itemsize, NULL) ==
          SCIO_ECORRUPT);
    scio_decoder_free(decoder);
}

/* ---- counters ---- */

TEST(pipeline_counts_chunks_bytes_and_direct_inflation)
{
    fixture_set set = fixtures_load("pipeline"), gzip = fixtures_load("deflate");
    const int64_t chunks = scio_stats_get(SCIO_STAT_chunks_decoded);
    const int64_t nbytes = scio_stats_get(SCIO_STAT_nbytes_decoded);
    int64_t direct = scio_stats_get(SCIO_STAT_direct_chunks);
    const fixture *f = &gzip.cases[0];
    uint8_t *out = malloc(f->raw_nbytes);
    scio_decoder *decoder = NULL;
    size_t itemsize;

    CHECK(scio_decoder_new(&decoder, NULL) == SCIO_OK);
    CHECK(scio_pipeline_decode(&f->pipeline, 0, decoder, f->stored, f->stored_nbytes, out,
                               f->raw_nbytes, NULL) == SCIO_OK);
    CHECK(scio_stats_get(SCIO_STAT_direct_chunks) == direct + 1);
    CHECK(scio_pipeline_decode_planes(&f->pipeline, 0, decoder, f->stored, f->stored_nbytes, out,
                                      f->raw_nbytes, &itemsize, NULL) == SCIO_OK);
    CHECK(scio_stats_get(SCIO_STAT_direct_chunks) == direct + 2);
    CHECK(scio_stats_get(SCIO_STAT_chunks_decoded) == chunks + 2);
    CHECK(scio_stats_get(SCIO_STAT_nbytes_decoded) == nbytes + 2 * (int64_t)f->raw_nbytes);
    CHECK(scio_pipeline_decode(&f->pipeline, 0, decoder, f->stored, 3, out, f->raw_nbytes, NULL) ==
          SCIO_ECORRUPT);
    CHECK(scio_stats_get(SCIO_STAT_chunks_decoded) == chunks + 2);
    direct = scio_stats_get(SCIO_STAT_direct_chunks);
    for (size_t i = 0; i < 2; i++) { /* shuffle and gzip, with and without fletcher32: two steps */
        uint8_t *to = malloc(set.cases[i].raw_nbytes);

        CHECK(decode_pipeline(&set.cases[i], decoder, set.cases[i].stored,
                              set.cases[i].stored_nbytes, to, set.cases[i].raw_nbytes, &itemsize,
                              NULL) == SCIO_OK);
        free(to);
    }
    CHECK(scio_stats_get(SCIO_STAT_direct_chunks) == direct);
    scio_decoder_free(decoder);
    free(out);
    fixtures_free(&set);
    fixtures_free(&gzip);
}

/* ---- chains that no usual writer makes ---- */

static size_t
deflate(const void *raw, size_t nbytes, uint8_t *stored, size_t capacity)
{
    struct libdeflate_compressor *c = libdeflate_alloc_compressor(6);
    const size_t n = libdeflate_zlib_compress(c, raw, nbytes, stored, capacity);

    libdeflate_free_compressor(c);
    return n;
}

TEST(pipeline_undoes_a_checksum_that_lies_inside_the_compression)
{
    const scio_pipeline p =
        pipeline_of((const uint16_t[]){SCIO_FILTER_FLETCHER32, SCIO_FILTER_DEFLATE}, 2);
    uint8_t summed[12] = "abcdefgh", stored[100], out[8];
    const int64_t direct = scio_stats_get(SCIO_STAT_direct_chunks);
    scio_decoder *decoder = NULL;
    scio_error err = SCIO_ERROR_INIT;
    size_t n;

    store_le32(summed + 8, 0xe1eb9195u);
    n = deflate(summed, 12, stored, sizeof stored);
    CHECK(scio_decoder_new(&decoder, NULL) == SCIO_OK);
    CHECK(scio_pipeline_decode(&p, 0, decoder, stored, n, out, 8, NULL) == SCIO_OK);
    CHECK(memcmp(out, "abcdefgh", 8) == 0);
    CHECK(scio_stats_get(SCIO_STAT_direct_chunks) == direct); /* it went through scratch */
    summed[3] = 'D';
    n = deflate(summed, 12, stored, sizeof stored);
    CHECK(scio_pipeline_decode(&p, 0, decoder, stored, n, out, 8, &err) == SCIO_ECORRUPT);
    CHECK_STR(err.message, "filter 1 of 2 (fletcher32): fletcher32: the checksum of 8 bytes");
    scio_decoder_free(decoder);
}

TEST(pipeline_undoes_32_filters_and_not_one_that_is_masked)
{
    scio_pipeline p = {SCIO_MAX_FILTERS, {{0}}};
    uint8_t a[2000] = "nested", b[2000], out[7];
    size_t n = 7;
    scio_decoder *decoder = NULL;

    for (size_t i = 0; i < SCIO_MAX_FILTERS; i++)
        p.filters[i].id = i % 2 != 0 ? SCIO_FILTER_DEFLATE : 9999;
    for (size_t i = 1; i < SCIO_MAX_FILTERS; i += 2) {
        n = deflate(a, n, b, sizeof b);
        memcpy(a, b, n);
    }
    CHECK(scio_decoder_new(&decoder, NULL) == SCIO_OK);
    CHECK(scio_pipeline_decode(&p, 0x55555555u, decoder, a, n, out, 7, NULL) == SCIO_OK);
    CHECK(memcmp(out, "nested", 7) == 0);
    CHECK(scio_pipeline_decode(&p, 0x15555555u, decoder, a, n, out, 7, NULL) == SCIO_EUNSUPPORTED);
    scio_decoder_free(decoder);
}

TEST(pipeline_bounds_what_a_filter_in_the_middle_may_give)
{
    const scio_pipeline p =
        pipeline_of((const uint16_t[]){SCIO_FILTER_DEFLATE, SCIO_FILTER_DEFLATE}, 2);
    const size_t n_zeros = 2000000;
    uint8_t *zeros = calloc(1, n_zeros), *once = malloc(10000), out[16];
    const size_t n_once = deflate(zeros, n_zeros, once, 10000);
    scio_decoder *decoder = NULL;
    scio_error err = SCIO_ERROR_INIT;

    CHECK(scio_decoder_new(&decoder, NULL) == SCIO_OK);
    CHECK(n_once > 0); /* a bomb: 2 MB in the middle of a chunk of 16 bytes */
    CHECK(scio_pipeline_decode(&p, 0, decoder, once, n_once, out, 16, &err) == SCIO_ECORRUPT);
    CHECK_STR(err.message, "filter 2 of 2 (deflate): the zlib stream inflates to more than the "
                           "65554 bytes expected");
    CHECK(scio_decoder_nbytes(decoder) < 200000);
    scio_decoder_free(decoder);
    free(zeros);
    free(once);
}

TEST(pipeline_output_bombs_end_at_the_chunk_whatever_the_filter)
{
    static const char *const cases[][2] = {{"deflate", "gzip9 zeros"},
                                           {"lzf", "lzf long matches"},
                                           {"zstd", "zstd3 long"},
                                           {"lz4", "lz4 block 0 zeros"},
                                           {"blosc", "blosc blosclz many blocks"},
                                           {"bitshuffle", "bitshuffle lz4 size 8 n 403"}};

    for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
        fixture_set set = fixtures_load(cases[k][0]);
        size_t n_found = 0;

        for (size_t i = 0; i < set.n_cases; i++) {
            const fixture *f = &set.cases[i];
            bench b;
            size_t out_nbytes;

            if (strcmp(f->name, cases[k][1]) != 0)
                continue;
            n_found++;
            if (!is_built(f))
                continue;
            b = bench_new(f, decode_pipeline);
            for (size_t n = 0; n < 64; n++)
                CHECK(bench_decode(&b, f->stored, f->stored_nbytes, n, &out_nbytes, NULL) ==
                      SCIO_ECORRUPT);
            bench_free(&b);
        }
        CHECK(n_found == 1);
        fixtures_free(&set);
    }
}

TEST(pipeline_without_filters_copies_exactly_the_chunk)
{
    const scio_pipeline p = {0, {{0}}};
    const uint8_t in[8] = "12345678";
    uint8_t out[8] = {0};
    scio_decoder *decoder = NULL;
    scio_error err = SCIO_ERROR_INIT;

    CHECK(scio_decoder_new(&decoder, NULL) == SCIO_OK);
    CHECK(scio_pipeline_decode(&p, 0xffffffffu, decoder, in, 8, out, 8, NULL) == SCIO_OK);
    CHECK(memcmp(in, out, 8) == 0);
    CHECK(scio_pipeline_decode(&p, 0, decoder, in, 7, out, 8, &err) == SCIO_ECORRUPT);
    CHECK_STR(err.message, "7 bytes are stored, expected 8");
    CHECK(scio_pipeline_decode(&p, 0, decoder, in, 8, out, 7, NULL) == SCIO_ECORRUPT);
    CHECK(scio_pipeline_decode(&p, 0, decoder, NULL, 0, NULL, 0, NULL) == SCIO_OK);
    scio_decoder_free(decoder);
}

TEST(pipeline_refuses_a_result_one_byte_short)
{
    const scio_pipeline p = pipeline_of((const uint16_t[]){SCIO_FILTER_DEFLATE}, 1);
    uint8_t stored[100], out[9];
    const size_t n = deflate("12345678", 8, stored, sizeof stored);
    scio_decoder *decoder = NULL;
    scio_error err = SCIO_ERROR_INIT;

    CHECK(scio_decoder_new(&decoder, NULL) == SCIO_OK);
    CHECK(scio_pipeline_decode(&p, 0, decoder, stored, n, out, 9, &err) == SCIO_ECORRUPT);
    CHECK_STR(err.message, "8 bytes came out of the filters, expected 9");
    scio_decoder_free(decoder);
}

TEST(pipeline_refuses_a_shuffle_without_its_element_size)
{
    scio_pipeline p = pipeline_of((const uint16_t[]){SCIO_FILTER_SHUFFLE}, 1);
    const uint8_t in[8] = {0};
    uint8_t out[8];
    scio_decoder *decoder = NULL;
    scio_error err = SCIO_ERROR_INIT;
    size_t itemsize = 0;

    CHECK(scio_decoder_new(&decoder, NULL) == SCIO_OK);
    p.filters[0].client[0] = 0;
    CHECK(scio_pipeline_decode(&p, 0, decoder, in, 8, out, 8, &err) == SCIO_ECORRUPT);
    CHECK_STR(err.message, "filter 1 of 1 (shuffle): shuffle: the element size is 0");
    CHECK(scio_pipeline_decode_planes(&p, 0, decoder, in, 8, out, 8, &itemsize, NULL) ==
          SCIO_ECORRUPT);
    p.filters[0].n_client = 0;
    CHECK(scio_pipeline_decode_planes(&p, 0, decoder, in, 8, out, 8, &itemsize, NULL) ==
          SCIO_ECORRUPT);
    CHECK(itemsize == 0);
    scio_decoder_free(decoder);
}

TEST(pipeline_check_names_id_stored_name_place_and_whether_optional)
{
    scio_pipeline p = pipeline_of((const uint16_t[]){SCIO_FILTER_SHUFFLE, 32013}, 2);
    scio_error err = SCIO_ERROR_INIT;

    memset(p.filters[1].name, 'x', sizeof p.filters[1].name); /* no NUL: must not be relied on */
    memcpy(p.filters[1].name, "H5Z\x1b\xff ZFP", 9);
    CHECK(scio_pipeline_check(&p, 0, &err) == SCIO_EUNSUPPORTED);
    CHECK_STR(err.message, "filter 2 of 2 has id 32013 (zfp, stored name \"H5Z?? ZFPxxxx");
    CHECK_STR(err.message, "required");
    CHECK(scio_pipeline_check(&p, 2, NULL) == SCIO_OK);
    p.filters[1].flags = 1;
    p.filters[1].id = 12345;
    err = (scio_error)SCIO_ERROR_INIT;
    CHECK(scio_pipeline_check(&p, 1, &err) == SCIO_EUNSUPPORTED);
    CHECK_STR(err.message, "id 12345 (unknown");
    CHECK_STR(err.message, "optional");
    p.n_filters = SCIO_MAX_FILTERS + 1;
    CHECK(scio_pipeline_check(&p, 0, NULL) == SCIO_EBUG);
}

TEST(filter_names_and_support_stand_in_one_table)
{
    CHECK_STR(scio_filter_name(SCIO_FILTER_DEFLATE), "deflate");
    CHECK_STR(scio_filter_name(SCIO_FILTER_BZIP2), "bzip2");
    CHECK_STR(scio_filter_name(0), "unknown");
    CHECK(scio_filter_is_supported(SCIO_FILTER_LZF) && scio_filter_is_supported(SCIO_FILTER_BLOSC));
    CHECK(!scio_filter_is_supported(SCIO_FILTER_SZIP) && !scio_filter_is_supported(0));
#ifdef SCIO_HAVE_ZSTD
    CHECK(scio_filter_is_supported(SCIO_FILTER_ZSTD));
#else
    CHECK(!scio_filter_is_supported(SCIO_FILTER_ZSTD));
#endif
}

TEST(pipeline_decode_fails_cleanly_at_every_allocation)
{
    const int64_t live_bufs = scio_stats_get(SCIO_STAT_live_bufs);
    fixture_set set = fixtures_load("pipeline");
    size_t n_reached = 0;

    for (size_t i = 0; i < set.n_cases; i++) {
        const fixture *f = &set.cases[i];
        uint8_t *out = malloc(f->raw_nbytes);
        scio_decoder *decoder = NULL;
        size_t k = 0;
        scio_status status = is_built(f) ? SCIO_ENOMEM : SCIO_OK;

        CHECK(scio_decoder_new(&decoder, NULL) == SCIO_OK);
        while (status == SCIO_ENOMEM) {
            scio_mem_fail_at(k++);
            status = scio_pipeline_decode(&f->pipeline, f->filter_mask, decoder, f->stored,
                                          f->stored_nbytes, out, f->raw_nbytes, NULL);
            scio_mem_fail_at(SIZE_MAX);
            CHECK(status == SCIO_OK || status == SCIO_ENOMEM);
            CHECK(status != SCIO_OK || memcmp(out, f->raw, f->raw_nbytes) == 0);
        }
        n_reached += k > 1;
        scio_decoder_free(decoder);
        free(out);
    }
    CHECK(n_reached > 10);
    fixtures_free(&set);
    CHECK(scio_stats_get(SCIO_STAT_live_bufs) == live_bufs);
}
