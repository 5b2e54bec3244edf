/* A dataset's filter chain, undone from the last filter to the first.
 *
 * Every filter but the last one undone writes into one of two scratch buffers in turn; the last one
 * writes into the caller's buffer with its exact size as the limit.  Between two filters more bytes
 * than the chunk has are legal (a checksum, a filter that did not shrink), within the bound below.
 */
#include "codec/pipeline.h"

#include "base/mem.h"
#include "base/stats.h"
#include "codec/decoder.h"

#ifdef SCIO_HAVE_LZ4
#define HAS_LZ4 true
#else
#define HAS_LZ4 false
#endif
#ifdef SCIO_HAVE_ZSTD
#define HAS_ZSTD true
#else
#define HAS_ZSTD false
#endif

/* The inner codecs that bitshuffle's fifth client value names. */
#define BITSHUFFLE_LZ4 2
#define BITSHUFFLE_ZSTD 3

/* The one list of filters; those that are not read are here to be refused by name. */
static const struct {
    uint16_t id;
    bool is_supported;
    const char *name;
} known_filters[] = {
    {SCIO_FILTER_DEFLATE, true, "deflate"},
    {SCIO_FILTER_SHUFFLE, true, "shuffle"},
    {SCIO_FILTER_FLETCHER32, true, "fletcher32"},
    {SCIO_FILTER_SZIP, false, "szip"},
    {SCIO_FILTER_NBIT, false, "nbit"},
    {SCIO_FILTER_SCALEOFFSET, false, "scaleoffset"},
    {305, false, "lzo"},
    {SCIO_FILTER_BZIP2, false, "bzip2"},
    {SCIO_FILTER_LZF, true, "lzf"},
    {SCIO_FILTER_BLOSC, true, "blosc"},
    {SCIO_FILTER_LZ4, HAS_LZ4, "lz4"},
    {SCIO_FILTER_BITSHUFFLE, true, "bitshuffle"},
    {32013, false, "zfp"},
    {SCIO_FILTER_ZSTD, HAS_ZSTD, "zstd"},
    {32026, false, "blosc2"},
};

#define N_KNOWN (sizeof known_filters / sizeof known_filters[0])

const char *
scio_filter_name(uint16_t id)
{
    for (size_t i = 0; i < N_KNOWN; i++)
        if (known_filters[i].id == id)
            return known_filters[i].name;
    return "unknown";
}

bool
scio_filter_is_supported(uint16_t id)
{
    for (size_t i = 0; i < N_KNOWN; i++)
        if (known_filters[i].id == id)
            return known_filters[i].is_supported;
    return false;
}

/* The id decides, but for bitshuffle, whose inner codec is known before any chunk is read. */
static bool
is_decodable(const scio_filter *filter)
{
    const uint32_t codec =
        filter->id == SCIO_FILTER_BITSHUFFLE && filter->n_client > 4 ? filter->client[4] : 0;

    return scio_filter_is_supported(filter->id) && (codec != BITSHUFFLE_LZ4 || HAS_LZ4) &&
           (codec != BITSHUFFLE_ZSTD || HAS_ZSTD);
}

/* The stored name with what is not printable ASCII replaced: it goes into messages. */
static void
clean_name(const scio_filter *filter, char name[sizeof filter->name])
{
    size_t k = 0;

    for (; k < sizeof filter->name - 1 && filter->name[k] != '\0'; k++)
        name[k] = filter->name[k] >= ' ' && filter->name[k] <= '~' ? filter->name[k] : '?';
    name[k] = '\0';
}

static bool
is_skipped(uint32_t filter_mask, size_t i_filter)
{
    return (filter_mask >> i_filter & 1) != 0;
}

scio_status
scio_pipeline_check(const scio_pipeline *pipeline, uint32_t filter_mask, scio_error *err)
{
    char name[sizeof pipeline->filters[0].name];

    SCIO_BUG_IF(pipeline->n_filters > SCIO_MAX_FILTERS, err);
    for (size_t i = 0; i < pipeline->n_filters; i++) {
        const scio_filter *filter = &pipeline->filters[i];

        if (is_skipped(filter_mask, i) || is_decodable(filter))
            continue;
        clean_name(filter, name);
        return scio_fail(err, SCIO_EUNSUPPORTED,
                         "filter %zu of %zu has id %u (%s, stored name \"%s\", %s), which this "
                         "scio does not decode",
                         i + 1, pipeline->n_filters, filter->id, scio_filter_name(filter->id), name,
                         filter->flags & 1 ? "optional" : "required");
    }
    return SCIO_OK;
}

static scio_status
undo_shuffle(const scio_filter *filter, const void *in, size_t in_nbytes, void *out,
             size_t out_capacity, size_t *out_nbytes, scio_error *err)
{
    if (filter->n_client == 0)
        return scio_fail(err, SCIO_ECORRUPT, "the element size, its client value, is missing");
    if (in_nbytes > out_capacity)
        return scio_fail(err, SCIO_ECORRUPT, "%zu bytes came in, at most %zu expected", in_nbytes,
                         out_capacity);
    SCIO_TRY(scio_unshuffle(in, in_nbytes, filter->client[0], out, err));
    *out_nbytes = in_nbytes;
    return SCIO_OK;
}

/* Any filter but fletcher32, which only cuts its input. */
static scio_status
undo_filter(const scio_filter *filter, scio_decoder *decoder, const void *in, size_t in_nbytes,
            void *out, size_t out_capacity, size_t *out_nbytes, scio_error *err)
{
    const size_t n_client = filter->n_client < SCIO_MAX_CLIENT ? filter->n_client : SCIO_MAX_CLIENT;

    switch (filter->id) {
    case SCIO_FILTER_DEFLATE:
        if (decoder->engine == SCIO_DEFLATE_ISAL)
            return scio_deflate_decode_isal(decoder, in, in_nbytes, out, out_capacity, out_nbytes,
                                            err);
        return scio_deflate_decode(decoder, in, in_nbytes, out, out_capacity, out_nbytes, err);
    case SCIO_FILTER_SHUFFLE:
        return undo_shuffle(filter, in, in_nbytes, out, out_capacity, out_nbytes, err);
    case SCIO_FILTER_LZF:
        return scio_lzf_decode(in, in_nbytes, out, out_capacity, out_nbytes, err);
    case SCIO_FILTER_BLOSC:
        return scio_blosc_decode(decoder, in, in_nbytes, out, out_capacity, out_nbytes, err);
    case SCIO_FILTER_LZ4:
        return scio_lz4_decode(in, in_nbytes, out, out_capacity, out_nbytes, err);
    case SCIO_FILTER_BITSHUFFLE:
        return scio_bitshuffle_decode(decoder, filter->client, n_client, in, in_nbytes, out,
                                      out_capacity, out_nbytes, err);
    case SCIO_FILTER_ZSTD:
        return scio_zstd_decode_with(decoder, in, in_nbytes, out, out_capacity, out_nbytes, err);
    default:
        return scio_fail(err, SCIO_EBUG, "filter %u passed the check but has no decoder",
                         filter->id);
    }
}

/* Limit of what a filter in the middle of a chain may give.  A filter that did not shrink its input
 * adds a header and some bytes per block: less than an eighth and 64 KiB for all we know. */
static bool
intermediate_capacity(size_t out_nbytes, size_t *capacity_out)
{
    size_t capacity;

    return scio_add_size(out_nbytes, out_nbytes / 8, &capacity) &&
           scio_add_size(capacity, 65536, capacity_out);
}

typedef struct chain {
    const scio_pipeline *pipeline;
    uint32_t filter_mask;
    size_t i_stop; /* filters before this one are not undone */
} chain;

/* The filter that is undone last, or n_filters when there is none. */
static size_t
find_final(const chain *c)
{
    for (size_t i = c->i_stop; i < c->pipeline->n_filters; i++)
        if (!is_skipped(c->filter_mask, i))
            return i;
    return c->pipeline->n_filters;
}

/* `*n_steps_out`: how many filters wrote bytes. */
static scio_status
undo_chain(const chain *c, scio_decoder *decoder, const void *in, size_t in_nbytes, void *out,
           size_t out_nbytes, size_t *n_steps_out, scio_error *err)
{
    const size_t i_final = find_final(c);
    const void *data = in;
    size_t nbytes = in_nbytes, n_steps = 0, scratch_capacity;

    if (!intermediate_capacity(out_nbytes, &scratch_capacity))
        return scio_fail(err, SCIO_ENOMEM, "a chunk of %zu bytes is too large", out_nbytes);
    for (size_t i = c->pipeline->n_filters; i-- > c->i_stop;) {
        const scio_filter *filter = &c->pipeline->filters[i];
        size_t capacity = out_nbytes;
        uint8_t *to = out;
        scio_status status = SCIO_OK;

        if (is_skipped(c->filter_mask, i))
            continue;
        if (filter->id == SCIO_FILTER_FLETCHER32) {
            status = scio_fletcher32_check(data, nbytes, &nbytes, err);
        } else {
            if (i != i_final) {
                capacity = scratch_capacity;
                SCIO_TRY(scio_decoder_scratch(
                    decoder, n_steps % 2 ? SCIO_SCRATCH_CHAIN_B : SCIO_SCRATCH_CHAIN_A, capacity,
                    &to, err));
            }
            status = undo_filter(filter, decoder, data, nbytes, to, capacity, &nbytes, err);
            data = to;
            n_steps++;
        }
        if (status != SCIO_OK) {
            scio_context(err, "filter %zu of %zu (%s)", i + 1, c->pipeline->n_filters,
                         scio_filter_name(filter->id));
            return status;
        }
    }
    if (nbytes != out_nbytes)
        return scio_fail(err, SCIO_ECORRUPT, "%zu bytes %s, expected %zu", nbytes,
                         n_steps != 0 ? "came out of the filters" : "are stored", out_nbytes);
    if (data != out)
        scio_copy_bytes(out, data, nbytes);
    *n_steps_out = n_steps;
    return SCIO_OK;
}

scio_status
scio_pipeline_decode(const scio_pipeline *pipeline, uint32_t filter_mask, scio_decoder *decoder,
                     const void *in, size_t in_nbytes, void *out, size_t out_nbytes,
                     scio_error *err)
{
    const chain c = {pipeline, filter_mask, 0};
    size_t i_final, n_steps;

    SCIO_TRY(scio_pipeline_check(pipeline, filter_mask, err));
    SCIO_TRY(undo_chain(&c, decoder, in, in_nbytes, out, out_nbytes, &n_steps, err));
    i_final = find_final(&c);
    if (n_steps == 1 && pipeline->filters[i_final].id == SCIO_FILTER_DEFLATE)
        scio_stats_add(SCIO_STAT_direct_chunks, 1);
    scio_stats_add(SCIO_STAT_chunks_decoded, 1);
    scio_stats_add(SCIO_STAT_nbytes_decoded, (int64_t)out_nbytes);
    return SCIO_OK;
}

scio_status
scio_pipeline_decode_planes(const scio_pipeline *pipeline, uint32_t filter_mask,
                            scio_decoder *decoder, const void *in, size_t in_nbytes, void *out,
                            size_t out_nbytes, size_t *shuffle_itemsize_out, scio_error *err)
{
    const chain c = {pipeline, filter_mask, 1};
    const scio_filter *first = &pipeline->filters[0];
    size_t itemsize = 1, n_steps;

    /* Planes only where they are whole: at least 2 elements and no bytes beyond the last one. */
    if (pipeline->n_filters != 0 && first->id == SCIO_FILTER_SHUFFLE &&
        !is_skipped(filter_mask, 0) && first->n_client != 0 && first->client[0] > 1 &&
        out_nbytes % first->client[0] == 0 && out_nbytes / first->client[0] > 1)
        itemsize = first->client[0];
    if (itemsize == 1) {
        SCIO_TRY(scio_pipeline_decode(pipeline, filter_mask, decoder, in, in_nbytes, out,
                                      out_nbytes, err));
    } else {
        SCIO_TRY(scio_pipeline_check(pipeline, filter_mask, err));
        SCIO_TRY(undo_chain(&c, decoder, in, in_nbytes, out, out_nbytes, &n_steps, err));
        scio_stats_add(SCIO_STAT_chunks_decoded, 1);
        scio_stats_add(SCIO_STAT_nbytes_decoded, (int64_t)out_nbytes);
    }
    *shuffle_itemsize_out = itemsize;
    return SCIO_OK;
}
