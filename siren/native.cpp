// A pi-GAN field and its gradients: points go through all layers, and back, a chunk at a time, and
// their activations never leave the cache. Compiled by siren/native.py for the processor at hand.

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "tiles.h"

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

constexpr int64_t CHUNK = 96;  // points at once
constexpr int COLORS = 3, HEADS = 4;  // outputs of the radiance head, and with density's

inline int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

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
        const Factors<T> many{k ? wave(k - 1) : nullptr, weights, terms};
        const float *biases = field.biases + k * width;
        T *sines = wave(k);
        float *cosines = backward ? slopes + k * points * width : nullptr;
        multiply_all(few, many, [=](const Tile &tile, int64_t column, int64_t at) {
            UNROLL for (int r = 0; r < ROWS; ++r) {
                Vector row[VECTORS];
                UNROLL for (int v = 0; v < VECTORS; ++v) {
                    const Vector bias = load(biases + column + v * LANES);
                    const Phase<(NUMBERS<T> > 1)> phase(tile.sums[r][v] + bias);
                    row[v] = phase.sine();
                    if (cosines) store(cosines + at + r * PANEL + v * LANES, phase.cosine());
                }
                store_row(sines + at / NUMBERS<T> + r * ROW<T>, row);
            }
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
            UNROLL for (int r = 0; r < ROWS; ++r) {
                Vector row[VECTORS];
                UNROLL for (int v = 0; v < VECTORS; ++v) {
                    row[v] = tile.sums[r][v] * load(cosines + at + r * PANEL + v * LANES);
                    totals[v] += row[v];
                }
                store_row(grads + at / NUMBERS<T> + r * ROW<T>, row);
            }
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
