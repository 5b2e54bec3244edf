#include "base/mem.h"

#include "test.h"

/* The sanitizers' allocators end the process on a request that no system could serve, unless told;
 * they ask these functions, which must be visible. */
#pragma GCC visibility push(default)
const char *__asan_default_options(void);
const char *__tsan_default_options(void);
#pragma GCC visibility pop

const char *
__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}

const char *
__tsan_default_options(void)
{
    return "allocator_may_return_null=1";
}

static bool
is_aligned(const void *pointer)
{
    return (uintptr_t)pointer % SCIO_ALIGNMENT == 0;
}

TEST(checked_arithmetic_says_when_it_overflows)
{
    size_t s = 0;
    uint64_t u = 0;

    CHECK(scio_mul_size(3, 5, &s) && s == 15);
    CHECK(scio_mul_size(SIZE_MAX, 1, &s) && s == SIZE_MAX);
    CHECK(!scio_mul_size(SIZE_MAX / 2 + 1, 2, &s));
    CHECK(scio_add_size(SIZE_MAX - 1, 1, &s) && s == SIZE_MAX);
    CHECK(!scio_add_size(SIZE_MAX, 1, &s));
    CHECK(scio_mul_u64(UINT64_MAX, 0, &u) && u == 0);
    CHECK(!scio_mul_u64(UINT64_C(1) << 32, UINT64_C(1) << 32, &u));
    CHECK(scio_add_u64(1, 2, &u) && u == 3);
    CHECK(!scio_add_u64(UINT64_MAX, UINT64_MAX, &u));
}

TEST(blocks_of_every_small_size_are_aligned_and_writable)
{
    for (size_t nbytes = 0; nbytes < 300; nbytes++) {
        unsigned char *block = NULL;

        CHECK(scio_mem_alloc(nbytes, 1, &block, NULL) == SCIO_OK);
        CHECK(block != NULL && is_aligned(block));
        memset(block, 0xa5, nbytes);
        scio_mem_free(block);
    }
    scio_mem_free(NULL);
}

TEST(zalloc_gives_zeros_where_something_else_was)
{
    for (int round = 0; round < 8; round++) {
        unsigned char *dirty = NULL, *block = NULL;
        int sum = 0;

        CHECK(scio_mem_alloc(1000, 3, &dirty, NULL) == SCIO_OK);
        memset(dirty, 0xff, 3000);
        scio_mem_free(dirty);
        CHECK(scio_mem_zalloc(1000, 3, &block, NULL) == SCIO_OK);
        for (size_t i = 0; i < 3000; i++)
            sum |= block[i];
        CHECK(sum == 0 && is_aligned(block));
        scio_mem_free(block);
    }
}

TEST(a_request_beyond_the_address_space_is_an_error_and_the_pointer_null)
{
    scio_error err = SCIO_ERROR_INIT;
    int here = 0;
    void *block = &here;
    char *text = NULL;

    CHECK(scio_mem_alloc(SIZE_MAX / 2, 3, &block, &err) == SCIO_ENOMEM);
    CHECK(block == NULL);
    CHECK_STR(err.message, "exceed the address space");
    block = &here;
    CHECK(scio_mem_zalloc(SIZE_MAX, 1, &block, NULL) == SCIO_ENOMEM); /* no room for the header */
    CHECK(block == NULL);
    CHECK(scio_mem_strndup("", SIZE_MAX, &text, NULL) == SCIO_ENOMEM);
    CHECK(text == NULL);
}

TEST(a_request_that_the_system_refuses_names_its_size)
{
    scio_error err = SCIO_ERROR_INIT;
    void *block = NULL;

    CHECK(scio_mem_alloc(SIZE_MAX / 4, 1, &block, &err) == SCIO_ENOMEM);
    CHECK(block == NULL);
    CHECK_STR(err.message, "no memory for 4611686018427387903 bytes");
}

TEST(realloc_keeps_the_first_bytes_both_ways)
{
    uint32_t *items = NULL;

    for (size_t n = 1; n < 5000; n = n * 3 / 2 + 1) {
        CHECK(scio_mem_realloc(&items, n, sizeof *items, NULL) == SCIO_OK);
        CHECK(is_aligned(items));
        items[n - 1] = (uint32_t)n;
        for (size_t m = 1; m <= n; m = m * 3 / 2 + 1)
            CHECK(items[m - 1] == m);
    }
    CHECK(scio_mem_realloc(&items, 1, sizeof *items, NULL) == SCIO_OK);
    CHECK(items[0] == 1);
    CHECK(scio_mem_realloc(&items, 0, sizeof *items, NULL) == SCIO_OK);
    CHECK(items != NULL);
    scio_mem_free(items);
}

TEST(realloc_leaves_the_block_alone_when_it_fails)
{
    scio_error err = SCIO_ERROR_INIT;
    char *text = NULL;
    char *before;

    CHECK(scio_mem_strndup("abcdef", 3, &text, NULL) == SCIO_OK);
    before = text;
    CHECK(scio_mem_realloc(&text, SIZE_MAX, 2, &err) == SCIO_ENOMEM);
    CHECK(text == before && strcmp(text, "abc") == 0);
    scio_mem_fail_at(0);
    CHECK(scio_mem_realloc(&text, 100, 1, NULL) == SCIO_ENOMEM);
    scio_mem_fail_at(SIZE_MAX);
    CHECK(text == before && strcmp(text, "abc") == 0);
    scio_mem_free(text);
}

TEST(strndup_copies_bytes_and_ends_them)
{
    char *text = NULL;

    CHECK(scio_mem_strndup("a\0bc", 4, &text, NULL) == SCIO_OK);
    CHECK(memcmp(text, "a\0bc\0", 5) == 0);
    scio_mem_free(text);
}

TEST(the_hook_fails_the_nth_allocation_and_those_after_it)
{
    void *blocks[5] = {NULL};

    scio_mem_fail_at(2);
    for (size_t i = 0; i < 5; i++) {
        scio_error err = SCIO_ERROR_INIT;
        const scio_status status = scio_mem_alloc(10, 1, &blocks[i], &err);

        CHECK(status == (i < 2 ? SCIO_OK : SCIO_ENOMEM));
        CHECK((blocks[i] != NULL) == (i < 2));
        CHECK(err.code == status);
    }
    CHECK(scio_mem_n_asked() == 5);
    scio_mem_fail_at(SIZE_MAX);
    CHECK(scio_mem_n_asked() == 0);
    CHECK(!scio_mem_ask_fails());
    CHECK(scio_mem_n_asked() == 1);
    for (size_t i = 0; i < 5; i++)
        scio_mem_free(blocks[i]);
}

TEST(capped_sizes_stay_below_the_cap_and_are_exact_below_it)
{
    const uint64_t big[] = {SCIO_TOO_MANY, SCIO_TOO_MANY + 1, UINT64_MAX / 2, UINT64_MAX};

    CHECK(scio_mul_capped(7, 6) == 42 && scio_add_capped(40, 2) == 42);
    CHECK(scio_mul_capped(0, UINT64_MAX) == 0);
    CHECK(scio_mul_capped(SCIO_TOO_MANY - 1, 1) == SCIO_TOO_MANY - 1);
    CHECK(scio_add_capped(SCIO_TOO_MANY - 3, 2) == SCIO_TOO_MANY - 1);
    for (size_t i = 0; i < 4; i++)
        for (size_t k = 0; k < 4; k++) {
            CHECK(scio_mul_capped(big[i], big[k]) == SCIO_TOO_MANY);
            CHECK(scio_add_capped(big[i], big[k]) == SCIO_TOO_MANY);
            CHECK(scio_mul_capped(big[i], 1) == SCIO_TOO_MANY);
            CHECK(scio_add_capped(1, big[k]) == SCIO_TOO_MANY);
        }
}
