// The device's names on the host: the threads of a block are fibers of one thread that take turns at barriers, so a run is
// the same every time; a shuffle goes through memory.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <vector>
#include <ucontext.h>

struct Index { unsigned x; };
static Index threadIdx, blockIdx;

struct Fiber {
    ucontext_t context;
    std::vector<char> stack;
    bool done;
};

static std::vector<Fiber> fibers;
static ucontext_t scheduler;
static unsigned running, alive;
static std::function<void()> fiber_body;
static double exchange[1024];

// To the next fiber that is not done.
inline void yield() {
    const unsigned from = running;
    do running = (running + 1) % fibers.size(); while (fibers[running].done);
    if (running == from) return;
    threadIdx.x = running;
    swapcontext(&fibers[from].context, &fibers[running].context);
}

struct Barrier {
    unsigned arrived = 0, generation = 0;
    void wait(unsigned size) {
        const unsigned mine = generation;
        if (++arrived == size) {
            arrived = 0;
            ++generation;
        } else {
            for (unsigned rounds = 0; generation == mine; yield()) {
                if (++rounds > 1000000) {
                    printf("threads wait at different barriers\n");
                    exit(1);
                }
            }
        }
    }
};

static Barrier block_barrier, warp_barriers[32];

inline void __syncthreads() { block_barrier.wait(fibers.size()); }

// As on a device: narrow integers and bools come back as int.
template <class T> auto __shfl_xor_sync(unsigned, T v, int offset) -> decltype(+v) {
    const unsigned t = threadIdx.x;
    memcpy(&exchange[t], &v, sizeof v);
    warp_barriers[t / 32].wait(32);
    T other;
    memcpy(&other, &exchange[t ^ offset], sizeof other);
    warp_barriers[t / 32].wait(32);
    return other;
}

inline void fiber_main() {
    fiber_body();
    fibers[running].done = true;
    if (--alive == 0) setcontext(&scheduler);
    yield();
}

template <class To, class From> To bits(From x) {
    To y;
    memcpy(&y, &x, sizeof y);
    return y;
}
inline float __int_as_float(int x) { return bits<float>(x); }
inline float __uint_as_float(unsigned x) { return bits<float>(x); }
inline unsigned __float_as_uint(float x) { return bits<unsigned>(x); }
inline double __longlong_as_double(long long x) { return bits<double>(x); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
[[noreturn]] inline void __trap() {
    printf("an index outside of its tensor\n");
    exit(1);
}
// Instructions of the device, which the text defines for a device only.
inline float f16_to_f32(unsigned short x) { return (float)bits<_Float16>(x); }
inline unsigned short f32_to_f16(float x) { return bits<unsigned short>((_Float16)x); }

inline void copy_16(void* to, const void* from) {
    if ((size_t)to % 16 || (size_t)from % 16) printf("a copy that is not aligned\n"), exit(1);
    memcpy(to, from, 16);
}

// Asynchronous copies happen as late as they may, when their group is waited for; until then there is NaN.
struct Copy {
    void* to;
    const void* from;
    unsigned bytes;
};
static std::vector<std::deque<std::vector<Copy>>> copies(1024);

inline void cp_async(void* to, const void* from, unsigned bytes, bool inside) {
    if ((size_t)to % bytes || (inside && (size_t)from % bytes)) printf("a copy that is not aligned\n"), exit(1);
    auto& groups = copies[threadIdx.x];
    if (groups.empty()) groups.emplace_back();
    memset(to, 0xff, bytes);
    groups.back().push_back({to, inside ? from : nullptr, bytes});
}
inline void cp_async_4(void* to, const void* from, bool inside) { cp_async(to, from, 4, inside); }
inline void cp_async_8(void* to, const void* from, bool inside) { cp_async(to, from, 8, inside); }
inline void cp_async_16(void* to, const void* from, bool inside) { cp_async(to, from, 16, inside); }
inline void cp_async_commit() {
    auto& groups = copies[threadIdx.x];
    if (groups.empty()) groups.emplace_back();
    groups.emplace_back();
}
// The last group is the one that is still open.
template <int N> void cp_async_wait() {
    auto& groups = copies[threadIdx.x];
    for (; groups.size() > N + 1; groups.pop_front()) {
        for (const Copy& c : groups.front()) {
            if (c.from) memcpy(c.to, c.from, c.bytes);
            else memset(c.to, 0, c.bytes);
        }
    }
}

// What the lanes of a warp give each other: the whole warp executes such an instruction together.
struct Given {
    const unsigned short* row;
    unsigned a[4], b[2];
};
static Given given[1024];

inline void ldmatrix(unsigned* to, const unsigned short* row, bool transposed) {
    const unsigned t = threadIdx.x, first = t / 32 * 32, lane = t % 32;
    if ((size_t)row % 16) printf("a row of a matrix that is not aligned\n"), exit(1);
    given[t].row = row;
    warp_barriers[t / 32].wait(32);
    for (unsigned i = 0; i < 4; ++i) {
        unsigned short pair[2];
        for (unsigned j = 0; j < 2; ++j) {
            const unsigned r = lane / 4, c = lane % 4 * 2 + j;
            pair[j] = transposed ? given[first + 8 * i + c].row[r] : given[first + 8 * i + r].row[c];
        }
        to[i] = pair[0] | (unsigned)pair[1] << 16;
    }
    warp_barriers[t / 32].wait(32);
}
inline void ldmatrix_x4(unsigned* to, const unsigned short* row) { ldmatrix(to, row, false); }
inline void ldmatrix_x4_trans(unsigned* to, const unsigned short* row) { ldmatrix(to, row, true); }

template <class Value> void mma_m16n8k16(float* c, const unsigned* a, const unsigned* b, Value value) {
    const unsigned t = threadIdx.x, first = t / 32 * 32, lane = t % 32;
    memcpy(given[t].a, a, sizeof given[t].a);
    memcpy(given[t].b, b, sizeof given[t].b);
    warp_barriers[t / 32].wait(32);
    auto half = [&](unsigned pair, unsigned i) { return value((unsigned short)(pair >> 16 * i)); };
    for (unsigned i = 0; i < 4; ++i) {
        const unsigned row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        for (unsigned k = 0; k < 16; ++k) {
            // Slot 0 of a holds rows 0.. of the first half of the sum, 1 rows 8.., 2 and 3 the second half.
            const unsigned lane_of = k % 8 / 2;
            const float x = half(given[first + row % 8 * 4 + lane_of].a[k / 8 * 2 + row / 8], k % 2);
            const float y = half(given[first + column * 4 + lane_of].b[k / 8], k % 2);
            c[i] += x * y;
        }
    }
    warp_barriers[t / 32].wait(32);
}
inline void mma_m16n8k16_bf16(float* c, const unsigned* a, const unsigned* b) {
    mma_m16n8k16(c, a, b, [](unsigned short x) { return __uint_as_float((unsigned)x << 16); });
}
inline void mma_m16n8k16_f16(float* c, const unsigned* a, const unsigned* b) { mma_m16n8k16(c, a, b, f16_to_f32); }

#define __global__
#define __device__
#define __shared__ static
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)
#define __restrict__

template <class Kernel> void launch(int threads, long long blocks, Kernel kernel) {
    fibers.resize(threads);
    for (long long b = 0; b < blocks; ++b) {
        blockIdx.x = (unsigned)b;
        fiber_body = kernel;
        alive = threads;
        for (auto& groups : copies) groups.clear();
        for (auto& f : fibers) {
            f.stack.resize(64 * 1024);
            f.done = false;
            getcontext(&f.context);
            f.context.uc_stack.ss_sp = f.stack.data();
            f.context.uc_stack.ss_size = f.stack.size();
            f.context.uc_link = nullptr;
            makecontext(&f.context, fiber_main, 0);
        }
        running = threadIdx.x = 0;
        swapcontext(&scheduler, &fibers[0].context);
    }
}
