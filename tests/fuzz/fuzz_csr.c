/* CSR arrays from anywhere.  Input: u8 index dtype, u8 data dtype, u8 rows, u16 columns, u8 flags,
 * u16 nnz; i16 per entry of indptr; then the bytes of the indices, then those of the data (zeros
 * when there are too few).
 *
 * The gate must judge as a plain loop does, at every level; only what passes FULL goes on, and then
 * the kernels may not leave the arrays (which end at a page that faults), and what can be computed
 * in two ways must agree. */
#include "base/mem.h"
#include "fuzz_guard.h"
#include "load/collate.h"
#include "sparse/csr.h"

#include <stdio.h>

enum { MAX_ROWS = 40, MAX_COLS = 300, MAX_NNZ = 2000, MAX_DENSE = MAX_ROWS * MAX_COLS };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

static void
expect(bool condition)
{
    if (!condition)
        abort();
}

typedef struct arrays {
    guard_area indices_area, data_area;
    int64_t indptr[MAX_ROWS + 1];
    int64_t columns[MAX_NNZ]; /* the indices as int64, INT64_MAX where they do not fit */
} arrays;

static const void *
take_items(fuzz_input *input, const guard_area *area, size_t nbytes)
{
    uint8_t *const items = guard_buffer(area, nbytes, 0);
    const size_t n_taken = nbytes < input->nbytes ? nbytes : input->nbytes;

    if (n_taken > 0)
        memcpy(items, input->data, n_taken);
    input->data += n_taken;
    input->nbytes -= n_taken;
    return items;
}

static scio_csr_view
take_csr(fuzz_input *input, arrays *a)
{
    scio_csr_view csr = {0};
    unsigned n_cols, flags;

    csr.index_dtype = (scio_dtype)(fuzz_take(input, 1) % SCIO_N_DTYPES);
    csr.data_dtype = (scio_dtype)(1 + fuzz_take(input, 1) % (SCIO_N_DTYPES - 1));
    csr.n_rows = fuzz_take(input, 1) % (MAX_ROWS + 1);
    n_cols = fuzz_take(input, 2);
    flags = fuzz_take(input, 1);
    /* one in eight far wider than anything that could be allocated */
    csr.n_cols = flags % 8 == 7 ? (int64_t)n_cols << 40 : n_cols % (MAX_COLS + 1);
    csr.nnz = fuzz_take(input, 2) % (MAX_NNZ + 1);
    for (int64_t r = 0; r <= csr.n_rows; r++)
        a->indptr[r] = (int16_t)fuzz_take(input, 2);
    csr.indptr = a->indptr;
    csr.indices =
        take_items(input, &a->indices_area, (size_t)csr.nnz * scio_dtype_itemsize(csr.index_dtype));
    csr.data =
        take_items(input, &a->data_area, (size_t)csr.nnz * scio_dtype_itemsize(csr.data_dtype));
    return csr;
}

/* --- the gate --- */

static bool
is_integer(scio_dtype dtype)
{
    return scio_dtype_kind(dtype) == 'i' || scio_dtype_kind(dtype) == 'u';
}

static bool
is_structure_good(const scio_csr_view *csr)
{
    bool is_good = csr->indptr[0] == 0 && csr->indptr[csr->n_rows] == csr->nnz;

    for (int64_t r = 0; r < csr->n_rows; r++)
        is_good = is_good && csr->indptr[r] <= csr->indptr[r + 1];
    return is_good;
}

/* The first index out of range, or nnz. */
static int64_t
first_bad(const scio_csr_view *csr, int64_t *columns)
{
    const size_t itemsize = scio_dtype_itemsize(csr->index_dtype);
    int64_t bad = csr->nnz;

    for (int64_t i = csr->nnz; i-- > 0;) {
        if (scio_cast(csr->index_dtype, (const char *)csr->indices + (size_t)i * itemsize, SCIO_I64,
                      &columns[i], 1, NULL) != SCIO_OK)
            columns[i] = INT64_MAX;
        if (columns[i] < 0 || columns[i] >= csr->n_cols)
            bad = i;
    }
    return bad;
}

static scio_csr_facts
plain_facts(const scio_csr_view *csr, const int64_t *columns)
{
    scio_csr_facts facts = {true, false};

    for (int64_t r = 0; r < csr->n_rows; r++) {
        for (int64_t i = csr->indptr[r]; i < csr->indptr[r + 1]; i++) {
            facts.is_sorted =
                facts.is_sorted && (i == csr->indptr[r] || columns[i] >= columns[i - 1]);
            for (int64_t j = csr->indptr[r]; j < i; j++)
                facts.has_duplicates = facts.has_duplicates || columns[j] == columns[i];
        }
    }
    return facts;
}

/* True when the matrix passes FULL. */
static bool
check_gate(const scio_csr_view *csr, int64_t *columns)
{
    const bool is_shape_good = is_integer(csr->index_dtype);
    const bool is_good = is_shape_good && is_structure_good(csr);
    scio_csr_facts facts = {false, false};
    scio_error err = SCIO_ERROR_INIT;
    scio_status status;
    int64_t bad;

    expect((scio_csr_validate(csr, SCIO_CHECK_SHAPE, NULL, NULL) == SCIO_OK) == is_shape_good);
    expect((scio_csr_validate(csr, SCIO_CHECK_STRUCTURE, NULL, NULL) == SCIO_OK) == is_good);
    status = scio_csr_validate(csr, SCIO_CHECK_FULL, &facts, &err);
    expect((status == SCIO_OK) == (err.code == SCIO_OK));
    if (!is_good) {
        expect(status == SCIO_ECORRUPT && err.message[0] != '\0');
        return false;
    }
    bad = first_bad(csr, columns);
    if (bad < csr->nnz) {
        char place[40];

        (void)snprintf(place, sizeof place, "indices[%lld] is ", (long long)bad);
        expect(status == SCIO_ECORRUPT && strncmp(err.message, place, strlen(place)) == 0);
        return false;
    }
    expect(status == SCIO_OK);
    const scio_csr_facts plain = plain_facts(csr, columns);
    expect(facts.is_sorted == plain.is_sorted && facts.has_duplicates == plain.has_duplicates);
    return true;
}

/* --- kernels behind the gate --- */

static void
check_gather(const scio_csr_view *csr, fuzz_input *input)
{
    int64_t rows[16];
    scio_csr out;
    bool is_in_range = true;

    for (size_t i = 0; i < 16; i++) {
        rows[i] = (int64_t)(fuzz_take(input, 1) % (MAX_ROWS + 4)) - 1;
        is_in_range = is_in_range && rows[i] >= 0 && rows[i] < csr->n_rows;
    }
    if (scio_csr_take_rows(csr, rows, 16, &out, NULL) != SCIO_OK) {
        expect(!is_in_range);
        return;
    }
    const scio_csr_view view = scio_csr_as_view(&out);
    expect(is_in_range && scio_csr_validate(&view, SCIO_CHECK_FULL, NULL, NULL) == SCIO_OK);
    scio_csr_clear(&out);
}

/* Twice transposed is sorted and, without duplicates, has the same dense form. */
static void
check_transpose(const scio_csr_view *csr, bool has_duplicates, const uint8_t *dense, size_t nbytes)
{
    static uint8_t again[MAX_DENSE * 8];
    scio_csr once, twice;
    scio_csr_facts facts;

    expect(scio_csr_transpose(csr, &once, NULL) == SCIO_OK);
    const scio_csr_view columns = scio_csr_as_view(&once);
    expect(scio_csr_transpose(&columns, &twice, NULL) == SCIO_OK);
    const scio_csr_view rows = scio_csr_as_view(&twice);
    expect(scio_csr_validate(&rows, SCIO_CHECK_FULL, &facts, NULL) == SCIO_OK);
    expect(facts.is_sorted && facts.has_duplicates == has_duplicates);
    expect(scio_csr_to_dense(&rows, again, nbytes, NULL) == SCIO_OK);
    expect(has_duplicates || memcmp(dense, again, nbytes) == 0);
    scio_csr_clear(&once);
    scio_csr_clear(&twice);
}

static void
check_from_dense(const scio_csr_view *csr, const uint8_t *dense)
{
    scio_csr packed;
    scio_csr_facts facts;

    expect(scio_csr_from_dense(dense, csr->data_dtype, csr->n_rows, csr->n_cols, &packed, NULL) ==
           SCIO_OK);
    const scio_csr_view view = scio_csr_as_view(&packed);
    expect(scio_csr_validate(&view, SCIO_CHECK_FULL, &facts, NULL) == SCIO_OK);
    expect(facts.is_sorted && !facts.has_duplicates && packed.nnz <= csr->nnz);
    scio_csr_clear(&packed);
}

/* --- collation: from CSR and from the dense form --- */

static void
fill_rows(const scio_csr_view *csr, const uint8_t *dense, const int32_t *map,
          bool is_map_increasing, scio_row *rows)
{
    const size_t itemsize = scio_dtype_itemsize(csr->data_dtype);

    for (int64_t r = 0; r < csr->n_rows; r++) {
        const size_t first = dense == NULL ? (size_t)csr->indptr[r] : (size_t)(r * csr->n_cols);

        rows[r] = (scio_row){.index_dtype = csr->index_dtype,
                             .value_dtype = csr->data_dtype,
                             .map = map,
                             .is_map_increasing = is_map_increasing,
                             .cell = r};
        rows[r].values = (dense == NULL ? (const uint8_t *)csr->data : dense) + first * itemsize;
        rows[r].n_items = dense == NULL ? (size_t)csr->indptr[r + 1] - first : (size_t)csr->n_cols;
        if (dense == NULL)
            rows[r].indices =
                (const char *)csr->indices + first * scio_dtype_itemsize(csr->index_dtype);
    }
}

static bool
same_numbers(const scio_buf *a, const scio_buf *b)
{
    const float *const x = scio_buf_data(a), *const y = scio_buf_data(b);
    const size_t n_items = scio_buf_nbytes(a) / sizeof *x;

    if (scio_buf_nbytes(a) != scio_buf_nbytes(b))
        return false;
    for (size_t i = 0; i < n_items; i++)
        if (x[i] != y[i] && (x[i] == x[i] || y[i] == y[i]))
            return false;
    return true;
}

static bool
same_bytes(const scio_buf *a, const scio_buf *b)
{
    return scio_buf_nbytes(a) == scio_buf_nbytes(b) &&
           (scio_buf_nbytes(a) == 0 ||
            memcmp(scio_buf_data(a), scio_buf_data(b), scio_buf_nbytes(a)) == 0);
}

static void
check_collate(const scio_csr_view *csr, const uint8_t *dense, bool has_duplicates,
              fuzz_input *input)
{
    static int32_t map[MAX_COLS];
    static uint8_t id_mask[MAX_COLS + 3];
    const unsigned how = fuzz_take(input, 2), step = 1 + 2 * (how >> 12);
    const bool is_increasing = how % 2 == 0;
    const scio_collate_spec spec = {.form = (scio_form)(how / 2 % 3),
                                    .n_ids = MAX_COLS + 3,
                                    .first_id = 3,
                                    .is_library_size = how / 6 % 2 != 0,
                                    .target_sum = 1e4,
                                    .is_log1p = how / 12 % 2 != 0,
                                    .id_mask = how / 24 % 2 != 0 ? id_mask : NULL,
                                    .max_genes = how / 48 % 4 * 5,
                                    .select = (scio_select)(how / 192 % 3),
                                    .pad_value = 0.5f};
    scio_row rows[MAX_ROWS];
    scio_collate_scratch *scratch = NULL;
    scio_batch batches[2];

    for (int32_t c = 0; c < MAX_COLS; c++) {
        const int32_t place = is_increasing ? c : (int32_t)((unsigned)c * 7 % MAX_COLS);

        map[c] = (unsigned)c % (step + 1) == step ? -1 : 3 + place;
        id_mask[c + 3] = (uint8_t)(c % 5 != 0);
    }
    expect(scio_collate_scratch_new(&scratch, NULL) == SCIO_OK);
    for (int k = 0; k < 2; k++) {
        fill_rows(csr, k == 0 ? NULL : dense, map, is_increasing, rows);
        expect(scio_collate(&spec, rows, (size_t)csr->n_rows, scratch, &batches[k], NULL) ==
               SCIO_OK);
    }
    if (!has_duplicates) { /* sums in the dtype of the dense form may round or wrap */
        expect(batches[0].width == batches[1].width && batches[0].nnz == batches[1].nnz);
        expect(same_numbers(batches[0].expression, batches[1].expression));
        expect(same_bytes(batches[0].gene_indices, batches[1].gene_indices));
        expect(same_bytes(batches[0].attention_mask, batches[1].attention_mask));
        expect(same_bytes(batches[0].indptr, batches[1].indptr));
    }
    scio_batch_clear(&batches[0]);
    scio_batch_clear(&batches[1]);
    scio_collate_scratch_free(scratch);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    static arrays a;
    static guard_area dense_area;
    fuzz_input input = {data, nbytes};
    scio_csr_view csr;
    scio_csr_facts facts;
    uint8_t *dense;
    size_t dense_nbytes;

    if (a.indices_area.end == NULL) {
        a.indices_area = guard_area_new();
        a.data_area = guard_area_new();
        dense_area = guard_area_new();
    }
    csr = take_csr(&input, &a);
    if (!check_gate(&csr, a.columns))
        return 0;
    expect(scio_csr_validate(&csr, SCIO_CHECK_FULL, &facts, NULL) == SCIO_OK);
    check_gather(&csr, &input);
    if (csr.n_cols > MAX_COLS)
        return 0;
    dense_nbytes = (size_t)(csr.n_rows * csr.n_cols) * scio_dtype_itemsize(csr.data_dtype);
    dense = guard_buffer(&dense_area, dense_nbytes, 0xAA);
    expect(scio_csr_to_dense(&csr, dense, dense_nbytes, NULL) == SCIO_OK);
    guard_check(dense);
    check_transpose(&csr, facts.has_duplicates, dense, dense_nbytes);
    check_from_dense(&csr, dense);
    check_collate(&csr, dense, facts.has_duplicates, &input);
    return 0;
}
