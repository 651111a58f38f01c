// A pi-GAN field and its gradients: points go through all layers a chunk at a time and never leave
// the cache, sums never leave the registers before their sine is taken. Compiled by
// siren/native.py for the processor at hand.
//
// Whatever is wide lies in panels of PANEL columns, (panels, rows, PANEL): activations have points
// as rows, weights have inputs. 16-bit numbers are multiplied two at once: weights then lie as
// (panels, in / 2, PANEL, 2). Sums, phases and sines are in single precision whatever goes in.

#include <cmath>
#include <cstdint>
#include <cstdlib>
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
constexpr int64_t CHUNK = 12 * 8;  // points at once
constexpr int COLORS = 3, HEADS = 4;  // outputs of the radiance head, and with density's

typedef float Vector __attribute__((vector_size(64)));
typedef int32_t Integers __attribute__((vector_size(64)));
typedef float Loose __attribute__((vector_size(64), aligned(4), may_alias));
struct Pair { uint16_t first, second; };  // of bf16 numbers

template <class T> constexpr int NUMBERS = 1;  // in a term of a product
template <> constexpr int NUMBERS<Pair> = 2;
template <class T> constexpr int ROW = PANEL / NUMBERS<T>;  // terms in a panel's row

inline Vector load(const float *p) { return *(const Loose *)p; }
inline void store(float *p, Vector v) { *(Loose *)p = v; }
inline void accumulate(Vector *sums, float x, const float *weights) {
    UNROLL for (int v = 0; v < VECTORS; ++v) sums[v] += x * load(weights + v * LANES);
}

#if defined(__AVX512BF16__)
inline Vector load(const Pair *p) {
    return (Vector)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_epi16(p)), 16);
}
inline void store(Pair *p, Vector v) {
    _mm256_storeu_epi16(p, (__m256i)_mm512_cvtneps_pbh((__m512)v));
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
// [-pi/2, pi/2], to 5e-9, 5e-8, and 2e-6 where only 16 bits are kept. Adding 1.5 * 2^23 rounds to a
// whole number, whose last bit is k's.
constexpr float ROUND = 12582912.0f, INVERSE_PI = 0.318309886f;
constexpr float PI_HIGH = 3.14159274f, PI_LOW = -8.74227766e-8f;

struct Phase {
    Vector r, square;
    Integers sign;

    explicit Phase(Vector x) {
        const Vector rounded = x * INVERSE_PI + ROUND, k = rounded - ROUND;
        r = x - k * PI_HIGH - k * PI_LOW;
        square = r * r;
        sign = (Integers)rounded << 31;
    }
    template <bool rough> Vector sine() const {
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
            const __m512i even = _mm512_cvtepu16_epi32(_mm256_loadu_epi16(x + i + v / 2));
            const __m512i odd = (__m512i)load(x + i + ROW<Pair> + v / 2);
            _mm512_storeu_si512(room + i + v, _mm512_or_si512(even, odd));
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

inline int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

}  // namespace

extern "C" {

struct Field {  // filled in by siren/native.py
    int64_t depth, width, features, views;  // layers but the first, their columns; other inputs
    const float *first, *to_views, *biases;  // of the first layer, of the last, of all
    const float *radiance, *density, *head_biases;
    const void *weights, *transposed;  // of all layers but the first: (depth, width, width)
};

struct Points {
    int64_t count;
    const float *x, *views;  // (count, features), (count, views)
    float *radiance, *density;  // outputs, or their gradients; radiance is null if not wanted
    float *grad_x, *grad_views;  // null if not wanted
    float *sums;  // gradients of weights, `size` numbers for each thread; null to evaluate
    int64_t size;
};
}

namespace {

template <class T> class Chunk {  // of points, on its way through the layers and back
  public:
    Chunk(const Field &field, const Points &all)
        : field(field), all(all), depth(field.depth), width(field.width), wide(CHUNK * width),
          backward(all.sums) {
        const int64_t kept = (backward ? depth + 1 : 2) * wide;
        const int64_t features = CHUNK * round_up(field.features, PANEL), few = CHUNK * PANEL;
        const int64_t narrow = backward ? kept + 4 * wide : kept;  // numbers that may have 16 bits
        const int64_t size = features + 2 * few + (backward ? kept : 0) + narrow / NUMBERS<T>;
        x = (float *)std::aligned_alloc(64, size * sizeof(float));
        views = x + features;
        heads = views + few;
        slopes = heads + few;
        waves = (T *)(slopes + (backward ? kept : 0));
        grads = waves + kept / NUMBERS<T>;
        room = grads + 2 * wide / NUMBERS<T>;
        std::memset(x, 0, (features + 2 * few) * sizeof(float));
    }
    ~Chunk() { std::free(x); }
    Chunk(const Chunk &) = delete;

    void take(int64_t from) {
        begin = from;
        rows = all.count - from < CHUNK ? all.count - from : CHUNK;
        points = round_up(rows, ROWS);
        copy(all.x, field.features, x);
        if (all.radiance) copy(all.views, field.views, views);
    }

    void evaluate() {
        for (int64_t k = 0; k < depth; ++k) layer(k);
        linear(wave(depth - 1), field.density, field.head_biases + COLORS, width, 1, points, rows,
               all.density + begin);
        if (!all.radiance) return;
        layer(depth);
        color(all.radiance + begin * COLORS);
    }

    void differentiate(float *sums) {
        for (int64_t k = 0; k <= depth; ++k) layer(k);
        float *head_biases = sums + (depth + 1) * width, *radiance = head_biases + ROWS;
        float *density = radiance + ROWS * width, *to_views = density + ROWS * width;
        float *weights = to_views + ROWS * width, *first = weights + depth * width * width;
        differentiate_heads(head_biases);
        add_outer<ROW<T>>(radiance, heads, ROWS, wave(depth), width, points);
        add_outer<ROW<T>>(density, heads, ROWS, wave(depth - 1), width, points);
        gradient(depth, sums + depth * width);
        add_outer<ROW<T>>(to_views, views, ROWS, grad(depth), width, points);
        if (all.grad_views)
            linear(grad(depth), field.to_views, nullptr, width, field.views, points, rows,
                   all.grad_views + begin * field.views);
        for (int64_t k = depth; k-- > 0;) {
            const T *in = pair_points(wave(k), room, width * points);
            const T *out = pair_points(grad(k + 1), room + wide / NUMBERS<T>, width * points);
            add_outer<PANEL>(weights + k * width * width, in, width, out, width, points);
            gradient(k, sums + k * width);
        }
        add_outer<ROW<T>>(first, x, round_up(field.features, ROWS), grad(0), width, points);
        if (all.grad_x)
            linear(grad(0), field.first, nullptr, width, field.features, points, rows,
                   all.grad_x + begin * field.features);
    }

  private:
    const Field &field;
    const Points &all;
    const int64_t depth, width, wide;
    const bool backward;
    int64_t begin = 0, rows = 0, points = 0;  // rows that are in use, and with the last tile's
    float *x, *views, *heads, *slopes;  // inputs, heads' gradients, cosines of phases
    T *waves, *grads, *room;  // activations, gradients of phases, and room to pair them

    T *wave(int64_t k) { return waves + (backward ? k : k % 2) * points * width / NUMBERS<T>; }
    T *grad(int64_t k) { return grads + k % 2 * points * width / NUMBERS<T>; }

    void copy(const float *from, int64_t columns, float *to) {
        for (int64_t c = 0; c < columns; ++c)
            for (int64_t p = 0; p < points; ++p)
                to[(c / PANEL * points + p) * PANEL + c % PANEL] =
                    p < rows ? from[(begin + p) * columns + c] : 0;
    }

    void color(float *y) {
        linear(wave(depth), field.radiance, field.head_biases, width, COLORS, points, rows, y);
        for (int64_t i = 0; i < rows * COLORS; ++i) y[i] = 1 / (1 + std::exp(-y[i]));
    }

    // Finish every tile of inputs times weights, given its place in panels as wide as layers.
    template <class Finish>
    void multiply_all(const Factors<float> &few, const Factors<T> &many, Finish finish) {
        for (int64_t column = 0; column < width; column += PANEL)
            for (int64_t p = 0; p < points; p += ROWS) {
                Tile tile;
                product(tile, few, many, column, p, points);
                finish(tile, column, column * points + p * PANEL);
            }
    }

    void layer(int64_t k) {
        const Factors<float> few{k ? views : x, k ? field.to_views : field.first,
                                 k == 0 ? field.features : k == depth ? field.views : 0};
        const int64_t terms = k ? width / NUMBERS<T> : 0;
        const T *weights = (const T *)field.weights + (k - 1) * terms * width;
        const Factors<T> many{wave(k - 1), weights, terms};
        const float *biases = field.biases + k * width;
        T *sines = wave(k);
        float *cosines = backward ? slopes + k * points * width : nullptr;
        multiply_all(few, many, [=](const Tile &tile, int64_t column, int64_t at) {
            each([&](int r, int v) {
                const Phase phase(tile.sums[r][v] + load(biases + column + v * LANES));
                const int64_t place = at + r * PANEL + v * LANES;
                store(sines + place / NUMBERS<T>, phase.template sine<(NUMBERS<T> > 1)>());
                if (cosines) store(cosines + place, phase.cosine());
            });
        });
    }

    void differentiate_heads(float *bias_sums) {
        float colors[CHUNK * COLORS];
        color(colors);
        for (int64_t p = 0; p < points; ++p)
            for (int c = 0; c < HEADS; ++c) {
                const int64_t from = begin + p;
                const float y = c < COLORS && p < rows ? colors[p * COLORS + c] : 0;
                const float grad = p >= rows     ? 0
                                   : c == COLORS ? all.density[from]
                                                 : all.radiance[from * COLORS + c] * (y - y * y);
                heads[p * PANEL + c] = grad;
                bias_sums[c] += grad;
            }
    }

    // The gradient of a layer's phase, from the next layer's or its head's, and of its bias.
    void gradient(int64_t k, float *bias_sums) {
        const Factors<float> few{k == depth ? heads : heads + COLORS,
                                 k == depth ? field.radiance : field.density,
                                 k == depth ? COLORS : k == depth - 1 ? 1 : 0};
        const int64_t terms = k == depth ? 0 : width / NUMBERS<T>;
        const T *weights = (const T *)field.transposed + k * terms * width;
        const Factors<T> many{grad(k + 1), weights, terms};
        const float *cosines = slopes + k * points * width;
        T *grads = grad(k);
        multiply_all(few, many, [=](const Tile &tile, int64_t column, int64_t at) {
            Vector totals[VECTORS] = {};
            each([&](int r, int v) {
                const int64_t place = at + r * PANEL + v * LANES;
                const Vector y = tile.sums[r][v] * load(cosines + place);
                totals[v] += y;
                store(grads + place / NUMBERS<T>, y);
            });
            for (int v = 0; v < VECTORS; ++v) {
                float *to = bias_sums + column + v * LANES;
                store(to, load(to) + totals[v]);
            }
        });
    }
};

template <class T> void run(const Field &field, const Points &all, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1 && all.count > CHUNK)
    for (int t = 0; t < threads; ++t) {
        Chunk<T> chunk(field, all);
        for (int64_t from = t * CHUNK; from < all.count; from += threads * CHUNK) {
            chunk.take(from);
            if (all.sums) chunk.differentiate(all.sums + t * all.size);
            else chunk.evaluate();
        }
    }
}

}  // namespace

extern "C" {

int panel_width() { return PANEL; }
int tile_rows() { return ROWS; }
void run_float(const Field *field, const Points *points, int threads) {
    run<float>(*field, *points, threads);
}
#if defined(__AVX512BF16__)
void run_bf16(const Field *field, const Points *points, int threads) {
    run<Pair>(*field, *points, threads);
}
#endif
}
