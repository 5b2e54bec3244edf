/* Philox4x32-10: ten rounds of two 32-bit multiplications on a 128-bit counter under a 64-bit key.
 */
#include "base/rng.h"

static const uint32_t MULTIPLIER_0 = 0xD2511F53u;
static const uint32_t MULTIPLIER_1 = 0xCD9E8D57u;
static const uint32_t WEYL_0 = 0x9E3779B9u;
static const uint32_t WEYL_1 = 0xBB67AE85u;
enum { N_ROUNDS = 10 };

__extension__ typedef unsigned __int128 wide_product;

void
scio_rng_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];

    for (int round = 0; round < N_ROUNDS; round++) {
        const uint64_t p0 = (uint64_t)MULTIPLIER_0 * c0;
        const uint64_t p1 = (uint64_t)MULTIPLIER_1 * c2;
        const uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        const uint32_t n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;

        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += WEYL_0;
        k1 += WEYL_1;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* The counter is (index, stream), the key the seed: 2^128 values per seed, none depends on another.
 */
uint64_t
scio_rng_u64(uint64_t seed, uint64_t stream, uint64_t index)
{
    const uint32_t counter[4] = {(uint32_t)index, (uint32_t)(index >> 32), (uint32_t)stream,
                                 (uint32_t)(stream >> 32)};
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t out[4];

    scio_rng_philox(counter, key, out);
    return (uint64_t)out[1] << 32 | out[0];
}

/* Lemire's multiplication with rejection (ACM TOMACS 29, 2019): draws whose low product half is
 * below 2^64 mod bound would make some results too frequent; they are replaced by a draw of the
 * next sub-stream.  The remainder is below bound, so it is seldom needed. */
uint64_t
scio_rng_below(uint64_t seed, uint64_t stream, uint64_t index, uint64_t bound)
{
    if (bound < 2)
        return 0;
    for (uint64_t sub = 0;; sub++) {
        const uint64_t draw = scio_rng_u64(seed, stream + (sub << 48), index);
        const wide_product product = (wide_product)draw * bound;
        const uint64_t low = (uint64_t)product;

        if (low >= bound || low >= (0 - bound) % bound)
            return (uint64_t)(product >> 64);
    }
}

void
scio_rng_shuffle_i64(uint64_t seed, uint64_t stream, int64_t *items, size_t n_items)
{
    for (size_t left = n_items; left > 1; left--) {
        const size_t pick = (size_t)scio_rng_below(seed, stream, n_items - left, left);
        const int64_t kept = items[left - 1];

        items[left - 1] = items[pick];
        items[pick] = kept;
    }
}

/* The finaliser of splitmix64 (Steele, Lea, Flood, OOPSLA 2014), applied to each number in turn. */
static uint64_t
mixed(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

uint64_t
scio_rng_stream(uint64_t a, uint64_t b, uint64_t c)
{
    const uint64_t golden = 0x9E3779B97F4A7C15u;

    return mixed(mixed(mixed(a + golden) + b + golden) + c + golden);
}
