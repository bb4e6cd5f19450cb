//! Functions of one instruction of the device each.

/// Name and text.
pub(super) const INSTRUCTIONS: &[(&str, &str)] = &[
    (
        "f16_to_f32",
        "__device__ inline float f16_to_f32(unsigned short x) {
    float y;
    asm(\"cvt.f32.f16 %0, %1;\" : \"=f\"(y) : \"h\"(x));
    return y;
}",
    ),
    (
        "f32_to_f16",
        "__device__ inline unsigned short f32_to_f16(float x) {
    unsigned short y;
    asm(\"cvt.rn.f16.f32 %0, %1;\" : \"=h\"(y) : \"f\"(x));
    return y;
}",
    ),
    (
        "copy_16",
        "__device__ inline void copy_16(void* to, const void* from) { *(uint4*)to = *(const uint4*)from; }",
    ),
    (
        "cp_async_4",
        "// Copies 4 bytes to shared memory some time before the wait for their group; zeros where `inside` does not hold.
__device__ inline void cp_async_4(void* to, const void* from, bool inside) {
    const unsigned int at = (unsigned int)__cvta_generic_to_shared(to);
    asm volatile(\"cp.async.ca.shared.global [%0], [%1], 4, %2;\" ::\"r\"(at), \"l\"(from), \"r\"(inside ? 4 : 0) : \"memory\");
}",
    ),
    (
        "cp_async_8",
        "// Copies 8 bytes to shared memory some time before the wait for their group; zeros where `inside` does not hold.
__device__ inline void cp_async_8(void* to, const void* from, bool inside) {
    const unsigned int at = (unsigned int)__cvta_generic_to_shared(to);
    asm volatile(\"cp.async.ca.shared.global [%0], [%1], 8, %2;\" ::\"r\"(at), \"l\"(from), \"r\"(inside ? 8 : 0) : \"memory\");
}",
    ),
    (
        "cp_async_16",
        "// Copies 16 bytes to shared memory some time before the wait for their group; zeros where `inside` does not hold.
__device__ inline void cp_async_16(void* to, const void* from, bool inside) {
    const unsigned int at = (unsigned int)__cvta_generic_to_shared(to);
    asm volatile(\"cp.async.cg.shared.global [%0], [%1], 16, %2;\" ::\"r\"(at), \"l\"(from), \"r\"(inside ? 16 : 0) : \"memory\");
}",
    ),
    (
        "cp_async_commit",
        "// Ends the group of this thread's copies.
__device__ inline void cp_async_commit() { asm volatile(\"cp.async.commit_group;\" ::: \"memory\"); }",
    ),
    (
        "cp_async_wait",
        "// Waits for this thread's groups but the newest N.
template <int N> __device__ inline void cp_async_wait() { asm volatile(\"cp.async.wait_group %0;\" ::\"n\"(N) : \"memory\"); }",
    ),
    (
        "ldmatrix_x4",
        "// Four 8 x 8 matrices; lane l gives row l % 8 of matrix l / 8, and gets elements 2 * (l % 4) and the next of each row l / 4.
__device__ inline void ldmatrix_x4(unsigned int* to, const unsigned short* row) {
    const unsigned int at = (unsigned int)__cvta_generic_to_shared(row);
    asm volatile(\"ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\"
                 : \"=r\"(to[0]), \"=r\"(to[1]), \"=r\"(to[2]), \"=r\"(to[3]) : \"r\"(at) : \"memory\");
}",
    ),
    (
        "ldmatrix_x4_trans",
        "// As ldmatrix_x4, of the matrices transposed.
__device__ inline void ldmatrix_x4_trans(unsigned int* to, const unsigned short* row) {
    const unsigned int at = (unsigned int)__cvta_generic_to_shared(row);
    asm volatile(\"ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\"
                 : \"=r\"(to[0]), \"=r\"(to[1]), \"=r\"(to[2]), \"=r\"(to[3]) : \"r\"(at) : \"memory\");
}",
    ),
    (
        "mma_m16n8k16_bf16",
        "// c[16, 8] += a[16, 16] * b[16, 8] by a warp, sums in f32.
__device__ inline void mma_m16n8k16_bf16(float* c, const unsigned int* a, const unsigned int* b) {
    asm volatile(\"mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\"
                 : \"+f\"(c[0]), \"+f\"(c[1]), \"+f\"(c[2]), \"+f\"(c[3])
                 : \"r\"(a[0]), \"r\"(a[1]), \"r\"(a[2]), \"r\"(a[3]), \"r\"(b[0]), \"r\"(b[1]));
}",
    ),
    (
        "mma_m16n8k16_f16",
        "// c[16, 8] += a[16, 16] * b[16, 8] by a warp, sums in f32.
__device__ inline void mma_m16n8k16_f16(float* c, const unsigned int* a, const unsigned int* b) {
    asm volatile(\"mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\"
                 : \"+f\"(c[0]), \"+f\"(c[1]), \"+f\"(c[2]), \"+f\"(c[3])
                 : \"r\"(a[0]), \"r\"(a[1]), \"r\"(a[2]), \"r\"(a[3]), \"r\"(b[0]), \"r\"(b[1]));
}",
    ),
];
