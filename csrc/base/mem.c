/* Aligned allocation.  A block is preceded by 64 bytes that hold its size, which keeps the block
 * itself aligned and its end exactly where the sanitizer's red zone begins. */
#include "base/mem.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

typedef struct block_header {
    _Alignas(SCIO_ALIGNMENT) size_t nbytes;
} block_header;

_Static_assert(sizeof(block_header) == SCIO_ALIGNMENT, "the block behind it must stay aligned");

bool
scio_mul_size(size_t a, size_t b, size_t *product_out)
{
    return !__builtin_mul_overflow(a, b, product_out);
}

bool
scio_add_size(size_t a, size_t b, size_t *sum_out)
{
    return !__builtin_add_overflow(a, b, sum_out);
}

bool
scio_mul_u64(uint64_t a, uint64_t b, uint64_t *product_out)
{
    return !__builtin_mul_overflow(a, b, product_out);
}

bool
scio_add_u64(uint64_t a, uint64_t b, uint64_t *sum_out)
{
    return !__builtin_add_overflow(a, b, sum_out);
}

uint64_t
scio_mul_capped(uint64_t a, uint64_t b)
{
    uint64_t product;

    return scio_mul_u64(a, b, &product) && product < SCIO_TOO_MANY ? product : SCIO_TOO_MANY;
}

uint64_t
scio_add_capped(uint64_t a, uint64_t b)
{
    uint64_t sum;

    return scio_add_u64(a, b, &sum) && sum < SCIO_TOO_MANY ? sum : SCIO_TOO_MANY;
}

#ifdef SCIO_TESTING

static atomic_size_t n_asked;
static atomic_size_t i_failing = SIZE_MAX;

bool
scio_mem_ask_fails(void)
{
    const size_t i_asked = atomic_fetch_add(&n_asked, 1);

    return i_asked >= atomic_load(&i_failing);
}

void
scio_mem_fail_at(size_t k)
{
    atomic_store(&i_failing, SIZE_MAX);
    atomic_store(&n_asked, 0);
    atomic_store(&i_failing, k);
}

size_t
scio_mem_n_asked(void)
{
    return atomic_load(&n_asked);
}

#else

bool
scio_mem_ask_fails(void)
{
    return false;
}

void
scio_mem_fail_at(size_t k)
{
    (void)k;
}

size_t
scio_mem_n_asked(void)
{
    return 0;
}

#endif

/* The block, or NULL with the failure recorded. */
static void *
block_new(size_t n_items, size_t itemsize, scio_error *err)
{
    size_t nbytes, total_nbytes;
    void *base = NULL;
    block_header *header;

    if (!scio_mul_size(n_items, itemsize, &nbytes) ||
        !scio_add_size(nbytes, sizeof(block_header), &total_nbytes)) {
        (void)scio_fail(err, SCIO_ENOMEM, "%zu items of %zu bytes exceed the address space",
                        n_items, itemsize);
        return NULL;
    }
    if (scio_mem_ask_fails() || posix_memalign(&base, SCIO_ALIGNMENT, total_nbytes) != 0) {
        (void)scio_fail(err, SCIO_ENOMEM, "no memory for %zu bytes", nbytes);
        return NULL;
    }
    header = base;
    header->nbytes = nbytes;
    return header + 1;
}

static size_t
block_nbytes(const void *block)
{
    return ((const block_header *)block - 1)->nbytes;
}

scio_status
scio_mem_alloc(size_t n_items, size_t itemsize, void *out, scio_error *err)
{
    void *block = block_new(n_items, itemsize, err);

    memcpy(out, &block, sizeof block);
    return block != NULL ? SCIO_OK : SCIO_ENOMEM;
}

scio_status
scio_mem_zalloc(size_t n_items, size_t itemsize, void *out, scio_error *err)
{
    void *block = block_new(n_items, itemsize, err);

    memcpy(out, &block, sizeof block);
    if (block == NULL)
        return SCIO_ENOMEM;
    memset(block, 0, block_nbytes(block));
    return SCIO_OK;
}

scio_status
scio_mem_realloc(void *inout, size_t n_items, size_t itemsize, scio_error *err)
{
    void *old, *block;

    memcpy(&old, inout, sizeof old);
    block = block_new(n_items, itemsize, err);
    if (block == NULL)
        return SCIO_ENOMEM;
    if (old != NULL) {
        const size_t old_nbytes = block_nbytes(old);
        const size_t new_nbytes = block_nbytes(block);

        memcpy(block, old, old_nbytes < new_nbytes ? old_nbytes : new_nbytes);
        scio_mem_free(old);
    }
    memcpy(inout, &block, sizeof block);
    return SCIO_OK;
}

scio_status
scio_mem_strndup(const char *text, size_t nbytes, char **out, scio_error *err)
{
    size_t total_nbytes;

    *out = NULL;
    if (!scio_add_size(nbytes, 1, &total_nbytes))
        return scio_fail(err, SCIO_ENOMEM, "a text of %zu bytes exceeds the address space", nbytes);
    SCIO_TRY(scio_mem_alloc(total_nbytes, 1, out, err));
    memcpy(*out, text, nbytes);
    (*out)[nbytes] = '\0';
    return SCIO_OK;
}

void
scio_mem_free(void *pointer)
{
    if (pointer != NULL)
        free((block_header *)pointer - 1);
}
