// Products whose sums never leave the registers, and the sine and cosine of what comes out.
//
// Whatever is wide lies in panels of PANEL columns, (panels, rows, PANEL): activations have points
// as rows, weights have inputs. 16-bit numbers are multiplied two at once: weights then lie as
// (panels, in / 2, PANEL, 2). Sums, phases and sines are in single precision whatever goes in.
//
// GNU vectors throughout: the compiler takes them apart where the processor's are shorter.

#pragma once
#include <cstdint>
#include <cstring>
#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#define UNROLL _Pragma("GCC unroll 16")

namespace {

// A tile of ROWS by PANEL sums stays in registers: 16 of AVX-512's 32, 8 of AVX2's 16.
#if defined(__AVX512F__)
constexpr int ROWS = 8, VECTORS = 2;
#else
constexpr int ROWS = 4, VECTORS = 1;
#endif
constexpr int LANES = 16, PANEL = VECTORS * LANES;

typedef float Vector __attribute__((vector_size(64)));
typedef int32_t Integers __attribute__((vector_size(64)));
typedef float Loose __attribute__((vector_size(64), aligned(4), may_alias));
struct Pair { uint16_t first, second; };  // of bf16 numbers

template <class T> constexpr int NUMBERS = 1;  // in a term of a product
template <> constexpr int NUMBERS<Pair> = 2;
template <class T> constexpr int ROW = PANEL / NUMBERS<T>;  // terms in a panel's row

inline Vector load(const float *p) { return *(const Loose *)p; }
inline void store(float *p, Vector v) { *(Loose *)p = v; }
inline void store_row(float *p, const Vector (&row)[VECTORS]) {
    UNROLL for (int v = 0; v < VECTORS; ++v) store(p + v * LANES, row[v]);
}
inline void accumulate(Vector *sums, float x, const float *weights) {
    UNROLL for (int v = 0; v < VECTORS; ++v) sums[v] += x * load(weights + v * LANES);
}

#if defined(__AVX512BF16__)
inline Vector load(const Pair *p) {
    const __m256i bits = _mm256_loadu_si256((const __m256i *)p);
    return (Vector)((Integers)_mm512_cvtepu16_epi32(bits) << 16);
}
inline void store_row(Pair *p, const Vector (&row)[VECTORS]) {
    static_assert(VECTORS == 2);
    _mm512_storeu_si512(p, (__m512i)_mm512_cvtne2ps_pbh((__m512)row[1], (__m512)row[0]));
}
inline void accumulate(Vector *sums, Pair x, const Pair *weights) {
    int32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    UNROLL for (int v = 0; v < VECTORS; ++v)
        sums[v] = (Vector)_mm512_dpbf16_ps((__m512)sums[v], (__m512bh)_mm512_set1_epi32(bits),
                                           (__m512bh)_mm512_loadu_si512(weights + v * LANES));
}
inline void accumulate(Vector *sums, float x, const Pair *row) {
    UNROLL for (int v = 0; v < VECTORS; ++v) sums[v] += x * load(row + v * LANES / 2);
}
#endif

// sin(x) and cos(x) for x = k pi + r, k whole: (-1)^k times polynomials of r that are nearest on
// [-pi/2, pi/2], to 5e-9 and 5e-8. Adding 1.5 * 2^23 rounds to a whole number, whose last bit is
// k's: for phases below 1e7, which no field that learns has. Rough is what 16 bits do not see: the sine to 2e-6, and pi in single precision.
constexpr float ROUND = 12582912.0f, INVERSE_PI = 0.318309886f;
constexpr float PI_HIGH = 3.14159274f, PI_LOW = -8.74227766e-8f;

template <bool rough> struct Phase {
    Vector r, square;
    Integers sign;

    explicit Phase(Vector x) {
        const Vector rounded = x * INVERSE_PI + ROUND, k = rounded - ROUND;
        r = x - k * PI_HIGH;
        if (!rough) r = r - k * PI_LOW;
        square = r * r;
        sign = (Integers)rounded << 31;
    }
    Vector sine() const {
        Vector p = rough ? 8.32310792e-3f - square * 1.87732883e-4f
                         : (square * 2.60005473e-6f - 1.98066152e-4f) * square + 8.33301729e-3f;
        p = p * square - 1.66666571e-1f;
        return (Vector)((Integers)(r + r * square * p) ^ sign);
    }
    Vector cosine() const {
        Vector p = square * 2.31539317e-5f - 1.38537043e-3f;
        p = p * square + 4.16635847e-2f;
        p = p * square - 4.99999053e-1f;
        return (Vector)((Integers)(p * square + 9.99999953e-1f) ^ sign);
    }
};

struct Tile { Vector sums[ROWS][VECTORS]; };

// Call on every row and vector of a tile: unrolled early, or sums would go by way of the memory.
template <class Function> inline void each(Function function) {
    UNROLL for (int r = 0; r < ROWS; ++r)
        UNROLL for (int v = 0; v < VECTORS; ++v) function(r, v);
}

// sums[r] += a[r * row + k * step] * b[k * b_step] for all k
template <int64_t row, int64_t step, int64_t b_step, class A, class B>
inline void multiply(Tile &tile, const A *a, const B *b, int64_t terms) {
    for (int64_t k = 0; k < terms; ++k)
        UNROLL for (int r = 0; r < ROWS; ++r)
            accumulate(tile.sums[r], a[r * row + k * step], b + k * b_step);
}

template <class T> struct Factors {  // panels of points, and of a matrix to multiply them by
    const T *a, *b;
    int64_t terms;

    void add_to(Tile &tile, int64_t column, int64_t point, int64_t points) const {
        const T *rows = a + point * ROW<T>, *panel = b + column * terms;
        for (int64_t k = 0; k < terms; k += ROW<T>)
            multiply<ROW<T>, 1, PANEL>(tile, rows + k * points, panel + k * PANEL,
                                       terms - k < ROW<T> ? terms - k : ROW<T>);
    }
};

// The sum of two products. Not inline: its caller's constants would take the sums' registers.
template <class T>
[[gnu::noinline]] void product(Tile &out, const Factors<float> &few, const Factors<T> &many,
                               int64_t column, int64_t point, int64_t points) {
    Tile tile;
    each([&](int r, int v) { tile.sums[r][v] = Vector{}; });
    few.add_to(tile, column, point, points);
    many.add_to(tile, column, point, points);
    each([&](int r, int v) { out.sums[r][v] = tile.sums[r][v]; });
}

// total (panels, rows, PANEL) += a^T b, summed over points; a and b are panels
template <int64_t b_step, class A, class B>
void add_outer(float *total, const A *a, int64_t rows, const B *b, int64_t width, int64_t points) {
    const int64_t terms = points / NUMBERS<A>;
    for (int64_t column = 0; column < width; column += PANEL)
        for (int64_t i = 0; i < rows; i += ROWS) {
            Tile tile;
            each([&](int r, int v) { tile.sums[r][v] = Vector{}; });
            multiply<1, PANEL, b_step>(tile, a + i / PANEL * terms * PANEL + i % PANEL,
                                       b + column * points / NUMBERS<B>, terms);
            float *to = total + column * rows + i * PANEL;
            each([&](int r, int v) {
                float *at = to + r * PANEL + v * LANES;
                store(at, load(at) + tile.sums[r][v]);
            });
        }
}

// Two points' numbers side by side, as products over points want them.
inline const float *pair_points(const float *x, float *, int64_t) { return x; }
#if defined(__AVX512BF16__)
inline const Pair *pair_points(const Pair *x, Pair *room, int64_t numbers) {
    for (int64_t i = 0; i < numbers / 2; i += PANEL)  // two rows of a panel
        for (int v = 0; v < PANEL; v += LANES) {
            const Integers even = (Integers)load(x + i + v / 2);
            const Integers odd = (Integers)load(x + i + ROW<Pair> + v / 2);
            store((float *)room + i + v, (Vector)((even >> 16 & 0xffff) | odd));
        }
    return room;
}
#endif

// y (points, count) = x W^T + bias for a few outputs; weights (panels, count, PANEL)
template <class T>
void linear(const T *x, const float *weights, const float *bias, int64_t width, int64_t count,
            int64_t points, int64_t rows, float *y) {
    for (int64_t p = 0; p < rows; ++p)
        for (int64_t c = 0; c < count; ++c) {
            Vector sums = {};
            for (int64_t column = 0; column < width; column += PANEL)
                for (int v = 0; v < VECTORS; ++v)
                    sums += load(x + (column * points + p * PANEL + v * LANES) / NUMBERS<T>) *
                            load(weights + column * count + c * PANEL + v * LANES);
            float lanes[LANES];
            store(lanes, sums);
            for (int half = LANES / 2; half; half /= 2)
                for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
            y[p * count + c] = lanes[0] + (bias ? bias[c] : 0);
        }
}

}  // namespace
