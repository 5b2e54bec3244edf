/* What the CPU offers, asked once. */
#include "base/cpu.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static const char *const level_names[] = {"base", "avx2", "avx512"};

static scio_cpu_level
offered(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        return SCIO_CPU_AVX512;
    if (__builtin_cpu_supports("avx2"))
        return SCIO_CPU_AVX2;
#endif
    return SCIO_CPU_BASE;
}

static scio_status
find_level(scio_cpu_level *out, scio_error *err)
{
    const char *wanted = getenv("SCIO_CPU");
    const scio_cpu_level most = offered();

    *out = most;
    if (wanted == NULL || wanted[0] == '\0')
        return SCIO_OK;
    for (size_t i = 0; i < sizeof level_names / sizeof level_names[0]; i++) {
        if (strcmp(wanted, level_names[i]) == 0) {
            *out = (scio_cpu_level)i < most ? (scio_cpu_level)i : most;
            return SCIO_OK;
        }
    }
    *out = SCIO_CPU_BASE;
    return scio_fail(err, SCIO_EINVAL, "SCIO_CPU is \"%s\"; it is base, avx2 or avx512", wanted);
}

scio_status
scio_cpu_level_get(scio_cpu_level *out, scio_error *err)
{
    return find_level(out, err);
}

scio_cpu_level
scio_cpu(void)
{
    /* 0 = not asked yet; else level + 1.  Two threads that race find the same. */
    static _Atomic int known;
    int level = atomic_load_explicit(&known, memory_order_relaxed);

    if (level == 0) {
        scio_cpu_level found;

        if (find_level(&found, NULL) != SCIO_OK)
            found = SCIO_CPU_BASE;
        level = (int)found + 1;
        atomic_store_explicit(&known, level, memory_order_relaxed);
    }
    return (scio_cpu_level)(level - 1);
}

const char *
scio_cpu_level_name(scio_cpu_level level)
{
    return level_names[level];
}

size_t
scio_cpu_count(void)
{
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 1;
    return CPU_COUNT(&set) > 0 ? (size_t)CPU_COUNT(&set) : 1;
}
