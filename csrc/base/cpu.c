/* What the CPU offers and what SCIO_CPU allows, found out once. */
#include "base/cpu.h"

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

static const char *const level_names[] = {
    [SCIO_CPU_BASE] = "base", [SCIO_CPU_AVX2] = "avx2", [SCIO_CPU_AVX512] = "avx512"};
#define N_LEVELS (sizeof level_names / sizeof level_names[0])

/* The outcome, for good after find_level has run. */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static scio_cpu_level level_in_force = SCIO_CPU_BASE;
static char unknown_name[32]; /* SCIO_CPU when it is wrong, cut; else empty */

#if defined(__x86_64__)
/* By hand, since not every compiler's __builtin_cpu_supports knows it.  Its registers are AVX's. */
static bool
has_f16c(void)
{
    unsigned eax, ebx, ecx, edx;

    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
#endif

/* AVX512 asks for what x86-64-v4 has of it: every server CPU that has one of the four has all. */
static scio_cpu_level
offered_level(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !has_f16c())
        return SCIO_CPU_BASE;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        return SCIO_CPU_AVX512;
    return SCIO_CPU_AVX2;
#else
    return SCIO_CPU_BASE;
#endif
}

static void
find_level(void)
{
    const char *wanted = getenv("SCIO_CPU");
    const scio_cpu_level offered = offered_level();

    level_in_force = offered;
    if (wanted == NULL || wanted[0] == '\0')
        return;
    for (size_t i = 0; i < N_LEVELS; i++) {
        if (strcmp(wanted, level_names[i]) == 0) {
            level_in_force = (scio_cpu_level)i < offered ? (scio_cpu_level)i : offered;
            return;
        }
    }
    level_in_force = SCIO_CPU_BASE;
    strncpy(unknown_name, wanted, sizeof unknown_name - 1);
}

scio_status
scio_cpu_level_get(scio_cpu_level *out, scio_error *err)
{
    *out = scio_cpu();
    if (unknown_name[0] != '\0')
        return scio_fail(err, SCIO_EINVAL, "SCIO_CPU is \"%s\"; it is base, avx2 or avx512",
                         unknown_name);
    return SCIO_OK;
}

scio_cpu_level
scio_cpu(void)
{
    (void)pthread_once(&once, find_level);
    return level_in_force;
}

const char *
scio_cpu_level_name(scio_cpu_level level)
{
    return (size_t)level < N_LEVELS ? level_names[level] : "unknown";
}

size_t
scio_cpu_count(void)
{
    long n_online;
    cpu_set_t usable;

    if (sched_getaffinity(0, sizeof usable, &usable) == 0 && CPU_COUNT(&usable) > 0)
        return (size_t)CPU_COUNT(&usable);
    /* More CPUs than a cpu_set_t has room for. */
    n_online = sysconf(_SC_NPROCESSORS_ONLN);
    return n_online > 0 ? (size_t)n_online : 1;
}
