/* The steps of one direction of a layer, for one width of vectors.

   Included by compiled.c once for each instruction set, with these defined:
   NAME(x)  the name of x for this instruction set
   WIDTH    floats in a vector
   ROWS     texts that are computed at once: as many as the registers hold sums for

   The sums of the four gates of WIDTH units of ROWS texts, their activations and the new states are
   computed in registers, so that the sums never go to memory. */

typedef float NAME(vector) __attribute__((vector_size(WIDTH * 4), aligned(4), may_alias));
typedef int32_t NAME(whole) __attribute__((vector_size(WIDTH * 4), aligned(4), may_alias));

INLINE V NAME(load)(const float *from) { return *(const V *)from; }
INLINE void NAME(store)(float *to, V x) { *(V *)to = x; }
INLINE V NAME(all)(float x) { return x - (V){0}; }

/* exp(x) for |x| <= 87: 2^n times a polynomial (Cephes' expf), to about 1e-7 of the value. */
#if WIDTH == 16
INLINE V NAME(within)(V x, float limit) {
    const __m512 highest = _mm512_set1_ps(limit), lowest = _mm512_set1_ps(-limit);
    return (V)_mm512_min_ps(highest, _mm512_max_ps(lowest, (__m512)x)); /* in this order NaN stays */
}
INLINE V NAME(greater)(V x, V y) { return (V)_mm512_max_ps((__m512)x, (__m512)y); }
INLINE V NAME(rounded)(V x) { return (V)_mm512_roundscale_ps((__m512)x, 8); }
INLINE V NAME(times_power_of_2)(V x, V n) { return (V)_mm512_scalef_ps((__m512)x, (__m512)n); }
INLINE V NAME(inverse)(V x) { /* an estimate to 14 bits, and one step of Newton's */
    V estimate = (V)_mm512_rcp14_ps((__m512)x);
    return estimate * (NAME(all)(2.0f) - x * estimate);
}
#else
INLINE V NAME(choose)(I mask, V yes, V no) { return (V)(((I)yes & mask) | ((I)no & ~mask)); }
INLINE V NAME(within)(V x, float limit) {
    const V highest = NAME(all)(limit);
    x = NAME(choose)((I)(x > highest), highest, x); /* in this order NaN stays */
    return NAME(choose)((I)(x < -highest), -highest, x);
}
INLINE V NAME(greater)(V x, V y) { return NAME(choose)((I)(x > y), x, y); }
INLINE V NAME(rounded)(V x) { /* floats of this size have no room for a fraction */
    const V large = NAME(all)(12582912.0f);
    return (x + large) - large;
}
INLINE V NAME(times_power_of_2)(V x, V n) {
    return x * (V)((__builtin_convertvector(n, I) + 127) << 23);
}
INLINE V NAME(inverse)(V x) { return 1.0f / x; }
#endif

INLINE V NAME(exponential)(V x) {
    x = NAME(within)(x, 87.0f);
    V n = NAME(rounded)(x * 1.44269504f);
    V r = x - n * 0.693359375f + n * 2.12194440e-4f; /* minus n log 2, in two parts */
    V p = NAME(all)(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    return NAME(times_power_of_2)(p * (r * r) + r + 1.0f, n);
}
INLINE V NAME(sigmoid)(V x) { return NAME(inverse)(1.0f + NAME(exponential)(-x)); }
INLINE V NAME(tangent)(V x) { return 1.0f - 2.0f * NAME(inverse)(1.0f + NAME(exponential)(x + x)); }

/* Up to ROWS rows of a step, each a text and a block of units: where they are read and written. */
typedef struct {
    const float *h_before[ROWS], *projected[ROWS], *c_before[ROWS], *mask[ROWS];
    float *gates[ROWS], *c[ROWS], *h_next[ROWS], *out[ROWS];
    int64_t text[ROWS], unit[ROWS];
    int32_t token[ROWS];
} NAME(Places);

/* The maximum and the sum of the states of a text, with those of one step more. */
INLINE void NAME(take_into_pools)(const Layer *layer, int64_t place, int32_t token, V h) {
    if (layer->greatest) {
        V *greatest = (V *)(layer->greatest + place);
        if (layer->where) { /* of equal states the one that is read first */
            I *where = (I *)(layer->where + place);
            const I more = (I)(h > *greatest) | (I)(h != h);
            *where = (*where & ~more) | (((I){0} + token) & more);
        }
        /* With NaN in the second place it is the result, and all states after it are NaN as well. */
        *greatest = NAME(greater)(*greatest, h);
    }
    if (layer->sum) { /* by Kahan: in a long text the rounding of a plain sum adds up */
        const V old = NAME(load)(layer->sum + place);
        const V more = h - NAME(load)(layer->lost + place), sum = old + more;
        NAME(store)(layer->lost + place, (sum - old) - more);
        NAME(store)(layer->sum + place, sum);
    }
}

/* The new states of rows whose sums are complete. */
INLINE void NAME(finish)(const int rows, const Layer *layer, V sum[ROWS][4],
                         const NAME(Places) *at) {
    const int64_t hidden = layer->hidden;
    /* One kind of work for all rows after another: the processor overlaps those of a kind. */
    for (int gate = 0; gate < 4; gate++)
        for (int row = 0; row < rows; row++)
            if (gate != 2) sum[row][gate] = NAME(sigmoid)(sum[row][gate]);
    for (int row = 0; row < rows; row++) sum[row][2] = NAME(tangent)(sum[row][2]);
    V c[ROWS];
    for (int row = 0; row < rows; row++) {
        const int64_t unit = at->unit[row];
        c[row] = sum[row][1] * NAME(load)(at->c_before[row] + unit) + sum[row][0] * sum[row][2];
        NAME(store)(at->c[row] + unit, c[row]);
    }
    if (layer->gates)
        for (int row = 0; row < rows; row++)
            for (int gate = 0; gate < 4; gate++)
                NAME(store)(at->gates[row] + gate * hidden + at->unit[row], sum[row][gate]);
    for (int row = 0; row < rows; row++) c[row] = NAME(tangent)(c[row]);
    for (int row = 0; row < rows; row++) {
        const int64_t unit = at->unit[row];
        V h = sum[row][3] * c[row];
        NAME(store)(at->out[row] + unit, h);
        if (layer->pooled)
            NAME(take_into_pools)(layer, at->text[row] * hidden + unit, at->token[row], h);
        if (!at->h_next[row]) continue;
        if (at->mask[row]) h *= NAME(load)(at->mask[row] + unit);
        NAME(store)(at->h_next[row] + unit, h);
    }
}

/* The same block of units of ``rows`` texts. ``panel`` is (H, 4, WIDTH). */
INLINE void NAME(forward_tile)(const int rows, const Layer *layer, const float *panel,
                               const NAME(Places) *at) {
    const int64_t hidden = layer->hidden;
    V sum[ROWS][4];
    for (int row = 0; row < rows; row++)
        for (int gate = 0; gate < 4; gate++)
            sum[row][gate] = NAME(load)(at->projected[row] + gate * hidden + at->unit[row]);
    for (int64_t k = 0; k < hidden; k++, panel += 4 * WIDTH) {
        const V w0 = NAME(load)(panel), w1 = NAME(load)(panel + WIDTH);
        const V w2 = NAME(load)(panel + 2 * WIDTH), w3 = NAME(load)(panel + 3 * WIDTH);
        for (int row = 0; row < rows; row++) {
            const V h = NAME(all)(at->h_before[row][k]);
            sum[row][0] += h * w0;
            sum[row][1] += h * w1;
            sum[row][2] += h * w2;
            sum[row][3] += h * w3;
        }
    }
    NAME(finish)(rows, layer, sum, at);
}

/* Two blocks of units of one text: with a single block the sums, of which each waits for its last
   addition, would keep the processor waiting. ``panels`` are two of forward_tile's. */
INLINE void NAME(forward_pair)(const Layer *layer, const float *const *panels,
                               const NAME(Places) *at) {
    const int64_t hidden = layer->hidden;
    V sum[ROWS][4];
    for (int row = 0; row < 2; row++)
        for (int gate = 0; gate < 4; gate++)
            sum[row][gate] = NAME(load)(at->projected[row] + gate * hidden + at->unit[row]);
    for (int64_t k = 0; k < hidden; k++) {
        const V h = NAME(all)(at->h_before[0][k]);
        for (int row = 0; row < 2; row++)
            for (int gate = 0; gate < 4; gate++)
                sum[row][gate] += h * NAME(load)(panels[row] + (4 * k + gate) * WIDTH);
    }
    NAME(finish)(2, layer, sum, at);
}

/* dh = d @ weight_hh for ``vectors`` vectors of columns. ``panel`` is (4H, vectors, WIDTH). */
INLINE void NAME(backward_tile)(const int rows, const int vectors, int64_t n_gates,
                                const float *panel, const float *const *d, float *const *dh,
                                const float *const *mask) {
    V sum[ROWS][4];
    for (int row = 0; row < rows; row++)
        for (int v = 0; v < vectors; v++) sum[row][v] = NAME(all)(0.0f);
    for (int64_t k = 0; k < n_gates; k++, panel += vectors * WIDTH)
        for (int v = 0; v < vectors; v++) {
            const V w = NAME(load)(panel + v * WIDTH);
            for (int row = 0; row < rows; row++) sum[row][v] += d[row][k] * w;
        }
    for (int row = 0; row < rows; row++)
        for (int v = 0; v < vectors; v++) {
            if (mask[row]) sum[row][v] *= NAME(load)(mask[row] + v * WIDTH);
            NAME(store)(dh[row] + v * WIDTH, sum[row][v]);
        }
}

/* The compiler shall know the number of rows, so that the sums are registers. */
#define FOR_EACH_NUMBER_OF_ROWS(rows, call) \
    switch (rows) {                         \
        case 1: call(1); break;             \
        case 2: call(2); break;             \
        case 3: call(3); break;             \
        IF_ROWS_ABOVE_3(call)               \
    }
#if ROWS > 3
#define IF_ROWS_ABOVE_3(call) \
    case 4: call(4); break;   \
    case 5: call(5); break;   \
    case 6: call(6); break;
#else
#define IF_ROWS_ABOVE_3(call)
#endif

/* The places of a text's block of units at a step, as a row of tiles. */
INLINE void NAME(find_places)(const Layer *layer, int64_t text, int64_t step, int64_t unit,
                              int64_t row, NAME(Places) *at) {
    const int64_t hidden = layer->hidden;
    const Place here = place_of(layer, text, step);
    const int64_t source = layer->source ? layer->source[here.row] : here.row;
    if (layer->h_in)
        at->h_before[row] = layer->h_in + here.row * hidden;
    else if (step)
        at->h_before[row] = out_of(layer, text, here.before);
    else
        at->h_before[row] = layer->h0 + text * hidden;
    at->projected[row] = layer->projected + source * layer->projected_row;
    at->gates[row] = layer->gates ? layer->gates + here.row * layer->gates_row : 0;
    at->text[row] = text;
    at->token[row] = here.token;
    at->unit[row] = unit;
    at->out[row] = out_of(layer, text, here.token);
    at->h_next[row] = layer->h_in && step + 1 < layer->lengths[text]
                          ? layer->h_in + here.row_after * hidden : 0;
    at->mask[row] = layer->mask ? layer->mask + text * hidden : 0;
    at->c[row] = layer->c ? layer->c + here.row * hidden : layer->c_last + text * hidden;
    at->c_before[row] = layer->c && step ? layer->c + here.row_before * hidden
                                         : layer->c_last + text * hidden;
    if (!layer->gates) return;
    for (int gate = 0; gate < 4; gate++)
        ask_for(at->gates[row], 4 * (gate * hidden + unit));
    ask_for(at->c[row], 4 * unit);
    ask_for(at->h_next[row], 4 * unit);
}

/* All steps of the texts order[thread], order[thread + n_threads], ... */
static void NAME(forward)(const Layer *layer, int64_t thread, int64_t n_threads) {
    const int64_t hidden = layer->hidden, panel_size = hidden * 4 * WIDTH;
    int64_t live = count_of(layer, thread, n_threads);
    const int64_t n_steps = live ? layer->lengths[layer->order[thread]] : 0;
    clear_padding(layer, thread, n_threads);
    for (int64_t step = 0; step < n_steps; step++) {
        while (layer->lengths[layer->order[thread + (live - 1) * n_threads]] <= step) live--;
        const int64_t tiles = (live + ROWS - 1) / ROWS;
        NAME(Places) at;
        int64_t unit = 0;
        for (; live == 1 && unit + WIDTH < hidden; unit += 2 * WIDTH) {
            const float *panels[2];
            for (int64_t row = 0; row < 2; row++) {
                panels[row] = layer->forward_panels + (unit / WIDTH + row) * panel_size;
                NAME(find_places)(layer, layer->order[thread], step, unit + row * WIDTH, row, &at);
            }
            NAME(forward_pair)(layer, panels, &at);
        }
        for (; unit < hidden; unit += WIDTH) {
            const float *panel = layer->forward_panels + unit / WIDTH * panel_size;
            for (int64_t tile = 0, begin = 0; tile < tiles; tile++) {
                const int64_t rows = (live - begin + tiles - tile - 1) / (tiles - tile);
                for (int64_t row = 0; row < rows; row++) {
                    const int64_t text = layer->order[thread + (begin + row) * n_threads];
                    NAME(find_places)(layer, text, step, unit, row, &at);
                }
#define TILE(rows) NAME(forward_tile)(rows, layer, panel, &at)
                FOR_EACH_NUMBER_OF_ROWS(rows, TILE)
#undef TILE
                begin += rows;
            }
        }
    }
}

/* What the pools of a text send to the states of a token, added to ``dh``. */
INLINE V NAME(add_pool_gradients)(const Layer *layer, int64_t place, int64_t token, V dh) {
    if (layer->grad_mean) dh += NAME(load)(layer->grad_mean + place);
    if (layer->grad_max) {
        const I is_here = (I)(*(const I *)(layer->where + place) == (int32_t)token);
        dh += (V)((I)NAME(load)(layer->grad_max + place) & is_here);
    }
    return dh;
}

/* The gradients of the gates of a step, and that of the c before it, at ``dc_at``. */
INLINE void NAME(differentiate)(const V gate[4], V c_before, V tanh_c, V dh, float *dc_at,
                                V of_gate[4]) {
    const V i = gate[0], f = gate[1], g = gate[2], o = gate[3];
    const V dc = NAME(load)(dc_at) + dh * o * (1.0f - tanh_c * tanh_c);
    of_gate[0] = dc * g * i * (1.0f - i);
    of_gate[1] = dc * c_before * f * (1.0f - f);
    of_gate[2] = dc * i * (1.0f - g * g);
    of_gate[3] = dh * tanh_c * o * (1.0f - o);
    NAME(store)(dc_at, dc * f);
}

/* The gradients of a step's gates, of the texts' c, and the share of this step in the bias'. */
static void NAME(gates_backward)(const Layer *layer, int64_t text, int64_t step, float *bias) {
    const int64_t hidden = layer->hidden;
    const Place here = place_of(layer, text, step);
    const float *gates = layer->gates + here.row * layer->gates_row;
    const float *c_new = layer->c + here.row * hidden;
    const float *c_before = step ? layer->c + here.row_before * hidden : layer->c0 + text * hidden;
    const float *grad = layer->grad
        ? layer->grad + here.token * layer->grad_step + text * layer->grad_text : 0;
    float *d = layer->d + here.row * layer->d_row;
    const float *dh_later = layer->dh + text * hidden;
    float *dc_later = layer->dc + text * hidden;
    const int64_t next = (layer->reverse ? 1 : -1) * layer->d_row;
    for (int64_t u = 0; u < hidden; u += WIDTH) {
        V gate_of[4], of_gate[4];
        for (int gate = 0; gate < 4; gate++) gate_of[gate] = NAME(load)(gates + gate * hidden + u);
        const V tanh_c = NAME(tangent)(NAME(load)(c_new + u));
        V dh = NAME(load)(dh_later + u);
        if (grad) dh += NAME(load)(grad + u);
        dh = NAME(add_pool_gradients)(layer, text * hidden + u, here.token, dh);
        NAME(differentiate)(gate_of, NAME(load)(c_before + u), tanh_c, dh, dc_later + u, of_gate);
        for (int gate = 0; gate < 4; gate++) {
            NAME(store)(d + gate * hidden + u, of_gate[gate]);
            ask_for(d, 4 * (next + gate * hidden + u));
            float *sum = bias + gate * hidden + u;
            NAME(store)(sum, NAME(load)(sum) + of_gate[gate]);
        }
    }
}

/* dh = d @ weight_hh of the first ``live`` texts of a thread. */
static void NAME(states_backward)(const Layer *layer, int64_t step, int64_t live, int64_t thread,
                                  int64_t n_threads) {
    const int64_t hidden = layer->hidden, n_gates = 4 * hidden;
    const int64_t tiles = (live + ROWS - 1) / ROWS;
    for (int64_t column = 0; column < hidden; column += 4 * WIDTH) {
        const int64_t left = (hidden - column) / WIDTH, vectors = left < 4 ? left : 4;
        const float *panel = layer->backward_panels + column * n_gates;
        for (int64_t tile = 0, begin = 0; tile < tiles; tile++) {
            const int64_t rows = (live - begin + tiles - tile - 1) / (tiles - tile);
            const float *d[ROWS], *mask[ROWS];
            float *dh[ROWS];
            for (int64_t row = 0; row < rows; row++) {
                const int64_t text = layer->order[thread + (begin + row) * n_threads];
                d[row] = layer->d + place_of(layer, text, step).row * layer->d_row;
                dh[row] = layer->dh + text * hidden + column;
                mask[row] = layer->mask ? layer->mask + text * hidden + column : 0;
            }
#define TILE4(rows) NAME(backward_tile)(rows, 4, n_gates, panel, d, dh, mask)
#define TILE3(rows) NAME(backward_tile)(rows, 3, n_gates, panel, d, dh, mask)
#define TILE2(rows) NAME(backward_tile)(rows, 2, n_gates, panel, d, dh, mask)
#define TILE1(rows) NAME(backward_tile)(rows, 1, n_gates, panel, d, dh, mask)
            if (vectors == 4) { FOR_EACH_NUMBER_OF_ROWS(rows, TILE4) }
            else if (vectors == 3) { FOR_EACH_NUMBER_OF_ROWS(rows, TILE3) }
            else if (vectors == 2) { FOR_EACH_NUMBER_OF_ROWS(rows, TILE2) }
            else { FOR_EACH_NUMBER_OF_ROWS(rows, TILE1) }
#undef TILE4
#undef TILE3
#undef TILE2
#undef TILE1
            begin += rows;
        }
    }
}

/* All steps back, of the same texts as in forward. */
static void NAME(backward)(const Layer *layer, int64_t thread, int64_t n_threads) {
    const int64_t n_texts = count_of(layer, thread, n_threads);
    const int64_t n_steps = n_texts ? layer->lengths[layer->order[thread]] : 0;
    float *bias = layer->grad_bias + thread * 4 * layer->hidden;
    for (int64_t step = n_steps - 1, live = 0; step >= 0; step--) {
        while (live < n_texts &&
               layer->lengths[layer->order[thread + live * n_threads]] > step) live++;
        for (int64_t row = 0; row < live; row++)
            NAME(gates_backward)(layer, layer->order[thread + row * n_threads], step, bias);
        NAME(states_backward)(layer, step, live, thread, n_threads);
    }
}

/* weight_hh (4H, H) in the order in which the tiles read it. */
static void NAME(pack)(const Layer *layer, const void *weight_hh) {
    const int64_t hidden = layer->hidden;
    const float *weight = weight_hh;
    float *to = layer->forward_panels;
    for (int64_t unit = 0; to && unit < hidden; unit += WIDTH)
        for (int64_t k = 0; k < hidden; k++)
            for (int64_t gate = 0; gate < 4; gate++)
                for (int64_t u = unit; u < unit + WIDTH; u++)
                    *to++ = weight[(gate * hidden + u) * hidden + k];
    if (!(to = layer->backward_panels)) return;
    for (int64_t column = 0; column < hidden; column += 4 * WIDTH) {
        const int64_t end = column + 4 * WIDTH < hidden ? column + 4 * WIDTH : hidden;
        for (int64_t k = 0; k < 4 * hidden; k++)
            for (int64_t u = column; u < end; u++) *to++ = weight[k * hidden + u];
    }
}

/* to (width) = the sum of the rows ``which``. */
static void NAME(sum_rows)(const Sums *sums, const int64_t *which, int64_t n, void *to) {
    for (int64_t begin = 0; begin < sums->width; begin += 4 * SIDE) {
        V sum[4 * SIDE / WIDTH];
        for (int v = 0; v < 4 * SIDE / WIDTH; v++) sum[v] = NAME(all)(0.0f);
        for (int64_t k = 0; k < n; k++) {
            const float *row = (const float *)sums->rows + which[k] * sums->row + begin;
            for (int v = 0; v < 4 * SIDE / WIDTH; v++) sum[v] += NAME(load)(row + v * WIDTH);
        }
        for (int v = 0; v < 4 * SIDE / WIDTH; v++)
            NAME(store)((float *)to + begin + v * WIDTH, sum[v]);
    }
}

#undef FOR_EACH_NUMBER_OF_ROWS
#undef IF_ROWS_ABOVE_3
