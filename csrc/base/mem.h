/* The only malloc of scio: 64-byte aligned, sizes checked for overflow, failures testable. */
#ifndef SCIO_BASE_MEM_H
#define SCIO_BASE_MEM_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

#define SCIO_ALIGNMENT 64

/* True and the result on success, false on overflow. */
bool scio_mul_size(size_t a, size_t b, size_t *product_out);
bool scio_add_size(size_t a, size_t b, size_t *sum_out);
bool scio_mul_u64(uint64_t a, uint64_t b, uint64_t *product_out);
bool scio_add_u64(uint64_t a, uint64_t b, uint64_t *sum_out);
/* For estimates from shapes that nobody has checked: what no memory can be is SCIO_TOO_MANY, and
 * a few of them may be added without overflow. */
#define SCIO_TOO_MANY (UINT64_MAX / 64)
uint64_t scio_mul_capped(uint64_t a, uint64_t b);
uint64_t scio_add_capped(uint64_t a, uint64_t b);

/* `*out` = n_items * itemsize bytes, 64-byte aligned, content undefined; a request of 0 bytes gives
 * a valid pointer.  `*out` is NULL after an error (ENOMEM, also on overflow). */
SCIO_MUST_CHECK scio_status scio_mem_alloc(size_t n_items, size_t itemsize, void *out,
                                           scio_error *err);
/* The same, filled with zeros. */
SCIO_MUST_CHECK scio_status scio_mem_zalloc(size_t n_items, size_t itemsize, void *out,
                                            scio_error *err);
/* Grows or shrinks `*inout` (NULL allowed) keeping the first bytes; unchanged after an error. */
SCIO_MUST_CHECK scio_status scio_mem_realloc(void *inout, size_t n_items, size_t itemsize,
                                             scio_error *err);
/* A copy of the n bytes of `text` with a NUL behind them. */
SCIO_MUST_CHECK scio_status scio_mem_strndup(const char *text, size_t nbytes, char **out,
                                             scio_error *err);
void scio_mem_free(void *pointer);

/* `out` and `inout` are declared `void *` so that callers pass `&typed_pointer` without a cast;
 * they are written through memcpy. */

/* Test builds only (SCIO_TESTING): the k-th allocation from now (0 = the next) fails, and every one
 * after it until disarmed; SIZE_MAX disarms.  In other builds both do nothing / return 0. */
void scio_mem_fail_at(size_t k);
/* How many allocations were asked for since the last scio_mem_fail_at. */
size_t scio_mem_n_asked(void);
/* For the few places that get memory elsewhere (mmap): counts one allocation and answers whether it
 * is to fail; always false outside test builds. */
bool scio_mem_ask_fails(void);

#endif
