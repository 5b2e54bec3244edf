/* CPU features, capped by SCIO_CPU=base|avx2|avx512. */
#ifndef SCIO_BASE_CPU_H
#define SCIO_BASE_CPU_H

#include "base/error.h"

typedef enum scio_cpu_level { SCIO_CPU_BASE, SCIO_CPU_AVX2, SCIO_CPU_AVX512 } scio_cpu_level;

/* The level in force: what the CPU offers, capped by SCIO_CPU.  Read once, at the first call.  An
 * unknown value of SCIO_CPU is EINVAL naming the legal ones; a level that the CPU lacks is capped.
 */
SCIO_MUST_CHECK scio_status scio_cpu_level_get(scio_cpu_level *out, scio_error *err);
/* As above; BASE when SCIO_CPU is wrong (the caller has reported that before). */
scio_cpu_level scio_cpu(void);
const char *scio_cpu_level_name(scio_cpu_level level);
/* Usable CPUs of this process (affinity mask), at least 1. */
size_t scio_cpu_count(void);

#endif
