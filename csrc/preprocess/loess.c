/* See loess.h.
 *
 * Points of equal x are collapsed to one with their count and their mean y before anything is
 * fitted: exact, because a weighted least squares problem sees only these two, and about ten times
 * fewer rows for genes, whose means tie.  Sizes (span, leaves) still count points.
 *
 * Vertices are the ends of a box a little wider than the data and the cuts of a k-d tree, which in
 * one dimension is bisection.  A vertex has a value and a slope, from a quadratic fitted with
 * tricube weights to the q nearest points.  The columns of that problem are 1, t, t^2 with t = (x -
 * v) / h in
 * [-1, 1]; scaled to unit norm, taken to a 3 x 3 triangle by modified Gram-Schmidt with the right
 * hand side as fourth column (as stable as Householder for least squares: Bjorck, BIT 7, 1967),
 * and the triangle is inverted through its singular values, found by Jacobi's rotations of its
 * columns.  Only + - * / and sqrt: the same bits everywhere. */
#include "preprocess/loess.h"

#include "base/mem.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

#define MAX_COLUMNS 3
#define MAX_SWEEPS 60
/* Steeper than any y allowed over any gap that is not rounding; times any width it stays finite. */
#define MAX_SLOPE 1e200

typedef struct point {
    double x, y;
    size_t index;
} point;

typedef struct vertex {
    double x, value, slope;
    uint8_t flags;
} vertex;

typedef struct loess {
    point *points; /* [n_points] by x, then y */
    size_t n_points;
    double *x, *mean, *count; /* [n_distinct] */
    size_t n_distinct;
    double *columns[MAX_COLUMNS + 1]; /* [n_distinct] each, the last is the right hand side */
    vertex *vertices;                 /* [n_distinct + 2] is room for every cut */
    size_t n_vertices;
    size_t n_near; /* q of the literature: points in a window */
} loess;

typedef struct window {
    size_t begin, end; /* distinct x strictly nearer than width */
    double width;
    uint8_t flags;
} window;

/* --- points */

static int
compare_doubles(double a, double b)
{
    return (a > b) - (a < b);
}

/* By y too, so that the mean of tied points does not depend on the order they came in. */
static int
compare_points(const void *left, const void *right)
{
    const point *const a = left, *const b = right;
    const int by_x = compare_doubles(a->x, b->x);

    return by_x != 0 ? by_x : compare_doubles(a->y, b->y);
}

static int
compare_vertices(const void *left, const void *right)
{
    return compare_doubles(((const vertex *)left)->x, ((const vertex *)right)->x);
}

static scio_status
check_points(const double *x, const double *y, size_t n_points, double span, scio_error *err)
{
    if (!(span > 0 && span <= 1))
        return scio_fail(err, SCIO_EINVAL, "span is %g, expected a number in (0, 1]", span);
    for (size_t i = 0; i < n_points; i++) {
        if (!(fabs(x[i]) <= SCIO_LOESS_MAX_ABS && fabs(y[i]) <= SCIO_LOESS_MAX_ABS))
            return scio_fail(err, SCIO_EINVAL,
                             "point %zu is (%g, %g), expected finite numbers of at most %g", i,
                             x[i], y[i], SCIO_LOESS_MAX_ABS);
    }
    return SCIO_OK;
}

static void
sort_points(loess *l, const double *x, const double *y)
{
    for (size_t i = 0; i < l->n_points; i++)
        l->points[i] = (point){x[i], y[i], i};
    qsort(l->points, l->n_points, sizeof(*l->points), compare_points);
}

static void
collapse_points(loess *l)
{
    size_t n_distinct = 0;

    for (size_t begin = 0, end; begin < l->n_points; begin = end) {
        double sum = 0;

        for (end = begin; end < l->n_points && l->points[end].x == l->points[begin].x; end++)
            sum += l->points[end].y;
        l->x[n_distinct] = l->points[begin].x;
        l->count[n_distinct] = (double)(end - begin);
        l->mean[n_distinct] = sum / (double)(end - begin);
        n_distinct++;
    }
    l->n_distinct = n_distinct;
}

/* --- vertices */

typedef struct cell {
    size_t begin, end; /* points [begin, end) */
    double left, right;
} cell;

/* Position of the point at which points [begin, end) are cut: the one nearest to the middle whose
 * right neighbour has another x, right before left; the middle itself when the search leaves the
 * cell on either side first. */
static size_t
find_cut(const point *points, size_t begin, size_t end)
{
    const size_t last = end - 1;
    const size_t middle = (begin + end - 1) / 2; /* R's floor((l + u) / 2), whose l is begin + 1 */

    for (size_t step = 0; middle + step < last; step++) {
        if (points[middle + step].x != points[middle + step + 1].x)
            return middle + step;
        if (step > middle - begin)
            break;
        if (points[middle - step].x != points[middle - step + 1].x)
            return middle - step;
    }
    return middle;
}

/* cells[n_distinct + 2]: each cell that is split makes one more, and a vertex nobody else has. */
static void
cut_cells(loess *l, double span, cell *cells)
{
    const double first = l->x[0], last = l->x[l->n_distinct - 1];
    const double extent = fmax(last - first, 1e-10 * fmax(fabs(first), fabs(last)) + 1e-30);
    const size_t n_leaf = (size_t)floor((double)l->n_points * span * 0.2);
    size_t n_cells = 0;

    cells[n_cells++] = (cell){0, l->n_points, first - 0.005 * extent, last + 0.005 * extent};
    l->vertices[l->n_vertices++].x = cells[0].left;
    l->vertices[l->n_vertices++].x = cells[0].right;
    while (n_cells > 0) {
        const cell c = cells[--n_cells];
        size_t middle;
        double cut;

        if (c.begin == c.end || c.end - c.begin <= n_leaf)
            continue;
        middle = find_cut(l->points, c.begin, c.end);
        cut = l->points[middle].x;
        if (cut == c.left || cut == c.right)
            continue;
        l->vertices[l->n_vertices++].x = cut;
        cells[n_cells++] = (cell){c.begin, middle + 1, c.left, cut};
        cells[n_cells++] = (cell){middle + 1, c.end, cut, c.right};
    }
    qsort(l->vertices, l->n_vertices, sizeof(*l->vertices), compare_vertices);
}

/* --- the fit at one vertex */

/* First position of x[n] that is not below v. */
static size_t
lower_bound(const double *x, size_t n, double v)
{
    size_t begin = 0;

    while (n > 0) {
        const size_t half = n / 2;

        if (x[begin + half] < v) {
            begin += half + 1;
            n -= half + 1;
        } else {
            n = half;
        }
    }
    return begin;
}

/* Grows [begin, end) to the side of the nearer x until it holds n_near points and has a width; the
 * points at that width itself have weight 0 and are left out. */
static window
find_window(const loess *l, double v)
{
    const size_t start = lower_bound(l->x, l->n_distinct, v);
    window w = {start, start, 0, 0};
    double n_points = 0, nearest = 0;

    while (w.end - w.begin < l->n_distinct) {
        const bool has_left = w.begin > 0, has_right = w.end < l->n_distinct;
        const double left = has_left ? v - l->x[w.begin - 1] : 0;
        const double right = has_right ? l->x[w.end] - v : 0;
        const bool is_left = has_left && (!has_right || left < right);

        if (n_points >= (double)l->n_near) {
            if (w.width > nearest)
                break;
            w.flags |= SCIO_LOESS_ENLARGED;
        }
        if (w.end == w.begin)
            nearest = is_left ? left : right;
        w.width = is_left ? left : right;
        n_points += is_left ? l->count[--w.begin] : l->count[w.end++];
    }
    if (w.width <= nearest) { /* one distinct x in all: its weight is whatever is not 0 */
        w.width = 0;
        return w;
    }
    while (v - l->x[w.begin] >= w.width)
        w.begin++;
    while (l->x[w.end - 1] - v >= w.width)
        w.end--;
    return w;
}

/* Fills the columns 1, t, t^2 and y, all times the square root of the weight. */
static void
fill_columns(const loess *l, double v, const window *w, size_t n_columns)
{
    for (size_t i = w->begin; i < w->end; i++) {
        const size_t row = i - w->begin;
        const double distance = fabs(l->x[i] - v);
        const double t = w->width > 0 ? (l->x[i] - v) / w->width : 0;
        const double u = fabs(t);
        /* 1 - u^3 without cancellation near the edge, where two points of tiny weight may be all
         * that decides a coefficient */
        const double rest = w->width > 0 ? (w->width - distance) / w->width : 1;
        const double tricube = rest * (1 + u + u * u);
        double term = sqrt(l->count[i] * (tricube * tricube * tricube));

        l->columns[MAX_COLUMNS][row] = term * l->mean[i];
        for (size_t j = 0; j < n_columns; j++) {
            l->columns[j][row] = term;
            term *= t;
        }
    }
}

static double
dot(const double *a, const double *b, size_t n)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* Scales the columns to unit norm (norms_out), then columns = Q r, z = Q' y. */
static void
triangulate(const loess *l, size_t n_rows, size_t n_columns, double norms_out[MAX_COLUMNS],
            double r[MAX_COLUMNS][MAX_COLUMNS], double z[MAX_COLUMNS])
{
    double *const y = l->columns[MAX_COLUMNS];

    for (size_t j = 0; j < n_columns; j++) {
        const double norm = sqrt(dot(l->columns[j], l->columns[j], n_rows));

        norms_out[j] = norm > 0 ? norm : 1;
        for (size_t i = 0; i < n_rows; i++)
            l->columns[j][i] /= norms_out[j];
    }
    for (size_t j = 0; j < n_columns; j++) {
        double *const q = l->columns[j];
        const double norm = sqrt(dot(q, q, n_rows));

        for (size_t i = 0; norm > 0 && i < n_rows; i++)
            q[i] /= norm;
        r[j][j] = norm;
        for (size_t k = j + 1; k <= n_columns; k++) {
            double *const column = k < n_columns ? l->columns[k] : y;
            const double along = dot(q, column, n_rows);

            for (size_t i = 0; i < n_rows; i++)
                column[i] -= along * q[i];
            if (k < n_columns)
                r[j][k] = along;
            else
                z[j] = along;
        }
    }
}

/* One rotation of columns p and q of a, and of v alike; false when they were orthogonal. */
static bool
rotate(double a[MAX_COLUMNS][MAX_COLUMNS], double v[MAX_COLUMNS][MAX_COLUMNS], size_t n, size_t p,
       size_t q)
{
    double pp = 0, qq = 0, pq = 0, zeta, t, c, s;

    for (size_t i = 0; i < n; i++) {
        pp += a[i][p] * a[i][p];
        qq += a[i][q] * a[i][q];
        pq += a[i][p] * a[i][q];
    }
    if (fabs(pq) <= DBL_EPSILON * 0.5 * sqrt(pp * qq) || pq == 0)
        return false;
    zeta = (qq - pp) / (2 * pq);
    t = (zeta >= 0 ? 1 : -1) / (fabs(zeta) + sqrt(1 + zeta * zeta));
    c = 1 / sqrt(1 + t * t);
    s = c * t;
    for (size_t i = 0; i < n; i++) {
        const double ap = a[i][p], vp = v[i][p];

        a[i][p] = c * ap - s * a[i][q];
        a[i][q] = s * ap + c * a[i][q];
        v[i][p] = c * vp - s * v[i][q];
        v[i][q] = s * vp + c * v[i][q];
    }
    return true;
}

/* beta = pseudo-inverse of a (n x n, destroyed) times z, without the singular values of at most
 * 100 epsilon of the greatest; true when some were left out. */
static bool
solve_by_singular_values(double a[MAX_COLUMNS][MAX_COLUMNS], const double z[MAX_COLUMNS], size_t n,
                         double beta[MAX_COLUMNS])
{
    double v[MAX_COLUMNS][MAX_COLUMNS] = {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}};
    double squares[MAX_COLUMNS], greatest = 0;
    bool has_rotated = true, has_dropped = false;

    for (int sweep = 0; has_rotated && sweep < MAX_SWEEPS; sweep++) {
        has_rotated = false;
        for (size_t p = 0; p + 1 < n; p++)
            for (size_t q = p + 1; q < n; q++)
                has_rotated |= rotate(a, v, n, p, q);
    }
    for (size_t j = 0; j < n; j++) {
        beta[j] = 0;
        squares[j] = 0;
        for (size_t i = 0; i < n; i++)
            squares[j] += a[i][j] * a[i][j];
        greatest = fmax(greatest, sqrt(squares[j]));
    }
    for (size_t j = 0; j < n; j++) {
        double along = 0;

        if (sqrt(squares[j]) <= greatest * 100 * DBL_EPSILON) {
            has_dropped = true;
            continue;
        }
        for (size_t i = 0; i < n; i++)
            along += a[i][j] * z[i];
        for (size_t i = 0; i < n; i++)
            beta[i] += v[i][j] * (along / squares[j]);
    }
    return has_dropped;
}

static void
fit_vertex(const loess *l, vertex *vertex_inout)
{
    const window w = find_window(l, vertex_inout->x);
    const size_t n_rows = w.end - w.begin;
    const size_t n_columns = n_rows < MAX_COLUMNS ? n_rows : MAX_COLUMNS;
    double r[MAX_COLUMNS][MAX_COLUMNS] = {{0}}, z[MAX_COLUMNS], norms[MAX_COLUMNS];
    double beta[MAX_COLUMNS] = {0};

    fill_columns(l, vertex_inout->x, &w, n_columns);
    triangulate(l, n_rows, n_columns, norms, r, z);
    vertex_inout->flags = w.flags;
    if (n_columns < MAX_COLUMNS)
        vertex_inout->flags |= SCIO_LOESS_LOWERED;
    if (solve_by_singular_values(r, z, n_columns, beta))
        vertex_inout->flags |= SCIO_LOESS_PSEUDO_INVERSE;
    vertex_inout->value = beta[0] / norms[0];
    if (n_columns > 1)
        vertex_inout->slope = fmax(-MAX_SLOPE, fmin(beta[1] / norms[1] / w.width, MAX_SLOPE));
}

/* --- between vertices */

static void
interpolate(const loess *l, double *fit_out, uint8_t *flags_out)
{
    size_t i_vertex = 0;

    for (size_t i = 0; i < l->n_points; i++) {
        const point *const p = &l->points[i];
        const vertex *low, *high;
        double width, h;

        while (i_vertex + 2 < l->n_vertices && l->vertices[i_vertex + 1].x <= p->x)
            i_vertex++;
        low = &l->vertices[i_vertex];
        high = low + 1;
        width = high->x - low->x;
        h = (p->x - low->x) / width;
        fit_out[p->index] =
            (1 - h) * (1 - h) * (1 + 2 * h) * low->value + h * h * (3 - 2 * h) * high->value +
            h * (1 - h) * (1 - h) * width * low->slope - h * h * (1 - h) * width * high->slope;
        if (flags_out != NULL)
            flags_out[p->index] = low->flags | high->flags;
    }
}

static scio_loess_facts
count_facts(const loess *l)
{
    scio_loess_facts facts = {.n_vertices = l->n_vertices};

    for (size_t i = 0; i < l->n_vertices; i++) {
        const unsigned flags = l->vertices[i].flags;

        facts.n_pseudo_inverses += (flags & SCIO_LOESS_PSEUDO_INVERSE) != 0;
        facts.n_enlarged += (flags & SCIO_LOESS_ENLARGED) != 0;
        facts.n_lowered += (flags & SCIO_LOESS_LOWERED) != 0;
    }
    return facts;
}

static void
loess_clear(loess *l)
{
    scio_mem_free(l->points);
    scio_mem_free(l->x);
    scio_mem_free(l->mean);
    scio_mem_free(l->count);
    scio_mem_free(l->vertices);
    for (size_t j = 0; j <= MAX_COLUMNS; j++)
        scio_mem_free(l->columns[j]);
}

static scio_status
loess_alloc(loess *l, size_t n_points, cell **cells_out, scio_error *err)
{
    size_t n_vertices;

    if (!scio_add_size(n_points, 2, &n_vertices))
        return scio_fail(err, SCIO_ENOMEM, "a loess of %zu points", n_points);
    l->n_points = n_points;
    SCIO_TRY(scio_mem_alloc(n_points, sizeof(*l->points), &l->points, err));
    SCIO_TRY(scio_mem_alloc(n_points, sizeof(*l->x), &l->x, err));
    SCIO_TRY(scio_mem_alloc(n_points, sizeof(*l->mean), &l->mean, err));
    SCIO_TRY(scio_mem_alloc(n_points, sizeof(*l->count), &l->count, err));
    SCIO_TRY(scio_mem_zalloc(n_vertices, sizeof(*l->vertices), &l->vertices, err));
    for (size_t j = 0; j <= MAX_COLUMNS; j++)
        SCIO_TRY(scio_mem_alloc(n_points, sizeof(*l->columns[j]), &l->columns[j], err));
    return scio_mem_alloc(n_vertices, sizeof(**cells_out), cells_out, err);
}

scio_status
scio_loess_fit(const double *x, const double *y, size_t n_points, double span, double *fit_out,
               uint8_t *flags_out, scio_loess_facts *facts_out, scio_error *err)
{
    loess l = {0};
    cell *cells = NULL;
    scio_status status;
    double n_near;

    SCIO_TRY(check_points(x, y, n_points, span, err));
    *facts_out = (scio_loess_facts){0};
    if (n_points == 0)
        return SCIO_OK;
    status = loess_alloc(&l, n_points, &cells, err);
    if (status != SCIO_OK)
        goto done;
    n_near = fmin((double)n_points, floor((double)n_points * span + 1e-5));
    l.n_near = n_near < 1 ? 1 : (size_t)n_near;
    sort_points(&l, x, y);
    collapse_points(&l);
    cut_cells(&l, span, cells);
    for (size_t i = 0; i < l.n_vertices; i++)
        fit_vertex(&l, &l.vertices[i]);
    interpolate(&l, fit_out, flags_out);
    *facts_out = count_facts(&l);
done:
    scio_mem_free(cells);
    loess_clear(&l);
    return status;
}
