// Per-target source, as cpp/src/kernels.cpp: streaming and exponentials in the vectors that the kernels use.
#include "limits.hpp"

#include "simd/compiler.hpp"

namespace crossent {
namespace CROSSENT_TARGET {
namespace {

// clang-format off: each header uses those before it
#include "simd/vec.hpp"
#include "kernels/vectors.hpp"
#include "kernels/exp.hpp"
// clang-format on

constexpr ptrdiff_t kLanes = Vec<float>::kLanes;
// Vectors in flight: enough to hide the latency of an addition.
constexpr ptrdiff_t kUnroll = 8;

void read(const char* source, ptrdiff_t bytes) {
  const float* p = (const float*)source;
  NativeInt32 sum[kUnroll][kParts] = {};  // of bit patterns: arithmetic on what happens to be subnormal could be slow
  for (ptrdiff_t i = 0; i < bytes / (ptrdiff_t)sizeof(float); i += kUnroll * kLanes) {
    for (ptrdiff_t k = 0; k < kUnroll; ++k) {
      const Vec<float> a = load(p + i + k * kLanes);
      for_each_part([&](int j) CROSSENT_LAMBDA { sum[k][j] += (NativeInt32)a.part[j]; });
    }
  }
  asm volatile("" : : "r"(sum) : "memory");  // the sums count as used
}

void copy(const char* source, char* target, ptrdiff_t bytes) {
  const float* p = (const float*)source;
  float* q = (float*)target;
  for (ptrdiff_t i = 0; i < bytes / (ptrdiff_t)sizeof(float); i += kLanes) {
    store(q + i, load(p + i));
    asm volatile("" : : : "memory");  // or the compiler makes it a call of memcpy
  }
}

#if defined(__x86_64__)
CROSSENT_INLINE void stream(float* p, NativeFloat a) {
#if defined(__AVX512F__)
  _mm512_stream_ps(p, (__m512)a);
#elif defined(__AVX__)
  _mm256_stream_ps(p, (__m256)a);
#else
  _mm_stream_ps(p, (__m128)a);
#endif
}

void copy_nontemporal(const char* source, char* target, ptrdiff_t bytes) {
  const float* p = (const float*)source;
  float* q = (float*)target;
  for (ptrdiff_t i = 0; i < bytes / (ptrdiff_t)sizeof(float); i += kLanes) {
    const Vec<float> a = load(p + i);
    for_each_part([&](int k) CROSSENT_LAMBDA { stream(q + i + k * Vec<float>::kNativeLanes, a.part[k]); });
  }
  _mm_sfence();
}
#else
constexpr void (*copy_nontemporal)(const char*, char*, ptrdiff_t) = nullptr;
#endif

// y = exp(x) * 2**bias: the kernels' exponential, but of a plain number, which has no rounding error to carry along.
template <class T>
void exponentials(const T* x, T* y, ptrdiff_t count) {
  using K = ExpConstants<T>;
  for (ptrdiff_t i = 0; i < count; i += Vec<T>::kLanes) {
    const Vec<T> d = load(x + i);
    const Vec<T> shifted = fma(d, splat(K::log2_e), splat(K::shifter));
    const Vec<T> n = shifted - splat(K::shifter);
    const Vec<T> r = fma(n, splat(-K::ln2_lo), fma(n, splat(-K::ln2_hi), d));
    Vec<T> q = splat(K::q[0]);
    for (size_t k = 1; k < sizeof K::q / sizeof K::q[0]; ++k) q = fma(q, r, splat(K::q[k]));
    const Vec<T> power = power_of_two(shifted);
    store(y + i, fma(r * power, fma(r, q, splat((T)1)), power));
  }
}

}  // namespace

extern const LimitLoops limits;
const LimitLoops limits = {read, copy, copy_nontemporal, exponentials<float>, exponentials<double>};

}  // namespace CROSSENT_TARGET
}  // namespace crossent
