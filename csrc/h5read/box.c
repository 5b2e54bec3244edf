/* Boxes of elements between two row-major arrays.
 *
 * Trailing axes that the box covers wholly in both arrays make one run with the axis before them,
 * so that a range of whole rows is a single run whatever its rank.  Axes of one step drop out. */
#include "h5read/dataset_internal.h"

#include <string.h>

void
scio_h5_box_init(unsigned rank, const uint64_t *count, const uint64_t *src_dims,
                 const uint64_t *src_start, const uint64_t *dst_dims, const uint64_t *dst_start,
                 scio_h5_box *out)
{
    uint64_t src_stride = 1, dst_stride = 1;
    bool is_run = true; /* axes met so far are one run, and the next may join */
    unsigned n_outer = 0;

    *out = (scio_h5_box){.run_items = 1, .n_runs = 1};
    for (unsigned k = rank; k-- > 0;) {
        if (is_run) {
            out->run_items *= count[k];
        } else if (count[k] != 1) { /* fastest first, turned round below */
            out->counts[n_outer] = count[k];
            out->src_strides[n_outer] = src_stride;
            out->dst_strides[n_outer++] = dst_stride;
            out->n_runs *= count[k];
        }
        is_run = is_run && count[k] == src_dims[k] && count[k] == dst_dims[k];
        out->src_first += src_start != NULL ? src_start[k] * src_stride : 0;
        out->dst_first += dst_start != NULL ? dst_start[k] * dst_stride : 0;
        src_stride *= src_dims[k];
        dst_stride *= dst_dims[k];
    }
    for (unsigned i = 0, j = n_outer; i + 1 < j--; i++) {
        const uint64_t kept[3] = {out->counts[i], out->src_strides[i], out->dst_strides[i]};

        out->counts[i] = out->counts[j];
        out->src_strides[i] = out->src_strides[j];
        out->dst_strides[i] = out->dst_strides[j];
        out->counts[j] = kept[0];
        out->src_strides[j] = kept[1];
        out->dst_strides[j] = kept[2];
    }
    out->n_outer = n_outer;
}

void
scio_h5_box_run(const scio_h5_box *box, uint64_t i_run, uint64_t *src_out, uint64_t *dst_out)
{
    uint64_t src = box->src_first, dst = box->dst_first;

    for (unsigned k = box->n_outer; k-- > 0;) {
        const uint64_t at = i_run % box->counts[k];

        i_run /= box->counts[k];
        src += at * box->src_strides[k];
        dst += at * box->dst_strides[k];
    }
    *src_out = src;
    *dst_out = dst;
}

/* n_rows runs at constant strides (bytes); constants let the compiler drop the calls to memcpy. */
static inline void
copy_rows(const uint8_t *src, size_t src_stride, uint8_t *dst, size_t dst_stride, size_t n_rows,
          size_t nbytes)
{
    for (size_t i = 0; i < n_rows; i++)
        memcpy(dst + i * dst_stride, src + i * src_stride, nbytes);
}

static void
copy_rows_any(const uint8_t *src, size_t src_stride, uint8_t *dst, size_t dst_stride, size_t n_rows,
              size_t nbytes)
{
    switch (nbytes) {
    case 1:
        copy_rows(src, src_stride, dst, dst_stride, n_rows, 1);
        break;
    case 2:
        copy_rows(src, src_stride, dst, dst_stride, n_rows, 2);
        break;
    case 4:
        copy_rows(src, src_stride, dst, dst_stride, n_rows, 4);
        break;
    case 8:
        copy_rows(src, src_stride, dst, dst_stride, n_rows, 8);
        break;
    default:
        copy_rows(src, src_stride, dst, dst_stride, n_rows, nbytes);
    }
}

void
scio_h5_box_copy(const scio_h5_box *box, size_t itemsize, const uint8_t *src, uint8_t *dst)
{
    /* The fastest outer axis is the loop of copy_rows, so positions are computed once a sheet. */
    const uint64_t n_rows = box->n_outer == 0 ? 1 : box->counts[box->n_outer - 1];
    const uint64_t src_stride = box->n_outer == 0 ? 0 : box->src_strides[box->n_outer - 1];
    const uint64_t dst_stride = box->n_outer == 0 ? 0 : box->dst_strides[box->n_outer - 1];

    for (uint64_t i = 0; i < box->n_runs; i += n_rows) {
        uint64_t src_at, dst_at;

        scio_h5_box_run(box, i, &src_at, &dst_at);
        copy_rows_any(src + src_at * itemsize, (size_t)src_stride * itemsize,
                      dst + dst_at * itemsize, (size_t)dst_stride * itemsize, (size_t)n_rows,
                      (size_t)box->run_items * itemsize);
    }
}

void
scio_h5_box_fill(const scio_h5_box *box, size_t itemsize, const void *item, uint8_t *dst)
{
    for (uint64_t i = 0; i < box->n_runs; i++) {
        uint64_t src_at, dst_at;

        scio_h5_box_run(box, i, &src_at, &dst_at);
        scio_h5_fill_items(dst + dst_at * itemsize, item, itemsize, (size_t)box->run_items);
    }
}
