#include "test.h"

#include "base/mem.h"
#include "base/rng.h"
#include "preprocess/loess.h"

#include <math.h>

#define MAX_POINTS 20000

static double x[MAX_POINTS], y[MAX_POINTS], fit[MAX_POINTS], again[MAX_POINTS];
static uint8_t flags[MAX_POINTS];

static double
uniform(size_t i)
{
    return (double)(scio_rng_u64(7, 1, i) >> 11) * 0x1p-53;
}

static scio_loess_facts
fit_points(size_t n_points, double span)
{
    scio_error err = SCIO_ERROR_INIT;
    scio_loess_facts facts;

    CHECK(scio_loess_fit(x, y, n_points, span, fit, flags, &facts, &err) == SCIO_OK);
    CHECK_CLEAR(err.message);
    return facts;
}

static bool
are_finite(size_t n_points)
{
    for (size_t i = 0; i < n_points; i++) {
        if (!isfinite(fit[i]))
            return false;
    }
    return true;
}

TEST(a_quadratic_is_reproduced)
{
    const size_t n_points = 1000;
    scio_loess_facts facts;

    for (size_t i = 0; i < n_points; i++) {
        x[i] = 4 * uniform(i) - 2;
        y[i] = 3 - x[i] + 0.5 * x[i] * x[i];
    }
    facts = fit_points(n_points, 0.3);
    for (size_t i = 0; i < n_points; i++)
        CHECK(fabs(fit[i] - y[i]) < 1e-12);
    CHECK(facts.n_vertices > 17 && facts.n_pseudo_inverses == 0);
    CHECK(facts.n_enlarged == 0 && facts.n_lowered == 0 && flags[0] == 0);
}

TEST(a_permutation_of_the_points_permutes_the_fit)
{
    const size_t n_points = 500;

    for (size_t i = 0; i < n_points; i++) {
        x[i] = floor(40 * uniform(i)); /* many ties */
        y[i] = uniform(n_points + i);
    }
    fit_points(n_points, 0.3);
    memcpy(again, fit, sizeof again);
    for (size_t i = 0; i < n_points / 2; i++) {
        const double other_x = x[n_points - 1 - i], other_y = y[n_points - 1 - i];

        x[n_points - 1 - i] = x[i];
        y[n_points - 1 - i] = y[i];
        x[i] = other_x;
        y[i] = other_y;
    }
    fit_points(n_points, 0.3);
    for (size_t i = 0; i < n_points; i++)
        CHECK(memcmp(&fit[i], &again[n_points - 1 - i], sizeof fit[i]) == 0);
}

TEST(few_points_and_ties_give_numbers)
{
    const double spans[] = {1e-9, 0.05, 0.3, 1};

    for (size_t n_points = 1; n_points <= 40; n_points++) {
        for (size_t n_distinct = 1; n_distinct <= n_points; n_distinct += 3) {
            for (size_t s = 0; s < sizeof(spans) / sizeof(spans[0]); s++) {
                for (size_t i = 0; i < n_points; i++) {
                    x[i] = (double)(i % n_distinct) * (i % 2 == 0 ? 1 : 1e-7);
                    y[i] = uniform(i);
                }
                CHECK(fit_points(n_points, spans[s]).n_vertices >= 2);
                CHECK(are_finite(n_points));
            }
        }
    }
}

TEST(one_x_gives_the_mean)
{
    for (size_t i = 0; i < 4; i++) {
        x[i] = -3.25;
        y[i] = (double)i;
    }
    CHECK(fit_points(4, 0.3).n_lowered == 2 + 1); /* both ends and the cut at the point */
    for (size_t i = 0; i < 4; i++) {
        CHECK(fabs(fit[i] - 1.5) < 1e-15);
        CHECK(flags[i] & SCIO_LOESS_LOWERED);
    }
}

TEST(a_window_without_width_grows)
{
    /* 90 of 100 points lie at 0: the 30 nearest to it have no width */
    for (size_t i = 0; i < 100; i++) {
        x[i] = i < 90 ? 0 : (double)i;
        y[i] = x[i];
    }
    CHECK(fit_points(100, 0.3).n_enlarged > 0);
    CHECK(flags[0] & SCIO_LOESS_ENLARGED);
    CHECK(are_finite(100));
}

TEST(singular_values_are_dropped_and_counted)
{
    /* x that differ by little beside their distance from the end of the box, whose columns
     * 1, t, t^2 are alike there */
    for (size_t i = 0; i < 100; i++) {
        x[i] = i < 50 ? 1e-15 * (double)i : 1 + 1e-15 * (double)i;
        y[i] = 1 + (double)(i % 2);
    }
    CHECK(fit_points(100, 0.6).n_pseudo_inverses > 0);
    CHECK(are_finite(100));
}

TEST(large_and_tiny_numbers_stay_finite)
{
    for (size_t i = 0; i < 64; i++) {
        x[i] = (i % 2 == 0 ? -1 : 1) * pow(10, (double)i / 64 * 70);
        y[i] = SCIO_LOESS_MAX_ABS;
    }
    fit_points(64, 0.3);
    CHECK(are_finite(64));
    for (size_t i = 0; i < 64; i++)
        x[i] = 1e-300 * (double)(i * i);
    fit_points(64, 0.3);
    CHECK(are_finite(64));
}

TEST(no_points)
{
    CHECK(fit_points(0, 0.3).n_vertices == 0);
}

TEST(bad_arguments)
{
    const double bad_spans[] = {0, -1, 1.5, NAN, INFINITY};
    scio_loess_facts facts;

    x[0] = x[1] = y[0] = y[1] = 1;
    for (size_t i = 0; i < 5; i++) {
        scio_error err = SCIO_ERROR_INIT;

        CHECK(scio_loess_fit(x, y, 2, bad_spans[i], fit, NULL, &facts, &err) == SCIO_EINVAL);
        CHECK_STR(err.message, "expected a number in (0, 1]");
    }
    for (size_t i = 0; i < 2; i++) {
        scio_error err = SCIO_ERROR_INIT;

        x[1] = i == 0 ? NAN : 1;
        y[1] = i == 0 ? 1 : -INFINITY;
        CHECK(scio_loess_fit(x, y, 2, 0.3, fit, NULL, &facts, &err) == SCIO_EINVAL);
        CHECK_STR(err.message, "point 1 is (");
    }
}

TEST(every_allocation_may_fail)
{
    scio_loess_facts facts;
    scio_status status = SCIO_ENOMEM;
    size_t k = 0;

    for (size_t i = 0; i < 100; i++)
        x[i] = y[i] = (double)i;
    for (; status != SCIO_OK && k < 50; k++) {
        scio_error err = SCIO_ERROR_INIT;

        scio_mem_fail_at(k);
        status = scio_loess_fit(x, y, 100, 0.3, fit, flags, &facts, &err);
        scio_mem_fail_at(SIZE_MAX);
        CHECK(status == SCIO_OK || status == SCIO_ENOMEM);
    }
    CHECK(k > 5 && status == SCIO_OK);
}
