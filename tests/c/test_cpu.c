#include "base/cpu.h"

#include "test.h"

#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

/* The level is found out once per process, so each value of SCIO_CPU gets a child of its own.  Its
 * answer: 100 + level when all is well, 50 when the value was refused as it should be, else 1. */
static int
answer_of_child(const char *value)
{
    const pid_t child = fork();
    int how = 0;

    if (child == 0) {
        scio_error err = SCIO_ERROR_INIT;
        scio_cpu_level level;
        scio_status status;

        if (value == NULL)
            unsetenv("SCIO_CPU");
        else
            setenv("SCIO_CPU", value, 1);
        status = scio_cpu_level_get(&level, &err);
        setenv("SCIO_CPU", "avx999", 1); /* too late to matter */
        if (level != scio_cpu() || scio_cpu_level_get(&level, NULL) != status)
            _exit(1);
        if (status == SCIO_OK)
            _exit(100 + (int)level);
        _exit(status == SCIO_EINVAL && level == SCIO_CPU_BASE &&
                      strstr(err.message, "base, avx2 or avx512") != NULL &&
                      strstr(err.message, "is \"sse") != NULL
                  ? 50
                  : 1);
    }
    CHECK(child > 0 && waitpid(child, &how, 0) == child && WIFEXITED(how));
    return WEXITSTATUS(how);
}

TEST(a_level_is_capped_by_the_variable_and_by_the_cpu)
{
    const int most = answer_of_child(NULL);

    CHECK(most >= 100 && most <= 102);
    CHECK(answer_of_child("") == most);
    CHECK(answer_of_child("base") == 100);
    CHECK(answer_of_child("avx2") == (most < 101 ? most : 101));
    CHECK(answer_of_child("avx512") == most);
}

TEST(an_unknown_level_is_refused_with_the_legal_ones)
{
    CHECK(answer_of_child("sse9") == 50);
    CHECK(answer_of_child("sse but with a name that is longer than any level could ever be") == 50);
}

TEST(levels_have_names)
{
    CHECK(strcmp(scio_cpu_level_name(SCIO_CPU_BASE), "base") == 0);
    CHECK(strcmp(scio_cpu_level_name(SCIO_CPU_AVX2), "avx2") == 0);
    CHECK(strcmp(scio_cpu_level_name(SCIO_CPU_AVX512), "avx512") == 0);
    CHECK(strcmp(scio_cpu_level_name((scio_cpu_level)7), "unknown") == 0);
}

TEST(the_count_is_that_of_the_affinity_mask)
{
    const pid_t child = fork();
    int how = 0;

    CHECK(scio_cpu_count() >= 1);
    if (child == 0) {
        cpu_set_t usable, one;
        size_t i = 0;

        if (sched_getaffinity(0, sizeof usable, &usable) != 0)
            _exit(2);
        if (scio_cpu_count() != (size_t)CPU_COUNT(&usable))
            _exit(3);
        while (!CPU_ISSET(i, &usable))
            i++;
        CPU_ZERO(&one);
        CPU_SET(i, &one);
        if (sched_setaffinity(0, sizeof one, &one) != 0)
            _exit(4);
        _exit(scio_cpu_count() == 1 ? 0 : 5);
    }
    CHECK(waitpid(child, &how, 0) == child);
    CHECK(WIFEXITED(how) && WEXITSTATUS(how) == 0);
}
