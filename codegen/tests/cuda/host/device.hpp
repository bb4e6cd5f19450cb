// The device's names on the host: a block is as many threads with a barrier, a shuffle goes through memory.
#include <barrier>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

struct Index { unsigned x; };
static thread_local Index threadIdx, blockIdx;
static std::unique_ptr<std::barrier<>> block_barrier;
static std::vector<std::unique_ptr<std::barrier<>>> warp_barriers;
static double exchange[1024];

inline void __syncthreads() { block_barrier->arrive_and_wait(); }

template <class T> T __shfl_xor_sync(unsigned, T v, int offset) {
    const unsigned t = threadIdx.x;
    memcpy(&exchange[t], &v, sizeof v);
    warp_barriers[t / 32]->arrive_and_wait();
    T other;
    memcpy(&other, &exchange[t ^ offset], sizeof other);
    warp_barriers[t / 32]->arrive_and_wait();
    return other;
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

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(threads)
#define __restrict__

template <class Kernel> void launch(int threads, int blocks, Kernel kernel) {
    block_barrier = std::make_unique<std::barrier<>>(threads);
    warp_barriers.clear();
    for (int w = 0; w < threads / 32; ++w) warp_barriers.push_back(std::make_unique<std::barrier<>>(32));
    std::vector<std::thread> all;
    for (int t = 0; t < threads; ++t) {
        all.emplace_back([=] {
            threadIdx.x = t;
            for (int b = 0; b < blocks; ++b) {
                blockIdx.x = b;
                kernel();
                __syncthreads();
            }
        });
    }
    for (auto& t : all) t.join();
}
