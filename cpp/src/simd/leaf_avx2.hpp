// Vector leaf for x86-64 with AVX2, FMA and F16C: 32-byte vectors.
#pragma once

constexpr int kNativeBytes = 32;
constexpr bool kHasFma = true;

typedef float NativeFloat __attribute__((vector_size(kNativeBytes)));
typedef double NativeDouble __attribute__((vector_size(kNativeBytes)));
typedef uint32_t NativeBits __attribute__((vector_size(kNativeBytes)));

CROSSENT_INLINE NativeFloat native_fma(NativeFloat a, NativeFloat b, NativeFloat c) {
  return (NativeFloat)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
CROSSENT_INLINE NativeDouble native_fma(NativeDouble a, NativeDouble b, NativeDouble c) {
  return (NativeDouble)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
}

CROSSENT_INLINE NativeFloat native_max(NativeFloat a, NativeFloat b) {
  return (NativeFloat)_mm256_max_ps((__m256)a, (__m256)b);
}
CROSSENT_INLINE NativeDouble native_max(NativeDouble a, NativeDouble b) {
  return (NativeDouble)_mm256_max_pd((__m256d)a, (__m256d)b);
}

CROSSENT_INLINE NativeFloat sum_error(NativeFloat a, NativeFloat b, NativeFloat sum) { return sum_error_by_parts(a, b, sum); }
CROSSENT_INLINE NativeDouble sum_error(NativeDouble a, NativeDouble b, NativeDouble sum) {
  return sum_error_by_parts(a, b, sum);
}

CROSSENT_INLINE bool any_lane_less(NativeFloat a, NativeFloat b) {
  return _mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_LT_OQ)) != 0;
}
CROSSENT_INLINE bool any_lane_less(NativeDouble a, NativeDouble b) {
  return _mm256_movemask_pd(_mm256_cmp_pd((__m256d)a, (__m256d)b, _CMP_LT_OQ)) != 0;
}
CROSSENT_INLINE bool any_lane_equal(NativeFloat a, NativeFloat b) {
  return _mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_EQ_OQ)) != 0;
}
CROSSENT_INLINE bool any_lane_equal(NativeDouble a, NativeDouble b) {
  return _mm256_movemask_pd(_mm256_cmp_pd((__m256d)a, (__m256d)b, _CMP_EQ_OQ)) != 0;
}

CROSSENT_INLINE NativeDouble widen_low(NativeFloat a) {
  return (NativeDouble)_mm256_cvtps_pd(_mm256_castps256_ps128((__m256)a));
}
CROSSENT_INLINE NativeDouble widen_high(NativeFloat a) {
  return (NativeDouble)_mm256_cvtps_pd(_mm256_extractf128_ps((__m256)a, 1));
}
CROSSENT_INLINE NativeDouble load_widened(const float* p) { return (NativeDouble)_mm256_cvtps_pd(_mm_loadu_ps(p)); }
CROSSENT_INLINE void store_narrowed(float* p, NativeDouble a) { _mm_storeu_ps(p, _mm256_cvtpd_ps((__m256d)a)); }
CROSSENT_INLINE NativeFloat narrow(NativeDouble low, NativeDouble high) {
  return (NativeFloat)_mm256_set_m128(_mm256_cvtpd_ps((__m256d)high), _mm256_cvtpd_ps((__m256d)low));
}

constexpr bool kStreams = true;  // there are stores past the caches
CROSSENT_INLINE void store_stream(float* p, NativeFloat a) { _mm256_stream_ps(p, (__m256)a); }
CROSSENT_INLINE void store_stream(double* p, NativeDouble a) { _mm256_stream_pd(p, (__m256d)a); }
CROSSENT_INLINE void finish_stream() { _mm_sfence(); }

CROSSENT_INLINE NativeBits load_16_bits(const void* p) {
  return (NativeBits)_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p));
}
CROSSENT_INLINE void store_16_bits(void* p, NativeBits a) {
  const __m256i packed = _mm256_packus_epi32((__m256i)a, (__m256i)a);
  _mm_storeu_si128((__m128i*)p, _mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08)));
}

CROSSENT_INLINE void store_bfloat16_pair(void* p, NativeFloat a, NativeFloat b) {
  store_16_bits(p, float_to_bfloat16_bits<NativeBits>(a));
  store_16_bits((char*)p + kNativeBytes / 2, float_to_bfloat16_bits<NativeBits>(b));
}

CROSSENT_INLINE NativeFloat load_halves(const void* p) {
  return (NativeFloat)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p));
}
CROSSENT_INLINE void store_halves(void* p, NativeFloat a) {
  _mm_storeu_si128((__m128i*)p, _mm256_cvtps_ph((__m256)a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

CROSSENT_INLINE __m256i first_lanes_32(ptrdiff_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
CROSSENT_INLINE __m256i first_lanes_64(ptrdiff_t count) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
}
CROSSENT_INLINE NativeFloat load_first(const float* p, ptrdiff_t count, NativeFloat fill) {
  const __m256i first = first_lanes_32(count);
  return (NativeFloat)_mm256_blendv_ps((__m256)fill, _mm256_maskload_ps(p, first), (__m256)first);
}
CROSSENT_INLINE NativeDouble load_first(const double* p, ptrdiff_t count, NativeDouble fill) {
  const __m256i first = first_lanes_64(count);
  return (NativeDouble)_mm256_blendv_pd((__m256d)fill, _mm256_maskload_pd(p, first), (__m256d)first);
}
// By halves and quarters, not by masked stores, which take processors of AMD 12 cycles (Zen 4, softmax of 403 classes: 39.7 ->
// 35.8 cycles a vector). A multiple of 4 bytes.
CROSSENT_INLINE void store_first_bytes(char* p, ptrdiff_t bytes, __m256i a) {
  if (bytes >= kNativeBytes) return _mm256_storeu_si256((__m256i*)p, a);
  if (bytes <= 0) return;
  __m128i lanes = _mm256_castsi256_si128(a);
  if (bytes & 16) {
    __builtin_memcpy(p, &lanes, 16);
    lanes = _mm256_extracti128_si256(a, 1);
    p += 16;
  }
  if (bytes & 8) {
    __builtin_memcpy(p, &lanes, 8);
    lanes = _mm_unpackhi_epi64(lanes, lanes);
    p += 8;
  }
  if (bytes & 4) __builtin_memcpy(p, &lanes, 4);
}
CROSSENT_INLINE void store_first(float* p, ptrdiff_t count, NativeFloat a) {
  store_first_bytes((char*)p, 4 * count, (__m256i)a);
}
CROSSENT_INLINE void store_first(double* p, ptrdiff_t count, NativeDouble a) {
  store_first_bytes((char*)p, 8 * count, (__m256i)a);
}
CROSSENT_INLINE void read_first_16_bits(const void* from, ptrdiff_t count, void* to) {
  read_first_16_bits_by_copy(from, count, to);
}
CROSSENT_INLINE void write_first_16_bits(void* to, ptrdiff_t count, const void* from) {
  write_first_16_bits_by_copy(to, count, from);
}

// Within each 16-byte chunk: the first halves' lanes in turn, or the second halves'.
CROSSENT_INLINE NativeFloat interleave_low(NativeFloat a, NativeFloat b) {
  return (NativeFloat)_mm256_unpacklo_ps((__m256)a, (__m256)b);
}
CROSSENT_INLINE NativeFloat interleave_high(NativeFloat a, NativeFloat b) {
  return (NativeFloat)_mm256_unpackhi_ps((__m256)a, (__m256)b);
}
CROSSENT_INLINE NativeDouble interleave_low(NativeDouble a, NativeDouble b) {
  return (NativeDouble)_mm256_unpacklo_pd((__m256d)a, (__m256d)b);
}
CROSSENT_INLINE NativeDouble interleave_high(NativeDouble a, NativeDouble b) {
  return (NativeDouble)_mm256_unpackhi_pd((__m256d)a, (__m256d)b);
}

// Chunk k of the vector is the 16 bytes at p + k * step.
CROSSENT_INLINE NativeFloat load_chunks(const char* p, ptrdiff_t step) {
  const __m256 low = _mm256_castps128_ps256(_mm_loadu_ps((const float*)p));
  return (NativeFloat)_mm256_insertf128_ps(low, _mm_loadu_ps((const float*)(p + step)), 1);
}
// The same of elements of 16 bits: chunk k is made of the 8 bytes at p + k * step.
CROSSENT_INLINE __m128i read_16_bit_chunks(const char* p, ptrdiff_t step) {
  return _mm_castpd_si128(_mm_loadh_pd(_mm_castsi128_pd(_mm_loadl_epi64((const __m128i*)p)), (const double*)(p + step)));
}
CROSSENT_INLINE NativeBits load_16_bit_chunks(const char* p, ptrdiff_t step) {
  return (NativeBits)_mm256_cvtepu16_epi32(read_16_bit_chunks(p, step));
}
CROSSENT_INLINE NativeFloat load_half_chunks(const char* p, ptrdiff_t step) {
  return (NativeFloat)_mm256_cvtph_ps(read_16_bit_chunks(p, step));
}
CROSSENT_INLINE void store_chunks(char* p, ptrdiff_t step, NativeFloat a) {
  _mm_storeu_ps((float*)p, _mm256_castps256_ps128((__m256)a));
  _mm_storeu_ps((float*)(p + step), _mm256_extractf128_ps((__m256)a, 1));
}

CROSSENT_INLINE void write_16_bit_chunks(char* p, ptrdiff_t step, __m128i a) {
  _mm_storel_epi64((__m128i*)p, a);
  __builtin_memcpy(p + step, (const char*)&a + 8, 8);
}
CROSSENT_INLINE void store_16_bit_chunks(char* p, ptrdiff_t step, NativeBits a) {
  const __m256i packed = _mm256_packus_epi32((__m256i)a, (__m256i)a);
  write_16_bit_chunks(p, step, _mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08)));
}
CROSSENT_INLINE void store_half_chunks(char* p, ptrdiff_t step, NativeFloat a) {
  write_16_bit_chunks(p, step, _mm256_cvtps_ph((__m256)a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

// Bit i: the sign of lane i, as comparisons set it.
CROSSENT_INLINE uint32_t lane_signs(NativeFloat a) { return (uint32_t)_mm256_movemask_ps((__m256)a); }
CROSSENT_INLINE uint32_t lane_signs(NativeDouble a) { return (uint32_t)_mm256_movemask_pd((__m256d)a); }

#include "lanes.hpp"
