// Runs the emitted kernels and compares with loops in double. Sizes leave partial tiles.
#include <algorithm>
#include "device.hpp"
#include "kernels.cu"

typedef std::vector<float> Floats;

static Floats random_floats(size_t n, double scale) {
    Floats x(n);
    for (auto& e : x) e = (float)((drand48() * 2 - 1) * scale);
    return x;
}

static int failures = 0;

struct Check {
    const char* name;
    double bound, worst = 0;
    void operator()(double got, double want) {
        const double error = fabs(got - want) / (1 + fabs(want));
        if (!(error <= worst)) worst = error; // a NaN stays
    }
    ~Check() {
        printf("%s %g\n", name, worst);
        failures += !(worst <= bound);
    }
};

static void check_swiglu() {
    Check check{"swiglu", 4e-3}; // one rounding to bf16
    const int n = 2500;
    const Floats a = random_floats(n, 4), b = random_floats(n, 4);
    std::vector<unsigned short> gate(n), up(n), y(n);
    for (int i = 0; i < n; ++i) gate[i] = f32_to_bf16(a[i]), up[i] = f32_to_bf16(b[i]);
    launch(256, 3, [&] { swiglu(gate.data(), up.data(), y.data(), n); });
    for (int i = 0; i < n; ++i) {
        const double g = bf16_to_f32(gate[i]);
        check(bf16_to_f32(y[i]), g / (1 + exp(-g)) * bf16_to_f32(up[i]));
    }
}

static void check_layer_norm() {
    Check check{"layer_norm", 2e-6};
    const int rows = 3, d = 768;
    const Floats x = random_floats(rows * d, 2), gamma = random_floats(d, 2), beta = random_floats(d, 2);
    Floats y(rows * d);
    launch(128, rows, [&] { layer_norm(x.data(), gamma.data(), beta.data(), y.data(), rows); });
    for (int r = 0; r < rows; ++r) {
        double mean = 0, square = 0;
        for (int c = 0; c < d; ++c) mean += x[r * d + c] / (double)d;
        for (int c = 0; c < d; ++c) square += pow(x[r * d + c] - mean, 2) / d;
        for (int c = 0; c < d; ++c) check(y[r * d + c], (x[r * d + c] - mean) / sqrt(square + 1e-5) * gamma[c] + beta[c]);
    }
}

static void check_softmax() {
    Check check{"softmax", 2e-6};
    const int rows = 3, columns = 1777;
    const Floats x = random_floats(rows * columns, 3);
    Floats y(rows * columns);
    launch(128, rows, [&] { softmax(x.data(), y.data(), rows, columns); });
    for (int r = 0; r < rows; ++r) {
        double sum = 0;
        for (int c = 0; c < columns; ++c) sum += exp((double)x[r * columns + c]);
        for (int c = 0; c < columns; ++c) check(1e3 * y[r * columns + c], 1e3 * exp((double)x[r * columns + c]) / sum);
    }
}

static void check_beside() {
    Check check{"beside", 2e-6};
    const int first = 3, second = 5, columns = 100;
    const Floats x = random_floats(first * columns, 3), z = random_floats(second * columns, 1);
    Floats y(first * columns), total(second);
    launch(64, first + second, [&] { beside(x.data(), y.data(), z.data(), total.data(), first, second); });
    for (int r = 0; r < first; ++r) {
        double sum = 0;
        for (int c = 0; c < columns; ++c) sum += exp((double)x[r * columns + c]);
        for (int c = 0; c < columns; ++c) check(1e3 * y[r * columns + c], 1e3 * exp((double)x[r * columns + c]) / sum);
    }
    for (int r = 0; r < second; ++r) {
        double sum = 0;
        for (int c = 0; c < columns; ++c) sum += z[r * columns + c];
        check(1 + total[r], 1 + sum);
    }
}

static void check_matmul() {
    Check check{"matmul_bias_gelu", 1e-5};
    const int m = 70, n = 3072, k = 768;
    const Floats a = random_floats(m * k, 0.2), w = random_floats(k * n, 0.2), bias = random_floats(n, 0.2);
    Floats y(m * n);
    launch(128, 2 * 48, [&] { matmul_bias_gelu(a.data(), w.data(), bias.data(), y.data(), m); });
    for (int i = 0; i < m; ++i) {
        for (int j = 0; j < n; j += 7) {
            double t = bias[j];
            for (int l = 0; l < k; ++l) t += (double)a[i * k + l] * w[l * n + j];
            check(y[i * n + j], 0.5 * t * (1 + tanh(0.79788456 * (t + 0.044715 * t * t * t))));
        }
    }
}

static void check_attention() {
    Check check{"attention_row", 2e-6};
    const int s = 130, d = 64, heads = 12;
    const Floats q = random_floats(heads * s * d, 2), k = random_floats(heads * s * d, 2), v = random_floats(heads * s * d, 2);
    Floats o(heads * s * d);
    launch(128, s, [&] { attention_row(q.data(), k.data(), v.data(), o.data(), s); }); // the first head
    for (int i = 0; i < s; ++i) {
        std::vector<double> e(i + 1);
        double sum = 0;
        for (int j = 0; j <= i; ++j) {
            double x = 0;
            for (int c = 0; c < d; ++c) x += (double)q[i * d + c] * k[j * d + c];
            sum += e[j] = exp(x * 0.125);
        }
        for (int c = 0; c < d; ++c) {
            double x = 0;
            for (int j = 0; j <= i; ++j) x += e[j] * v[j * d + c];
            check(o[i * d + c], x / sum);
        }
    }
}

// The bits of the value of a 16-bit float dtype that is nearest to x, ties to even: what is below a quantum is looked at
// exactly, since long double holds every 64-bit integer.
static unsigned short nearest(long double x, int precision, int least, int most, int bias) {
    const bool negative = x < 0;
    if (negative) x = -x;
    int exponent = x == 0 ? least : std::max(ilogbl(x), least);
    long double quanta = scalbnl(x, precision - 1 - exponent), whole = floorl(quanta), rest = quanta - whole;
    if (rest > 0.5L || (rest == 0.5L && fmodl(whole, 2) == 1)) whole += 1;
    // A mantissa that rounds up to the next power of two carries into the exponent, and past the last one is infinity.
    long bits = (long)whole + ((long)(exponent + bias) << (precision - 1)) - (1L << (precision - 1));
    const long infinity = (long)(most + bias + 1) << (precision - 1);
    if (bits > infinity || exponent > most) bits = infinity;
    return (unsigned short)(bits | (negative ? 0x8000 : 0));
}

template <class T> static void check_casts_of(Check& check, const T* x, const unsigned short* f16, const unsigned short* bf16) {
    for (int i = 0; i < 1000; ++i) {
        check(f16[i], nearest((long double)x[i], 11, -14, 15, 15));
        check(bf16[i], nearest((long double)x[i], 8, -126, 127, 127));
    }
}

static void check_casts() {
    Check check{"casts", 0};
    int i32[1000];
    unsigned u32[1000];
    long long i64[1000];
    unsigned long long u64[1000];
    double f64[1000];
    // Numbers of every length, near ties of both dtypes.
    for (int i = 0; i < 1000; ++i) {
        const unsigned long long random = (unsigned long long)lrand48() << 33 ^ (unsigned long long)lrand48() << 11 ^ lrand48();
        unsigned long long x = random >> i % 64;
        const int length = x ? 64 - __builtin_clzll(x) : 0, keep = i % 2 ? 9 : 12;
        if (length > keep && i % 3) x = (x >> (length - keep) | 1) << (length - keep);
        x += i % 5 == 0 ? 1 : i % 5 == 1 ? -1 : 0;
        u64[i] = x, i64[i] = (long long)(i & 8 ? -x : x), u32[i] = (unsigned)x, i32[i] = (int)i64[i];
        f64[i] = scalbn((double)i64[i], i % 7 == 0 ? -90 : i % 7 == 1 ? 70 : i % 7 == 2 ? -70 : -20);
    }
    static unsigned short y[10][1000];
    launch(64, 1, [&] { casts(i32, y[0], y[1], u32, y[2], y[3], i64, y[4], y[5], u64, y[6], y[7], f64, y[8], y[9]); });
    check_casts_of(check, i32, y[0], y[1]);
    check_casts_of(check, u32, y[2], y[3]);
    check_casts_of(check, i64, y[4], y[5]);
    check_casts_of(check, u64, y[6], y[7]);
    check_casts_of(check, f64, y[8], y[9]);
}

static void check_gemm_sm80() {
    Check check{"gemm_sm80", 8e-3}; // one rounding to bf16
    const int m = 130, n = 3072, k = 768;
    const Floats a = random_floats(m * k, 0.2), b = random_floats(n * k, 0.2), bias = random_floats(n, 0.2);
    std::vector<unsigned short> x(m * k), w(n * k), y(m * n);
    for (int i = 0; i < m * k; ++i) x[i] = f32_to_bf16(a[i]);
    for (int i = 0; i < n * k; ++i) w[i] = f32_to_bf16(b[i]);
    // Tiles of the first four columns of tiles, and both rows of them: the last has two rows of its own.
    launch(128, 8, [&] { gemm_bf16_nt_sm80(x.data(), w.data(), bias.data(), y.data(), m); });
    for (int i = 0; i < m; ++i) {
        for (int j = 0; j < 512; j += 7) {
            double t = bias[j];
            for (int l = 0; l < k; ++l) t += (double)bf16_to_f32(x[i * k + l]) * bf16_to_f32(w[j * k + l]);
            check(bf16_to_f32(y[i * n + j]), 0.5 * t * (1 + erf(0.70710678 * t)));
        }
    }
}

int main() {
    check_gemm_sm80();
    check_casts();
    check_swiglu();
    check_layer_norm();
    check_softmax();
    check_beside();
    check_matmul();
    check_attention();
    return failures != 0;
}
