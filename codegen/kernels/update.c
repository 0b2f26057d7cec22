/* The update of one site on a CPU: one read and one write of each edited token's stream.
 *
 * For a token with slot s and selector bits m, over the slot's columns j:
 *     p_j = bank[a_j].h + sum_{i < j, seen} gram[a_j][b_i] c_i
 *     c_j = alpha + beta p_j + strength (clamp(p_j, low, high) - p_j)     (0 where the bit is off)
 *     hidden += c_j bank[b_j]
 * with h = hidden (+ residual), accumulated in float. A token whose coefficients are all zero is
 * not written, so that its bits stay as they were.
 */
#include <stdint.h>
#include <string.h>

#define MAX_COLUMNS 64
#define COEFFICIENTS 5
#define LANES 16

typedef struct {
    const float *bank; /* [V, H] */
    const float *gram; /* [V, V] */
    const int32_t *a;  /* [S, K] */
    const int32_t *b;
    const float *coef; /* [S, K, 5] */
    const int64_t *bit;
    const int64_t *sees;
    const int32_t *count; /* [S] */
    int64_t rows;         /* V */
    int64_t width;        /* K */
    int64_t hidden_size;  /* H */
    int64_t *edited;      /* rows written so far, by slot */
} site_t;

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

/* Fills c[0..count) for one token; returns whether any is not zero. */
static int coefficients(const site_t *site, int64_t slot, int64_t mask, const float *h, float *c) {
    const int64_t at = slot * site->width;
    const int32_t *a = site->a + at, *b = site->b + at;
    const int64_t *sees = site->sees + at;
    const float *coef = site->coef + at * COEFFICIENTS;
    int any = 0;
    for (int j = 0; j < site->count[slot]; j++, coef += COEFFICIENTS) {
        c[j] = 0;
        if (!(mask & site->bit[at + j])) continue;
        float p = 0;
        if (a[j] >= 0) {
            p = dot(h, site->bank + a[j] * site->hidden_size, site->hidden_size);
            const float *gram = site->gram + a[j] * site->rows;
            for (int i = 0; i < j; i++)
                if (sees[j] >> i & 1) p += gram[b[i]] * c[i];
        }
        const float low = coef[3], high = coef[4];
        const float inside = p < low ? low : p > high ? high : p;
        c[j] = coef[0] + coef[1] * p + coef[2] * (inside - p);
        any |= c[j] != 0;
    }
    return any;
}

static void add_columns(const site_t *site, int64_t slot, const float *c, float *restrict out) {
    const int32_t *b = site->b + slot * site->width;
    for (int j = 0; j < site->count[slot]; j++) {
        if (c[j] == 0) continue;
        const float *restrict row = site->bank + b[j] * site->hidden_size;
        const float scale = c[j];
        for (int64_t i = 0; i < site->hidden_size; i++) out[i] += scale * row[i];
    }
}

static int selected(const site_t *site, int32_t slot, int64_t mask) {
    if (slot < 0) return 0;
    for (int j = 0; j < site->count[slot]; j++)
        if (mask & site->bit[slot * site->width + j]) return 1;
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
              int64_t residual_stride, const int32_t *slot, const int64_t *mask,                 \
              float *scratch, const site_t *site) {                                              \
        const int64_t n = site->hidden_size;                                                     \
        float c[MAX_COLUMNS];                                                                    \
        for (int64_t t = 0; t < tokens; t++) {                                                   \
            if (!selected(site, slot[t], mask[t])) continue;                                     \
            TYPE *restrict own = hidden + t * hidden_stride;                                     \
            float *restrict h = scratch, *restrict out = scratch + n;                            \
            for (int64_t i = 0; i < n; i++) h[i] = out[i] = LOAD(own[i]);                        \
            if (residual) {                                                                      \
                const CARRIED *restrict r = residual + t * residual_stride;                      \
                for (int64_t i = 0; i < n; i++) h[i] += LOAD_CARRIED(r[i]);                      \
            }                                                                                    \
            if (!coefficients(site, slot[t], mask[t], h, c)) continue;                           \
            add_columns(site, slot[t], c, out);                                                  \
            for (int64_t i = 0; i < n; i++) own[i] = STORE(out[i]);                              \
            site->edited[slot[t]]++;                                                             \
        }                                                                                        \
    }

/* The carried residual has the stream's dtype, or is the fp32 sum that it was rounded from. */
UPDATE(interv_update_f32_f32, float, load_f32, store_f32, float, load_f32)
UPDATE(interv_update_bf16_bf16, uint16_t, load_bf16, store_bf16, uint16_t, load_bf16)
UPDATE(interv_update_bf16_f32, uint16_t, load_bf16, store_bf16, float, load_f32)
UPDATE(interv_update_f16_f16, _Float16, load_f16, store_f16, _Float16, load_f16)
UPDATE(interv_update_f16_f32, _Float16, load_f16, store_f16, float, load_f32)
