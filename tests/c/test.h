/* A test harness of forty lines: TEST registers, CHECK counts, main prints `N passed, N failed`. */
#ifndef SCIO_TESTS_C_TEST_H
#define SCIO_TESTS_C_TEST_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct test_case {
    const char *name;
    void (*run)(void);
    struct test_case *next;
} test_case;

static test_case *test_cases;
static test_case **test_tail = &test_cases;
static bool test_has_failed;

#define TEST(test_name)                                                                            \
    static void test_name(void);                                                                   \
    static test_case test_name##_case = {#test_name, test_name, NULL};                             \
    __attribute__((constructor)) static void test_name##_register(void)                            \
    {                                                                                              \
        *test_tail = &test_name##_case;                                                            \
        test_tail = &test_name##_case.next;                                                        \
    }                                                                                              \
    static void test_name(void)

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            test_has_failed = true;                                                                \
            printf("%s:%d: CHECK(%s) failed\n", __FILE__, __LINE__, #condition);                   \
        }                                                                                          \
    } while (0)

/* `got` contains `expected`; both are shown when it does not. */
#define CHECK_STR(got, expected)                                                                   \
    do {                                                                                           \
        if (strstr((got), (expected)) == NULL) {                                                   \
            test_has_failed = true;                                                                \
            printf("%s:%d: got \"%s\", expected \"%s\"\n", __FILE__, __LINE__, (got), (expected)); \
        }                                                                                          \
    } while (0)

/* No error has been noted; shown when there is one. */
#define CHECK_CLEAR(got)                                                                           \
    do {                                                                                           \
        if ((got)[0] != '\0') {                                                                    \
            test_has_failed = true;                                                                \
            printf("%s:%d: got \"%s\"\n", __FILE__, __LINE__, (got));                              \
        }                                                                                          \
    } while (0)

int
main(int argc, char **argv)
{
    int n_passed = 0, n_failed = 0;
    for (test_case *c = test_cases; c != NULL; c = c->next) {
        if (argc > 1 && strstr(c->name, argv[1]) == NULL)
            continue;
        test_has_failed = false;
        c->run();
        if (test_has_failed)
            printf("FAILED %s\n", c->name);
        n_failed += test_has_failed;
        n_passed += !test_has_failed;
    }
    printf("%d passed, %d failed\n", n_passed, n_failed);
    return n_failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
