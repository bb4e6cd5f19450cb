// The device's names on the host: the threads of a block are fibers of one thread that take turns at barriers, so a run is
// the same every time; a shuffle goes through memory.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
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
// What `cvt.f32.f16` and `cvt.rn.f16.f32` do; those instructions are replaced by these before the text is compiled.
inline float host_from_f16(unsigned short x) { return (float)bits<_Float16>(x); }
inline unsigned short host_to_f16(float x) { return bits<unsigned short>((_Float16)x); }

#define __global__
#define __device__
#define __shared__ static
#define __align__(bytes) alignas(bytes)
#define __launch_bounds__(...)
#define __restrict__

template <class Kernel> void launch(int threads, long long blocks, Kernel kernel) {
    fibers.resize(threads);
    for (long long b = 0; b < blocks; ++b) {
        blockIdx.x = (unsigned)b;
        fiber_body = kernel;
        alive = threads;
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
