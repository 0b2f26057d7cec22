/* The update of one site on a CPU: one read and one write of each edited token's stream.
 *
 * For a token with slot s and selector bits m, over the slot's columns j that are on, with
 * h = hidden (+ residual):
 *     rho = 1 + sum_{i seen} d_i
 *     p_j = rho bank[a_j].h + sum_{i seen} gram[a_j][b_i] c_i
 *     c_j and d_j by the column's kind (ADD: c_j = alpha + beta p_j + strength (clamp(p_j) - p_j))
 *     and its mode (SHARE: alpha counts in lengths of what it sees)
 *     hidden += sum_j c_j bank[b_j] + (sum_j d_j) h
 * accumulated in float. A token whose weights are all zero is not written, so that its bits stay
 * as they were. What every kind means: `passes/graph/column.py`, in torch `reference.py`.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define MAX_COLUMNS 64 /* also the first number of a gate of an earlier site */
#define LANES 16
#define PIECE 256 /* of a stream, a multiple of LANES */

/* When a JOINT block is solved: at a step of this part of the largest reading. */
#define JOINT_STEP 0x1p-22
#define JOINT_SWEEPS 512

/* What is shorter than this, squared, beside what it was, is a rounding error. */
#define NOTHING_LEFT 1e-10

enum { ADD, GATE, KEEP_NORM, REPLACE, JOINT, LINEAR, ROTATE }; /* Kind of passes/graph/column.py */
enum { SHARE = 1, ABSOLUTE = 2, COSINE = 4, STEP = 8, DECAY = 32 }; /* Mode of passes/graph/column.py */

typedef struct { /* COLUMN of codegen/slot.py */
    int32_t a, b; /* bank rows that are read and written, -1: none */
    float alpha, beta, strength, low, high;
    int32_t program;
    int32_t kind;
    int32_t gate;  /* a column of this update, from MAX_COLUMNS on one of the step's gates */
    int32_t store; /* where a GATE's weight goes in the step's gates, -1: nowhere */
    int32_t block; /* in the first of JOINT columns: how many are solved together */
    int64_t bit, unless, sees;
    int32_t mode, spare;
} column_t;

typedef struct {
    const float *bank;       /* [V, H] */
    const float *gram;       /* [V, V] */
    const column_t *columns; /* [S, K], slots `slot_stride` columns apart */
    const int32_t *count;    /* [S], `count_stride` apart */
    int64_t rows;            /* V */
    int64_t slot_stride, count_stride;
    int64_t hidden_size; /* H */
    int64_t *total;      /* [P], rows edited so far, by program */
    int64_t *seats;      /* [R, P], the same of one request, `seat_stride` apart */
    int64_t seat_stride;
} site_t;

typedef struct {
    const int32_t *slot; /* [T], -1: no edit */
    const int64_t *mask; /* [T] */
    const int32_t *seat; /* [T], -1: no report */
    float *gate;         /* [T, G], `gate_stride` apart */
    int64_t gate_stride;
    const int32_t *index; /* [T], how many generated tokens come before */
} step_t;

/* One token: its stream, the gates it has of earlier sites, and the weights found so far. */
typedef struct {
    const float *h;
    float *gate;
    int32_t index;
    float c[MAX_COLUMNS], g[MAX_COLUMNS]; /* of bank rows; of later columns */
    double d[MAX_COLUMNS];                /* of h itself */
    int scaled;                           /* whether any d is not zero */
} token_t;

/* Sixteen independent sums: they vectorise without licence to reorder NaN and infinity away. */
static float dot(const float *restrict x, const float *restrict y, int64_t n) {
    float lane[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++) lane[l] += x[i + l] * y[i + l];
    float sum = 0;
    for (int l = 0; l < LANES; l++) sum += lane[l];
    for (; i < n; i++) sum += x[i] * y[i];
    return sum;
}

static int is_on(const column_t *column, int64_t mask) {
    return (mask & column->bit) && !(mask & column->unless);
}

static int sees(const column_t *column, int i) { return column->sees >> i & 1; }

static void clear(token_t *token, int j) {
    token->c[j] = token->g[j] = 0;
    token->d[j] = 0;
}

static float read_row(const site_t *site, const token_t *token, int32_t row) {
    return dot(token->h, site->bank + row * site->hidden_size, site->hidden_size);
}

static float gram(const site_t *site, int32_t row, int32_t other) {
    return site->gram[row * site->rows + other];
}

static float clamp(float x, float low, float high) {
    return x < low ? low : x > high ? high : x; /* NaN stays NaN */
}

/* The weight of h behind the columns that one of them sees, of which there are n before it. */
static double rho(const token_t *token, const column_t *column, int n) {
    double sum = 1;
    for (int i = 0; token->scaled && i < n; i++)
        if (sees(column, i)) sum += token->d[i];
    return sum;
}

/* What a column reads behind the first n columns; 0 where it reads nothing. */
static float reads(const site_t *site, const column_t *columns, const column_t *one, int n,
                   const token_t *token) {
    if (one->a < 0) return 0;
    float p = read_row(site, token, one->a);
    if (token->scaled) p *= (float)rho(token, one, n);
    for (int i = 0; i < n; i++)
        if (sees(one, i) && columns[i].b >= 0) p += gram(site, one->a, columns[i].b) * token->c[i];
    return p;
}

/* The weight that a column's gate gives it; 1 where it has none. */
static float weight(const column_t *one, const token_t *token) {
    if (one->gate < 0) return 1;
    return one->gate < MAX_COLUMNS ? token->g[one->gate] : token->gate[one->gate - MAX_COLUMNS];
}

/* y.y, y.b and b.b of the stream y that column j sees and of the row b, 0 where there is none. */
typedef struct {
    double yy, yb, bb;
} squares_t;

static squares_t squares(const site_t *site, const column_t *columns, int j, const token_t *token) {
    const column_t *one = columns + j;
    const float seen = (float)rho(token, one, j);
    const float *b = one->b < 0 ? 0 : site->bank + one->b * site->hidden_size;
    double yy[LANES] = {0}, yb[LANES] = {0}, bb[LANES] = {0};
    for (int64_t start = 0; start < site->hidden_size; start += PIECE) {
        const int64_t n = site->hidden_size - start < PIECE ? site->hidden_size - start : PIECE;
        float y[PIECE] = {0}, v[PIECE] = {0};
        for (int64_t i = 0; i < n; i++) y[i] = seen * token->h[start + i];
        for (int k = 0; k < j; k++) {
            const float c = token->c[k];
            if (!sees(one, k) || columns[k].b < 0 || c == 0) continue;
            const float *row = site->bank + columns[k].b * site->hidden_size + start;
            for (int64_t i = 0; i < n; i++) y[i] += c * row[i];
        }
        if (b) memcpy(v, b + start, n * sizeof *v);
        for (int i = 0; i < PIECE; i += LANES)
            for (int l = 0; l < LANES; l++) {
                yy[l] += (double)y[i + l] * y[i + l];
                yb[l] += (double)y[i + l] * v[i + l];
                bb[l] += (double)v[i + l] * v[i + l];
            }
    }
    squares_t sum = {0};
    for (int l = 0; l < LANES; l++) sum.yy += yy[l], sum.yb += yb[l], sum.bb += bb[l];
    return sum;
}

/* What an ADD column adds: phi of its reading, where the stream that it sees has that length. */
static float phi(const column_t *one, float p, float length) {
    const float alpha = one->mode & SHARE ? one->alpha * length : one->alpha;
    return alpha + one->beta * p + one->strength * (clamp(p, one->low, one->high) - p);
}

static void open_gate(const site_t *site, const column_t *columns, int j, token_t *token) {
    const column_t *one = columns + j;
    float p = reads(site, columns, one, j, token);
    if (one->mode & COSINE) {
        const double length = sqrt(squares(site, columns, j, token).yy);
        p = length != 0 ? (float)(p / length) : 0;
    }
    if (one->mode & ABSOLUTE) p = fabsf(p);
    const float x = one->alpha * (p - one->low);
    const float e = expf(-fabsf(x)); /* at most 1, however large x is */
    token->g[j] = x < 0 ? e / (1 + e) : 1 / (1 + e);
    /* 0 where p is not finite */
    if (one->mode & STEP) token->g[j] = one->low < p && p < one->high;
    if (one->mode & DECAY) token->g[j] = exp2f(one->alpha * (float)token->index);
    token->g[j] *= weight(one, token);
    if (one->store >= 0) token->gate[one->store] = token->g[j];
}

/* Multiplies the stream that a column sees by r: the weights it is made of, column j's own part
 * of h included. */
static void rescale(const column_t *one, int j, double r, double seen, token_t *token) {
    token->d[j] = (r - 1) * seen;
    token->scaled |= token->d[j] != 0;
    for (int i = 0; i < j; i++)
        if (sees(one, i)) token->c[i] = (float)(token->c[i] * r);
}

static void replace(const column_t *one, int j, token_t *token) {
    const float w = weight(one, token) * one->strength;
    const double seen = rho(token, one, j);
    rescale(one, j, 1 - (double)w, seen, token);
    token->c[j] = w * one->alpha;
}

/* Adds s b to y and scales the sum to the norm of y, where something is left of it. */
static void keep_norm(const site_t *site, const column_t *columns, int j, token_t *token) {
    const column_t *one = columns + j;
    const squares_t sum = squares(site, columns, j, token);
    const float p = reads(site, columns, one, j, token);
    const double s = (double)weight(one, token) * phi(one, p, (float)sqrt(sum.yy));
    if (s == 0) return;
    const double new = sum.yy + 2 * s * sum.yb + s * s * sum.bb;
    const double r = new > NOTHING_LEFT * sum.yy ? sqrt(sum.yy / new) : 1;
    rescale(one, j, r, rho(token, one, j), token);
    token->c[j] = (float)(r * s);
}

/* Solves the n columns from j on, which see each other, by Hildreth's cyclic projections. */
static void joint(const site_t *site, const column_t *columns, int j, int n, int64_t mask,
                  token_t *token) {
    double first[MAX_COLUMNS], c[MAX_COLUMNS] = {0}, largest = 0, moved;
    for (int i = j; i < j + n; i++)
        if (is_on(columns + i, mask)) first[i - j] = reads(site, columns, columns + i, j, token);
    for (int sweep = 0; sweep < JOINT_SWEEPS; sweep++) {
        moved = 0;
        for (int i = 0; i < n; i++) {
            const column_t *one = columns + j + i;
            if (!is_on(one, mask)) continue;
            double p = first[i];
            for (int k = 0; k < n; k++)
                if (sees(one, j + k)) p += gram(site, one->a, columns[j + k].b) * c[k];
            if (sweep == 0) largest = fmax(largest, fabs(p));
            const double next = (p < one->low ? one->low : p > one->high ? one->high : p) - p;
            moved = fmax(moved, fabs(next - c[i]));
            c[i] = next;
        }
        if (!(moved > JOINT_STEP * largest)) break;
    }
    for (int i = 0; i < n; i++) {
        clear(token, j + i);
        token->c[j + i] = (float)(columns[j + i].strength * c[i]);
    }
}

/* Turns what columns j and j + 1 read to their angle, where the first reads more than its low. */
static void turn(const site_t *site, const column_t *columns, int j, token_t *token) {
    const column_t *one = columns + j;
    const float p = reads(site, columns, one, j, token);
    const float q = reads(site, columns, one + 1, j, token);
    const double length = hypot(p, q);
    const double w = p > one->low ? (double)weight(one, token) * one->strength : 0;
    clear(token, j + 1);
    token->c[j] = (float)(w * (one->alpha * length - p));
    token->c[j + 1] = (float)(w * (one[1].alpha * length - q));
}

/* Returns how many columns it has dealt with. */
static int other_kind(const site_t *site, const column_t *columns, int j, int64_t mask,
                      token_t *token) {
    const column_t *one = columns + j;
    if (one->kind == GATE) open_gate(site, columns, j, token);
    if (one->kind == KEEP_NORM) keep_norm(site, columns, j, token);
    if (one->kind == REPLACE) replace(one, j, token);
    if (one->block < 1) return 1;
    if (one->kind == ROTATE) turn(site, columns, j, token);
    if (one->kind != JOINT) return one->block;
    joint(site, columns, j, one->block, mask, token);
    return one->block;
}

/* Finds the weights of one token's n columns; returns whether any is not zero. */
static int weights(const site_t *site, const column_t *columns, int n, int64_t mask,
                   token_t *token) {
    token->scaled = 0;
    for (int j = 0, taken; j < n; j += taken) {
        const column_t *one = columns + j;
        clear(token, j);
        taken = 1;
        if (!is_on(one, mask)) continue;
        if (one->kind != ADD) {
            taken = other_kind(site, columns, j, mask, token);
            continue;
        }
        const int share = one->mode & SHARE;
        const float length = share ? (float)sqrt(squares(site, columns, j, token).yy) : 1;
        token->c[j] = weight(one, token) * phi(one, reads(site, columns, one, j, token), length);
    }
    int any = token->scaled;
    for (int j = 0; j < n; j++) any |= token->c[j] != 0;
    return any;
}

/* The part of h goes first: where it takes all of h away, nothing of it is left in the sum. */
static void apply(const site_t *site, const column_t *columns, int n, const token_t *token,
                  float *restrict out) {
    if (token->scaled) {
        double sum = 0;
        for (int j = 0; j < n; j++) sum += token->d[j];
        const float *restrict h = token->h;
        const float scale = (float)sum;
        for (int64_t i = 0; i < site->hidden_size; i++) out[i] += scale * h[i];
    }
    for (int j = 0; j < n; j++) {
        const float scale = token->c[j];
        if (scale == 0 || columns[j].b < 0) continue;
        const float *restrict row = site->bank + columns[j].b * site->hidden_size;
        for (int64_t i = 0; i < site->hidden_size; i++) out[i] += scale * row[i];
    }
}

static int fired(const token_t *token, int j) { return token->c[j] != 0 || token->d[j] != 0; }

/* Counts the row once for each program that changed it. */
static void count_row(const site_t *site, const column_t *columns, int n, const token_t *token,
                      int32_t seat) {
    for (int j = 0; j < n; j++) {
        int first = fired(token, j);
        for (int i = 0; first && i < j; i++)
            first = !fired(token, i) || columns[i].program != columns[j].program;
        if (!first) continue;
        site->total[columns[j].program]++;
        if (seat >= 0) site->seats[seat * site->seat_stride + columns[j].program]++;
    }
}

static int selected(const column_t *columns, int n, int64_t mask) {
    for (int j = 0; j < n; j++)
        if (is_on(columns + j, mask)) return 1;
    return 0;
}

static float load_f32(float x) { return x; }
static float store_f32(float x) { return x; }

static float load_bf16(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float out;
    memcpy(&out, &bits, 4);
    return out;
}

static uint16_t store_bf16(float x) { /* round to nearest even, NaN stays NaN */
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if (x != x) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static float load_f16(_Float16 x) { return (float)x; }
static _Float16 store_f16(float x) { return (_Float16)x; }

#define UPDATE(NAME, TYPE, LOAD, STORE, CARRIED, LOAD_CARRIED)                                   \
    void NAME(TYPE *hidden, const CARRIED *residual, int64_t tokens, int64_t hidden_stride,      \
              int64_t residual_stride, const step_t *step, float *scratch, const site_t *site) { \
        const int64_t size = site->hidden_size;                                                  \
        token_t token;                                                                           \
        for (int64_t t = 0; t < tokens; t++) {                                                   \
            const int64_t slot = step->slot[t], mask = step->mask[t];                            \
            if (slot < 0) continue;                                                              \
            const column_t *columns = site->columns + slot * site->slot_stride;                  \
            const int n = site->count[slot * site->count_stride];                                \
            if (!selected(columns, n, mask)) continue;                                           \
            TYPE *restrict own = hidden + t * hidden_stride;                                     \
            float *restrict h = scratch, *restrict out = scratch + size;                         \
            for (int64_t i = 0; i < size; i++) h[i] = out[i] = LOAD(own[i]);                     \
            if (residual) {                                                                      \
                const CARRIED *restrict r = residual + t * residual_stride;                      \
                for (int64_t i = 0; i < size; i++) h[i] += LOAD_CARRIED(r[i]);                   \
            }                                                                                    \
            token.h = h;                                                                         \
            token.gate = step->gate + t * step->gate_stride;                                     \
            token.index = step->index[t];                                                        \
            if (!weights(site, columns, n, mask, &token)) continue;                              \
            apply(site, columns, n, &token, out);                                                \
            for (int64_t i = 0; i < size; i++) own[i] = STORE(out[i]);                           \
            count_row(site, columns, n, &token, step->seat[t]);                                  \
        }                                                                                        \
    }

/* The carried residual has the stream's dtype, or is the fp32 sum that it was rounded from. */
UPDATE(interv_update_f32_f32, float, load_f32, store_f32, float, load_f32)
UPDATE(interv_update_bf16_bf16, uint16_t, load_bf16, store_bf16, uint16_t, load_bf16)
UPDATE(interv_update_bf16_f32, uint16_t, load_bf16, store_bf16, float, load_f32)
UPDATE(interv_update_f16_f16, _Float16, load_f16, store_f16, _Float16, load_f16)
UPDATE(interv_update_f16_f32, _Float16, load_f16, store_f16, float, load_f32)
