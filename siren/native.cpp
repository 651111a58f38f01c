// One FiLM sine layer, sin(x W^T + start), for many points: the product's sums never leave the
// registers before their sine is taken. Compiled by siren/native.py for the processor at hand.
//
// Weights come in panels of `panel_width()` outputs: (panels, in, width), for 16-bit products
// (panels, in / 2, width, 2). Sums are in single precision whatever the inputs are.

#include <cstdint>
#include <cstring>
#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

namespace {

// A tile of ROWS points by PANEL outputs stays in registers: 24 of AVX-512's 32, 12 of AVX2's 16.
#if defined(__AVX512F__)
constexpr int ROWS = 12, VECTORS = 2;
#else
constexpr int ROWS = 6, VECTORS = 1;
#endif
constexpr int LANES = 16, PANEL = VECTORS * LANES;
constexpr int64_t TERMS = 64;  // summed in a row: long sums lose digits
constexpr int64_t CHUNK = 16 * ROWS;  // points whose inputs stay in the second cache

typedef float Vector __attribute__((vector_size(64)));
typedef int32_t Integers __attribute__((vector_size(64)));
typedef float Loose __attribute__((vector_size(64), aligned(4), may_alias));
struct bf16 { uint16_t bits; };

inline Vector load(const float *p) { return *(const Loose *)p; }
inline void store(float *p, Vector v) { *(Loose *)p = v; }

inline void store(bf16 *p, Vector v) {
#if defined(__AVX512BF16__)
    const __m256bh rounded = _mm512_cvtneps_pbh((__m512)v);
    std::memcpy(p, &rounded, sizeof rounded);
#else
    const Integers bits = (Integers)v;
    const Integers rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    for (int i = 0; i < LANES; ++i) p[i].bits = (uint16_t)rounded[i];
#endif
}

// sin(x) for x = k pi + r: (-1)^k sin(r), by the odd polynomial of degree 9 that is nearest on
// [-pi/2, pi/2] (error 5e-9). Adding 1.5 * 2^23 rounds to a whole number, whose last bit is k's.
constexpr float ROUND = 12582912.0f, INVERSE_PI = 0.318309886f;
constexpr float PI_HIGH = 3.14159274f, PI_LOW = -8.74227766e-8f;

inline Vector wave(Vector x, Vector k, Vector rounded) {
    Vector r = x - k * PI_HIGH;
    r = r - k * PI_LOW;
    const Vector s = r * r;
    Vector p = s * 2.60005473e-6f - 1.98066152e-4f;
    p = p * s + 8.33301729e-3f;
    p = p * s - 1.66666571e-1f;
    const Vector y = r + r * s * p;
    return (Vector)((Integers)y ^ ((Integers)rounded << 31));
}

inline Vector sine(Vector x) {
    const Vector rounded = x * INVERSE_PI + ROUND;
    return wave(x, rounded - ROUND, rounded);
}

inline Vector cosine(Vector x) {  // by the nearest half-integer multiple of pi
    const Vector rounded = (x * INVERSE_PI - 0.5f) + ROUND;
    return -wave(x, (rounded - ROUND) + 0.5f, rounded);
}

inline void accumulate(Vector *sums, float x, const float *weights) {
    for (int v = 0; v < VECTORS; ++v) sums[v] += x * load(weights + v * LANES);
}

#if defined(__AVX512BF16__)
struct Pair { bf16 first, second; };
inline void accumulate(Vector *sums, Pair x, const Pair *weights) {
    int32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    const __m512bh both = (__m512bh)_mm512_set1_epi32(bits);
    for (int v = 0; v < VECTORS; ++v) {
        const __m512bh w = (__m512bh)_mm512_loadu_si512(weights + v * LANES);
        sums[v] = (Vector)_mm512_dpbf16_ps((__m512)sums[v], both, w);
    }
}
#endif

// In: float, or a Pair of 16-bit numbers that are multiplied at once; `in` counts these.
template <class In, class Out> struct Layer {
    const In *x;
    const In *weights;
    const float *start;  // what the sums start from: a row per point, or `start_stride` 0
    Out *y;
    float *slope;  // also the cosine, if not null
    int64_t start_stride, in, out;

    template <int rows> void tile(int64_t row, int64_t panel) const {
        const In *w = weights + panel * in * PANEL, *points = x + row * in;
        Vector totals[rows][VECTORS] = {};
        for (int64_t begin = 0; begin < in; begin += TERMS) {
            const int64_t end = begin + TERMS < in ? begin + TERMS : in;
            Vector sums[rows][VECTORS] = {};
            for (int64_t i = begin; i < end; ++i)
                for (int r = 0; r < rows; ++r)
                    accumulate(sums[r], points[r * in + i], w + i * PANEL);
            for (int r = 0; r < rows; ++r)
                for (int v = 0; v < VECTORS; ++v) totals[r][v] += sums[r][v];
        }
        const int64_t column = panel * PANEL;
        const int64_t width = out - column < PANEL ? out - column : PANEL;
        float edge[PANEL] = {};
        for (int r = 0; r < rows; ++r) {
            const float *from = start + (row + r) * start_stride + column;
            if (width < PANEL) from = (const float *)std::memcpy(edge, from, width * sizeof(float));
            for (int v = 0; v < VECTORS; ++v) totals[r][v] += load(from + v * LANES);
            finish(totals[r], y, (row + r) * out + column, width, sine);
            if (slope) finish(totals[r], slope, (row + r) * out + column, width, cosine);
        }
    }

    template <class To, class Wave>
    static void finish(const Vector *sums, To *to, int64_t at, int64_t width, Wave wave_of) {
        To edge[PANEL];
        To *target = width < PANEL ? edge : to + at;
        for (int v = 0; v < VECTORS; ++v) store(target + v * LANES, wave_of(sums[v]));
        if (width < PANEL) std::memcpy(to + at, edge, width * sizeof(To));
    }

    void chunk(int64_t first, int64_t last) const {
        for (int64_t panel = 0; panel * PANEL < out; ++panel) {
            int64_t row = first;
            for (; row + ROWS <= last; row += ROWS) tile<ROWS>(row, panel);
            for (; row < last; ++row) tile<1>(row, panel);
        }
    }

    void run(int64_t points, int threads) const {
        const int64_t chunks = (points + CHUNK - 1) / CHUNK;
#pragma omp parallel for num_threads(threads) if (threads > 1 && chunks > 1)
        for (int64_t c = 0; c < chunks; ++c)
            chunk(c * CHUNK, (c + 1) * CHUNK < points ? (c + 1) * CHUNK : points);
    }
};

}  // namespace

extern "C" {

int panel_width() { return PANEL; }

int has_bf16() {
#if defined(__AVX512BF16__)
    return 1;
#else
    return 0;
#endif
}

void sine_float_float(const float *x, const float *weights, const float *start, int64_t stride,
                      float *y, float *slope, int64_t points, int64_t in, int64_t out, int threads) {
    Layer<float, float>{x, weights, start, y, slope, stride, in, out}.run(points, threads);
}

void sine_float_bf16(const float *x, const float *weights, const float *start, int64_t stride,
                     bf16 *y, float *slope, int64_t points, int64_t in, int64_t out, int threads) {
    Layer<float, bf16>{x, weights, start, y, slope, stride, in, out}.run(points, threads);
}

#if defined(__AVX512BF16__)
void sine_bf16_bf16(const Pair *x, const Pair *weights, const float *start, int64_t stride,
                    bf16 *y, float *slope, int64_t points, int64_t in, int64_t out, int threads) {
    Layer<Pair, bf16>{x, weights, start, y, slope, stride, in / 2, out}.run(points, threads);
}
#endif
}
