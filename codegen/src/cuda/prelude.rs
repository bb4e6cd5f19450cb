//! Helper functions of the emitted text; only those that a kernel uses are put before it.

use super::instructions::INSTRUCTIONS;

/// Words that a kernel's names must not take: C keywords that are plausible names, CUDA's names, ours.
pub(super) const RESERVED: &[&str] = &[
    "tid",
    "lane",
    "warp",
    "block",
    "e",
    "r",
    "k0",
    "kk",
    "a_part",
    "b_part",
    "int",
    "float",
    "double",
    "char",
    "short",
    "long",
    "unsigned",
    "signed",
    "bool",
    "void",
    "for",
    "if",
    "else",
    "while",
    "do",
    "return",
    "const",
    "static",
    "register",
    "volatile",
    "switch",
    "case",
    "default",
    "break",
    "continue",
    "struct",
    "union",
    "enum",
    "class",
    "new",
    "delete",
    "this",
    "template",
    "typename",
    "operator",
    "private",
    "public",
    "protected",
    "namespace",
    "using",
    "auto",
    "inline",
    "extern",
    "sizeof",
    "true",
    "false",
    "and",
    "or",
    "not",
    "xor",
    "try",
    "catch",
    "throw",
    "goto",
    "signed",
    "fmod",
    "pow",
    "fabs",
    "floor",
    "ceil",
    "rint",
    "trunc",
    "sqrt",
    "rsqrt",
    "exp",
    "exp2",
    "expm1",
    "log",
    "log2",
    "log1p",
    "tanh",
    "erf",
    "sin",
    "cos",
    "fmodf",
    "powf",
    "fabsf",
    "floorf",
    "ceilf",
    "rintf",
    "truncf",
    "sqrtf",
    "rsqrtf",
    "expf",
    "exp2f",
    "expm1f",
    "logf",
    "log2f",
    "log1pf",
    "tanhf",
    "erff",
    "sinf",
    "cosf",
    "fmaf",
    "max_of",
    "min_of",
    "is_nan",
    "sign_of",
    "int_div",
    "int_rem",
    "int_pow",
    "int_shl",
    "int_shr",
    "float_to_int",
    "int_to_odd",
    "double_to_odd",
    "swizzled",
    "copy_16",
    "cp_async_4",
    "cp_async_8",
    "cp_async_16",
    "cp_async_commit",
    "cp_async_wait",
    "ldmatrix_x4",
    "ldmatrix_x4_trans",
    "mma_m16n8k16_bf16",
    "mma_m16n8k16_f16",
    "Sum",
    "Prod",
    "Max",
    "Min",
    "warp_reduce",
    "block_reduce",
    "f16_to_f32",
    "f32_to_f16",
    "bf16_to_f32",
    "f32_to_bf16",
    "ceil_div",
    "floor_div",
    "mod_of",
    "index_checked",
    "q8_0_at",
    "q4_0_at",
    "q4_1_at",
    "dynamic_shared",
    "threadIdx",
    "blockIdx",
    "blockDim",
    "gridDim",
    "INFINITY_F32",
    "NAN_F32",
    "INFINITY_F64",
    "NAN_F64",
    "asm",
];

/// Name and text, helpers before their users.
const HELPERS: &[(&str, &str)] = &[
    ("INFINITY_F32", "#define INFINITY_F32 __int_as_float(0x7f800000)"),
    ("NAN_F32", "#define NAN_F32 __int_as_float(0x7fc00000)"),
    ("INFINITY_F64", "#define INFINITY_F64 __longlong_as_double(0x7ff0000000000000LL)"),
    ("NAN_F64", "#define NAN_F64 __longlong_as_double(0x7ff8000000000000LL)"),
    (
        "bf16_to_f32",
        "__device__ inline float bf16_to_f32(unsigned short x) { return __uint_as_float((unsigned int)x << 16); }",
    ),
    (
        "f32_to_bf16",
        "__device__ inline unsigned short f32_to_bf16(float x) {
    const unsigned int u = __float_as_uint(x);
    if (x != x) return (unsigned short)((u >> 16) | 0x40u);
    return (unsigned short)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16); // ties to even
}",
    ),
    (
        "q8_0_at",
        "// GGML blocks of 32: f16 scale, 32 i8.
__device__ inline float q8_0_at(const unsigned char* x, long long i) {
    const unsigned char* b = x + i / 32 * 34;
    return f16_to_f32(b[0] | b[1] << 8) * (float)(signed char)b[2 + i % 32];
}",
    ),
    (
        "q4_0_at",
        "// GGML blocks of 32: f16 scale, 16 bytes with elements 0 to 15 in the low and 16 to 31 in the high halves, minus 8.
__device__ inline float q4_0_at(const unsigned char* x, long long i) {
    const unsigned char* b = x + i / 32 * 18;
    const int j = (int)(i % 32), byte = b[2 + j % 16];
    return f16_to_f32(b[0] | b[1] << 8) * (float)((j < 16 ? byte & 15 : byte >> 4) - 8);
}",
    ),
    (
        "q4_1_at",
        "// GGML blocks of 32: f16 scale, f16 minimum, halves of 16 bytes as in q4_0. Scale times nibble is exact.
__device__ inline float q4_1_at(const unsigned char* x, long long i) {
    const unsigned char* b = x + i / 32 * 20;
    const int j = (int)(i % 32), byte = b[4 + j % 16];
    return f16_to_f32(b[0] | b[1] << 8) * (float)(j < 16 ? byte & 15 : byte >> 4) + f16_to_f32(b[2] | b[3] << 8);
}",
    ),
    (
        "ceil_div",
        "__device__ inline long long ceil_div(long long a, long long b) { return (a + b - 1) / b; } // a >= 0, b > 0",
    ),
    (
        "floor_div",
        "__device__ inline long long floor_div(long long a, long long b) { return a / b - (a % b < 0); } // b > 0",
    ),
    (
        "index_checked",
        "// An index that data chose: outside of 0..n the launch fails.
__device__ inline long long index_checked(long long i, long long n) {
    if ((unsigned long long)i >= (unsigned long long)n) __trap();
    return i;
}",
    ),
    (
        "mod_of",
        "__device__ inline long long mod_of(long long a, long long b) { return a % b + (a % b < 0 ? b : 0); } // b > 0",
    ),
    (
        "swizzled",
        "// An offset in shared memory whose bits M.. are xored with B bits from M + S on, so that columns lie in different banks.
template <int B, int M, int S> __device__ inline int swizzled(int i) { return i ^ ((i >> (M + S) & ((1 << B) - 1)) << M); }",
    ),
    ("is_nan", "template <class T> __device__ inline bool is_nan(T x) { return x != x; }"),
    (
        "max_of",
        "template <class T> __device__ inline T max_of(T a, T b) { return a > b || a != a ? a : b; } // NaN wins",
    ),
    (
        "min_of",
        "template <class T> __device__ inline T min_of(T a, T b) { return a < b || a != a ? a : b; } // NaN wins",
    ),
    ("sign_of", "template <class T> __device__ inline T sign_of(T x) { return x != x ? x : (T)((x > 0) - (x < 0)); }"),
    (
        "int_div",
        "template <class T> __device__ inline T int_div(T a, T b) {
    return b == 0 ? (T)0 : b == (T)-1 && (T)-1 < (T)1 ? (T)(0ULL - (unsigned long long)a) : (T)(a / b);
}",
    ),
    (
        "int_rem",
        "template <class T> __device__ inline T int_rem(T a, T b) { return b == 0 || (b == (T)-1 && (T)-1 < (T)1) ? (T)0 : (T)(a % b); }",
    ),
    (
        "int_pow",
        "template <class T, class U> __device__ inline T int_pow(T a, T b) {
    if (b < (T)0) return a == (T)1 ? a : a == (T)-1 ? ((b & 1) ? a : (T)1) : (T)0;
    U x = (U)a, y = 1;
    for (; b > (T)0; b = (T)(b >> 1), x *= x) if (b & 1) y *= x;
    return (T)y;
}",
    ),
    (
        "int_shl",
        "template <class T, class U> __device__ inline T int_shl(T a, T b) { return b < (T)0 || b >= (T)(8 * sizeof(T)) ? (T)0 : (T)((U)a << b); }",
    ),
    (
        "int_shr",
        "template <class T> __device__ inline T int_shr(T a, T b) { return b < (T)0 || b >= (T)(8 * sizeof(T)) ? (a < (T)0 ? (T)-1 : (T)0) : (T)(a >> b); }",
    ),
    (
        "float_to_int",
        "template <class T, class F> __device__ inline T float_to_int(F x, T low, T high) {
    return x != x ? (T)0 : x <= (F)low ? low : x >= (F)high ? high : (T)x;
}",
    ),
    (
        "int_to_odd",
        "// What f32 does not hold sets the last of at least 13 bits: a rounding to 16 bits after it is the only one.
template <class T> __device__ inline float int_to_odd(T x) {
    unsigned long long m = x < (T)0 ? 0ULL - (unsigned long long)x : (unsigned long long)x;
    float scale = x < (T)0 ? -1.0f : 1.0f;
    for (; m >> 24; scale *= 4096.0f) m = m >> 12 | (unsigned long long)((m & 4095) != 0);
    return scale * (float)m;
}",
    ),
    (
        "double_to_odd",
        "// The neighbour with an odd last bit where f32 does not hold x: a rounding to 16 bits after it is the only one.
__device__ inline float double_to_odd(double x) {
    const float y = (float)x;
    const unsigned int u = __float_as_uint(y);
    if ((double)y == x || y != y || u & 1u) return y;
    return __uint_as_float((y < 0 ? -(double)y : (double)y) > (x < 0 ? -x : x) ? u - 1u : u + 1u);
}",
    ),
    ("Sum", "struct Sum { template <class T> __device__ static T of(T a, T b) { return a + b; } };"),
    ("Prod", "struct Prod { template <class T> __device__ static T of(T a, T b) { return a * b; } };"),
    ("Max", "struct Max { template <class T> __device__ static T of(T a, T b) { return max_of(a, b); } };"),
    ("Min", "struct Min { template <class T> __device__ static T of(T a, T b) { return min_of(a, b); } };"),
    (
        "warp_reduce",
        "// Butterfly: every lane ends with the same bits.
template <class Op, class T> __device__ inline T warp_reduce(T v) {
    #pragma unroll
    for (int o = 16; o > 0; o >>= 1) v = Op::of(v, (T)__shfl_xor_sync(0xffffffffu, v, o));
    return v;
}",
    ),
    (
        "block_reduce",
        "// Warps by butterfly, then their results in order of the warp; all threads get the same bits.
template <int THREADS, class Op, class T> __device__ inline T block_reduce(T v, T* scratch) {
    v = warp_reduce<Op>(v);
    __syncthreads();
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
    __syncthreads();
    T total = scratch[0];
    #pragma unroll
    for (int w = 1; w < THREADS / 32; ++w) total = Op::of(total, scratch[w]);
    return total;
}",
    ),
];

/// The helpers that `text` uses, with those that they use: instructions of the device first, for whoever compiles the text
/// for another machine has to give them a meaning there.
pub(super) fn helpers(text: &str) -> String {
    let mut needed = String::from(text);
    let mut taken: Vec<&str> = Vec::new();
    for (name, body) in HELPERS.iter().rev() {
        if mentions(&needed, name) {
            needed.push('\n');
            needed.push_str(body);
            taken.push(body);
        }
    }
    let instructions =
        INSTRUCTIONS.iter().filter(|(name, _)| mentions(&needed, name)).map(|(_, body)| format!("{body}\n"));
    let instructions: String = instructions.collect();
    let guarded =
        if instructions.is_empty() { instructions } else { format!("#ifdef __CUDACC__\n{instructions}#endif\n") };
    guarded + &taken.iter().rev().map(|b| format!("{b}\n")).collect::<String>()
}

/// Whether the word occurs.
fn mentions(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(word).any(|(i, _)| {
        let before = text[..i].chars().next_back().is_some_and(part);
        let after = text[i + word.len()..].chars().next().is_some_and(part);
        !before && !after
    })
}
