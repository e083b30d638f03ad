// Vector leaf for any processor: 16-byte vectors, no fused multiply-add.
// Without FMA the last bits of a result may differ from the other sets; the accuracy bounds hold all the same (the kernels
// keep n * ln2_hi exact without FMA).
#pragma once

constexpr int kNativeBytes = 16;
constexpr bool kHasFma = false;

typedef float NativeFloat __attribute__((vector_size(kNativeBytes)));
typedef double NativeDouble __attribute__((vector_size(kNativeBytes)));
typedef uint32_t NativeBits __attribute__((vector_size(kNativeBytes)));
typedef uint64_t NativeBits64 __attribute__((vector_size(kNativeBytes)));

CROSSENT_INLINE NativeFloat native_fma(NativeFloat a, NativeFloat b, NativeFloat c) { return a * b + c; }
CROSSENT_INLINE NativeDouble native_fma(NativeDouble a, NativeDouble b, NativeDouble c) { return a * b + c; }

CROSSENT_INLINE NativeFloat sum_error(NativeFloat a, NativeFloat b, NativeFloat sum) { return sum_error_by_parts(a, b, sum); }
CROSSENT_INLINE NativeDouble sum_error(NativeDouble a, NativeDouble b, NativeDouble sum) {
  return sum_error_by_parts(a, b, sum);
}

#if defined(__SSE2__)
CROSSENT_INLINE NativeFloat native_max(NativeFloat a, NativeFloat b) { return (NativeFloat)_mm_max_ps((__m128)a, (__m128)b); }
CROSSENT_INLINE NativeDouble native_max(NativeDouble a, NativeDouble b) {
  return (NativeDouble)_mm_max_pd((__m128d)a, (__m128d)b);
}
CROSSENT_INLINE bool any_lane_less(NativeFloat a, NativeFloat b) {
  return _mm_movemask_ps(_mm_cmplt_ps((__m128)a, (__m128)b)) != 0;
}
CROSSENT_INLINE bool any_lane_less(NativeDouble a, NativeDouble b) {
  return _mm_movemask_pd(_mm_cmplt_pd((__m128d)a, (__m128d)b)) != 0;
}
CROSSENT_INLINE bool any_lane_equal(NativeFloat a, NativeFloat b) {
  return _mm_movemask_ps(_mm_cmpeq_ps((__m128)a, (__m128)b)) != 0;
}
CROSSENT_INLINE bool any_lane_equal(NativeDouble a, NativeDouble b) {
  return _mm_movemask_pd(_mm_cmpeq_pd((__m128d)a, (__m128d)b)) != 0;
}
CROSSENT_INLINE NativeDouble widen_low(NativeFloat a) { return (NativeDouble)_mm_cvtps_pd((__m128)a); }
CROSSENT_INLINE NativeDouble widen_high(NativeFloat a) {
  return (NativeDouble)_mm_cvtps_pd(_mm_movehl_ps((__m128)a, (__m128)a));
}
// Not two ordinary conversions: gcc 12 makes vectors of them and takes (double)(float)x for x where a load follows the store.
CROSSENT_INLINE NativeDouble load_widened(const float* p) {
  NativeFloat a = {};
  __builtin_memcpy(&a, p, 2 * sizeof *p);
  return widen_low(a);
}
CROSSENT_INLINE void store_narrowed(float* p, NativeDouble a) {
  const __m128 narrow = _mm_cvtpd_ps((__m128d)a);
  __builtin_memcpy(p, &narrow, 2 * sizeof *p);
}
#else
CROSSENT_INLINE NativeFloat native_max(NativeFloat a, NativeFloat b) { return a > b ? a : b; }
CROSSENT_INLINE NativeDouble native_max(NativeDouble a, NativeDouble b) { return a > b ? a : b; }
CROSSENT_INLINE bool any_lane_less(NativeFloat a, NativeFloat b) {
  return a[0] < b[0] || a[1] < b[1] || a[2] < b[2] || a[3] < b[3];
}
CROSSENT_INLINE bool any_lane_less(NativeDouble a, NativeDouble b) { return a[0] < b[0] || a[1] < b[1]; }
CROSSENT_INLINE bool any_lane_equal(NativeFloat a, NativeFloat b) {
  return a[0] == b[0] || a[1] == b[1] || a[2] == b[2] || a[3] == b[3];
}
CROSSENT_INLINE bool any_lane_equal(NativeDouble a, NativeDouble b) { return a[0] == b[0] || a[1] == b[1]; }
CROSSENT_INLINE NativeDouble widen_low(NativeFloat a) { return NativeDouble{(double)a[0], (double)a[1]}; }
CROSSENT_INLINE NativeDouble widen_high(NativeFloat a) { return NativeDouble{(double)a[2], (double)a[3]}; }
CROSSENT_INLINE NativeDouble load_widened(const float* p) { return NativeDouble{(double)p[0], (double)p[1]}; }
CROSSENT_INLINE void store_narrowed(float* p, NativeDouble a) {
  float lane[] = {(float)a[0], (float)a[1]};
  asm("" : "+m"(lane));  // see above: the compiler cannot tell what stands there
  __builtin_memcpy(p, lane, sizeof lane);
}
#endif
CROSSENT_INLINE NativeFloat narrow(NativeDouble low, NativeDouble high) {
  float lane[4];
  store_narrowed(lane, low);
  store_narrowed(lane + 2, high);
  NativeFloat a;
  __builtin_memcpy(&a, lane, sizeof a);
  return a;
}

CROSSENT_INLINE NativeBits load_16_bits(const void* p) {
  uint16_t lane[4];
  __builtin_memcpy(lane, p, sizeof lane);
  return NativeBits{lane[0], lane[1], lane[2], lane[3]};
}
CROSSENT_INLINE void store_16_bits(void* p, NativeBits a) {
  const uint16_t lane[4] = {(uint16_t)a[0], (uint16_t)a[1], (uint16_t)a[2], (uint16_t)a[3]};
  __builtin_memcpy(p, lane, sizeof lane);
}

CROSSENT_INLINE void store_bfloat16_pair(void* p, NativeFloat a, NativeFloat b) {
  store_16_bits(p, float_to_bfloat16_bits<NativeBits>(a));
  store_16_bits((char*)p + kNativeBytes / 2, float_to_bfloat16_bits<NativeBits>(b));
}

CROSSENT_INLINE NativeFloat load_halves(const void* p) { return half_bits_to_float<NativeFloat>(load_16_bits(p)); }
CROSSENT_INLINE void store_halves(void* p, NativeFloat a) { store_16_bits(p, float_to_half_bits<NativeBits>(a)); }

#include "leaf_16_bytes.hpp"

// Bit i: the sign of lane i, as comparisons set it.
#if defined(__SSE2__)
CROSSENT_INLINE uint32_t lane_signs(NativeFloat a) { return (uint32_t)_mm_movemask_ps((__m128)a); }
CROSSENT_INLINE uint32_t lane_signs(NativeDouble a) { return (uint32_t)_mm_movemask_pd((__m128d)a); }
#else
CROSSENT_INLINE uint32_t lane_signs(NativeFloat a) { return lane_signs_by_shifts<NativeBits>(a); }
CROSSENT_INLINE uint32_t lane_signs(NativeDouble a) { return lane_signs_by_shifts<NativeBits64>(a); }
#endif

#include "lanes.hpp"
