/* The directions of an LSTM layer: the recurrence, forward and backward, in float32 and bfloat16.

   Torch's operators cannot compute a step's product, the gates' activations and the new states in
   one go, without memory between them and without a return to Python between the steps. This file
   does. Torch computes the products that do not depend on the recurrence (the input's, the gradients
   of the weights). Each thread has its own texts, and its own direction where there is a thread for
   each, and runs all their steps, so that the threads wait for each other once a call. library.py
   has the same struct. */

#include <stdint.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#if defined(__linux__) && defined(__GNUC__) && __GNUC__ >= 12
#define HAS_BFLOAT16 /* the compiler knows AVX-512's and AMX's instructions for it */
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

/* 16 bits in memory that may be read as something else, and two of them. */
typedef uint16_t bfloat16 __attribute__((may_alias));
typedef int32_t word __attribute__((may_alias, aligned(2)));

/* One direction. Where ``is_bfloat16`` is 1 the panels, h0, projected, gates, h_in and d are of 16
   bits, and so are ``out`` and ``grad`` unless the states are pooled. */
typedef struct {
    int64_t n_steps, n_texts, hidden, reverse, instructions, is_bfloat16;
    const int64_t *lengths;   /* (B,) */
    const int64_t *order;     /* (B,) the texts from the longest on */
    const int64_t *first_row; /* (B,) the row of a text's first token; its others follow */
    const float *mask;        /* (B, H) multiplies the states on their way to the next step; or null */
    float *forward_panels, *backward_panels; /* weight_hh, packed; null: not needed */
    const float *h0, *c0;     /* (B, H) */
    /* forward */
    const float *projected;   /* rows of 4H: the input's share of the gates */
    int64_t projected_row;    /* the numbers from one of these rows to the next */
    const int64_t *source;    /* (N,) the row of ``projected`` of a token; null: the same row */
    float *gates;             /* (N, 4H) the activations; null: not kept */
    int64_t gates_row;        /* the numbers from one of these rows to the next */
    float *c;                 /* (N, H) the cell states; null: not kept */
    float *h_in;              /* (N, H) the masked state before each token, at first that of the
                                 first tokens; null: not kept, and there is no mask */
    float *out;               /* (T, B, H) the states, by strides; (2, B, H) where they are pooled */
    int64_t out_step, out_text;
    int64_t pooled;           /* 1: only two states of a text are kept, and their pools */
    float *greatest;          /* (B, H) the maximum of the states, at first -infinity; or null */
    int32_t *where;           /* (B, H) the token that has it; null: not kept */
    float *sum, *lost;        /* (B, H) their sum, and what its rounding lost, at first 0; or null */
    float *c_last;            /* (B, H) holds c0 at first */
    /* backward */
    const float *grad;        /* (T, B, H) the gradient of ``out``, by strides; or null */
    int64_t grad_step, grad_text;
    const float *grad_mean;   /* (B, H) that of each state by the mean; or null */
    const float *grad_max;    /* (B, H) that of the state ``where`` the maximum is; or null */
    float *dh, *dc;           /* (B, H) the gradients of the last states, in the end of the first */
    float *d;                 /* (N, 4H) the gradients of the gates */
    int64_t d_row;            /* the numbers from one of these rows to the next */
    float *grad_bias;         /* (n_threads, 4H) */
    void *scratch;            /* bfloat16: (n_threads, TEXTS, 4H), at first 0; else null */
} Layer;

/* Rows to be added up: the numbers of each, a multiple of 64, and those from one to the next. */
typedef struct {
    int64_t width, row;
    const void *rows;
} Sums;

/* What a text reads at a step: its token and the one before it, in the direction of reading, and
   the rows of the token and of those read before and after it. */
typedef struct { int64_t token, before, row, row_before, row_after; } Place;

static inline Place place_of(const Layer *layer, int64_t text, int64_t step) {
    const int64_t ahead = layer->reverse ? -1 : 1;
    Place place;
    place.token = layer->reverse ? layer->lengths[text] - 1 - step : step;
    place.before = place.token - ahead;
    place.row = layer->first_row[text] + place.token;
    place.row_before = place.row - ahead;
    place.row_after = place.row + ahead;
    return place;
}

/* Where pooled, a token's state replaces that of the token before the last. */
static inline float *out_of(const Layer *layer, int64_t text, int64_t token) {
    if (layer->pooled) token &= 1;
    return layer->out + token * layer->out_step + text * layer->out_text;
}

/* How many texts a thread has. */
static inline int64_t count_of(const Layer *layer, int64_t thread, int64_t n_threads) {
    return (layer->n_texts - thread + n_threads - 1) / n_threads;
}

static void clear_padding(const Layer *layer, int64_t thread, int64_t n_threads) {
    if (layer->pooled) return;
    for (int64_t text = thread; text < layer->n_texts; text += n_threads)
        for (int64_t token = layer->lengths[text]; token < layer->n_steps; token++)
            if (layer->is_bfloat16)
                memset((bfloat16 *)layer->out + token * layer->out_step + text * layer->out_text, 0,
                       layer->hidden * sizeof(bfloat16));
            else
                memset(out_of(layer, text, token), 0, layer->hidden * sizeof(float));
}

/* Of products in bfloat16; library.py has TEXTS. */
#define TEXTS 32
#define SIDE 16

/* How many tiles hold so many rows of weights. */
static inline int64_t tiles_of(int64_t rows) { return (rows + 2 * SIDE - 1) / (2 * SIDE); }

/* Ask for memory that is going to be written ``bytes`` behind a place: a step writes more lines than
   may wait for theirs at the same time. Nothing is read, so there need not be any memory there. */
static inline void ask_for(const void *place, int64_t bytes) {
    __builtin_prefetch((const void *)((uintptr_t)place + (uintptr_t)bytes), 1);
}

#define V NAME(vector)
#define I NAME(whole)
#define INLINE static inline __attribute__((always_inline))

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,fma,prfchw")
#define NAME(x) avx512_##x
#define WIDTH 16
#define ROWS 6
#include "compiled_steps.h"
#if defined(HAS_BFLOAT16)
#pragma GCC target("avx512bf16")
#define SHORT(x) avx512_bfloat16_##x
#define DOT
static void SHORT(begin)(void) {}
static void SHORT(end)(void) {}
#include "compiled_bfloat16.h"
#undef DOT
#undef SHORT
#pragma GCC target("amx-tile,amx-bf16")
#define SHORT(x) amx_##x
#define TILES
/* Each of the eight tiles has 16 rows of 64 bytes. */
static void SHORT(begin)(void) {
    struct { uint8_t palette, zero[15]; uint16_t bytes[16]; uint8_t rows[16]; } tiles;
    memset(&tiles, 0, sizeof(tiles));
    tiles.palette = 1;
    for (int tile = 0; tile < 8; tile++) tiles.bytes[tile] = 64, tiles.rows[tile] = 16;
    _tile_loadconfig(&tiles);
}
static void SHORT(end)(void) { _tile_release(); }
#include "compiled_bfloat16.h"
#undef TILES
#undef SHORT
#endif
#undef NAME
#undef WIDTH
#undef ROWS
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define NAME(x) avx2_##x
#define WIDTH 8
#define ROWS 3
#include "compiled_steps.h"
#undef NAME
#undef WIDTH
#undef ROWS
#pragma GCC pop_options
#endif

#define NAME(x) plain_##x
#define WIDTH 4
#if defined(__aarch64__)
#define ROWS 6
#else
#define ROWS 3
#endif
#include "compiled_steps.h"
#define SHORT(x) plain_bfloat16_##x
static void SHORT(begin)(void) {}
static void SHORT(end)(void) {}
#include "compiled_bfloat16.h"

typedef void (*Steps)(const Layer *, int64_t thread, int64_t n_threads);
typedef struct {
    Steps forward, backward;
    void (*pack)(const Layer *, const void *);
    void (*sum_rows)(const Sums *, const int64_t *which, int64_t n, void *to);
} Instructions;

/* In float32, and in bfloat16. */
static const Instructions INSTRUCTIONS[2][3] = {
    {
        {plain_forward, plain_backward, plain_pack, plain_sum_rows},
#if defined(__x86_64__)
        {avx2_forward, avx2_backward, avx2_pack, avx2_sum_rows},
        {avx512_forward, avx512_backward, avx512_pack, avx512_sum_rows},
#endif
    },
    {
        {plain_bfloat16_forward, plain_bfloat16_backward, plain_bfloat16_pack,
         plain_bfloat16_sum_rows},
#if defined(HAS_BFLOAT16)
        {avx512_bfloat16_forward, avx512_bfloat16_backward, avx512_bfloat16_pack,
         avx512_bfloat16_sum_rows},
        {amx_forward, amx_backward, amx_pack, amx_sum_rows},
#endif
    },
};

/* Of this file's interface; library.py has the same number. Increase both with every change of Layer
   or of what a function takes, returns or computes. */
#define VERSION 5

int64_t sklstm_version(void) { return VERSION; }
int64_t sklstm_size_of_layer(void) { return sizeof(Layer); }

#if defined(HAS_BFLOAT16)
/* Whether the processor has AMX for bfloat16, and the system lets this process use it. */
static int may_use_tiles(void) {
    uint32_t a, b, c, d, saved, high;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d >> 22 & 5) != 5) return 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) return 0;
    __asm__("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
    if ((saved >> 17 & 3) != 3) return 0;
    return syscall(SYS_arch_prctl, 0x1023, 18) == 0; /* ARCH_REQ_XCOMP_PERM, for the tiles */
}
#endif

/* The best entry of INSTRUCTIONS that this processor has; all before it work as well. */
int64_t sklstm_instructions(int64_t is_bfloat16) {
#if defined(__x86_64__)
    __builtin_cpu_init();
#if defined(HAS_BFLOAT16)
    if (is_bfloat16)
        return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw")
                   ? 1 + may_use_tiles() : 0;
#endif
    if (is_bfloat16) return 0;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw"))
        return 2;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
    return 0;
}

static void run_thread(const Layer *directions, int64_t n, int64_t thread, int64_t n_threads,
                       Steps steps) {
    if (n_threads % n == 0) /* a thread reads the weights of one direction, which its cache holds */
        steps(directions + thread % n, thread / n, n_threads / n);
    else
        for (int64_t k = 0; k < n; k++) steps(directions + k, thread, n_threads);
}

static void run(const Layer *directions, int64_t n, int64_t n_threads, Steps steps) {
#ifdef _OPENMP
    if (n_threads > 1) {
#pragma omp parallel num_threads(n_threads)
        run_thread(directions, n, omp_get_thread_num(), omp_get_num_threads(), steps);
        return;
    }
#endif
    run_thread(directions, n, 0, 1, steps);
}

void sklstm_pack(const Layer *direction, const void *weight_hh) {
    INSTRUCTIONS[direction->is_bfloat16][direction->instructions].pack(direction, weight_hh);
}
void sklstm_forward(const Layer *directions, int64_t n, int64_t n_threads) {
    const Steps forward = INSTRUCTIONS[directions->is_bfloat16][directions->instructions].forward;
    run(directions, n, n_threads, forward);
}
void sklstm_backward(const Layer *directions, int64_t n, int64_t n_threads) {
    const Steps backward = INSTRUCTIONS[directions->is_bfloat16][directions->instructions].backward;
    run(directions, n, n_threads, backward);
}

/* out (n, width): sum k is that of the rows order[first[k]] to order[first[k + 1] - 1]. */
void sklstm_sum_rows(int64_t is_bfloat16, int64_t instructions, int64_t width, int64_t row,
                     const void *rows, const int64_t *order, const int64_t *first, int64_t n,
                     void *out, int64_t n_threads) {
    const Sums sums = {width, row, rows};
    const int64_t bytes = width * (is_bfloat16 ? sizeof(bfloat16) : sizeof(float));
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic, 32) num_threads(n_threads) if (n_threads > 1)
#endif
    for (int64_t k = 0; k < n; k++)
        INSTRUCTIONS[is_bfloat16][instructions].sum_rows(
            &sums, order + first[k], first[k + 1] - first[k], (char *)out + k * bytes);
}
