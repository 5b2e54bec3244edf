/* What the codec tests share: chunks made by real writers (tools/make_codec_fixtures.py), buffers
 * that end or begin at a page that faults, and the attack on a decoder. */
#ifndef SCIO_TESTS_C_CODEC_TESTING_H
#define SCIO_TESTS_C_CODEC_TESTING_H

#include "codec/codec.h"
#include "codec/pipeline.h"
#include "test.h"

#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef SCIO_TEST_DATA
#define SCIO_TEST_DATA "tests/c/data"
#endif

/* ---- numbers ---- */

static inline uint64_t
splitmix64(uint64_t seed, uint64_t i)
{
    uint64_t x = seed + (i + 1) * 0x9e3779b97f4a7c15u;

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

typedef struct random_source {
    uint64_t seed, i;
} random_source;

/* A number below n_values. */
static inline size_t
random_below(random_source *r, size_t n_values)
{
    return (size_t)(splitmix64(r->seed, r->i++) % n_values);
}

static inline void
store_le32(uint8_t *p, uint32_t x)
{
    for (int k = 0; k < 4; k++)
        p[k] = (uint8_t)(x >> 8 * k);
}

static inline void
store_be32(uint8_t *p, uint32_t x)
{
    for (int k = 0; k < 4; k++)
        p[k] = (uint8_t)(x >> (24 - 8 * k));
}

/* ---- memory with a page that faults on both sides ---- */

typedef struct guarded {
    uint8_t *base; /* the first usable byte; a page before it faults */
    size_t nbytes; /* usable, a multiple of the page; the page behind it faults */
} guarded;

static inline size_t
page_nbytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static inline guarded
guarded_new(size_t nbytes)
{
    const size_t page = page_nbytes();
    guarded g = {NULL, (nbytes / page + 1) * page};
    uint8_t *all = mmap(NULL, g.nbytes + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (all == MAP_FAILED || mprotect(all + page, g.nbytes, PROT_READ | PROT_WRITE) != 0) {
        perror("guarded_new");
        exit(EXIT_FAILURE);
    }
    g.base = all + page;
    return g;
}

static inline void
guarded_free(guarded *g)
{
    munmap(g->base - page_nbytes(), g->nbytes + 2 * page_nbytes());
    g->base = NULL;
}

/* The last nbytes of the area: the byte behind them faults. */
static inline uint8_t *
guarded_end(const guarded *g, size_t nbytes)
{
    return g->base + (g->nbytes - nbytes);
}

/* ---- fixtures ---- */

typedef struct fixture {
    char name[40];
    uint32_t pattern, itemsize, n_items, seed, filter_mask;
    uint64_t raw_hash;
    scio_pipeline pipeline;
    size_t raw_nbytes, stored_nbytes;
    uint8_t *raw, *stored; /* `stored` points into the file */
} fixture;

typedef struct fixture_set {
    uint8_t *file;
    size_t n_cases;
    fixture *cases;
} fixture_set;

enum { FIXTURE_ZEROS, FIXTURE_COUNTS, FIXTURE_SORTED, FIXTURE_NOISE, FIXTURE_HALF, FIXTURE_FAR };

/* Element i of a pattern, the formulas of make_raw in tools/make_codec_fixtures.py. */
static inline uint64_t
fixture_value(uint32_t pattern, uint32_t seed, uint64_t i)
{
    const uint64_t far_period = 8400;
    const uint64_t x = splitmix64(seed, pattern == FIXTURE_FAR ? i % far_period : i);

    switch (pattern) {
    case FIXTURE_COUNTS:
        return x % 97 < 90 ? x % 4 : x % 200;
    case FIXTURE_SORTED:
        return (i * 37 + x % 31) % 30000;
    case FIXTURE_NOISE:
        return x;
    case FIXTURE_HALF:
        return i >> 6 << 8 | (x & 255);
    case FIXTURE_FAR:
        return i % far_period < 300 ? x : 0;
    default:
        return 0;
    }
}

static inline void
fixture_make_raw(fixture *f)
{
    f->raw = malloc(f->raw_nbytes + 1);
    for (size_t i = 0; i < f->n_items; i++) {
        const uint64_t value = fixture_value(f->pattern, f->seed, i);

        for (size_t j = 0; j < f->itemsize; j++)
            f->raw[i * f->itemsize + j] = (uint8_t)(value >> 8 * (j % 8));
    }
}

static inline uint64_t
fnv1a(const uint8_t *p, size_t nbytes)
{
    uint64_t hash = 0xcbf29ce484222325u;

    for (size_t i = 0; i < nbytes; i++)
        hash = (hash ^ p[i]) * 0x100000001b3u;
    return hash;
}

static inline uint32_t
take_u32(const uint8_t **p)
{
    const uint8_t *q = *p;

    *p += 4;
    return (uint32_t)q[0] | (uint32_t)q[1] << 8 | (uint32_t)q[2] << 16 | (uint32_t)q[3] << 24;
}

static inline const uint8_t *
parse_fixture(const uint8_t *p, fixture *f)
{
    memcpy(f->name, p, sizeof f->name);
    p += sizeof f->name;
    f->pattern = take_u32(&p);
    f->itemsize = take_u32(&p);
    f->n_items = take_u32(&p);
    f->seed = take_u32(&p);
    f->raw_hash = take_u32(&p);
    f->raw_hash |= (uint64_t)take_u32(&p) << 32;
    f->filter_mask = take_u32(&p);
    f->pipeline.n_filters = take_u32(&p);
    for (size_t i = 0; i < f->pipeline.n_filters; i++) {
        scio_filter *filter = &f->pipeline.filters[i];

        filter->id = (uint16_t)take_u32(&p);
        filter->flags = (uint16_t)take_u32(&p);
        filter->n_client = (uint16_t)take_u32(&p);
        for (size_t k = 0; k < filter->n_client; k++)
            filter->client[k] = take_u32(&p);
    }
    f->stored_nbytes = take_u32(&p);
    f->stored = (uint8_t *)(uintptr_t)p;
    f->raw_nbytes = (size_t)f->itemsize * f->n_items;
    fixture_make_raw(f);
    return p + f->stored_nbytes;
}

/* All cases of tests/c/data/codec_<family>.bin; a missing file fails the test. */
static inline fixture_set
fixtures_load(const char *family)
{
    fixture_set set = {NULL, 0, NULL};
    char path[512];
    FILE *file;
    const uint8_t *p;
    long nbytes;

    snprintf(path, sizeof path, "%s/codec_%s.bin", SCIO_TEST_DATA, family);
    file = fopen(path, "rb");
    if (file == NULL) {
        printf("%s is missing; run from the top folder, or make it with "
               "tools/make_codec_fixtures.py\n",
               path);
        CHECK(file != NULL);
        return set;
    }
    fseek(file, 0, SEEK_END);
    nbytes = ftell(file);
    rewind(file);
    set.file = malloc((size_t)nbytes);
    CHECK(fread(set.file, 1, (size_t)nbytes, file) == (size_t)nbytes);
    fclose(file);
    CHECK(memcmp(set.file, "SCIOCASE", 8) == 0);
    p = set.file + 8;
    set.n_cases = take_u32(&p);
    set.cases = calloc(set.n_cases, sizeof *set.cases);
    for (size_t i = 0; i < set.n_cases; i++) {
        fixture *f = &set.cases[i];

        p = parse_fixture(p, f);
        if (fnv1a(f->raw, f->raw_nbytes) != f->raw_hash)
            printf("%s: the recipe of its raw bytes differs from the script's\n", f->name);
        CHECK(fnv1a(f->raw, f->raw_nbytes) == f->raw_hash);
    }
    CHECK(p == set.file + nbytes);
    return set;
}

static inline void
fixtures_free(fixture_set *set)
{
    for (size_t i = 0; i < set->n_cases; i++)
        free(set->cases[i].raw);
    free(set->cases);
    free(set->file);
}

/* ---- one decoder under test ---- */

/* Decodes stored bytes of a fixture in whatever way the test is about. */
typedef scio_status (*decode_fn)(const fixture *f, scio_decoder *decoder, const uint8_t *in,
                                 size_t in_nbytes, uint8_t *out, size_t out_capacity,
                                 size_t *out_nbytes, scio_error *err);

typedef struct bench { /* buffers of one fixture, both between faulting pages */
    const fixture *f;
    decode_fn decode;
    scio_decoder *decoder;
    guarded in, out;
} bench;

static inline bench
bench_new(const fixture *f, decode_fn decode)
{
    bench b = {f, decode, NULL, {NULL, 0}, {NULL, 0}};

    CHECK(scio_decoder_new(&b.decoder, NULL) == SCIO_OK);
    b.in = guarded_new(f->stored_nbytes + 64);
    b.out = guarded_new(f->raw_nbytes);
    return b;
}

static inline void
bench_free(bench *b)
{
    scio_decoder_free(b->decoder);
    guarded_free(&b->in);
    guarded_free(&b->out);
}

/* Decodes bytes [0, in_nbytes) of `stored` with both buffers ending at a faulting page, twice over
 * different old contents: the same status, length and bytes must come out. */
static inline scio_status
bench_decode(bench *b, const uint8_t *stored, size_t in_nbytes, size_t out_capacity,
             size_t *out_nbytes, scio_error *err)
{
    uint8_t *in = guarded_end(&b->in, in_nbytes);
    uint8_t *out = guarded_end(&b->out, out_capacity);
    size_t n_made = 0;
    uint64_t hash = 0;
    scio_status status;

    memcpy(in, stored, in_nbytes);
    memset(out, 0x55, out_capacity);
    status = b->decode(b->f, b->decoder, in, in_nbytes, out, out_capacity, &n_made, NULL);
    if (status == SCIO_OK)
        hash = fnv1a(out, n_made);
    memset(out, 0xaa, out_capacity);
    *out_nbytes = 0;
    CHECK(b->decode(b->f, b->decoder, in, in_nbytes, out, out_capacity, out_nbytes, err) == status);
    CHECK(memcmp(in, stored, in_nbytes) == 0);
    if (status == SCIO_OK) {
        CHECK(*out_nbytes <= out_capacity);
        CHECK(*out_nbytes == n_made && fnv1a(out, n_made) == hash);
    }
    return status;
}

/* What a writer stored gives the writer's bytes, whichever side the faulting pages are on, and is
 * refused when the limit is one byte too low. */
static inline void
bench_check_exact(bench *b)
{
    const fixture *f = b->f;
    scio_error err = SCIO_ERROR_INIT;
    size_t out_nbytes = 0;

    if (bench_decode(b, f->stored, f->stored_nbytes, f->raw_nbytes, &out_nbytes, &err) != SCIO_OK)
        printf("%s: %s\n", f->name, err.message);
    CHECK(err.code == SCIO_OK && out_nbytes == f->raw_nbytes);
    CHECK(memcmp(guarded_end(&b->out, f->raw_nbytes), f->raw, f->raw_nbytes) == 0);
    memcpy(b->in.base, f->stored, f->stored_nbytes);
    memset(b->out.base, 0, f->raw_nbytes);
    CHECK(b->decode(f, b->decoder, b->in.base, f->stored_nbytes, b->out.base, f->raw_nbytes,
                    &out_nbytes, NULL) == SCIO_OK);
    CHECK(memcmp(b->out.base, f->raw, f->raw_nbytes) == 0);
    CHECK(bench_decode(b, f->stored, f->stored_nbytes, f->raw_nbytes - 1, &out_nbytes, &err) ==
          SCIO_ECORRUPT);
    CHECK(err.message[0] != '\0');
}

/* No prefix of a chunk passes for the chunk. */
static inline void
bench_check_truncations(bench *b)
{
    const fixture *f = b->f;

    for (size_t n = 0; n < f->stored_nbytes; n++) {
        size_t out_nbytes = 0;
        const scio_status status = bench_decode(b, f->stored, n, f->raw_nbytes, &out_nbytes, NULL);

        if (status == SCIO_OK && out_nbytes == f->raw_nbytes)
            printf("%s: %zu of %zu bytes are enough\n", f->name, n, f->stored_nbytes);
        CHECK(status != SCIO_OK || out_nbytes < f->raw_nbytes);
    }
}

/* Damaged bytes give an error or some bytes, never a fault, never another result the second time.
 */
static inline void
bench_check_flips(bench *b, size_t n_rounds)
{
    const fixture *f = b->f;
    random_source r = {f->seed, 0}; /* the seed stands in the fixture: a failure can be repeated */
    uint8_t *damaged = malloc(f->stored_nbytes);

    for (size_t round = 0; round < n_rounds; round++) {
        const size_t n_flips = 1 + random_below(&r, 3);
        /* every second time only the first 32 bytes, where the headers are */
        const size_t n_reach =
            round % 2 != 0 && f->stored_nbytes > 32 ? (size_t)32 : f->stored_nbytes;
        size_t out_nbytes;
        scio_status status;

        memcpy(damaged, f->stored, f->stored_nbytes);
        for (size_t k = 0; k < n_flips; k++)
            damaged[random_below(&r, n_reach)] = (uint8_t)random_below(&r, 256);
        status = bench_decode(b, damaged, f->stored_nbytes, f->raw_nbytes, &out_nbytes, NULL);
        CHECK(status == SCIO_OK || status == SCIO_ECORRUPT || status == SCIO_EUNSUPPORTED);
    }
    free(damaged);
}

/* Runs the three on every case that `is_wanted` (NULL: those with mask 0) accepts; the number of
 * cases is returned, so that a test can see that there were some. */
static inline size_t
check_fixtures(const char *family, decode_fn decode, bool (*is_wanted)(const fixture *f),
               size_t n_flip_rounds)
{
    fixture_set set = fixtures_load(family);
    size_t n_run = 0;

    for (size_t i = 0; i < set.n_cases; i++) {
        const fixture *f = &set.cases[i];
        bench b;

        if (is_wanted != NULL ? !is_wanted(f) : f->filter_mask != 0)
            continue;
        b = bench_new(f, decode);
        bench_check_exact(&b);
        bench_check_truncations(&b);
        bench_check_flips(&b, n_flip_rounds);
        bench_free(&b);
        n_run++;
    }
    fixtures_free(&set);
    return n_run;
}

#endif
