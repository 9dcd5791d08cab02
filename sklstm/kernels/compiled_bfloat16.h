/* The steps of one direction of a layer in bfloat16: weights, states and gates have 16 bits, the cell
   states and all sums 32.

   Included by compiled.c after compiled_steps.h of the same width, once for each way to multiply,
   with these defined:
   SHORT(x)  the name of x for this way
   TILES     products by the tiles of Intel's AMX; or
   DOT       by the instruction of AVX-512 for pairs of bfloat16; or neither: they are widened

   A thread runs TEXTS texts at a time, the longest first, through all their steps. The product of a
   step is one of matrices: the states of these texts, one below the other, with a panel of weights.
   Panels are made of blocks of SIDE columns, and these of tiles of SIDE pairs of rows, as AMX wants
   them: in a tile the two numbers of a pair are next to each other, column by column. */

/* dot + the products of the pairs of a with the pairs of b, of 32 bits each. */
INLINE V SHORT(dot)(V dot, I a, I b) {
#if defined(TILES) || defined(DOT)
    return (V)_mm512_dpbf16_ps((__m512)dot, (__m512bh)a, (__m512bh)b);
#else
    const I high = (I){0} - 65536;
    return dot + (V)(a << 16) * (V)(b << 16) + (V)(a & high) * (V)(b & high);
#endif
}

INLINE V SHORT(load)(const bfloat16 *from) {
#if WIDTH == 16
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from));
    return (V)_mm512_slli_epi32(wide, 16);
#else
    I wide;
    for (int k = 0; k < WIDTH; k++) wide[k] = from[k];
    return (V)(wide << 16);
#endif
}

/* Rounded to the nearest, halves to even; NaN stays NaN. */
INLINE void SHORT(store)(bfloat16 *to, V x) {
#if defined(TILES) || defined(DOT)
    _mm256_storeu_si256((__m256i *)to, (__m256i)_mm512_cvtneps_pbh((__m512)x));
#else
    I bits = (I)x;
    const V rounded = (V)(bits + 32767 + ((bits >> 16) & 1));
    bits = (I)NAME(choose)((I)(x == x), rounded, (V)(bits | 4194304));
    for (int k = 0; k < WIDTH; k++) to[k] = (uint32_t)bits[k] >> 16;
#endif
}

/* The activations to some 1e-6 of their value: what is kept of them has three digits. 2^y is that of
   the whole part of y, times a polynomial of the rest. */
#if defined(TILES) || defined(DOT)
INLINE V SHORT(power_of_2)(V y) {
    const V rest = (V)_mm512_reduce_ps((__m512)y, 1); /* y - floor(y) */
    V p = NAME(all)(1.88637260e-3f);
    p = p * rest + 8.96605089e-3f;
    p = p * rest + 5.58482808e-2f;
    p = p * rest + 2.40144946e-1f;
    p = p * rest + 6.93154326e-1f;
    return NAME(times_power_of_2)(p * rest + 9.99999896e-1f, y);
}
INLINE V SHORT(sigmoid)(V x) {
    return (V)_mm512_rcp14_ps((__m512)(1.0f + SHORT(power_of_2)(x * -1.44269504f)));
}
INLINE V SHORT(tangent)(V x) { /* infinity has no inverse here; in this order NaN stays */
    const V y = (V)_mm512_min_ps(_mm512_set1_ps(126.0f), (__m512)(x * 2.88539008f));
    return 1.0f - 2.0f * NAME(inverse)(1.0f + SHORT(power_of_2)(y));
}
#else
INLINE V SHORT(sigmoid)(V x) { return NAME(sigmoid)(x); }
INLINE V SHORT(tangent)(V x) { return NAME(tangent)(x); }
#endif

/* out[block] (TEXTS, SIDE) = a @ panel[block], of the first ``rows`` rows of a. The rows of a are
   4 * hidden numbers apart, and ``tiles`` tiles of 2 * SIDE numbers are used of each. */
#if defined(TILES)
#define ZERO_FOUR_TILES() \
    { _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3); }
static void SHORT(multiply)(const Layer *layer, int64_t rows, const bfloat16 *a, int64_t tiles,
                            const bfloat16 *panel, int64_t blocks, float *out) {
    const int64_t a_row = 4 * layer->hidden, size = 2 * SIDE * SIDE, block = tiles * size;
    const int64_t whole = TEXTS * SIDE, half = whole / 2;
    int64_t done = 0;
    for (; rows > SIDE && done + 2 <= blocks; done += 2) { /* two blocks of the sums of all rows */
        const bfloat16 *first = a, *second = a + SIDE * a_row, *b = panel + done * block;
        ZERO_FOUR_TILES()
        for (int64_t k = 0; k < tiles; k++, first += 2 * SIDE, second += 2 * SIDE, b += size) {
            _tile_loadd(4, first, 2 * a_row);
            _tile_loadd(6, b, 64);
            _tile_loadd(5, second, 2 * a_row);
            _tile_loadd(7, b + block, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 5, 6);
            _tile_dpbf16ps(2, 4, 7);
            _tile_dpbf16ps(3, 5, 7);
        }
        float *to = out + done * whole;
        _tile_stored(0, to, 64);
        _tile_stored(1, to + half, 64);
        _tile_stored(2, to + whole, 64);
        _tile_stored(3, to + whole + half, 64);
    }
    for (; rows <= SIDE && done + 4 <= blocks; done += 4) { /* four of those of half the rows */
        const bfloat16 *first = a, *b = panel + done * block;
        ZERO_FOUR_TILES()
        for (int64_t k = 0; k < tiles; k++, first += 2 * SIDE, b += size) {
            _tile_loadd(4, first, 2 * a_row);
            _tile_loadd(5, b, 64);
            _tile_loadd(6, b + block, 64);
            _tile_dpbf16ps(0, 4, 5);
            _tile_loadd(7, b + 2 * block, 64);
            _tile_dpbf16ps(1, 4, 6);
            _tile_loadd(5, b + 3 * block, 64);
            _tile_dpbf16ps(2, 4, 7);
            _tile_dpbf16ps(3, 4, 5);
        }
        float *to = out + done * whole;
        _tile_stored(0, to, 64);
        _tile_stored(1, to + whole, 64);
        _tile_stored(2, to + 2 * whole, 64);
        _tile_stored(3, to + 3 * whole, 64);
    }
    for (; done < blocks; done++) /* what is left, a tile of sums at a time */
        for (int64_t row = 0; row < rows; row += SIDE) {
            const bfloat16 *first = a + row * a_row, *b = panel + done * block;
            _tile_zero(0);
            for (int64_t k = 0; k < tiles; k++, first += 2 * SIDE, b += size) {
                _tile_loadd(4, first, 2 * a_row);
                _tile_loadd(6, b, 64);
                _tile_dpbf16ps(0, 4, 6);
            }
            _tile_stored(0, out + done * whole + row * SIDE, 64);
        }
}
#undef ZERO_FOUR_TILES
#else
INLINE void SHORT(multiply_rows)(const int rows, int64_t a_row, const bfloat16 *a, int64_t pairs,
                                 const bfloat16 *b, int64_t block, const int blocks, float *out) {
    V sum[ROWS][4];
    for (int row = 0; row < rows; row++)
        for (int own = 0; own < blocks; own++) sum[row][own] = NAME(all)(0.0f);
    for (int64_t k = 0; k < pairs; k++, b += 2 * SIDE)
        for (int own = 0; own < blocks; own++) {
            const I weights = *(const I *)(b + own * block);
            for (int row = 0; row < rows; row++) {
                const I pair = (I){0} + ((const word *)(a + row * a_row))[k];
                sum[row][own] = SHORT(dot)(sum[row][own], weights, pair);
            }
        }
    for (int row = 0; row < rows; row++)
        for (int own = 0; own < blocks; own++)
            NAME(store)(out + own * TEXTS * SIDE + row * SIDE, sum[row][own]);
}

static void SHORT(multiply)(const Layer *layer, int64_t rows, const bfloat16 *a, int64_t tiles,
                            const bfloat16 *panel, int64_t blocks, float *out) {
    const int64_t a_row = 4 * layer->hidden, pairs = tiles * SIDE, block = 2 * pairs * SIDE;
    for (int64_t done = 0; done < blocks;) {
        const int64_t own = blocks - done >= 4 ? 4 : 1;
        for (int64_t column = 0; column < SIDE; column += WIDTH)
            for (int64_t row = 0; row < rows;) {
                const bfloat16 *from = a + row * a_row, *b = panel + done * block + 2 * column;
                float *to = out + (done * TEXTS + row) * SIDE + column;
#define MULTIPLY(rows, blocks) \
    SHORT(multiply_rows)(rows, a_row, from, pairs, b, block, blocks, to), row += rows
                if (rows - row >= ROWS && own == 4) MULTIPLY(ROWS, 4);
                else if (own == 4) MULTIPLY(1, 4);
                else if (rows - row >= ROWS) MULTIPLY(ROWS, 1);
                else MULTIPLY(1, 1);
#undef MULTIPLY
            }
        done += own;
    }
}
#endif

/* Where a text is at a step. */
typedef struct {
    const bfloat16 *projected;
    const float *c_before, *mask;
    bfloat16 *gates, *h_in, *out;
    float *c, *last;
    int64_t text;
    int32_t token;
} SHORT(Spot);

INLINE void SHORT(find_spot)(const Layer *layer, int64_t text, int64_t step, SHORT(Spot) *at) {
    const int64_t hidden = layer->hidden;
    const Place here = place_of(layer, text, step);
    const int64_t source = layer->source ? layer->source[here.row] : here.row;
    at->projected = (const bfloat16 *)layer->projected + source * layer->projected_row;
    at->gates = layer->gates ? (bfloat16 *)layer->gates + here.row * layer->gates_row : 0;
    at->h_in = layer->h_in && step + 1 < layer->lengths[text]
                   ? (bfloat16 *)layer->h_in + here.row_after * hidden : 0;
    at->mask = layer->mask ? layer->mask + text * hidden : 0;
    at->c = layer->c ? layer->c + here.row * hidden : layer->c_last + text * hidden;
    at->c_before = layer->c && step ? layer->c + here.row_before * hidden
                                    : layer->c_last + text * hidden;
    at->out = layer->pooled ? 0 : (bfloat16 *)layer->out + here.token * layer->out_step
                                      + text * layer->out_text;
    at->last = layer->pooled ? out_of(layer, text, here.token) : 0;
    at->text = text;
    at->token = here.token;
}

/* The new states of a vector of units of a text; ``sum`` has the products of the first gate. */
INLINE void SHORT(finish)(const Layer *layer, const SHORT(Spot) *at, int64_t unit, const float *sum,
                          bfloat16 *h_next) {
    const int64_t hidden = layer->hidden;
    V gate[4];
    for (int k = 0; k < 4; k++)
        gate[k] = NAME(load)(sum + k * TEXTS * SIDE)
                  + SHORT(load)(at->projected + k * hidden + unit);
    for (int k = 0; k < 4; k++)
        gate[k] = k == 2 ? SHORT(tangent)(gate[k]) : SHORT(sigmoid)(gate[k]);
    const V c = gate[1] * NAME(load)(at->c_before + unit) + gate[0] * gate[2];
    NAME(store)(at->c + unit, c);
    if (at->gates) {
        for (int k = 0; k < 4; k++) SHORT(store)(at->gates + k * hidden + unit, gate[k]);
        const int64_t ahead = layer->reverse ? -1 : 1;
        for (int k = 0; k < 4; k++)
            ask_for(at->gates, 2 * (ahead * layer->gates_row + k * hidden + unit));
        ask_for(at->c, 4 * (ahead * hidden + unit));
        ask_for(at->h_in, 2 * (ahead * hidden + unit));
    }
    V h = gate[3] * SHORT(tangent)(c);
    if (at->out) SHORT(store)(at->out + unit, h);
    if (at->last) {
        NAME(store)(at->last + unit, h);
        NAME(take_into_pools)(layer, at->text * hidden + unit, at->token, h);
    }
    if (at->mask) h *= NAME(load)(at->mask + unit);
    SHORT(store)(h_next + unit, h);
    if (at->h_in) SHORT(store)(at->h_in + unit, h);
}

/* All steps of the texts order[thread], order[thread + n_threads], ... */
static void SHORT(forward)(const Layer *layer, int64_t thread, int64_t n_threads) {
    const int64_t hidden = layer->hidden, row_size = 4 * hidden;
    const int64_t tiles = tiles_of(hidden), panel_size = 4 * tiles * 2 * SIDE * SIDE;
    const int64_t n_texts = count_of(layer, thread, n_threads);
    bfloat16 *before = (bfloat16 *)layer->scratch + thread * TEXTS * row_size;
    bfloat16 *after = before + row_size / 2;
    float sum[4 * TEXTS * SIDE] __attribute__((aligned(64)));
    clear_padding(layer, thread, n_threads);
    SHORT(begin)();
    for (int64_t first = 0; first < n_texts; first += TEXTS) {
        int64_t live = n_texts - first < TEXTS ? n_texts - first : TEXTS, text[TEXTS];
        for (int64_t row = 0; row < live; row++) {
            text[row] = layer->order[thread + (first + row) * n_threads];
            memcpy(before + row * row_size, (const bfloat16 *)layer->h0 + text[row] * hidden,
                   hidden * sizeof(bfloat16));
        }
        const int64_t n_steps = layer->lengths[text[0]];
        for (int64_t step = 0; step < n_steps; step++) {
            SHORT(Spot) at[TEXTS];
            while (layer->lengths[text[live - 1]] <= step) live--;
            for (int64_t row = 0; row < live; row++)
                SHORT(find_spot)(layer, text[row], step, at + row);
            for (int64_t unit = 0; unit < hidden; unit += SIDE) {
                const bfloat16 *panel = (const bfloat16 *)layer->forward_panels
                                        + unit / SIDE * panel_size;
                SHORT(multiply)(layer, live, before, tiles, panel, 4, sum);
                for (int64_t row = 0; row < live; row++)
                    for (int64_t u = 0; u < SIDE; u += WIDTH)
                        SHORT(finish)(layer, at + row, unit + u, sum + row * SIDE + u,
                                      after + row * row_size);
            }
            bfloat16 *other = before;
            before = after;
            after = other;
        }
    }
    SHORT(end)();
}

/* As gates_backward of compiled_steps.h; ``copy`` gets the gradients of the gates once more. */
static void SHORT(gates_backward)(const Layer *layer, int64_t text, int64_t step, float *bias,
                                  bfloat16 *copy) {
    const int64_t hidden = layer->hidden;
    const Place here = place_of(layer, text, step);
    const bfloat16 *gates = (const bfloat16 *)layer->gates + here.row * layer->gates_row;
    const float *c_new = layer->c + here.row * hidden;
    const float *c_before = step ? layer->c + here.row_before * hidden : layer->c0 + text * hidden;
    const bfloat16 *grad = layer->grad
        ? (const bfloat16 *)layer->grad + here.token * layer->grad_step + text * layer->grad_text
        : 0;
    bfloat16 *d = (bfloat16 *)layer->d + here.row * layer->d_row;
    const float *dh_later = layer->dh + text * hidden;
    float *dc_later = layer->dc + text * hidden;
    const int64_t next = (layer->reverse ? 1 : -1) * layer->d_row;
    for (int64_t u = 0; u < hidden; u += WIDTH) {
        V gate_of[4], of_gate[4];
        for (int gate = 0; gate < 4; gate++) gate_of[gate] = SHORT(load)(gates + gate * hidden + u);
        const V tanh_c = SHORT(tangent)(NAME(load)(c_new + u));
        V dh = NAME(load)(dh_later + u);
        if (grad) dh += SHORT(load)(grad + u);
        dh = NAME(add_pool_gradients)(layer, text * hidden + u, here.token, dh);
        NAME(differentiate)(gate_of, NAME(load)(c_before + u), tanh_c, dh, dc_later + u, of_gate);
        for (int gate = 0; gate < 4; gate++) {
            SHORT(store)(d + gate * hidden + u, of_gate[gate]);
            SHORT(store)(copy + gate * hidden + u, of_gate[gate]);
            ask_for(d, 2 * (next + gate * hidden + u));
            float *sum = bias + gate * hidden + u;
            NAME(store)(sum, NAME(load)(sum) + of_gate[gate]);
        }
    }
}

/* dh = d @ weight_hh of the texts of which ``d`` has a row each. */
static void SHORT(states_backward)(const Layer *layer, int64_t live, const int64_t *text,
                                   const bfloat16 *d, float *sum) {
    const int64_t hidden = layer->hidden, tiles = tiles_of(4 * hidden);
    const int64_t block = tiles * 2 * SIDE * SIDE;
    for (int64_t column = 0; column < hidden; column += 4 * SIDE) {
        const int64_t left = (hidden - column) / SIDE, blocks = left < 4 ? left : 4;
        const bfloat16 *panel = (const bfloat16 *)layer->backward_panels + column / SIDE * block;
        SHORT(multiply)(layer, live, d, tiles, panel, blocks, sum);
        for (int64_t row = 0; row < live; row++)
            for (int64_t u = 0; u < blocks * SIDE; u += WIDTH) {
                const int64_t place = text[row] * hidden + column + u;
                V dh = NAME(load)(sum + (u / SIDE * TEXTS + row) * SIDE + u % SIDE);
                if (layer->mask) dh *= NAME(load)(layer->mask + place);
                NAME(store)(layer->dh + place, dh);
            }
    }
}

/* All steps back, of the same texts as in forward. */
static void SHORT(backward)(const Layer *layer, int64_t thread, int64_t n_threads) {
    const int64_t hidden = layer->hidden, row_size = 4 * hidden;
    const int64_t n_texts = count_of(layer, thread, n_threads);
    bfloat16 *d = (bfloat16 *)layer->scratch + thread * TEXTS * row_size;
    float *bias = layer->grad_bias + thread * row_size;
    float sum[4 * TEXTS * SIDE] __attribute__((aligned(64)));
    SHORT(begin)();
    for (int64_t first = 0; first < n_texts; first += TEXTS) {
        const int64_t n_here = n_texts - first < TEXTS ? n_texts - first : TEXTS;
        int64_t text[TEXTS], live = 0;
        for (int64_t row = 0; row < n_here; row++)
            text[row] = layer->order[thread + (first + row) * n_threads];
        for (int64_t step = layer->lengths[text[0]] - 1; step >= 0; step--) {
            while (live < n_here && layer->lengths[text[live]] > step) live++;
            for (int64_t row = 0; row < live; row++)
                SHORT(gates_backward)(layer, text[row], step, bias, d + row * row_size);
            SHORT(states_backward)(layer, live, text, d, sum);
        }
    }
    SHORT(end)();
}

/* A panel: the columns of ``weight`` (n_k, n_columns by strides) of ``blocks`` blocks. */
INLINE bfloat16 *SHORT(pack_block)(bfloat16 *to, const bfloat16 *weight, int64_t n_k,
                                   int64_t k_stride, int64_t column_stride) {
    for (int64_t k = 0; k < tiles_of(n_k) * 2 * SIDE; k += 2)
        for (int64_t column = 0; column < SIDE; column++)
            for (int64_t own = k; own < k + 2; own++)
                *to++ = own < n_k ? weight[own * k_stride + column * column_stride] : 0;
    return to;
}

/* weight_hh (4H, H) in the order in which the products read it. */
static void SHORT(pack)(const Layer *layer, const void *weight_hh) {
    const int64_t hidden = layer->hidden;
    const bfloat16 *weight = weight_hh;
    bfloat16 *to = (bfloat16 *)layer->forward_panels;
    for (int64_t unit = 0; to && unit < hidden; unit += SIDE)
        for (int64_t gate = 0; gate < 4; gate++)
            to = SHORT(pack_block)(to, weight + (gate * hidden + unit) * hidden, hidden, 1, hidden);
    if (!(to = (bfloat16 *)layer->backward_panels)) return;
    for (int64_t column = 0; column < hidden; column += SIDE)
        to = SHORT(pack_block)(to, weight + column, 4 * hidden, hidden, 1);
}

/* to (width) = the sum of the rows ``which``, rounded once. */
static void SHORT(sum_rows)(const Sums *sums, const int64_t *which, int64_t n, void *to) {
    for (int64_t begin = 0; begin < sums->width; begin += 4 * SIDE) {
        V sum[4 * SIDE / WIDTH];
        for (int v = 0; v < 4 * SIDE / WIDTH; v++) sum[v] = NAME(all)(0.0f);
        for (int64_t k = 0; k < n; k++) {
            const bfloat16 *row = (const bfloat16 *)sums->rows + which[k] * sums->row + begin;
            for (int v = 0; v < 4 * SIDE / WIDTH; v++) sum[v] += SHORT(load)(row + v * WIDTH);
        }
        for (int v = 0; v < 4 * SIDE / WIDTH; v++)
            SHORT(store)((bfloat16 *)to + begin + v * WIDTH, sum[v]);
    }
}
