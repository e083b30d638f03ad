// Vector leaf for 64-bit ARM (NEON is part of its base instruction set): 16-byte vectors.
#pragma once

constexpr int kNativeBytes = 16;
constexpr bool kHasFma = true;

typedef float NativeFloat __attribute__((vector_size(kNativeBytes)));
typedef double NativeDouble __attribute__((vector_size(kNativeBytes)));
typedef uint32_t NativeBits __attribute__((vector_size(kNativeBytes)));

CROSSENT_INLINE NativeFloat native_fma(NativeFloat a, NativeFloat b, NativeFloat c) {
  return (NativeFloat)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
CROSSENT_INLINE NativeDouble native_fma(NativeDouble a, NativeDouble b, NativeDouble c) {
  return (NativeDouble)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
}

CROSSENT_INLINE NativeFloat native_max(NativeFloat a, NativeFloat b) { return a > b ? a : b; }
CROSSENT_INLINE NativeDouble native_max(NativeDouble a, NativeDouble b) { return a > b ? a : b; }

CROSSENT_INLINE NativeFloat sum_error(NativeFloat a, NativeFloat b, NativeFloat sum) { return sum_error_by_parts(a, b, sum); }
CROSSENT_INLINE NativeDouble sum_error(NativeDouble a, NativeDouble b, NativeDouble sum) {
  return sum_error_by_parts(a, b, sum);
}

CROSSENT_INLINE bool any_lane_less(NativeFloat a, NativeFloat b) { return vmaxvq_u32((uint32x4_t)(a < b)) != 0; }
CROSSENT_INLINE bool any_lane_less(NativeDouble a, NativeDouble b) { return vmaxvq_u32((uint32x4_t)(a < b)) != 0; }
CROSSENT_INLINE bool any_lane_equal(NativeFloat a, NativeFloat b) { return vmaxvq_u32((uint32x4_t)(a == b)) != 0; }
CROSSENT_INLINE bool any_lane_equal(NativeDouble a, NativeDouble b) { return vmaxvq_u32((uint32x4_t)(a == b)) != 0; }

CROSSENT_INLINE NativeDouble widen_low(NativeFloat a) { return (NativeDouble)vcvt_f64_f32(vget_low_f32((float32x4_t)a)); }
CROSSENT_INLINE NativeDouble widen_high(NativeFloat a) { return (NativeDouble)vcvt_high_f64_f32((float32x4_t)a); }
CROSSENT_INLINE NativeDouble load_widened(const float* p) { return (NativeDouble)vcvt_f64_f32(vld1_f32(p)); }
CROSSENT_INLINE void store_narrowed(float* p, NativeDouble a) { vst1_f32(p, vcvt_f32_f64((float64x2_t)a)); }
CROSSENT_INLINE NativeFloat narrow(NativeDouble low, NativeDouble high) {
  return (NativeFloat)vcvt_high_f32_f64(vcvt_f32_f64((float64x2_t)low), (float64x2_t)high);
}

CROSSENT_INLINE NativeBits load_16_bits(const void* p) {
  uint16x4_t lanes;
  __builtin_memcpy(&lanes, p, sizeof lanes);
  return (NativeBits)vmovl_u16(lanes);
}
CROSSENT_INLINE void store_16_bits(void* p, NativeBits a) {
  const uint16x4_t lanes = vmovn_u32((uint32x4_t)a);
  __builtin_memcpy(p, &lanes, sizeof lanes);
}

CROSSENT_INLINE void store_bfloat16_pair(void* p, NativeFloat a, NativeFloat b) {
  store_16_bits(p, float_to_bfloat16_bits<NativeBits>(a));
  store_16_bits((char*)p + kNativeBytes / 2, float_to_bfloat16_bits<NativeBits>(b));
}

CROSSENT_INLINE NativeFloat load_halves(const void* p) {
  float16x4_t lanes;
  __builtin_memcpy(&lanes, p, sizeof lanes);
  return (NativeFloat)vcvt_f32_f16(lanes);
}
CROSSENT_INLINE void store_halves(void* p, NativeFloat a) {
  const float16x4_t lanes = vcvt_f16_f32((float32x4_t)a);
  __builtin_memcpy(p, &lanes, sizeof lanes);
}

#include "leaf_16_bytes.hpp"

// Bit i: the sign of lane i, as comparisons set it.
CROSSENT_INLINE uint32_t lane_signs(NativeFloat a) { return lane_signs_by_shifts<uint32x4_t>(a); }
CROSSENT_INLINE uint32_t lane_signs(NativeDouble a) { return lane_signs_by_shifts<uint64x2_t>(a); }

#include "lanes.hpp"
